"""Which servers can read the append-only file in a data directory.

Redis before 7.0 has one file, `appendonly.aof`. Redis 7.0 and Valkey have a directory, `appendonlydir`, whose manifest names a
base file and the files of later writes; at startup they convert a single file. A base file is an RDB file (or plain commands,
if 6.2 never rewrote its file); its first nine bytes show the format: `REDIS0010`, `VALKEY080`. The files of later writes are
plain commands, which every server reads.

`_RDB_VERSIONS` has the format of each version (RDB_VERSION in the sources of Redis and Valkey). Tested in both directions with
Redis 6.2.14, 7.0.15, 8.2.3 and Valkey 9.1.2:

    written by          can be read by
    Redis 6.2           all
    Redis 7.0           Redis 7.0 and newer, Valkey; 6.2 would start empty
    Redis 7.4 and 8     Redis 7.4 and newer only
    Valkey 9            Valkey 9 and newer only

A newer server keeps the older base file until its next rewrite, so the base file decides. The record (`redis-server.json`: kind
and version of the server that was last started on the directory) is for messages, and decides if the base file is missing or
newer than this table.
"""

import json
import logging
import os
import re
from pathlib import Path
from typing import NamedTuple

from service.process.redis_binaries import Server, Version

logger = logging.getLogger(__name__)

RECORD = "redis-server.json"

#: Path of the single file in a data directory.
FILE = "appendonly.aof"
_DIRECTORY = "appendonlydir"
_MANIFEST = "appendonly.aof.manifest"
#: Path of the manifest in a data directory.
MANIFEST = f"{_DIRECTORY}/{_MANIFEST}"
#: A regular expression for the paths that a store's files may have in a data directory.
PATHS = rf"{re.escape(FILE)}|{_DIRECTORY}/[A-Za-z0-9_-][A-Za-z0-9_.-]*"

#: The RDB version that servers write, by the first server version that writes it; newest first.
_RDB_VERSIONS: dict[str, tuple[tuple[Version, int], ...]] = {
    "Redis": (((7, 4), 12), ((7, 2), 11), ((7, 0), 10), ((6, 2), 9)),
    "Valkey": (((9, 0), 80), ((7, 2), 11)),
}
#: RDB versions that only Redis writes and Valkey refuses. From 80 on they are Valkey's.
_OF_REDIS_ALONE = range(12, 80)

_HEADER = re.compile(rb"(?:REDIS|VALKEY)(\d{3,4})")
_HEADER_SIZE = 9
# A server refuses a name with a slash, which would lead out of the directory.
_BASE = re.compile(r"^file ([^\s/]+) .*\btype b\b", re.MULTILINE)
_INCREMENTAL = re.compile(r"^file ([^\s/]+) .*\btype i\b", re.MULTILINE)
_HISTORY = re.compile(rb"\btype h\b")

#: Unfinished files of killed servers; each may be as large as the store.
_TEMPORARY = ("temp-*.aof", "temp-*.rdb", "temp-*.manifest")


class Format(NamedTuple):
    """How an append-only file is stored: in a directory or as a single file, and the RDB version of its base file.

    `rdb` is 0 where the base file is plain commands.
    """

    in_directory: bool
    rdb: int


class Record(NamedTuple):
    """The server that was last started on a data directory."""

    kind: str
    version: Version


class Data(NamedTuple):
    """The format and the record of a data directory; `format` is None if no server has written yet."""

    format: Format | None
    record: Record | None

    def is_readable_by(self, server: Server) -> bool:
        """Whether `server` can load all of it. If this is wrongly true, the server refuses the file and changes nothing."""
        if self.format is None:
            return True
        if self.format.in_directory and server.version < (7, 0):
            return False
        rdb = self.format.rdb
        if self._is_unknown:
            return server.kind == _author(rdb) and server.version >= self._oldest_author
        return rdb <= _rdb_version(server) and not (server.kind == "Valkey" and rdb in _OF_REDIS_ALONE)

    @property
    def needs(self) -> str:
        """The servers that can read it, for a message: `Redis 7.4 or Valkey 9.0, or newer`."""
        oldest = [self._oldest_reader(kind) for kind in _RDB_VERSIONS]
        return " or ".join(server.name for server in oldest if server is not None) + ", or newer"

    @property
    def _is_unknown(self) -> bool:
        return self.format is not None and self.format.rdb > _RDB_VERSIONS[_author(self.format.rdb)][0][1]

    @property
    def _oldest_author(self) -> Version:
        """The oldest version that may have written an RDB version newer than the table."""
        assert self.format is not None  # noqa: S101 - for the type checker
        kind = _author(self.format.rdb)
        newest = _RDB_VERSIONS[kind][0][0]
        return max(newest, self.record.version) if self.record and self.record.kind == kind else newest

    def _oldest_reader(self, kind: str) -> Server | None:
        versions = [version for version, _ in reversed(_RDB_VERSIONS[kind])]
        if self._is_unknown:
            versions = [self._oldest_author]
        candidates = (Server("", kind, version) for version in versions)
        return next((server for server in candidates if self.is_readable_by(server)), None)


def examine(directory: Path) -> Data:
    """Read the format and the record of a data directory."""
    record = _read_record(directory)
    if (directory / _DIRECTORY).exists():
        rdb = _rdb_in(_base_file(directory))
        if rdb is None:
            rdb = _rdb_version(Server("", *record)) if record is not None else 0
        return Data(Format(in_directory=True, rdb=rdb), record)
    rdb = _rdb_in(directory / FILE)
    return Data(None if rdb is None else Format(in_directory=False, rdb=rdb), record)


def last_file(directory: Path) -> Path | None:
    """The append-only file that a server appends to; None if there is none."""
    if not (directory / _DIRECTORY / _MANIFEST).exists():
        path = directory / FILE
    else:
        names = _INCREMENTAL.findall((directory / _DIRECTORY / _MANIFEST).read_text(encoding="utf-8", errors="replace"))
        # Without one, a newer server has just converted the single file of Redis 6.2 to its base file.
        path = directory / _DIRECTORY / names[-1] if names else _base_file(directory)
    return path if path.is_file() else None


def parts(directory: Path) -> list[Path]:
    """The parts of the append-only file, in the order in which a server reads them."""
    manifest = read_manifest(directory).decode(errors="replace")
    if not manifest:
        return [path for path in (directory / FILE,) if path.is_file()]
    return [directory / _DIRECTORY / name for name in [*_BASE.findall(manifest), *_INCREMENTAL.findall(manifest)]]


def roots(directory: Path) -> list[Path]:
    """The single file, and the directory of the parts: a data directory with either has a store."""
    return [directory / FILE, directory / _DIRECTORY]


def read_manifest(directory: Path) -> bytes:
    """The manifest that names the parts; empty if there is none."""
    try:
        return (directory / MANIFEST).read_bytes()
    except FileNotFoundError:
        return b""


def without_history(manifest: bytes) -> bytes:
    """A manifest without the files that a rewrite has replaced, which the server is about to delete."""
    return b"".join(line for line in manifest.splitlines(keepends=True) if not _HISTORY.search(line))


def is_of_valkey(path: Path) -> bool:
    """Whether a part is a base file in Valkey's own format, which valkey-check-aof does not recognise."""
    rdb = _rdb_in(path)
    return bool(rdb) and _author(rdb or 0) == "Valkey"


def files(directory: Path) -> list[Path]:
    """The files of a server in `directory`, with the directory `appendonlydir` and its files."""
    return [directory / RECORD, directory / FILE, directory / _DIRECTORY, *(directory / _DIRECTORY).glob("*")]


def write_record(directory: Path, server: Server) -> None:
    """Record that `server` is started on the directory: from now on it may rewrite the file in its format."""
    record = Record(server.kind, server.version)
    if _read_record(directory) == record:
        return
    draft = directory / f".{RECORD}.new"
    text = json.dumps({"kind": record.kind, "version": ".".join(map(str, record.version))})
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text + "\n")
        draft.replace(directory / RECORD)
    except OSError as error:
        # The base file has the same information; a full disk must not stop the server from reading the store.
        logger.warning("cannot write %s: %s", directory / RECORD, error.strerror)


def remove_temporary_files(directory: Path) -> None:
    """Remove the unfinished files of killed servers; the caller has locked the directory, and no server is running on it."""
    for folder in (directory, directory / _DIRECTORY):
        for path in (path for pattern in _TEMPORARY for path in folder.glob(pattern)):
            try:
                path.unlink()
            except OSError as error:
                logger.warning("cannot remove %s: %s", path, error.strerror)


def _rdb_version(server: Server) -> int:
    """The RDB version that a server writes; a server newer than the table counts as the newest in it."""
    return next((rdb for oldest, rdb in _RDB_VERSIONS[server.kind] if server.version >= oldest), 0)


def _author(rdb: int) -> str:
    return "Redis" if rdb < _OF_REDIS_ALONE.stop else "Valkey"


def _base_file(directory: Path) -> Path:
    """The base file that the manifest names, even while a server is converting the single file of 6.2."""
    try:
        base = _BASE.search((directory / _DIRECTORY / _MANIFEST).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        base = None
    name = base[1] if base else FILE
    path = directory / _DIRECTORY / name
    return path if path.exists() else directory / name


def _rdb_in(path: Path) -> int | None:
    """The RDB version of a base file, 0 if it is plain commands; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            header = _HEADER.match(file.read(_HEADER_SIZE))
    except OSError:
        return None
    return int(header[1]) if header else 0


def _read_record(directory: Path) -> Record | None:
    """The record in `directory`; None if it is missing or malformed."""
    try:
        fields = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        major, minor = map(int, fields["version"].split("."))
        kind = fields["kind"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return Record(kind, (major, minor)) if kind in _RDB_VERSIONS else None
