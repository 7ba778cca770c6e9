"""The composition root of a worker process: Redis client, dispatch with the routes of the API, server, sweeper."""

import asyncio
import gc
import logging
import os
import signal
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import uvloop
from aiohttp import web

from service.http.api import conditions
from service.http.api.routes import HEALTH_PATH, NOT_SERVED, PAGES, ROUTES
from service.http.server.connections import Server
from service.http.server.context import WorkerContext
from service.http.server.counters import Counters, Layout
from service.http.server.dispatch import Dispatch
from service.http.server.protocol import Protocol
from service.http.server.router import Router
from service.process.heartbeat import INTERVAL
from service.process.listeners import BACKLOG, has_pending
from service.process.open_files import raise_limit
from service.process.workers import CHILD_SIGNALS, IDLE_GRACE, RETIRE, Supervision
from service.redis_client.client import RedisClient
from service.settings import API_PREFIX, Settings
from service.store.script_calls import SCRIPTS
from service.store.upkeep.sweeper import Sweeper

if TYPE_CHECKING:
    from service.http.server.tracing import Tracing

#: New objects after which Python looks for cycles; a request leaves no cycle behind.
GC_THRESHOLD = 20_000
#: Seconds of a shutdown: for handshakes and requests that are already in transit, and for the first request of a connection
#: that has sent none yet.
LAST_CALL, FIRST_REQUEST = 0.1, 1.0
#: Method, path and endpoint of everything that a worker serves.
_ENDPOINTS = [*((route.method, route.path, route.endpoint) for route in ROUTES), *PAGES]
#: What a worker counts, and where.
LAYOUT = Layout(((method, path) for method, path, _ in _ENDPOINTS), ((each.sha, each.name) for each in SCRIPTS))
#: Files that a worker opens in addition to its connections, with room to spare.
OTHER_FILES = 64

logger = logging.getLogger("service")


def run_worker(settings: Settings, listener: socket.socket, supervision: Supervision) -> None:
    """Serve on `listener` until SIGTERM or RETIRE, then drain the requests in flight and return. Unblocks these signals.

    The process exits, whatever is in flight, as soon as its supervisor is dead: another server may own the store by then.
    """
    # Objects that exist before the first request live for ever. The collector skips them, so their pages stay shared with the
    # supervisor, and it runs less often than at every 700th object.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    uvloop.run(_serve(replace(settings, max_connections=_connections(settings.max_connections)), listener, supervision))


def _connections(maximum: int) -> int:
    """How many connections this process may have open: `maximum`, or fewer if the limit on open files is too low."""
    files = raise_limit(maximum + OTHER_FILES)
    if files == maximum + OTHER_FILES:
        return maximum
    connections = files - min(OTHER_FILES, files // 2)
    logger.warning("the limit on open files is %d (ulimit -n): at most %d connections, not %d", files, connections, maximum)
    return connections


def _dispatch(worker: WorkerContext) -> Dispatch:
    router = Router(_ENDPOINTS, NOT_SERVED)
    return Dispatch(worker, router, conditions.parse, api_prefix=API_PREFIX, health_path=HEALTH_PATH)


def _start_tracing(worker: WorkerContext) -> "Tracing | None":
    if not worker.settings.otel:
        return None
    from service.http.server.tracing import Tracing  # Its packages are optional.

    return Tracing.start(worker)


def beat(loop: asyncio.AbstractEventLoop, supervision: Supervision) -> None:
    """Tell the supervisor that the process serves and its event loop runs, also while it drains, until the loop is closed.

    Call it once the process accepts connections: its predecessor ends then.
    """
    supervision.beat()
    loop.call_later(INTERVAL, beat, loop, supervision)


class EndEvents(NamedTuple):
    """Every signal sets `end`: the process is to end. SIGTERM and SIGINT set `hurry` too; RETIRE does not."""

    end: asyncio.Event
    hurry: asyncio.Event


def end_events(supervision: Supervision) -> EndEvents:
    """The events that the signals set from now on. The process exits as soon as its supervisor is dead."""
    end, hurry = events = EndEvents(asyncio.Event(), asyncio.Event())
    loop = asyncio.get_running_loop()
    loop.add_reader(supervision.parent_pipe, os._exit, 1)

    def stop() -> None:
        hurry.set()
        end.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop)
    loop.add_signal_handler(RETIRE, end.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, CHILD_SIGNALS)
    return events


def _report(loop: asyncio.AbstractEventLoop, counters: Counters, worker: WorkerContext, server: Server) -> None:
    """Note again and again how many requests and connections there are."""
    counters.update(worker.admission.in_flight, server.open_connections)
    loop.call_later(INTERVAL, _report, loop, counters, worker, server)


async def _serve(settings: Settings, listener: socket.socket, supervision: Supervision) -> None:
    loop = asyncio.get_running_loop()
    events = end_events(supervision)
    redis = RedisClient.open(
        settings.redis_url,
        timeout=settings.command_timeout,
        min_replicas=settings.min_replicas,
        partitions=settings.partitions,
    )
    counters = None if supervision.slot is None else Counters(LAYOUT, supervision.slot)
    worker = WorkerContext(settings, redis, counters)
    tracing = _start_tracing(worker)
    dispatch = _dispatch(worker)
    server = Server(dispatch if tracing is None else tracing.traced(dispatch), settings, Protocol, worker.observer)
    if counters is not None:
        _report(loop, counters, worker, server)
    runner = web.ServerRunner(server, shutdown_timeout=settings.shutdown_timeout)
    await runner.setup()
    sweeper = Sweeper(redis, settings.partitions, count=None if counters is None else counters.expired)
    background = [asyncio.create_task(work) for work in (sweeper.run(), worker.config_watch.run())]
    try:
        await web.SockSite(runner, listener, backlog=BACKLOG).start()
        beat(loop, supervision)
        await events.end.wait()
        dispatch.start_draining()
        if not events.hurry.is_set():
            await stop_accepting(runner)
            await serve_idle(server, events.hurry, min(IDLE_GRACE, settings.shutdown_timeout))
        await _last_call(server, listener, min(FIRST_REQUEST, settings.shutdown_timeout))
        await stop_accepting(runner)
        await dispatch.drain(settings.shutdown_timeout)
    finally:
        for task in background:
            task.cancel()
        await asyncio.wait(background)
        await runner.cleanup()
        await redis.close()
        if tracing is not None:
            tracing.stop()


async def stop_accepting(runner: web.ServerRunner) -> None:
    """Close the listening socket in this process; its supervisor and its successor have it too."""
    for site in runner.sites:
        await site.stop()


async def serve_idle(server: Server, hurry: asyncio.Event, seconds: float) -> None:
    """Wait until every connection has had another request, which ends it; for `seconds` at most, and not if it is urgent."""
    now = asyncio.get_running_loop().time
    deadline = now() + seconds
    # Those that were accepted last are not open yet.
    await asyncio.sleep(min(LAST_CALL, seconds))
    while now() < deadline and server.open_connections and not hurry.is_set():  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(LAST_CALL / 10)


async def _last_call(server: Server, listener: socket.socket, seconds: float) -> None:
    """Accept pending connections and wait for their first requests: their clients do not know that the server is stopping."""
    now = asyncio.get_running_loop().time
    deadline = now() + seconds
    await asyncio.sleep(min(LAST_CALL, seconds))
    while now() < deadline and (has_pending(listener) or server.awaits_first_request()):  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(LAST_CALL / 10)
