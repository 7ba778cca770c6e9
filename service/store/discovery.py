"""What topologies of many servers share: their nodes, and finding out where things are, one search at a time."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from itertools import chain, repeat
from typing import Any

import hiredis

from service.store.lane import SILENCE, Lane, LaneError
from service.store.node import Node
from service.store.urls import Address, Endpoint

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
        self._retired: set[Node] = set()
        self._search: asyncio.Task[None] | None = None

    @property
    def pauses(self) -> Iterable[float]:
        """Only the time of the call ends its attempts."""
        return chain(PAUSES, repeat(PAUSES[-1]))

    def doubt(self) -> None:
        """Begin a search, unless one goes on."""
        if self._search is None or self._search.done():
            self._search = asyncio.get_running_loop().create_task(self._find_out())

    async def _found_out(self, seconds: float) -> None:
        """Wait for the end of a search, for so long at most."""
        self.doubt()
        assert self._search is not None  # noqa: S101 - begun
        await asyncio.wait([self._search], timeout=seconds)

    @abstractmethod
    async def _find_out(self) -> None:
        """Search where things are, and take it over."""

    async def _ask(self, lane: Lane, packed: bytes) -> Any:  # noqa: ANN401 - Redis replies differ
        """The reply of a server that may not answer, None then."""
        try:
            async with asyncio.timeout(self._timeout * PATIENCE):
                (reply,) = await lane.send(packed)
        except (LaneError, TimeoutError):
            return None
        return None if isinstance(reply, hiredis.ReplyError) else reply

    def _node(self, endpoint: Endpoint) -> Node:
        if endpoint not in self._nodes:
            connection = partial(self._address.connection, endpoint, seconds=self._timeout)
            self._nodes[endpoint] = Node(
                endpoint, connection, timeout=self._timeout, min_replicas=self._min_replicas
            )
        return self._nodes[endpoint]

    def _retire(self, endpoint: Endpoint) -> None:
        """Send no more to a node, and close it when nobody can wait for its replies any longer."""
        node = self._nodes.pop(endpoint)
        self._retired.add(node)
        asyncio.get_running_loop().call_later(self._timeout * SILENCE, self._close_retired, node)

    def _close_retired(self, node: Node) -> None:
        self._retired.discard(node)
        node.close()

    def close(self) -> None:
        """Close all connections."""
        if self._search is not None:
            self._search.cancel()
        for node in [*self._nodes.values(), *self._retired]:
            node.close()
