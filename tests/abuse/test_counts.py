"""Counts of a user's sessions while very many expire together: exact or nearly so, and without sweeping."""

import pytest

from service.configs.limits import Limits
from service.redis_client.client import RedisClient
from service.store import script_calls, users
from service.store.sessions import Sessions
from service.store.users import MAX_EXPIRED, Users
from tests.support.filling import (
    PROJECT,
    CountingClient,
    add,
    keyspace,
    lapse,
    on_every_redis,
    opened,
    session_id,
    sweep_all,
)


async def fill(redis: RedisClient, partitions: int, living: int, expired: int) -> Sessions:
    """Sessions of alice, of bob and without a user in turn; of each kind, `expired` ones wait for the sweep."""
    sessions = await opened(redis, PROJECT, Limits(), partitions, 4)
    for number in range(3 * (living + expired)):
        await add(sessions, number, {"n": number}, ("alice", "bob", None)[number % 3])
        if number >= 3 * living:
            await lapse(sessions, session_id(number))
    return sessions


@on_every_redis
@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_count_excludes_expired_sessions_and_sweeps_nothing(counting: CountingClient, partitions: int) -> None:
    sessions = await fill(counting, partitions, 20, 30)
    before = await keyspace(counting)
    counting.seen.clear()
    for user in ("alice", "bob"):
        assert await Users(sessions).count_sessions(user) == 20
    assert {command[1] for command, _ in counting.seen if command[0] == "EVALSHA"} == {script_calls.count_sessions.script.sha}
    assert script_calls.expire.script.sha not in {command[1] for command, _ in counting.seen}
    assert await keyspace(counting) == before
    await sweep_all(sessions)
    assert await Users(sessions).count_sessions("alice") == 20


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_count_may_include_expired_sessions_beyond_its_limit_until_they_are_swept(
    counting: CountingClient, partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "MAX_EXPIRED", 10)
    sessions = await fill(counting, partitions, 20, 30)
    assert 20 < await Users(sessions).count_sessions("alice") < 50
    await sweep_all(sessions)
    assert await Users(sessions).count_sessions("alice") == 20


async def test_a_count_runs_one_script_per_partition_however_many_sessions_have_expired(counting: CountingClient) -> None:
    sessions = await fill(counting, 2, 5, 100)
    counting.seen.clear()
    assert await Users(sessions).count_sessions("bob") == 5
    assert MAX_EXPIRED >= 200
    names = sorted(str(command[0]) for command, _ in counting.seen)
    assert names in (["EVALSHA", "EVALSHA", "ZSCORE"], ["EVAL", "EVALSHA", "EVALSHA", "EVALSHA", "ZSCORE"])


async def test_corrupt_sessions_do_not_prevent_a_count(counting: CountingClient) -> None:
    sessions = await fill(counting, 1, 3, 3)
    partition = sessions.all_partitions[0]
    await counting.call("ZADD", partition.expiring, 1, session_id(777), 1, "nonsense")
    await counting.call("HSET", partition.session(session_id(9)), "serial", "x")
    await counting.call("HSET", partition.session(session_id(12)), "expires_at", "soon")
    assert 3 <= await Users(sessions).count_sessions("alice") <= 5
