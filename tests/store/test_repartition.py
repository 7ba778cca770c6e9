"""Repartitions: what they leave in the store, between any numbers of partitions and after any interruption."""

from collections.abc import AsyncIterator
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from service.configs.containment import Filter
from service.configs.ttl import Ttl
from service.errors import BadRequest
from service.redis_client import admin
from service.redis_client.client import RedisClient
from service.store.cursors import decode_session_cursor
from service.store.keys import PROJECTS, STORE
from service.store.listing import Query, page
from service.store.project_configs import ProjectConfigs
from service.store.record import Project, Session
from service.store.sessions import Sessions
from service.store.upkeep import repartition
from service.store.upkeep.partition_check import Check
from tests.support.filling import PROJECT, TIMEOUT, add, document_of, keyspace, lapse, on_every_redis, session_id
from tests.support.moves import BLOCK_SIZE, FragileClient, Interrupted, Keyspace, after_move, record, restore
from tests.support.state_machine import LIMITS, StoreMachine, run_random_operations

OTHER = Project("other", "id of other")
USERS = (None, "alice", 'b"ob')


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many round trips for few sessions, and no waiting."""
    monkeypatch.setattr(repartition, "SETTLE", 0.0)
    monkeypatch.setattr(repartition, "SESSIONS_BATCH", 3)
    monkeypatch.setattr(repartition, "CALLS_BATCH", 2)
    monkeypatch.setattr(repartition, "COMMANDS_BATCH", 5)
    monkeypatch.setattr(admin, "SCAN_BATCH", 20)


async def move(redis: RedisClient, partitions: int) -> repartition.Moved | None:
    return await repartition.repartition(redis, partitions, wait=0.0)


def store(redis: RedisClient, partitions: int, project: Project = PROJECT) -> Sessions:
    return Sessions(redis, project, LIMITS, partitions, BLOCK_SIZE)


async def filled(redis: RedisClient, partitions: int, count: int = 20) -> Keyspace:
    """Make a store of two projects with sessions of all kinds, of which several are deleted again; its content."""
    await record(redis, partitions, BLOCK_SIZE, (PROJECT.slug, OTHER.slug, "empty"))
    for project in (PROJECT, OTHER):
        sessions = store(redis, partitions, project)
        for number in range(count):
            configs = None if number % 7 == 3 else {"a": number % 2, "own": number, "c": {"d": [number % 3]}}
            await add(sessions, number, configs, USERS[number % 3])
        for number in range(0, count, 5):
            await sessions.patch(session_id(number), document_of({"a": 5, "own": None}))
        for number in range(2, count, 6):
            await sessions.delete(session_id(number))
        for number in range(3, count, 4):
            await sessions.patch(session_id(number), document_of({}), ttl=Ttl(1000 * number))
        await lapse(sessions, session_id(7))
    await ProjectConfigs(store(redis, partitions)).patch(document_of({"session_ttl": 86400, "other": 1}))
    return await keyspace(redis)


async def everything(sessions: Sessions) -> list[list[Session]]:
    """All listed sessions, in pages of three: oldest first, newest first, by a user, and by a filter."""
    lists = []
    for query in (Query(), Query(descending=True), Query(user="alice"), Query(filter=Filter.parse(b'{"a":1}', LIMITS))):
        listed: list[Session] = []
        after = query.after
        while True:
            part = await page(sessions, Query(query.user, query.filter, query.descending, after), 3)
            listed += [session.parsed()._replace(serial=0) for session in part.sessions]
            if part.cursor is None:
                break
            after = decode_session_cursor(part.cursor, sessions.partitions)
        lists.append(listed)
    return lists


async def findings(sessions: Sessions) -> list[str]:
    checks = [Check(sessions.redis, partition) for partition in sessions.all_partitions]
    return [str(finding) for check in checks async for finding in check.findings()]


@on_every_redis
async def test_a_repartition_between_any_numbers_loses_nothing_and_keeps_the_lists(redis: RedisClient) -> None:
    content = await filled(redis, 1)
    listed = {project: await everything(store(redis, 1, project)) for project in (PROJECT, OTHER)}
    assert [len(each) for each in listed[PROJECT]] == [16, 16, 6, 5]  # one of 17 has expired
    for partitions in (16, 3, 1, 2, 1):
        expected = after_move(content, partitions)
        assert await move(redis, partitions) == repartition.Moved(34, 34)
        content = await keyspace(redis)
        assert content == expected
        for project in (PROJECT, OTHER):
            sessions = store(redis, partitions, project)
            assert await everything(sessions) == listed[project]
            assert await findings(sessions) == []
        assert await move(redis, partitions) is None
        assert await keyspace(redis) == content


class MovingStore(StoreMachine):
    """Random operations, and repartitions between them."""

    @rule(partitions=st.sampled_from((1, 2, 3, 16)))
    def move(self, partitions: int) -> None:
        if partitions != self.sessions.partitions:
            self.do(self._move(partitions))

    async def finish(self) -> None:
        for partitions in (1, 16, 2):
            if partitions != self.sessions.partitions:
                await self._move(partitions)
                await self.verify()
        await super().finish()

    async def _move(self, partitions: int) -> None:
        listed = await everything(self.sessions)
        await record(self.redis, self.sessions.partitions, BLOCK_SIZE, (PROJECT.slug,))
        expected = after_move(await keyspace(self.redis), partitions)
        await move(self.redis, partitions)
        assert await keyspace(self.redis) == expected
        await self.redis.call("DEL", STORE, PROJECTS)
        self.adopt(partitions, BLOCK_SIZE)
        self._take_serials(expected)
        assert await everything(self.sessions) == listed

    def _take_serials(self, moved: Keyspace) -> None:
        """Copy the serials that a repartition has assigned into the model."""
        self.model.sessions = self.sessions
        for name, entry in self.model.entries.items():
            entry.serial = int(moved[self.sessions.partition(name).session(name)][b"serial"])
        states = {partition.number: moved.get(partition.state, {}) for partition in self.sessions.all_partitions}
        self.model.state = {
            number: (int(state[b"serial"]), int(state[b"created_at"])) for number, state in states.items() if b"serial" in state
        }


@on_every_redis
def test_random_operations_after_repartitions_match_the_model(redis_url: str) -> None:
    def machine() -> MovingStore:
        return MovingStore(lambda: RedisClient.open(redis_url, timeout=TIMEOUT), 3, BLOCK_SIZE)

    run_random_operations(machine, examples=4, steps=75)


async def test_sessions_with_the_same_created_at_are_numbered_by_their_ids(redis: RedisClient) -> None:
    await record(redis, 4, BLOCK_SIZE, (PROJECT.slug,))
    sessions = store(redis, 4)
    for number in range(40):
        await add(sessions, number * 7919, {"a": number % 2}, "alice")
    for partition in sessions.all_partitions:
        listed = await redis.call("ZRANGE", partition.sessions, 0, -1)
        # In each partition the sessions are created at 1001, 1002, and so on: a repartition brings equal times together.
        for at, name in enumerate(listed, 1001):
            await redis.call("HSET", partition.session(name.decode()), "created_at", at)
        await redis.call("HSET", partition.state, "created_at", 1000 + len(listed))
    content, listed = await keyspace(redis), await everything(sessions)
    assert sorted(listed[0], key=lambda session: (session.created_at, session.id)) == listed[0] == listed[1][::-1]
    assert len({session.created_at for session in listed[0]}) < 20
    for partitions in (1, 3, 2):
        content = after_move(content, partitions)
        await move(redis, partitions)
        assert await keyspace(redis) == content
        assert await everything(store(redis, partitions)) == listed


async def test_a_session_created_after_a_repartition_is_newer_than_any_before(redis: RedisClient) -> None:
    """No ETag may repeat, even if the clock steps: a deleted session may have been the newest."""
    await filled(redis, 3)
    late = 2**52
    partition = store(redis, 3).all_partitions[1]
    await redis.call("HSET", partition.state, "created_at", late)
    await move(redis, 2)
    sessions = store(redis, 2)
    for number in range(100, 110):
        session = await add(sessions, number, {})
        assert session.created_at > late
        assert session.serial == await redis.call("ZCARD", sessions.partition(session.id).sessions)


async def test_without_states_the_newest_session_sets_the_lower_bound_of_created_at(redis: RedisClient) -> None:
    await filled(redis, 3)
    late, name = 2**52, session_id(1)
    sessions = store(redis, 3)
    await redis.call("DEL", *(partition.state for partition in sessions.all_partitions))
    await redis.call("HSET", sessions.partition(name).session(name), "created_at", late)
    await move(redis, 1)
    session = await add(store(redis, 1), 100, {})
    assert (session.created_at, session.serial) == (late + 1, 18)


async def test_unknown_fields_are_kept(redis: RedisClient) -> None:
    await filled(redis, 1)
    name = session_id(1)
    await redis.call("HSET", store(redis, 1).partition(name).session(name), "later", b"\x00\xff\r\n")
    for partitions in (5, 2):
        expected = after_move(await keyspace(redis), partitions)
        await move(redis, partitions)
        assert await keyspace(redis) == expected
    assert await redis.call("HGET", store(redis, 2).partition(name).session(name), "later") == b"\x00\xff\r\n"


async def test_cursors_from_before_a_repartition_are_refused(redis: RedisClient) -> None:
    await filled(redis, 1)
    cursor = (await page(store(redis, 1), Query(), 3)).cursor
    assert cursor is not None
    await move(redis, 3)
    with pytest.raises(BadRequest, match="invalid cursor"):
        decode_session_cursor(cursor, 3)


@pytest.fixture
async def fragile(empty_redis: str) -> AsyncIterator[FragileClient]:
    redis = FragileClient.open(empty_redis, timeout=TIMEOUT)
    yield redis
    await redis.close()


@pytest.mark.parametrize(("before", "after"), [(1, 3), (4, 3), (3, 1)])
async def test_a_repartition_killed_at_any_round_trip_is_finished_by_the_next_one(
    fragile: FragileClient, before: int, after: int
) -> None:
    content = await filled(fragile, before, 9)
    expected = after_move(content, after)
    random = Random(before)
    kill_point = 0
    while True:
        await restore(fragile, content)
        try:
            await move(fragile.kill_at(kill_point, kill_point), after)
        except Interrupted:
            kill_point += 1
        else:
            break
        # The next one may be killed too.
        try:
            await move(fragile.kill_at(random.randrange(kill_point + 40), kill_point), after)
        except Interrupted:
            assert (await fragile.kill_at(-1, 0).call("HGET", STORE, "moving_to")) in (b"%d" % after, None)
        await move(fragile.kill_at(-1, 0), after)
        assert await keyspace(fragile) == expected, f"killed at round trip {kill_point}"
    assert kill_point > 40
    fragile.kill_at(-1, 0)
    assert await keyspace(fragile) == expected
