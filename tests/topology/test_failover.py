"""Servers that die, freeze or fail over under load: no acknowledged write is lost, no answer is wrong, clients recover."""

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
from tests.support.server import PATIENCE, until
from tests.support.topology_servers import Cluster, Sentinels
from tests.support.workload import StoreWorkload
from tests.topology.test_slot_migration import findings

#: Seconds: the default of the service, and longer than a failover takes.
TIMEOUT, LONG_TIMEOUT = 1.0, 5.0
#: The errors that clients may get while a server is down.
EXPECTED_ERRORS = {"StoreUnavailable", "WriteUncertain", "NotReplicated"}


@asynccontextmanager
async def workload_on(
    url: str, *, partitions: int, min_replicas: int, seconds: float = TIMEOUT
) -> AsyncIterator[StoreWorkload]:
    """Clients that read and write the store. At the end, all acknowledged writes are in it, and its index is consistent."""
    redis = RedisClient.open(url, timeout=seconds, min_replicas=min_replicas)
    try:
        async with StoreWorkload(await sessions_once_replicated(redis, partitions), clients=24) as workload:
            await workload.wait_until_undisturbed()
            yield workload
        assert set(workload.failures) <= EXPECTED_ERRORS
        await workload.verify()
        assert await findings(workload.sessions) == []
    finally:
        await redis.close()


async def sessions_once_replicated(redis: RedisClient, partitions: int) -> Sessions:
    """The sessions of the project, as soon as enough replicas are connected for the first write."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await opened(redis, PROJECT, Limits(), partitions, 64)
            except NotReplicated:
                await asyncio.sleep(0.1)


@pytest.fixture(params=["killed", "frozen"])
def outage(request: pytest.FixtureRequest) -> str:
    """How a server goes down."""
    return str(request.param)


async def test_a_cluster_that_loses_a_master_loses_no_acknowledged_write(breakable_cluster: Cluster, outage: str) -> None:
    cluster = breakable_cluster
    async with workload_on(cluster.url, partitions=16, min_replicas=1) as workload:
        old = cluster.masters()[0]
        successor = cluster.replica_of(old)
        old.kill() if outage == "killed" else old.freeze()
        await asyncio.to_thread(until, successor.is_master, "a replica that is promoted")
        # Writes to the new master fail, because it has no replica. Those to the other masters succeed.
        await workload.wait_for_operations(2)
        if outage == "frozen":
            old.wake()
            await workload.wait_until_undisturbed()


async def test_a_master_that_sentinels_replace_loses_no_acknowledged_write(breakable_sentinels: Sentinels, outage: str) -> None:
    sentinels = breakable_sentinels
    seconds = LONG_TIMEOUT if outage == "killed" else TIMEOUT
    async with workload_on(sentinels.url, partitions=1, min_replicas=1, seconds=seconds) as workload:
        old = sentinels.master()
        old.kill() if outage == "killed" else old.freeze()
        await asyncio.to_thread(until, lambda: sentinels.master() is not old, "a replica that is promoted")
        await workload.wait_until_undisturbed()
        if outage == "frozen":
            # It considers itself the master until a Sentinel makes it a replica.
            old.wake()
            await workload.wait_for_operations()


async def test_no_client_sees_a_planned_failover_of_a_cluster(cluster: Cluster) -> None:
    async with workload_on(cluster.url, partitions=16, min_replicas=0, seconds=LONG_TIMEOUT) as workload:
        successor = cluster.replica_of(cluster.masters()[0])
        successor.ask("CLUSTER", "FAILOVER")
        await asyncio.to_thread(until, successor.is_master, "a replica that is promoted")
        await workload.wait_for_operations()
    assert workload.failures == []


async def test_a_planned_failover_by_sentinels_loses_no_acknowledged_write(breakable_sentinels: Sentinels) -> None:
    sentinels = breakable_sentinels
    async with workload_on(sentinels.url, partitions=1, min_replicas=2) as workload:
        old = sentinels.master()
        sentinels.sentinels[0].ask("SENTINEL", "FAILOVER", sentinels.NAME)
        await asyncio.to_thread(until, lambda: sentinels.master() is not old, "a replica that is promoted")
        # It takes the Sentinels some seconds to make the old master a replica. Until then too few replicas acknowledge.
        await workload.wait_for_operations(1)


async def test_no_client_sees_that_nodes_are_added_and_removed(cluster: Cluster) -> None:
    async with workload_on(cluster.url, partitions=16, min_replicas=0, seconds=LONG_TIMEOUT) as workload:
        slots = [slot_of((), partition.prefix) for partition in workload.sessions.all_partitions]
        owners = {slot: cluster.owner(slot) for slot in slots}
        new = await asyncio.to_thread(cluster.add)
        for slot in slots[::2]:
            await asyncio.to_thread(cluster.move, slot, new)
        await workload.wait_for_operations()
        await asyncio.to_thread(cluster.agree)
        for slot in slots[::2]:
            await asyncio.to_thread(cluster.move, slot, owners[slot])
        await asyncio.to_thread(cluster.agree)
        await asyncio.to_thread(cluster.remove, new)
        await workload.wait_for_operations()
    assert workload.failures == []


async def test_no_client_sees_a_script_flush(cluster: Cluster) -> None:
    async with workload_on(cluster.url, partitions=16, min_replicas=1, seconds=LONG_TIMEOUT) as workload:
        for _ in range(3):
            for master in cluster.masters():
                master.ask("SCRIPT", "FLUSH")
                await workload.wait_for_operations(5)
    assert workload.failures == []
