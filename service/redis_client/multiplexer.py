"""The lane: one connection to Redis that all requests of a worker share, by implicit pipelining.

Commands go out as they come, a few in one write, at the end of a turn of the event loop at the latest, and replies are handed
out in the order of the commands. redis-py makes the connection (address, TLS, AUTH, HELLO) and hands its transport over; from
there hiredis parses replies as bytes arrive, and no task of ours reads. Invariants:

- `_waiting` has one entry for each call, in the order of writing; a reply always belongs to the first. An entry stays when its
  caller has given up (time-out, cancellation), so that a late reply is dropped and never reaches somebody else.
- Every entry ends exactly once: with all of its replies, or with one error.
- What is in flight is bounded, in commands and in bytes; beyond that a call is refused at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from service.redis_client import replies

#: A command as Redis takes it: its name, then its arguments.
Command = Sequence[str | bytes | int]

#: The bytes of a command. hiredis declares a tuple of one; it packs any number.
pack = cast("Callable[[tuple[str | bytes | int, ...]], bytes]", hiredis.pack_command)

#: Commands and bytes in flight on one lane.
MAX_COMMANDS = 20_000
MAX_BYTES = 64 * 1024 * 1024
#: Commands written at once. Redis answers all that it read in one go together, so a turn's commands in one write would have
#: worker and Redis wait for each other in turns; in small writes they work at the same time.
WRITE_COMMANDS = 4
#: Looks at the clock in the time that a command may take.
TICKS = 10
#: A connection that has brought nothing for this many time-outs is given up.
SILENCE = 2


class RequestFailed(Exception):
    """A call got no replies. `sent` tells whether Redis may have seen its commands."""

    def __init__(self, *, sent: bool) -> None:
        self.sent = sent
        super().__init__("Redis may have seen the commands" if sent else "nothing was sent")


class TooManyInFlight(RequestFailed):
    """Too much is in flight already."""


class Unreachable(RequestFailed):
    """No connection could be made."""


class ConnectionLost(RequestFailed):
    """The connection was lost."""


class Closed(RequestFailed):
    """The client was closed before the call."""


class TimedOut(RequestFailed):
    """No reply came in time."""


class _InFlight:
    """One call in flight."""

    __slots__ = ("commands", "deadline", "future", "replies", "size")

    def __init__(self, future: asyncio.Future[list[Any]], commands: int, size: int, deadline: float) -> None:
        self.future = future
        self.commands = commands
        self.size = size
        self.deadline = deadline
        self.replies: list[Any] = []

    def fail(self, error: RequestFailed) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class MultiplexedConnection(asyncio.Protocol):
    """One shared connection, opened when it is first needed and again when it was lost."""

    def __init__(
        self, connection: Callable[[], AbstractConnection], *, timeout: float, on_demotion: Callable[[], object] | None = None
    ) -> None:
        """`connection` makes one that is not open yet; a call takes `timeout` seconds at most.

        `on_demotion` is called when the server replies that it is not the master any more.
        """
        self._on_demotion = on_demotion
        self._connection = connection
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._connecting: asyncio.Task[None] | None = None
        #: Set when the last connection is closed.
        self._disconnected = asyncio.Event()
        self._closed = False
        self._reader = hiredis.Reader(replyError=self._reply_error)
        self._waiting: deque[_InFlight] = deque()
        self._outgoing: list[bytes] = []  # of the last entries in `_waiting`, one each
        self._commands = self._bytes = 0
        #: Why the last attempt to connect failed, None where it did not.
        self._failure: BaseException | None = None
        self._heard = 0.0
        self._ticking = False

    async def send(self, packed: bytes, commands: int = 1, seconds: float | None = None) -> list[Any]:
        """Send packed commands and return their replies; an error that Redis answers is a reply too.

        `seconds` is what is left of the call's time where it has waited already.

        Raises:
            RequestFailed: there are no replies.
        """
        now = self._loop.time()
        deadline = now + (self._timeout if seconds is None else seconds)
        if self._closed:
            raise Closed(sent=False)
        if self._transport is None:
            await self._connect(deadline)
        if self._transport is None:
            raise ConnectionLost(sent=False)  # lost again before this call had its turn
        if self._commands >= MAX_COMMANDS or self._bytes >= MAX_BYTES:
            raise TooManyInFlight(sent=False)
        entry = _InFlight(self._loop.create_future(), commands, len(packed), deadline)
        idle = not self._waiting
        self._waiting.append(entry)
        self._outgoing.append(packed)
        # On an idle lane there is nobody to share a write with: waiting for the end of the turn would only cost time.
        if idle or len(self._outgoing) >= WRITE_COMMANDS:
            self._flush()
        elif len(self._outgoing) == 1:
            self._loop.call_soon(self._flush)
        self._commands += commands
        self._bytes += entry.size
        if not self._ticking:
            self._ticking = True
            self._heard = now
            self._loop.call_later(self._timeout / TICKS, self._tick)
        future = entry.future
        del entry, packed
        try:
            return await future
        finally:
            # Else an error would hold this frame, which holds the future, which holds the error: a cycle, with the bytes in it.
            del future

    async def close(self) -> None:
        """Close the connection, for good; calls in flight fail. Returns when the connection is closed.

        It waits for nothing that Redis does: not for a buffer to drain, nor for the end of TLS.
        """
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._transport is not None:
            self._transport.abort()
            await self._disconnected.wait()

    def _flush(self) -> None:
        if self._transport is not None and self._outgoing:
            self._transport.write(b"".join(self._outgoing))
            self._outgoing.clear()

    def data_received(self, data: bytes) -> None:
        """Hand out the replies in `data`."""
        self._heard = self._loop.time()
        self._reader.feed(data)
        gets, waiting = self._reader.gets, self._waiting
        try:
            while (reply := gets()) is not False:
                entry = waiting[0]
                entry.replies.append(reply)
                if len(entry.replies) == entry.commands:
                    self._forget(waiting.popleft())
                    if not entry.future.done():
                        entry.future.set_result(entry.replies)
        except (hiredis.HiredisError, IndexError):
            # Not RESP, or a reply that nobody asked for: nothing that follows could be trusted.
            if self._transport is not None:
                self._transport.abort()

    def _reply_error(self, text: str) -> hiredis.ReplyError:
        """The error that Redis replied; a demotion is reported before the next call can begin."""
        if self._on_demotion is not None and replies.is_demoted(text):
            self._on_demotion()
        return hiredis.ReplyError(text)

    def _forget(self, entry: _InFlight) -> None:
        self._commands -= entry.commands
        self._bytes -= entry.size

    def _tick(self) -> None:
        """Fail what has waited too long. It stays in line for its reply, until the connection is given up."""
        now = self._loop.time()
        for entry in self._waiting:
            if entry.deadline <= now + self._timeout / TICKS:
                entry.fail(TimedOut(sent=True))
        self._ticking = bool(self._waiting)
        if self._ticking:
            self._loop.call_later(self._timeout / TICKS, self._tick)
            if now - self._heard > self._timeout * SILENCE and self._transport is not None:
                self._transport.abort()

    async def _connect(self, deadline: float) -> None:
        if self._connecting is None:
            self._connecting = self._loop.create_task(self._open())
            self._connecting.add_done_callback(self._connected)
        try:
            async with asyncio.timeout_at(deadline):
                # One attempt for all who wait; none of them takes it away from the others by giving up.
                await asyncio.shield(self._connecting)
        except TimeoutError as error:
            # An attempt that was cut short tells less than the one before it.
            raise Unreachable(sent=False) from self._failure or error
        except (RedisError, OSError) as error:
            raise Unreachable(sent=False) from error

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting = None
        # Also seen by whoever waits; with nobody left waiting it is nobody's.
        self._failure = None if task.cancelled() else task.exception()

    async def _open(self) -> None:
        connection = self._connection()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException as error:
            # redis-py leaves the connection open where its greeting ends otherwise than by an error of Redis.
            if connection._writer is not None:
                connection._writer.transport.abort()
                await connection.disconnect(nowait=True)
            if isinstance(error, RuntimeError):
                # uvloop's word for a connection that was lost in the middle of the greeting.
                raise ConnectionResetError from error
            if self._closed:
                raise Closed(sent=False) from error  # those who wait for the connection have not been cancelled
            raise
        # From here on the transport is ours: redis-py neither reads from it nor closes it. The writer is only kept, because it
        # would close the transport when it goes.
        self._writer, connection._writer, connection._reader = connection._writer, None, None
        assert self._writer is not None  # noqa: S101 - connected
        transport = cast("asyncio.Transport", self._writer.transport)
        if transport.is_closing():
            raise ConnectionResetError  # since the greeting; nobody would tell a new protocol of it
        transport.set_protocol(self)
        self._disconnected.clear()
        self._transport, self._reader = transport, hiredis.Reader(replyError=self._reply_error)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever it was, it is lost
        """Fail all calls in flight."""
        sent = len(self._waiting) - len(self._outgoing)
        lost, self._waiting = self._waiting, deque()
        self._transport = self._writer = None
        self._outgoing.clear()
        self._commands = self._bytes = 0
        for place, entry in enumerate(lost):
            entry.fail(ConnectionLost(sent=place < sent))
        self._disconnected.set()
