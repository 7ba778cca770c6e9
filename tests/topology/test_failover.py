"""Servers that die, freeze or hand over under load: what was acknowledged is there, nobody gets a wrong answer, all go on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.configs.limits import Limits
from service.errors import NotReplicated
from service.redis_client.client import RedisClient
from service.redis_client.cluster import slot_of
from service.store.sessions import Sessions
from tests.support.filling import PROJECT, opened
from tests.support.server import until
from tests.support.topology_load import Load
from tests.support.topology_servers import Cluster, Sentinels
from tests.topology.test_moving_slots import findings

#: As the service has it unless told otherwise; and longer than it takes to replace a master.
TIMEOUT, LONG = 1.0, 5.0
#: What a client may meet while a server is away.
MAY_FAIL = {"StoreUnavailable", "WriteUncertain", "NotReplicated"}


@asynccontextmanager
async def load_on(url: str, *, partitions: int, min_replicas: int, seconds: float = TIMEOUT) -> AsyncIterator[Load]:
    """Clients at work on a store; after them, all that was acknowledged is there, and the index is right."""
    redis = RedisClient.open(url, timeout=seconds, min_replicas=min_replicas)
    try:
        async with Load(await replicated(redis, partitions), clients=24) as load:
            await load.undisturbed()
            yield load
        assert set(load.failures) <= MAY_FAIL
        assert await load.wrong() == []
        assert await findings(load.sessions) == []
    finally:
        await redis.close()


async def replicated(redis: RedisClient, partitions: int) -> Sessions:
    """The sessions of the project, once as many replicas as are needed are connected."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            try:
                return await opened(redis, PROJECT, Limits(), partitions, 64)
            except NotReplicated:
                await asyncio.sleep(0.1)


@pytest.fixture(params=["killed", "frozen"])
def away(request: pytest.FixtureRequest) -> str:
    """How a server goes away."""
    return str(request.param)


async def test_a_cluster_that_loses_a_master_loses_no_write_that_a_replica_has(breakable_cluster: Cluster, away: str) -> None:
    cluster = breakable_cluster
    async with load_on(cluster.url, partitions=16, min_replicas=1) as load:
        lost = cluster.masters()[0]
        heir = cluster.replica_of(lost)
        lost.kill() if away == "killed" else lost.freeze()
        await asyncio.to_thread(until, heir.is_master, "a replica that takes over")
        # Its writes are refused now: it has no replica itself. What others have goes on.
        await load.some_more(2)
        if away == "frozen":
            lost.wake()
            await load.undisturbed()


async def test_sentinels_that_lose_their_master_lose_no_write_that_a_replica_has(
    breakable_sentinels: Sentinels, away: str
) -> None:
    sentinels = breakable_sentinels
    seconds = LONG if away == "killed" else TIMEOUT
    async with load_on(sentinels.url, partitions=1, min_replicas=1, seconds=seconds) as load:
        lost = sentinels.master()
        lost.kill() if away == "killed" else lost.freeze()
        await asyncio.to_thread(until, lambda: sentinels.master() is not lost, "a replica that takes over")
        await load.undisturbed()
        if away == "frozen":
            # It takes itself for the master until the Sentinels tell it.
            lost.wake()
            await load.some_more()


async def test_a_planned_failover_of_a_cluster_is_not_noticed(cluster: Cluster) -> None:
    async with load_on(cluster.url, partitions=16, min_replicas=0) as load:
        heir = cluster.replica_of(cluster.masters()[0])
        heir.ask("CLUSTER", "FAILOVER")
        await asyncio.to_thread(until, heir.is_master, "a replica that takes over")
        await load.some_more()
    assert load.failures == []


async def test_a_planned_failover_by_sentinels_loses_no_write_that_all_replicas_have(breakable_sentinels: Sentinels) -> None:
    sentinels = breakable_sentinels
    async with load_on(sentinels.url, partitions=1, min_replicas=2) as load:
        old = sentinels.master()
        sentinels.sentinels[0].ask("SENTINEL", "FAILOVER", sentinels.NAME)
        await asyncio.to_thread(until, lambda: sentinels.master() is not old, "a replica that takes over")
        # The Sentinels give the old one some seconds until they make it a replica; so long the promise cannot be kept.
        await load.some_more(1)


async def test_nodes_come_and_go_and_are_not_noticed(cluster: Cluster) -> None:
    async with load_on(cluster.url, partitions=16, min_replicas=0) as load:
        slots = [slot_of((), partition.prefix) for partition in load.sessions.all_partitions]
        owners = {slot: cluster.owner(slot) for slot in slots}
        new = await asyncio.to_thread(cluster.add)
        for slot in slots[::2]:
            await asyncio.to_thread(cluster.move, slot, new)
        await load.some_more()
        await asyncio.to_thread(cluster.agree)
        for slot in slots[::2]:
            await asyncio.to_thread(cluster.move, slot, owners[slot])
        await asyncio.to_thread(cluster.agree)
        await asyncio.to_thread(cluster.remove, new)
        await load.some_more()
    assert load.failures == []


async def test_scripts_that_a_node_has_forgotten_are_not_missed(cluster: Cluster) -> None:
    async with load_on(cluster.url, partitions=16, min_replicas=1) as load:
        for _ in range(3):
            for master in cluster.masters():
                master.ask("SCRIPT", "FLUSH")
                await load.some_more(5)
    assert load.failures == []
