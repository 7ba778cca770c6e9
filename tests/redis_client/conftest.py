"""Fixtures of the Redis client's tests: a project's sessions, for what a store asks of the client."""

import pytest

from service.configs.limits import Limits
from service.redis_client.client import RedisClient
from service.store.sessions import Sessions
from tests.support.filling import PROJECT, opened


@pytest.fixture
async def sessions(redis: RedisClient) -> Sessions:
    """Sessions in one partition of small blocks."""
    return await opened(redis, PROJECT, Limits(), 1, 4)
