"""The listening sockets: one a worker, all on one port, bound before the workers are forked."""

import ctypes
import select
import socket
import struct
import sys
from contextlib import ExitStack, suppress

from service.errors import StartupError

#: Connections that wait in one worker's queue. A worker that is being replaced finds them there.
BACKLOG = 1024

_SO_ATTACH_FILTER = 26
#: Classic BPF over a segment's TCP header: one with SYN among its flags (byte 13) is dropped, every other one is let through.
_NO_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))

Address = tuple[socket.AddressFamily, tuple[str, int]]


def check_free(host: str, port: int) -> None:
    """Refuse a port that another server listens on; SO_REUSEPORT would silently share it.

    Raises:
        StartupError: the port is taken, or host and port cannot be bound.
    """
    with _bound(host, port, share=False):
        pass


def open_listeners(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` listening sockets on one port, among which the kernel spreads connections; port 0 takes a free one.

    Raises:
        StartupError: the port is taken, or host and port cannot be bound.
    """
    check_free(host, port)
    with ExitStack() as opened:
        listeners: list[socket.socket] = []
        for _ in range(count):
            listener = opened.enter_context(_bound(host, port, share=True))
            port = listener.getsockname()[1]
            listener.listen(BACKLOG)
            listener.setblocking(False)  # noqa: FBT003 - positional only
            listeners.append(listener)
        opened.pop_all()
    return listeners


def stop_accepting(listener: socket.socket) -> None:
    """Begin no further connection on `listener`; those begun can still be accepted.

    Closing it alone would reset the connections in its queue, whose clients have sent their requests already, and while it is
    open there are always new ones. Whoever is turned away tries again within a second or so, and finds it closed. Only Linux
    can do this; elsewhere a few connections are lost.
    """
    if sys.platform != "linux":
        return
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in _NO_SYN)
    held = ctypes.create_string_buffer(program, len(program))
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_NO_SYN), ctypes.addressof(held)))


def has_pending(listener: socket.socket) -> bool:
    """Whether connections wait in the queue of `listener`."""
    return bool(select.select([listener], [], [], 0)[0])


def origin(listener: socket.socket) -> str:
    """`http://host:port` by which this machine reaches the listener."""
    host, port = listener.getsockname()[:2]
    host = reachable(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def reachable(host: str) -> str:
    """The address by which this machine reaches a server that listens on `host`, which may stand for all addresses."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


def _bound(host: str, port: int, *, share: bool) -> socket.socket:
    bound: socket.socket | None = None
    try:
        family, address = _resolve(host, port)
        bound = socket.socket(family, socket.SOCK_STREAM)
        # Connections of a server that just ended still linger on the port; they are no reason to refuse it.
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
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # A name such as localhost has addresses of both kinds; clients try IPv4 everywhere.
    family, _, _, _, address = min(found, key=lambda item: item[0] != socket.AF_INET)
    return family, address  # type: ignore[return-value]
