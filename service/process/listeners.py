"""The listening sockets: one for each worker, all on one port, bound before the workers are forked."""

import ctypes
import select
import socket
import struct
import sys
from contextlib import ExitStack, suppress

from service.errors import StartupError

#: Length of the accept queue of one worker. Its connections wait there while the worker is replaced.
BACKLOG = 1024

_SO_ATTACH_FILTER = 26
#: Classic BPF over a segment's TCP header: drop segments with the SYN flag (in byte 13), accept all others.
_NO_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))

Address = tuple[socket.AddressFamily, tuple[str, int]]


def check_free(host: str, port: int) -> None:
    """Check that no other server listens on the port: SO_REUSEPORT would silently share it.

    Raises:
        StartupError: the port is taken, or host and port cannot be bound.
    """
    with _bound(host, port, share=False):
        pass


def open_listeners(host: str, port: int, count: int) -> list[socket.socket]:
    """Open `count` listening sockets on one port; the kernel distributes connections among them. Port 0 picks a free one.

    Raises:
        StartupError: the port is taken, or host and port cannot be bound.
    """
    check_free(host, port)
    with ExitStack() as stack:
        listeners: list[socket.socket] = []
        for _ in range(count):
            listener = stack.enter_context(_bound(host, port, share=True))
            port = listener.getsockname()[1]
            listener.listen(BACKLOG)
            listener.setblocking(False)  # noqa: FBT003 - positional only
            listeners.append(listener)
        stack.pop_all()
    return listeners


def stop_accepting(listener: socket.socket) -> None:
    """Drop new connections to `listener`; those already in its queue can still be accepted.

    Closing it would reset the connections in its queue, whose clients may have sent their requests, and an open socket keeps
    getting new ones. With SYN segments dropped, new clients retry after about a second and find the port closed. Only Linux
    supports this; elsewhere a few connections are lost.
    """
    if sys.platform != "linux":
        return
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in _NO_SYN)
    buffer = ctypes.create_string_buffer(program, len(program))
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_NO_SYN), ctypes.addressof(buffer)))


def has_pending(listener: socket.socket) -> bool:
    """Whether connections wait in the queue of `listener`; none if it is closed."""
    return listener.fileno() >= 0 and bool(select.select([listener], [], [], 0)[0])


def origin(listener: socket.socket) -> str:
    """`http://host:port` for connecting to the listener from this machine."""
    host, port = listener.getsockname()[:2]
    host = reachable_address(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def reachable_address(host: str) -> str:
    """The address for connecting from this machine to a server that listens on `host`; the loopback for a wildcard."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


def _bound(host: str, port: int, *, share: bool) -> socket.socket:
    bound: socket.socket | None = None
    try:
        family, address = _resolve(host, port)
        bound = socket.socket(family, socket.SOCK_STREAM)
        # Connections of an earlier server in TIME_WAIT must not block the port.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except (OSError, UnicodeError) as error:
        if bound is not None:
            bound.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StartupError(f"cannot listen on {host} port {port}: {reason}") from None
    return bound


def _resolve(host: str, port: int) -> Address:
    candidates = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # A name such as localhost has IPv4 and IPv6 addresses; every client tries IPv4.
    family, _, _, _, address = min(candidates, key=lambda item: item[0] != socket.AF_INET)
    return family, address  # type: ignore[return-value]
