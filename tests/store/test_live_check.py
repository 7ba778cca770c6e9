"""A check while other clients write: it reports nothing, and the store is consistent afterwards."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from service.configs.limits import Limits
from service.errors import NotFound
from service.redis_client.client import RedisClient
from service.store.sessions import Sessions
from service.store.upkeep.partition_check import CONFIRM_DELAY, Check
from service.store.verify import verify_session
from tests.support.filling import PROJECT, TIMEOUT, add, document_of, keyspace, on_every_redis, opened, session_id
from tests.support.model import index_from_documents, index_in

WRITERS, CHECKS, SESSIONS = 6, 8, 30


@on_every_redis
@pytest.mark.parametrize("repair", [False, True])
async def test_a_check_during_concurrent_writes_reports_nothing(
    empty_redis: str, repair: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = RedisClient.open(empty_redis, timeout=TIMEOUT)
    sessions = await opened(redis, PROJECT, Limits(), 1, 4)
    done = asyncio.Event()
    writes = [0] * WRITERS

    async def write(writer: int) -> None:
        random = Random(writer)
        while not done.is_set():
            name = session_id(random.randrange(SESSIONS))
            document = document_of({"a": random.randrange(3), "b": {"c": random.randrange(9)}, f"k{writer}": None})
            action = random.random()
            user = random.choice((None, "alice", "bob", "carol"))
            try:
                if action < 0.35:
                    await sessions.create_session(name, document, user=user)
                elif action < 0.55:
                    await sessions.replace(name, document)
                elif action < 0.75:
                    await sessions.patch(name, document)
                else:
                    await sessions.delete(name)
            except NotFound:
                pass
            writes[writer] += 1

    async def pause(seconds: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        # A session is written before its user is registered: instead of a time, wait until every writer has finished.
        before = list(writes)
        while seconds == CONFIRM_DELAY and any(now <= then for now, then in zip(writes, before, strict=True)):
            await sleep(0)
        if seconds != CONFIRM_DELAY:
            await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", pause)

    async def check() -> list[str]:
        reported = []
        for _ in range(CHECKS):
            reported += [str(each) async for each in Check(redis, sessions.all_partitions[0], repair).findings()]
            await asyncio.sleep(CONFIRM_DELAY)
        done.set()
        return reported

    reported, *_ = await asyncio.gather(check(), *(write(writer) for writer in range(WRITERS)))
    assert reported == []
    stored = await keyspace(redis)
    partition = sessions.all_partitions[0]
    assert index_in(stored, partition) == index_from_documents(stored, partition)
    await redis.close()


async def test_a_session_that_changes_while_it_is_compared_is_compared_again(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, partition = session_id(1), sessions.all_partitions[0]
    session = await add(sessions, 1, {"a": 1})
    await sessions.redis.call("SREM", partition.index(session.serial // 4, "a=1"), session.serial)
    expected = await verify_session(sessions.redis, partition, name)
    assert expected != []
    call = sessions.redis.call
    reads = 0

    async def change_after_the_first_read(*command: str | bytes | int, **options: Any) -> Any:  # noqa: ANN401 - as `RedisClient.call`
        nonlocal reads
        reply = await call(*command, **options)
        if command[0] == "HMGET":
            reads += 1
            if reads == 1:
                await sessions.patch(name, document_of({"b": 1}))
        return reply

    monkeypatch.setattr(sessions.redis, "call", change_after_the_first_read)
    assert await verify_session(sessions.redis, partition, name) == expected
    assert reads == 2
