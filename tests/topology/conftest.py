"""A cluster and a group of Sentinels that the tests of this directory share; all of them run in one process, one by one."""

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


#: What cluster nodes reply while slots migrate differs between versions. Failovers are only tested on the bundled server.
on_every_cluster = pytest.mark.parametrize("shared_cluster", NEWEST_AND_OLDEST, indirect=True)


@pytest.fixture(scope="session", params=BUNDLED_ONLY)
def shared_cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of bundled servers, or of every version in tests that are marked `on_every_cluster`."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), request.param)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def shared_sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    """A master, two replicas and three Sentinels."""
    sentinels = Sentinels(tmp_path_factory.mktemp("sentinels"), BUNDLED.path)
    yield sentinels
    sentinels.stop()


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """The shared cluster, with all nodes up and no keys."""
    shared_cluster.wait_whole()
    for master in shared_cluster.masters():
        master.ask("FLUSHALL")
    return shared_cluster


@pytest.fixture
def sentinels(shared_sentinels: Sentinels) -> Sentinels:
    """The shared master and its Sentinels, with all servers up and no keys."""
    shared_sentinels.wait_whole()
    shared_sentinels.master().ask("FLUSHALL")
    return shared_sentinels


@pytest.fixture
def breakable_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of this test alone that detects a dead server quickly."""
    cluster = Cluster(tmp_path, BUNDLED.path, QUICK_DEATH)
    yield cluster
    cluster.stop()


@pytest.fixture
def breakable_sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    """Sentinels of this test alone that detect a dead server quickly."""
    sentinels = Sentinels(tmp_path, BUNDLED.path, QUICK_DEATH)
    yield sentinels
    sentinels.stop()


@pytest.fixture
async def redis(cluster: Cluster) -> AsyncIterator[RedisClient]:
    """A client of the cluster."""
    redis = RedisClient.open(cluster.url, timeout=TIMEOUT)
    yield redis
    await redis.close()


@pytest.fixture
async def sessions(redis: RedisClient) -> Sessions:
    """Sessions in sixteen partitions of small blocks."""
    return await opened(redis, PROJECT, Limits(), 16, 4)
