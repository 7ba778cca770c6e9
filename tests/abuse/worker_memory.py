"""A server of one worker, its memory, and clients over raw sockets that misbehave."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.http import Api, api_on
from tests.support.server import Serving

MIB = 1024 * 1024
#: What a worker's memory may grow by from one round of an attack to the next where it keeps nothing: noise of the allocator.
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
        """A connection; with a small `receive_buffer` an answer waits in the worker, not in the system."""
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(60.0)
        host, _, port = self.api.server.origin.removeprefix("http://").partition(":")
        connection.connect((host, int(port)))
        return connection

    def is_served(self) -> None:
        """A quiet client on a new connection is answered."""
        with self.connect() as connection:
            connection.sendall(f"GET /api/v1/ping HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.api.key}\r\n\r\n".encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def reset(connection: socket.socket) -> None:
    """Close a connection with a reset, whatever is on its way."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextmanager
def victim(directory: Path, *flags: str) -> Iterator[Victim]:
    """A server with one worker; it has to end well, having logged nothing."""
    serving = Serving(directory / "data", "--workers", "1", *flags, SCC_ROOT_TOKEN="root-of-the-tests").wait_ready()
    victim = Victim(serving)
    try:
        yield victim
    finally:
        victim.api.close()
        status = serving.stop()
    assert (status, serving.errors) == (0, "")


def send(connection: socket.socket, data: bytes) -> None:
    """Send, whether or not the server has closed the connection meanwhile."""
    with suppress(ConnectionError):
        connection.sendall(data)


def memory_grown(victim: Victim, attack: Callable[[Victim], None], rounds: int) -> int:
    """Bytes that the memory grows by over `rounds` of an attack, after one that fills what is filled only once."""
    attack(victim)
    victim.is_served()
    before = victim.memory
    for _ in range(rounds):
        attack(victim)
        victim.is_served()
    return victim.memory - before
