"""Messages to systemd, as man 3 sd_notify defines them."""

import logging
import re
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.process.systemd import Notifier


@pytest.fixture(params=["a path", "an abstract address"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The socket of a service manager, and its address as in NOTIFY_SOCKET."""
    address = str(tmp_path / "notify") if request.param == "a path" else f"@scc-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address.replace("@", "\0") if address.startswith("@") else address)
        receiver.setblocking(False)  # noqa: FBT003 - positional only
        yield receiver, address


def received(receiver: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(receiver.recv(4096).decode())
        except BlockingIOError:
            return messages


def test_each_state_is_sent_once_and_again_after_another(manager: tuple[socket.socket, str]) -> None:
    receiver, address = manager
    environment = {"NOTIFY_SOCKET": address, "HOME": "/"}
    notifier = Notifier(environment)
    for _ in range(2):
        notifier.ready()
    notifier.reloading()
    notifier.ready()
    notifier.stopping()
    ready, reloading, ready_again, stopping = received(receiver)
    assert (ready, ready_again, stopping) == ("READY=1", "READY=1", "STOPPING=1")
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", reloading)
    assert environment == {"HOME": "/"}


def test_without_a_service_manager_nothing_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    Notifier({}).ready()
    assert caplog.messages == []


def test_a_message_that_cannot_be_sent_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Notifier({"NOTIFY_SOCKET": str(tmp_path / "missing")}).ready()
    assert caplog.messages == ["cannot tell systemd READY=1: [Errno 2] No such file or directory"]
