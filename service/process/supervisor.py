"""The parent process of `serve`: starts Redis and the workers, replaces what dies, and ends all of it in order.

    supervisor ─┬─ Redis          (unless a Redis URL is set)
                ├─ worker 1       each has a listening socket of its own,
                └─ worker n       all on one port

The supervisor keeps every listening socket open, so that connections wait while a worker is replaced. It runs no thread and no
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
from typing import BinaryIO, NamedTuple

from service.errors import OutputError
from service.process import data_dir, open_files, streams
from service.process.embedded_redis import EmbeddedRedis
from service.process.heartbeat import INTERVAL, Limits
from service.process.listeners import check_free, open_listeners, origin, stop_accepting
from service.process.parent_death import ParentPipe
from service.process.workers import Signals, Supervision, Watched, Worker
from service.settings import Settings, variable

logger = logging.getLogger(__name__)

API = "/api/v1"

#: Seconds that workers get beyond the longest wait for requests in flight, before they are killed.
DRAIN_GRACE = 5.0

#: Seconds between two looks at the socket of the embedded Redis.
SOCKET_INTERVAL = 1.0


class Parts(NamedTuple):
    """What the supervisor runs: `prepare` first, then `run_worker` in every worker, until SIGTERM.

    `prepare` waits for Redis; it returns early when the function that it is given says that the wait is to end. A worker whose
    heartbeat is silent beyond `limits` is killed and replaced.
    """

    prepare: Callable[[Settings, Callable[[], bool]], object]
    run_worker: Callable[[Settings, socket.socket, Supervision], object]
    limits: Limits = Limits()


def load_parts() -> Parts:
    """The parts of the service. Their import takes longer than Redis to start, so it runs meanwhile."""
    from service.http.app import run_worker
    from service.store.upkeep.bootstrap import prepare

    return Parts(prepare, run_worker)


def serve(settings: Settings, load: Callable[[], Parts] = load_parts) -> None:
    """Serve until SIGTERM or SIGINT. A second signal, a second later or more, cuts the wait for requests in flight short.

    Raises:
        StartupError: the data directory or the port is taken, too few files may be opened, or Redis cannot be started or used.
    """
    open_files.require(settings.workers)
    with Signals() as signals:
        if settings.redis_url:
            check_free(settings.host, settings.port)
            _prepare_and_work(data_dir.with_secrets(settings), load(), signals, key_made_up=not settings.root_token)
            return
        directory = data_dir.create(settings.data_dir)
        with data_dir.lock(directory) as lock:
            check_free(settings.host, settings.port)
            _serve_embedded(settings, load, signals, lock)


def _serve_embedded(settings: Settings, load: Callable[[], Parts], signals: Signals, lock: BinaryIO) -> None:
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
        redis.wait(give_up=lambda: signals.stops > 0)
        resolved = replace(resolved, redis_url=redis.url)
        _prepare_and_work(resolved, parts, signals, key_made_up=not settings.root_token, redis=redis, lock=lock)
    finally:
        redis.stop()


def _prepare_and_work(
    settings: Settings,
    parts: Parts,
    signals: Signals,
    *,
    key_made_up: bool,
    redis: EmbeddedRedis | None = None,
    lock: BinaryIO | None = None,
) -> None:
    """Everything from the wait for Redis to the end of the last worker."""
    parts.prepare(settings, lambda: signals.stops > 0)
    if signals.stops:
        return
    listeners = open_listeners(settings.host, settings.port, settings.workers)
    base_url = origin(listeners[0]) + API
    parent_pipe = ParentPipe()
    workers = [
        Worker(f"worker {number}", partial(_work, settings, parts, one, listeners, lock), signals, parent_pipe, parts.limits)
        for number, one in enumerate(listeners, 1)
    ]
    try:
        for worker in workers:
            worker.start()
        _announce(ready_text(base_url, settings.root_token if key_made_up else None))
        _watch(signals, workers, redis)
    finally:
        # First the sockets: no new connection is taken into a queue that nobody will serve.
        for listener in listeners:
            stop_accepting(listener)
            listener.close()
        _end(workers, signals, settings.shutdown_timeout + DRAIN_GRACE)
        parent_pipe.close()


def _work(
    settings: Settings,
    parts: Parts,
    listener: socket.socket,
    listeners: list[socket.socket],
    lock: BinaryIO | None,
    supervision: Supervision,
) -> None:
    """In the forked worker: let go of what belongs to the others, then serve."""
    for other in listeners:
        if other is not listener:
            other.close()
    if lock is not None:
        lock.close()
    parts.run_worker(settings, listener, supervision)


def _announce(text: str) -> None:
    """Print what an operator needs to know; a server without a standard output works as well."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, OutputError) as error:
        streams.discard_output()
        logger.warning("the address and the key are not shown: %s", error)


def _watch(signals: Signals, workers: list[Worker], redis: EmbeddedRedis | None) -> None:
    """Replace what ends or hangs, until a signal asks for the end."""
    now = time.monotonic()
    watched = [Watched(one.name, one.start, one.ended, now) for one in workers]
    if redis is not None:
        watched.append(Watched("the embedded Redis", redis.relaunch, redis.ended, now))
    while not signals.stops:
        now = time.monotonic()
        for worker in workers:
            worker.end_if_hung(now)
        pause = min(INTERVAL, *(one.look(now) for one in watched))
        if redis is not None:
            redis.restart_if_socket_is_lost()
            pause = min(pause, SOCKET_INTERVAL)
        signals.wait(pause)


def _end(workers: list[Worker], signals: Signals, patience: float) -> None:
    """Let the workers finish what they do, `patience` seconds at most, and less when another signal comes."""
    for worker in workers:
        worker.send(signal.SIGTERM)
    deadline = time.monotonic() + patience
    while any(worker.ended() is None for worker in workers):
        left = deadline - time.monotonic()
        if left < 0 or signals.stops > 1:
            logger.warning("requests in flight are cut off")
            for worker in workers:
                worker.send(signal.SIGKILL)
        signals.wait(max(left, 1.0))


def ready_text(base_url: str, token: str | None) -> str:
    """What stands on the screen once connections are taken; `token` is None where the operator set it."""
    lines = [f"Session Config Cache is ready at {base_url}"]
    if token is None:
        return "\n".join([*lines, f"key: from {variable('root_token')}", ""])
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
