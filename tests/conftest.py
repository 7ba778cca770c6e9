"""Shared fixtures: a real Redis and a real server, one of each per test process. If they cannot start, tests fail."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis import Redis

from service.process.embedded_redis import EmbeddedRedis
from service.redis_client.client import RedisClient
from tests.support.filling import TIMEOUT, CountingClient
from tests.support.http import Api, Operator
from tests.support.redis_servers import BUNDLED_ONLY
from tests.support.server import Server, Serving, Start

pytest_plugins = ["tests.support.used_servers"]

# A setting of the operator must not change a result.
for _name in [name for name in os.environ if name.startswith("SCC_")]:
    del os.environ[_name]


@pytest.fixture(scope="session", params=BUNDLED_ONLY)
def redis_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Redis for the tests: the bundled one, unless an indirect parameter names another redis-server."""
    redis = EmbeddedRedis(tmp_path_factory.mktemp("redis"), fsync="no", server=request.param)
    redis.launch()
    redis.wait()
    yield redis.url
    redis.stop()


@pytest.fixture
def empty_redis(redis_url: str) -> str:
    """URL of the same Redis, with nothing in it."""
    with Redis.from_url(redis_url) as client:
        client.flushall()
    return redis_url


@pytest.fixture
async def redis(empty_redis: str) -> AsyncIterator[RedisClient]:
    redis = RedisClient.open(empty_redis, timeout=TIMEOUT)
    yield redis
    await redis.close()


@pytest.fixture
async def counting(empty_redis: str) -> AsyncIterator[CountingClient]:
    """A client that records what it sends."""
    redis = CountingClient.open(empty_redis, timeout=TIMEOUT)
    yield redis
    await redis.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start servers on the data directory of this test, and stop those that still run at its end."""
    started: list[Serving] = []

    def serve(*flags: str, **variables: str) -> Serving:
        serving = Serving(tmp_path / "data", "--workers", "2", *flags, **variables)
        started.append(serving)
        return serving.wait_ready()

    yield serve
    for serving in started:
        if serving.process.poll() is None:
            serving.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two workers and the key sk-ac-root-of-the-tests. Tests share it; each creates its users and sessions."""
    serving = Serving(tmp_path_factory.mktemp("server") / "data", "--workers", "2", SCC_ROOT_TOKEN="root-of-the-tests")
    serving.wait_ready()
    yield serving.server("sk-ac-root-of-the-tests")
    assert serving.stop() == 0, serving.errors


@pytest.fixture(scope="session")
def operator(server: Server) -> Iterator[Operator]:
    """Creates projects and inspects the store."""
    operator = Operator(server)
    yield operator
    operator.close()


@pytest.fixture
def api(operator: Operator) -> Iterator[Api]:
    """A new project."""
    api = operator.new_project()
    yield api
    api.close()
