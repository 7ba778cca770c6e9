"""The embedded Redis: a server process of our own on a Unix socket, with an append-only file in the data directory.

It is started and stopped by the supervisor; every other process only needs `url` and `ping`.
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

#: Seconds until a start that is still loading its file is worth a message.
SLOW_START = 2.0

#: Seconds for an orderly stop: the rest of the append-only file is written and synced, however slow the disk is.
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
    """One server process for one data directory that the caller has locked.

    `keep_open` are file descriptors that Redis inherits: with the lock's among them, the directory stays taken as long as Redis
    lives, even when this process was killed. `server` names the binary; empty takes the first of `binaries.servers` that can
    read what is in the directory. `max_memory` is what its data may take, in bytes, 0 for no limit; what is in the directory is
    loaded whatever it takes.

    Raises:
        StartupError: there is no such server.
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
        packed = "listpack" if self._server.version >= (7, 0) else "ziplist"
        config = CONFIG.format(
            socket=_escaped(self._socket.place()), log=LOG, fsync=self._fsync, packed=packed, max_memory=self._max_memory
        )
        aof_format.remove_temporary_files(self.directory)
        aof_format.write_record(self.directory, self._server)
        self._is_restarting = False
        # Relative paths and a working directory need no quoting, whatever the data directory is called.
        log = os.open(self.directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._log_start = os.fstat(log).st_size
            self._process = subprocess.Popen(  # noqa: S603 - the binary is the one found, or named by the operator
                with_parent_death_signal([self._server.path, "-"]),
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
            raise StartupError(f"{self._server.path} cannot be started: {error.strerror}") from None
        finally:
            os.close(log)
        self._send_config(config)

    def wait(self, give_up: Callable[[], bool] = lambda: False) -> None:
        """Wait until it answers and its file is loaded, for as long as it lives; until `give_up()` at most.

        Raises:
            StartupError: it ended; the message has the last lines of its log, or says how its file is damaged.
        """
        started = time.monotonic()
        told = False
        while ping(self.directory) != "+PONG" and not give_up():
            self.restart_if_socket_is_lost()
            how = self.ended()
            if how is not None and (self._is_restarting or self._cut_off_refused_write()):
                self.launch()
            elif how is not None:
                raise StartupError(f"the embedded Redis ended: {how}")
            if not told and time.monotonic() - started > SLOW_START:
                logger.info("the embedded Redis is loading its file, see %s", self.directory / LOG)
                told = True
            time.sleep(0.01 if not told else 0.2)

    def relaunch(self) -> None:
        """Start the process again after it ended; raises as `launch`, and where its file is damaged."""
        self._cut_off_refused_write()
        self.launch()

    def _cut_off_refused_write(self) -> bool:
        """Cut off an interrupted write where the process ended because it refused to load it; whether there was one."""
        refused = self._process is not None and (self._process.poll() or 0) > 0
        return refused and aof_tail.cut_off_interrupted_write(self.directory, self._server)

    def restart_if_socket_is_lost(self) -> None:
        """End it in order where nobody can connect any more because its socket was removed; the caller replaces what ended."""
        if self._process is None or self._process.poll() is not None or not self._socket.is_lost():
            return
        if not self._is_restarting:
            logger.warning("the socket of the embedded Redis was removed; it is restarted")
        self._is_restarting = True
        self._process.terminate()

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
        try:
            self._socket.remove()
        except OSError as error:
            # The file system has become read-only, say. The next start removes it.
            logger.warning("the socket of the embedded Redis cannot be removed: %s", error)

    def _send_config(self, config: str) -> None:
        assert self._process is not None  # noqa: S101 - for the type checker
        assert self._process.stdin is not None  # noqa: S101 - as above
        try:
            with self._process.stdin as pipe:
                pipe.write(os.fsencode(config))
        except BrokenPipeError:
            pass  # It ended at once; `wait` tells why.

    def _log_tail(self) -> str:
        """The last lines that this process wrote to its log, in one line."""
        try:
            with (self.directory / LOG).open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, end - _TAIL_BYTES))
                lines = log.read().decode(errors="replace").split("\n")
        except OSError as error:
            return f"its log cannot be read: {error}"
        told = [line.strip() for line in lines if line.strip()][-_TAIL_LINES:]
        return f"the end of {self.directory / LOG}: " + " | ".join(told)


def choose_server(directory: Path, named: str) -> Server:
    """The first server that can read what is in the data directory."""
    data = aof_format.examine(directory)
    candidates = servers(named)
    readers = [server for server in candidates if data.is_readable_by(server)]
    author = Server("", *data.record).name if data.record else "another version"
    if not readers:
        names = ", ".join(f"{server.path} ({server.name})" for server in candidates)
        raise StartupError(
            f"data directory {directory} was written by {author} and cannot be read by {names}; "
            f"install {data.needs}, or name one with {flag('redis_server')}"
        )
    for server in candidates[: candidates.index(readers[0])]:
        logger.warning(
            "%s (%s) cannot read data directory %s, which was written by %s; using %s (%s)",
            server.path, server.name, directory, author, readers[0].path, readers[0].name,
        )  # fmt: skip
    return readers[0]


def _escaped(path: Path | str) -> str:
    """`path` as it stands between double quotes in Redis's configuration; only a TMPDIR can make this necessary."""
    return str(path).replace("\\", "\\\\").replace('"', '\\"')


def _environment() -> dict[str, str]:
    # Our secrets may be in the environment; Redis has no use for them. It refuses to start with a locale it does not know.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SCC_")}
    return kept | {"LC_ALL": "C"}
