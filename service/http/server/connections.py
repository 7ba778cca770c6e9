"""All connections of a worker: how many there may be, what they hold, and who makes room for others."""

import asyncio
from collections.abc import Awaitable, Callable
from heapq import nsmallest
from typing import Any

from aiohttp import web
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from service.configs.limits import Limits
from service.http.server.memory import Memory
from service.http.server.response import Response
from service.settings import Settings

#: Refusals a second to clients that do not wait, and the longest that a connection pauses after one, in seconds.
REFUSALS, LONGEST_PAUSE = 1000, 1.0
#: How long the rest of a body that nobody wants is read, so that its sender sees the answer, in seconds.
LINGERING = 10.0
#: In how many batches all connections would be closed.
BATCHES = 100
#: The longest line of a header, and the most headers of a request.
MAX_FIELD_BYTES, MAX_FIELDS = 8190, 128

Dispatch = Callable[[web.BaseRequest], Awaitable[Response]]


class Connection(RequestHandler):
    """One client's connection, as the server sees it."""

    __slots__ = ("_server", "is_extra")

    def __init__(self, server: "Server", **kwargs: Any) -> None:  # noqa: ANN401 - aiohttp's signature
        super().__init__(server, **kwargs)
        self._server = server
        self.is_extra = False  # there was no room: every request but that for the health check gets a 503

    @property
    def silent(self) -> bool:
        """Whether the connection is open and no request on it is being answered."""
        return not self.is_extra and self.transport is not None and self._waiter is not None and not self._waiter.done()

    @property
    def silent_since(self) -> float:
        """When it became silent, by a clock of aiohttp's."""
        return self._next_keepalive_close_time


class Server(web.Server):
    """Makes a `connection` for each client; requests go to `dispatch`."""

    def __init__(self, dispatch: Dispatch, settings: Settings, connection: Callable[..., Connection]) -> None:
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
        self._connection = connection
        self.limits: Limits = settings
        self._max_body_bytes = settings.max_body_bytes
        self._max_connections = settings.max_connections
        self.client_timeout = settings.client_timeout
        self.memory = Memory(settings.max_buffered_bytes)
        self.logs = settings.access_log
        self.extra_connections = 0  # of the open ones
        self.open_connections = 0  # aiohttp's own list keeps those that are gone for a while
        #: Connections that are to go next, the first of them last; looked for when there are none, a batch at a time.
        self._next_to_go: list[Connection] = []
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
        return self._connection(self, loop=self._loop, **self._kwargs)

    def make_room(self) -> bool:
        """Where there are too many connections, close the one that was silent longest; False where none is silent."""
        if self.open_connections <= self._max_connections:
            return True
        if not self._next_to_go:
            silent = (one for one in self._connections if isinstance(one, Connection) and one.silent)
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
