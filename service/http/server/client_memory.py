"""The memory that a worker's clients occupy: requests without a response yet, and responses that the client has not read yet.

One sum over all connections has a limit. Beyond it the slowest clients are disconnected, not the newest: clients that send or
read nothing must not keep others out. A request that is being processed depends on no client, so it continues.
"""

from abc import ABC, abstractmethod
from collections import deque

from aiohttp import web

#: Copies of each received byte in memory: one in the parser or the stream, one where the body is joined and decoded.
COPIES = 2
#: Bytes of memory that one header takes beyond its text: four strings, two tuples, an entry of a map.
HEADER_BYTES = 320
#: A client with at least so many bytes a second is never disconnected to free memory.
MIN_THROUGHPUT = 256 * 1024
#: Seconds before a client can count as slow.
GRACE = 1.0
#: The largest request, in bytes and in headers, that is not counted if it arrives in one piece and alone on its connection.
#: The memory of a connection includes that much.
UNCOUNTED_BYTES, UNCOUNTED_HEADERS = 2048, 32


class BodyDropped(web.RequestPayloadError):
    """The rest of a body is not received, because the worker has no memory for it; the response is 503."""


class BufferingConnection(ABC):
    """A connection as `Memory` sees it."""

    __slots__ = ()

    @abstractmethod
    def buffered_bytes(self) -> int:
        """Bytes of memory that the worker keeps for the connection now."""

    @abstractmethod
    def throughput(self) -> float | None:
        """Bytes a second that the client sends, or reads of its response; None where the worker does not wait for it."""

    @abstractmethod
    def cut_off(self) -> None:
        """Free the memory: the client is too slow."""


class Memory:
    """The sum of buffered bytes. Invariant: it is 0 when no connection buffers anything."""

    __slots__ = ("_limit", "buffered", "total")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        #: Buffered bytes by connection, in the order in which the connections began to buffer.
        self.buffered: dict[BufferingConnection, int] = {}
        self.total = 0

    def update(self, connection: BufferingConnection) -> bool:
        """Count what a connection buffers now. False if that is too much and no slow client is left to disconnect."""
        self._set(connection, connection.buffered_bytes())
        return self.has_room()

    def has_room(self, size: int = 0) -> bool:
        """Whether `size` more bytes fit the limit; if not, slow clients are disconnected first."""
        return self.total + size <= self._limit or self._make_room(self._limit - size)

    def forget(self, connection: BufferingConnection) -> None:
        """Remove a connection that is closed."""
        self._set(connection, 0)

    def _set(self, connection: BufferingConnection, size: int) -> None:
        self.total += size - self.buffered.get(connection, 0)
        if size:
            self.buffered[connection] = size
        else:
            self.buffered.pop(connection, None)

    def _make_room(self, target: int) -> bool:
        """Cut off the slowest clients until the sum is at most `target`. The only step that takes time by connection."""
        for connection in list(self.buffered):
            self._set(connection, connection.buffered_bytes())
        slow = {
            connection: throughput
            for connection in self.buffered
            if (throughput := connection.throughput()) is not None and throughput < MIN_THROUGHPUT
        }
        # Of equally slow clients the one that has been slow for longest goes first.
        for connection in sorted(slow, key=slow.__getitem__):
            if self.total <= target:
                break
            connection.cut_off()
            self._set(connection, connection.buffered_bytes())
        return self.total <= target


class UnansweredBytes:
    """The bytes that one connection received of requests without a response yet, by the number of the request, from 1."""

    __slots__ = ("_parts", "total")

    def __init__(self) -> None:
        self._parts: deque[list[int]] = deque()
        self.total = 0

    def add(self, request: int, size: int) -> None:
        """Add bytes of `request` and those before it. A negative `size` corrects an earlier one that was too large."""
        self.total += size
        if self._parts and self._parts[-1][0] == request:
            self._parts[-1][1] += size
        else:
            self._parts.append([request, size])

    def release(self, request: int) -> None:
        """Subtract the bytes of `request` and those before it: they have their responses."""
        while self._parts and self._parts[0][0] <= request:
            self.total -= self._parts.popleft()[1]
