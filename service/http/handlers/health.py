"""Whether the service runs, whether it can work, whether a key opens it."""

from aiohttp import web

from service.http import envelope
from service.http.context import context


async def health(_: web.Request) -> web.Response:
    """GET /health: the process serves."""
    return envelope.message("ok")


async def ready(request: web.Request) -> web.Response:
    """GET /ready: Redis can be reached; 503 while it cannot."""
    await context(request).link.call("PING")
    return envelope.message("ok")


async def ping(_: web.Request) -> web.Response:
    """GET /api/v1/ping: the key is good."""
    return envelope.message("pong")
