"""The way to Redis when it is away, slow, or refuses: which error it is, and that nothing is lost or done twice."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from service.errors import StartupError, StoreFull, StoreUnavailable, WriteUncertain
from service.process.embedded_redis import EmbeddedRedis
from service.redis_client.client import RedisClient
from tests.support.redis_servers import BUNDLED

#: Seconds. Short where a test waits for it to pass; nothing else in those tests is held to a time.
SHORT = 0.3

Response = Callable[[bytes], bytes | None]


@asynccontextmanager
async def pretended(directory: Path, answer: Response) -> AsyncIterator[str]:
    """A server that answers commands as it is told to: None hangs up."""
    held = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            # What redis-py says when it connects.
            said = b"+OK\r\n" if words[0] in (b"CLIENT", b"HELLO", b"SELECT") else answer(words[0])
            if said is None:
                break
            writer.write(said)
        writer.close()

    path = directory / "s"
    server = await asyncio.start_unix_server(serve, path)
    try:
        yield f"unix://{path}"
    finally:
        server.close()
        for writer in held:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        await server.wait_closed()


@asynccontextmanager
async def linked(url: str, timeout: float = SHORT) -> AsyncIterator[RedisClient]:  # noqa: ASYNC109 - the link's own
    redis = RedisClient.open(url, timeout=timeout)
    try:
        yield redis
    finally:
        await redis.close()


async def error_of(redis: RedisClient, *, writes: bool) -> type[Exception]:
    with pytest.raises(StoreUnavailable) as caught:
        await redis.call("SET", "a", "1", writes=writes)
    with pytest.raises(type(caught.value)):
        await redis.batch([("SET", "a", "1"), ("SET", "b", "1")], writes=writes)
    return caught.type


@pytest.mark.parametrize("url", ["unix:///nowhere/redis.sock", "redis://127.0.0.1:1"])
@pytest.mark.parametrize("writes", [False, True])
async def test_where_nobody_listens_nothing_was_written(url: str, writes: bool) -> None:
    async with linked(url) as redis:
        assert await error_of(redis, writes=writes) is StoreUnavailable


async def test_a_server_that_never_answers_leaves_a_write_uncertain_and_a_read_unavailable(tmp_path: Path) -> None:
    async with pretended(tmp_path, lambda _: b"") as url, linked(url) as redis:
        assert await error_of(redis, writes=False) is StoreUnavailable
        assert await error_of(redis, writes=True) is WriteUncertain


async def test_a_server_that_hangs_up_leaves_a_write_uncertain_and_a_read_unavailable(tmp_path: Path) -> None:
    async with pretended(tmp_path, lambda _: None) as url, linked(url) as redis:
        assert await error_of(redis, writes=False) is StoreUnavailable
        assert await error_of(redis, writes=True) is WriteUncertain


async def test_a_write_that_may_have_happened_is_not_sent_again(tmp_path: Path) -> None:
    seen = []

    def answer(name: bytes) -> None:
        seen.append(name)

    async with pretended(tmp_path, answer) as url, linked(url) as redis:
        with pytest.raises(WriteUncertain):
            await redis.call("INCR", "a", writes=True)
    assert seen == [b"INCR"]


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
        # As Redis 6.2 wraps what a script's own command was refused with.
        "ERR Error running script (call to f_58fc): @user_script:1: -OOM command not allowed when used memory > 'maxmemory'.",
        "ERR Error running script (call to f_58fc): @user_script:1: @user_script: 1: -READONLY You can't write against a read "
        "only replica.",
    ],
)
@pytest.mark.parametrize("writes", [False, True])
async def test_a_refusal_says_that_nothing_was_written(tmp_path: Path, text: str, writes: bool) -> None:
    async with pretended(tmp_path, lambda _: f"-{text}\r\n".encode()) as url, linked(url) as redis:
        with pytest.raises(StoreUnavailable) as caught:
            await redis.call("SET", "a", "1", writes=writes)
        expected = StoreFull if "OOM" in text else StoreUnavailable
        assert caught.type is expected
        replies = await redis.batch([("SET", "a", "1"), ("SET", "b", "2")], writes=writes)
        assert [type(reply) for reply in replies] == [expected, expected]


@pytest.mark.parametrize("text", ["ERR no such key", "WRONGTYPE Operation against a key", "ERR value: -OOMPH, OOM "])
async def test_an_error_that_is_ours_is_told_as_it_is(tmp_path: Path, text: str) -> None:
    async with pretended(tmp_path, lambda _: f"-{text}\r\n".encode()) as url, linked(url) as redis:
        with pytest.raises(ResponseError):
            await redis.call("SET", "a", "1", writes=True)
        (reply,) = await redis.batch([("SET", "a", "1")], writes=True)
        assert isinstance(reply, ResponseError)


async def test_after_a_restart_of_redis_the_same_link_goes_on(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path, fsync="no", server=BUNDLED.path)
    server.launch()
    server.wait()
    try:
        async with linked(server.url, 3) as redis:
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


async def test_a_caller_that_gives_up_takes_no_reply_of_another(redis: RedisClient) -> None:
    await redis.batch([("SET", f"k{each}", each) for each in range(50)])
    for turn in range(20):
        calls = [asyncio.create_task(redis.call("GET", f"k{each}")) for each in range(50)]
        await asyncio.sleep(0)
        for call in calls[turn % 3 :: 3]:
            call.cancel()
        for each, reply in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
            assert isinstance(reply, asyncio.CancelledError) or reply == b"%d" % each


async def test_a_link_of_no_redis_url_is_refused() -> None:
    with pytest.raises(StartupError, match="setting redis_url must begin with"):
        RedisClient.open("nowhere", timeout=SHORT)
