"""A server with one worker, its memory, and misbehaving clients over raw sockets."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.http import Api, api_on
from tests.support.server import PATIENCE, Serving

MIB = 1024 * 1024
#: How much a worker's memory may grow between rounds of an attack if nothing leaks: noise of the allocator.
NOISE = 12 * MIB


def memory_of(process: int) -> int:
    """Resident bytes of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


class Victim:
    """A server whose one worker is attacked."""

    def __init__(self, serving: Serving) -> None:
        (self.worker,) = serving.workers()
        self.api: Api = api_on(serving)

    @property
    def memory(self) -> int:
        return memory_of(self.worker)

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        """A connection; with a small `receive_buffer` an unread response stays in the worker, not in the kernel."""
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(PATIENCE)
        host, _, port = self.api.server.origin.removeprefix("http://").partition(":")
        connection.connect((host, int(port)))
        return connection

    def check_served(self) -> None:
        """Check that a client on a new connection is served."""
        with self.connect() as connection:
            connection.sendall(f"GET /api/v1/ping HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.api.key}\r\n\r\n".encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def reset(connection: socket.socket) -> None:
    """Close a connection with a reset, whatever is in transit."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextmanager
def victim(directory: Path, *flags: str) -> Iterator[Victim]:
    """A server with one worker; it must stop with status 0 and have logged nothing."""
    serving = Serving(directory / "data", "--workers", "1", *flags, SCC_ROOT_TOKEN="root-of-the-tests").wait_ready()
    victim = Victim(serving)
    try:
        yield victim
    finally:
        victim.api.close()
        status = serving.stop()
    assert (status, serving.errors) == (0, "")


def send(connection: socket.socket, data: bytes) -> None:
    """Send, even if the server has closed the connection meanwhile."""
    with suppress(ConnectionError):
        connection.sendall(data)


def memory_grown(victim: Victim, attack: Callable[[Victim], None], rounds: int) -> int:
    """How many bytes the memory grows by over `rounds` of an attack, after one round that fills caches and pools."""
    attack(victim)
    victim.check_served()
    before = victim.memory
    for _ in range(rounds):
        attack(victim)
        victim.check_served()
    return victim.memory - before
