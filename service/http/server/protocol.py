"""aiohttp's HTTP protocol under a dispatch of our own: aiohttp parses the requests, each response goes out in one write.

aiohttp's application layer (its router, middleware and response objects) costs more than all the rest of a GET; `dispatch` and
`response` replace it, and `connections` its request loop. Parsing, timers, flow control and shutdown stay aiohttp's.
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
from service.http.server import headers
from service.http.server.client_memory import COPIES, GRACE, UNCOUNTED_BYTES
from service.http.server.connections import MAX_FIELD_BYTES, MAX_FIELDS, Server
from service.http.server.failure import error_response
from service.http.server.receiver import Receiver, head_cost
from service.http.server.response import Response

logger = logging.getLogger("service")

#: Connections over the limit that may send one request each, and how long the server waits for it, in seconds.
EXTRA_CONNECTIONS, EXTRA_WAIT = 16, 1.0
#: aiohttp's message for more than MAX_FIELDS headers; it has no class for that error.
_TOO_MANY_FIELDS = "Too many headers received"
#: Seconds that work continues for a client that has closed its sending side.
HALF_CLOSED_GRACE = 0.1
#: A response to GET of so many bytes is not sent if the worker has no memory for it.
LARGE_RESPONSE = 64 * 1024
#: Bytes a second of a response that a client must read, on average over the client timeout.
MIN_READ_RATE = 16 * 1024

#: SO_LINGER with a timeout of 0: close with a reset, and drop what is unsent.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Protocol(Receiver):
    """One client's connection."""

    __slots__ = ("_closed", "_head_cost", "_initially_unsent", "_unsent")

    def __init__(self, server: Server, **kwargs: Any) -> None:  # noqa: ANN401 - aiohttp's signature
        super().__init__(server, **kwargs)
        self._closed: asyncio.Future[None] | None = None
        self._head_cost = 0  # memory of the last request's head: aiohttp keeps it until the next request
        self._unsent = 0  # bytes of a response of which a part is unsent; all of it is in memory until the last byte is sent
        self._initially_unsent = 0  # bytes of it that the first write did not send

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection, if there is room for it or an idle one can be closed."""
        self._server.open_connections += 1
        # Before aiohttp starts the connection's task: from Python 3.12 on the task starts eagerly, and the connection would
        # count as idle and be closed to make room for itself.
        has_room = self._server.make_room()
        # Else up to 64 KiB of a response could be unsent and count as sent.
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=0)
        super().connection_made(transport)
        if not has_room:
            self._refuse()

    def _refuse(self) -> None:
        """Answer 503, but first wait for the request: it may be the health check, which is always served."""
        if self._server.extra_connections == EXTRA_CONNECTIONS:
            self._send_and_close(Overloaded())
            return
        self._server.extra_connections += 1
        self.is_extra = True
        self._head_timer = self._loop.call_later(EXTRA_WAIT, self._send_and_close, Overloaded())

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self._server.open_connections -= 1
        self._server.extra_connections -= self.is_extra
        self._server.memory.forget(self)
        self._stop_head_timer()
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)
        super().connection_lost(exc)

    def buffered_bytes(self) -> int:
        """Bytes of memory for requests without a response, and for the unsent response."""
        if self.transport is None:
            return 0
        return self._received_bytes() + self._head_cost + self._unsent

    def has_room(self, size: int) -> bool:
        """Whether the worker has memory for `size` more bytes."""
        return self._server.memory.has_room(size)

    def throughput(self) -> float | None:
        """Bytes a second that the client sends, or reads of its response; None where the worker does not wait for it."""
        age = self._loop.time() - self._buffering_since
        if self.transport is None or age < GRACE:
            return None
        if self._unsent:
            return (self._initially_unsent - self.transport.get_write_buffer_size()) / age
        if self._is_receiving:
            return self._received_bytes() / age
        return 0.0 if self.is_idle else None

    def cut_off(self) -> None:
        """Free the memory: reset a client that does not read, refuse an incomplete request, or close an idle connection."""
        if self._unsent:
            self._abort()
        elif self._is_receiving:
            self._refuse_rest()
        else:
            self.force_close()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's contract; aiohttp narrows it
        """The client sends no more. Its complete requests are still answered; an incomplete one is refused."""
        self.is_half_closed = True
        self._end_body()
        return self._answered < self._request_count

    def _on_head_timeout(self) -> None:
        """The rest of a head did not arrive within the client timeout."""
        self._head_timer = None
        if self.is_idle:
            self._send_and_close(RequestTimeout())
        elif self.transport is not None:
            # An earlier request is still being processed.
            self._start_head_timer()

    def _send_and_close(self, error: ServiceError) -> None:
        """Send an error without a request to respond to, and close the connection."""
        if self.transport is not None:
            self.transport.write(self._final_response(error, {}).encode(with_body=True, http_1_0=False))
        self.force_close()

    def _final_response(self, error: ServiceError, request_headers: Mapping[str, str]) -> Response:
        """The last response on the connection."""
        response = error_response(error)
        request_id = headers.request_id(request_headers)
        response.headers += b"X-Request-Id: %b\r\n" % request_id.encode()
        response.keep_alive = False
        if self._server.observer is not None:
            self._server.observer.refuse(request_id, self._peer(), response)
        return response

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
        resp: Any,  # noqa: ANN401 - a Response of ours, where aiohttp has its own
        start_time: float | None,  # noqa: ARG002 - the dispatch logs
    ) -> tuple[Any, bool]:
        """Write the response; returns it and whether the client is gone."""
        self._answered += 1
        if self in self._server.memory.buffered:
            self._release(request)
        transport = self.transport
        if transport is None or transport.is_closing():
            return resp, True
        # There is no other protocol to upgrade to, and aiohttp loses the bytes behind a request to upgrade.
        resp.keep_alive = resp.keep_alive and request.keep_alive and not request._message.upgrade
        # Nothing follows once the client has closed its sending side, nor after a body whose end is unknown.
        if (self.is_half_closed and self._answered == self._request_count) or request.content.exception() is not None:
            resp.keep_alive = False
        if self.is_extra:
            resp.keep_alive = False
        data = resp.encode(with_body=request.method != "HEAD", http_1_0=request.version <= HttpVersion10)
        transport.write(data)
        # What follows may take long, and needs no body.
        resp.body = b""
        size = len(data)
        del data
        if self._paused and not await self._drained(transport, size):
            return resp, True
        if self._refused and not resp.keep_alive:
            await self._linger(transport)
        if resp.throttles and resp.keep_alive:
            await self._server.throttle()
        return resp, False

    async def _linger(self, transport: asyncio.Transport) -> None:
        """Drop further input until the client closes, so that no reset destroys the response in transit (RFC 9112, 9.6)."""
        if self.is_half_closed or transport.is_closing():
            return
        transport.write_eof()
        self._closed = self._loop.create_future()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._lingering_time):
                await self._closed

    def _release(self, request: web.BaseRequest) -> None:
        """The response to `request` is ready: only its head stays in memory, which aiohttp keeps until the next request."""
        self._unanswered.release(self._answered)
        cost = head_cost(request._message)
        self._head_cost = cost if cost > COPIES * UNCOUNTED_BYTES else 0
        self._server.memory.update(self)

    async def _drained(self, transport: asyncio.Transport, size: int) -> bool:
        """Wait until a response of `size` bytes is sent; False if the client is gone.

        A client that reads less than `MIN_READ_RATE` is disconnected.
        """
        self._buffering_since, self._unsent = self._loop.time(), size
        unsent = self._initially_unsent = transport.get_write_buffer_size()
        self._server.memory.update(self)
        while self._paused and self.transport is not None:
            try:
                async with asyncio.timeout(self._server.client_timeout):
                    await self._drain_helper()
            except ConnectionError:
                break
            except TimeoutError:
                self._drain_waiter = None
                unsent, before = transport.get_write_buffer_size(), unsent
                if before - unsent < MIN_READ_RATE * self._server.client_timeout:
                    self._abort()
        self._unsent = 0
        self._server.memory.update(self)
        return self.transport is not None

    def _abort(self) -> None:
        """Reset the connection and drop what the client has not read, the kernel's send buffer included."""
        self._unsent = 0
        if self.transport is not None:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's text quotes the client's headers, keys included
    ) -> Any:  # noqa: ANN401 - a Response of ours, where aiohttp has its own
        """Answer a request that aiohttp could not parse, or an exception of its own, and close the connection."""
        error = ServiceError()
        if status < HTTPStatus.INTERNAL_SERVER_ERROR or isinstance(exc, ServiceError):
            error = self._parse_error(exc)
        else:
            logger.error("a request failed outside of its handler", exc_info=exc)
        return self._final_response(error, request.headers)

    def _parse_error(self, exc: BaseException | None) -> ServiceError:
        """The error for what aiohttp's parser refuses."""
        match exc:
            case ServiceError():
                return exc
            case LineTooLong(args=(_, self.max_line_size, *_)):
                limit = self._server.limits.max_line_bytes
                return UriTooLong(f"the request line is longer than {limit} bytes; send a shorter filter_by_configs")
            case LineTooLong():
                return HeadTooLarge(f"a request header is longer than {MAX_FIELD_BYTES} bytes")
            case HttpProcessingError(message=message) if message == _TOO_MANY_FIELDS:
                return HeadTooLarge(f"the request has more than {MAX_FIELDS} headers")
            case BadHttpMethod():
                return BadRequest("the request is not valid HTTP: it must start with a method such as GET, in upper case")
            case _:
                return BadRequest("the request is not valid HTTP")


def client_is_gone(request: web.BaseRequest) -> bool:
    """Whether the client of a request has disconnected, or has at least closed its sending side."""
    protocol = request.protocol
    return request.transport is None or (isinstance(protocol, Protocol) and protocol.is_half_closed)


def has_memory_for(request: web.BaseRequest, response: Response) -> bool:
    """Whether a response can be buffered for its client. A write must be answered, and its response is small."""
    size, protocol = len(response.body), request.protocol
    if size < LARGE_RESPONSE or request.method != "GET" or not isinstance(protocol, Protocol):
        return True
    return protocol.has_room(size)


def client_check(request: web.BaseRequest) -> Callable[[], bool]:
    """A function that returns whether the client of `request` is gone.

    A client that has closed its connection and one that has only closed its sending side, and still waits for the response,
    look the same (both send a FIN). So such a client counts as gone only after `HALF_CLOSED_GRACE` seconds of work.
    """
    started = monotonic()

    def is_gone() -> bool:
        return request.transport is None or (client_is_gone(request) and monotonic() - started > HALF_CLOSED_GRACE)

    return is_gone


def is_extra(request: web.BaseRequest) -> bool:
    """Whether the connection of a request is over the connection limit."""
    return isinstance(request.protocol, Protocol) and request.protocol.is_extra
