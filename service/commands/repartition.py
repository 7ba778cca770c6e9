"""`repartition`: move a store to another number of partitions, while no server is running on it."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import click
from tqdm import tqdm

from service.commands._parameters import takes_settings
from service.commands.check import check_projects
from service.errors import StartupError, StoreUnavailable
from service.process import data_dir
from service.process.embedded_redis import EmbeddedRedis
from service.redis_client.client import RedisClient
from service.settings import CONNECTION, Settings, flag
from service.store.api_keys import KEY_TTL
from service.store.projects import Registry
from service.store.upkeep.repartition import repartition

#: Seconds; the command timeout is at least this, as no client waits.
MIN_COMMAND_TIMEOUT = 10.0


@click.command()
@click.argument("target", type=int, metavar="PARTITIONS", help="the new number of partitions of each project")
@takes_settings(CONNECTION)
def command(settings: Settings, target: int) -> int:
    """Move every project's sessions, or resume an interrupted move; then check all projects.

    The exit status is 1 if the check finds a difference, or if the number of sessions has changed.

    Raises:
        StartupError: a server is running on the store, or the move cannot start or finish now; the message says what to do.
    """
    # This validates the number as for a server.
    settings = replace(settings, partitions=target)
    with _redis(settings) as url:
        return asyncio.run(_run(url, settings))


@contextmanager
def _redis(settings: Settings) -> Iterator[str]:
    """URL of the store's Redis. An embedded Redis is started for the duration, with its data directory locked."""
    if settings.redis_url:
        yield settings.redis_url
        return
    directory = settings.data_dir.absolute()
    if not (directory / data_dir.LOCK).exists():
        raise StartupError(f"there is no store in data directory {directory}")
    data_dir.require_private(directory)
    with data_dir.lock(directory) as lock:
        # Without a memory limit: a move temporarily needs more memory, and must not fail halfway.
        redis = EmbeddedRedis(directory, fsync=settings.fsync, server=settings.redis_server, keep_open=(lock.fileno(),))
        try:
            redis.launch()
            redis.wait()
            yield redis.url
        finally:
            redis.stop()


async def _run(url: str, settings: Settings) -> int:
    redis = RedisClient.open(
        url, timeout=max(settings.command_timeout, MIN_COMMAND_TIMEOUT), min_replicas=settings.min_replicas
    )
    try:
        return await _move(redis, settings)
    except StoreUnavailable as error:
        raise StartupError("the store is not available; run this command again to resume") from error
    finally:
        await redis.close()


async def _move(redis: RedisClient, settings: Settings) -> int:
    target = settings.partitions
    # As long as workers cache keys; with the data directory locked, there are no workers.
    wait = KEY_TTL + settings.command_timeout if settings.redis_url else 0.0
    moved = await repartition(redis, target, wait=wait, bar=_bar)
    if moved is None:
        sys.stdout.write(f"the store's number of partitions is already {target}\n")
    else:
        start = f"start servers with {flag('partitions')} {target}"
        sys.stdout.write(f"{moved.sessions} sessions are in {target} partitions; {start}\n")
    status = await check_projects(redis, await Registry(redis, settings.key_secret).all())
    if moved is not None and moved.sessions != moved.sessions_before:
        sys.stdout.write(f"before the move, {moved.sessions_before} sessions were listed\n")
        return 1
    return status


@contextmanager
def _bar(phase: str, total: int) -> Iterator[Callable[[int], object]]:
    with tqdm(total=total, desc=phase, file=sys.stderr, disable=None, mininterval=0.2) as bar:
        yield bar.update
