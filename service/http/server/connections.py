"""The connections of a worker: each answers its requests in turn; how many may be open, and how refusals are throttled."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from heapq import nsmallest
from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import ERROR, RequestHandler, _ErrInfo

from service.configs.limits import Limits
from service.http.server.client_memory import Memory
from service.http.server.observation import Observer
from service.http.server.response import Response
from service.settings import Settings

#: Refusals a second to clients that retry immediately, and the longest delay of a connection after one, in seconds.
REFUSALS, LONGEST_DELAY = 1000, 1.0
#: How long the rest of an unwanted body is read, so that its sender can read the response, in seconds.
LINGERING = 10.0
#: Idle connections to close are looked for in batches of this fraction of the connection limit.
BATCHES = 100
#: The longest header line, and the most headers of a request.
MAX_FIELD_BYTES, MAX_FIELDS = 8190, 128

logger = logging.getLogger("service")

RequestCallback = Callable[[web.BaseRequest], Awaitable[Response]]


class Connection(RequestHandler):
    """One client's connection, as the server sees it."""

    __slots__ = ("_server", "is_extra")

    def __init__(self, server: "Server", **kwargs: Any) -> None:  # noqa: ANN401 - aiohttp's signature
        super().__init__(server, **kwargs)
        self._server = server
        self.is_extra = False  # over the connection limit: any request but the health check gets a 503

    @property
    def is_idle(self) -> bool:
        """Whether the connection is open and waits for a request."""
        return not self.is_extra and self.transport is not None and self._waiter is not None and not self._waiter.done()

    @property
    def idle_since(self) -> float:
        """When it became idle, by a clock of aiohttp's."""
        return self._next_keepalive_close_time

    async def start(self) -> None:
        """Answer the requests in turn, until the connection is closed.

        aiohttp's own method runs each request in a task of its own, which takes a tenth of the time of a GET, and more if many
        connections have requests that wait.
        """
        try:
            while not self._force_close and await self._answer_next():
                self._expect_next()
        except (ConnectionError, web.RequestPayloadError):
            # The client is gone, or a body that has its response already is not valid.
            self.force_close()
        except Exception:
            logger.exception("a connection failed")
            self.force_close()
        except BaseException:
            self.force_close()
            raise
        self._task_handler = None
        if self.transport is not None:
            self.transport.close()

    async def _answer_next(self) -> bool:
        """Wait for the next request and answer it. Returns whether the connection stays open."""
        if not self._messages:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message, body = self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        handler: Callable[[web.BaseRequest], Awaitable[Any]] = self._server.dispatch
        if isinstance(message, _ErrInfo):
            handler, message = self._make_error_handler(message), ERROR
        response, is_gone = await self._handle_request(self._server.request(message, body, self), None, handler)
        # Once it is to be closed, no rest of a body arrives.
        if is_gone or self._force_close:
            return False
        self._keepalive = bool(response.keep_alive)
        if not body.is_eof():
            await self._discard(body)
        return self._keepalive and not self._close

    async def _discard(self, body: StreamReader) -> None:
        """Receive the rest of a body that the response did not need; close the connection if that takes too long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._lingering_time):
                while not body.is_eof():
                    await body.readany()
        if not body.is_eof():
            self.close()

    def _expect_next(self) -> None:
        """Start the time after which an idle connection is closed."""
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)


class Server(web.Server):
    """Makes a `connection` for each client; requests go to `dispatch`."""

    def __init__(
        self,
        dispatch: RequestCallback,
        settings: Settings,
        connection: Callable[..., Connection],
        observer: Observer | None = None,
    ) -> None:
        """A body over the limit is refused while it is read. No body is decompressed, whatever its Content-Encoding."""
        super().__init__(
            dispatch,  # type: ignore[arg-type]  # returns a Response of ours
            access_log=None,
            lingering_time=min(LINGERING, settings.client_timeout),
            auto_decompress=False,
            max_line_size=settings.max_line_bytes,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=MAX_FIELDS,
        )
        self.dispatch = dispatch
        self._connection = connection
        self.limits: Limits = settings
        self._max_body_bytes = settings.max_body_bytes
        self._max_connections = settings.max_connections
        self.client_timeout = settings.client_timeout
        self.memory = Memory(settings.max_buffered_bytes)
        self.observer = observer
        self.extra_connections = 0  # of the open ones
        self.open_connections = 0  # aiohttp's own list keeps closed connections for a while
        #: Idle connections to close for new ones, the first to close last; filled a batch at a time.
        self._to_close: list[Connection] = []
        self._throttled = 0

    def request(self, message: RawRequestMessage, body: StreamReader, connection: Connection) -> web.BaseRequest:
        """A request as a handler gets it: without aiohttp's writer and task."""
        nothing: Any = None
        size = self._max_body_bytes
        return web.BaseRequest(message, body, connection, nothing, nothing, self._loop, client_max_size=size)

    def awaits_first_request(self) -> bool:
        """Whether a connection has sent no request yet."""
        return any(connection._request_count == 0 for connection in self.connections)

    def __call__(self) -> RequestHandler:
        """A new connection: asyncio's protocol factory."""
        return self._connection(self, loop=self._loop, **self._kwargs)

    def make_room(self) -> bool:
        """If there are too many connections, close the one that has been idle for longest; False if none is idle."""
        if self.open_connections <= self._max_connections:
            return True
        if not self._to_close:
            idle = (each for each in self._connections if isinstance(each, Connection) and each.is_idle)
            batch = max(1, self._max_connections // BATCHES)
            self._to_close = nsmallest(batch, idle, key=lambda each: each.idle_since)[::-1]
        while self._to_close:
            connection = self._to_close.pop()
            if connection.is_idle:
                connection.force_close()
                return True
        return False

    async def throttle(self) -> None:
        """Delay the next request of a connection whose last one was refused.

        Clients that retry immediately would otherwise spend all of the worker's time on refusals. However many they are, they
        get about `REFUSALS` a second.
        """
        self._throttled += 1
        try:
            await asyncio.sleep(min(self._throttled / REFUSALS, LONGEST_DELAY))
        finally:
            self._throttled -= 1
