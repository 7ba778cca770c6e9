"""The sweep: what it removes, how much it sends in one round trip, which worker does it, and that no failure stops it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest
from redis.exceptions import ResponseError

from service.configs.limits import Limits
from service.configs.ttl import Ttl
from service.redis_client.client import RedisClient
from service.redis_client.multiplexer import Command
from service.redis_client.topology import Target
from service.store import keys, script_calls
from service.store import removal_batches as batches
from service.store.keys import Partition
from service.store.projects import Registry
from service.store.sessions import Sessions
from service.store.upkeep import sweeper as sweeping
from service.store.upkeep.sweeper import Sweeper
from tests.support.filling import (
    PROJECT,
    TIMEOUT,
    CountingClient,
    add,
    document_of,
    keyspace,
    lapse,
    on_every_redis,
    opened,
    session_id,
    sweep_all,
)

BLOCK = 4


async def project(redis: RedisClient, slug: str, living: int, expired: int, partitions: int = 1) -> Sessions:
    """A project with `living` sessions without an expiry, and `expired` sessions that have expired."""
    sessions = await opened(redis, await Registry(redis, "").ensure(slug), Limits(), partitions, BLOCK)
    for number in range(living + expired):
        await add(sessions, number, {"a": 1, "n": number})
        if number >= living:
            await lapse(sessions, session_id(number))
    return sessions


async def count_sessions(redis: RedisClient, slug: str) -> int:
    """How many sessions of a project are still in the store."""
    return len(await redis.call("KEYS", f"scc:{{{slug}.*:session:*"))


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not await holds():  # noqa: ASYNC110 - the condition is in Redis
            await asyncio.sleep(0.01)


@on_every_redis
@pytest.mark.parametrize("partitions", [1, 5])
async def test_a_round_removes_all_expired_sessions_of_every_project_and_nothing_else(
    redis: RedisClient, partitions: int
) -> None:
    one = await project(redis, "one", 7, 0, partitions)
    two = await project(redis, "two", 3, 0, partitions)
    await project(redis, "idle", 0, 0, partitions)
    living_session, _ = await two.create_session(session_id(99), None, ttl=Ttl(1000))
    expected = await keyspace(redis)
    for sessions, first in ((one, 100), (two, 200)):
        for number in range(first, first + 30):
            await add(sessions, number, {"a": 1, "b": {"n": number}, "wide": {f"k{each}": each for each in range(70)}})
            await lapse(sessions, session_id(number))
    sweeper = Sweeper(redis, partitions, BLOCK)
    assert not await sweeper.round()
    swept = await keyspace(redis)
    assert {name: content for name, content in swept.items() if not name.endswith(":state")} == {
        name: content for name, content in expected.items() if not name.endswith(":state")
    }
    assert await two.get(living_session.id) == living_session
    assert not await sweeper.round()
    assert await keyspace(redis) == swept


async def test_a_round_is_bounded_and_projects_take_turns(counting: CountingClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "BATCH", 4)
    monkeypatch.setattr(sweeping, "ROUND_SESSIONS", 10)
    await project(counting, "big", 0, 50)
    await project(counting, "small", 0, 5)
    sweeper = Sweeper(counting, 1, BLOCK)
    rounds = 0
    while True:
        counting.seen.clear()
        more = await sweeper.round()
        rounds += 1
        run = sum(
            command[:2] == ("EVALSHA", script_calls.expire.script.sha) and not isinstance(reply, Exception)
            for command, reply in counting.seen
        )
        assert run < 10 + 4
        if rounds == 2:
            assert await count_sessions(counting, "small") == 0
            assert await count_sessions(counting, "big") > 20
        if not more:
            break
    assert rounds >= 5
    assert await count_sessions(counting, "big") == 0


async def test_every_project_is_swept_if_there_are_too_many_for_one_round(
    counting: CountingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "ROUND_PARTITIONS", 60)
    monkeypatch.setattr(sweeping, "PARTITIONS_BATCH", 25)
    names = [f"p{number}" for number in range(700)]
    await counting.call("HSET", keys.PROJECTS, *(part for name in names for part in (name, "id")))
    projects = [await project(counting, name, 0, 2) for name in names[::140]]
    assert len(projects) == 5
    sweeper = Sweeper(counting, 1, BLOCK)
    for _ in range(100):
        counting.seen.clear()
        await sweeper.round()
        # HSCAN may return a few more than its COUNT.
        assert sum(command[0] == "ZRANGE" for command, _ in counting.seen) < 2 * 60
        if sweeper._cursor == b"0":
            break
    assert [await count_sessions(counting, name) for name in names[::140]] == [0] * 5


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([10, 10, 10], [3]),
        ([60, 40, 1], [2, 1]),
        ([500, 500, 1, 1], [1, 1, 2]),
        ([1, 500, 1], [1, 1, 1]),
        ([99, ResponseError("WRONGTYPE"), 1, 1], [3, 1]),
    ],
)
async def test_the_size_of_a_removal_batch_is_bounded_by_the_terms_of_its_sessions(
    sizes: list[int | Exception], expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sizes:
        async def batch(self, commands: list[Command]) -> list[int | Exception]:
            return [sizes[int(str(key))] for _, key, _ in commands]

    monkeypatch.setattr(batches, "BATCH_BYTES", 100)
    names = [session_id(number) for number in range(len(sizes))]
    named = [(name, str(number)) for number, name in enumerate(names)]
    actual = [batch async for batch in batches.removal_batches(cast("Any", Sizes()), named)]
    assert [len(portion) for portion in actual] == expected
    assert [name for portion in actual for name in portion] == names


async def test_a_manually_damaged_session_is_removed_with_the_index_entries_it_still_names(sessions: Sessions) -> None:
    partition = sessions.all_partitions[0]
    for number, damage in enumerate(("serial", "revision", "created_at", "terms", "user")):
        await add(sessions, number, {"a": 1, "n": number}, "alice")
        await sessions.redis.call("HDEL", partition.session(session_id(number)), damage)
        await lapse(sessions, session_id(number))
    # Also entries in `expiring` of a session that does not exist, and of one without an expiry.
    kept = await add(sessions, 9, {"b": 1})
    await sessions.redis.call("ZADD", partition.expiring, 1, session_id(9), 1, session_id(77))
    await sweep_all(sessions)
    stored = await keyspace(sessions.redis)
    assert {name for name in stored if ":session:" in name} == {partition.session(kept.id)}
    assert partition.expiring not in stored
    # Without its terms or user, a session does not name its index entries: a check removes these.
    assert {name: serials for name, serials in stored.items() if ":index:" in name} == {
        partition.index(1, "b=1"): {b"6"},
        partition.index(1, "a=1"): {b"4"},
        partition.index(1, "n=3"): {b"4"},
        partition.index(1, '@user="alice"'): {b"5"},
    }


async def test_a_sweep_corrects_a_wrong_expiry_time_of_a_session_that_has_not_expired(sessions: Sessions) -> None:
    session, _ = await sessions.create_session(session_id(1), None, ttl=Ttl(1000))
    expiring = sessions.all_partitions[0].expiring
    await sessions.redis.call("ZADD", expiring, 1, session.id)
    await sweep_all(sessions)
    assert (await keyspace(sessions.redis))[expiring] == {session.id.encode(): session.expires_at}


async def test_damage_in_one_partition_does_not_stop_the_sweep_of_others(
    redis: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "BATCH_BYTES", 60)
    for slug in ("a", "b", "c"):
        await project(redis, slug, 1, 5)
    partition = Partition("b", 0, BLOCK)
    await redis.call("SET", partition.session("damaged"), "no hash")
    await redis.call("ZADD", partition.expiring, 1, "damaged")
    sweeper = Sweeper(redis, 1, BLOCK)
    for _ in range(10):
        with pytest.raises(ResponseError):
            await sweeper.round()
    assert [await count_sessions(redis, slug) for slug in ("a", "b", "c")] == [1, 2, 1]


async def test_ids_without_a_session_do_not_end_a_round_early(redis: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "BATCH", 4)
    sessions = await project(redis, "one", 2, 6)
    partition = sessions.all_partitions[0]
    missing = [session_id(number) for number in range(100, 108)]
    # By their scores they are the first two batches.
    await redis.call("ZADD", partition.expiring, *(part for name in missing for part in (1, name)))
    assert not await Sweeper(redis, 1, BLOCK).round()
    assert await count_sessions(redis, "one") == 2
    assert await redis.call("EXISTS", partition.expiring) == 0


async def test_expire_counts_removed_entries_and_not_living_sessions(redis: RedisClient) -> None:
    sessions = await project(redis, "one", 2, 3)
    names = [session_id(number) for number in (0, 1, 2, 3, 4, 50, 51)]
    assert await sweeping.expire(redis, sessions.all_partitions[0], names) == 5
    assert await sweeping.expire(redis, sessions.all_partitions[0], names[:2]) == 0


@pytest.mark.parametrize("latest", [0, 1])
async def test_a_session_has_expired_once_it_has_by_the_latest_of_several_clocks(latest: int) -> None:
    clocks = [[b"100", b"0"], [b"100", b"0"]]
    clocks[latest] = [b"100", b"5"]

    class Masters:
        async def call_on_masters(self, *_: str) -> list[list[bytes]]:
            return clocks

        async def batch(self, commands: list[Command]) -> list[list[bytes]]:
            return [[b"first to expire", b"%d" % (100_000_004 + number)] for number in range(len(commands))]

    partitions = [Partition("one", number, BLOCK) for number in range(3)]
    expired = await sweeping.partitions_with_expired(cast("Any", Masters()), partitions)
    assert [partition.prefix for partition in expired] == [partition.prefix for partition in partitions[:2]]


async def test_a_sweep_without_expired_sessions_reads_each_partition_once(counting: CountingClient) -> None:
    sessions = await opened(counting, PROJECT, Limits(), 3, BLOCK)
    await add(sessions, 1, {"a": 1})
    await sessions.patch(session_id(1), document_of({}), ttl=Ttl(1000))
    counting.seen.clear()
    await sweep_all(sessions)
    assert sorted(str(command[0]) for command, _ in counting.seen) == ["TIME", "ZRANGE", "ZRANGE", "ZRANGE"]


async def test_an_expiry_is_retried_like_a_read_and_never_counts_as_an_uncertain_write(empty_redis: str) -> None:
    class Watched(RedisClient):
        writes = False

        async def batch(self, commands: Sequence[Command], *, writes: bool = False, near: Target | None = None) -> list[Any]:
            self.writes |= writes
            return await super().batch(commands, writes=writes, near=near)

    redis = Watched.open(empty_redis, timeout=TIMEOUT)
    sessions = await project(redis, "one", 0, 3)
    redis.writes = False
    await sweep_all(sessions)
    assert await count_sessions(redis, "one") == 0
    assert not redis.writes
    await redis.close()
