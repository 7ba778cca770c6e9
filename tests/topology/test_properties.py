"""What holds on one Redis holds on a cluster and behind Sentinels: random operations match a model, lists match a scan."""

import pytest

from service.redis_client.client import RedisClient
from tests.store import test_listing
from tests.support.filling import TIMEOUT
from tests.support.state_machine import StoreMachine, run_random_operations
from tests.support.topology_servers import Cluster, Sentinels


def test_after_random_operations_on_a_cluster_the_store_matches_the_model(cluster: Cluster) -> None:
    def machine() -> StoreMachine:
        return StoreMachine(lambda: RedisClient.open(cluster.url, timeout=TIMEOUT), 16, 4)

    run_random_operations(machine, examples=5, steps=40)


def test_after_random_operations_behind_sentinels_with_min_replicas_the_store_matches_the_model(
    sentinels: Sentinels,
) -> None:
    def machine() -> StoreMachine:
        return StoreMachine(lambda: RedisClient.open(sentinels.url, timeout=TIMEOUT, min_replicas=2), 1, 4)

    run_random_operations(machine, examples=5, steps=40)


@pytest.mark.parametrize("partitions", [1, 16, 64])
def test_a_listing_of_a_cluster_equals_a_scan_of_all_sessions(cluster: Cluster, partitions: int) -> None:
    test_listing.test_a_listing_equals_a_scan_of_all_sessions(cluster.url, partitions, 4)


def test_changes_between_pages_of_a_cluster_neither_repeat_nor_hide_a_session(cluster: Cluster) -> None:
    test_listing.test_changes_between_pages_neither_repeat_nor_hide_a_session(cluster.url, 16, 4)
