"""Whether the service runs, whether it can work, whether a key opens it."""

from service.http import envelope
from service.http.answer import Answer
from service.http.context import Call
from service.store import keys, layout


async def health(_: Call) -> Answer:
    """GET /health: the process serves."""
    return envelope.message("ok")


async def ready(call: Call) -> Answer:
    """GET /ready: Redis can be reached, takes writes, evicts nothing, and holds the store; 503 while that is not so."""
    # A replica, say of a name that has moved, answers PING and every read; it refuses to delete even what is not there.
    await call.worker.link.call("DEL", keys.READY)
    await layout.confirm(call.worker.link, call.settings.partitions)
    call.worker.config_watch.require_no_eviction()
    return envelope.ready(call.worker.config_watch.warnings)


async def ping(_: Call) -> Answer:
    """GET /api/v1/ping: the key is good."""
    return envelope.message("pong")
