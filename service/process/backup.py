"""A backup of a data directory: the files of the embedded Redis as they were at one moment, and the generated secrets.

    backup.json   the files with their sizes and SHA-256, and the server that wrote them; written last
    data/         the files, as they are in a data directory

The append-only file only grows, so its first bytes are a state that the store had. A rewrite replaces its parts: they are
opened together, and stay readable until they are closed. A command that was only half written is cut off.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NamedTuple

import msgspec
from msgspec import Meta

from service.errors import StartupError
from service.process import aof_format, aof_tail
from service.process.data_dir import KEY_SECRET, ROOT_TOKEN
from service.process.redis_binaries import Server

MANIFEST, DATA = "backup.json", "data"
#: The version of this arrangement.
FORMAT = 1
#: Written at the end, so that the disk has little to write at any moment.
SYNC_BYTES = 32 * 1024 * 1024

_CHUNK = 1024 * 1024
#: How often the files are opened again because a rewrite has replaced one of them meanwhile.
_ATTEMPTS = 20
#: Small files that are copied as they are, if they exist.
_OTHERS = (aof_format.RECORD, KEY_SECRET, ROOT_TOKEN)
#: The names that a backup may have: no other file is read or written, whatever `backup.json` says.
_NAMES = rf"\A(?:{aof_format.PATHS}|{'|'.join(map(re.escape, _OTHERS))})\Z"

#: Called with the number of bytes that were just copied or read.
Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class File:
    """A file of a backup: its name in `data`, its size in bytes and its digest."""

    name: Annotated[str, Meta(pattern=_NAMES)]
    size: Annotated[int, Meta(ge=0)]
    sha256: str


class _Part(NamedTuple):
    """An open part of the append-only file: its name in the data directory, and how many of its bytes belong to the backup."""

    name: str
    file: BinaryIO
    size: int


def size_of(directory: Path) -> int:
    """The size in bytes of the append-only file of a data directory, all parts together; it may be a rough one."""
    return sum(path.stat().st_size for path in aof_format.files(directory) if path.is_file())


def write(directory: Path, target: Path, server: Server, progress: Progress) -> list[File]:
    """Copy the files of the data directory to `target`, which must not exist, and return them. A server may be running.

    `server` is one that can read the files.

    Raises:
        StartupError: a file cannot be read or written, or there is no store.
    """
    draft = None
    try:
        if target.exists():
            raise _exists(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        # A draft of its own for each run: two may write to one name. Its mode is 0700.
        draft = Path(tempfile.mkdtemp(prefix=".backup-", dir=target.parent))
        files = _write_draft(directory, draft, server, progress)
        _publish(draft, target)
    except OSError as error:
        raise StartupError(f"cannot write the backup {target}: {error}") from None
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
    return files


def _write_draft(directory: Path, draft: Path, server: Server, progress: Progress) -> list[File]:
    (draft / DATA).mkdir(mode=0o700)
    _copy_store(directory, draft / DATA, server, progress)
    files = list(_files(draft / DATA))
    entry = {"format": FORMAT, "server": f"{server.kind} {server.version[0]}.{server.version[1]}"}
    _write_synced(draft / MANIFEST, json.dumps(entry | {"files": [asdict(file) for file in files]}, indent=1).encode())
    sync_directory(draft)
    return files


def _publish(draft: Path, target: Path) -> None:
    try:
        draft.rename(target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise _exists(target) from None
        raise
    sync_directory(target.parent)


def _exists(target: Path) -> StartupError:
    return StartupError(f"{target} exists; name a new directory")


def read(source: Path) -> list[File]:
    """The files that a backup names.

    Raises:
        StartupError: it is no complete backup, or names other files than a backup has.
    """
    try:
        entry: dict[str, Any] = json.loads((source / MANIFEST).read_bytes())
        if entry["format"] != FORMAT:
            raise StartupError(f"{source} has format {entry['format']}; this release reads format {FORMAT}")
        files = msgspec.convert(entry["files"], list[File])
        for file in files:
            _require_inside(source, source / DATA / file.name)
    except FileNotFoundError:
        raise StartupError(f"{source} is not a complete backup: it has no {MANIFEST}") from None
    except OSError as error:
        raise StartupError(f"{source / MANIFEST} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, RuntimeError, msgspec.ValidationError):
        raise StartupError(f"{source / MANIFEST} is not as backup writes it: it was changed, or is damaged") from None
    if not {aof_format.FILE, aof_format.MANIFEST} & {file.name for file in files}:
        raise StartupError(f"{source} is not a complete backup: it has no append-only file")
    return files


def verify(source: Path, server: Server, progress: Progress) -> list[File]:
    """Compare a backup with its digests, and check the append-only file with Redis's own tools; returns the files.

    Raises:
        StartupError: it is damaged or incomplete.
    """
    files = read(source)
    for file in files:
        path = source / DATA / file.name
        try:
            actual = File(file.name, path.stat().st_size, _digest(path, progress))
        except OSError as error:
            raise StartupError(f"{path} cannot be read: {error.strerror}") from None
        if actual != file:
            raise StartupError(f"{path} is damaged: it is not the file that was backed up")
    for path in aof_format.parts(source / DATA):
        result = aof_tail.run_check(path, server)
        if result.returncode != 0:
            last_line = result.stdout.decode(errors="replace").strip().splitlines()[-1]
            # What the tool says of its own option: a backup is not repaired.
            raise StartupError(f"{path} is damaged: {last_line.partition(' Use the --fix')[0]}")
    return files


def copy_out(source: Path, target: Path, progress: Progress) -> None:
    """Copy the files of a backup to the directory `target`, and compare each copy with its digest.

    Raises:
        StartupError: the backup is damaged, or a file cannot be written.
    """
    try:
        for file in read(source):
            path = target / file.name
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with (source / DATA / file.name).open("rb") as original:
                _copy(original, path, file.size, progress)
            if _digest(path, lambda _: None) != file.sha256:
                raise StartupError(f"{source / DATA / file.name} is damaged: it is not the file that was backed up")
    except OSError as error:
        raise StartupError(f"cannot copy the backup {source}: {error}") from None


def _require_inside(source: Path, path: Path) -> None:
    """Refuse a file to which a symbolic link leads out of the backup."""
    if not path.resolve().is_relative_to(source.resolve()):
        raise StartupError(f"{path} is outside of the backup")


def sync_directory(path: Path) -> None:
    """Write the entries of a directory to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_store(directory: Path, target: Path, server: Server, progress: Progress) -> None:
    with ExitStack() as stack:
        parts, manifest = _open_parts(directory, stack)
        for part in parts:
            path = target / part.name
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _copy(part.file, path, part.size, progress)
    if manifest:
        _write_synced(target / aof_format.MANIFEST, manifest)
    for name in _OTHERS:
        with suppress(FileNotFoundError), (directory / name).open("rb") as file:
            _copy(file, target / name, os.fstat(file.fileno()).st_size, lambda _: None)
    last = aof_format.last_file(target)
    if last is not None and not aof_format.is_of_valkey(last):
        end = aof_tail.intact_size(last, server)
        if end is None:
            raise StartupError(f"{server.path} cannot check {last}")
        os.truncate(last, end)


def _open_parts(directory: Path, stack: ExitStack) -> tuple[list[_Part], bytes]:
    """The parts of the append-only file, opened together, and the manifest that names them, if there is one."""
    for _ in range(_ATTEMPTS):
        manifest = aof_format.read_manifest(directory)
        with suppress(FileNotFoundError):
            names = [path.relative_to(directory).as_posix() for path in aof_format.parts(directory)]
            files = [stack.enter_context((directory / name).open("rb")) for name in names]
            if names and aof_format.read_manifest(directory) == manifest:
                sizes = [os.fstat(file.fileno()).st_size for file in files]
                return [_Part(*part) for part in zip(names, files, sizes, strict=True)], aof_format.without_history(manifest)
    raise StartupError(f"there is no append-only file in data directory {directory}")


def _copy(source: BinaryIO, path: Path, size: int, progress: Progress) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as target:
        since_sync = 0
        while size:
            chunk = source.read(min(_CHUNK, size))
            if not chunk:
                raise StartupError(f"{path.name} was cut while it was copied")
            target.write(chunk)
            size, since_sync = size - len(chunk), since_sync + len(chunk)
            progress(len(chunk))
            if since_sync >= SYNC_BYTES:
                target.flush()
                os.fdatasync(target.fileno())
                since_sync = 0
        target.flush()
        os.fsync(target.fileno())


def _write_synced(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _files(data: Path) -> Iterator[File]:
    for path in sorted(path for path in data.rglob("*") if path.is_file()):
        yield File(path.relative_to(data).as_posix(), path.stat().st_size, _digest(path, lambda _: None))


def _digest(path: Path, progress: Progress) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            progress(len(chunk))
    return digest.hexdigest()
