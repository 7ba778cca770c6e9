"""`repair-aof`: cut off the damaged end of the embedded Redis's append-only file, with the program of Redis itself."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from service.errors import StartupError
from service.process import aof_format, aof_tail, data_dir
from service.process.embedded_redis import choose_server
from service.process.redis_binaries import Server
from service.settings import Settings, add_flags

#: Lines at the end of the output of the check that say what it could not do.
_TAIL_LINES = 3


def add_arguments(parser: ArgumentParser) -> None:
    """Add the settings that name the file and the program."""
    add_flags(parser, ("data_dir", "redis_server"))


def run(arguments: Namespace, settings: Settings) -> int:  # noqa: ARG001 - the form of every command
    """Repair the file after keeping a copy of it; the exit status is 0, also where nothing is damaged.

    Raises:
        StartupError: a server runs on the data directory, there is no such file, or it cannot be repaired.
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
    """Repair the last part of the append-only file, `path`; returns what was done.

    Damage elsewhere cannot be repaired. The check is not given the manifest, which names all parts: that of Valkey 9 does not
    recognise the base files that Valkey 9 writes.
    """
    if aof_tail.run_check(path, server).returncode == 0:
        return f"{path} is not damaged; if Redis refuses to load its other files, restore a backup"
    size = path.stat().st_size
    try:
        copy = aof_tail.back_up(path, "before-repair")
    except OSError as error:
        raise StartupError(f"{path} cannot be copied: {error.strerror}") from None
    done = aof_tail.run_check(path, server, fix=True)
    if done.returncode != 0:
        lines = done.stdout.decode(errors="replace").strip().splitlines()[-_TAIL_LINES:]
        raise StartupError(f"{path} cannot be repaired: {' | '.join(lines)}")
    removed = size - path.stat().st_size
    return f"{removed:,} bytes were cut off the end of {path}; a copy of it as it was is in {copy}"
