"""Redis Sentinel: the store is the server that Sentinels name as the master, if it says so itself."""

from collections.abc import Iterable, Sequence
from functools import partial

from service.redis_client.discovery import Discovery
from service.redis_client.multiplexer import Command, ConnectionLost, MultiplexedConnection, Unreachable, pack
from service.redis_client.node import Node
from service.redis_client.replies import is_transient
from service.redis_client.topology import NoMaster, NoRoute, Outcome, Route, Target, UnknownMaster
from service.redis_client.url import Address, Endpoint

_ROLE = pack(("ROLE",))


class Sentinel(Discovery):
    """The master of today, and the Sentinels that know of tomorrow's."""

    def __init__(self, address: Address, *, timeout: float, min_replicas: int) -> None:
        super().__init__(address, timeout=timeout, min_replicas=min_replicas)
        self._question = pack(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service))
        self._sentinels: list[MultiplexedConnection] = []
        self._master: Node | None = None

    def way(self, command: Command, near: Target | None) -> Node:  # noqa: ARG002 - every command
        """The master."""
        if self._master is None:
            raise self._unknown()
        return self._master

    def endpoint(self, near: Target) -> Endpoint | None:
        """The master."""
        return self.way((), near).endpoint

    def ways(
        self,
        commands: Sequence[Command],
        near: Target | None,  # noqa: ARG002 - every key
        last: Sequence[Outcome],  # noqa: ARG002 - whatever it was
    ) -> Iterable[tuple[Route | NoRoute, Sequence[int]]]:
        """The master, for all of them."""
        return [(self._master or self._unknown(), range(len(commands)))]

    def is_retryable(self, outcome: Outcome) -> bool:
        """Whether another master may answer, or this one in a moment."""
        return isinstance(outcome, ConnectionLost | Unreachable | NoRoute) or is_transient(outcome)

    async def refresh(self, outcomes: Iterable[Outcome], seconds: float) -> None:  # noqa: ARG002 - whatever they were
        """Ask who the master is."""
        await self._found_out(seconds)

    def slots(self) -> list[int]:
        """Any slot."""
        return [0]

    async def close(self) -> None:
        """Close all connections."""
        await super().close()
        for lane in self._sentinels:
            await lane.close()

    async def _find_out(self) -> None:
        if not self._sentinels:
            self._sentinels = [
                MultiplexedConnection(
                    partial(self._address.connection, endpoint, seconds=self._timeout, sentinel=True), timeout=self._timeout
                )
                for endpoint in self._address.hosts
            ]
        self._forget_failure()
        # The one that knew it last comes first: each that is dead costs patience.
        for lane in list(self._sentinels):
            named = await self._ask(lane, self._question)
            if named and await self._take_over((named[0].decode(), int(named[1]))):
                self._sentinels.remove(lane)
                self._sentinels.insert(0, lane)
                return
            if named is None and self._failure is None:
                self._failure = UnknownMaster()

    async def _take_over(self, endpoint: Endpoint) -> bool:
        """Make a server the master, unless it is none."""
        node = self._node(endpoint)
        role = await self._ask(node.reads, _ROLE)
        if role is None:
            return False
        # What was the master and is none must not be read from either.
        is_master: bool = role[0] == b"master"
        if not is_master:
            self._failure = NoMaster()
        if is_master or node is self._master:
            self._master = node if is_master else None
        for other in [known for known in self._nodes if self._nodes[known] is not self._master]:
            self._retire(other)
        return is_master
