"""The default TTL of a project's sessions: `session_ttl` in its configs, copied to every partition."""

import asyncio
from typing import Any

import pytest

from service.configs.limits import Limits
from service.configs.ttl import NO_EXPIRY, TTL_MAX, Ttl
from service.errors import BadRequest, StoreUnavailable, WriteUncertain
from service.redis_client.client import RedisClient
from service.store import default_ttl
from service.store.project_configs import ProjectConfigs
from service.store.sessions import Sessions
from service.store.upkeep import partition_check
from service.store.upkeep.partition_check import Check
from tests.support.filling import PROJECT, add, document_of, keyspace, on_every_redis, opened, session_id

SECOND = 1_000_000


async def test_a_session_created_without_a_ttl_gets_the_default(redis: RedisClient) -> None:
    sessions = await opened(redis, PROJECT, Limits(), 3, 4)
    configs = ProjectConfigs(sessions)
    await configs.patch(document_of({"session_ttl": 500, "other": 1}))
    for number in range(9):
        created = await add(sessions, number, {})
        assert created.expires_at == created.created_at + 500 * SECOND
    created, _ = await sessions.create_session(session_id(10), None, ttl=NO_EXPIRY)
    assert created.expires_at is None
    created, _ = await sessions.create_session(session_id(11), None, ttl=Ttl(9))
    assert created.expires_at == created.created_at + 9 * SECOND
    # A change of other configs does not affect it.
    await configs.patch(document_of({"other": None}))
    assert (await add(sessions, 12, {})).expires_at is not None
    assert await configs.patch(document_of({"session_ttl": None})) == b"{}"
    for number in range(20, 29):
        assert (await add(sessions, number, {})).expires_at is None


@pytest.mark.parametrize("value", [0, -1, 1.5, 60.0, True, False, "60", [], {}, TTL_MAX + 1, 2**63])
async def test_an_invalid_ttl_changes_nothing(sessions: Sessions, value: object) -> None:
    configs = ProjectConfigs(sessions)
    await configs.patch(document_of({"session_ttl": 500}))
    before = await keyspace(sessions.redis)
    with pytest.raises(BadRequest, match=r"^session_ttl must be null or a whole number of seconds from 1 to 315360000$"):
        await configs.patch(document_of({"a": 1, "session_ttl": value}))
    assert await keyspace(sessions.redis) == before


@on_every_redis
async def test_of_concurrent_changes_all_partitions_keep_the_one_in_the_record(redis: RedisClient) -> None:
    sessions = await opened(redis, PROJECT, Limits(), 7, 4)
    for _ in range(5):
        changes = [document_of({"session_ttl": ttl}) for ttl in (None, *range(1, 40))]
        await asyncio.gather(*(ProjectConfigs(sessions).patch(change) for change in changes))
        for partition in sessions.all_partitions:
            assert await default_ttl.is_current(redis, partition)


async def test_a_partition_with_a_later_revision_keeps_it(sessions: Sessions) -> None:
    for revision, ttl, kept in ((5, 50, 50), (4, 40, 50), (5, 60, 50), (6, 0, 0), (10, 70, 70), (9, 0, 70)):
        await default_ttl.publish(sessions.redis, sessions.all_partitions, revision, Ttl(ttl))
        stored = await sessions.redis.call("HGET", sessions.all_partitions[0].state, "session_ttl")
        assert int(stored or 0) == kept


async def test_a_change_that_did_not_reach_all_partitions_is_reported_as_uncertain(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> list[Any]:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(default_ttl, "run_many", fail)
        with pytest.raises(WriteUncertain):
            await ProjectConfigs(sessions).patch(document_of({"session_ttl": 50}))
    assert not await default_ttl.is_current(sessions.redis, sessions.all_partitions[0])
    await ProjectConfigs(sessions).patch(document_of({"session_ttl": 50}))
    assert await default_ttl.is_current(sessions.redis, sessions.all_partitions[0])


async def test_a_check_reports_and_repairs_a_partition_without_the_default(
    redis: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_check, "CONFIRM_DELAY", 0)
    sessions = await opened(redis, PROJECT, Limits(), 3, 4)
    await ProjectConfigs(sessions).patch(document_of({"session_ttl": 50}))
    first, second, third = sessions.all_partitions
    await redis.call("HSET", first.state, "session_ttl", 70)
    await redis.call("HDEL", third.state, "session_ttl", "session_ttl_revision")

    async def findings(*, repair: bool) -> list[str]:
        return [
            str(finding)
            for partition in sessions.all_partitions
            async for finding in Check(redis, partition, repair).findings()
        ]

    wrong = [f"partition {number}: its session_ttl is not what the project's configs say" for number in (0, 2)]
    assert await findings(repair=False) == await findings(repair=True) == wrong
    assert await findings(repair=False) == []
    for partition in (first, second, third):
        assert await redis.call("HGET", partition.state, "session_ttl") == b"50"


async def test_a_change_in_progress_is_not_reported(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    async def publish_change(seconds: float) -> None:
        assert seconds == partition_check.CONFIRM_DELAY
        await default_ttl.publish(sessions.redis, sessions.all_partitions, 1, Ttl(50))

    await sessions.redis.call("HSET", "scc:{acme}:project", "configs", '{\n"session_ttl":50\n}', "configs_revision", 1)
    monkeypatch.setattr(asyncio, "sleep", publish_change)
    check = Check(sessions.redis, sessions.all_partitions[0])
    assert [str(finding) async for finding in check.findings()] == []


@pytest.mark.parametrize("configs", ["", "{oops", "[]", "null", '{"session_ttl":"x"}', '{"session_ttl":-1}', "{}"])
async def test_an_invalid_default_from_a_manual_edit_is_ignored(sessions: Sessions, configs: str) -> None:
    await sessions.redis.call("HSET", "scc:{acme}:project", "configs", configs)
    assert default_ttl.default_ttl(configs.encode()) == NO_EXPIRY
    assert await default_ttl.is_current(sessions.redis, sessions.all_partitions[0])
    await default_ttl.republish(sessions.redis, sessions.all_partitions[0])
    assert (await add(sessions, 1, {})).expires_at is None
