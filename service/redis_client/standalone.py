"""One Redis server at one address."""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import chain, repeat

from service.redis_client.errors import ConnectionLost, NoRoute, Unreachable
from service.redis_client.multiplexer import Command
from service.redis_client.node import DrainingNodes, Node
from service.redis_client.replies import is_demoted
from service.redis_client.topology import Outcome, Route, Target
from service.redis_client.url import Address, Endpoint

#: Seconds between the retries of a call. The first retry is immediate; a Redis that is being restarted is soon back.
BACKOFF = (0.0, 0.05, 0.1, 0.2)
#: Seconds between two reconnects, at first; doubled while the server refuses.
FIRST_RECONNECT_INTERVAL = 0.05
#: Timeouts without a reconnect, after which the interval is FIRST_RECONNECT_INTERVAL again.
RESET_AFTER_TIMEOUTS = 10


class Standalone:
    """One server, whatever its address leads to.

    The address may move to another server (managed failover, TCP proxy): the server behind the open connections is demoted, and
    new connections lead to the new master. So when a server refuses as a replica does, all connections to it are replaced, and
    no later call reads stale data from it. Redis refuses a write before it changes anything, and also the first write of a
    script; no server is demoted in the middle of a script. So a write that was refused this way is safe to send again.
    """

    def __init__(self, address: Address, *, timeout: float, min_replicas: int) -> None:
        self._address = address
        self._timeout = timeout
        self._min_replicas = min_replicas
        self._node: Node | None = None
        self._draining = DrainingNodes(timeout=timeout)
        self._reconnect_interval = FIRST_RECONNECT_INTERVAL
        self._last_reconnect = self._next_reconnect = 0.0

    def route(self, command: Command, near: Target | None) -> Node:  # noqa: ARG002 - the same for every command
        if self._node is None:
            endpoint = self._address.hosts[0] if self._address.hosts else None
            self._node = Node(
                endpoint,
                lambda: self._address.new_connection(endpoint, seconds=self._timeout),
                timeout=self._timeout,
                min_replicas=self._min_replicas,
                on_demotion=self._replace,
            )
        return self._node

    def _replace(self, node: Node) -> None:
        """Drop `node`, so that the next call opens a new connection.

        Many calls in flight are refused together; only the first refusal has this effect. If new connections lead to a replica
        too, the interval between reconnects grows.
        """
        now = asyncio.get_running_loop().time()
        if node is not self._node or now < self._next_reconnect:
            return
        longest = self._timeout / 2  # so that at least one reconnect falls into the time of a call
        if now - self._last_reconnect > self._timeout * RESET_AFTER_TIMEOUTS:
            self._reconnect_interval = FIRST_RECONNECT_INTERVAL
        self._last_reconnect, self._next_reconnect = now, now + min(self._reconnect_interval, longest)
        self._reconnect_interval = min(self._reconnect_interval * 2, longest)
        self._draining.add(node)
        self._node = None

    def endpoint(self, near: Target) -> Endpoint | None:
        return self.route((), near).endpoint

    def routes(
        self,
        commands: Sequence[Command],
        near: Target | None,
        last: Sequence[Outcome],  # noqa: ARG002 - the same after every outcome
    ) -> Iterable[tuple[Route | NoRoute, Sequence[int]]]:
        return [(self.route(commands[0], near), range(len(commands)))]

    @property
    def backoff(self) -> Iterable[float]:
        """Only the deadline of the call ends its retries."""
        return chain(BACKOFF, repeat(BACKOFF[-1]))

    def is_retryable(self, outcome: Outcome) -> bool:
        """Whether there was no connection, or the server is not the master, or not yet."""
        return isinstance(outcome, ConnectionLost | Unreachable) or is_demoted(outcome)

    async def refresh(self, outcomes: Iterable[Outcome], seconds: float) -> None:
        """Nothing to do: a node reports its demotion itself."""

    def refresh_soon(self) -> None:
        """Nothing to do: there is no other server."""

    def slots(self) -> list[int]:
        return [0]

    async def close(self) -> None:
        await self._draining.close()
        if self._node is not None:
            await self._node.close()
