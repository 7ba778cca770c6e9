"""An import among the sessions of a project: they are numbered in the order of creation, whatever interrupts it."""

import re
from collections.abc import AsyncIterator, Sequence
from random import Random

import pytest

from service.configs.ttl import Ttl
from service.errors import BadRequest, ServerUnreachable, StartupError
from service.redis_client.client import RedisClient
from service.store import manifest
from service.store.listing import Query, iter_matches
from service.store.record import Session
from service.store.sessions import Sessions
from service.store.upkeep import project_export, project_import, repartition
from service.store.upkeep.project_import import Counts, Item, OnConflict
from service.store.upkeep.renumbering_import import RenumberingImport
from tests.support.exports import count_of, exported, filled, findings, items, store
from tests.support.filling import TIMEOUT, add, document_of, keyspace, lapse, on_every_redis, session_id
from tests.support.moves import FragileClient, Interrupted, Keyspace, restore

LATER = range(100, 110)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many round trips for few sessions, and no waiting."""
    monkeypatch.setattr(repartition, "SETTLE", 0.0)
    monkeypatch.setattr(repartition, "CLIENT_CHECKS", 3)
    monkeypatch.setattr(repartition, "SESSIONS_BATCH", 5)
    monkeypatch.setattr(project_export, "SESSIONS_BATCH", 3)
    monkeypatch.setattr(project_import, "BATCH", 5)


async def renumbered(sessions: Sessions, lines: Sequence[bytes], on_conflict: OnConflict = "fail") -> Counts:
    return await RenumberingImport(sessions, on_conflict).renumber(items(lines), wait=0.0)


async def listed(sessions: Sessions) -> list[Session]:
    """All sessions in the order of creation, without their serials."""
    everything = [session.parsed() async for batch in iter_matches(sessions, Query()) for session in batch]
    return sorted((session._replace(serial=0) for session in everything), key=lambda each: (each.created_at, each.id))


async def thinned(redis: RedisClient, partitions: int) -> tuple[Sessions, list[bytes], list[Session]]:
    """A store that has lost half of its sessions and got others since it was exported; the export; what should be there."""
    sessions = await filled(redis, partitions)
    lines, before = await exported(sessions), await listed(sessions)
    await sessions.delete_many([session_id(number) for number in range(0, 20, 2)])
    for number in LATER:
        await add(sessions, number, {"late": number}, "late")
    await sessions.patch(session_id(1), document_of({"later": 1}), ttl=Ttl(5000))
    changed = await sessions.get(session_id(1))
    expected = [changed._replace(serial=0) if each.id == changed.id else each for each in before]
    return sessions, lines, expected + [each for each in await listed(sessions) if each.id >= session_id(100)]


@on_every_redis
@pytest.mark.parametrize("partitions", [1, 4])
async def test_sessions_return_to_their_places(redis: RedisClient, partitions: int) -> None:
    sessions, lines, expected = await thinned(redis, partitions)
    counts = await renumbered(sessions, lines)
    assert counts.created + counts.present == count_of(lines)
    assert counts.created == 7
    assert await listed(sessions) == expected
    assert await findings(sessions) == []
    assert (await manifest.read(redis)).move is None
    before = await keyspace(redis)
    assert (await renumbered(sessions, lines)).present == count_of(lines)
    assert await keyspace(redis) == before
    await add(sessions, 200, {"new": 1})
    assert (await listed(sessions))[-1].id == session_id(200)


async def test_conflicts_are_decided_as_while_a_server_runs(redis: RedisClient) -> None:
    sessions, lines, expected = await thinned(redis, 2)
    await add(sessions, 4, {"again": 1})
    again = await sessions.get(session_id(4))
    with pytest.raises(BadRequest, match=f"the project has another session {again.id}, or an earlier state of it"):
        await renumbered(sessions, lines)
    assert await findings(sessions) == []
    assert (await renumbered(sessions, lines, "skip")).skipped == 1
    assert await sessions.get(again.id) == again._replace(serial=(await sessions.get(again.id)).serial)
    counts = await renumbered(sessions, lines, "replace")
    assert (counts.created, counts.replaced) == (0, 2)
    changed = next(each for each in expected if each.id == session_id(1))
    original = (await sessions.get(session_id(1)))._replace(serial=0)
    assert original.revision == changed.revision + 1
    assert b"later" not in original.configs
    assert await listed(sessions) == [original if each.id == original.id else each for each in expected]
    assert await findings(sessions) == []


async def test_everything_before_a_broken_line_is_imported_and_numbered(redis: RedisClient) -> None:
    sessions, lines, expected = await thinned(redis, 2)
    position = next(number for number, line in enumerate(lines) if session_id(10).encode() in line)
    broken = [*lines[:position], lines[position].replace(b'"configs":{', b'"configs":[{').replace(b"}}\n", b"}]}\n")]
    with pytest.raises(BadRequest, match=f"^line {position + 1}: configs must be"):
        await renumbered(sessions, broken)
    missing = {session_id(number) for number in range(10, 20, 2)}
    assert await listed(sessions) == [each for each in expected if each.id not in missing]
    assert await findings(sessions) == []
    await renumbered(sessions, lines)
    assert await listed(sessions) == expected


async def breaking(lines: Sequence[bytes], error: Exception) -> AsyncIterator[Item]:
    async for item in items(lines):
        yield item
    raise error


@pytest.mark.parametrize(
    "error",
    [
        ServerUnreachable("no answer"),
        StartupError("cannot read"),
        OSError("cannot read"),
        TypeError("can't subtract"),
        RuntimeError("a mistake"),
        MemoryError("no memory"),
    ],
)
async def test_what_was_read_before_the_source_broke_is_numbered_and_the_store_opened(
    redis: RedisClient, error: Exception
) -> None:
    sessions, lines, expected = await thinned(redis, 2)
    position = next(number for number, line in enumerate(lines) if session_id(10).encode() in line)
    work = RenumberingImport(sessions)
    with pytest.raises(type(error), match=str(error)):
        await work.renumber(breaking(lines[:position], error), wait=0.0)
    assert (await manifest.read(redis)).move is None
    missing = {session_id(number) for number in range(10, 20, 2)}
    assert await listed(sessions) == [each for each in expected if each.id not in missing]
    assert await findings(sessions) == []
    await add(sessions, 200, {"new": 1})


async def test_a_source_without_a_beginning_changes_nothing(redis: RedisClient) -> None:
    sessions, _, _ = await thinned(redis, 2)
    before = await keyspace(redis)
    with pytest.raises(ServerUnreachable):
        await RenumberingImport(sessions).renumber(breaking([], ServerUnreachable("no answer")), wait=0.0)
    assert await keyspace(redis) == before


@pytest.mark.parametrize("on_conflict", ["fail", "replace"])
async def test_an_expired_session_is_no_conflict(redis: RedisClient, on_conflict: OnConflict) -> None:
    sessions = await filled(redis, 2)
    await sessions.delete(session_id(0))
    await add(sessions, 0, {"a": 1})
    lines, expected = await exported(sessions), await listed(sessions)
    await sessions.patch(session_id(0), document_of({"later": 1}))
    await lapse(sessions, session_id(0))
    await sessions.redis.call("HSET", sessions.partition(session_id(0)).session(session_id(0)), "created_at", 5)
    counts = await renumbered(sessions, lines, on_conflict)
    assert (counts.created, counts.replaced, counts.present) == (1, 0, count_of(lines) - 1)
    assert await listed(sessions) == expected
    assert await findings(sessions) == []


@pytest.mark.parametrize("on_conflict", ["fail", "skip", "replace"])
async def test_sessions_that_have_expired_since_the_export_are_left_out(redis: RedisClient, on_conflict: OnConflict) -> None:
    sessions, lines, _ = await thinned(redis, 2)
    lines = [re.sub(rb'"expires_at":(null|\d+)', b'"expires_at":5', line) for line in lines]
    before = await listed(sessions)
    counts = await renumbered(sessions, lines, on_conflict)
    assert (counts.expired, counts.created, counts.replaced, counts.present) == (count_of(lines), 0, 0, 0)
    assert await listed(sessions) == before
    assert await findings(sessions) == []


async def test_an_id_that_the_file_has_twice_is_created_once(redis: RedisClient) -> None:
    sessions, lines, expected = await thinned(redis, 2)
    position = next(number for number, line in enumerate(lines) if session_id(10).encode() in line)
    counts = await renumbered(sessions, [*lines[: position + 1], *lines[position:]])
    assert (counts.created, counts.present) == (7, count_of(lines) + 1 - 7)
    assert await listed(sessions) == expected


async def test_nothing_is_imported_while_a_server_is_connected(redis: RedisClient, empty_redis: str) -> None:
    sessions, lines, _ = await thinned(redis, 2)
    before = await keyspace(redis)
    other = RedisClient.open(empty_redis, timeout=TIMEOUT)
    try:
        await other.call("PING", near=0)
        with pytest.raises(StartupError, match="a server or command of this service is connected"):
            await renumbered(sessions, lines)
    finally:
        await other.close()
    assert await keyspace(redis) == before


@pytest.fixture
async def fragile(empty_redis: str) -> AsyncIterator[FragileClient]:
    redis = FragileClient.open(empty_redis, timeout=TIMEOUT)
    yield redis
    await redis.close()


async def test_an_import_killed_at_any_round_trip_is_finished_by_the_next_one(fragile: FragileClient) -> None:
    sessions, lines, expected = await thinned(fragile, 2)
    content: Keyspace = await keyspace(fragile)
    random, kill_point, kills = Random(0), 0, 0
    while True:
        await restore(fragile.kill_at(-1, 0), content)
        fragile.kill_at(kill_point, kill_point)
        try:
            await renumbered(store(fragile, 2), lines)
        except Interrupted:
            kills += 1
        else:
            break
        kill_point += random.randrange(1, 4)
        fragile.kill_at(-1, 0)
        await renumbered(sessions, lines)
        assert await listed(sessions) == expected, f"killed at round trip {kill_point}"
        assert await findings(sessions) == []
    assert kills > 15


async def test_no_session_is_missing_when_its_replacement_is_interrupted(fragile: FragileClient) -> None:
    sessions = await filled(fragile, 2)
    lines = await exported(sessions)
    names = [each.id for each in await listed(sessions)]
    for name in names:
        await sessions.patch(name, document_of({"later": 1}))
    content: Keyspace = await keyspace(fragile)
    for kill_point in range(1000):
        await restore(fragile.kill_at(-1, 0), content)
        fragile.kill_at(kill_point, kill_point)
        try:
            await renumbered(store(fragile, 2), lines, "replace")
        except Interrupted:
            fragile.kill_at(-1, 0)
            hashes = [await fragile.call("EXISTS", sessions.partition(name).session(name)) for name in names]
            assert hashes == [1] * len(names), f"killed at round trip {kill_point}"
        else:
            break
    assert kill_point > 15
