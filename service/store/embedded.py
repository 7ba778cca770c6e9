"""The embedded Redis: a `redis-server` of our own on a Unix socket, with an append-only file in the data directory.

It is started and stopped by the supervisor; every other process only needs `url` and `ping`.
"""

import logging
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from service.errors import StartupError
from service.lifetime import ending_with_this
from service.store.binaries import Version, find_server

logger = logging.getLogger(__name__)

SOCKET, LOG = "redis.sock", "redis.log"

#: Bytes. The shortest limit of the systems in use (macOS 103, Linux 107) on the path of a Unix socket.
SOCKET_PATH_LIMIT = 103

#: Seconds until a start that is still loading its file is worth a message.
SLOW_START = 2.0

#: Seconds for an orderly stop: the rest of the append-only file is written and synced, however slow the disk is.
STOP_TIMEOUT = 120.0

_TAIL_LINES, _TAIL_BYTES = 5, 4096
_PING_TIMEOUT = 1.0  # seconds
_SOCKET_HOME = "scc-"

CONFIG = """\
port 0
unixsocket "{socket}"
unixsocketperm 700
daemonize no
supervised no
dir .
logfile {log}
appendonly yes
appendfsync {fsync}
save ""
set-max-intset-entries 4096
hash-max-{packed}-value 8192
"""


def socket_path(directory: Path) -> Path:
    """Where the Redis of the data directory `directory` listens.

    The directory holds the socket, or a link to it where its own path is too long for one.
    """
    return (directory.absolute() / SOCKET).resolve()


def url(directory: Path) -> str:
    """URL of the Redis of the data directory `directory`; `%` escapes what a URL cannot hold."""
    return f"unix://{quote(os.fsencode(socket_path(directory)))}"


def ping(directory: Path) -> str | None:
    """What the Redis of the data directory answers to a PING (`+PONG`, `-LOADING …`), None where nobody answers."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_PING_TIMEOUT)
        try:
            client.connect(str(socket_path(directory)))
            client.sendall(b"PING\r\n")
            return client.recv(512).decode(errors="replace").strip() or None
        except OSError:
            return None


class EmbeddedRedis:
    """One `redis-server` process for one data directory that the caller has locked.

    `keep_open` are file descriptors that Redis inherits: with the lock's among them, the directory stays taken as long as Redis
    lives, even when this process was killed. `server` names the binary, empty takes the best one found.
    """

    def __init__(self, directory: Path, *, fsync: str, server: str = "", keep_open: tuple[int, ...] = ()) -> None:
        self.directory = directory.absolute()
        self._fsync = fsync
        self._keep_open = keep_open
        self._binary, self._version = find_server(server)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: Path | None = None
        self._log_start = 0
        _refuse_newer_file(self.directory, self._binary, self._version)

    @property
    def url(self) -> str:
        """URL to connect to; valid once launched."""
        return url(self.directory)

    @property
    def pid(self) -> int | None:
        """Process id, None unless it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def ended(self) -> str | None:
        """How the process ended, None while it runs."""
        if self._process is None:
            return "not started"
        status = self._process.poll()
        return None if status is None else f"exit status {status}; {self._log_tail()}"

    def launch(self) -> None:
        """Start the process and return at once; `wait` tells when it answers.

        Raises:
            StartupError: it cannot be started.
        """
        packed = "listpack" if self._version >= (7, 0) else "ziplist"
        config = CONFIG.format(socket=_escaped(self._place_socket()), log=LOG, fsync=self._fsync, packed=packed)
        # Relative paths and a working directory need no quoting, whatever the data directory is called.
        log = os.open(self.directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._log_start = os.fstat(log).st_size
            self._process = subprocess.Popen(  # noqa: S603 - the binary is the one found, or named by the operator
                ending_with_this([self._binary, "-"]),
                cwd=self.directory,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=self._keep_open,
                umask=0o077,
                # Out of reach of a terminal's Ctrl-C: the workers end first.
                start_new_session=True,
            )
        except OSError as error:
            raise StartupError(f"{self._binary} cannot be started: {error.strerror}") from None
        finally:
            os.close(log)
        self._send_config(config)

    def wait(self, give_up: Callable[[], bool] = lambda: False) -> None:
        """Wait until it answers and its file is loaded, for as long as it lives; until `give_up()` at most.

        Raises:
            StartupError: it ended; the message has the last lines of its log.
        """
        started = time.monotonic()
        told = False
        while ping(self.directory) != "+PONG" and not give_up():
            how = self.ended()
            if how is not None:
                raise StartupError(f"the embedded Redis ended: {how}")
            if not told and time.monotonic() - started > SLOW_START:
                logger.info("the embedded Redis is loading its file, see %s", self.directory / LOG)
                told = True
            time.sleep(0.01 if not told else 0.2)

    def stop(self) -> None:
        """End it in order: what it holds is written and synced. Harmless where it does not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                logger.warning("the embedded Redis did not end within %.0f s and is killed", STOP_TIMEOUT)
                self._process.kill()
                self._process.wait()
        self._remove_socket()

    def _send_config(self, config: str) -> None:
        assert self._process is not None  # noqa: S101 - for the type checker
        assert self._process.stdin is not None  # noqa: S101 - as above
        try:
            with self._process.stdin as pipe:
                pipe.write(os.fsencode(config))
        except BrokenPipeError:
            pass  # It ended at once; `wait` tells why.

    def _place_socket(self) -> Path | str:
        """Choose where the socket goes: into the directory, or elsewhere where that path would be too long to connect to.

        It stays there for good: the workers know its path from the start.
        """
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)
            return self._socket
        self._remove_socket()
        if _fits(self.directory.resolve() / SOCKET):
            return SOCKET
        outside = Path(tempfile.mkdtemp(prefix=_SOCKET_HOME)) / SOCKET
        if not _fits(outside):
            raise StartupError(f"the path {outside} is too long for a Unix socket; set TMPDIR to a shorter one")
        (self.directory / SOCKET).symlink_to(outside)
        self._socket = outside
        return outside

    def _remove_socket(self) -> None:
        """Remove the socket, and the directory made for it if there was one; also what a killed server left."""
        inside = self.directory / SOCKET
        if inside.is_symlink():
            home = inside.readlink().parent
            if home.name.startswith(_SOCKET_HOME):
                shutil.rmtree(home, ignore_errors=True)
        inside.unlink(missing_ok=True)
        self._socket = None

    def _log_tail(self) -> str:
        """The last lines that this process wrote to its log, in one line."""
        with (self.directory / LOG).open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").split("\n")
        told = [line.strip() for line in lines if line.strip()][-_TAIL_LINES:]
        return f"the end of {self.directory / LOG}: " + " | ".join(told)


def _escaped(path: Path | str) -> str:
    """`path` as it stands between double quotes in Redis's configuration; only a TMPDIR can make this necessary."""
    return str(path).replace("\\", "\\\\").replace('"', '\\"')


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= SOCKET_PATH_LIMIT


def _refuse_newer_file(directory: Path, binary: str, version: Version) -> None:
    # Redis 6.2 does not look into the directory where 7 keeps its file: it would start empty, and all would seem lost.
    if version < (7, 0) and (directory / "appendonlydir").exists():
        raise StartupError(
            f"{directory} was written by Redis 7 or newer, and {binary} is older; put a newer redis-server on PATH"
        )


def _environment() -> dict[str, str]:
    # Our secrets may be in the environment; Redis has no use for them. It refuses to start with a locale it does not know.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SCC_")}
    return kept | {"LC_ALL": "C"}
