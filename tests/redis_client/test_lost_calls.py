"""Calls on a multiplexed connection, over transports and topologies that a test scripts: what was sent, retried, or closed."""

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import cast

import pytest
from redis.asyncio.connection import AbstractConnection

from service.errors import StoreUnavailable, WriteUncertain
from service.redis_client import multiplexer
from service.redis_client.client import RedisClient
from service.redis_client.errors import Closed, ConnectionLost, RequestFailed, TimedOut, TooManyInFlight, Unreachable
from service.redis_client.multiplexer import Command, MultiplexedConnection
from service.redis_client.node import Node
from service.redis_client.standalone import Standalone
from service.redis_client.topology import Target
from service.redis_client.url import parse

TIMEOUT = 6.0  # seconds


class RecordingTransport:
    """A transport that keeps what is written to it. Its peer never replies."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class FakeConnection:
    """What the service uses of a redis-py connection, with a transport that records."""

    def __init__(self, transport: RecordingTransport) -> None:
        self._writer: object = SimpleNamespace(transport=transport)
        self._reader = None

    async def connect(self) -> None:
        pass

    async def disconnect(self) -> None:
        pass


class NeverConnected(FakeConnection):
    """A redis-py connection whose greeting never ends."""

    async def connect(self) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("turns", range(4))
async def test_a_call_that_waits_for_a_connection_fails_as_closed_whenever_close_is_called(turns: int) -> None:
    connection = MultiplexedConnection(
        lambda: cast("AbstractConnection", NeverConnected(RecordingTransport())), timeout=TIMEOUT
    )
    call = asyncio.create_task(connection.send(b"<0>"))
    for _ in range(turns):
        await asyncio.sleep(0)
    await connection.close()
    with pytest.raises(Closed):
        await call


@pytest.mark.parametrize("calls", range(1, 11))
async def test_calls_not_yet_written_when_the_connection_is_lost_were_not_sent(calls: int) -> None:
    transport = RecordingTransport()
    connection = MultiplexedConnection(lambda: cast("AbstractConnection", FakeConnection(transport)), timeout=TIMEOUT)
    first = asyncio.create_task(connection.send(b"<0>"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert transport.written == [b"<0>"]
    rest = [asyncio.create_task(connection.send(b"<%d>" % number)) for number in range(1, calls)]
    await asyncio.sleep(0)  # each call has started; a batch that is not full is written at the end of the turn
    connection.connection_lost(None)
    written = b"".join(transport.written)
    errors = await asyncio.gather(first, *rest, return_exceptions=True)
    assert [error.sent for error in errors if isinstance(error, ConnectionLost)] == [
        b"<%d>" % number in written for number in range(calls)
    ]
    assert written.count(b"<") == 1 + (calls - 1) // multiplexer.WRITE_COMMANDS * multiplexer.WRITE_COMMANDS


@pytest.mark.parametrize("limit", ["MAX_COMMANDS", "MAX_BYTES"])
async def test_calls_that_were_lost_no_longer_count_as_in_flight(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(multiplexer, limit, 4)
    transport = RecordingTransport()
    connection = MultiplexedConnection(lambda: cast("AbstractConnection", FakeConnection(transport)), timeout=TIMEOUT)
    for _ in range(3):
        calls = [asyncio.create_task(connection.send(b"x")) for _ in range(5)]
        for _ in range(10):
            await asyncio.sleep(0)
        connection.connection_lost(None)
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in errors] == [ConnectionLost] * 4 + [TooManyInFlight]


class Unopened(FakeConnection):
    """A connection that cannot be opened: the attempt fails with `error`, or hangs."""

    def __init__(self, error: OSError | None) -> None:
        super().__init__(RecordingTransport())
        self._error = error

    async def connect(self) -> None:
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()


async def test_an_attempt_to_connect_that_runs_out_of_time_has_the_error_of_the_one_before_as_its_cause() -> None:
    refused = ConnectionRefusedError()
    attempts = [Unopened(refused), Unopened(None)]
    connection = MultiplexedConnection(lambda: cast("AbstractConnection", attempts.pop(0)), timeout=TIMEOUT)
    for seconds in (TIMEOUT, 0.05):
        with pytest.raises(Unreachable) as raised:
            await connection.send(b"x", seconds=seconds)
        assert raised.value.__cause__ is refused
        assert not raised.value.sent
        await asyncio.sleep(0)
    assert attempts == []
    await connection.close()


async def test_closing_fails_the_calls_that_wait_for_a_connection() -> None:
    connection = MultiplexedConnection(lambda: cast("AbstractConnection", Unopened(None)), timeout=TIMEOUT)
    call = asyncio.create_task(connection.send(b"x"))
    for _ in range(5):
        await asyncio.sleep(0)
    await connection.close()
    with pytest.raises(Closed) as raised:
        await call
    assert not raised.value.sent


async def test_closing_before_the_attempt_to_connect_has_begun_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    attempts: list[FakeConnection] = []
    connection = MultiplexedConnection(lambda: cast("AbstractConnection", attempts.pop()), timeout=TIMEOUT)
    call = asyncio.create_task(connection.send(b"x"))
    await asyncio.sleep(0)  # the call has begun, the attempt has not
    await connection.close()
    await asyncio.wait([call])
    assert caplog.records == []


async def test_closing_waits_for_a_connection_that_was_opened_again() -> None:
    connection = MultiplexedConnection(
        lambda: cast("AbstractConnection", FakeConnection(RecordingTransport())), timeout=TIMEOUT
    )

    async def begin_call() -> asyncio.Task[list[object]]:
        call = asyncio.create_task(connection.send(b"x"))
        for _ in range(5):
            await asyncio.sleep(0)
        return call

    calls = [await begin_call()]
    connection.connection_lost(None)
    calls.append(await begin_call())
    closing = asyncio.create_task(connection.close())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not closing.done()
    connection.connection_lost(None)
    await closing
    assert [type(error) for error in await asyncio.gather(*calls, return_exceptions=True)] == [ConnectionLost] * 2


class ClosingTransport(RecordingTransport):
    """A transport whose connection was lost during the greeting."""

    def is_closing(self) -> bool:
        return True


async def test_a_connection_that_is_lost_at_the_end_of_its_greeting_is_unreachable() -> None:
    transport = ClosingTransport()
    connection = MultiplexedConnection(lambda: cast("AbstractConnection", FakeConnection(transport)), timeout=TIMEOUT)
    with pytest.raises(Unreachable) as raised:
        await connection.send(b"x")
    assert isinstance(raised.value.__cause__, ConnectionResetError)
    assert transport.written == []


class Scripted(Standalone):
    """A server whose calls have the given results, in order; `calls` counts them, `refreshes` the calls of `refresh_soon`."""

    def __init__(self, *results: RequestFailed | list[bytes]) -> None:
        super().__init__(parse("unix:///nowhere"), timeout=TIMEOUT, min_replicas=0)
        self._results = list(results)
        self.calls = 0
        self.refreshes = 0
        self.clock = 0.0
        self.seconds_a_call = 0.0

    def route(self, command: Command, near: Target | None) -> Node:  # noqa: ARG002 - the same for every command
        return cast("Node", SimpleNamespace(reads=self, writes=self))

    def refresh_soon(self) -> None:
        self.refreshes += 1

    async def send(self, packed: bytes, commands: int = 1, seconds: float | None = None) -> list[bytes]:  # noqa: ARG002
        self.calls += 1
        self.clock += self.seconds_a_call
        result = self._results.pop(0)
        if isinstance(result, RequestFailed):
            raise result
        return result


@pytest.mark.parametrize("failure", [ConnectionLost, Unreachable])
async def test_a_write_that_was_never_sent_is_retried(failure: type[RequestFailed]) -> None:
    server = Scripted(failure(sent=False), failure(sent=False), [b"OK"])
    assert await RedisClient(server, timeout=TIMEOUT).call("SET", "key", "value", writes=True) == b"OK"
    assert server.calls == 3


async def test_a_write_that_may_have_been_received_is_not_retried_and_a_read_is() -> None:
    server = Scripted(ConnectionLost(sent=True), ConnectionLost(sent=True), [b"value"])
    redis = RedisClient(server, timeout=TIMEOUT)
    with pytest.raises(WriteUncertain):
        await redis.call("SET", "key", "value", writes=True)
    assert server.calls == 1
    assert await redis.call("GET", "key") == b"value"
    assert server.calls == 3


@pytest.mark.parametrize(("failure", "refreshes"), [(TimedOut, 1), (ConnectionLost, 0)])
async def test_the_topology_is_refreshed_after_a_call_that_timed_out(failure: type[RequestFailed], refreshes: int) -> None:
    server = Scripted(failure(sent=True))
    with pytest.raises(WriteUncertain):
        await RedisClient(server, timeout=TIMEOUT).call("SET", "key", "value", writes=True)
    assert server.refreshes == refreshes


@pytest.mark.parametrize(("seconds", "calls"), [(0.0, 3), (0.3, 3), (0.5, 2), (0.75, 2), (0.85, 1), (1.0, 1)])
async def test_a_call_is_retried_while_enough_of_its_time_is_left(
    monkeypatch: pytest.MonkeyPatch, seconds: float, calls: int
) -> None:
    server = Scripted(*(ConnectionLost(sent=False) for _ in range(2)), [b"value"], [b"value"])
    server.seconds_a_call = seconds
    monkeypatch.setattr("service.redis_client.client.monotonic", lambda: server.clock)
    with nullcontext() if calls == 3 else pytest.raises(StoreUnavailable):
        await RedisClient(server, timeout=1.0).call("GET", "key")
    assert server.calls == calls
