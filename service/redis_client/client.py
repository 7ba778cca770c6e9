"""The client: commands out, replies in, and every failure retried or turned into one of the service's errors.

A failed command is retried while that may help, cannot execute a write twice, and fits into the command's timeout.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from secrets import token_hex
from time import monotonic
from typing import Any, Protocol, Self

import hiredis

from service.errors import NotReplicated, StoreUnavailable, WriteUncertain
from service.redis_client import diagnosis, replies
from service.redis_client.cluster import Cluster
from service.redis_client.errors import NoRoute, RequestFailed, TimedOut, TooFewReplicas
from service.redis_client.multiplexer import Command, pack
from service.redis_client.sentinel import Sentinel
from service.redis_client.standalone import Standalone
from service.redis_client.topology import Outcome, Route, Target, Topology
from service.redis_client.url import Endpoint, parse

#: How the names of our connections begin in CLIENT LIST; all connections of one client have one name.
NAME_PREFIX = "session-config-cache:"
#: Begins the last part of the name of a server's connections, before its number of partitions.
PARTITIONS_LABEL = "p"

#: Keys tried to find one on every master: enough for a master that has a single slot of 16,384.
MAX_KEYS_TRIED = 200_000

#: The share of the timeout that must be left for another attempt.
MIN_TIME_FOR_RETRY = 0.2

_TOPOLOGIES: dict[str, Callable[..., Topology]] = {"standalone": Standalone, "cluster": Cluster, "sentinel": Sentinel}


async def _send(route: Route | NoRoute, commands: Sequence[Command], writes: bool, seconds: float) -> list[Any]:
    """Send commands to one server and return their outcomes."""
    if isinstance(route, NoRoute):
        return [route] * len(commands)
    packed = b"".join([pack(tuple(command)) for command in commands])
    try:
        return await (route.writes if writes else route.reads).send(packed, len(commands), seconds)
    except RequestFailed as error:
        return [_without_frames(error)] * len(commands)


def _without_frames(error: RequestFailed) -> RequestFailed:
    """The error without its traceback.

    A traceback refers to the frames of all callers. If one of them holds the error, that is a cycle, which keeps what they hold
    (documents, pages of sessions) in memory until the garbage collector runs, and that is seldom.
    """
    return error.with_traceback(None)


class Meter(Protocol):
    """Counts what a client does."""

    def called(self, sha: str, seconds: float) -> None:
        """The call of a script, or a batch of calls of it, has its replies or has failed, after so many seconds."""

    def retried(self, count: int) -> None:
        """So many commands are sent again."""


class RedisClient:
    """One worker's connections to the store. Replies are as Redis sends them in RESP2: bytes, int, list or None."""

    def __init__(self, topology: Topology, *, timeout: float) -> None:
        #: Of its connections in CLIENT LIST.
        self.name = ""
        self.meter: Meter | None = None
        self._topology = topology
        self._timeout = timeout

    @classmethod
    def open(cls, url: str, *, timeout: float, min_replicas: int = 0, partitions: int = 0) -> Self:
        """A client for the store at `url`. The first command connects; each command takes at most `timeout` seconds.

        A write returns once `min_replicas` replicas have acknowledged it. Servers pass their number of `partitions`, which then
        is part of the name of their connections in CLIENT LIST.

        Raises:
            StartupError: `url` is not valid.
        """
        address = parse(url)
        name = NAME_PREFIX + token_hex(4) + (f":{PARTITIONS_LABEL}{partitions}" if partitions else "")
        address.options["client_name"] = name
        client = cls(_TOPOLOGIES[address.kind](address, timeout=timeout, min_replicas=min_replicas), timeout=timeout)
        client.name = name
        return client

    async def close(self) -> None:
        """Close all connections for good; calls in flight fail. Returns when the connections are closed."""
        await self._topology.close()

    async def call(self, *command: str | bytes | int, writes: bool = False, near: Target | None = None) -> Any:  # noqa: ANN401 - Redis replies differ
        """Run one command. If it has no key, `near` says on which server.

        Raises:
            StoreUnavailable: Redis is unreachable, too slow, or refuses the command; nothing was written.
            WriteUncertain: the same, but the command `writes` and may have been executed.
            NotReplicated: the command was executed, but too few replicas acknowledged it.
            redis.ResponseError: Redis replied with an error that is a defect of the caller (NOSCRIPT included); its text quotes
                no argument.
        """
        started = monotonic()
        outcome: Any
        try:
            route = self._topology.route(command, near)
            (outcome,) = await (route.writes if writes else route.reads).send(pack(command))
        except RequestFailed as error:
            outcome = _without_frames(error)
        # Not every command: that would cost a GET 3 %.
        if self.meter is not None and command[0] == "EVALSHA":
            self.meter.called(str(command[1]), monotonic() - started)
        if isinstance(outcome, Exception):
            (outcome,) = await self._retry([command], [outcome], writes, near, started)
            if isinstance(outcome, Exception):
                try:
                    raise outcome
                finally:
                    del outcome  # the frame must not hold it, see `_without_frames`
        return outcome

    async def batch(self, commands: Sequence[Command], *, writes: bool = False, near: Target | None = None) -> list[Any]:
        """Run `commands` in one round trip to each server, without a transaction; replies are in the order of the commands.

        If the commands have no keys, `near` says on which server all of them run.

        An error that Redis replies to one command is not raised: it takes the place of the reply, as the exception that `call`
        would raise. Other errors are raised as `call` does.
        """
        if not commands:
            return []
        started = monotonic()
        outcomes = await self._attempt(commands, [None] * len(commands), writes, near, self._timeout)
        # Once, for the script of its first call: with few exceptions, all calls of a batch are of one script.
        if self.meter is not None and commands[0][0] == "EVALSHA":
            self.meter.called(str(commands[0][1]), monotonic() - started)
        if any(isinstance(outcome, Exception) for outcome in outcomes):
            return await self._retry(commands, outcomes, writes, near, started)
        return outcomes

    async def call_raw(self, command: Command, *, near: Target) -> Any:  # noqa: ANN401 - Redis replies differ
        """Run a command that may write, near `near`. An error reply is returned as Redis sent it, so it may quote arguments.

        Raises:
            StoreUnavailable, WriteUncertain, NotReplicated: as `call` does, if there is no reply.
        """
        started, writes = monotonic(), True
        outcomes = await self._attempt([command], [None], writes, near, self._timeout)
        await self._retry_until_deadline([command], outcomes, writes, near, started)
        return outcomes[0]

    async def masters(self) -> list[int]:
        """One slot of every master; raises as `call` does."""
        if not self._topology.slots():
            await self.call("PING", near=0)  # finds the masters
        return list(self._topology.slots())

    async def call_on_masters(self, *command: str | bytes | int, writes: bool = False) -> list[Any]:
        """Run a command that has no key on every master; raises as `call` does."""
        return await asyncio.gather(*(self.call(*command, writes=writes, near=slot) for slot in await self.masters()))

    async def one_key_per_master(self, key: Callable[[int], str]) -> list[str]:
        """The first of `key(0)`, `key(1)`, … on each master; raises as `call` does."""
        await self.call("PING", near=0)  # finds the masters
        masters = {self._topology.endpoint(slot) for slot in self._topology.slots()}
        keys: dict[Endpoint | None, str] = {}
        for name in map(key, range(MAX_KEYS_TRIED)):
            with suppress(NoRoute):  # no node serves this slot
                keys.setdefault(self._topology.endpoint(name), name)
            if len(keys) == len(masters):
                break
        return list(keys.values())

    async def endpoint_of(self, key: str) -> Endpoint | None:
        """The server that has `key`, None if it is on a Unix socket; raises as `call` does."""
        await self.call("PING", near=key)  # finds the server
        return self._topology.endpoint(key)

    async def _attempt(
        self, commands: Sequence[Command], last: Sequence[Outcome], writes: bool, near: Target | None, seconds: float
    ) -> list[Any]:
        """Send every command to its server, to all servers concurrently, and return the outcomes."""
        routes = list(self._topology.routes(commands, near, last))
        if len(routes) == 1:
            return await _send(routes[0][0], commands, writes, seconds)
        parts = await asyncio.gather(
            *(_send(route, [commands[index] for index in indexes], writes, seconds) for route, indexes in routes)
        )
        outcomes: list[Any] = [None] * len(commands)
        for (_, indexes), part in zip(routes, parts, strict=True):
            for index, outcome in zip(indexes, part, strict=True):
                outcomes[index] = outcome
        return outcomes

    async def _retry(
        self, commands: Sequence[Command], outcomes: list[Any], writes: bool, near: Target | None, started: float
    ) -> list[Any]:
        """Retry what failed and return the final outcomes; error replies are exceptions of the service or of redis-py."""
        await self._retry_until_deadline(commands, outcomes, writes, near, started)
        return [self._to_exception(outcome, writes) for outcome in outcomes]

    async def _retry_until_deadline(
        self, commands: Sequence[Command], outcomes: list[Any], writes: bool, near: Target | None, started: float
    ) -> None:
        """Retry what failed while that is safe, may help, and leaves enough time; replaces those `outcomes`.

        Raises:
            StoreUnavailable: a command has no reply.
        """
        min_time = self._timeout * MIN_TIME_FOR_RETRY
        for pause in self._topology.backoff:
            indexes = [index for index, outcome in enumerate(outcomes) if self._may_retry(outcome, writes)]
            remaining = started + self._timeout - monotonic()
            if not indexes or remaining < min_time + pause:
                break
            last = [outcomes[index] for index in indexes]
            if self.meter is not None:
                self.meter.retried(len(indexes))
            await self._topology.refresh(last, remaining - min_time - pause)
            await asyncio.sleep(pause)
            remaining = max(started + self._timeout - monotonic(), 0)
            results = await self._attempt([commands[index] for index in indexes], last, writes, near, remaining)
            for index, outcome in zip(indexes, results, strict=True):
                outcomes[index] = outcome
        self._raise_if_no_reply(outcomes, writes)

    def _may_retry(self, outcome: Outcome, writes: bool) -> bool:
        # A write that Redis may have executed is never sent twice. A write that Redis refused was not executed.
        is_uncertain = writes and isinstance(outcome, RequestFailed) and outcome.sent
        return not is_uncertain and self._topology.is_retryable(outcome)

    def _raise_if_no_reply(self, outcomes: Sequence[Outcome], writes: bool) -> None:
        """Raise the error of the service for commands that have no reply, if there are any."""
        failures = [outcome for outcome in outcomes if isinstance(outcome, RequestFailed)]
        if not failures:
            return
        if any(isinstance(error, TimedOut) for error in failures):
            self._topology.refresh_soon()
        cause = diagnosis.cause_of(failures[0])
        kind: type[StoreUnavailable] = StoreUnavailable
        if all(isinstance(error, TooFewReplicas) for error in failures):
            kind = NotReplicated
        elif writes and (any(error.sent for error in failures) or any(not isinstance(each, Exception) for each in outcomes)):
            kind = WriteUncertain
        raise kind(diagnosis=cause.sentence, may_pass=cause.may_pass) from failures[0]

    def _to_exception(self, outcome: Outcome, writes: bool) -> Any:  # noqa: ANN401 - Redis replies differ
        """The exception for an error reply; any other outcome as it is."""
        if not isinstance(outcome, hiredis.ReplyError):
            return outcome
        if replies.redirection(outcome) is not None and self._topology.is_retryable(outcome):
            return StoreUnavailable(diagnosis="the nodes of the Redis Cluster do not agree on which of them serves a slot")
        return replies.to_exception(outcome, writes=writes)


def checked(replies: list[Any]) -> list[Any]:
    """The replies of a batch if none of them is an error; otherwise empties the list and raises the first error."""
    error = next((reply for reply in replies if isinstance(reply, Exception)), None)
    if error is None:
        return replies
    # The error must not be held by a frame that it passes through, see `_without_frames`; callers may hold the list.
    replies.clear()
    try:
        raise error
    finally:
        del error
