"""A command's way to the store of a running server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.redis_client.client import RedisClient
from service.settings import Settings
from service.store import manifest
from service.store.projects import Registry
from service.store.record import Project
from service.store.sessions import Sessions


@asynccontextmanager
async def registry(settings: Settings, *, writes: bool = True) -> AsyncIterator[Registry]:
    """All projects of the store, for a command that `writes` to it or only reads it.

    Raises:
        StartupError: there is none, this release may not use it, or it is being moved to another number of partitions.
    """
    redis = RedisClient.open(settings.redis_url, timeout=settings.command_timeout, min_replicas=settings.min_replicas)
    try:
        await manifest.settled_partitions(redis, writes=writes)
        yield Registry(redis, settings.key_secret)
    finally:
        await redis.close()


async def sessions(redis: RedisClient, project: Project, settings: Settings) -> Sessions:
    """The sessions of `project`, as the store was laid out."""
    return Sessions(redis, project, settings, await manifest.settled_partitions(redis, writes=False))
