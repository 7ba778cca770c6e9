"""One connection to Redis that all requests of a worker share, by implicit pipelining.

Commands are written as they come, a few in one write, at the latest at the end of the event loop's current iteration. Replies
are delivered in the order of the commands. redis-py opens the connection (address, TLS, AUTH, HELLO) and hands over its
transport. From then on hiredis parses replies as bytes arrive; there is no reader task. Invariants:

- `_in_flight` has one entry for each call, in the order of writing; a reply always belongs to the first. An entry stays after
  its caller has given up (timeout, cancellation), so that a late reply is dropped and never reaches another caller.
- Every entry is resolved exactly once: with all of its replies, or with one error.
- The commands and bytes in flight are bounded; beyond the bound a call fails immediately.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis.asyncio.connection import AbstractConnection

from service.redis_client import replies
from service.redis_client.errors import (
    Closed,
    ConnectionLost,
    RedisError,
    RequestFailed,
    TimedOut,
    TooManyInFlight,
    Unreachable,
)

#: A command as Redis takes it: its name, then its arguments.
Command = Sequence[str | bytes | int]

#: Encodes a command as RESP. hiredis declares a tuple of one; it packs any number.
pack = cast("Callable[[tuple[str | bytes | int, ...]], bytes]", hiredis.pack_command)

#: Commands and bytes in flight on one connection.
MAX_COMMANDS = 20_000
MAX_BYTES = 64 * 1024 * 1024
#: Commands in one write. Redis replies to everything that it reads in one go at the end. If all commands of a loop iteration
#: went in one write, worker and Redis would take turns waiting for each other; with small writes they work in parallel.
WRITE_COMMANDS = 4
#: How often deadlines are checked within the timeout of a command.
CHECKS_PER_TIMEOUT = 10
#: Timeouts without any data from Redis, after which the connection is aborted.
MAX_SILENT_TIMEOUTS = 2


class _InFlight:
    """One call in flight: one or more commands that were sent together."""

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


def _abort_on_disconnect(connection: AbstractConnection) -> AbstractConnection:
    """Return `connection` with a `disconnect` that does not wait for the TLS shutdown of the peer.

    If redis-py's own is cancelled while it waits, it leaves a socket open to which nothing else refers.
    """
    disconnect = connection.disconnect

    async def abort(**options: Any) -> None:  # noqa: ANN401 - passed on
        if connection._writer is not None:
            connection._writer.transport.abort()
        await disconnect(**options)

    connection.disconnect = abort  # type: ignore[assignment]  # takes no positional arguments
    return connection


class MultiplexedConnection(asyncio.Protocol):
    """A shared connection. It is opened by the first call, and opened again by the first call after it was lost."""

    def __init__(
        self,
        new_connection: Callable[[], AbstractConnection],
        *,
        timeout: float,
        on_demotion: Callable[[], object] | None = None,
    ) -> None:
        """`new_connection` returns a connection that is not open yet; a call takes `timeout` seconds at most.

        `on_demotion` is called when the server replies that it is no longer the master.
        """
        self._on_demotion = on_demotion
        self._new_connection = new_connection
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._connecting: asyncio.Task[None] | None = None
        #: Set when the last connection is closed.
        self._disconnected = asyncio.Event()
        self._closed = False
        self._reader = hiredis.Reader(replyError=self._reply_error)
        self._in_flight: deque[_InFlight] = deque()
        self._outgoing: list[bytes] = []  # of the last entries in `_in_flight`, one each
        self._commands = self._bytes = 0  # in flight
        #: Why the last attempt to connect failed, None if it did not.
        self._connect_error: BaseException | None = None
        self._last_data_at = 0.0
        self._is_checking = False

    async def send(self, packed: bytes, commands: int = 1, seconds: float | None = None) -> list[Any]:
        """Send packed commands and return their replies; an error that Redis replies is returned like any other reply.

        `seconds` is the time until the deadline, `timeout` if None.

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
            raise ConnectionLost(sent=False)  # lost again before this call was resumed
        if self._commands >= MAX_COMMANDS or self._bytes >= MAX_BYTES:
            raise TooManyInFlight(sent=False)
        entry = _InFlight(self._loop.create_future(), commands, len(packed), deadline)
        idle = not self._in_flight
        self._in_flight.append(entry)
        self._outgoing.append(packed)
        # On an idle connection no other call can share the write: waiting for the end of the iteration would only add latency.
        if idle or len(self._outgoing) >= WRITE_COMMANDS:
            self._flush()
        elif len(self._outgoing) == 1:
            self._loop.call_soon(self._flush)
        self._commands += commands
        self._bytes += entry.size
        if not self._is_checking:
            self._is_checking = True
            self._last_data_at = now
            self._loop.call_later(self._timeout / CHECKS_PER_TIMEOUT, self._check_deadlines)
        future = entry.future
        del entry, packed
        try:
            return await future
        finally:
            # Otherwise an error holds this frame, the frame the future and the future the error: a cycle with the bytes in it.
            del future

    async def close(self) -> None:
        """Close the connection for good; calls in flight fail. Returns when the connection is closed.

        It waits for nothing that Redis does: neither for the write buffer to drain nor for the TLS shutdown.
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
        """Deliver the replies in `data` to the calls in flight."""
        self._last_data_at = self._loop.time()
        self._reader.feed(data)
        gets, in_flight = self._reader.gets, self._in_flight
        try:
            while (reply := gets()) is not False:
                entry = in_flight[0]
                entry.replies.append(reply)
                if len(entry.replies) == entry.commands:
                    self._release(in_flight.popleft())
                    if not entry.future.done():
                        entry.future.set_result(entry.replies)
        except (hiredis.HiredisError, IndexError):
            # Not RESP, or a reply to no command: nothing that follows can be trusted.
            if self._transport is not None:
                self._transport.abort()

    def _reply_error(self, text: str) -> hiredis.ReplyError:
        """The error that Redis replied. A demotion is reported here, before the next call can begin."""
        if self._on_demotion is not None and replies.is_demoted(text):
            self._on_demotion()
        return hiredis.ReplyError(text)

    def _release(self, entry: _InFlight) -> None:
        self._commands -= entry.commands
        self._bytes -= entry.size

    def _check_deadlines(self) -> None:
        """Fail the calls whose deadline has come. Their entries stay until their replies arrive or the connection is lost."""
        now = self._loop.time()
        for entry in self._in_flight:
            if entry.deadline <= now + self._timeout / CHECKS_PER_TIMEOUT:
                entry.fail(TimedOut(sent=True))
        self._is_checking = bool(self._in_flight)
        if self._is_checking:
            self._loop.call_later(self._timeout / CHECKS_PER_TIMEOUT, self._check_deadlines)
            if now - self._last_data_at > self._timeout * MAX_SILENT_TIMEOUTS and self._transport is not None:
                self._transport.abort()

    async def _connect(self, deadline: float) -> None:
        """Wait for the one attempt to connect that all callers share, and start it if there is none.

        Raises:
            Unreachable: it failed, or did not end before `deadline`.
        """
        connecting = self._connecting
        if connecting is None:
            connecting = self._connecting = self._loop.create_task(self._open_connection())
            connecting.add_done_callback(self._on_connect_done)
        try:
            async with asyncio.timeout_at(deadline):
                # A caller that gives up does not cancel the attempt for the others.
                await asyncio.shield(connecting)
        except asyncio.CancelledError as error:
            # `close` cancelled the attempt before its first step, in which it could not raise Closed itself.
            if self._closed and connecting.cancelled():
                raise Closed(sent=False) from error
            raise
        except TimeoutError as error:
            # The error of the attempt before says more than a timeout.
            raise Unreachable(sent=False) from self._connect_error or error
        except (RedisError, OSError) as error:
            raise Unreachable(sent=False) from error

    def _on_connect_done(self, task: asyncio.Task[None]) -> None:
        self._connecting = None
        # The callers get this error too. Reading it here keeps asyncio from logging it when no caller is left.
        self._connect_error = None if task.cancelled() else task.exception()

    async def _open_connection(self) -> None:
        connection = _abort_on_disconnect(self._new_connection())
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException as error:
            # redis-py leaves the connection open if its greeting fails with anything but an error of Redis.
            await connection.disconnect()
            if isinstance(error, RuntimeError):
                # What uvloop raises for a connection that is lost during the greeting.
                raise ConnectionResetError from error
            if self._closed:
                raise Closed(sent=False) from error  # the callers that wait for the connection have not been cancelled
            raise
        # From here on the transport is ours: redis-py neither reads from it nor closes it. The writer is only kept because its
        # finalizer would close the transport.
        self._writer, connection._writer, connection._reader = connection._writer, None, None
        assert self._writer is not None  # noqa: S101 - connected
        transport = cast("asyncio.Transport", self._writer.transport)
        if transport.is_closing():
            raise ConnectionResetError  # lost since the greeting; a new protocol would not get `connection_lost`
        transport.set_protocol(self)
        self._disconnected.clear()
        self._transport, self._reader = transport, hiredis.Reader(replyError=self._reply_error)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the calls fail alike, whatever the reason
        """Fail all calls in flight."""
        sent = len(self._in_flight) - len(self._outgoing)
        entries, self._in_flight = self._in_flight, deque()
        self._transport = self._writer = None
        self._outgoing.clear()
        self._commands = self._bytes = 0
        for index, entry in enumerate(entries):
            entry.fail(ConnectionLost(sent=index < sent))
        self._disconnected.set()
