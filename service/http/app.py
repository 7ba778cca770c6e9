"""The composition root of a worker: settings in, a serving process out."""

import asyncio
import logging
import signal
import socket

import uvloop
from aiohttp import web

from service.http import middleware, protocol
from service.http.context import CONTEXT, Context
from service.http.routes import ROUTES
from service.settings import Settings
from service.store.connection import Link
from service.store.projects import KeyRing, Registry


def make_app(settings: Settings, link: Link) -> web.Application:
    """The application: routes and middleware around the store behind `link`."""
    app = web.Application(
        middlewares=[middleware.answer, middleware.authenticate], client_max_size=settings.max_body_bytes
    )
    app[CONTEXT] = Context(settings, link, KeyRing(Registry(link, settings.key_secret)))
    for method, path, handler in ROUTES:
        app.router.add_route(method, path, handler)
        if method == "GET":
            app.router.add_route("HEAD", path, handler)
    return app


def run_worker(settings: Settings, listener: socket.socket) -> None:
    """Serve on `listener` until SIGTERM, then drain the requests in flight and return."""
    uvloop.run(_serve(settings, listener))


async def _serve(settings: Settings, listener: socket.socket) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    link = Link.open(settings.redis_url, timeout=settings.command_timeout)
    runner = protocol.Runner(
        make_app(settings, link),
        access_log=logging.getLogger("service.access") if settings.access_log else None,
        shutdown_timeout=settings.shutdown_timeout,
    )
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        await stop.wait()
    finally:
        await runner.cleanup()
        await link.close()
