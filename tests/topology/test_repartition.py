"""`repartition` on a cluster, where each partition may be on another node."""

import pytest

from service.configs.limits import Limits
from service.redis_client.client import RedisClient
from service.store.sessions import Sessions
from service.store.upkeep import repartition
from service.store.upkeep.partition_check import Check
from tests.support.filling import PROJECT, TIMEOUT, add, keyspace, opened
from tests.support.moves import BLOCK_SIZE, after_move, record
from tests.support.topology_servers import Cluster
from tests.topology.conftest import on_every_cluster


@on_every_cluster
@pytest.mark.parametrize("min_replicas", [0, 1])
async def test_a_repartitioned_store_has_the_expected_keys_on_a_cluster(
    cluster: Cluster, min_replicas: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repartition, "SETTLE", 0.0)
    redis = RedisClient.open(cluster.url, timeout=TIMEOUT, min_replicas=min_replicas)
    try:
        await record(redis, 1, BLOCK_SIZE, (PROJECT.slug,))
        sessions = await opened(redis, PROJECT, Limits(), 1, BLOCK_SIZE)
        for number in range(60):
            await add(sessions, number, {"a": number % 3, "n": number}, "alice")
        stored = await keyspace(redis)
        for target in (16, 3, 64, 1):
            expected = after_move(stored, target)
            await repartition.repartition(redis, target, wait=0)
            stored = await keyspace(redis)
            assert stored == expected
            sessions_after = Sessions(redis, PROJECT, Limits(), target, BLOCK_SIZE)
            checks = [Check(redis, partition) for partition in sessions_after.all_partitions]
            assert [finding for check in checks async for finding in check.findings()] == []
    finally:
        await redis.close()
