"""Whether the service runs, whether it can work, whether a key opens it."""

from service.http import envelope
from service.http.answer import Answer
from service.http.context import Call
from service.store import keys


async def health(_: Call) -> Answer:
    """GET /health: the process serves."""
    return envelope.message("ok")


async def ready(call: Call) -> Answer:
    """GET /ready: Redis can be reached and takes writes; 503 while it does not."""
    # A replica, say of a name that has moved, answers PING and every read; it refuses to delete even what is not there.
    await call.worker.link.call("DEL", keys.READY)
    return envelope.message("ok")


async def ping(_: Call) -> Answer:
    """GET /api/v1/ping: the key is good."""
    return envelope.message("pong")
