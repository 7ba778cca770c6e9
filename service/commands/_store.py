"""Access to the store of a running server, for commands."""

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
    """The registry of all projects; `writes` is whether the command writes to the store.

    Raises:
        StartupError: there is no store, this release may not use it, or a repartition is unfinished.
    """
    redis = RedisClient.open(settings.redis_url, timeout=settings.command_timeout, min_replicas=settings.min_replicas)
    try:
        await manifest.settled_partitions(redis, writes=writes)
        yield Registry(redis, settings.key_secret)
    finally:
        await redis.close()


async def sessions(redis: RedisClient, project: Project, settings: Settings) -> Sessions:
    """The sessions of `project`, in the store's number of partitions."""
    return Sessions(redis, project, settings, await manifest.settled_partitions(redis, writes=False))
