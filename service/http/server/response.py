"""A response as a handler returns it: status, body (JSON by default), extra header lines. `protocol` writes it."""

import time
from email.utils import formatdate
from http import HTTPStatus

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
#: Statuses of responses without a body and without Content-Length (RFC 9110, 15.4.5).
_BODILESS = frozenset({204, 304})


class Response:
    """One response; `headers` are whole lines, each ending with CRLF.

    `reason` is that of an error. After a response that `throttles`, the server waits a moment before it reads the connection's
    next request.
    """

    __slots__ = ("body", "content_type", "headers", "keep_alive", "reason", "status", "throttles")

    def __init__(
        self,
        body: bytes = b"",
        *,
        status: int = 200,
        headers: bytes = b"",
        reason: str = "",
        content_type: bytes = b"application/json",
    ) -> None:
        self.body = body
        self.reason = reason
        self.content_type = content_type
        self.status = status
        self.headers = headers
        self.keep_alive = True
        self.throttles = False

    def encode(self, *, with_body: bool, http_1_0: bool) -> bytes:
        """The bytes on the wire. `with_body` is false for a HEAD request."""
        connection = b""
        if not self.keep_alive:
            connection = b"Connection: close\r\n"
        elif http_1_0:
            connection = b"Connection: keep-alive\r\n"
        if self.status in _BODILESS:
            return b"%b%b%bDate: %b\r\n\r\n" % (_STATUS_LINES[self.status], self.headers, connection, _date())
        return b"%bContent-Type: %b\r\nContent-Length: %d\r\n%b%bDate: %b\r\n\r\n%b" % (
            _STATUS_LINES[self.status],
            self.content_type,
            len(self.body),
            self.headers,
            connection,
            _date(),
            self.body if with_body else b"",
        )


_now: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    """The value of the Date header, formatted once a second."""
    global _now
    second = int(time.time())
    if _now[0] != second:
        _now = (second, formatdate(second, usegmt=True).encode())
    return _now[1]
