"""What topologies of many servers share: their nodes, and finding out where things are, one search at a time."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from itertools import chain, repeat
from typing import Any

import hiredis

from service.redis_client.multiplexer import MultiplexedConnection, RequestFailed
from service.redis_client.node import Node, Retirement
from service.redis_client.topology import NoRoute
from service.redis_client.url import Address, Endpoint

#: Seconds between the attempts at a call: a redirection is followed at once, what is not over gets more and more time.
PAUSES = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05)
#: The share of a command's time after which a server that was asked where things are is given up for the next.
PATIENCE = 0.25


class Discovery(ABC):
    """The nodes of a store, by their endpoints."""

    def __init__(self, address: Address, *, timeout: float, min_replicas: int) -> None:
        self._address = address
        self._timeout = timeout
        self._min_replicas = min_replicas
        self._nodes: dict[Endpoint, Node] = {}
        self._retired = Retirement(timeout=timeout)
        #: What this search, and the one before it, failed with; None where they did not.
        self._failure: Exception | None = None
        self._last_failure: Exception | None = None
        self._search: asyncio.Task[None] | None = None

    @property
    def pauses(self) -> Iterable[float]:
        """Only the time of the call ends its attempts."""
        return chain(PAUSES, repeat(PAUSES[-1]))

    def refresh_soon(self) -> None:
        """Begin a search, unless one goes on."""
        if self._search is None or self._search.done():
            self._search = asyncio.get_running_loop().create_task(self._find_out())

    async def _found_out(self, seconds: float) -> None:
        """Wait for the end of a search, for so long at most."""
        self.refresh_soon()
        assert self._search is not None  # noqa: S101 - begun
        await asyncio.wait([self._search], timeout=seconds)

    def _unknown(self) -> NoRoute:
        """The error for a server that is not known, with the reason behind it."""
        error = NoRoute()
        error.__cause__ = self._failure or self._last_failure
        return error

    def _forget_failure(self) -> None:
        """A new search begins; until it has failed, the failure of the one before it is the reason."""
        self._last_failure, self._failure = self._failure, None

    @abstractmethod
    async def _find_out(self) -> None:
        """Search where things are, and take it over."""

    async def _ask(self, lane: MultiplexedConnection, packed: bytes) -> Any:  # noqa: ANN401 - Redis replies differ
        """The reply of a server that may not answer, None then."""
        try:
            async with asyncio.timeout(self._timeout * PATIENCE):
                (reply,) = await lane.send(packed)
        except (RequestFailed, TimeoutError) as error:
            # A refusal tells more than silence.
            if not isinstance(self._failure, hiredis.ReplyError):
                self._failure = error
            return None
        if isinstance(reply, hiredis.ReplyError):
            self._failure = reply
            return None
        return reply

    def _node(self, endpoint: Endpoint) -> Node:
        if endpoint not in self._nodes:
            connection = partial(self._address.connection, endpoint, seconds=self._timeout)
            self._nodes[endpoint] = Node(endpoint, connection, timeout=self._timeout, min_replicas=self._min_replicas)
        return self._nodes[endpoint]

    def _retire(self, endpoint: Endpoint) -> None:
        """Send no more to a node, and close it when nobody can wait for its replies any longer."""
        self._retired.add(self._nodes.pop(endpoint))

    async def close(self) -> None:
        """Close all connections."""
        if self._search is not None:
            self._search.cancel()
            await asyncio.wait([self._search])
        await self._retired.close()
        for node in list(self._nodes.values()):
            await node.close()
