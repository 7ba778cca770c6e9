"""The multiplexed connection: order of replies, timeouts, cancelled callers, lost connections. Each call is resolved once."""

import asyncio
from asyncio.trsock import TransportSocket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import hiredis
import pytest
from redis.asyncio.connection import UnixDomainSocketConnection

from service.errors import StoreUnavailable, WriteUncertain
from service.redis_client import multiplexer
from service.redis_client.client import RedisClient

#: Seconds: more than a stall of the machine takes, and for tests that wait until it is over.
TIMEOUT, SHORT_TIMEOUT = 6.0, 1.0

with_short_timeout = pytest.mark.parametrize("redis", [SHORT_TIMEOUT], ids=[""], indirect=True)

Reply = Callable[[list[bytes], asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """A server that speaks RESP and replies as `reply` says; `commands` are those after the client's greeting."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commands: list[list[bytes]] = []
        self.connections = 0
        self.greets = True
        self.reply: Reply = self.echo
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        parser = hiredis.Reader()
        while data := await reader.read(65536):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                if command[0].upper() in (b"CLIENT", b"HELLO"):
                    writer.write(b"+OK\r\n" if self.greets else b"")
                else:
                    self.commands.append(command)
                    await self.reply(command, writer)

    @staticmethod
    async def echo(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        writer.write(b"$%d\r\n%b\r\n" % (len(command[-1]), command[-1]))


def recorded_sockets(monkeypatch: pytest.MonkeyPatch, opener: str) -> list[TransportSocket]:
    """A list that collects the sockets that `asyncio.<opener>` opens from now on; `fileno()` of a closed one is -1."""
    sockets = []
    connect = getattr(asyncio, opener)

    async def record(*args: object, **options: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await connect(*args, **options)
        sockets.append(writer.get_extra_info("socket"))
        return reader, writer

    monkeypatch.setattr(asyncio, opener, record)
    return sockets


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Peer]:
    peer = Peer(tmp_path / "peer.sock")
    await peer.start()
    yield peer
    await peer.stop()


@pytest.fixture
async def redis(peer: Peer, request: pytest.FixtureRequest) -> AsyncIterator[RedisClient]:
    redis = RedisClient.open(peer.url, timeout=getattr(request, "param", TIMEOUT))
    yield redis
    await redis.close()
    await asyncio.sleep(0)


async def test_each_of_5000_concurrent_callers_gets_its_own_reply(redis_url: str) -> None:
    redis = RedisClient.open(redis_url, timeout=5)
    replies = await asyncio.gather(*(redis.call("ECHO", number) for number in range(5000)))
    assert replies == [b"%d" % number for number in range(5000)]
    first, error, last = await redis.batch([("ECHO", "a"), ("NOSUCH",), ("ECHO", "b")])
    assert (first, last) == (b"a", b"b")
    assert str(error) == "Redis does not know or does not allow a required command: NOSUCH"
    await redis.close()


@with_short_timeout
async def test_a_late_reply_is_dropped(peer: Peer, redis: RedisClient) -> None:
    release = asyncio.Event()

    async def hold_the_first(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        if command[-1] == b"first":
            await release.wait()
        await Peer.echo(command, writer)

    peer.reply = hold_the_first
    with pytest.raises(StoreUnavailable) as raised:
        await redis.call("ECHO", "first")
    assert not isinstance(raised.value, WriteUncertain)
    second = asyncio.create_task(redis.call("ECHO", "second"))
    await asyncio.sleep(0)
    release.set()
    assert await second == b"second"
    assert peer.connections == 1


@with_short_timeout
async def test_a_write_that_timed_out_is_reported_as_uncertain(peer: Peer, redis: RedisClient) -> None:
    async def silence(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        pass

    peer.reply = silence
    with pytest.raises(WriteUncertain):
        await redis.call("SET", "key", "value", writes=True)
    assert peer.commands == [[b"SET", b"key", b"value"]]


async def test_a_cancelled_caller_does_not_shift_the_replies_of_others(redis: RedisClient) -> None:
    assert await redis.call("ECHO", "warm") == b"warm"
    callers = [asyncio.create_task(redis.call("ECHO", number)) for number in range(10)]
    await asyncio.sleep(0)
    for caller in callers[::2]:
        caller.cancel()
    rest = await asyncio.gather(*callers, return_exceptions=True)
    assert rest[1::2] == [b"%d" % number for number in range(1, 10, 2)]
    assert all(isinstance(result, asyncio.CancelledError) for result in rest[::2])


async def test_a_lost_connection_resolves_each_call_once(peer: Peer, redis: RedisClient) -> None:
    is_closed = False

    async def close_once(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        nonlocal is_closed
        if not is_closed and command[-1] == b"3":
            is_closed = True
            writer.write(b"$1")  # in the middle of a reply
            writer.close()
        elif not writer.is_closing():
            await Peer.echo(command, writer)

    peer.reply = close_once
    reads = [redis.call("ECHO", number) for number in range(6)]
    writes = [redis.call("SET", "key", number, writes=True) for number in range(10, 16)]
    results = await asyncio.gather(*reads, *writes, return_exceptions=True)
    assert results[:6] == [b"%d" % number for number in range(6)]
    assert all(isinstance(result, WriteUncertain) for result in results[6:])
    # Reads were sent again on a new connection, writes were not.
    assert peer.connections == 2
    values = [command[-1] for command in peer.commands if command[0] == b"SET"]
    assert sorted(values) == sorted(set(values))


@with_short_timeout
async def test_a_server_that_is_back_is_used_again(peer: Peer, redis: RedisClient) -> None:
    assert await redis.call("ECHO", "one") == b"one"
    await peer.stop()
    peer.path.unlink(missing_ok=True)
    with pytest.raises(StoreUnavailable):
        await redis.call("ECHO", "gone")
    with pytest.raises(StoreUnavailable) as raised:
        await redis.call("SET", "key", "value", writes=True)
    assert not isinstance(raised.value, WriteUncertain), "nothing was sent"
    await peer.start()
    assert await redis.call("SET", "key", "two", writes=True) == b"two"


async def test_data_that_is_not_resp_closes_the_connection_and_the_call_is_retried(peer: Peer, redis: RedisClient) -> None:
    async def nonsense(_: list[bytes], writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" if peer.connections == 1 else b"+fine\r\n")

    peer.reply = nonsense
    assert await redis.call("PING") == b"fine"
    assert peer.connections == 2


async def test_a_reply_without_a_command_closes_the_connection(peer: Peer, redis: RedisClient) -> None:
    async def two(_: list[bytes], writer: asyncio.StreamWriter) -> None:
        writer.write(b"+mine\r\n+whose\r\n" if peer.connections == 1 else b"+mine\r\n")

    peer.reply = two
    assert await redis.call("PING") == b"mine"
    for _ in range(20):
        assert await redis.call("PING") == b"mine"
    assert peer.connections == 2


@with_short_timeout
async def test_a_silent_connection_is_closed(peer: Peer, redis: RedisClient) -> None:
    async def first_is_silent(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        if peer.connections > 1:
            await Peer.echo(command, writer)

    peer.reply = first_is_silent
    with pytest.raises(StoreUnavailable):
        await redis.call("ECHO", "lost")
    give_up_at = asyncio.get_running_loop().time() + TIMEOUT * 30
    while True:
        try:
            assert await redis.call("ECHO", "again") == b"again"
            break
        except StoreUnavailable:
            assert peer.connections == 1
            assert asyncio.get_running_loop().time() < give_up_at
    assert peer.connections == 2


@pytest.mark.parametrize("when", ["in the greeting", "after it"])
async def test_a_connection_that_is_lost_while_it_is_opened_is_replaced(
    peer: Peer, redis: RedisClient, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    connect = UnixDomainSocketConnection.connect

    async def lose_the_first(self: UnixDomainSocketConnection) -> None:
        await connect(self)  # type: ignore[no-untyped-call]  # redis-py leaves it so
        if peer.connections == 1:
            assert self._writer is not None
            self._writer.transport.abort()
            # Only the protocol that redis-py set on the connection gets `connection_lost`.
            for _ in range(3):
                await asyncio.sleep(0)
            if when == "in the greeting":
                raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    monkeypatch.setattr(UnixDomainSocketConnection, "connect", lose_the_first)
    async with asyncio.timeout(TIMEOUT * 30):
        assert await redis.call("SET", "key", "value", writes=True) == b"value"
    assert peer.connections == 2


@with_short_timeout
async def test_an_unanswered_greeting_takes_no_longer_than_a_call(peer: Peer, redis: RedisClient) -> None:
    peer.greets = False
    for writes in (False, True):
        with pytest.raises(StoreUnavailable) as raised:
            await asyncio.wait_for(redis.call("ECHO", "lost", writes=writes), TIMEOUT * 8)
        assert not isinstance(raised.value, WriteUncertain), "nothing was sent"
    peer.greets = True
    give_up_at = asyncio.get_running_loop().time() + TIMEOUT * 30
    while True:
        try:
            assert await redis.call("ECHO", "again") == b"again"
            break
        except StoreUnavailable:
            assert asyncio.get_running_loop().time() < give_up_at


async def test_calls_wait_for_a_server_that_starts_soon(peer: Peer) -> None:
    await peer.stop()
    peer.path.unlink(missing_ok=True)
    redis = RedisClient.open(peer.url, timeout=30)
    calls = [asyncio.create_task(redis.call("ECHO", number, writes=number % 2 == 0)) for number in range(20)]
    await asyncio.sleep(0.1)
    assert not any(call.done() for call in calls)
    await peer.start()
    assert await asyncio.gather(*calls) == [b"%d" % number for number in range(20)]
    await redis.close()


async def test_the_commands_in_flight_are_bounded(redis: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiplexer, "MAX_COMMANDS", 8)
    assert await redis.call("ECHO", "warm") == b"warm"
    results = await asyncio.gather(*(redis.call("ECHO", number) for number in range(20)), return_exceptions=True)
    assert results[:8] == [b"%d" % number for number in range(8)]
    assert all(isinstance(result, StoreUnavailable) for result in results[8:])
    assert await redis.call("ECHO", "after") == b"after"


async def test_the_bytes_in_flight_are_bounded(redis: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiplexer, "MAX_BYTES", 1000)
    assert await redis.call("ECHO", "warm") == b"warm"
    calls = [redis.call("ECHO", "x" * 2000), redis.call("ECHO", "refused")]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert results[0] == b"x" * 2000
    assert isinstance(results[1], StoreUnavailable)


async def test_concurrent_callers_share_one_attempt_to_connect(peer: Peer, redis: RedisClient) -> None:
    first = asyncio.create_task(redis.call("ECHO", 0))
    others = [asyncio.create_task(redis.call("ECHO", number)) for number in range(1, 20)]
    await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.gather(*others) == [b"%d" % number for number in range(1, 20)]
    assert peer.connections == 1


async def test_closing_during_a_greeting_leaves_no_socket_open(
    peer: Peer, redis: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets = recorded_sockets(monkeypatch, "open_unix_connection")
    peer.greets = False
    call = asyncio.create_task(redis.call("ECHO", "lost"))
    while peer.connections == 0:  # noqa: ASYNC110 - the peer has no event to wait for
        await asyncio.sleep(0)
    await redis.close()
    assert [socket.fileno() for socket in sockets] == [-1]
    with pytest.raises(StoreUnavailable):
        await call


async def test_a_closed_client_does_not_connect_again(peer: Peer, redis: RedisClient) -> None:
    async def silence(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        pass

    peer.reply = silence
    in_flight = asyncio.create_task(redis.call("ECHO", "in flight"))
    while not peer.commands:  # noqa: ASYNC110 - the peer has no event to wait for
        await asyncio.sleep(0)
    await redis.close()
    for call in (in_flight, redis.call("ECHO", "later")):
        with pytest.raises(StoreUnavailable):
            await call
    assert peer.connections == 1
