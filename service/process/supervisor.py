"""The parent process of `serve`: starts Redis and the workers, restarts those that die, and shuts all of them down.

    supervisor ─┬─ Redis          (unless a Redis URL is set)
                ├─ admin server   (if it has a port)
                ├─ worker 1       each with a listening socket,
                └─ worker n       all on one port

The supervisor keeps every listening socket open, so that connections wait while a worker is replaced. It has no threads and no
event loop, so it can fork at any time.
"""

import logging
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import BinaryIO, NamedTuple, TypeAlias

from service.errors import OutputError
from service.process import data_dir, logs, open_files, streams
from service.process.embedded_redis import EmbeddedRedis
from service.process.heartbeat import INTERVAL, Limits
from service.process.listeners import check_free, open_listeners, origin, stop_accepting
from service.process.parent_death import ParentPipe
from service.process.reload import Read, settings_again
from service.process.slots import Slots
from service.process.systemd import Notifier
from service.process.worker_pool import DRAIN_GRACE, MAX_PROCESSES, WorkerPool
from service.process.workers import Signals, Supervision, Watched, WorkerProcess
from service.settings import API_PREFIX, NO_PORT, Settings

logger = logging.getLogger(__name__)

#: Seconds between two checks of the embedded Redis's socket.
SOCKET_INTERVAL = 1.0

#: Serves on a listening socket in a child process, until SIGTERM or RETIRE.
Run: TypeAlias = Callable[[Settings, socket.socket, Supervision], object]


class Parts(NamedTuple):
    """What the supervisor runs: first `prepare`, then `run_worker` in every worker, until SIGTERM.

    `prepare` waits for Redis, until the function passed to it returns true. A worker whose heartbeat exceeds `limits` is killed
    and replaced. `run_admin` serves the admin port in a process of its own, from slots of `slot_words` words.
    """

    prepare: Callable[[Settings, Callable[[], bool]], object]
    run_worker: Run
    run_admin: Callable[[Slots, Settings, socket.socket, Supervision], object]
    slot_words: int
    limits: Limits = Limits()


def serve(settings: Settings, load: Callable[[], Parts], read_again: Read | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Another signal, at least a second later, ends the wait for requests in flight.

    `load` imports the parts, which takes longer than Redis takes to start; so it runs while Redis starts. With
    `read_again`, SIGHUP replaces the workers by some with the settings that it returns; without, SIGHUP is like SIGTERM.

    Raises:
        StartupError: the data directory or the port is in use, the limit on open files is too low, or Redis cannot be started
            or used.
    """
    open_files.require(settings.workers)
    with Signals(reloads=read_again is not None) as signals:
        server = _Server(settings, signals, Notifier(), read_again)
        if settings.redis_url:
            _check_ports(settings)
            server.run(data_dir.with_secrets(settings), load())
            return
        directory = data_dir.create(settings.data_dir)
        with data_dir.lock(directory) as lock:
            _check_ports(settings)
            _serve_embedded(server, load, lock)


def _serve_embedded(server: "_Server", load: Callable[[], Parts], lock: BinaryIO) -> None:
    settings = server.initial
    resolved = data_dir.with_secrets(settings)
    redis = EmbeddedRedis(
        settings.data_dir,
        fsync=settings.fsync,
        server=settings.redis_server,
        max_memory=settings.max_memory,
        keep_open=(lock.fileno(),),
    )
    try:
        redis.launch()
        parts = load()
        redis.wait(give_up=lambda: server.signals.stop_requests > 0)
        server.run(replace(resolved, redis_url=redis.url), parts, redis, lock)
    finally:
        redis.stop()


class _Server(NamedTuple):
    """A server as it was started: its settings before what the start finds out, and how to read them again."""

    initial: Settings
    signals: Signals
    notifier: Notifier
    read_again: Read | None

    def run(self, settings: Settings, parts: Parts, redis: EmbeddedRedis | None = None, lock: BinaryIO | None = None) -> None:
        """Wait for Redis, then run the workers until the last one has exited."""
        parts.prepare(settings, lambda: self.signals.stop_requests > 0)
        if self.signals.stop_requests:
            return
        listeners = open_listeners(settings.host, settings.port, settings.workers)
        base_url = origin(listeners[0]) + API_PREFIX
        admin = _open_admin(settings, parts)
        slots = None if admin is None else admin.slots
        all_listeners = listeners if admin is None else [*listeners, admin.listener]
        parent_pipe = ParentPipe()

        def make(name: str, run: Run, listener: socket.socket, slots: Slots | None, settings: Settings) -> WorkerProcess:
            run_child = partial(_run_child, partial(run, settings), listener, all_listeners, lock)
            return WorkerProcess(name, run_child, settings, self.signals, parent_pipe, parts.limits, slots)

        makes = [
            partial(make, f"worker {number}", parts.run_worker, listener, slots) for number, listener in enumerate(listeners, 1)
        ]
        if admin is not None:
            makes.append(partial(make, "the admin server", partial(parts.run_admin, admin.slots), admin.listener, None))
        pool = WorkerPool(makes, settings, logs.configure)
        try:
            pool.start(time.monotonic())
            admin_url = None if admin is None else origin(admin.listener)
            _print_ready(ready_text(base_url, None if self.initial.root_token else settings.root_token, admin_url))
            self._supervise(pool, redis)
        finally:
            self.notifier.stopping()
            # The sockets first: new connections must not enter a queue that nobody will serve.
            for listener in all_listeners:
                stop_accepting(listener)
                listener.close()
            _stop_workers(pool.processes, self.signals)
            parent_pipe.close()

    def _supervise(self, pool: WorkerPool, redis: EmbeddedRedis | None) -> None:
        """Restart child processes that exit or hang, and reload the settings, until a stop signal."""
        now = time.monotonic()
        watched = [] if redis is None else [Watched("the embedded Redis", redis.relaunch, redis.exit_reason, now)]
        while not self.signals.stop_requests:
            if self.read_again is not None and self.signals.take_reload_request():
                self.notifier.reloading()
                settings = settings_again(self.read_again, self.initial, pool.settings)
                if settings is not None:
                    pool.replace(settings, time.monotonic())
            now = time.monotonic()
            pause = min(INTERVAL, pool.poll(now), *(child.poll(now) for child in watched))
            if not pool.is_replacing:
                self.notifier.ready()
            if redis is not None:
                redis.restart_if_socket_is_lost()
                pause = min(pause, SOCKET_INTERVAL)
            self.signals.wait(pause)


class Admin(NamedTuple):
    """The admin port: its listening socket, and the slots in which the workers count."""

    listener: socket.socket
    slots: Slots


def _open_admin(settings: Settings, parts: Parts) -> Admin | None:
    """Open the admin port, if there is one."""
    if settings.admin_port == NO_PORT:
        return None
    (listener,) = open_listeners(settings.admin_host, settings.admin_port, 1)
    # The pool has a socket more than there are workers: this one.
    return Admin(listener, Slots(MAX_PROCESSES * (settings.workers + 1), parts.slot_words))


def _check_ports(settings: Settings) -> None:
    """Check that the ports are free, before anything is started."""
    check_free(settings.host, settings.port)
    if settings.admin_port != NO_PORT:
        check_free(settings.admin_host, settings.admin_port)


def _run_child(
    run: Callable[[socket.socket, Supervision], object],
    listener: socket.socket,
    listeners: list[socket.socket],
    lock: BinaryIO | None,
    supervision: Supervision,
) -> None:
    """In a forked child: close the listeners of the others and the lock, then serve."""
    for other in listeners:
        if other is not listener:
            other.close()
    if lock is not None:
        lock.close()
    run(listener, supervision)


def _print_ready(text: str) -> None:
    """Print the address and the key; without a standard output, log a warning."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, OutputError) as error:
        streams.discard_output()
        logger.warning("cannot print the address and the key: %s", error)


def _stop_workers(workers: list[WorkerProcess], signals: Signals) -> None:
    """Stop the workers; kill those still running after the longest shutdown timeout of them, or after another stop signal."""
    for worker in workers:
        worker.send(signal.SIGTERM)
    deadline = time.monotonic() + max(worker.settings.shutdown_timeout for worker in workers) + DRAIN_GRACE
    while any(worker.exit_reason() is None for worker in workers):
        remaining = deadline - time.monotonic()
        if remaining < 0 or signals.stop_requests > 1:
            logger.warning("killing the workers; requests in flight are lost")
            for worker in workers:
                worker.send(signal.SIGKILL)
        signals.wait(max(remaining, 1.0))


def ready_text(base_url: str, token: str | None, admin_url: str | None = None) -> str:
    """What `serve` prints once the server accepts connections; `token` is None if the operator set it."""
    lines = [f"Session Config Cache is ready at {base_url}"]
    if admin_url is not None:
        lines.append(f"metrics: {admin_url}/metrics")
    if token is None:
        return "\n".join([*lines, "key: from setting root_token", ""])
    key = f"sk-ac-{token}"
    return "\n".join(
        [
            *lines,
            f"key: {key}",
            "",
            f"curl -H 'Authorization: Bearer {key}' {base_url}/session",
            "",
            f'from acontext import AcontextClient; client = AcontextClient(base_url="{base_url}", api_key="{key}")',
            "",
        ]
    )
