"""aiohttp's HTTP protocol under this service's own dispatch: requests come in parsed by aiohttp, answers go out in one write.

aiohttp's application layer (its router, middleware and response objects) costs more than all the rest of a GET; `dispatch` and
`answer` stand in its place. What concerns connections (parsing, keep-alive, flow control, the end) stays aiohttp's.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from heapq import nsmallest
from http import HTTPStatus
from time import monotonic
from typing import Any

from aiohttp import HttpVersion10, web
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from service.configs.limits import Limits
from service.errors import BadRequest, HeadTooLarge, Overloaded, RequestTimeout, ServiceError, UriTooLong
from service.http import envelope, requests
from service.http.answer import Answer
from service.settings import Settings

log = logging.getLogger("service")
access_log = logging.getLogger("service.access")

#: Refusals a second to clients that do not wait, and the longest that a connection pauses after one, in seconds.
REFUSALS, LONGEST_PAUSE = 1000, 1.0
#: How long the rest of a body that nobody wants is read, so that its sender sees the answer, in seconds.
LINGERING = 10.0
#: Connections beyond the maximum that may still send one request each, and how long the server waits for it, in seconds.
EXTRA_CONNECTIONS, EXTRA_WAIT = 16, 1.0
#: The longest line of a header, and the most headers of a request.
MAX_FIELD_BYTES, MAX_FIELDS = 8190, 128
#: How aiohttp says that there are more; it has no class for that error.
_TOO_MANY_FIELDS = "Too many headers received"
#: Seconds that work goes on for a client that has ended its side of the connection.
HALF_CLOSED_PATIENCE = 0.1
#: In how many batches all connections would be closed.
BATCHES = 100

#: SO_LINGER: a close that waits for nothing.
AT_ONCE = struct.pack("ii", 1, 0)

Dispatch = Callable[[web.BaseRequest], Awaitable[Answer]]


class Protocol(RequestHandler):
    """One client's connection."""

    __slots__ = ("_answered", "_body", "_closed", "_head_bytes", "_head_timer", "_refused", "_server", "ended", "is_extra")

    def __init__(self, server: "Server", **kwargs: Any) -> None:  # noqa: ANN401 - aiohttp's signature
        super().__init__(server, **kwargs)
        self._server = server
        self._body: StreamReader = EMPTY_PAYLOAD
        self._answered = 0  # of the requests that aiohttp counts in _request_count
        self.ended = False
        self.is_extra = False  # there was no room: every request but that for the health check gets a 503
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0  # received of a head that is not complete
        self._refused = False  # what comes is not HTTP, or too much of it, and is read no more
        self._closed: asyncio.Future[None] | None = None

    @property
    def silent(self) -> bool:
        """Whether the connection is open and no request on it is being answered."""
        return not self.is_extra and self.transport is not None and self._waiter is not None and not self._waiter.done()

    @property
    def silent_since(self) -> float:
        """When it became silent, by a clock of aiohttp's."""
        return self._next_keepalive_close_time

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, if there is room for it or room can be made."""
        self._server.open_connections += 1
        # Room is made before aiohttp starts the connection's task. From Python 3.12 on the task starts eagerly, so that the
        # connection would count as idle and be closed to make room for itself.
        has_room = self._server.make_room()
        super().connection_made(transport)
        if not has_room:
            self._refuse()

    def _refuse(self) -> None:
        """Answer 503, but first wait for the request: it may be the health check, which is always answered."""
        if self._server.extra_connections == EXTRA_CONNECTIONS:
            self._say_last(Overloaded())
            return
        self._server.extra_connections += 1
        self.is_extra = True
        self._head_timer = self._loop.call_later(EXTRA_WAIT, self._say_last, Overloaded())

    def connection_lost(self, exc: BaseException | None) -> None:
        """Let go of it."""
        self._server.open_connections -= 1
        self._server.extra_connections -= self.is_extra
        self._stop_head_timer()
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; where it is not HTTP, a handler that waits for more of its body is told.

        aiohttp only puts the error behind the request whose body is broken, and that would be waited for until the client goes.
        """
        if self._refused:
            return
        of_a_body = not self._body.is_eof()
        before = self._request_count
        super().data_received(data)
        complete = self._request_count - before
        received = self._head_bytes + len(data)
        if complete and data and received <= self._server.limits.max_head_bytes:
            # By far the most: heads that came are too small to be measured.
            self._head_bytes = 0
        else:
            self._check_heads(complete, received, of_a_body=of_a_body)
        message, body = self._messages[-1] if self._messages else (None, self._body)
        if not isinstance(message, _ErrInfo):
            self._body = body
        else:
            self._refused = True
            if not self._body.is_eof():
                self._body.set_exception(web.RequestPayloadError(message.message))
        if message is not None:
            self._stop_head_timer()
        elif data and not of_a_body and self._head_timer is None:
            self._start_head_timer()
        if self.ended:
            self._end_body()

    def _check_heads(self, complete: int, received: int, *, of_a_body: bool) -> None:
        """Refuse a head that is too large: one of the last `complete` requests, or the one that is still coming.

        `received` are all bytes that came since the last complete head.
        """
        if complete:
            self._head_bytes = 0
            self._measure_heads(complete)
        elif not of_a_body:
            self._head_bytes = received
            if received > self._server.limits.max_line_bytes + self._server.limits.max_head_bytes:
                self._refuse_from(len(self._messages))

    def _measure_heads(self, complete: int) -> None:
        for place in range(len(self._messages) - complete, len(self._messages)):
            message = self._messages[place][0]
            if not isinstance(message, _ErrInfo) and _head_size(message.raw_headers) > self._server.limits.max_head_bytes:
                self._refuse_from(place)
                return

    def _refuse_from(self, place: int) -> None:
        """Put the refusal of a head in the `place` of a request that waits to be served; those behind it are dropped."""
        while len(self._messages) > place:
            self._messages.pop()
            self._request_count -= 1
        error = HeadTooLarge(f"the headers of the request are larger than {self._server.limits.max_head_bytes} bytes")
        self._messages.append((_ErrInfo(error.status, error, error.message), EMPTY_PAYLOAD))
        self._request_count += 1
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's contract; aiohttp narrows it
        """The client sends no more. What it has asked for is still answered; a request that it broke off is refused."""
        self.ended = True
        self._end_body()
        return self._answered < self._request_count

    def _end_body(self) -> None:
        """No more of a body comes. One that is incomplete is an error for its handler, never an end of the body."""
        if not self._body.is_eof() and self._parser is not None:
            try:
                self._parser.feed_eof()
            except HttpProcessingError as error:
                self._body.set_exception(web.RequestPayloadError(error.message))

    def _start_head_timer(self) -> None:
        self._head_timer = self._loop.call_later(self._server.client_timeout, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        """The head of a request has begun and does not end."""
        self._head_timer = None
        if self.silent:
            self._say_last(RequestTimeout())
        elif self.transport is not None:
            # A request before it is still being answered.
            self._start_head_timer()

    def _say_last(self, error: ServiceError) -> None:
        """Send an answer that no request gets, and close the connection."""
        if self.transport is not None:
            self.transport.write(self._last_answer(error, {}).render(with_body=True, http_1_0=False))
        self.force_close()

    def _last_answer(self, error: ServiceError, headers: Mapping[str, str]) -> Answer:
        answer = envelope.failure(error)
        request_id = requests.request_id(headers)
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
        transport.write(resp.render(with_body=request.method != "HEAD", http_1_0=request.version <= HttpVersion10))
        if self._paused:
            await self._taken(transport)
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

    async def _taken(self, transport: asyncio.Transport) -> None:
        """Wait until the client has taken most of the answer. One that takes nothing of it for too long is cut off."""
        while self._paused:
            left = transport.get_write_buffer_size()
            try:
                async with asyncio.timeout(self._server.client_timeout):
                    await self._drain_helper()
            except TimeoutError:
                self._drain_waiter = None
                if transport.get_write_buffer_size() == left:
                    # What the system has taken already is dropped, too.
                    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                    transport.abort()
                    raise ConnectionResetError("the client does not take its answer") from None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's text quotes the client's headers, keys included
    ) -> Any:  # noqa: ANN401 - an Answer where aiohttp would have a response
        """Answer what aiohttp could not parse, or a defect, and close the connection."""
        error = ServiceError()
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
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


def has_left(request: web.BaseRequest) -> bool:
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
        return request.transport is None or (has_left(request) and monotonic() - started > HALF_CLOSED_PATIENCE)

    return is_gone


def is_extra(request: web.BaseRequest) -> bool:
    """Whether there was no room for the connection of a request."""
    return isinstance(request.protocol, Protocol) and request.protocol.is_extra


def _head_size(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The bytes of header lines, each with its colon, a space and CRLF."""
    return sum(len(name) + len(value) + 4 for name, value in headers)


class Server(web.Server):
    """Makes a `Protocol` for each connection; requests go to `dispatch`."""

    def __init__(self, dispatch: Dispatch, settings: Settings) -> None:
        """Bodies over the limit are refused when they are read. None is inflated, whatever its Content-Encoding."""
        super().__init__(
            dispatch,  # type: ignore[arg-type]  # an Answer
            request_factory=self._request,
            access_log=None,
            lingering_time=min(LINGERING, settings.client_timeout),
            auto_decompress=False,
            max_line_size=settings.max_line_bytes,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=MAX_FIELDS,
        )
        self.limits: Limits = settings
        self._max_body_bytes = settings.max_body_bytes
        self._max_connections = settings.max_connections
        self.client_timeout = settings.client_timeout
        self.extra_connections = 0  # of the open ones
        self.logs = settings.access_log
        self.open_connections = 0  # aiohttp's own list keeps those that are gone for a while
        #: Connections that are to go next, the first of them last; looked for when there are none, a batch at a time.
        self._next_to_go: list[Protocol] = []
        self._pausing = 0

    def _request(
        self,
        message: Any,  # noqa: ANN401 - aiohttp's own, handed on
        payload: StreamReader,
        protocol: RequestHandler,
        writer: Any,  # noqa: ANN401 - aiohttp's own, handed on
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop, client_max_size=self._max_body_bytes)

    def awaits_first_request(self) -> bool:
        """Whether a connection has brought no request yet."""
        return any(connection._request_count == 0 for connection in self.connections)

    def __call__(self) -> RequestHandler:
        """Make one."""
        return Protocol(self, loop=self._loop, **self._kwargs)

    def make_room(self) -> bool:
        """Where there are too many connections, close the one that was silent longest; False where none is silent."""
        if self.open_connections <= self._max_connections:
            return True
        if not self._next_to_go:
            silent = (one for one in self._connections if isinstance(one, Protocol) and one.silent)
            batch = max(1, self._max_connections // BATCHES)
            self._next_to_go = nsmallest(batch, silent, key=lambda one: one.silent_since)[::-1]
        while self._next_to_go:
            one = self._next_to_go.pop()
            if one.silent:
                one.force_close()
                return True
        return False

    async def pause(self) -> None:
        """Keep a connection that was refused a request from its next one for a moment.

        Clients that know no patience would otherwise turn all of the worker's time into refusals. However many there are,
        they get about `REFUSALS` a second.
        """
        self._pausing += 1
        try:
            await asyncio.sleep(min(self._pausing / REFUSALS, LONGEST_PAUSE))
        finally:
            self._pausing -= 1
