"""Which server a command goes to: always the same one here, see `cluster` and `sentinel` for the others."""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Protocol

from service.redis_client import replies
from service.redis_client.multiplexer import Command, ConnectionLost, RequestFailed, Unreachable
from service.redis_client.node import Node, Retirement, Sender
from service.redis_client.url import Address, Endpoint

#: Where a command is run that has no key of its own: beside this key, or at the server that has this slot of a cluster.
Target = str | int

#: Seconds between two reconnects, at first; doubles while the refusals last.
FIRST_BACKOFF = 0.05
#: Time-outs without a reconnect, after which the interval begins again at FIRST_BACKOFF.
QUIET = 10

#: How one attempt at a command ended: the reply, an error that Redis replied, or a `RequestFailed`; None before the first.
Outcome = object


class NoRoute(RequestFailed):
    """It is not known which server to ask."""

    def __init__(self) -> None:
        super().__init__(sent=False)


class UnknownMaster(NoRoute):
    """Sentinels answer, and know no master by the name that they were asked for."""


class NoMaster(NoRoute):
    """The server that Sentinels name says that it is not a master."""


class SlotsUnassigned(NoRoute):
    """No node of the cluster serves the slot."""


class Route(Protocol):
    """The way to a server: a node, or what stands in for one."""

    @property
    def reads(self) -> Sender:
        """For commands that write nothing."""

    @property
    def writes(self) -> Sender:
        """For all others."""


class Topology(Protocol):
    """What a link knows of the servers of a store. `near` tells where, for a command without a key of its own."""

    @property
    def pauses(self) -> Iterable[float]:
        """The seconds before each further attempt at a call, as many as there may be."""

    def way(self, command: Command, near: Target | None) -> Route:
        """The way for a command.

        Raises:
            Unknown: no server is known for it.
        """

    def endpoint(self, near: Target) -> Endpoint | None:
        """The server that is meant by `near`, None for that on a socket; raises as `way`."""

    def ways(
        self, commands: Sequence[Command], near: Target | None, last: Sequence[Outcome]
    ) -> Iterable[tuple[Route | NoRoute, Sequence[int]]]:
        """The ways for all commands after their last outcomes, each with the places of the commands that take it."""

    def is_retryable(self, outcome: Outcome) -> bool:
        """Whether another attempt may end better, provided that the last one changed nothing."""

    async def refresh(self, outcomes: Iterable[Outcome], seconds: float) -> None:
        """Find out before another attempt where things are now, in at most so many seconds."""

    def refresh_soon(self) -> None:
        """Find it out in the background: a server does not answer."""

    def slots(self) -> list[int]:
        """A slot of every server that takes writes, as far as they are known."""

    async def close(self) -> None:
        """Close all connections."""


class Standalone:
    """One server, whatever name leads to it.

    The name may move (a managed failover, a TCP proxy): the server behind the open connections is demoted, and new ones lead to
    another. So when a server refuses as a replica does, all connections to it are replaced: no later call reads
    stale data there. Redis refuses a write before it does anything, a script's first one too, and no server is demoted in the
    middle of a script: a write that was refused so is safe to send again.
    """

    def __init__(self, address: Address, *, timeout: float, min_replicas: int) -> None:
        self._address = address
        self._timeout = timeout
        self._min_replicas = min_replicas
        self._node: Node | None = None
        self._retired = Retirement(timeout=timeout)
        self._backoff = FIRST_BACKOFF
        self._last_change = self._next_change = 0.0

    def way(self, command: Command, near: Target | None) -> Node:  # noqa: ARG002 - every command
        """The server."""
        if self._node is None:
            endpoint = self._address.hosts[0] if self._address.hosts else None
            self._node = Node(
                endpoint,
                lambda: self._address.connection(endpoint, seconds=self._timeout),
                timeout=self._timeout,
                min_replicas=self._min_replicas,
                on_demotion=self._reconnect,
            )
        return self._node

    def _reconnect(self, node: Node) -> None:
        """Let the next call connect anew, in place of `node`.

        Many calls in flight get the refusal together, and only the first of them has this effect. Where new connections lead
        to a replica too, the next attempts come at growing intervals.
        """
        now = asyncio.get_running_loop().time()
        if node is not self._node or now < self._next_change:
            return
        longest = self._timeout / 2  # within the time of a call there is an attempt
        if now - self._last_change > self._timeout * QUIET:
            self._backoff = FIRST_BACKOFF
        self._last_change, self._next_change = now, now + min(self._backoff, longest)
        self._backoff = min(self._backoff * 2, longest)
        self._retired.add(node)
        self._node = None

    def endpoint(self, near: Target) -> Endpoint | None:
        """The server."""
        return self.way((), near).endpoint

    def ways(
        self,
        commands: Sequence[Command],
        near: Target | None,
        last: Sequence[Outcome],  # noqa: ARG002 - whatever it was
    ) -> Iterable[tuple[Route | NoRoute, Sequence[int]]]:
        """The server, for all of them."""
        return [(self.way(commands[0], near), range(len(commands)))]

    @property
    def pauses(self) -> Iterable[float]:
        """Once more at once, and then for as long as there is time: a Redis that is being restarted is soon there again."""
        return chain((0.0, 0.05, 0.1), repeat(0.2))

    def is_retryable(self, outcome: Outcome) -> bool:
        """Whether the connection was lost or could not be made, or the server is not the master, or not yet."""
        return isinstance(outcome, ConnectionLost | Unreachable) or replies.is_demoted(outcome)

    async def refresh(self, outcomes: Iterable[Outcome], seconds: float) -> None:
        """There is nothing to learn: a node reports its demotion."""

    def refresh_soon(self) -> None:
        """There is nowhere else to look."""

    def slots(self) -> list[int]:
        """Any slot."""
        return [0]

    async def close(self) -> None:
        """Close all connections."""
        await self._retired.close()
        if self._node is not None:
            await self._node.close()
