"""What the topologies of several servers share: their nodes, and one refresh of the routes at a time."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from itertools import chain, repeat
from typing import Any

import hiredis

from service.redis_client.errors import NoRoute, RequestFailed
from service.redis_client.multiplexer import MultiplexedConnection
from service.redis_client.node import DrainingNodes, Node
from service.redis_client.url import Address, Endpoint

#: Seconds between the retries of a call. A redirection is followed immediately; later retries come further apart.
BACKOFF = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05)
#: The share of the timeout after which a refresh gives up on one server and asks the next.
QUERY_TIMEOUT = 0.25


class Discovery(ABC):
    """The nodes of a store, by their endpoints."""

    def __init__(self, address: Address, *, timeout: float, min_replicas: int) -> None:
        self._address = address
        self._timeout = timeout
        self._min_replicas = min_replicas
        self._nodes: dict[Endpoint, Node] = {}
        self._draining = DrainingNodes(timeout=timeout)
        #: What the current refresh, and the one before it, failed with; None if they did not.
        self._error: Exception | None = None
        self._previous_error: Exception | None = None
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def backoff(self) -> Iterable[float]:
        """Only the deadline of the call ends its retries."""
        return chain(BACKOFF, repeat(BACKOFF[-1]))

    def refresh_soon(self) -> None:
        """Start a refresh in the background, unless one is running."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())

    async def _wait_for_refresh(self, seconds: float) -> None:
        """Wait until a refresh is done, for at most `seconds`."""
        self.refresh_soon()
        assert self._refreshing is not None  # noqa: S101 - started
        await asyncio.wait([self._refreshing], timeout=seconds)

    def _no_route(self) -> NoRoute:
        """The error for a server that is not known; its cause is what the refresh failed with."""
        error = NoRoute()
        error.__cause__ = self._error or self._previous_error
        return error

    def _rotate_errors(self) -> None:
        """Keep the error of the last refresh as the reason until the refresh that starts now has one of its own."""
        self._previous_error, self._error = self._error, None

    @abstractmethod
    async def _refresh(self) -> None:
        """Ask the servers for the routes and apply the answer."""

    async def _query(self, connection: MultiplexedConnection, packed: bytes) -> Any:  # noqa: ANN401 - Redis replies differ
        """The reply of a server; None if it fails, does not answer in time, or replies with an error."""
        try:
            async with asyncio.timeout(self._timeout * QUERY_TIMEOUT):
                (reply,) = await connection.send(packed)
        except (RequestFailed, TimeoutError) as error:
            # An error reply says more than silence.
            if not isinstance(self._error, hiredis.ReplyError):
                self._error = error
            return None
        if isinstance(reply, hiredis.ReplyError):
            self._error = reply
            return None
        return reply

    def _node_at(self, endpoint: Endpoint) -> Node:
        if endpoint not in self._nodes:
            new_connection = partial(self._address.new_connection, endpoint, seconds=self._timeout)
            self._nodes[endpoint] = Node(endpoint, new_connection, timeout=self._timeout, min_replicas=self._min_replicas)
        return self._nodes[endpoint]

    def _drop_node(self, endpoint: Endpoint) -> None:
        """Send no more commands to a node; close it once no caller can be waiting for its replies."""
        self._draining.add(self._nodes.pop(endpoint))

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])
        await self._draining.close()
        for node in list(self._nodes.values()):
            await node.close()
