"""The file of an export: standard input or output, or a file.

It is compressed where its name ends in `.gz`. When it is read, it is also decompressed if it begins as gzip does.
"""

import gzip
import os
import stat
import sys
import tempfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, cast

from service.configs.export_format import EndLine, ProjectLine, SessionLine, Totals, UserLine, decode
from service.configs.limits import Limits
from service.errors import BadRequest, StartupError
from service.store.upkeep.project_import import Item

#: Standard input or output.
STANDARD = "-"
#: Bytes of a line besides configs.
_LINE_REST = 64 * 1024
#: The first byte of what gzip writes; no JSON text begins with it.
_GZIP = b"\x1f"


class Output(Protocol):
    """What an export is written to."""

    def write(self, data: bytes, /) -> object:
        """Write all of `data`."""


class _NamedFile(NamedTuple):
    """A file whose errors name it."""

    name: str
    file: BinaryIO

    def write(self, data: bytes) -> None:
        with _errors_of("write", self.name):
            self.file.write(data)


@contextmanager
def writer(name: str) -> Iterator[Output]:
    """A file to write an export to. It has its name only when it is complete, and replaces an earlier one then.

    A symbolic link stays: the file that it leads to is replaced. A pipe or a device is written to directly.

    Raises:
        StartupError: it cannot be written; other errors of the body stay as they are.
    """
    if name == STANDARD:
        yield sys.stdout.buffer
        return
    with _errors_of("write", name):
        target = _replaceable(name)
        descriptor, draft = (os.open(name, os.O_WRONLY), None) if target is None else _new_draft(target)

    def publish() -> None:
        if target is not None and draft is not None:
            os.fsync(descriptor)
            draft.replace(target)

    try:
        with _output(name, os.fdopen(descriptor, "wb"), publish) as output:
            yield output
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


def _replaceable(name: str) -> Path | None:
    """The path at which a new file replaces an earlier one; None if what has the name is no regular file."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(name).st_mode):
            return None
    return Path(os.path.realpath(name))


def _new_draft(target: Path) -> tuple[int, Path]:
    """A new file next to `target`, and its descriptor; every run has one of its own."""
    descriptor, draft = tempfile.mkstemp(prefix=".export-", dir=target.parent)
    return descriptor, Path(draft)


@contextmanager
def _output(name: str, raw: BinaryIO, publish: Callable[[], None]) -> Iterator[Output]:
    """An output to `raw`, which is closed afterwards; `publish` is called once everything is written."""
    file = cast("BinaryIO", gzip.GzipFile("", "wb", fileobj=raw, mtime=0, compresslevel=6)) if _is_compressed(name) else raw
    try:
        yield _NamedFile(name, file)
        with _errors_of("write", name):
            if file is not raw:
                file.close()
            raw.flush()
            publish()
    finally:
        for opened in (file, raw):
            with suppress(OSError):  # the file is complete, or not needed
                opened.close()


@contextmanager
def _errors_of(verb: str, name: str) -> Iterator[None]:
    """Make a sentence of an error of the operating system."""
    if not name:
        raise StartupError(f"cannot {verb} a file without a name")
    try:
        yield
    except OSError as error:
        raise StartupError(f"cannot {verb} {name}: {error.strerror}") from None


class Reader(NamedTuple):
    """An export that is open: its bytes, how large the file is (0 if unknown), and how much of it was read."""

    file: BinaryIO
    size: int
    position: Callable[[], int]


@contextmanager
def reader(name: str) -> Iterator[Reader]:
    """A file to read an export from.

    Raises:
        StartupError: it cannot be opened; other errors of the body stay as they are.
    """
    with _errors_of("read", name):
        opened = nullcontext(cast("BufferedReader", sys.stdin.buffer)) if name == STANDARD else open(name, "rb")  # noqa: SIM115
    with opened as raw:
        with _errors_of("read", name):
            size = os.fstat(raw.fileno()).st_size
            is_compressed = _is_compressed(name) or raw.peek(1)[:1] == _GZIP
        file = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if is_compressed else raw
        yield Reader(file, size, raw.tell if raw.seekable() else lambda: 0)


async def items(file: BinaryIO, limits: Limits) -> AsyncIterator[Item]:
    """The lines of an export. At its end, the last line is compared with those before.

    Raises:
        BadRequest: a line is broken, or missing at the end; the message names it.
        StartupError: the file cannot be read.
    """
    totals = Totals()
    end: EndLine | None = None
    number = 0
    for raw in _lines(file, limits.max_configs_bytes + _LINE_REST):
        number += 1
        where = f"line {number}"
        if end is not None:
            raise BadRequest(f"{where} comes after the last line")
        try:
            line = decode(raw)
        except BadRequest as error:
            raise BadRequest(f"{where}: {error.message}") from None
        if isinstance(line, ProjectLine) != (number == 1):
            raise BadRequest(f"{where}: the first line is that of a project, and no other")
        if isinstance(line, EndLine):
            if not totals.match(line):
                raise BadRequest(f"{where}: its counts and digest are not those of the lines before: the file was changed")
            end = line
            continue
        totals.add(raw)
        totals.users += isinstance(line, UserLine)
        totals.sessions += isinstance(line, SessionLine)
        yield Item(where, line)
    if end is None:
        raise BadRequest(f"the file ends after line {number}, without its last line: it is incomplete")


def _lines(file: BinaryIO, longest: int) -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        try:
            line = file.readline(longest + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise BadRequest(f"line {number}: the compressed file is damaged or incomplete") from None
        except OSError as error:
            raise StartupError(f"cannot read {file.name}: {error.strerror}") from None
        if not line:
            return
        if len(line) > longest:
            raise BadRequest(f"line {number} is longer than {longest} bytes, which max_configs_bytes allows")
        yield line


def _is_compressed(name: str) -> bool:
    return name.endswith(".gz")
