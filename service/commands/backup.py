"""`backup`: copy the embedded Redis's data to a new directory, while its server runs."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from tqdm import tqdm

from service.commands import _background
from service.commands._parameters import DIRECTORY, takes_settings
from service.errors import BadRequest, StartupError
from service.process import backup, data_dir, embedded_redis
from service.process.backup import File
from service.redis_client import admin
from service.redis_client.client import RedisClient
from service.settings import Settings

#: Seconds to wait until Redis has written what was acknowledged to its file.
FLUSH_TIMEOUT = 10.0


@click.command()
@click.argument("target", type=DIRECTORY, metavar="DIR", help="the backup, a directory that does not exist yet")
@takes_settings(("data_dir", "redis_server"))
def command(settings: Settings, target: str) -> int:
    """Write a backup that has every write that was acknowledged before; the exit status is 0.

    Raises:
        StartupError: there is no store, or the backup cannot be written.
    """
    if settings.redis_url:
        raise BadRequest("backup copies the files of the embedded Redis; back up your own Redis with its tools, or use export")
    _background.begin()
    directory = settings.data_dir.absolute()
    if not (directory / data_dir.LOCK).exists():
        raise StartupError(f"there is no store in data directory {directory}")
    data_dir.require_private(directory)
    with _at_rest(directory, settings):
        server = embedded_redis.choose_server(directory, settings.redis_server)
        with bytes_bar("backup", backup.size_of(directory)) as progress:
            files = backup.write(directory, Path(target).absolute(), server, progress)
    sys.stdout.write(f"{amount(files)} in backup {target}\n")
    return 0


@contextmanager
def _at_rest(directory: Path, settings: Settings) -> Iterator[None]:
    """Either a server is running and has written what it acknowledged, or none can start."""
    if embedded_redis.ping(directory) is not None:
        asyncio.run(_flush(directory, settings))
        yield
    else:
        with data_dir.lock(directory):
            yield


async def _flush(directory: Path, settings: Settings) -> None:
    redis = RedisClient.open(embedded_redis.url(directory), timeout=settings.command_timeout)
    try:
        async with asyncio.timeout(FLUSH_TIMEOUT):
            await admin.wait_until_appended(redis)
    except TimeoutError:
        raise StartupError("Redis does not write to its append-only file; see its log") from None
    finally:
        await redis.close()


@contextmanager
def bytes_bar(label: str, total: int) -> Iterator[Callable[[int], object]]:
    """A progress bar of bytes."""
    with tqdm(total=total, desc=label, unit="B", unit_scale=True, file=sys.stderr, disable=None, mininterval=0.2) as progress:
        yield progress.update


def amount(files: list[File]) -> str:
    """How many files, and how many bytes."""
    return f"{len(files)} files, {sum(file.size for file in files):,} bytes,"
