"""Whether the service runs, whether it can work, whether a key opens it."""

from service.http.api import representations
from service.http.server.context import Call
from service.http.server.response import Response
from service.store import keys, manifest


async def health(_: Call) -> Response:
    """GET /health: the process serves."""
    return representations.message("ok")


async def ready(call: Call) -> Response:
    """GET /ready: Redis can be reached, takes writes, evicts nothing, and holds the store; 503 while that is not so."""
    # A replica, say of a name that has moved, answers PING and every read; it refuses to delete even what is not there.
    await call.worker.redis.call("DEL", keys.READY)
    await manifest.confirm(call.worker.redis, call.settings.partitions)
    call.worker.config_watch.require_no_eviction()
    return representations.ready(call.worker.config_watch.warnings)


async def ping(_: Call) -> Response:
    """GET /api/v1/ping: the key is good."""
    return representations.message("pong")
