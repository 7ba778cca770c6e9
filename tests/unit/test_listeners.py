"""Listening sockets: one port for all, and never a port that another process has."""

import socket

import pytest

from service.errors import StartupError
from service.process.listeners import open_listeners, origin


def close(listeners: list[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


def test_all_listen_on_the_port_of_the_first() -> None:
    listeners = open_listeners("127.0.0.1", 0, 3)
    assert len({listener.getsockname() for listener in listeners}) == 1
    with socket.create_connection(listeners[0].getsockname()):
        pass
    close(listeners)


def test_a_port_with_a_listener_is_refused_even_if_it_could_be_shared() -> None:
    listeners = open_listeners("127.0.0.1", 0, 1)
    port = listeners[0].getsockname()[1]
    with pytest.raises(StartupError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
        open_listeners("127.0.0.1", port, 1)
    close(listeners)


def test_a_port_is_free_again_immediately_despite_connections_in_time_wait() -> None:
    listeners = open_listeners("127.0.0.1", 0, 1)
    address = listeners[0].getsockname()
    with socket.create_connection(address) as client:
        listeners[0].setblocking(True)  # noqa: FBT003 - positional only
        accepted, _ = listeners[0].accept()
        # The side that closes first is the one that lingers.
        accepted.close()
        assert client.recv(1) == b""
    close(listeners)
    host, port = address
    close(open_listeners(host, port, 1))


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(StartupError, match=r"cannot listen on 192\.0\.2\.1 port 0: "):
        open_listeners("192.0.2.1", 0, 1)


@pytest.mark.parametrize(
    ("host", "start"),
    [
        ("127.0.0.1", "http://127.0.0.1:"),
        ("::1", "http://[::1]:"),
        ("0.0.0.0", "http://127.0.0.1:"),  # noqa: S104 - closed after the test
        ("localhost", "http://127."),
    ],
)
def test_the_origin_can_be_called_from_this_machine(host: str, start: str) -> None:
    listeners = open_listeners(host, 0, 1)
    assert origin(listeners[0]).startswith(start)
    close(listeners)
