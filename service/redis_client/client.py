"""The link to Redis: commands out, replies in, and everything that can go wrong met or turned into the service's own errors.

What fails is tried again where that may end better and cannot do a write twice, as long as the command's time lasts.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from secrets import token_hex
from time import monotonic
from typing import Any, Self

import hiredis

from service.errors import NotReplicated, StoreUnavailable, WriteUncertain
from service.redis_client import diagnosis, node, replies
from service.redis_client.cluster import Cluster
from service.redis_client.multiplexer import Command, RequestFailed, TimedOut, pack
from service.redis_client.sentinel import Sentinel
from service.redis_client.topology import NoRoute, Outcome, Route, Standalone, Target, Topology
from service.redis_client.url import Endpoint, parse

#: How the names of our connections begin in CLIENT LIST; those of one link have one name.
NAME_PREFIX = "session-config-cache:"
#: Begins the last part of the names of a server's connections, before its number of partitions.
PARTITIONS_LABEL = "p"

#: Keys looked at for one on every master: enough for a master that has a single slot of 16,384.
MOST_KEYS_TRIED = 200_000

#: The share of a command's time that must be left for another attempt.
LEAST = 0.2

_TOPOLOGIES: dict[str, Callable[..., Topology]] = {"one": Standalone, "cluster": Cluster, "sentinel": Sentinel}


async def _send(way: Route | NoRoute, commands: Sequence[Command], writes: bool, seconds: float) -> list[Any]:
    """Send commands one way and return how each ended."""
    if isinstance(way, NoRoute):
        return [way] * len(commands)
    packed = b"".join([pack(tuple(command)) for command in commands])
    try:
        return await (way.writes if writes else way.reads).send(packed, len(commands), seconds)
    except RequestFailed as error:
        return [error] * len(commands)


class RedisClient:
    """One worker's way to the store. Replies are as Redis sends them: bytes, int, list or None."""

    def __init__(self, topology: Topology, *, timeout: float) -> None:
        #: Of its connections in CLIENT LIST.
        self.name = ""
        self._topology = topology
        self._timeout = timeout

    @classmethod
    def open(cls, url: str, *, timeout: float, min_replicas: int = 0, partitions: int = 0) -> Self:
        """A way to the store at `url`, connected when first used; a command takes at most `timeout` seconds.

        A write is answered once `min_replicas` replicas have it. A server names its `partitions`, for CLIENT LIST.

        Raises:
            StartupError: `url` is not one of a store.
        """
        address = parse(url)
        name = NAME_PREFIX + token_hex(4) + (f":{PARTITIONS_LABEL}{partitions}" if partitions else "")
        address.options["client_name"] = name
        link = cls(_TOPOLOGIES[address.kind](address, timeout=timeout, min_replicas=min_replicas), timeout=timeout)
        link.name = name
        return link

    async def close(self) -> None:
        """Close all connections, for good; calls in flight fail. Returns when the connections are closed."""
        await self._topology.close()

    async def call(self, *command: str | bytes | int, writes: bool = False, near: Target | None = None) -> Any:  # noqa: ANN401 - Redis replies differ
        """Run one command. `near` tells where, for a command without a key.

        Raises:
            StoreUnavailable: Redis is away, too slow, or refuses to work.
            WriteUncertain: the same, for a command that `writes` and may have done so.
            NotReplicated: it was done, but not by as many servers as promised.
            redis.ResponseError: Redis answered with an error that is this service's fault (NOSCRIPT included); its text quotes
                no argument.
        """
        started = monotonic()
        outcome: Any
        try:
            way = self._topology.way(command, near)
            (outcome,) = await (way.writes if writes else way.reads).send(pack(command))
        except RequestFailed as error:
            outcome = error
        if isinstance(outcome, Exception):
            (outcome,) = await self._settle([command], [outcome], writes, near, started)
            if isinstance(outcome, Exception):
                raise outcome
        return outcome

    async def batch(self, commands: Sequence[Command], *, writes: bool = False, near: Target | None = None) -> list[Any]:
        """Run `commands` in one round trip to each server, not as one step; replies in the order of the commands.

        `near` tells where all of them are run, where one has no key.

        An error that Redis answers to one command stands, as `call` would raise it, in its place in the list.
        """
        if not commands:
            return []
        started = monotonic()
        outcomes = await self._attempt(commands, [None] * len(commands), writes, near, self._timeout)
        if any(isinstance(outcome, Exception) for outcome in outcomes):
            return await self._settle(commands, outcomes, writes, near, started)
        return outcomes

    async def write_untranslated(self, command: Command, *, near: Target) -> Any:  # noqa: ANN401 - Redis replies differ
        """Run a command that may write near `near`. An error reply is returned as Redis sent it, so it may quote arguments.

        Raises:
            StoreUnavailable, WriteUncertain, NotReplicated: as `call` does, where there is no reply.
        """
        started, writes = monotonic(), True
        outcomes = await self._attempt([command], [None], writes, near, self._timeout)
        await self._retry([command], outcomes, writes, near, started)
        return outcomes[0]

    async def masters(self) -> list[int]:
        """A slot of every master; raises as `call` does."""
        if not self._topology.slots():
            await self.call("PING", near=0)  # they are known then
        return list(self._topology.slots())

    async def call_on_masters(self, *command: str | bytes | int, writes: bool = False) -> list[Any]:
        """Run a command that has no key on every master; raises as `call` does."""
        return await asyncio.gather(*(self.call(*command, writes=writes, near=slot) for slot in await self.masters()))

    async def key_on_every_master(self, key: Callable[[int], str]) -> list[str]:
        """The first of `key(0)`, `key(1)`, … on each master; raises as `call` does."""
        await self.call("PING", near=0)  # the servers are known then
        masters = {self._topology.endpoint(slot) for slot in self._topology.slots()}
        keys: dict[Endpoint | None, str] = {}
        for name in map(key, range(MOST_KEYS_TRIED)):
            with suppress(NoRoute):  # a slot that no node serves
                keys.setdefault(self._topology.endpoint(name), name)
            if len(keys) == len(masters):
                break
        return list(keys.values())

    async def where(self, key: str) -> Endpoint | None:
        """The server that has `key`, None for that on a socket; raises as `call` does."""
        await self.call("PING", near=key)  # it is known then
        return self._topology.endpoint(key)

    async def _attempt(
        self, commands: Sequence[Command], last: Sequence[Outcome], writes: bool, near: Target | None, seconds: float
    ) -> list[Any]:
        """Send every command to its server, all servers at once, and return how each ended."""
        ways = list(self._topology.ways(commands, near, last))
        if len(ways) == 1:
            return await _send(ways[0][0], commands, writes, seconds)
        parts = await asyncio.gather(
            *(_send(way, [commands[place] for place in places], writes, seconds) for way, places in ways)
        )
        outcomes: list[Any] = [None] * len(commands)
        for (_, places), ends in zip(ways, parts, strict=True):
            for place, end in zip(places, ends, strict=True):
                outcomes[place] = end
        return outcomes

    async def _settle(
        self, commands: Sequence[Command], outcomes: list[Any], writes: bool, near: Target | None, started: float
    ) -> list[Any]:
        """Try again what failed, and turn what is left into errors."""
        await self._retry(commands, outcomes, writes, near, started)
        return [self._translated(outcome, writes) for outcome in outcomes]

    async def _retry(
        self, commands: Sequence[Command], outcomes: list[Any], writes: bool, near: Target | None, started: float
    ) -> None:
        """Try again what failed, while that is safe, may help, and leaves time to spare; replaces those `outcomes`.

        Raises:
            StoreUnavailable: a command has no reply.
        """
        least = self._timeout * LEAST
        for pause in self._topology.pauses:
            again = [place for place, outcome in enumerate(outcomes) if self._may_try_again(outcome, writes)]
            left = started + self._timeout - monotonic()
            if not again or left < least + pause:
                break
            last = [outcomes[place] for place in again]
            await self._topology.refresh(last, left - least - pause)
            await asyncio.sleep(pause)
            left = max(started + self._timeout - monotonic(), 0)
            ends = await self._attempt([commands[place] for place in again], last, writes, near, left)
            for place, end in zip(again, ends, strict=True):
                outcomes[place] = end
        self._raise_for(outcomes, writes)

    def _may_try_again(self, outcome: Outcome, writes: bool) -> bool:
        # A write that Redis may have seen is never sent twice; what Redis has refused it has not done.
        is_uncertain = writes and isinstance(outcome, RequestFailed) and outcome.sent
        return not is_uncertain and self._topology.is_retryable(outcome)

    def _raise_for(self, outcomes: Sequence[Outcome], writes: bool) -> None:
        """Raise the error that calls without a reply amount to."""
        failed = [outcome for outcome in outcomes if isinstance(outcome, RequestFailed)]
        if not failed:
            return
        if any(isinstance(error, TimedOut) for error in failed):
            self._topology.refresh_soon()
        cause = diagnosis.cause_of(failed[0])
        kind: type[StoreUnavailable] = StoreUnavailable
        if all(isinstance(error, node.NotReplicated) for error in failed):
            kind = NotReplicated
        elif writes and (any(error.sent for error in failed) or any(not isinstance(each, Exception) for each in outcomes)):
            kind = WriteUncertain
        raise kind(diagnosis=cause.sentence, may_pass=cause.may_pass) from failed[0]

    def _translated(self, outcome: Outcome, writes: bool) -> Any:  # noqa: ANN401 - Redis replies differ
        if not isinstance(outcome, hiredis.ReplyError):
            return outcome
        if replies.redirection(outcome) is not None and self._topology.is_retryable(outcome):
            return StoreUnavailable(diagnosis="the nodes of the Redis Cluster do not agree on who serves a slot")
        return replies.translated(outcome, writes=writes)


def checked(replies: list[Any]) -> list[Any]:
    """The replies of a batch, where none of them is an error; else the first error is raised."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies
