"""The receiving side of a connection: bytes go to aiohttp's parser, and are measured, timed and counted until the answer."""

import asyncio
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from service.errors import BadRequest, HeadTooLarge, Overloaded, ServiceError
from service.http.server.connections import MAX_FIELDS, Connection, Server
from service.http.server.framing import complete_part
from service.http.server.memory import (
    COPIES,
    HEADER_BYTES,
    UNCOUNTED_BYTES,
    UNCOUNTED_HEADERS,
    BodyDropped,
    Holder,
    Unanswered,
)


def head_size(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The bytes of header lines, each with its colon, a space and CRLF."""
    return sum(len(name) + len(value) + 4 for name, value in headers)


def head_cost(message: RawRequestMessage) -> int:
    """The bytes of memory that the parsed head of a request takes."""
    headers = message.raw_headers
    return COPIES * (head_size(headers) + len(message.path)) + HEADER_BYTES * len(headers)


def _headers(message: RawRequestMessage | _ErrInfo) -> int:
    """How many headers a message has."""
    return 0 if isinstance(message, _ErrInfo) else len(message.raw_headers)


class Receiver(Connection, Holder):
    """One client's connection, as far as it receives."""

    __slots__ = (
        "_answered", "_before", "_behind", "_body", "_head_bytes", "_head_timer", "_refused", "_rest", "_since", "_unanswered",
        "ended",
    )  # fmt: skip

    def __init__(self, server: Server, **kwargs: Any) -> None:  # noqa: ANN401 - aiohttp's signature
        super().__init__(server, **kwargs)
        self._body: StreamReader = EMPTY_PAYLOAD
        self._answered = 0  # of the requests that aiohttp counts in _request_count
        self.ended = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._before = b""  # the last bytes received, up to three
        self._rest = b""  # received while the parser was paused
        self._head_bytes = 0  # received of a head that is not complete
        self._behind = 0  # received behind what a body has got so far
        self._refused = False  # what comes is not HTTP, or too much of it, and is read no more
        self._since = 0.0  # when the connection began to hold what it holds
        self._unanswered = Unanswered()

    @abstractmethod
    def _head_is_late(self) -> None:
        """The head of a request has begun and does not end."""

    def data_received(self, data: bytes) -> None:
        """Take what came; a handler that waits for more of its body learns where it is not HTTP.

        aiohttp only puts the error behind the request whose body is broken, and that would be waited for until the client goes.
        """
        if self._refused:
            return
        before, head_before = self._request_count, self._head_bytes
        self._feed_parts(data)
        complete = self._request_count - before
        if complete:
            self._stop_head_timer()
        if self._head_bytes and self._head_timer is None:
            self._start_head_timer()
        if not self._is_uncounted(complete, len(data)):
            if self._answered == before and not head_before:
                self._since = self._loop.time()
            self._count_received(len(data) + head_before - self._head_bytes, complete)
        if self.ended:
            self._end_body()

    def _feed_parts(self, data: bytes) -> None:
        """Feed the parser up to the last empty line, and then the rest: so it is certain how much of it is of a head."""
        if self._rest:
            self._feed(b"")
            data, self._rest = self._rest + data, b""
            self._before, end = data[-3:], 0
        else:
            end = complete_part(self._before, data)
            self._before = (self._before + data[-3:])[-3:]
            if end or not data:
                self._feed(data[:end], ends_head=end > 0)
        if end == len(data) or self._refused:
            return
        if self._reading_paused or len(self._messages) >= self._max_msg_queue_size:
            self._rest = data[end:]
        else:
            self._feed(data[end:])

    def _feed(self, part: bytes, *, ends_head: bool = False) -> None:
        """Feed the parser a part with no empty line in it but one at its end, where `ends_head`."""
        body, received, before = self._body, self._body.total_bytes, self._request_count
        of_a_body = not body.is_eof()
        super().data_received(part)
        if complete := self._request_count - before:
            self._take_messages(complete, self._head_bytes + len(part))
        if ends_head or self._refused:
            self._head_bytes = self._behind = 0
        elif of_a_body:
            self._behind += len(part) + received - body.total_bytes
            if body.is_eof():
                self._head_bytes = max(self._behind, 0)
            if body.is_eof() or not self._reading_paused:
                self._behind = 0
        elif not complete:
            self._head_bytes += len(part)
            if self._head_bytes > self._server.limits.max_line_bytes + self._server.limits.max_head_bytes:
                self._refuse_from(len(self._messages), self._head_too_large())

    def _take_messages(self, complete: int, received: int) -> None:
        """Look at the last `complete` messages, of which `received` bytes came."""
        if received > self._server.limits.max_head_bytes:
            # By far the most heads are too small to be measured.
            self._measure_heads(complete)
        if not self._refused and (complete > 1 or self._messages[-1][1] is not EMPTY_PAYLOAD):
            self._check_codings(complete)
        message, body = self._messages[-1]
        if not isinstance(message, _ErrInfo):
            self._body = body
            return
        # It comes from the frame that holds the message, and with it all that was received: a cycle.
        if message.exc is not None:
            message.exc.__traceback__ = None
        if not self._body.is_eof():
            self._body.set_exception(web.RequestPayloadError("not HTTP"))
        self._stop_reading()

    def _measure_heads(self, complete: int) -> None:
        for place in range(len(self._messages) - complete, len(self._messages)):
            message = self._messages[place][0]
            if not isinstance(message, _ErrInfo) and head_size(message.raw_headers) > self._server.limits.max_head_bytes:
                self._refuse_from(place, self._head_too_large())
                return

    def _check_codings(self, complete: int) -> None:
        """Refuse a body that is compressed on its way (RFC 9112, 7.2): aiohttp would hand it on as it is."""
        for place in range(len(self._messages) - complete, len(self._messages)):
            message = self._messages[place][0]
            if isinstance(message, _ErrInfo) or not message.chunked:
                continue
            if message.headers["Transfer-Encoding"].strip().lower() != "chunked":
                self._refuse_from(place, BadRequest("Transfer-Encoding can only be chunked"))
                return

    def _head_too_large(self) -> HeadTooLarge:
        return HeadTooLarge(f"the headers of the request are larger than {self._server.limits.max_head_bytes} bytes")

    def _refuse_from(self, place: int, error: ServiceError) -> None:
        """Put a refusal in the `place` of a request that waits to be served; those behind it are dropped."""
        while len(self._messages) > place:
            self._messages.pop()
            self._request_count -= 1
        self._messages.append((_ErrInfo(error.status, error, error.message), EMPTY_PAYLOAD))
        self._request_count += 1
        self._stop_reading()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _stop_reading(self) -> None:
        """What still comes is dropped, and so is what the parser has of it."""
        self._refused = True
        self._head_bytes = 0
        self._stop_head_timer()
        if self._body.is_eof():
            self._parser = None

    def _is_uncounted(self, complete: int, size: int) -> bool:
        """Whether what came is one small request, alone on its connection: by far the most are."""
        return (
            complete == 1
            and size <= UNCOUNTED_BYTES
            and self not in self._server.memory.held
            and not self._head_bytes
            and self._body.is_eof()
            and self._request_count - self._answered == 1
            and not self._refused
            and _headers(self._messages[-1][0]) <= UNCOUNTED_HEADERS
        )

    def _count_received(self, size: int, complete: int) -> None:
        """Count `size` bytes of the requests so far, of which `complete` are new; where that is too much, refuse them."""
        # What still comes of a request that is answered already is dropped as it comes.
        if self._answered < self._request_count:
            new = range(max(len(self._messages) - complete, 0), len(self._messages))
            headers = sum(_headers(self._messages[place][0]) for place in new)
            self._unanswered.add(self._request_count, COPIES * size + HEADER_BYTES * headers)
        if self._server.memory.count(self) or self._refused:
            return
        if complete:
            self._refuse_from(len(self._messages) - complete, Overloaded())
        self._refuse_rest()
        self._server.memory.count(self)

    def _refuse_rest(self) -> None:
        """Answer 503 to the request that is coming, or has just come: the worker has no memory for it."""
        if self._head_bytes:
            self._refuse_from(len(self._messages), Overloaded())
        self._body.set_exception(BodyDropped())
        self._unanswered.answered(self._request_count)
        self._stop_reading()

    @property
    def _is_receiving(self) -> bool:
        """Whether a part of a request has come and the rest is waited for."""
        return not self._refused and (self._head_bytes > 0 or not self._body.is_eof())

    def _received_bytes(self) -> int:
        """Bytes that the requests take that are not answered."""
        head = self._head_bytes
        return self._unanswered.total + COPIES * head + HEADER_BYTES * min(head // 4, MAX_FIELDS)

    def _end_body(self) -> None:
        """No more of a body comes. One that is incomplete is an error for its handler, never an end of the body."""
        if not self._body.is_eof() and self._parser is not None and not self._refused:
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
