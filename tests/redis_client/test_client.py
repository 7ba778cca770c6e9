"""The client when Redis is down, slow, or refuses: which error callers get, and that no write is lost or executed twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from service.errors import StartupError, StoreFull, StoreUnavailable, WriteUncertain
from service.process.embedded_redis import EmbeddedRedis
from service.redis_client.client import RedisClient
from tests.support.fake_redis import fake_redis
from tests.support.redis_servers import BUNDLED

#: Seconds. The timeout in tests that wait until it expires; nothing else in them depends on time.
SHORT = 0.3


@asynccontextmanager
async def client_for(url: str, timeout: float = SHORT) -> AsyncIterator[RedisClient]:  # noqa: ASYNC109 - the client's timeout
    redis = RedisClient.open(url, timeout=timeout)
    try:
        yield redis
    finally:
        await redis.close()


async def error_of(redis: RedisClient, *, writes: bool) -> type[Exception]:
    with pytest.raises(StoreUnavailable) as raised:
        await redis.call("SET", "a", "1", writes=writes)
    with pytest.raises(type(raised.value)):
        await redis.batch([("SET", "a", "1"), ("SET", "b", "1")], writes=writes)
    return raised.type


@pytest.mark.parametrize("url", ["unix:///nowhere/redis.sock", "redis://127.0.0.1:1"])
@pytest.mark.parametrize("writes", [False, True])
async def test_if_nothing_is_listening_nothing_was_written(url: str, writes: bool) -> None:
    async with client_for(url) as redis:
        assert await error_of(redis, writes=writes) is StoreUnavailable


async def test_without_a_reply_a_write_is_uncertain_and_a_read_unavailable(tmp_path: Path) -> None:
    async with fake_redis(tmp_path, lambda _: b"") as url, client_for(url) as redis:
        assert await error_of(redis, writes=False) is StoreUnavailable
        assert await error_of(redis, writes=True) is WriteUncertain


async def test_if_the_server_closes_the_connection_a_write_is_uncertain_and_a_read_unavailable(tmp_path: Path) -> None:
    async with fake_redis(tmp_path, lambda _: None) as url, client_for(url) as redis:
        assert await error_of(redis, writes=False) is StoreUnavailable
        assert await error_of(redis, writes=True) is WriteUncertain


async def test_a_write_that_may_have_been_executed_is_not_sent_again(tmp_path: Path) -> None:
    commands = []

    def answer(name: bytes) -> None:
        commands.append(name)

    async with fake_redis(tmp_path, answer) as url, client_for(url) as redis:
        with pytest.raises(WriteUncertain):
            await redis.call("INCR", "a", writes=True)
    assert commands == [b"INCR"]


@pytest.mark.parametrize(
    "text",
    [
        "LOADING Redis is loading the dataset in memory",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "OOM command not allowed when used memory > 'maxmemory'. script: 58fc, on @user_script:1.",
        "READONLY You can't write against a read only replica.",
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "NOREPLICAS Not enough good replicas to write.",
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        # As Redis 6.2 wraps the refusal of a script's own command.
        "ERR Error running script (call to f_58fc): @user_script:1: -OOM command not allowed when used memory > 'maxmemory'.",
        "ERR Error running script (call to f_58fc): @user_script:1: @user_script: 1: -READONLY You can't write against a read "
        "only replica.",
    ],
)
@pytest.mark.parametrize("writes", [False, True])
async def test_a_refusal_says_that_nothing_was_written(tmp_path: Path, text: str, writes: bool) -> None:
    async with fake_redis(tmp_path, lambda _: f"-{text}\r\n".encode()) as url, client_for(url) as redis:
        with pytest.raises(StoreUnavailable) as raised:
            await redis.call("SET", "a", "1", writes=writes)
        expected = StoreFull if "OOM" in text else StoreUnavailable
        assert raised.type is expected
        replies = await redis.batch([("SET", "a", "1"), ("SET", "b", "2")], writes=writes)
        assert [type(reply) for reply in replies] == [expected, expected]


@pytest.mark.parametrize("text", ["ERR no such key", "WRONGTYPE Operation against a key", "ERR value: -OOMPH, OOM "])
async def test_an_error_that_is_no_refusal_is_raised_as_a_response_error(tmp_path: Path, text: str) -> None:
    async with fake_redis(tmp_path, lambda _: f"-{text}\r\n".encode()) as url, client_for(url) as redis:
        with pytest.raises(ResponseError):
            await redis.call("SET", "a", "1", writes=True)
        (reply,) = await redis.batch([("SET", "a", "1")], writes=True)
        assert isinstance(reply, ResponseError)


async def test_a_client_still_works_after_a_restart_of_redis(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path, fsync="no", server=BUNDLED.path)
    server.launch()
    server.wait()
    try:
        async with client_for(server.url, 3) as redis:
            await redis.call("SET", "a", "1", writes=True)
            server.stop()
            with pytest.raises(StoreUnavailable):
                await redis.call("GET", "a")
            server.launch()
            server.wait()
            assert await redis.call("GET", "a") == b"1"
            assert await redis.call("SET", "a", "2", writes=True) == b"OK"
    finally:
        server.stop()


async def test_a_cancelled_caller_does_not_shift_the_replies_of_others(redis: RedisClient) -> None:
    await redis.batch([("SET", f"k{each}", each) for each in range(50)])
    for turn in range(20):
        calls = [asyncio.create_task(redis.call("GET", f"k{each}")) for each in range(50)]
        await asyncio.sleep(0)
        for call in calls[turn % 3 :: 3]:
            call.cancel()
        for each, reply in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
            assert isinstance(reply, asyncio.CancelledError) or reply == b"%d" % each


async def test_a_url_that_is_not_one_of_redis_is_refused() -> None:
    with pytest.raises(StartupError, match="setting redis_url must begin with"):
        RedisClient.open("nowhere", timeout=SHORT)


class NotingMeter:
    """Notes the scripts whose calls are timed."""

    def __init__(self) -> None:
        self.scripts: list[str] = []

    def called(self, sha: str, seconds: float) -> None:
        assert seconds >= 0
        self.scripts.append(sha)

    def retried(self, count: int) -> None:
        raise AssertionError(f"{count} commands were sent again")


async def test_a_batch_of_calls_of_a_script_is_timed_once_and_plain_commands_are_not(tmp_path: Path) -> None:
    async with fake_redis(tmp_path, lambda _: b"+OK\r\n") as url, client_for(url) as redis:
        redis.meter = meter = NotingMeter()
        one, two = (("EVALSHA", sha, 1, "a") for sha in ("one", "two"))
        await redis.batch([one, one, one])
        await redis.call(*two)
        await redis.batch([("HGETALL", "a"), ("HGETALL", "b")])
        await redis.call("HGETALL", "a")
        assert meter.scripts == ["one", "two"]
