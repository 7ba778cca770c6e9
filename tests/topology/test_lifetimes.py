"""Sessions that expire on a cluster: each is judged by the clock of its node, and one sweep reaches all nodes."""

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
    made = [await add(sessions, number, {"a": 1, "n": number}, "alice") for number in range(COUNT)]
    assert all(session.expires_at == session.updated_at + 5_000_000_000 for session in made)
    for partition in sessions.all_partitions:
        assert await default_ttl.is_current(redis, partition)
    over = [session_id(number) for number in range(0, COUNT, 2)]
    for name in over:
        await lapse(sessions, name)
        with pytest.raises(NotFound):
            await sessions.get(name)
    living = [session.id for session in made if session.id not in over]
    assert [session.id for session in (await page(sessions, Query(), COUNT)).sessions] == living
    for name in living:
        assert (await sessions.get(name)).expires_at is not None

    assert not await Sweeper(redis, sessions.partitions, sessions.block_size).round()
    held = await keyspace(redis)
    assert {name.rpartition(":")[2] for name in held if ":session:" in name} == set(living)
    assert {name.decode() for key, ends in held.items() if key.endswith(":expiring") for name in ends} == set(living)
    for partition in sessions.all_partitions:
        assert [str(found) async for found in Check(redis, partition).findings()] == []
    # Counting sweeps as well.
    for name in living[:10]:
        await lapse(sessions, name)
    assert await Users(sessions).count_sessions("alice") == len(living) - 10
