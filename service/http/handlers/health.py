"""Whether the service runs, whether it can work, whether a key opens it."""

from service.http import envelope
from service.http.answer import Answer
from service.http.context import Call
from service.store import keys


async def health(_: Call) -> Answer:
    """GET /health: the process serves."""
    return envelope.message("ok")


async def ready(call: Call) -> Answer:
    """GET /ready: Redis can be reached; 503 while it cannot."""
    await call.worker.link.call("PING", at=keys.STORE)
    return envelope.message("ok")


async def ping(_: Call) -> Answer:
    """GET /api/v1/ping: the key is good."""
    return envelope.message("pong")
