"""The receiving side of a connection: bytes go to aiohttp's parser; they are measured, timed and counted until the response."""

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
from service.http.server.client_memory import (
    COPIES,
    HEADER_BYTES,
    UNCOUNTED_BYTES,
    UNCOUNTED_HEADERS,
    BodyDropped,
    BufferingConnection,
    UnansweredBytes,
)
from service.http.server.connections import MAX_FIELDS, Connection, Server
from service.http.server.framing import complete_prefix


def head_size(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The bytes of header lines, each with a colon, a space and CRLF."""
    return sum(len(name) + len(value) + 4 for name, value in headers)


def head_cost(message: RawRequestMessage) -> int:
    """The bytes of memory that the parsed head of a request takes."""
    headers = message.raw_headers
    return COPIES * (head_size(headers) + len(message.path)) + HEADER_BYTES * len(headers)


def _header_count(message: RawRequestMessage | _ErrInfo) -> int:
    return 0 if isinstance(message, _ErrInfo) else len(message.raw_headers)


class Receiver(Connection, BufferingConnection):
    """The receiving side of one client's connection."""

    __slots__ = (
        "_answered", "_behind_body", "_body", "_buffering_since", "_head_bytes", "_head_timer", "_refused", "_tail",
        "_unanswered", "_unparsed", "is_half_closed",
    )  # fmt: skip

    def __init__(self, server: Server, **kwargs: Any) -> None:  # noqa: ANN401 - aiohttp's signature
        super().__init__(server, **kwargs)
        self._body: StreamReader = EMPTY_PAYLOAD
        self._answered = 0  # of the requests that aiohttp counts in _request_count
        self.is_half_closed = False  # the client has closed its sending side
        self._head_timer: asyncio.TimerHandle | None = None
        self._tail = b""  # the last bytes received, up to three
        self._unparsed = b""  # received while the parser was paused
        self._head_bytes = 0  # received of an incomplete head
        self._behind_body = 0  # bytes received that the body's stream has not: framing, or the next head
        self._refused = False  # the input is not HTTP, or too large; the rest of it is dropped
        self._buffering_since = 0.0  # when the connection began to buffer what it buffers
        self._unanswered = UnansweredBytes()

    @abstractmethod
    def _on_head_timeout(self) -> None:
        """The rest of a head did not arrive within the client timeout."""

    def data_received(self, data: bytes) -> None:
        """Parse and count received bytes. If a body is not valid HTTP, its handler gets an exception.

        aiohttp only queues the error behind the request with the broken body, whose handler would wait until the client
        disconnects.
        """
        if self._refused:
            return
        requests_before, head_bytes_before = self._request_count, self._head_bytes
        self._feed_parts(data)
        complete = self._request_count - requests_before
        if complete:
            self._stop_head_timer()
        if self._head_bytes and self._head_timer is None:
            self._start_head_timer()
        if not self._is_uncounted(complete, len(data)):
            if self._answered == requests_before and not head_bytes_before:
                self._buffering_since = self._loop.time()
            self._count_received(len(data) + head_bytes_before - self._head_bytes, complete)
        if self.is_half_closed:
            self._end_body()

    def _feed_parts(self, data: bytes) -> None:
        """Feed the parser the data up to its last empty line, then the rest: so it is certain how much belongs to a head."""
        if self._unparsed:
            self._feed(b"")
            data, self._unparsed = self._unparsed + data, b""
            self._tail, end = data[-3:], 0
        else:
            end = complete_prefix(self._tail, data)
            self._tail = (self._tail + data[-3:])[-3:]
            if end or not data:
                self._feed(data[:end], ends_head=end > 0)
        if end == len(data) or self._refused:
            return
        if self._reading_paused or len(self._messages) >= self._max_msg_queue_size:
            self._unparsed = data[end:]
        else:
            self._feed(data[end:])

    def _feed(self, part: bytes, *, ends_head: bool = False) -> None:
        """Feed the parser a part. An empty line may only be at its end, which `ends_head` says."""
        body, body_bytes, requests_before = self._body, self._body.total_bytes, self._request_count
        in_body = not body.is_eof()
        super().data_received(part)
        if complete := self._request_count - requests_before:
            self._take_messages(complete, self._head_bytes + len(part))
        if ends_head or self._refused:
            self._head_bytes = self._behind_body = 0
        elif in_body:
            self._behind_body += len(part) + body_bytes - body.total_bytes
            if body.is_eof():
                self._head_bytes = max(self._behind_body, 0)
            if body.is_eof() or not self._reading_paused:
                self._behind_body = 0
        elif not complete:
            self._head_bytes += len(part)
            if self._head_bytes > self._server.limits.max_line_bytes + self._server.limits.max_head_bytes:
                self._refuse_from(len(self._messages), self._head_too_large())

    def _take_messages(self, complete: int, received: int) -> None:
        """Check the last `complete` messages, which have `received` bytes."""
        if received > self._server.limits.max_head_bytes:
            # Most heads are too small to be worth measuring.
            self._measure_heads(complete)
        if not self._refused and (complete > 1 or self._messages[-1][1] is not EMPTY_PAYLOAD):
            self._check_transfer_codings(complete)
        message, body = self._messages[-1]
        if not isinstance(message, _ErrInfo):
            self._body = body
            return
        # Its traceback references the frame with the message and all received bytes: a cycle.
        if message.exc is not None:
            message.exc.__traceback__ = None
        if not self._body.is_eof():
            self._body.set_exception(web.RequestPayloadError("the body is not valid HTTP"))
        self._stop_reading()

    def _measure_heads(self, complete: int) -> None:
        for index in range(len(self._messages) - complete, len(self._messages)):
            message = self._messages[index][0]
            if not isinstance(message, _ErrInfo) and head_size(message.raw_headers) > self._server.limits.max_head_bytes:
                self._refuse_from(index, self._head_too_large())
                return

    def _check_transfer_codings(self, complete: int) -> None:
        """Refuse a body with a compressed transfer coding (RFC 9112, 7.2): aiohttp would hand it on still compressed."""
        for index in range(len(self._messages) - complete, len(self._messages)):
            message = self._messages[index][0]
            if isinstance(message, _ErrInfo) or not message.chunked:
                continue
            if message.headers["Transfer-Encoding"].strip().lower() != "chunked":
                self._refuse_from(index, BadRequest("Transfer-Encoding must be chunked"))
                return

    def _head_too_large(self) -> HeadTooLarge:
        return HeadTooLarge(f"the request headers are larger than {self._server.limits.max_head_bytes} bytes")

    def _refuse_from(self, index: int, error: ServiceError) -> None:
        """Replace the queued request at `index` by an error; the requests behind it are dropped."""
        while len(self._messages) > index:
            self._messages.pop()
            self._request_count -= 1
        self._messages.append((_ErrInfo(error.status, error, error.message), EMPTY_PAYLOAD))
        self._request_count += 1
        self._stop_reading()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _stop_reading(self) -> None:
        """Drop further input, and what the parser has buffered."""
        self._refused = True
        self._head_bytes = 0
        self._stop_head_timer()
        if self._body.is_eof():
            self._parser = None

    def _is_uncounted(self, complete: int, size: int) -> bool:
        """Whether the input is one small request, alone on its connection. Most are, so they are not counted."""
        return (
            complete == 1
            and size <= UNCOUNTED_BYTES
            and self not in self._server.memory.buffered
            and not self._head_bytes
            and self._body.is_eof()
            and self._request_count - self._answered == 1
            and not self._refused
            and _header_count(self._messages[-1][0]) <= UNCOUNTED_HEADERS
        )

    def _count_received(self, size: int, complete: int) -> None:
        """Count `size` bytes of the requests so far, of which `complete` are new; refuse them if that is too much."""
        # The rest of a request that has its response already is dropped on arrival.
        if self._answered < self._request_count:
            new = range(max(len(self._messages) - complete, 0), len(self._messages))
            headers = sum(_header_count(self._messages[index][0]) for index in new)
            self._unanswered.add(self._request_count, COPIES * size + HEADER_BYTES * headers)
        if self._server.memory.update(self) or self._refused:
            return
        if complete:
            self._refuse_from(len(self._messages) - complete, Overloaded())
        self._refuse_rest()
        self._server.memory.update(self)

    def _refuse_rest(self) -> None:
        """Answer 503 to the request that is being, or was just, received: the worker has no memory for it."""
        if self._head_bytes:
            self._refuse_from(len(self._messages), Overloaded())
        self._body.set_exception(BodyDropped())
        self._unanswered.release(self._request_count)
        self._stop_reading()

    @property
    def _is_receiving(self) -> bool:
        """Whether the connection waits for the rest of a request."""
        return not self._refused and (self._head_bytes > 0 or not self._body.is_eof())

    def _received_bytes(self) -> int:
        """Bytes of memory of the requests without a response yet."""
        head = self._head_bytes
        return self._unanswered.total + COPIES * head + HEADER_BYTES * min(head // 4, MAX_FIELDS)

    def _end_body(self) -> None:
        """The client sends no more. An incomplete body is an error for its handler, never the end of the body."""
        if not self._body.is_eof() and self._parser is not None and not self._refused:
            try:
                self._parser.feed_eof()
            except HttpProcessingError as error:
                self._body.set_exception(web.RequestPayloadError(error.message))

    def _start_head_timer(self) -> None:
        self._head_timer = self._loop.call_later(self._server.client_timeout, self._on_head_timeout)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
