"""One Redis server: the lane for its reads and the lane for its writes.

They are the same lane, unless writes wait for replicas. `WAIT` holds up its connection until enough replicas have what was
written on it before, so those writes have a lane of their own, and go in groups: what comes while one group waits is the next
one, with a single `WAIT` for all of it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Protocol

import hiredis
from redis.asyncio.connection import AbstractConnection

from service.redis_client.multiplexer import (
    MAX_BYTES,
    MAX_COMMANDS,
    SILENCE,
    MultiplexedConnection,
    RequestFailed,
    TimedOut,
    TooManyInFlight,
    pack,
)
from service.redis_client.url import Endpoint

#: Shares of the time that a command may take: what a group must have left to be sent at all, and what is left when WAIT ends.
LEAST, MARGIN = 0.3, 0.25


class NotReplicated(RequestFailed):
    """Redis has done it, but fewer replicas than promised have confirmed it in time."""


class Sender(Protocol):
    """What takes packed commands and returns their replies, as `MultiplexedConnection` does."""

    async def send(self, packed: bytes, commands: int = 1, seconds: float | None = None) -> list[Any]:
        """Send packed commands and return their replies."""


class Node:
    """One Redis server. `reads` and `writes` are the ways to it, connected when first used."""

    def __init__(
        self,
        endpoint: Endpoint | None,
        connection: Callable[[], AbstractConnection],
        *,
        timeout: float,
        min_replicas: int,
        on_demotion: "Callable[[Node], object] | None" = None,
    ) -> None:
        """`endpoint` is None for a socket's; `connection` makes a connection to the server that is not open yet.

        `on_demotion` is called with this node when it replies that it is not the master any more.
        """
        self.endpoint = endpoint
        connected = partial(
            MultiplexedConnection,
            connection,
            timeout=timeout,
            on_demotion=None if on_demotion is None else partial(on_demotion, self),
        )
        self.reads = connected()
        self.writes: MultiplexedConnection | ReplicatedConnection = self.reads
        if min_replicas:
            self.writes = ReplicatedConnection(connected(), min_replicas, timeout=timeout)

    async def close(self) -> None:
        """Close the connections; calls in flight fail."""
        await self.reads.close()
        if self.writes is not self.reads:
            await self.writes.close()


class Retirement:
    """Nodes that get no more commands. Each is closed when nobody can wait for its replies any longer."""

    def __init__(self, *, timeout: float) -> None:
        self._timeout = timeout
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    def add(self, node: Node) -> None:
        """Close a node later."""
        task = asyncio.get_running_loop().create_task(self._close_later(node))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close_later(self, node: Node) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), self._timeout * SILENCE)
        await node.close()

    async def close(self) -> None:
        """Close all of them now; calls in flight fail."""
        self._closing.set()
        await asyncio.gather(*self._tasks)


class _Write(NamedTuple):
    """One call on its way into a group."""

    packed: bytes
    commands: int
    deadline: float
    future: asyncio.Future[list[Any]]

    def end(self, outcome: list[Any] | Exception) -> None:
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class ReplicatedConnection:
    """A lane that returns replies once `replicas` replicas have all that the commands wrote."""

    def __init__(self, lane: MultiplexedConnection, replicas: int, *, timeout: float) -> None:
        self._lane = lane
        self._replicas = replicas
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._next: list[_Write] = []
        self._bytes = 0
        self._sending: asyncio.Task[None] | None = None

    async def send(self, packed: bytes, commands: int = 1, seconds: float | None = None) -> list[Any]:
        """As `MultiplexedConnection.send`.

        Raises:
            NotReplicated: too few replicas have confirmed it.
            RequestFailed: as `MultiplexedConnection.send`.
        """
        if len(self._next) >= MAX_COMMANDS or self._bytes >= MAX_BYTES:
            raise TooManyInFlight(sent=False)
        deadline = self._loop.time() + (self._timeout if seconds is None else seconds)
        write = _Write(packed, commands, deadline, self._loop.create_future())
        self._next.append(write)
        self._bytes += len(packed)
        if self._sending is None:
            self._sending = self._loop.create_task(self._send_groups())
        return await write.future

    async def close(self) -> None:
        """Close the connection; calls in flight fail."""
        await self._lane.close()

    async def _send_groups(self) -> None:
        while self._next:
            group, self._next, self._bytes = self._next, [], 0
            try:
                await self._send(group)
            except Exception as error:
                # A defect is its callers' to tell; none of them, nor of those behind them, may wait for ever.
                for write in group:
                    write.end(error)
        self._sending = None

    async def _send(self, writes: list[_Write]) -> None:
        now, group = self._loop.time(), []
        for write in writes:
            if write.deadline - now > self._timeout * LEAST:
                group.append(write)
            else:
                write.end(TimedOut(sent=False))  # its time went by behind the group before
        if not group:
            return
        seconds = min(write.deadline for write in group) - now
        wait = pack(("WAIT", self._replicas, int((seconds - self._timeout * MARGIN) * 1000) or 1))
        try:
            *replies, confirmed = await self._lane.send(
                b"".join([*(write.packed for write in group), wait]), sum(write.commands for write in group) + 1, seconds
            )
        except RequestFailed as error:
            for write in group:
                write.end(type(error)(sent=error.sent))
            return
        enough = isinstance(confirmed, int) and confirmed >= self._replicas
        left = iter(replies)
        for write in group:
            own = list(islice(left, write.commands))
            refused = all(isinstance(reply, hiredis.ReplyError) for reply in own)
            write.end(own if enough or refused else _not_replicated(confirmed))


def _not_replicated(confirmed: object) -> NotReplicated:
    """The error of a write that too few replicas have, with what WAIT was refused for behind it."""
    error = NotReplicated(sent=True)
    error.__cause__ = confirmed if isinstance(confirmed, hiredis.ReplyError) else None
    return error
