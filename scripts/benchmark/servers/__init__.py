"""The HTTP peers: the bare framework, and the same API over Postgres. One process each, on uvloop like a worker of ours."""

import asyncio
import sys

import uvloop
from aiohttp import web


def serve(app: web.Application) -> None:
    """Serve on a free port of this machine, whose number is printed, until killed."""
    uvloop.run(_serve(app))


async def _serve(app: web.Application) -> None:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    sys.stdout.write(f"ready on {runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()
