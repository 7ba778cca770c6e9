"""`repair-aof`: cut off the damaged end of the embedded Redis's append-only file, with redis-check-aof."""

import sys
from pathlib import Path

import click

from service.commands._parameters import takes_settings
from service.errors import StartupError
from service.process import aof_format, aof_tail, data_dir
from service.process.embedded_redis import choose_server
from service.process.redis_binaries import Server
from service.settings import Settings

#: Lines of redis-check-aof's output that an error message has.
_TAIL_LINES = 3


@click.command()
@takes_settings(("data_dir", "redis_server"))
def command(settings: Settings) -> int:
    """Copy the file, then repair it; the exit status is 0, even if it is not damaged.

    Raises:
        StartupError: a server is running on the data directory, there is no such file, or it cannot be repaired.
    """
    directory = settings.data_dir.absolute()
    path = aof_format.last_file(directory)
    if path is None:
        raise StartupError(f"there is no append-only file in data directory {directory}")
    data_dir.require_private(directory)
    with data_dir.lock(directory):
        sys.stdout.write(_repair(path, choose_server(directory, settings.redis_server)) + "\n")
    return 0


def _repair(path: Path, server: Server) -> str:
    """Repair `path`, the last part of the append-only file; returns the sentence to print.

    Damage in other parts cannot be repaired. The check gets this file, not the manifest: valkey-check-aof of Valkey 9 does not
    recognise the base files that Valkey 9 writes.
    """
    if aof_tail.run_check(path, server).returncode == 0:
        return f"{path} is not damaged; if Redis refuses to load its other files, restore a backup"
    size = path.stat().st_size
    try:
        copy = aof_tail.back_up(path, "before-repair")
    except OSError as error:
        raise StartupError(f"cannot copy {path}: {error.strerror}") from None
    result = aof_tail.run_check(path, server, fix=True)
    if result.returncode != 0:
        lines = result.stdout.decode(errors="replace").strip().splitlines()[-_TAIL_LINES:]
        raise StartupError(f"cannot repair {path}: {' | '.join(lines)}")
    removed = size - path.stat().st_size
    return f"cut {removed:,} bytes off the end of {path}; {copy} is a copy of the damaged file"
