"""aiohttp's HTTP protocol under this service's own dispatch: requests come in parsed by aiohttp, answers go out in one write.

aiohttp's application layer (its router, middleware and response objects) costs more than all the rest of a GET; `dispatch` and
`answer` stand in its place. What concerns connections (parsing, keep-alive, flow control, the end) stays aiohttp's.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from time import monotonic
from typing import Any, cast

from aiohttp import HttpVersion10, web
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, LineTooLong

from service.errors import BadRequest, HeadTooLarge, Overloaded, RequestTimeout, ServiceError, UriTooLong
from service.http.api import parsing, representations
from service.http.server.connections import MAX_FIELD_BYTES, MAX_FIELDS, Server
from service.http.server.memory import COPIES, GRACE, UNCOUNTED_BYTES
from service.http.server.receiver import Receiver, head_cost
from service.http.server.response import Response

log = logging.getLogger("service")
access_log = logging.getLogger("service.access")

#: Connections beyond the maximum that may still send one request each, and how long the server waits for it, in seconds.
EXTRA_CONNECTIONS, EXTRA_WAIT = 16, 1.0
#: How aiohttp says that there are more; it has no class for that error.
_TOO_MANY_FIELDS = "Too many headers received"
#: Seconds that work goes on for a client that has ended its side of the connection.
HALF_CLOSED_PATIENCE = 0.1
#: An answer to GET that is not written where the worker has no memory for it, in bytes.
LARGE_ANSWER = 64 * 1024
#: Bytes a second of an answer that a client has to take on average over the client timeout.
LEAST_PACE = 16 * 1024

#: SO_LINGER: a close that waits for nothing.
AT_ONCE = struct.pack("ii", 1, 0)


class Protocol(Receiver):
    """One client's connection."""

    __slots__ = ("_closed", "_kept_head", "_untaken", "_waited_for")

    def __init__(self, server: Server, **kwargs: Any) -> None:  # noqa: ANN401 - aiohttp's signature
        super().__init__(server, **kwargs)
        self._closed: asyncio.Future[None] | None = None
        self._kept_head = 0  # what the last head takes: aiohttp keeps it until the next request
        self._untaken = 0  # bytes of an answer, while a part of it waits; all of them are kept until the last is sent
        self._waited_for = 0  # bytes that waited when it was written

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, if there is room for it or room can be made."""
        self._server.open_connections += 1
        # Room is made before aiohttp starts the connection's task. From Python 3.12 on the task starts eagerly, so that the
        # connection would count as idle and be closed to make room for itself.
        has_room = self._server.make_room()
        # Without this up to 64 KiB of an answer could wait and count as taken.
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=0)
        super().connection_made(transport)
        if not has_room:
            self._refuse()

    def _refuse(self) -> None:
        """Answer 503, but first wait for the request: it may be the health check, which is always answered."""
        if self._server.extra_connections == EXTRA_CONNECTIONS:
            self._send_and_close(Overloaded())
            return
        self._server.extra_connections += 1
        self.is_extra = True
        self._head_timer = self._loop.call_later(EXTRA_WAIT, self._send_and_close, Overloaded())

    def connection_lost(self, exc: BaseException | None) -> None:
        """Let go of it."""
        self._server.open_connections -= 1
        self._server.extra_connections -= self.is_extra
        self._server.memory.forget(self)
        self._stop_head_timer()
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)
        super().connection_lost(exc)

    def holding(self) -> int:
        """Bytes that the connection makes the worker keep."""
        if self.transport is None:
            return 0
        return self._received_bytes() + self._kept_head + self._untaken

    def pace(self) -> float | None:
        """Bytes a second that the client sends, or takes of its answer; None where nothing waits for it."""
        age = self._loop.time() - self._since
        if self.transport is None or age < GRACE:
            return None
        if self._untaken:
            return (self._waited_for - self.transport.get_write_buffer_size()) / age
        if self._is_receiving:
            return self._received_bytes() / age
        return 0.0 if self.silent else None

    def cut_off(self) -> None:
        """Make room: the client is too slow."""
        if self._untaken:
            self._abort()
        elif self._is_receiving:
            self._refuse_rest()
        else:
            self.force_close()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's contract; aiohttp narrows it
        """The client sends no more. What it has asked for is still answered; a request that it broke off is refused."""
        self.ended = True
        self._end_body()
        return self._answered < self._request_count

    def _head_is_late(self) -> None:
        """The head of a request has begun and does not end."""
        self._head_timer = None
        if self.silent:
            self._send_and_close(RequestTimeout())
        elif self.transport is not None:
            # A request before it is still being answered.
            self._start_head_timer()

    def _send_and_close(self, error: ServiceError) -> None:
        """Send an answer that no request gets, and close the connection."""
        if self.transport is not None:
            self.transport.write(self._last_answer(error, {}).render(with_body=True, http_1_0=False))
        self.force_close()

    def _last_answer(self, error: ServiceError, headers: Mapping[str, str]) -> Response:
        answer = representations.failure(error)
        request_id = parsing.request_id(headers)
        answer.headers += b"X-Request-Id: %b\r\n" % request_id.encode()
        answer.keep_alive = False
        if self._server.logs:
            # No byte of the request: it may be anything.
            access_log.info("%s refused %s %d", request_id, self._peer(), answer.status)
        return answer

    def _peer(self) -> str:
        """The client's address and port."""
        peer = self.transport.get_extra_info("peername") if self.transport else None
        if not peer:
            return "-"
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def finish_response(
        self,
        request: web.BaseRequest,
        resp: Any,  # noqa: ANN401 - an Answer where aiohttp would have a response
        start_time: float | None,  # noqa: ARG002 - the dispatch logs
    ) -> tuple[Any, bool]:
        """Write the answer; returns it and whether the client is gone."""
        request._finish()
        self._answered += 1
        if self in self._server.memory.held:
            self._release(request)
        transport = self.transport
        if transport is None or transport.is_closing():
            return resp, True
        # Nothing here is upgraded to, and what came behind the wish to be upgraded is lost in aiohttp.
        resp.keep_alive = resp.keep_alive and request.keep_alive and not request._message.upgrade
        # Nor is there anything behind the end of what the client sends, or behind a body of which nobody knows where it ends.
        if (self.ended and self._answered == self._request_count) or request.content.exception() is not None:
            resp.keep_alive = False
        if self.is_extra:
            resp.keep_alive = False
        if not self._has_memory_for(request, resp):
            resp = self._last_answer(Overloaded(), request.headers)
        answer = resp.render(with_body=request.method != "HEAD", http_1_0=request.version <= HttpVersion10)
        transport.write(answer)
        # aiohttp keeps the answer until the next request, which may never come.
        resp.body = b""
        size = len(answer)
        del answer
        if self._paused and not await self._taken(transport, size):
            return resp, True
        if self._refused and not resp.keep_alive:
            await self._linger(transport)
        if resp.pauses and resp.keep_alive:
            await self._server.pause()
        return resp, False

    async def _linger(self, transport: asyncio.Transport) -> None:
        """Drop what still comes until the client closes, so that no reset takes the answer from it (RFC 9112, 9.6)."""
        if self.ended or transport.is_closing():
            return
        transport.write_eof()
        self._closed = self._loop.create_future()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._lingering_time):
                await self._closed

    def _has_memory_for(self, request: web.BaseRequest, resp: Response) -> bool:
        """Whether an answer can wait for its client. What a write has done must be answered, and is not long."""
        return request.method != "GET" or len(resp.body) < LARGE_ANSWER or self._server.memory.has_room(len(resp.body))

    def _release(self, request: web.BaseRequest) -> None:
        """The answer to `request` is there: nothing is kept of it but its head, which aiohttp keeps until the next one."""
        self._unanswered.answered(self._answered)
        cost = head_cost(request._message)
        self._kept_head = cost if cost > COPIES * UNCOUNTED_BYTES else 0
        self._server.memory.count(self)

    async def _taken(self, transport: asyncio.Transport, size: int) -> bool:
        """Wait until the client has taken its answer of `size` bytes; False where it is gone.

        One that takes less than `LEAST_PACE` is cut off.
        """
        self._since, self._untaken = self._loop.time(), size
        unsent = self._waited_for = transport.get_write_buffer_size()
        self._server.memory.count(self)
        while self._paused and self.transport is not None:
            try:
                async with asyncio.timeout(self._server.client_timeout):
                    await self._drain_helper()
            except ConnectionError:
                break
            except TimeoutError:
                self._drain_waiter = None
                unsent, before = transport.get_write_buffer_size(), unsent
                if before - unsent < LEAST_PACE * self._server.client_timeout:
                    self._abort()
        self._untaken = 0
        self._server.memory.count(self)
        return self.transport is not None

    def _abort(self) -> None:
        """Close the connection and drop what the client has not taken, also what the system has of it already."""
        self._untaken = 0
        if self.transport is not None:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's text quotes the client's headers, keys included
    ) -> Any:  # noqa: ANN401 - an Answer where aiohttp would have a response
        """Answer what aiohttp could not parse, or a defect, and close the connection."""
        error = ServiceError()
        if status < HTTPStatus.INTERNAL_SERVER_ERROR or isinstance(exc, ServiceError):
            error = self._refusal(exc)
        else:
            log.error("a request failed outside of its handler", exc_info=exc)
        return self._last_answer(error, request.headers)

    def _refusal(self, exc: BaseException | None) -> ServiceError:
        """The answer to what aiohttp's parser refuses."""
        match exc:
            case ServiceError():
                return exc
            case LineTooLong(args=(_, self.max_line_size, *_)):
                limit = self._server.limits.max_line_bytes
                return UriTooLong(f"the request line is longer than {limit} bytes; send a shorter filter_by_configs")
            case LineTooLong():
                return HeadTooLarge(f"a header of the request is longer than {MAX_FIELD_BYTES} bytes")
            case HttpProcessingError(message=message) if message == _TOO_MANY_FIELDS:
                return HeadTooLarge(f"the request has more than {MAX_FIELDS} headers")
            case BadHttpMethod():
                return BadRequest("the request is not valid HTTP: it must start with a method such as GET, in capitals")
            case _:
                return BadRequest("the request is not valid HTTP")

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401 - aiohttp's signature
        """Log a defect; a body that the client broke off is none, and has been answered."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)


def client_is_gone(request: web.BaseRequest) -> bool:
    """Whether the client of a request is gone, or has at least ended its side of the connection."""
    protocol = request.protocol
    return request.transport is None or (isinstance(protocol, Protocol) and protocol.ended)


def client_check(request: web.BaseRequest) -> Callable[[], bool]:
    """A function that says whether the client of `request` is gone.

    A client that has closed its connection and one that has only ended its side of it, and still waits for the answer, look
    the same (both send a FIN). So such a client counts as gone only after `HALF_CLOSED_PATIENCE` seconds of work.
    """
    started = monotonic()

    def is_gone() -> bool:
        return request.transport is None or (client_is_gone(request) and monotonic() - started > HALF_CLOSED_PATIENCE)

    return is_gone


def is_extra(request: web.BaseRequest) -> bool:
    """Whether there was no room for the connection of a request."""
    return isinstance(request.protocol, Protocol) and request.protocol.is_extra
