"""The server that is soaked, and a client of its Redis."""

import sys
from pathlib import Path

from redis.asyncio import Redis

from service.process.embedded_redis import socket_path
from service.process.parent_death import with_parent_death_signal
from tests.support.server import Serving

WORKERS = 2
TOKEN = "token-of-the-soak"
API_KEY = f"sk-ac-{TOKEN}"


def start_server(directory: Path) -> Serving:
    """A server that ends with this process. Its embedded Redis syncs every write before the response."""
    program = with_parent_death_signal([sys.executable, "-m", "service"])[1:]
    flags = ("--workers", str(WORKERS), "--fsync", "always")
    return Serving(directory / "data", *flags, program=program, SCC_ROOT_TOKEN=TOKEN).wait_ready()


def redis_of(server: Serving) -> Redis:
    """A client of the server's Redis that gives up soon."""
    return Redis(unix_socket_path=str(socket_path(server.data_dir)), protocol=2, socket_timeout=1.0, socket_connect_timeout=1.0)
