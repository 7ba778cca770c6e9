"""Fixtures of the store's tests: small stores in an empty Redis."""

import pytest

from service.configs.limits import Limits
from service.redis_client.client import RedisClient
from service.store.record import Project
from service.store.sessions import Sessions
from service.store.upkeep import repartition
from service.store.upkeep import sweeper as sweeping
from service.store.users import Users
from tests.support.filling import PROJECT, give_record, opened
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
    """A repartition does not wait for its copies to settle, and gives up soon if other clients are connected."""
    monkeypatch.setattr(repartition, "SETTLE", 0.0)
    monkeypatch.setattr(repartition, "CLIENT_CHECKS", 3)


@pytest.fixture
async def original(redis: RedisClient) -> Keyspace:
    """Make a small store in Redis; its content."""
    return await small_store(redis)


@pytest.fixture
async def short_intervals(redis: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store with a manifest, and a sweep with short pauses."""
    await give_record(redis)
    monkeypatch.setattr(sweeping, "INTERVAL", 0.01)
    monkeypatch.setattr(sweeping, "SPREAD", 0.005)
    monkeypatch.setattr(sweeping, "LEASE", 1)
