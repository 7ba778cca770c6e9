"""The command `health` against servers that answer anything."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from service import cli


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that sends `answer` to one request; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                request = connection.recv(4096)
                assert request.startswith(b"GET /health HTTP/1.1\r\nHost: ")
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    ("answer", "status", "output"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", 0, "healthy"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", 1, "127.0.0.1 port {} answers /health with status 503"),
        (b"220 mail ready\r\n", 1, "127.0.0.1 port {} does not answer in HTTP"),
        (b"", 1, "127.0.0.1 port {} does not answer in HTTP"),
    ],
)
def test_a_server_is_healthy_if_it_answers_200(
    answer: bytes, status: int, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(answer) as port:
        assert cli.main(["health", "--port", str(port)]) == status
    assert "".join(capsys.readouterr()) == f"{output.format(port)}\n"


def test_the_port_must_be_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["health", "--port", "0"]) == 1
    assert capsys.readouterr().err == "port is 0, so the server's port is unknown; set SCC_PORT or --port\n"
