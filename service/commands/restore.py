"""`restore`: put a backup into an empty data directory, while no server is running on it."""

import asyncio
import shutil
import sys
from pathlib import Path

import click

from service.commands import _offline
from service.commands._parameters import DIRECTORY, takes_settings
from service.commands.backup import bytes_bar
from service.errors import BadRequest, StartupError
from service.process import aof_format, backup, data_dir
from service.settings import Settings, flag
from service.store import manifest

#: The restored files, in the data directory, until they are complete.
DRAFT = ".restoring"


@click.command()
@click.argument("source", type=DIRECTORY, metavar="DIR", help="the backup")
@takes_settings(("data_dir", "redis_server"))
def command(settings: Settings, source: str) -> int:
    """Restore the backup; the exit status is 0. The store has a new generation, so no ETag from after the backup matches.

    Raises:
        StartupError: the data directory has a store, a server is running on it, or the backup is damaged.
    """
    if settings.redis_url:
        raise BadRequest(f"restore is for the embedded Redis: it writes to {flag('data_dir')}")
    backup.read(Path(source))
    directory = data_dir.create(settings.data_dir)
    with data_dir.lock(directory) as lock:
        if aof_format.parts(directory):
            raise StartupError(f"data directory {directory} has a store; move it away, or name another directory")
        draft = directory / DRAFT
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        try:
            generation = _restore(Path(source).absolute(), draft, settings, lock.fileno())
            _move_into_place(draft, directory)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    sys.stdout.write(f"restored {source} to data directory {directory}; its ETags begin with {generation}-\n")
    return 0


def _restore(source: Path, draft: Path, settings: Settings, lock: int) -> int:
    """Copy the backup to `draft` and give it a new generation; returns that."""
    with bytes_bar("restore", sum(file.size for file in backup.read(source))) as progress:
        backup.copy_out(source, draft, progress)
    with _offline.embedded_redis(draft, settings, lock) as url:
        return asyncio.run(_raise_generation(url, settings))


async def _raise_generation(url: str, settings: Settings) -> int:
    redis = _offline.open_client(url, settings)
    try:
        return await manifest.raise_generation(redis)
    finally:
        await redis.close()


def _move_into_place(draft: Path, directory: Path) -> None:
    """Move the files of `draft` to the data directory, the append-only file last: until then there is no store."""
    try:
        for name in (data_dir.KEY_SECRET, data_dir.ROOT_TOKEN):
            _require_same(draft / name, directory / name)
        others = [draft / name for name in (data_dir.KEY_SECRET, data_dir.ROOT_TOKEN, aof_format.RECORD)]
        for path in filter(Path.exists, [*others, *aof_format.roots(draft)]):
            path.replace(directory / path.name)
        backup.sync_directory(directory)
    except OSError as error:
        raise StartupError(f"cannot move the restored files to {directory}: {error}") from None


def _require_same(restored: Path, existing: Path) -> None:
    """Refuse to replace a secret by another one.

    Raises:
        StartupError: both exist and differ.
    """
    if restored.exists() and existing.exists() and restored.read_bytes() != existing.read_bytes():
        raise StartupError(f"{existing} is not that of the backup; move it away")
