"""The file of an export: standard input or output, or a file, compressed where its name ends in `.gz`."""

import gzip
import os
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
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


class Output(Protocol):
    """What an export is written to."""

    def write(self, data: bytes, /) -> object:
        """Write all of `data`."""


class _File(NamedTuple):
    """A file whose errors name it."""

    path: Path
    file: BinaryIO

    def write(self, data: bytes) -> None:
        with _errors_of("write", self.path):
            self.file.write(data)


@contextmanager
def writer(name: str) -> Iterator[Output]:
    """A file to write an export to. It has its name only when it is complete, and replaces an earlier one then.

    Raises:
        StartupError: it cannot be written; other errors of the body stay as they are.
    """
    if name == STANDARD:
        yield sys.stdout.buffer
        return
    path = Path(name)
    draft = path.with_name(f".{path.name}.new")
    try:
        with _errors_of("write", path):
            raw: BinaryIO = os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
        file = _compressed(raw) if _is_compressed(name) else raw
        try:
            yield _File(path, file)
            with _errors_of("write", path):
                if file is not raw:
                    file.close()
                raw.flush()
                os.fsync(raw.fileno())
                draft.replace(path)
        finally:
            for opened in (file, raw):
                with suppress(OSError):  # the file is complete, or not needed
                    opened.close()
    finally:
        draft.unlink(missing_ok=True)


def _compressed(raw: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", gzip.GzipFile("", "wb", fileobj=raw, mtime=0, compresslevel=6))


@contextmanager
def _errors_of(verb: str, name: object) -> Iterator[None]:
    """Make a sentence of an error of the operating system."""
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
    if name == STANDARD:
        yield Reader(sys.stdin.buffer, 0, lambda: 0)
        return
    with ExitStack() as stack:
        with _errors_of("read", name):
            raw = stack.enter_context(Path(name).open("rb"))
            size = os.fstat(raw.fileno()).st_size
        file = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if _is_compressed(name) else raw
        yield Reader(file, size, raw.tell)


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
