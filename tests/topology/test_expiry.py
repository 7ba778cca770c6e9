"""Sessions that expire on a cluster: the clock of its node decides about each session, and one sweep reaches all nodes."""

import pytest

from service.errors import NotFound
from service.store import default_ttl
from service.store.keys import PROJECTS
from service.store.listing import Query, page
from service.store.project_configs import ProjectConfigs
from service.store.sessions import Sessions
from service.store.upkeep.partition_check import Check
from service.store.upkeep.sweeper import Sweeper
from service.store.users import Users
from tests.support.filling import add, document_of, keyspace, lapse, session_id

COUNT = 60


async def test_sessions_expire_and_are_swept_on_all_nodes(sessions: Sessions) -> None:
    redis = sessions.redis
    await redis.call("HSET", PROJECTS, sessions.project.slug, sessions.project.id)
    await ProjectConfigs(sessions).patch(document_of({"session_ttl": 5000}))
    created = [await add(sessions, number, {"a": 1, "n": number}, "alice") for number in range(COUNT)]
    assert all(session.expires_at == session.updated_at + 5_000_000_000 for session in created)
    for partition in sessions.all_partitions:
        assert await default_ttl.is_current(redis, partition)
    expired = [session_id(number) for number in range(0, COUNT, 2)]
    for name in expired:
        await lapse(sessions, name)
        with pytest.raises(NotFound):
            await sessions.get(name)
    alive = [session.id for session in created if session.id not in expired]
    assert [session.id for session in (await page(sessions, Query(), COUNT)).sessions] == alive
    for name in alive:
        assert (await sessions.get(name)).expires_at is not None

    assert not await Sweeper(redis, sessions.partitions, sessions.block_size).round()
    stored = await keyspace(redis)
    assert {name.rpartition(":")[2] for name in stored if ":session:" in name} == set(alive)
    assert {name.decode() for key, members in stored.items() if key.endswith(":expiring") for name in members} == set(alive)
    for partition in sessions.all_partitions:
        assert [str(finding) async for finding in Check(redis, partition).findings()] == []
    # Counting sweeps too.
    for name in alive[:10]:
        await lapse(sessions, name)
    assert await Users(sessions).count_sessions("alice") == len(alive) - 10
