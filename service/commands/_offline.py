"""Access to a store while no server is running on it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from service.errors import StartupError
from service.process import data_dir
from service.process.embedded_redis import EmbeddedRedis
from service.redis_client.client import RedisClient
from service.settings import Settings
from service.store.api_keys import KEY_TTL

#: Seconds; the command timeout is at least this, as no client waits.
MIN_COMMAND_TIMEOUT = 10.0


@contextmanager
def redis_of(settings: Settings) -> Iterator[str]:
    """URL of the store's Redis. An embedded Redis is started for the duration, with its data directory locked.

    Raises:
        StartupError: there is no store, or a server is running on it.
    """
    if settings.redis_url:
        yield settings.redis_url
        return
    directory = settings.data_dir.absolute()
    if not (directory / data_dir.LOCK).exists():
        raise StartupError(f"there is no store in data directory {directory}")
    data_dir.require_private(directory)
    with data_dir.lock(directory) as lock, embedded_redis(directory, settings, lock.fileno()) as url:
        yield url


@contextmanager
def embedded_redis(directory: Path, settings: Settings, lock: int) -> Iterator[str]:
    """URL of a Redis that is started on `directory` for the duration; `lock` is the descriptor of the lock.

    It has no memory limit: the work temporarily needs more memory, and must not fail halfway.
    """
    redis = EmbeddedRedis(directory, fsync=settings.fsync, server=settings.redis_server, keep_open=(lock,))
    try:
        redis.launch()
        redis.wait()
        yield redis.url
    finally:
        redis.stop()


def open_client(url: str, settings: Settings) -> RedisClient:
    """A client with a timeout that is long enough for work that no client waits for."""
    timeout = max(settings.command_timeout, MIN_COMMAND_TIMEOUT)
    return RedisClient.open(url, timeout=timeout, min_replicas=settings.min_replicas)


def wait(settings: Settings) -> float:
    """Seconds for which workers cache keys; with the data directory locked, there are no workers."""
    return KEY_TTL + settings.command_timeout if settings.redis_url else 0.0


@contextmanager
def phase_bar(phase: str, total: int) -> Iterator[Callable[[int], object]]:
    """A progress bar of keys or sessions."""
    with tqdm(total=total, desc=phase, file=sys.stderr, disable=None, mininterval=0.2) as progress:
        yield progress.update
