"""Redis Cluster: which node has which slot, and what to do when that changes.

A key's slot is found from its hash tag, so all keys of a partition share one. The map of slots is learnt from any node that
answers, and anew whenever one says, or gives reason to suspect, that it is out of date.

While a slot moves, its keys are on two nodes. A command on one key is sent where the source says that the key is (ASK). Scripts
are not: they would not find what is still at the source. They wait until the slot has one node again.
"""

from collections.abc import Iterable, Sequence
from random import sample
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from service.redis_client.discovery import Discovery
from service.redis_client.multiplexer import Command, ConnectionLost, Unreachable, pack
from service.redis_client.node import Node, Sender
from service.redis_client.replies import Redirection, is_migrating, is_transient, redirection
from service.redis_client.topology import NoRoute, Outcome, Route, SlotsUnassigned, Target
from service.redis_client.url import Address, Endpoint

_ASKING = pack(("ASKING",))
_MAP = pack(("CLUSTER", "SLOTS"))
_SCRIPT_CALLS = ("EVALSHA", "EVAL")


def slot_of(command: Command, near: Target | None) -> int:
    """The slot of a command's key; for one that has none, `near` tells it."""
    if isinstance(near, int):
        return near
    key = near if near is not None else command[3 if command[0] in _SCRIPT_CALLS else 1]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


class Cluster(Discovery):
    """The nodes of a cluster and their slots."""

    def __init__(self, address: Address, *, timeout: float, min_replicas: int) -> None:
        super().__init__(address, timeout=timeout, min_replicas=min_replicas)
        self._slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        #: Who took a slot over since the last search; the others may not know it yet.
        self._newest: Endpoint | None = None

    def way(self, command: Command, near: Target | None, last: Outcome = None) -> Route:
        """The node that has the key's slot, or the one that this has named as the key's."""
        told = redirection(last)
        # MOVED names the slot of the command's keys, whatever `near` is.
        node = self._owner(command, told.slot if told is not None and told.kind == "MOVED" else near)
        if told is not None and told.kind == "ASK" and command[0] not in _SCRIPT_CALLS:
            return _Asking(self._told(told))
        return node

    def endpoint(self, near: Target) -> Endpoint | None:
        """The node that has the slot."""
        return self._owner((), near).endpoint

    def _owner(self, command: Command, near: Target | None) -> Node:
        node = self._slots[slot_of(command, near)]
        if node is None:
            raise self._unknown()
        return node

    def ways(
        self, commands: Sequence[Command], near: Target | None, last: Sequence[Outcome]
    ) -> Iterable[tuple[Route | NoRoute, Sequence[int]]]:
        """The nodes, each with its commands in their order."""
        found: dict[Route | NoRoute, list[int]] = {}
        for place, (command, outcome) in enumerate(zip(commands, last, strict=True)):
            try:
                way: Route | NoRoute = self.way(command, near, outcome)
            except NoRoute as unknown:
                way = unknown
            found.setdefault(way, []).append(place)
        return found.items()

    def is_retryable(self, outcome: Outcome) -> bool:
        """Whether it failed because the cluster changes, or may have."""
        return (
            isinstance(outcome, ConnectionLost | Unreachable | NoRoute)
            or is_transient(outcome)
            or redirection(outcome) is not None
        )

    async def refresh(self, outcomes: Iterable[Outcome], seconds: float) -> None:
        """Take over what MOVED tells; learn the whole map where failures tell less."""
        knows_enough = True
        for outcome in outcomes:
            told = redirection(outcome)
            knows_enough = knows_enough and (told is not None or is_migrating(outcome))
            if told is not None and told.kind == "MOVED":
                try:
                    owner = self._told(told)
                except NoRoute:
                    knows_enough = False
                    continue
                self._slots[told.slot], self._newest = owner, owner.endpoint
                self.refresh_soon()
        if not knows_enough:
            await self._found_out(seconds)

    def slots(self) -> list[int]:
        """A slot of every master."""
        return list({node: slot for slot, node in enumerate(self._slots) if node is not None}.values())

    def _told(self, told: Redirection) -> Node:
        if told.host:
            return self._node((told.host, told.port))
        # No host stands for that of the node that told it: the one that had the slot.
        teller = self._slots[told.slot]
        if teller is None or teller.endpoint is None:
            raise NoRoute  # a map that came in between knows of no such node
        return self._node((teller.endpoint[0], told.port))

    async def _find_out(self) -> None:
        self._forget_failure()
        newest, self._newest = self._newest, None
        known = [*sample(list(self._nodes), len(self._nodes)), *self._address.hosts]
        for endpoint in [newest, *known] if newest is not None else known:
            reply = await self._ask(self._node(endpoint).reads, _MAP)
            if reply:
                self._take_over(reply, endpoint)
                self._failure = SlotsUnassigned() if None in self._slots else None
                return
            if reply is not None:
                self._failure = SlotsUnassigned()

    def _take_over(self, ranges: list[Any], teller: Endpoint) -> None:
        """Take over a reply to CLUSTER SLOTS: ranges of first slot, last slot, master, replicas; a server is host, port, …."""
        slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        known = set(self._address.hosts)
        for first, last, *servers in ranges:
            endpoints = [((host or b"").decode() or teller[0], port) for host, port, *_ in servers]
            # Replicas are kept, too: they can be asked for the map.
            master, *_ = [self._node(endpoint) for endpoint in endpoints]
            slots[first : last + 1] = [master] * (last + 1 - first)
            known.update(endpoints)
        self._slots = slots
        for endpoint in self._nodes.keys() - known:
            self._retire(endpoint)


class _Asking:
    """The way to a node that has a key of a slot which is not its own yet."""

    def __init__(self, node: Node) -> None:
        self.reads: Sender = _AskingSender(node.reads)
        self.writes: Sender = _AskingSender(node.writes)


class _AskingSender:
    """Sends one command with leave to look into a slot on its way."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    async def send(self, packed: bytes, commands: int = 1, seconds: float | None = None) -> list[Any]:
        """As `MultiplexedConnection.send`."""
        return (await self._sender.send(_ASKING + packed, commands + 1, seconds))[1:]
