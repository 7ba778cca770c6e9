"""`repartition`: move a store to another number of partitions, while no server runs on it."""

import asyncio
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from tqdm import tqdm

from service.commands.check import check_projects
from service.errors import StartupError, StoreUnavailable
from service.process import data_dir
from service.process.embedded_redis import EmbeddedRedis
from service.redis_client.client import RedisClient
from service.settings import Settings, flag
from service.store.api_keys import KEY_TTL
from service.store.projects import Registry
from service.store.upkeep.repartition import repartition

#: Seconds that Redis may take: nobody else waits for it.
MIN_COMMAND_TIMEOUT = 10.0


def add_arguments(parser: ArgumentParser) -> None:
    """Add what `repartition` takes."""
    parser.add_argument("target", type=int, metavar="PARTITIONS", help="how many partitions the store is to have")


def run(arguments: Namespace, settings: Settings) -> int:
    """Move every project's sessions and check them; a move that was interrupted goes on where it stopped.

    The exit status is 1 if the check finds a difference, or not as many sessions as there were.

    Raises:
        StartupError: a server runs on the store, or the move cannot be made or finished now; the message tells what to do.
    """
    # The number is held to what a server takes.
    settings = replace(settings, partitions=arguments.target)
    with _redis(settings) as reached:
        return asyncio.run(_run(reached, settings))


@contextmanager
def _redis(settings: Settings) -> Iterator[str]:
    """URL of the store's Redis; the embedded one is started for as long, and locked against servers."""
    if settings.redis_url:
        yield settings.redis_url
        return
    directory = settings.data_dir.absolute()
    if not (directory / data_dir.LOCK).exists():
        raise StartupError(f"there is no store in data directory {directory}")
    data_dir.require_private(directory)
    with data_dir.lock(directory) as lock:
        # Without a limit on memory: a move needs more for a while, and must not stop half done.
        redis = EmbeddedRedis(directory, fsync=settings.fsync, server=settings.redis_server, keep_open=(lock.fileno(),))
        try:
            redis.launch()
            redis.wait()
            yield redis.url
        finally:
            redis.stop()


async def _run(url: str, settings: Settings) -> int:
    link = RedisClient.open(url, timeout=max(settings.command_timeout, MIN_COMMAND_TIMEOUT), min_replicas=settings.min_replicas)
    try:
        return await _move(link, settings)
    except StoreUnavailable as error:
        raise StartupError("the store is not available; run this again to go on where it stopped") from error
    finally:
        await link.close()


async def _move(link: RedisClient, settings: Settings) -> int:
    target = settings.partitions
    # As long as workers trust what they know; where we hold the data directory's lock there are none.
    wait = KEY_TTL + settings.command_timeout if settings.redis_url else 0.0
    moved = await repartition(link, target, wait=wait, bar=_bar)
    if moved is None:
        sys.stdout.write(f"the store has {target} partitions already\n")
    else:
        start = f"start servers with {flag('partitions')} {target}"
        sys.stdout.write(f"{moved.sessions} sessions are in {target} partitions; {start}\n")
    status = await check_projects(link, await Registry(link, settings.key_secret).all())
    if moved is not None and moved.sessions != moved.sessions_before:
        sys.stdout.write(f"before, {moved.sessions_before} sessions were listed\n")
        return 1
    return status


@contextmanager
def _bar(phase: str, total: int) -> Iterator[Callable[[int], object]]:
    with tqdm(total=total, desc=phase, file=sys.stderr, disable=None, mininterval=0.2) as bar:
        yield bar.update
