"""HTTP over raw sockets: a test decides every byte that is sent."""

import errno
import http.client
import io
import select
import socket
import time
from contextlib import suppress
from typing import Self

from tests.support.http import Api, Response, check_envelope
from tests.support.server import PATIENCE

#: Seconds without an answer after which a client ends its side.
IDLE = 0.1


def connect(api: Api) -> socket.socket:
    """A connection to the server."""
    host, _, port = api.server.origin.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def head(api: Api, line: str, *headers: str) -> bytes:
    """The head of a request with the key of `api`."""
    return "\r\n".join([line, "Host: x", f"Authorization: Bearer {api.key}", *headers, "", ""]).encode("latin-1")


def answer_on(connection: socket.socket) -> Response:
    """The next answer; its connection can be used for another."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    answer = Response(response.status, response.msg, response.read())
    check_envelope(answer)
    return answer


def exchange(api: Api, *parts: bytes) -> Response:
    """Send the parts, each in a packet of its own, and take the answer. `Connection: close` has to be kept."""
    with connect(api) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.1 if len(parts) > 1 else 0)
        answer = answer_on(connection)
        if answer.headers["Connection"] == "close":
            with suppress(ConnectionError):
                assert connection.recv(1) == b"", "the server announced to close the connection"
        return answer


class _Stream(io.BytesIO):
    """Bytes as http.client reads them off a socket. It closes that after each answer, though another may follow."""

    def makefile(self, _: str) -> Self:
        return self

    def close(self) -> None:
        pass


def conversation(api: Api, sent: bytes, *, half_close: bool = False) -> list[Response]:
    """Send all of `sent`, and take every answer until the server closes the connection.

    A server that answers `Connection: close` has to close it although the client's side is open. Otherwise the client ends its
    side when no more answers come, or immediately with `half_close`.
    """
    received = bytearray()
    with connect(api) as connection:
        try:
            connection.sendall(sent)
            is_open = not half_close
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while True:
                if is_open and b"\r\nConnection: close\r\n" not in received and not _is_readable(connection, IDLE):
                    is_open = False
                    connection.shutdown(socket.SHUT_WR)
                part = connection.recv(65536)
                if not part:
                    break
                received += part
        except OSError as error:
            # The server closed it without reading the rest; what it sent before counts. To shut down is then ENOTCONN.
            if not isinstance(error, ConnectionError) and error.errno != errno.ENOTCONN:
                raise
    return answers_in(bytes(received))


def _is_readable(connection: socket.socket, seconds: float) -> bool:
    # Not select(), which takes no file descriptor above 1023.
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def answers_in(received: bytes) -> list[Response]:
    """The answers in a stream of bytes; 100 Continue is none."""
    stream, answers = _Stream(received), []
    while stream.tell() < len(received):
        response = http.client.HTTPResponse(stream)  # type: ignore[arg-type]  # all that it uses of a socket
        response.begin()
        answers.append(Response(response.status, response.msg, response.read()))
        check_envelope(answers[-1], request_id=response.msg["X-Request-Id"])
    return answers
