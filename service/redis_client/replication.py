"""Writes that wait for replicas: a connection that returns replies once enough replicas have acknowledged the writes.

`WAIT` blocks its connection until enough replicas have what was written on it before. So writes are sent in groups: the writes
that arrive while one group waits form the next, and one `WAIT` covers all of a group.
"""

import asyncio
from itertools import islice
from typing import Any, NamedTuple

import hiredis

from service.redis_client.errors import RequestFailed, TimedOut, TooFewReplicas, TooManyInFlight
from service.redis_client.multiplexer import MAX_BYTES, MAX_COMMANDS, MultiplexedConnection, pack

#: The share of the timeout that a write must have left to be sent at all.
MIN_TIME_TO_SEND = 0.3
#: The share of the timeout that is left when WAIT returns.
WAIT_MARGIN = 0.25


class _Write(NamedTuple):
    """One call in the queue, or in the group that was sent."""

    packed: bytes
    commands: int
    deadline: float
    future: asyncio.Future[list[Any]]

    def resolve(self, outcome: list[Any] | Exception) -> None:
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class ReplicatedConnection:
    """A connection for writes. It returns replies once `min_replicas` replicas have acknowledged what the commands wrote."""

    def __init__(self, connection: MultiplexedConnection, min_replicas: int, *, timeout: float) -> None:
        self._connection = connection
        self._min_replicas = min_replicas
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._queue: list[_Write] = []
        self._bytes = 0  # in the queue
        self._sender: asyncio.Task[None] | None = None

    async def send(self, packed: bytes, commands: int = 1, seconds: float | None = None) -> list[Any]:
        """Send packed commands and return their replies, as `MultiplexedConnection.send`.

        Raises:
            TooFewReplicas: the commands were executed, but fewer than `min_replicas` replicas acknowledged them in time.
            RequestFailed: there are no replies.
        """
        if len(self._queue) >= MAX_COMMANDS or self._bytes >= MAX_BYTES:
            raise TooManyInFlight(sent=False)
        deadline = self._loop.time() + (self._timeout if seconds is None else seconds)
        write = _Write(packed, commands, deadline, self._loop.create_future())
        self._queue.append(write)
        self._bytes += len(packed)
        if self._sender is None:
            self._sender = self._loop.create_task(self._send_groups())
        return await write.future

    async def close(self) -> None:
        """Close the connection for good; calls in flight fail. Returns when the connection is closed."""
        await self._connection.close()

    async def _send_groups(self) -> None:
        while self._queue:
            group, self._queue, self._bytes = self._queue, [], 0
            try:
                await self._send_group(group)
            except Exception as error:
                # A defect is raised to the callers of this group. Neither they nor the writes behind them may wait forever.
                for write in group:
                    write.resolve(error)
        self._sender = None

    async def _send_group(self, writes: list[_Write]) -> None:
        now, group = self._loop.time(), []
        for write in writes:
            if write.deadline - now > self._timeout * MIN_TIME_TO_SEND:
                group.append(write)
            else:
                write.resolve(TimedOut(sent=False))  # the group before took too long
        if not group:
            return
        seconds = min(write.deadline for write in group) - now
        wait = pack(("WAIT", self._min_replicas, int((seconds - self._timeout * WAIT_MARGIN) * 1000) or 1))
        try:
            *replies, acknowledged = await self._connection.send(
                b"".join([*(write.packed for write in group), wait]), sum(write.commands for write in group) + 1, seconds
            )
        except RequestFailed as error:
            for write in group:
                write.resolve(type(error)(sent=error.sent))
            return
        self._resolve_group(group, replies, acknowledged)

    def _resolve_group(self, group: list[_Write], replies: list[Any], acknowledged: object) -> None:
        """Give each write its replies, or TooFewReplicas; `acknowledged` is the reply to WAIT, a number or an error."""
        is_replicated = isinstance(acknowledged, int) and acknowledged >= self._min_replicas
        remaining = iter(replies)
        for write in group:
            write_replies = list(islice(remaining, write.commands))
            is_refused = all(isinstance(reply, hiredis.ReplyError) for reply in write_replies)
            write.resolve(write_replies if is_replicated or is_refused else _too_few_replicas(acknowledged))


def _too_few_replicas(acknowledged: object) -> TooFewReplicas:
    """The error of a write that too few replicas have; its cause is the error that WAIT replied, if it did."""
    error = TooFewReplicas(sent=True)
    error.__cause__ = acknowledged if isinstance(acknowledged, hiredis.ReplyError) else None
    return error
