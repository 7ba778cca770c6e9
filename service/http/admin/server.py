"""The process that serves the admin port: `/metrics` for all workers together, `/health` and `/ready`.

It reads what the workers count from shared memory, so it answers while they are busy, hang, or are being replaced. It has its
own connection to Redis, to see whether that answers.
"""

import asyncio
import socket
from dataclasses import replace

import uvloop
from aiohttp import web

from service.http.admin.exposition import Exposition
from service.http.admin.redis_state import redis_state
from service.http.api import conditions, health
from service.http.api.routes import HEALTH_PATH
from service.http.app import LAYOUT, beat, end_events, serve_idle, stop_accepting
from service.http.server.connections import Server
from service.http.server.context import Call, Handler, WorkerContext
from service.http.server.dispatch import Dispatch, Endpoint
from service.http.server.protocol import Protocol
from service.http.server.response import Response
from service.http.server.router import Router
from service.process.listeners import BACKLOG
from service.process.slots import Slots
from service.process.workers import IDLE_GRACE, Supervision
from service.redis_client.client import RedisClient
from service.settings import API_PREFIX, Settings

#: Seconds within which Redis must reply: less than Prometheus waits for the metrics.
REDIS_TIMEOUT = 2.0
#: Of Prometheus, probes and people. An idle connection is closed for a new one.
MAX_CONNECTIONS = 64


def run_admin(slots: Slots, settings: Settings, listener: socket.socket, supervision: Supervision) -> None:
    """Serve on `listener` until SIGTERM or RETIRE. Unblocks these signals."""
    # Neither in the access log nor slowed down by a rate limit.
    settings = replace(
        settings,
        access_log=False,
        rate_limit=0.0,
        command_timeout=min(settings.command_timeout, REDIS_TIMEOUT),
        max_connections=min(settings.max_connections, MAX_CONNECTIONS),
    )
    uvloop.run(_serve(settings, slots, listener, supervision))


async def _serve(settings: Settings, slots: Slots, listener: socket.socket, supervision: Supervision) -> None:
    events = end_events(supervision)
    redis = RedisClient.open(settings.redis_url, timeout=settings.command_timeout)
    context = WorkerContext(settings, redis)
    dispatch = Dispatch(context, _router(slots), conditions.parse, api_prefix=API_PREFIX, health_path=HEALTH_PATH)
    server = Server(dispatch, settings, Protocol)
    runner = web.ServerRunner(server, shutdown_timeout=0)
    await runner.setup()
    watch = asyncio.create_task(context.config_watch.run())
    try:
        await web.SockSite(runner, listener, backlog=BACKLOG).start()
        beat(asyncio.get_running_loop(), supervision)
        await events.end.wait()
        if not events.hurry.is_set():
            dispatch.start_draining()
            await stop_accepting(runner)
            await serve_idle(server, events.hurry, min(IDLE_GRACE, settings.shutdown_timeout))
    finally:
        watch.cancel()
        await asyncio.wait([watch])
        await runner.cleanup()
        await redis.close()


def _router(slots: Slots) -> Router[Endpoint]:
    handlers = {HEALTH_PATH: health.health, "/ready": health.ready, "/metrics": _metrics(Exposition(LAYOUT, slots))}
    return Router(("GET", path, Endpoint(path, handler, frozenset(), frozenset())) for path, handler in handlers.items())


def _metrics(exposition: Exposition) -> Handler:
    async def metrics(call: Call) -> Response:
        state = await redis_state(call.worker.redis, call.settings)
        body, content_type = exposition.encode(state, call.request.headers.get("Accept", ""))
        return Response(body, content_type=content_type.encode())

    return metrics
