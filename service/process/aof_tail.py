"""The end of the append-only file: a write that a power cut has interrupted is cut off, and kept in a file of its own.

The embedded Redis runs with `aof-load-truncated no`, so it refuses such a file, and cuts off nothing by itself. Then its own
program finds where the last whole command ends: under the name `redis-check-aof` or `valkey-check-aof` it reads the file once,
the RDB preamble of Redis 6.2 included, in constant memory; a MULTI without its EXEC is not whole. What follows must look like
an interrupted write: the beginning of a command or transaction, then zeros, which a file system has in the place of blocks that
it never wrote. Any other damage is left to the operator, see `service.commands.repair_aof`.

Sources: redis-check-aof.c and valkey-check-aof.c; https://redis.io/docs/latest/develop/reference/protocol-spec/ (the format of
commands); https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/ (AOF truncation and corruption).
"""

import logging
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from service.errors import StartupError
from service.process import aof_format
from service.process.redis_binaries import Server

logger = logging.getLogger(__name__)

_WHOLE_UNTIL = re.compile(rb"\bok_up_to=(\d+)")
#: A header line of a command or an argument, whole and interrupted, and more bytes than one has.
_HEADER = re.compile(rb"([*$])(\d{1,10})\r\n")
_INTERRUPTED_HEADER = re.compile(rb"[*$]?\d{0,10}\r?")
_LONGEST_LINE = 64
_CHUNK = 64 * 1024


def cut_off_interrupted_write(directory: Path, server: Server) -> bool:
    """Cut off what a power cut has left of a write in a data directory that no server runs on; whether there was any.

    `server` is the one that refuses to load the file.

    Raises:
        StartupError: the file is damaged in another way, or cannot be changed.
    """
    path = aof_format.last_file(directory)
    if path is None:
        return False
    end = intact_size(path, server)
    size = path.stat().st_size
    if end is None or end >= size:
        return False
    try:
        with path.open("r+b") as file:
            if not is_interrupted_write(file, end, size):
                raise StartupError(
                    f"{path} is damaged from byte {end:,} on; restore a backup, or run `session-configs repair-aof`, "
                    f"which cuts off its last {size - end:,} bytes"
                )
            kept = back_up(path, "removed", end)
            file.truncate(end)
            os.fsync(file.fileno())
    except OSError as error:
        raise StartupError(f"an unfinished write at the end of {path} cannot be cut off: {error.strerror}") from None
    logger.warning("an unfinished write at the end of %s was cut off; its %d bytes are kept in %s", path, size - end, kept)
    return True


def intact_size(path: Path, server: Server) -> int | None:
    """The size in bytes up to which the file `path` has whole commands; None where the server's program does not say."""
    if path.stat().st_size == 0:
        return 0
    ends = _WHOLE_UNTIL.findall(run_check(path, server).stdout)
    return int(ends[-1]) if ends else None


def run_check(path: Path, server: Server, *, fix: bool = False) -> subprocess.CompletedProcess[bytes]:
    """Run the check of `server`'s program on an append-only file; with `fix`, damage at the end is cut off.

    Raises:
        StartupError: it cannot be run.
    """
    name = f"{server.kind.lower()}-check-aof"
    try:
        return subprocess.run(  # noqa: S603 - the binary is the one found, or named by the operator
            [name, *(["--fix"] if fix else []), str(path)],
            executable=server.path,
            input=b"y\n" if fix else b"",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"LC_ALL": "C"},
            check=False,
        )
    except OSError as error:
        raise StartupError(f"{server.path} cannot be started: {error.strerror}") from None


def back_up(path: Path, why: str, start: int = 0) -> Path:
    """Copy `path` from byte `start` on to a file next to it, which only its owner can read; returns its path."""
    copy = path.with_name(f"{path.name}-{why}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with path.open("rb") as source, os.fdopen(descriptor, "wb") as target:
            source.seek(start)
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
    except OSError:
        copy.unlink()
        raise
    return copy


def is_interrupted_write(file: BinaryIO, start: int, end: int) -> bool:
    """Whether the bytes from `start` to `end`, which no whole command begins with, are an interrupted write, then zeros."""
    end = _end_before_zeros(file, start, end)
    file.seek(start)
    in_transaction = False
    while file.tell() < end:
        name = _read_command(file, end)
        if name is None:
            return file.tell() == end
        # A whole command belongs to a transaction that was interrupted.
        belongs = name not in (b"MULTI", b"EXEC") if in_transaction else name == b"MULTI"
        if not belongs:
            return False
        in_transaction = True
    return True


def _end_before_zeros(file: BinaryIO, start: int, end: int) -> int:
    """Where the zeros begin that the bytes from `start` to `end` end with."""
    while end > start:
        first = max(start, end - _CHUNK)
        file.seek(first)
        chunk = file.read(end - first).rstrip(b"\0")
        if chunk:
            return first + len(chunk)
        end = first
    return end


def _read_command(file: BinaryIO, end: int) -> bytes | None:
    """The name of the command that is read, in upper case; None where it is not whole.

    The file is at `end` then if what is there can be the beginning of a command, and before it if not.
    """
    arguments = _read_header(file, b"*", end)
    if arguments is None:
        return None
    name = b""
    for number in range(arguments):
        size = _read_header(file, b"$", end)
        if size is None:
            return None
        position = file.tell() + size
        if position + 2 > end:
            file.seek(end)
            return None
        if number == 0 and size <= _LONGEST_LINE:
            name = file.read(size).upper()
        file.seek(position)
        if file.read(2) != b"\r\n":
            file.seek(position)
            return None
    return name


def _read_header(file: BinaryIO, sign: bytes, end: int) -> int | None:
    """The number in a header line that begins with `sign`; None, and the file's position, as `_read_command`."""
    start = file.tell()
    line = file.readline(min(_LONGEST_LINE, end - start))
    header = _HEADER.fullmatch(line)
    if header is not None and header[1] == sign:
        return int(header[2])
    is_beginning = file.tell() == end and line[:1] in (sign, b"") and _INTERRUPTED_HEADER.fullmatch(line)
    file.seek(end if is_beginning else start)
    return None
