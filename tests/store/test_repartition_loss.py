"""A repartition loses no session if a node of Redis loses its last writes or runs out of memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from service.configs.limits import Limits
from service.errors import StoreUnavailable
from service.redis_client import admin
from service.redis_client.client import RedisClient
from service.redis_client.multiplexer import Command
from service.store import manifest, script_calls
from service.store.keys import Owner, Partition, partition_number
from service.store.manifest import Move
from service.store.scripts import Call
from service.store.upkeep import repartition
from service.store.upkeep.repartition import MOVE, NUMBERING
from tests.support.filling import PROJECT, TIMEOUT, add, keyspace, opened, session_id
from tests.support.moves import BLOCK_SIZE, COUNT, STRAY, Keyspace, after_move, home, move, restore

pytestmark = pytest.mark.usefixtures("impatient_move")


class Clock:
    """A clock that advances only when the repartition sleeps, without a wait; `event` runs then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.event: Callable[[], Awaitable[object]] | None = None
        monkeypatch.setattr(repartition, "SETTLE", 2.0)
        monkeypatch.setattr(repartition, "monotonic", lambda: self.now)
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        if seconds and self.event is not None:
            await self.event()


async def test_an_original_is_deleted_only_after_its_copy_has_settled(
    redis: RedisClient, original: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    copied: dict[str, float] = {}
    send = redis.batch

    async def batch(commands: Sequence[Command], *, writes: bool = False) -> list[object]:
        for name, key, *_ in commands:
            where, _, session = str(key).partition("}:session:")
            if name == "HSET" and session:
                copied[session] = clock.now
            if name == "UNLINK" and session:
                assert where == "scc:{acme.0"
                assert clock.now >= copied[session] + 2.0
        return await send(commands, writes=writes)

    monkeypatch.setattr(redis, "batch", batch)
    await move(redis, 2)
    assert len(copied) == sum(partition_number(session_id(number), 2) for number in range(COUNT))
    assert await keyspace(redis) == after_move(original, 2)


async def test_an_original_is_kept_if_its_copy_is_lost(
    redis: RedisClient, original: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    clock.event = lambda: redis.call("DEL", home(STRAY, 2))
    with pytest.raises(StoreUnavailable):
        await move(redis, 2)
    assert await redis.call("EXISTS", home(STRAY, 1)) == 1
    clock.event = None
    await move(redis, 2)
    assert await keyspace(redis) == after_move(original, 2)


async def test_a_node_that_loses_acknowledged_writes_is_numbered_again(
    redis: RedisClient, original: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    before: dict[str, Any] = {}
    rollbacks = 0

    async def fall_back() -> None:
        nonlocal rollbacks
        stored = await keyspace(redis)
        node = {name: content for name, content in stored.items() if name.startswith("scc:{acme.1}")}
        if not before:
            assert "scc:{acme.1}:order" in node
            before.update(node)
        elif not rollbacks:
            assert "scc:{acme.1}:order" not in node
            rollbacks += 1
            await restore(redis, {**{name: content for name, content in stored.items() if name not in node}, **before})

    clock.event = fall_back
    await move(redis, 2)
    assert rollbacks == 1
    assert await keyspace(redis) == after_move(original, 2)


async def test_ids_that_a_node_has_lost_are_collected_again(
    redis: RedisClient, original: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_move = manifest.record_move

    async def stop(redis: RedisClient, move: Move) -> None:
        if move.phase == NUMBERING:
            raise StoreUnavailable
        await record_move(redis, move)

    monkeypatch.setattr(manifest, "record_move", stop)
    with pytest.raises(StoreUnavailable):
        await move(redis, 3)
    monkeypatch.setattr(manifest, "record_move", record_move)
    assert await redis.call("DEL", *(Partition(PROJECT.slug, number).order for number in range(3))) == 3
    await move(redis, 3)
    assert await keyspace(redis) == after_move(original, 3)


async def test_a_scan_may_return_a_key_several_times(
    redis: RedisClient, original: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = admin.scan

    async def twice(redis: RedisClient, match: str) -> AsyncIterator[list[bytes]]:
        async for names in scan(redis, match):
            yield names + names
            yield names

    monkeypatch.setattr(admin, "scan", twice)
    monkeypatch.setattr(repartition, "SESSIONS_BATCH", 5)
    await move(redis, 2)
    assert await keyspace(redis) == after_move(original, 2)


async def test_keys_that_a_scan_misses_are_moved_after_a_later_scan(
    redis: RedisClient, original: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = admin.scan
    scans = 0

    async def misses(redis: RedisClient, match: str) -> AsyncIterator[list[bytes]]:
        nonlocal scans
        scans += 1
        async for names in scan(redis, match):
            yield [name for position, name in enumerate(sorted(names)) if position % 3 < scans]

    monkeypatch.setattr(admin, "scan", misses)
    await move(redis, 2)
    assert scans == 3
    assert await keyspace(redis) == after_move(original, 2)


async def test_a_redis_out_of_memory_stops_a_repartition_and_it_resumes_later(redis: RedisClient, original: Keyspace) -> None:
    await manifest.record_move(redis, Move(2, MOVE, COUNT))
    await redis.call("CONFIG", "SET", "maxmemory", 1)
    try:
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await move(redis, 2)
    finally:
        await redis.call("CONFIG", "SET", "maxmemory", 0)
    await move(redis, 2)
    assert await keyspace(redis) == after_move(original, 2)


def assign_serials(partition: Partition) -> Call[int]:
    return script_calls.assign_serials(
        order=partition.order, sessions=partition.sessions, state=partition.state, partition=partition.arguments
    )


@pytest.mark.usefixtures("original")
async def test_numbering_writes_nothing_if_a_key_is_not_accessible(redis: RedisClient, empty_redis: str) -> None:
    partition = Partition(PROJECT.slug, 0, BLOCK_SIZE, Owner(PROJECT.id, 1))
    await redis.call("ZADD", partition.order, *(part for number in range(COUNT) for part in (number, session_id(number))))
    before = await keyspace(redis)
    # This user may not access one key, as on a node that is migrating its slot.
    patterns = [f"~{partition.prefix}{name}" for name in ("session:*", "sessions", "state", "order", "index:*", "blocks:*")]
    await redis.call("ACL", "SETUSER", "narrow", "reset", "on", ">pass", "+@all", *patterns)
    narrow = RedisClient.open(empty_redis.replace("unix://", "unix://narrow:pass@"), timeout=TIMEOUT)
    try:
        with pytest.raises(StoreUnavailable):
            await assign_serials(partition).run(narrow)
    finally:
        await narrow.close()
        await redis.call("ACL", "DELUSER", "narrow")
    assert await keyspace(redis) == before


@pytest.mark.parametrize(("terms", "taken"), [(0, [16, 4, 0]), (60, [4, 4, 4, 4, 4, 0]), (250, [1] * 20 + [0])])
async def test_one_call_numbers_a_bounded_number_of_sessions_and_terms(
    redis: RedisClient, terms: int, taken: list[int]
) -> None:
    sessions = await opened(redis, PROJECT, Limits())
    partition = sessions.all_partitions[0]
    for number in range(20):
        await add(sessions, number, {f"k{key}": key for key in range(terms)})
        await redis.call("ZADD", partition.order, number, session_id(number))
    await redis.call("HDEL", partition.state, "serial", "created_at")
    assert [await assign_serials(partition).run(redis) for _ in taken] == taken
    assert await redis.call("HGET", partition.state, "serial") == b"20"
