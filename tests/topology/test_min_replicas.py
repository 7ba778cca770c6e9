"""min_replicas: a write returns once replicas have it or fails as not replicated; reads do not wait; writes share a WAIT."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from redis.exceptions import ResponseError

from service.configs.limits import Limits
from service.errors import NotFound, NotReplicated, StartupError, StoreFull, StoreUnavailable, WriteUncertain
from service.redis_client import replication
from service.redis_client.client import RedisClient
from service.settings import Settings
from service.store.sessions import Sessions
from service.store.upkeep import bootstrap
from tests.support.filling import PROJECT, add, document_of, opened, session_id
from tests.support.topology_servers import HOST, Sentinels, Server

ONE = session_id(1)
#: Seconds for a call; far more than a call takes when all replicas answer.
TIMEOUT = 3.0


@pytest.fixture
def master(sentinels: Sentinels) -> Server:
    """A master with two replicas."""
    return sentinels.master()


@pytest.fixture
async def redis(master: Server) -> AsyncIterator[RedisClient]:
    """A client whose writes both replicas must acknowledge."""
    redis = RedisClient.open(f"redis://{HOST}:{master.port}", timeout=TIMEOUT, min_replicas=2)
    yield redis
    await redis.close()


@pytest.fixture
async def sessions(redis: RedisClient) -> Sessions:
    return await opened(redis, PROJECT, Limits(), 1, 4)


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.wake()


def replica(sentinels: Sentinels) -> Server:
    return next(server for server in sentinels.servers if server is not sentinels.master())


async def test_a_write_that_a_replica_lacks_was_executed_but_not_replicated(
    sentinels: Sentinels, redis: RedisClient, sessions: Sessions
) -> None:
    await add(sessions, 1, {"a": 1})
    await sessions.patch(ONE, document_of({"b": None}))
    with frozen(replica(sentinels)):
        async with asyncio.timeout(3 * TIMEOUT):
            with pytest.raises(NotReplicated) as raised:
                await sessions.patch(ONE, document_of({"a": 2}))
        assert (raised.value.status, raised.value.retry_after) == (503, 1)
        assert raised.value.detail == "the write succeeded but too few replicas acknowledged it; a failover may lose it"
        # It was executed exactly once.
        session = await sessions.get(ONE)
        assert (session.configs, session.revision) == (b'{\n"a":2\n}', 3)
        assert await redis.batch([("SET", "b", "1")]) == [b"OK"]
        with pytest.raises(NotReplicated):
            await redis.batch([("SET", "a", "1"), ("SET", "b", "1")], writes=True)
    written = await sessions.patch(ONE, document_of({"a": 3}))
    assert written.revision == 4


async def test_reads_do_not_wait_for_the_replicas_of_writes(sentinels: Sentinels, sessions: Sessions) -> None:
    await add(sessions, 1, {"a": 1})
    with frozen(replica(sentinels)):
        write = asyncio.create_task(sessions.patch(ONE, document_of({"a": 2})))
        while (await sessions.get(ONE)).revision == 1:
            assert not write.done()
        for _ in range(20):
            await sessions.get(ONE)
        assert not write.done()
        with pytest.raises(NotReplicated):
            await write


async def test_writes_that_arrive_while_a_group_waits_share_one_wait(master: Server, sessions: Sessions) -> None:
    def waits() -> int:
        calls = re.search(r"cmdstat_wait:calls=(\d+)", master.ask("INFO", "commandstats"))
        return int(calls[1]) if calls else 0

    await add(sessions, 1, {"a": 1})
    before = waits()
    results = await asyncio.gather(*(sessions.patch(ONE, document_of({f"k{number}": number})) for number in range(300)))
    assert sorted(written.revision for written in results) == list(range(2, 302))
    assert waits() - before <= 3


async def test_each_write_of_a_group_gets_its_own_replies(redis: RedisClient, sessions: Sessions) -> None:
    await add(sessions, 1, {"a": 1})
    calls = [
        redis.call("SET", "text", "x", writes=True),
        redis.call("INCR", "text", writes=True),
        sessions.patch(ONE, document_of({"a": 2})),
        sessions.patch(session_id(2), document_of({"a": 2})),
        redis.batch([("INCR", "n"), ("INCR", "text"), ("INCR", "n")], writes=True),
    ]
    first, second, third, fourth, fifth = await asyncio.gather(*calls, return_exceptions=True)
    assert first == b"OK"
    assert isinstance(second, ResponseError)
    assert getattr(third, "configs", None) == b'{\n"a":2\n}'
    assert isinstance(fourth, NotFound)
    assert isinstance(fifth, list)
    assert (fifth[0], fifth[2]) == (1, 2)
    assert isinstance(fifth[1], ResponseError)


async def test_a_refusal_is_reported_as_such_even_if_a_replica_is_down(
    sentinels: Sentinels, master: Server, redis: RedisClient
) -> None:
    master.ask("CONFIG", "SET", "maxmemory", 1)
    try:
        with frozen(replica(sentinels)), pytest.raises(StoreUnavailable) as raised:
            await redis.call("SET", "a", "1", writes=True)
        assert raised.type is StoreFull
    finally:
        master.ask("CONFIG", "SET", "maxmemory", 0)


async def test_a_write_that_waits_too_long_behind_a_group_is_not_sent(sentinels: Sentinels, sessions: Sessions) -> None:
    await add(sessions, 1, {"a": 1})
    with frozen(replica(sentinels)):
        first = asyncio.create_task(sessions.patch(ONE, document_of({"first": 1})))
        while (await sessions.get(ONE)).revision == 1:
            pass
        # It arrives while the first blocks the connection, and half of its time is over when WAIT returns.
        async with asyncio.timeout(3 * TIMEOUT):
            second = await asyncio.gather(sessions.patch(ONE, document_of({"second": 1})), return_exceptions=True)
        with pytest.raises(NotReplicated):
            await first
        assert isinstance(second[0], StoreUnavailable)
        session = await sessions.get(ONE)
        # It was executed if and only if the error says so.
        assert (b"second" in session.configs) is isinstance(second[0], NotReplicated)


async def test_writes_are_uncertain_if_the_connection_is_lost_while_they_wait(
    sentinels: Sentinels, master: Server, sessions: Sessions
) -> None:
    await add(sessions, 1, {"a": 1})
    with frozen(replica(sentinels)):
        write = asyncio.create_task(sessions.patch(ONE, document_of({"a": 2})))
        while (await sessions.get(ONE)).revision == 1:
            pass
        master.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with pytest.raises(WriteUncertain):
            await write
        assert (await sessions.get(ONE)).revision == 2


async def test_the_queue_of_the_next_group_is_bounded(redis: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "MAX_COMMANDS", 8)
    results = await asyncio.gather(*(redis.call("INCR", "n", writes=True) for _ in range(20)), return_exceptions=True)
    assert results[:8] == list(range(1, 9))
    assert [type(result) for result in results[8:]] == [StoreUnavailable] * 12
    assert await redis.call("INCR", "n", writes=True) == 9


async def test_a_server_does_not_start_with_too_few_replicas(master: Server) -> None:
    settings = Settings(
        redis_url=f"redis://{HOST}:{master.port}",
        root_token="x",
        key_secret="y",
        min_replicas=3,
        command_timeout=4.0,
        start_timeout=0.0,
    )
    with pytest.raises(StartupError, match="fewer than min_replicas replicas acknowledged a write"):
        await asyncio.to_thread(bootstrap.prepare, settings)
    await asyncio.to_thread(bootstrap.prepare, replace(settings, min_replicas=2))
