"""Sessions with a TTL: once expired by Redis's clock, every operation treats them as deleted, swept or not."""

import asyncio
from collections.abc import Awaitable
from random import Random
from typing import Any

import pytest

from service.configs.limits import Limits
from service.configs.ttl import LAST_MOMENT, NO_EXPIRY, TTL_MAX, UNSPECIFIED, Ttl
from service.errors import NotFound, PreconditionFailed, Unreadable
from service.redis_client.client import RedisClient
from service.store import scripts
from service.store.conditions import UNCONDITIONAL, Conditions, ETags
from service.store.keys import project_key
from service.store.listing import Query, iter_matches, page
from service.store.project_configs import ProjectConfigs
from service.store.record import FIELDS, is_expired, microseconds
from service.store.sessions import Sessions
from service.store.upkeep import sweeper
from service.store.upkeep.partition_check import Check
from service.store.users import Users
from tests.support.filling import (
    PROJECT,
    TIMEOUT,
    CountingClient,
    add,
    document_of,
    fill,
    keyspace,
    lapse,
    on_every_redis,
    only,
    opened,
    own,
    session_id,
    sweep_all,
)
from tests.support.model import index_from_documents, index_in

ONE, TWO, THREE, FOUR = map(session_id, (1, 2, 3, 4))
SECOND = 1_000_000


@on_every_redis
async def test_a_session_has_expired_at_its_last_microsecond_and_not_before(
    redis: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = scripts._read
    probe = """-- include: ttl
local function after(microseconds) return is_expired(integer(now() + microseconds)) and 1 or 0 end
return { after(-1), after(0), after(1) }
"""
    monkeypatch.setattr(scripts, "_read", lambda path: probe if path == "probe.lua" else read(path))
    assert await redis.call("EVAL", scripts.load("probe").source, 0) == [1, 1, 0]
    assert [is_expired(b"1000", now) for now in (999, 1000, 1001)] == [False, True, True]


async def listed(sessions: Sessions, **asked: Any) -> list[str]:  # noqa: ANN401 - as `Query` takes it
    return [session.id for session in (await page(sessions, Query(**asked), 50)).sessions]


async def clock(redis: RedisClient) -> int:
    return microseconds(await redis.call("TIME"))


async def verify_store(sessions: Sessions) -> None:
    """The index matches the documents, `expiring` matches the hashes, and a check reports nothing."""
    stored = await keyspace(sessions.redis)
    for partition in sessions.all_partitions:
        assert index_in(stored, partition) == index_from_documents(stored, partition)
        start = partition.session("")
        ends = {
            name.removeprefix(start).encode(): int(fields[b"expires_at"])
            for name, fields in stored.items()
            if name.startswith(start) and b"expires_at" in fields
        }
        assert stored.get(partition.expiring, {}) == ends
        assert [str(each) async for each in Check(sessions.redis, partition).findings()] == []


@on_every_redis
@pytest.mark.parametrize("partitions", [1, 3])
async def test_every_operation_treats_an_expired_session_as_deleted(redis: RedisClient, partitions: int) -> None:
    # Tried with a `Sessions` that has read a session with an expiry, and with one that has not.
    def fresh() -> Sessions:
        return Sessions(redis, PROJECT, Limits(), partitions, 4)

    old = fresh()
    await own(old)
    made = await fill(old, [{"a": 1}, {"a": 1}, {"a": 1}], "alice")
    await lapse(old, TWO)
    for sessions in (old, fresh()):
        before = await keyspace(redis)
        for read in (sessions.get(TWO), sessions.get(TWO), sessions.copy_session(TWO, FOUR)):
            with pytest.raises(NotFound):
                await read
        for write in (sessions.patch, sessions.replace):
            with pytest.raises(NotFound):
                await write(TWO, document_of({"a": 2}), ttl=NO_EXPIRY)
            for conditions in (Conditions(ETags(any=True)), only(made[1].etag)):
                with pytest.raises(PreconditionFailed):
                    await write(TWO, document_of({"a": 2}), conditions=conditions, ttl=Ttl(50))
        for query in (Query(), Query(user="alice")):
            matches = [session.id async for batch in iter_matches(sessions, query) for session in batch]
            assert sorted(matches) == [ONE, THREE]
            assert sorted(session.id for session in (await page(sessions, query, 50)).sessions) == [ONE, THREE]
        # None of them changed the session that is still to be swept.
        assert await keyspace(redis) == before
        await verify_store(sessions)
    before = await keyspace(redis)
    assert await Users(old).count_sessions("alice") == 2
    # A count does not sweep either.
    assert await keyspace(redis) == before


@on_every_redis
@pytest.mark.parametrize(("conditions", "error"), [
    (UNCONDITIONAL, NotFound), (Conditions(if_none_match=ETags(any=True)), NotFound),
    (Conditions(ETags(any=True)), PreconditionFailed), (only("1-1"), PreconditionFailed),
])  # fmt: skip
async def test_deleting_an_expired_session_finds_nothing_and_leaves_nothing(
    sessions: Sessions, conditions: Conditions, error: type[Exception]
) -> None:
    state = sessions.all_partitions[0].state
    await add(sessions, 1, {"a": 1, "b": [1]}, None)
    await lapse(sessions, ONE)
    with pytest.raises(error):
        await sessions.delete(ONE, conditions=conditions)
    assert set(await keyspace(sessions.redis)) == {state, project_key(PROJECT.slug)}


@on_every_redis
async def test_the_id_of_an_expired_session_is_free_and_nothing_of_the_session_remains(sessions: Sessions) -> None:
    await add(sessions, 2, {"a": 1})
    old = await add(sessions, 1, {"a": 1, "old": [1, 2], "same": "x"}, "alice")
    await lapse(sessions, ONE)
    document = document_of({"same": "x", "new": 1})
    new, created = await sessions.create_session(ONE, document, user="bob", disable_task_tracking=True, ttl=Ttl(1000))
    assert created
    assert new.created_at > old.created_at
    assert (new.revision, new.serial, new.user) == (1, old.serial + 1, "bob")
    assert new.etag != old.etag
    assert await sessions.get(ONE) == new
    stored = await keyspace(sessions.redis)
    assert not any("old" in name or "alice" in name for name in stored if ":users" not in name)
    await verify_store(sessions)
    assert await listed(sessions) == [TWO, ONE]
    # A create with the id of a living session returns that session.
    again, created = await sessions.create_session(ONE, document, ttl=NO_EXPIRY)
    assert (again, created) == (new, False)


@on_every_redis
async def test_a_ttl_starts_with_the_write_that_sets_it(sessions: Sessions) -> None:
    async def ends(operation: Awaitable[object], ttl: int) -> int:
        before = await clock(sessions.redis)
        await operation
        after = await clock(sessions.redis)
        expires_at = (await sessions.get(ONE)).expires_at
        assert expires_at is not None
        assert before <= expires_at - ttl * SECOND <= after
        return expires_at

    creation = sessions.create_session(ONE, None, ttl=Ttl(50))
    first = await ends(creation, 50)
    # A write without a TTL does not change the expiry.
    await sessions.patch(ONE, document_of({"a": 1}))
    await sessions.replace(ONE, document_of({"a": 2}))
    assert (await sessions.get(ONE)).expires_at == first
    await ends(sessions.patch(ONE, document_of({}), ttl=Ttl(TTL_MAX)), TTL_MAX)
    await ends(sessions.replace(ONE, document_of({}), ttl=Ttl(1000)), 1000)
    await verify_store(sessions)
    for write in (sessions.patch, sessions.replace):
        await write(ONE, document_of({}), ttl=Ttl(20))
        await write(ONE, document_of({"a": 1}), ttl=NO_EXPIRY)
        assert (await sessions.get(ONE)).expires_at is None
        await verify_store(sessions)
    # A refused write does not change it either.
    await sessions.patch(ONE, document_of({}), ttl=Ttl(30))
    stored = await keyspace(sessions.redis)
    with pytest.raises(PreconditionFailed):
        await sessions.patch(ONE, document_of({}), conditions=only("1-1"), ttl=NO_EXPIRY)
    assert await keyspace(sessions.redis) == stored


async def test_a_read_asks_for_the_time_only_after_a_session_with_an_expiry_was_read(empty_redis: str) -> None:
    redis = CountingClient.open(empty_redis, timeout=TIMEOUT)
    assert isinstance(redis, CountingClient)
    sessions = await opened(redis, PROJECT, Limits())
    await fill(sessions, [{"a": 1}, {"a": 2}])

    async def asked(name: str) -> list[str | bytes | int]:
        redis.seen.clear()
        await sessions.get(name)
        return [command[0] for command, _ in redis.seen]

    assert await asked(ONE) == ["HMGET"]
    await sessions.patch(TWO, document_of({}), ttl=Ttl(50))
    assert await asked(ONE) == ["HMGET"]
    assert await asked(TWO) == ["HMGET", "TIME", "HMGET"]
    # From now on in one round trip, the time first: a session that lives at that time is returned even if it expires meanwhile.
    assert await asked(TWO) == await asked(ONE) == ["TIME", "HMGET"]
    await redis.close()


async def test_no_write_succeeds_after_the_expiry_that_it_races(sessions: Sessions) -> None:
    made, _ = await sessions.create_session(ONE, document_of({"n": 0}), ttl=Ttl(1))
    assert made.expires_at is not None

    async def write_repeatedly(last: int) -> None:
        while True:
            written, read = await asyncio.gather(sessions.patch(ONE, document_of({"n": last})), sessions.get(ONE))
            assert made.expires_at is not None
            assert last < written.updated_at < made.expires_at == read.expires_at
            last = written.updated_at

    with pytest.raises(NotFound):
        await write_repeatedly(made.updated_at)
    assert await clock(sessions.redis) >= made.expires_at
    with pytest.raises(NotFound):
        await sessions.get(ONE)
    await verify_store(sessions)


@on_every_redis
async def test_concurrent_writers_sweepers_and_expiries_leave_the_store_consistent(
    redis: RedisClient, empty_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = await opened(redis, PROJECT, Limits(), 2, 4)
    second = RedisClient.open(empty_redis, timeout=TIMEOUT)
    etags: list[tuple[str, str]] = []
    done = asyncio.Event()
    monkeypatch.setattr(sweeper, "BATCH", 3)

    async def write(seed: int) -> None:
        random = Random(seed)
        for _ in range(250):
            name, ttl = session_id(random.randrange(12)), random.choice((UNSPECIFIED, NO_EXPIRY, Ttl(1000)))
            document = document_of({"a": random.randrange(3), f"w{seed}": {"b": random.randrange(9)}, "c": None})
            action = random.random()
            try:
                if action < 0.3:
                    made, new = await sessions.create_session(name, document, user="u", ttl=ttl)
                    etags.extend([(name, made.etag)] if new else [])
                elif action < 0.45:
                    etags.append((name, (await sessions.replace(name, document, ttl=ttl)).etag))
                elif action < 0.7:
                    etags.append((name, (await sessions.patch(name, document, ttl=ttl)).etag))
                elif action < 0.8:
                    await sessions.delete(name)
                else:
                    await lapse(sessions, name)
            except NotFound:
                pass

    async def sweep_repeatedly(redis: RedisClient) -> None:
        while not done.is_set():
            await sweep_all(Sessions(redis, PROJECT, Limits(), 2, 4))

    async def write_all() -> None:
        await sessions.registration.register("u")
        await asyncio.gather(*(write(seed) for seed in range(6)))
        done.set()

    await asyncio.gather(write_all(), sweep_repeatedly(redis), sweep_repeatedly(second))
    await second.close()
    assert len(set(etags)) == len(etags) > 100
    await verify_store(sessions)
    await sweep_all(sessions)
    await verify_store(sessions)


@on_every_redis
async def test_a_session_extended_or_recreated_since_the_sweep_read_it_stays(sessions: Sessions) -> None:
    partition = sessions.all_partitions[0]
    await fill(sessions, [{"a": 1}] * 4)
    for name in (ONE, TWO, THREE, FOUR):
        await lapse(sessions, name)
    due = await sweeper.expired_ids(sessions.redis, partition)
    assert due == [ONE, TWO, THREE, FOUR]
    # One session is created again, and one extended, after the sweep has read their expiries.
    new, _ = await sessions.create_session(ONE, document_of({"a": 1}))
    later = await clock(sessions.redis) + 1000 * SECOND
    await sessions.redis.batch(
        [("HSET", partition.session(TWO), "expires_at", later), ("ZADD", partition.expiring, later, TWO)]
    )
    # Two sweeps that have read the same expiries.
    removed = await asyncio.gather(*(sweeper.expire(sessions.redis, partition, due) for _ in range(2)))
    assert sum(removed) >= 2
    assert await sessions.get(ONE) == new
    assert (await sessions.get(TWO)).expires_at == later
    assert await listed(sessions) == [TWO, ONE]
    await verify_store(sessions)


@pytest.mark.parametrize("partitions", [1, 3])
async def test_deleting_a_user_deletes_their_expired_sessions(redis: RedisClient, partitions: int) -> None:
    sessions = await opened(redis, PROJECT, Limits(), partitions, 4)
    for number in range(12):
        await add(sessions, number, {"a": 1}, "alice" if number % 2 else "bob")
        if number % 3:
            await lapse(sessions, session_id(number))
    await Users(sessions).delete("alice")
    remaining = {name.rpartition(":")[2] for name in await keyspace(redis) if ":session:" in name}
    assert remaining == {session_id(number) for number in range(0, 12, 2)}
    await verify_store(sessions)


async def test_a_copy_gets_the_default_ttl_and_not_that_of_its_source(sessions: Sessions) -> None:
    await sessions.create_session(ONE, document_of({"a": 1}), ttl=Ttl(50))
    assert (await sessions.copy_session(ONE, TWO)).expires_at is None
    await ProjectConfigs(sessions).patch(document_of({"session_ttl": 7000}))
    before = await clock(sessions.redis)
    copied = await sessions.copy_session(ONE, THREE)
    assert copied.expires_at is not None
    assert before + 7000 * SECOND <= copied.expires_at
    assert (await sessions.get(THREE)) == copied


def test_expires_at_is_the_last_of_the_fields_that_are_read() -> None:
    assert FIELDS[-1] == "expires_at"


@pytest.mark.parametrize("field", ["created_at", "updated_at", "expires_at"])
async def test_a_time_out_of_range_counts_as_damage_and_hides_no_other_session(sessions: Sessions, field: str) -> None:
    await fill(sessions, [{"a": 1}, {"a": 2}])
    await sessions.redis.call("HSET", sessions.all_partitions[0].session(ONE), field, LAST_MOMENT + 1)
    with pytest.raises(Unreadable):
        await sessions.get(ONE)
    assert await listed(sessions) == [TWO]
