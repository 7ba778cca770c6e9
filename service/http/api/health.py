"""Liveness, readiness, and a check of the API key."""

from service.http.api import representations
from service.http.server.context import Call
from service.http.server.response import Response
from service.store import keys, manifest


async def health(_: Call) -> Response:
    """GET /health: the process is alive."""
    return representations.message("ok")


async def ready(call: Call) -> Response:
    """GET /ready: Redis can be reached, accepts writes, evicts nothing, and contains the store; else 503."""
    # A replica (a DNS name may point to one after a failover) answers PING and reads, but refuses any DEL.
    await call.worker.redis.call("DEL", keys.READY)
    await manifest.confirm(call.worker.redis, call.settings.partitions)
    call.worker.config_watch.require_no_eviction()
    return representations.ready(call.worker.config_watch.warnings)


async def ping(_: Call) -> Response:
    """GET /api/v1/ping: the API key is valid."""
    return representations.message("pong")
