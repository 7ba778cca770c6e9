"""Redis Sentinel: the store is the server that the Sentinels name as the master, if its own ROLE agrees."""

from collections.abc import Iterable, Sequence
from functools import partial

from service.redis_client.discovery import Discovery
from service.redis_client.errors import ConnectionLost, NoMaster, NoRoute, UnknownMaster, Unreachable
from service.redis_client.multiplexer import Command, MultiplexedConnection, pack
from service.redis_client.node import Node
from service.redis_client.replies import is_transient
from service.redis_client.topology import Outcome, Route, Target
from service.redis_client.url import Address, Endpoint

_ROLE = pack(("ROLE",))


class Sentinel(Discovery):
    """The current master, and the Sentinels that will name the next."""

    def __init__(self, address: Address, *, timeout: float, min_replicas: int) -> None:
        super().__init__(address, timeout=timeout, min_replicas=min_replicas)
        self._get_master_addr = pack(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.master_name))
        self._sentinels: list[MultiplexedConnection] = []
        self._master: Node | None = None

    def route(self, command: Command, near: Target | None) -> Node:  # noqa: ARG002 - the same for every command
        if self._master is None:
            raise self._no_route()
        return self._master

    def endpoint(self, near: Target) -> Endpoint | None:
        return self.route((), near).endpoint

    def routes(
        self,
        commands: Sequence[Command],
        near: Target | None,  # noqa: ARG002 - the same for every key
        last: Sequence[Outcome],  # noqa: ARG002 - and after every outcome
    ) -> Iterable[tuple[Route | NoRoute, Sequence[int]]]:
        return [(self._master or self._no_route(), range(len(commands)))]

    def is_retryable(self, outcome: Outcome) -> bool:
        """Whether another master may answer, or this one a little later."""
        return isinstance(outcome, ConnectionLost | Unreachable | NoRoute) or is_transient(outcome)

    async def refresh(self, outcomes: Iterable[Outcome], seconds: float) -> None:  # noqa: ARG002 - the same after every outcome
        await self._wait_for_refresh(seconds)

    def slots(self) -> list[int]:
        return [0]

    async def close(self) -> None:
        await super().close()
        for sentinel in self._sentinels:
            await sentinel.close()

    async def _refresh(self) -> None:
        if not self._sentinels:
            self._sentinels = [
                MultiplexedConnection(
                    partial(self._address.new_connection, endpoint, seconds=self._timeout, sentinel=True), timeout=self._timeout
                )
                for endpoint in self._address.hosts
            ]
        self._rotate_errors()
        # The Sentinel that answered last comes first: each dead one costs QUERY_TIMEOUT.
        for sentinel in list(self._sentinels):
            master = await self._query(sentinel, self._get_master_addr)
            if master and await self._apply((master[0].decode(), int(master[1]))):
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)
                return
            if master is None and self._error is None:
                self._error = UnknownMaster()

    async def _apply(self, endpoint: Endpoint) -> bool:
        """Make the server at `endpoint` the master if its ROLE says so; returns whether it does."""
        node = self._node_at(endpoint)
        role = await self._query(node.reads, _ROLE)
        if role is None:
            return False
        # A former master must not be read from either.
        is_master: bool = role[0] == b"master"
        if not is_master:
            self._error = NoMaster()
        if is_master or node is self._master:
            self._master = node if is_master else None
        for other in [other for other in self._nodes if self._nodes[other] is not self._master]:
            self._drop_node(other)
        return is_master
