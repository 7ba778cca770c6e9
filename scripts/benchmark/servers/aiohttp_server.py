"""The aiohttp applications that the service is compared with: one process each, on uvloop like a worker of the service."""

import asyncio
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from scripts.lib.program import ROOT, Program

HOST = "127.0.0.1"


class AiohttpServer(Program):
    """`python -m scripts.benchmark.servers.<module> <arguments>`, a module that calls `serve`."""

    def __init__(self, home: Path, module: str, *arguments: str) -> None:
        super().__init__(home, [sys.executable, "-m", f"scripts.benchmark.servers.{module}", *arguments], cwd=ROOT)
        self.address = (HOST, int(self.printed(r"ready on (\d+)\n")))


def serve(app: web.Application) -> None:
    """Serve on a free port until killed; prints the port."""
    uvloop.run(_serve(app))


async def _serve(app: web.Application) -> None:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0, backlog=1024).start()
    sys.stdout.write(f"ready on {runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()
