"""Fixtures of the store's tests: a client of an empty Redis, and small ways to fill a store."""

import pytest

from service.configs.limits import Limits
from service.redis_client.client import RedisClient
from service.store.record import Project
from service.store.sessions import Sessions
from service.store.upkeep import repartition
from service.store.users import Users
from tests.support.filling import PROJECT, opened
from tests.support.moves import Keyspace, small_store


@pytest.fixture
def project() -> Project:
    return PROJECT


@pytest.fixture
async def sessions(redis: RedisClient) -> Sessions:
    """Sessions in one partition of small blocks, so that few of them fill several."""
    return await opened(redis, PROJECT, Limits(), 1, 4)


@pytest.fixture
def users(sessions: Sessions) -> Users:
    return Users(sessions)


@pytest.fixture
def impatient_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """A move to another number of partitions waits for nobody, and gives up soon."""
    monkeypatch.setattr(repartition, "SETTLE", 0.0)
    monkeypatch.setattr(repartition, "CLIENT_CHECKS", 3)


@pytest.fixture
async def held(redis: RedisClient) -> Keyspace:
    """What a small store holds, which stands in Redis."""
    return await small_store(redis)
