"""Export and import: what was exported comes back, between any numbers of partitions and after any interruption."""

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from service.configs.export_format import SessionLine, decode
from service.configs.ttl import Ttl
from service.errors import BadRequest
from service.redis_client.client import RedisClient
from service.store.keys import PROJECTS, STORE, users_key
from service.store.project_configs import ProjectConfigs
from service.store.upkeep import pace, project_import
from service.store.upkeep.project_export import ProjectExport
from service.store.upkeep.project_import import OnConflict, ProjectImport, new_id
from tests.support.exports import (
    count_of,
    edited,
    emptied,
    exported,
    filled,
    findings,
    imported,
    items,
    limited,
    take_small_steps,
)
from tests.support.filling import PROJECT, TIMEOUT, add, document_of, keyspace, lapse, on_every_redis, session_id, sweep_all
from tests.support.moves import BLOCK_SIZE, Keyspace, after_move, record
from tests.support.state_machine import StoreMachine, run_random_operations


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    take_small_steps(monkeypatch)


class ExportingStore(StoreMachine):
    """Random operations, and between them exports that are imported into an empty store."""

    @rule(partitions=st.sampled_from((1, 2, 3, 16)))
    def move(self, partitions: int) -> None:
        self.do(self._move(partitions))

    async def finish(self) -> None:
        for partitions in (3, 1):
            await self._move(partitions)
            await self.verify()
        await super().finish()

    async def _move(self, partitions: int) -> None:
        await sweep_all(self.sessions)
        self.model.sweep()
        await record(self.redis, self.sessions.partitions, BLOCK_SIZE, (PROJECT.slug,))
        expected = after_move(await keyspace(self.redis), partitions)
        lines = await exported(self.sessions)
        self.adopt(partitions, BLOCK_SIZE)
        await emptied(self.redis, partitions)
        counts = await imported(self.sessions, lines)
        assert (counts.created, counts.users) == (len(self.model.entries), len(self.model.users))
        assert await keyspace(self.redis) == expected
        # A second time, nothing happens.
        counts = await imported(self.sessions, lines, "replace")
        assert (counts.created, counts.replaced, counts.present) == (0, 0, len(self.model.entries))
        assert await keyspace(self.redis) == expected
        await self.redis.call("DEL", STORE, PROJECTS)
        self._take_serials(expected)

    def _take_serials(self, moved: Keyspace) -> None:
        """Copy the serials that the import has assigned into the model."""
        self.model.sessions = self.sessions
        for name, entry in self.model.entries.items():
            entry.serial = int(moved[self.sessions.partition(name).session(name)][b"serial"])
        states = {partition.number: moved.get(partition.state, {}) for partition in self.sessions.all_partitions}
        self.model.state = {
            number: (int(state[b"serial"]), int(state[b"created_at"])) for number, state in states.items() if b"serial" in state
        }


@on_every_redis
def test_random_stores_come_back_exactly(redis_url: str) -> None:
    def machine() -> ExportingStore:
        return ExportingStore(lambda: RedisClient.open(redis_url, timeout=TIMEOUT), 3, BLOCK_SIZE)

    run_random_operations(machine, examples=6, steps=50)


@pytest.mark.parametrize("partitions", [1, 4])
async def test_nothing_after_a_broken_line_is_imported(redis: RedisClient, partitions: int) -> None:
    lines = await exported(await filled(redis, partitions))
    positions = [number for number, line in enumerate(lines) if b'"type":"session"' in line]
    for number in positions[::3]:
        sessions = await emptied(redis, partitions)
        broken = [*lines]
        broken[number] = lines[number].replace(b'"configs":{', b'"configs":[{').replace(b"}}\n", b"}]}\n")
        broken[number] = broken[number].replace(b'"configs":null', b'"configs":1')
        with pytest.raises(BadRequest, match=f"^line {number + 1}: configs must be null or a JSON object$"):
            await imported(sessions, broken)
        done = [name for partition in sessions.all_partitions for name in await redis.call("ZRANGE", partition.sessions, 0, -1)]
        expected = [orjson.loads(lines[each])["id"].encode() for each in positions if each < number]
        assert sorted(done) == sorted(expected)
        assert await findings(sessions) == []
        assert (await imported(sessions, lines)).present == len(expected)


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"id": "A" * 32}, "line 1: the id AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA is not a UUID in lower case"),
        ({"user": "\n"}, "line 1: user must not contain control characters"),
        ({"user": "x" * 300}, "line 1: user is longer than 256 bytes"),
        ({"configs": {"a": "x" * 2000}}, "line 1: configs are larger than 1500 bytes"),
        ({"configs": {str(number): 1 for number in range(8)}}, "line 1: configs have more than 7 top-level keys"),
        ({"created_at": 2**52}, "line 1: created_at is more than a day ahead of Redis's clock"),
    ],
)
async def test_a_session_is_checked_as_a_request_is(redis: RedisClient, members: dict[str, Any], sentence: str) -> None:
    lines = await exported(await filled(redis, 1, 2))
    line = next(line for line in lines if b'"type":"session"' in line)
    sessions = await emptied(redis, 1)
    before = await keyspace(redis)
    with pytest.raises(BadRequest, match=f"^{sentence}$"):
        await imported(sessions, [edited(line, **members)])
    assert await keyspace(redis) == before


async def test_an_export_leaves_out_expired_and_damaged_sessions_and_names_the_latter(redis: RedisClient) -> None:
    sessions = await filled(redis, 1)
    await lapse(sessions, session_id(7))
    partition = sessions.all_partitions[0]
    await redis.call("HSET", partition.session(session_id(1)), "configs", '{\n"a":\n}')
    await redis.call("HSET", partition.session(session_id(4)), "revision", "x")
    work = ProjectExport(sessions)
    raw = b"".join([lines async for lines in work.lines()])
    assert work.damaged == [session_id(1), session_id(4)]
    ids = [line.id for line in map(decode, raw.splitlines()) if isinstance(line, SessionLine)]
    assert ids == [session_id(number) for number in range(20) if number % 6 != 2 and number not in (1, 4, 7)]


@pytest.mark.parametrize("on_conflict", ["fail", "skip"])
async def test_a_later_state_of_a_session_stays(redis: RedisClient, on_conflict: OnConflict) -> None:
    sessions = await filled(redis, 1)
    lines = await exported(sessions)
    await sessions.patch(session_id(0), document_of({"later": 1}))
    before = await keyspace(redis)
    counts = await imported(sessions, lines, on_conflict)
    assert (counts.created, counts.skipped, counts.present) == (0, 0, count_of(lines))
    assert await keyspace(redis) == before


async def test_replace_puts_a_session_back_without_repeating_an_etag(redis: RedisClient) -> None:
    sessions = await filled(redis, 2)
    lines = await exported(sessions)
    original = await sessions.get(session_id(0))
    await sessions.patch(session_id(0), document_of({"later": 1}), ttl=Ttl(50))
    changed = await sessions.get(session_id(0))
    counts = await imported(sessions, lines, "replace")
    assert (counts.created, counts.replaced, counts.present) == (0, 1, count_of(lines) - 1)
    actual = await sessions.get(session_id(0))
    assert actual == original._replace(revision=changed.revision + 1)
    assert await findings(sessions) == []


async def test_a_session_that_was_created_again_is_a_conflict(redis: RedisClient) -> None:
    sessions = await filled(redis, 1)
    lines = await exported(sessions)
    newest = session_id(19)
    await sessions.delete(newest)
    await add(sessions, 19, {"again": 1}, "carol")
    again = await sessions.get(newest)
    with pytest.raises(BadRequest, match=f": the project has another session {newest}, or an earlier state of it; pass "):
        await imported(sessions, lines)
    counts = await imported(sessions, lines, "skip")
    assert (counts.skipped, counts.present) == (1, count_of(lines) - 1)
    assert await sessions.get(newest) == again
    # The one of the file was created before that of the project, and after all others.
    with pytest.raises(BadRequest, match=f"session {newest} was created before sessions that the project has; "):
        await imported(sessions, lines, "replace")
    await sessions.delete(newest)
    assert (await imported(sessions, lines)).created == 1
    assert await findings(sessions) == []


async def test_a_session_is_not_put_before_those_of_the_project(redis: RedisClient) -> None:
    sessions = await filled(redis, 1)
    lines = await exported(sessions)
    sessions = await emptied(redis, 1)
    await add(sessions, 100, {"a": 1})
    before = await keyspace(redis)
    with pytest.raises(BadRequest, match="was created before sessions that the project has; stop the server and pass --renum"):
        await imported(sessions, [line for line in lines if b'"type":"session"' in line and b"alice" not in line])
    partition = sessions.all_partitions[0]
    assert await redis.call("ZRANGE", partition.sessions, 0, -1) == [session_id(100).encode()]
    assert await keyspace(redis) == before | {users_key(PROJECT.slug): {b'b"ob': await _created(redis, 'b"ob')}}


async def _created(redis: RedisClient, user: str) -> int:
    return int(float(await redis.call("ZSCORE", users_key(PROJECT.slug), user)))


@pytest.mark.parametrize("partitions", [1, 3])
async def test_new_ids_make_copies_once(redis: RedisClient, partitions: int) -> None:
    sessions = await filled(redis, partitions)
    lines = await exported(sessions)
    originals = [line for line in map(decode, lines) if isinstance(line, SessionLine)]
    counts = await imported(sessions, lines, new_ids=True)
    assert (counts.created, counts.present, counts.users) == (len(originals), 0, 0)
    for line in originals:
        copy = await sessions.get(new_id(PROJECT.id, line.id))
        original = await sessions.get(line.id)
        assert copy._replace(id="", created_at=0, updated_at=0, serial=0, revision=0) == original._replace(
            id="", created_at=0, updated_at=0, serial=0, revision=0
        )
        assert (copy.revision, copy.updated_at) == (1, copy.created_at)
        assert copy.created_at > original.created_at
        await sessions.patch(copy.id, document_of({"changed": 1}))
    before = await keyspace(redis)
    assert (await imported(sessions, lines, new_ids=True)).present == len(originals)
    assert await keyspace(redis) == before
    assert await findings(sessions) == []


async def test_the_projects_configs_are_a_conflict_only_if_they_differ(redis: RedisClient) -> None:
    sessions = await filled(redis, 2)
    lines = (await exported(sessions))[:1]
    configs = ProjectConfigs(sessions)
    await imported(sessions, lines)
    await configs.patch(document_of({"session_ttl": 1}))
    with pytest.raises(BadRequest, match=r"^line 1: the project has other configs; pass --on-conflict skip or replace$"):
        await imported(sessions, lines)
    await imported(sessions, lines, "skip")
    assert orjson.loads(await configs.get())["session_ttl"] == 1
    await imported(sessions, lines, "replace")
    assert orjson.loads(await configs.get())["session_ttl"] == 86400
    assert [await redis.call("HGET", each.state, "session_ttl") for each in sessions.all_partitions] == [b"86400"] * 2


async def test_no_two_users_get_the_same_created_at(redis: RedisClient) -> None:
    sessions = await filled(redis, 1)
    alice = await _created(redis, "alice")
    line = b'{"type":"user","user":"%b","created_at":%d}'
    counts = await imported(sessions, [line % (b"carol", alice), line % (b"alice", 1), line % (b"dave", 1)])
    assert counts.users == 2
    assert await _created(redis, "carol") == await _created(redis, 'b"ob') + 1
    assert await _created(redis, "alice") == alice
    assert await _created(redis, "dave") == 1


async def test_redis_rests_for_half_of_the_time_that_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    now, pauses = 100.0, []

    async def sleep(seconds: float) -> None:
        nonlocal now
        pauses.append(seconds)
        now += seconds

    monkeypatch.setattr(pace, "monotonic", lambda: now)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    work = pace.Pace()
    for used, others in ((0.5, 0.0), (1.0, 0.125), (0.001, 0.0), (0.001, 1.0), (0.0, 0.0)):
        async with work:
            now += used
        now += others
    assert pauses == [0.25, 0.375]


@pytest.mark.parametrize(("kind", "name"), [("project", "not_before"), ("user", "created_at"), ("session", "created_at")])
async def test_a_time_may_be_a_day_ahead(redis: RedisClient, kind: str, name: str) -> None:
    lines = await exported(await filled(redis, 1))
    position = next(number for number, line in enumerate(lines) if orjson.loads(line)["type"] == kind)
    sessions = await emptied(redis, 1)
    seconds, _ = await redis.call("TIME", near=0)
    later = int(seconds) * 1_000_000 + project_import.MAX_AHEAD
    with pytest.raises(BadRequest, match=f"^line 1: {name} is more than a day ahead of Redis's clock$"):
        await imported(sessions, [edited(lines[position], **{name: later + 600_000_000})])
    await imported(sessions, [edited(lines[position], **{name: later - 600_000_000})])


async def test_a_conflict_is_named_and_everything_else_that_was_done_is_counted(redis: RedisClient) -> None:
    lines = await exported(await filled(redis, 4))
    named = [line for line in map(decode, lines) if isinstance(line, SessionLine)]
    for conflicting in named:
        sessions = await emptied(redis, 4)
        number = next(each for each in range(20) if session_id(each) == conflicting.id)
        await add(sessions, number, {"other": 1})
        work = ProjectImport(sessions)
        with pytest.raises(BadRequest):
            await work.run(items(lines))
        counts = [await redis.call("ZCARD", partition.sessions) for partition in sessions.all_partitions]
        assert work.counts.created == sum(counts) - 1
        assert await findings(sessions) == []


async def test_the_first_line_in_conflict_is_named(redis: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project_import, "BATCH", 100)
    monkeypatch.setattr(project_import, "CALL_SESSIONS", 16)
    sessions = await filled(redis, 4)
    lines = [line for line in await exported(sessions) if b'"type":"session"' in line]
    keys = [sessions.partition(line.id).session(line.id) for line in map(decode, lines) if isinstance(line, SessionLine)]
    places = [key.partition("}")[0] for key in keys]
    # In one call the partition of the first line has its conflict at a later line than the other partition.
    other = next(number for number, place in enumerate(places) if place != places[0])
    last = next(number for number, place in reversed(list(enumerate(places))) if place == places[0])
    for number in (other, last):
        await redis.call("HSET", keys[number], "created_at", 1)
    with pytest.raises(BadRequest, match=r"^line 2: the project has another session"):
        await imported(sessions, [lines[0], lines[other], lines[last]])


async def test_an_import_ends_at_the_limit_of_sessions(redis: RedisClient) -> None:
    lines = await exported(await filled(redis, 1))
    sessions = limited(await emptied(redis, 1), max_sessions=4)
    for _ in range(2):  # What the project already has does not count again.
        with pytest.raises(
            BadRequest, match=r"^line \d+: the project has reached max_sessions, 4; delete some sessions first$"
        ):
            await imported(sessions, lines)
        assert await redis.call("ZCARD", sessions.all_partitions[0].sessions) == 4
    first = (await redis.call("ZRANGE", sessions.all_partitions[0].sessions, 0, 0))[0].decode()
    await lapse(sessions, first)
    await imported(sessions, [line for line in lines if b'"type":"session"' in line][4:5])
    assert await findings(sessions) == []
    others = [line for line in lines if first.encode() not in line]
    assert (await imported(limited(sessions, max_sessions=count_of(others)), others)).created == count_of(others) - 4


async def test_an_import_ends_at_the_limit_of_users(redis: RedisClient) -> None:
    lines = await exported(await filled(redis, 1))
    sessions = limited(await emptied(redis, 1), max_users=1)
    work = ProjectImport(sessions)
    with pytest.raises(BadRequest, match=r"^the project has reached max_users, 1; delete some users first$"):
        await work.run(items(lines))
    assert work.counts.users == await redis.call("ZCARD", users_key(PROJECT.slug)) == 1
    assert (await imported(limited(sessions, max_users=2), lines)).users == 1
