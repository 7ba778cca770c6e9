"""A migrating slot: reads are right, a write is executed as a whole or not at all, and afterwards no key is missing."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from service.configs.containment import Filter
from service.configs.limits import Limits
from service.configs.ttl import Ttl
from service.errors import StoreUnavailable
from service.redis_client.client import RedisClient
from service.redis_client.cluster import slot_of
from service.store.listing import Query, page
from service.store.sessions import Sessions
from service.store.upkeep import sweeper
from service.store.upkeep.partition_check import Check
from tests.support.filling import PROJECT, TIMEOUT, add, document_of, fill, keyspace, lapse, opened, session_id
from tests.support.topology_servers import Cluster, Server
from tests.support.workload import StoreWorkload
from tests.topology.conftest import on_every_cluster

#: Seconds: the timeout of calls that must fail.
SHORT = 0.3

ONE, TWO, EXPIRED, NEW, OTHER = map(session_id, (1, 2, 7, 8, 9))

WRITES: dict[str, Callable[[Sessions], Awaitable[object]]] = {
    "create": lambda sessions: sessions.create_session(NEW, document_of({"a": 1, "z": 1})),
    "replace": lambda sessions: sessions.replace(ONE, document_of({"a": 1, "z": 1})),
    "patch that adds a term": lambda sessions: sessions.patch(ONE, document_of({"z": 1})),
    "patch that removes the last session of a term": lambda sessions: sessions.patch(ONE, document_of({"unique": None})),
    "patch that removes one of many sessions of a term": lambda sessions: sessions.patch(ONE, document_of({"a": None})),
    "patch that changes no term": lambda sessions: sessions.patch(ONE, document_of({"a": 1})),
    "delete": lambda sessions: sessions.delete(ONE),
    "delete of many": lambda sessions: sessions.delete_many([ONE, TWO]),
    "copy": lambda sessions: sessions.copy_session(ONE, OTHER),
    "create in place of an expired session": lambda sessions: add(sessions, 7, {"a": 1}),
    "patch that sets a TTL": lambda sessions: sessions.patch(TWO, document_of({}), ttl=Ttl(50)),
    "expire": lambda sessions: sweeper.expire(sessions.redis, sessions.all_partitions[0], [EXPIRED]),
}


class Migration:
    """The migration of the slot of a partition to another master, step by step."""

    def __init__(self, cluster: Cluster, sessions: Sessions) -> None:
        cluster.agree()
        self.cluster = cluster
        self.slot = slot_of((), sessions.all_partitions[0].prefix)
        source = cluster.owner(self.slot)
        self.target = next(master for master in cluster.masters() if master is not source)
        self.source: Server = cluster.begin_move(self.slot, self.target)
        self.keys = cluster.keys_of(self.slot, source)

    def move_keys(self, keys: list[str]) -> None:
        if keys:
            self.cluster.move_keys(self.source, self.target, keys)

    def finish(self) -> None:
        self.move_keys(self.cluster.keys_of(self.slot, self.source))
        self.cluster.end_move(self.slot, self.target)


async def list_ids(sessions: Sessions) -> list[str]:
    query = Query(filter=Filter.parse(b'{"a":1}', sessions.limits))
    return [session.id for session in (await page(sessions, query, 20)).sessions]


async def findings(sessions: Sessions) -> list[str]:
    return [
        str(finding) for partition in sessions.all_partitions async for finding in Check(sessions.redis, partition).findings()
    ]


@on_every_cluster
async def test_while_a_slot_migrates_its_sessions_are_read_and_every_write_is_refused_as_a_whole(cluster: Cluster) -> None:
    redis = RedisClient.open(cluster.url, timeout=SHORT)
    sessions = await opened(redis, PROJECT, Limits(), 1, 4)
    patient = await opened(RedisClient.open(cluster.url, timeout=TIMEOUT), PROJECT, Limits(), 1, 4)
    created = await fill(patient, [{"a": 1, "unique": number} for number in range(6)])
    await add(patient, 7, {"a": 1, "unique": 6})
    await lapse(patient, EXPIRED)
    before, expected = await keyspace(patient.redis), [session.id for session in created]
    for seed in range(4):
        migration = Migration(cluster, sessions)
        # First none of the keys has moved, then a third, then two thirds, then all.
        migration.move_keys(Random(seed).sample(migration.keys, len(migration.keys) * seed // 3))
        results = await asyncio.gather(*(write(sessions) for write in WRITES.values()), return_exceptions=True)
        assert [isinstance(result, StoreUnavailable) for result in results] == [True] * len(WRITES), (seed, results)
        for session in created:
            assert await patient.get(session.id) == session
        try:
            assert await list_ids(sessions) == expected
        except StoreUnavailable:
            assert seed > 0  # an index set of the list has moved
        migration.finish()
        assert await keyspace(patient.redis) == before
        assert await list_ids(patient) == expected
        assert await findings(patient) == []
    await redis.close()
    await patient.redis.close()


@on_every_cluster
async def test_calls_on_a_migrating_slot_wait_for_the_migration_and_then_succeed(cluster: Cluster) -> None:
    redis = RedisClient.open(cluster.url, timeout=TIMEOUT)
    sessions = await opened(redis, PROJECT, Limits(), 1, 4)
    await fill(sessions, [{"a": 1, "unique": number} for number in range(6)])
    for number, keep in enumerate((0, 5, 1000)):
        migration = Migration(cluster, sessions)
        migration.move_keys(migration.keys[keep:])
        waiting = [asyncio.create_task(sessions.patch(session_id(each), document_of({"n": number}))) for each in range(1, 7)]
        listing = asyncio.create_task(list_ids(sessions))
        # By now each call has been refused at least once.
        assert await sessions.get(ONE)
        migration.finish()
        assert {(await each).revision for each in waiting} == {number + 2}
        assert await listing == [session_id(each) for each in range(1, 7)]
    assert await findings(sessions) == []
    await redis.close()


async def test_no_client_sees_that_slots_migrate_under_load(cluster: Cluster, sessions: Sessions) -> None:
    workload = StoreWorkload(sessions, clients=24)
    async with workload:
        masters = cluster.masters()
        for turn in range(3):
            await asyncio.to_thread(cluster.agree)
            for partition in sessions.all_partitions:
                slot = slot_of((), partition.prefix)
                await asyncio.to_thread(cluster.move, slot, masters[(turn + partition.number) % 3], count=8)
        await workload.wait_for_operations()
    assert workload.failures == []
    await workload.verify()
    assert await findings(sessions) == []
