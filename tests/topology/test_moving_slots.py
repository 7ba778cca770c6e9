"""A slot on its way from node to node: what is read is right, a write is done whole or not at all, nothing is missing after."""

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
from tests.support.topology_load import Load
from tests.support.topology_servers import Cluster, Server
from tests.topology.conftest import on_every_cluster

#: Seconds for calls that are to fail.
SHORT = 0.3

ONE, TWO, OVER, NEW, OTHER = map(session_id, (1, 2, 7, 8, 9))

WRITES: dict[str, Callable[[Sessions], Awaitable[object]]] = {
    "create": lambda sessions: sessions.create_session(NEW, document_of({"a": 1, "z": 1})),
    "replace": lambda sessions: sessions.replace(ONE, document_of({"a": 1, "z": 1})),
    "patch that brings a term": lambda sessions: sessions.patch(ONE, document_of({"z": 1})),
    "patch that takes the last of a term": lambda sessions: sessions.patch(ONE, document_of({"own": None})),
    "patch that takes one of many": lambda sessions: sessions.patch(ONE, document_of({"a": None})),
    "patch that changes no term": lambda sessions: sessions.patch(ONE, document_of({"a": 1})),
    "delete": lambda sessions: sessions.delete(ONE),
    "delete of many": lambda sessions: sessions.delete_many([ONE, TWO]),
    "copy": lambda sessions: sessions.copy_session(ONE, OTHER),
    "create in the place of a session that is over": lambda sessions: add(sessions, 7, {"a": 1}),
    "patch that gives a lifetime": lambda sessions: sessions.patch(TWO, document_of({}), ttl=Ttl(50)),
    "expire": lambda sessions: sweeper.expire(sessions.redis, sessions.all_partitions[0], [OVER]),
}


class Move:
    """The move of the slot of a partition to another master, step by step."""

    def __init__(self, cluster: Cluster, sessions: Sessions) -> None:
        cluster.agree()
        self.cluster = cluster
        self.slot = slot_of((), sessions.all_partitions[0].prefix)
        source = cluster.owner(self.slot)
        self.target = next(master for master in cluster.masters() if master is not source)
        self.source: Server = cluster.begin_move(self.slot, self.target)
        self.keys = cluster.keys_of(self.slot, source)

    def move(self, keys: list[str]) -> None:
        if keys:
            self.cluster.move_keys(self.source, self.target, keys)

    def end(self) -> None:
        self.move(self.cluster.keys_of(self.slot, self.source))
        self.cluster.end_move(self.slot, self.target)


async def listed(sessions: Sessions) -> list[str]:
    query = Query(filter=Filter.parse(b'{"a":1}', sessions.limits))
    return [session.id for session in (await page(sessions, query, 20)).sessions]


async def findings(sessions: Sessions) -> list[str]:
    return [
        str(finding) for partition in sessions.all_partitions async for finding in Check(sessions.redis, partition).findings()
    ]


@on_every_cluster
async def test_while_a_slot_moves_its_sessions_are_read_and_every_write_is_refused_whole(cluster: Cluster) -> None:
    redis = RedisClient.open(cluster.url, timeout=SHORT)
    sessions = await opened(redis, PROJECT, Limits(), 1, 4)
    patient = await opened(RedisClient.open(cluster.url, timeout=TIMEOUT), PROJECT, Limits(), 1, 4)
    held = await fill(patient, [{"a": 1, "own": number} for number in range(6)])
    await add(patient, 7, {"a": 1, "own": 6})
    await lapse(patient, OVER)
    before, right = await keyspace(patient.redis), [session.id for session in held]
    for seed in range(4):
        move = Move(cluster, sessions)
        # None of its keys are gone, some, most, and all.
        move.move(Random(seed).sample(move.keys, len(move.keys) * seed // 3))
        refused = await asyncio.gather(*(write(sessions) for write in WRITES.values()), return_exceptions=True)
        assert [isinstance(error, StoreUnavailable) for error in refused] == [True] * len(WRITES), (seed, refused)
        for session in held:
            assert await patient.get(session.id) == session
        try:
            assert await listed(sessions) == right
        except StoreUnavailable:
            assert seed > 0  # a set of the list was gone
        move.end()
        assert await keyspace(patient.redis) == before
        assert await listed(patient) == right
        assert await findings(patient) == []
    await redis.close()
    await patient.redis.close()


@on_every_cluster
async def test_calls_that_meet_a_moving_slot_wait_for_it_and_then_succeed(cluster: Cluster) -> None:
    redis = RedisClient.open(cluster.url, timeout=TIMEOUT)
    sessions = await opened(redis, PROJECT, Limits(), 1, 4)
    await fill(sessions, [{"a": 1, "own": number} for number in range(6)])
    for number, keep in enumerate((0, 5, 1000)):
        move = Move(cluster, sessions)
        move.move(move.keys[keep:])
        waiting = [asyncio.create_task(sessions.patch(session_id(each), document_of({"n": number}))) for each in range(1, 7)]
        listing = asyncio.create_task(listed(sessions))
        # Each has met the slot on its way once at least.
        assert await sessions.get(ONE)
        move.end()
        assert {(await each).revision for each in waiting} == {number + 2}
        assert await listing == [session_id(each) for each in range(1, 7)]
    assert await findings(sessions) == []
    await redis.close()


async def test_slots_move_under_load_and_no_client_sees_it(cluster: Cluster, sessions: Sessions) -> None:
    load = Load(sessions, clients=24)
    async with load:
        masters = cluster.masters()
        for turn in range(3):
            await asyncio.to_thread(cluster.agree)
            for partition in sessions.all_partitions:
                slot = slot_of((), partition.prefix)
                await asyncio.to_thread(cluster.move, slot, masters[(turn + partition.number) % 3], count=8)
        await load.some_more()
    assert load.failures == []
    assert await load.wrong() == []
    assert await findings(sessions) == []
