"""Redis Cluster: which node serves which slot, and what to do when that changes.

A key's slot is that of its hash tag, so all keys of a partition share one. Any node that answers can give the slot map. The map
is read again whenever a node says, or a failure suggests, that it is out of date.

While a slot migrates, its keys are on two nodes. A command on one key follows ASK to the node that has the key. A script does
not: it would not find the keys that are still at the source. It is retried until one node serves the whole slot again.
"""

from collections.abc import Iterable, Sequence
from random import sample
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from service.redis_client.discovery import Discovery
from service.redis_client.errors import ConnectionLost, NoRoute, SlotsUnassigned, Unreachable
from service.redis_client.multiplexer import Command, pack
from service.redis_client.node import Node, Sender
from service.redis_client.replies import Redirection, is_migrating, is_transient, redirection
from service.redis_client.topology import Outcome, Route, Target
from service.redis_client.url import Address, Endpoint

_ASKING = pack(("ASKING",))
_CLUSTER_SLOTS = pack(("CLUSTER", "SLOTS"))
_SCRIPT_CALLS = ("EVALSHA", "EVAL")


def slot_of(command: Command, near: Target | None) -> int:
    """The slot of `near`, or of the command's first key if `near` is None."""
    if isinstance(near, int):
        return near
    key = near if near is not None else command[3 if command[0] in _SCRIPT_CALLS else 1]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


class Cluster(Discovery):
    """The nodes of a cluster and their slots."""

    def __init__(self, address: Address, *, timeout: float, min_replicas: int) -> None:
        super().__init__(address, timeout=timeout, min_replicas=min_replicas)
        self._slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        #: Where the last MOVED since the last refresh led: this node knows its slots first, the others may not know them yet.
        self._last_moved_to: Endpoint | None = None

    def route(self, command: Command, near: Target | None, last: Outcome = None) -> Route:
        """The node that serves the slot of the key, or the node that the redirection in `last` names."""
        redirect = redirection(last)
        # MOVED names the slot of the command's keys, whatever `near` is.
        owner = self._owner(command, redirect.slot if redirect is not None and redirect.kind == "MOVED" else near)
        if redirect is not None and redirect.kind == "ASK" and command[0] not in _SCRIPT_CALLS:
            return _AskingRoute(self._redirect_target(redirect))
        return owner

    def endpoint(self, near: Target) -> Endpoint | None:
        return self._owner((), near).endpoint

    def _owner(self, command: Command, near: Target | None) -> Node:
        node = self._slots[slot_of(command, near)]
        if node is None:
            raise self._no_route()
        return node

    def routes(
        self, commands: Sequence[Command], near: Target | None, last: Sequence[Outcome]
    ) -> Iterable[tuple[Route | NoRoute, Sequence[int]]]:
        indexes: dict[Route | NoRoute, list[int]] = {}
        for index, (command, outcome) in enumerate(zip(commands, last, strict=True)):
            try:
                route: Route | NoRoute = self.route(command, near, outcome)
            except NoRoute as error:
                route = error
            indexes.setdefault(route, []).append(index)
        return indexes.items()

    def is_retryable(self, outcome: Outcome) -> bool:
        """Whether it failed because the cluster is changing, or may be."""
        return (
            isinstance(outcome, ConnectionLost | Unreachable | NoRoute)
            or is_transient(outcome)
            or redirection(outcome) is not None
        )

    async def refresh(self, outcomes: Iterable[Outcome], seconds: float) -> None:
        """Apply what MOVED says; read the whole slot map if an outcome names no node."""
        is_map_needed = False
        for outcome in outcomes:
            redirect = redirection(outcome)
            is_map_needed = is_map_needed or (redirect is None and not is_migrating(outcome))
            if redirect is not None and redirect.kind == "MOVED":
                try:
                    owner = self._redirect_target(redirect)
                except NoRoute:
                    is_map_needed = True
                    continue
                self._slots[redirect.slot], self._last_moved_to = owner, owner.endpoint
                self.refresh_soon()
        if is_map_needed:
            await self._wait_for_refresh(seconds)

    def slots(self) -> list[int]:
        return list({node: slot for slot, node in enumerate(self._slots) if node is not None}.values())

    def _redirect_target(self, redirect: Redirection) -> Node:
        if redirect.host:
            return self._node_at((redirect.host, redirect.port))
        # An empty host means that of the node that sent the redirection: the one that served the slot.
        source = self._slots[redirect.slot]
        if source is None or source.endpoint is None:
            raise NoRoute  # a refresh in the meantime has removed the node from the map
        return self._node_at((source.endpoint[0], redirect.port))

    async def _refresh(self) -> None:
        self._rotate_errors()
        moved_to, self._last_moved_to = self._last_moved_to, None
        endpoints = [*sample(list(self._nodes), len(self._nodes)), *self._address.hosts]
        for endpoint in [moved_to, *endpoints] if moved_to is not None else endpoints:
            ranges = await self._query(self._node_at(endpoint).reads, _CLUSTER_SLOTS)
            if ranges:
                self._apply(ranges, endpoint)
                self._error = SlotsUnassigned() if None in self._slots else None
                return
            if ranges is not None:
                self._error = SlotsUnassigned()

    def _apply(self, ranges: list[Any], source: Endpoint) -> None:
        """Apply the reply of `source` to CLUSTER SLOTS.

        Each range is first slot, last slot, master, replicas…; each server is host, port, …; no host means that of `source`.
        """
        slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        members = set(self._address.hosts)
        for first, last, *servers in ranges:
            endpoints = [((host or b"").decode() or source[0], port) for host, port, *_ in servers]
            # Replicas are kept too: they can be asked for the map.
            master, *_ = [self._node_at(endpoint) for endpoint in endpoints]
            slots[first : last + 1] = [master] * (last + 1 - first)
            members.update(endpoints)
        self._slots = slots
        for endpoint in self._nodes.keys() - members:
            self._drop_node(endpoint)


class _AskingRoute:
    """A route to the node that imports a slot and has the key already."""

    def __init__(self, node: Node) -> None:
        self.reads: Sender = _AskingSender(node.reads)
        self.writes: Sender = _AskingSender(node.writes)


class _AskingSender:
    """Sends ASKING before one command, so that the node accepts it for a slot that it is importing."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    async def send(self, packed: bytes, commands: int = 1, seconds: float | None = None) -> list[Any]:
        return (await self._sender.send(_ASKING + packed, commands + 1, seconds))[1:]
