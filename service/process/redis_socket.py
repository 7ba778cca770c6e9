"""The Unix socket of the embedded Redis: in the data directory, or under TMPDIR if that path would be too long.

Under TMPDIR it is in a directory `scc-DEVICE-INODE-RANDOM`, and `redis.sock` in the data directory is a symbolic link to it.
DEVICE and INODE are those of the data directory. A copy of the data directory (`cp -a`) has the link too, but another inode:
the code neither follows the link from there nor removes its target.
"""

import os
import socket
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from time import monotonic
from urllib.parse import quote

from service.errors import StartupError

SOCKET = "redis.sock"

#: Bytes. The lowest limit on the path of a Unix socket: macOS 103, Linux 107.
SOCKET_PATH_LIMIT = 103

#: Seconds from a start until a socket that has not appeared counts as removed.
FIRST_SIGHT = 30.0

_PING_TIMEOUT = 1.0  # seconds

Identity = tuple[int, int]


def socket_path(directory: Path) -> Path:
    """Path of the socket on which the Redis of the data directory `directory` listens."""
    outside = _linked_directory(directory)
    return (outside or directory.resolve()) / SOCKET


def url(directory: Path) -> str:
    """URL of the Redis of the data directory `directory`, percent-encoded where needed."""
    return f"unix://{quote(os.fsencode(socket_path(directory)))}"


def ping(directory: Path) -> str | None:
    """The reply of the data directory's Redis to a PING (`+PONG`, `-LOADING …`); None if there is no reply."""
    path = socket_path(directory)
    if path.is_symlink():
        return None  # The directory is a copy, and its link points to the Redis of the original.
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_PING_TIMEOUT)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(512).decode(errors="replace").strip() or None
        except OSError:
            return None


class ServerSocket:
    """The socket of the Redis of one data directory, which the caller has locked."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._identity = _identity(directory)
        self._outside: Path | None = None
        self._is_placed = False
        self._socket: Identity | None = None
        self._deadline = 0.0

    def place(self) -> Path | str:
        """Prepare the directory of the socket and return the socket's path, absolute or relative to the data directory.

        The path never changes, because the workers have it from their start. A removed directory or link is created again.

        Raises:
            StartupError: the directory or link cannot be created, or the data directory was moved.
        """
        if _identity(self._directory) != self._identity:
            raise StartupError(f"data directory {self._directory} was moved or replaced while its server was running")
        try:
            return self._prepare()
        except OSError as error:
            raise StartupError(f"cannot create the socket of the embedded Redis: {error}") from None

    def is_lost(self) -> bool:
        """Whether the server's socket was removed or replaced, so that no client can connect."""
        if _identity(self._directory) != self._identity:
            return False  # A restart could not put it back.
        if self._outside is not None:
            with suppress(OSError):
                self._restore_link(self._outside)
        actual = _identity((self._outside or self._directory) / SOCKET)
        if self._socket is None:
            self._socket = actual
            return actual is None and monotonic() > self._deadline
        return actual != self._socket

    def remove(self) -> None:
        """Remove the socket and its directory under TMPDIR, if any; also those of a killed server."""
        if _identity(self._directory) == self._identity:
            outside = self._outside or _linked_directory(self._directory)
            (self._directory / SOCKET).unlink(missing_ok=True)
        else:
            outside = self._outside
        if outside is not None:
            with suppress(OSError):
                (outside / SOCKET).unlink(missing_ok=True)
                outside.rmdir()
        self._outside, self._is_placed = None, False

    def _prepare(self) -> Path | str:
        if not self._is_placed:
            self.remove()
            fits = _fits(self._directory.resolve() / SOCKET)
            self._outside = None if fits else _make_outside(self._directory)
            self._is_placed = True
        self._socket, self._deadline = None, monotonic() + FIRST_SIGHT
        if self._outside is None:
            (self._directory / SOCKET).unlink(missing_ok=True)
            return SOCKET
        _make_private(self._outside)
        (self._outside / SOCKET).unlink(missing_ok=True)
        self._restore_link(self._outside)
        return self._outside / SOCKET

    def _restore_link(self, outside: Path) -> None:
        link = self._directory / SOCKET
        if _linked_directory(self._directory) != outside:
            link.unlink(missing_ok=True)
            link.symlink_to(outside / SOCKET)


def _make_outside(directory: Path) -> Path:
    outside = Path(tempfile.mkdtemp(prefix=_prefix(directory)))
    if _fits(outside / SOCKET):
        return outside
    outside.rmdir()
    raise StartupError(f"the path {outside / SOCKET} is too long for a Unix socket; set TMPDIR to a shorter one")


def _make_private(path: Path) -> None:
    """Create the directory if it was removed. TMPDIR is world-writable, so another user may have created it."""
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise StartupError(f"{path} belongs to another user, or other users can access it; remove it")


def _linked_directory(directory: Path) -> Path | None:
    """The directory that the data directory's link points to; None if there is none, or it is another directory's."""
    try:
        target = (directory / SOCKET).readlink()
        prefix = _prefix(directory)
    except OSError:
        return None
    return target.parent if target.parent.name.startswith(prefix) else None


def _prefix(directory: Path) -> str:
    status = directory.stat()
    return f"scc-{status.st_dev:x}-{status.st_ino:x}-"


def _identity(path: Path) -> Identity | None:
    """Device and inode of the file at `path`; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= SOCKET_PATH_LIMIT
