"""A cluster and a group of Sentinels for the tests beside, started once; all of these tests run in one process, in turn."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.configs.limits import Limits
from service.redis_client.client import RedisClient
from service.store.sessions import Sessions
from tests.support.filling import PROJECT, TIMEOUT, opened
from tests.support.redis_servers import BUNDLED, BUNDLED_ONLY, NEWEST_AND_OLDEST
from tests.support.topology_servers import QUICK_DEATH, Cluster, Sentinels

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.xdist_group("topology"))


#: What servers of a cluster answer while slots move differs between versions. Failovers are tested on the bundled one alone.
on_every_cluster = pytest.mark.parametrize("whole_cluster", NEWEST_AND_OLDEST, indirect=True)


@pytest.fixture(scope="session", params=BUNDLED_ONLY)
def whole_cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of bundled servers, unless a test asks for it `on_every_cluster`."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), request.param)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def whole_sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    """A master, two replicas and three Sentinels."""
    sentinels = Sentinels(tmp_path_factory.mktemp("sentinels"), BUNDLED.path)
    yield sentinels
    sentinels.stop()


@pytest.fixture
def cluster(whole_cluster: Cluster) -> Cluster:
    """The cluster, whole and empty."""
    whole_cluster.wait_whole()
    for master in whole_cluster.masters():
        master.ask("FLUSHALL")
    return whole_cluster


@pytest.fixture
def sentinels(whole_sentinels: Sentinels) -> Sentinels:
    """The master and its Sentinels, whole and empty."""
    whole_sentinels.wait_whole()
    whole_sentinels.master().ask("FLUSHALL")
    return whole_sentinels


@pytest.fixture
def breakable_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that soon misses a server."""
    cluster = Cluster(tmp_path, BUNDLED.path, QUICK_DEATH)
    yield cluster
    cluster.stop()


@pytest.fixture
def breakable_sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    """Sentinels that soon miss a server."""
    sentinels = Sentinels(tmp_path, BUNDLED.path, QUICK_DEATH)
    yield sentinels
    sentinels.stop()


@pytest.fixture
async def redis(cluster: Cluster) -> AsyncIterator[RedisClient]:
    """A link to the cluster."""
    redis = RedisClient.open(cluster.url, timeout=TIMEOUT)
    yield redis
    await redis.close()


@pytest.fixture
async def sessions(redis: RedisClient) -> Sessions:
    """Sessions in sixteen partitions of small blocks."""
    return await opened(redis, PROJECT, Limits(), 16, 4)
