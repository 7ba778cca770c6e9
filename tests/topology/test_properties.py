"""What holds on one Redis holds on a cluster and behind Sentinels: random operations match a model, lists match a scan."""

import pytest

from service.redis_client.client import RedisClient
from tests.store import test_listing
from tests.support.filling import TIMEOUT
from tests.support.machine import try_out
from tests.support.topology_servers import Cluster, Sentinels


def test_after_random_operations_on_a_cluster_the_store_matches_the_model(cluster: Cluster) -> None:
    try_out(lambda: RedisClient.open(cluster.url, timeout=TIMEOUT), partitions=16, block_size=4, examples=5, steps=40)


def test_after_random_operations_behind_sentinels_with_min_replicas_the_store_matches_the_model(sentinels: Sentinels) -> None:
    try_out(
        lambda: RedisClient.open(sentinels.url, timeout=TIMEOUT, min_replicas=2),
        partitions=1,
        block_size=4,
        examples=5,
        steps=40,
    )


@pytest.mark.parametrize("partitions", [1, 16, 64])
def test_a_listing_of_a_cluster_equals_a_scan_of_all_sessions(cluster: Cluster, partitions: int) -> None:
    test_listing.test_a_listing_equals_a_scan_of_all_sessions(cluster.url, partitions, 4)


def test_changes_between_pages_of_a_cluster_neither_repeat_nor_hide_a_session(cluster: Cluster) -> None:
    test_listing.test_what_changes_between_pages_neither_repeats_nor_hides_a_session(cluster.url, 16, 4)
