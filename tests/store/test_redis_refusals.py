"""The store on a Redis that refuses writes, or has lost its scripts: writes happen completely or not at all."""

import asyncio

import pytest

from service.configs.limits import Limits
from service.errors import StoreFull, StoreUnavailable
from service.redis_client.client import RedisClient
from service.store.sessions import Sessions
from tests.support.filling import add, document_of, keyspace, on_every_redis, session_id


@on_every_redis
async def test_a_redis_out_of_memory_refuses_every_write_and_accepts_deletes(sessions: Sessions, redis: RedisClient) -> None:
    await add(sessions, 1, {"a": 1}, "alice")
    await add(sessions, 2, {"a": 2}, "alice")
    before = await keyspace(redis)
    await redis.call("CONFIG", "SET", "maxmemory", 1)
    try:
        for write in (
            sessions.create_session(session_id(3), document_of({"a": 1})),
            sessions.replace(session_id(1), document_of({"b": 1})),
            sessions.patch(session_id(1), document_of({"b": 1})),
            sessions.copy_session(session_id(1), session_id(4)),
            sessions.registration.register("bob"),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                await write
            assert caught.type is StoreFull
        assert (await sessions.get(session_id(1))).configs == b'{\n"a":1\n}'
        assert await keyspace(redis) == before
        await sessions.delete(session_id(1))
        await sessions.delete_many([session_id(2)])
    finally:
        await redis.call("CONFIG", "SET", "maxmemory", 0)
    assert [name for name in await keyspace(redis) if ":session:" in name or ":index:" in name] == []


@on_every_redis
async def test_a_replica_refuses_every_write_and_serves_reads(sessions: Sessions, redis: RedisClient, redis_url: str) -> None:
    await add(sessions, 1, {"a": 1})
    before = await keyspace(redis)
    await redis.call("REPLICAOF", "127.0.0.1", 1)
    # A write that a replica refuses is retried until its time is over.
    impatient = RedisClient.open(redis_url, timeout=2.0)
    refused = Sessions(impatient, sessions.project, Limits(), 1, 4)
    try:
        for write in (
            refused.create_session(session_id(3), document_of({"a": 1})),
            refused.patch(session_id(1), document_of({"b": 1})),
            refused.delete(session_id(1)),
            refused.delete_many([session_id(1)]),
            refused.registration.register("bob"),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                await write
            assert caught.type is StoreUnavailable
        assert await keyspace(redis) == before
    finally:
        await redis.call("REPLICAOF", "NO", "ONE")
        await impatient.close()


@on_every_redis
async def test_scripts_are_loaded_again_after_script_flush(sessions: Sessions, redis: RedisClient) -> None:
    await add(sessions, 1, {"a": 1})
    for _ in range(2):
        await redis.call("SCRIPT", "FLUSH")
        await sessions.patch(session_id(1), document_of({"b": 1}))
        await redis.call("SCRIPT", "FLUSH")
        await sessions.delete_many([session_id(5)])
        await redis.call("SCRIPT", "FLUSH")
        # Concurrent calls get NOSCRIPT together.
        await asyncio.gather(*(sessions.patch(session_id(1), document_of({f"k{each}": each})) for each in range(20)))
    session = await sessions.get(session_id(1))
    assert session.revision == 1 + 2 * 21
    assert session.configs.count(b"\n") == 23


@on_every_redis
async def test_hundreds_of_concurrent_patches_are_all_applied(sessions: Sessions) -> None:
    await add(sessions, 1, {"a": 1})
    results = await asyncio.gather(*(sessions.patch(session_id(1), document_of({f"k{each}": each})) for each in range(400)))
    assert sorted(session.revision for session in results) == list(range(2, 402))
