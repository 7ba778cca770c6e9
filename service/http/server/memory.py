"""The bytes that the clients of a worker make it keep: requests that are not answered yet, and answers that are not taken yet.

They are counted in one sum over all connections, and the sum has a bound. Beyond the bound the slowest client is cut off, not
the newest: clients that send or take nothing must not keep others out. What is in work waits for no client, so it stays.
"""

from abc import ABC, abstractmethod
from collections import deque

from aiohttp import web

#: Bytes that a received byte takes: one in the parser or the stream, one where it is put together and decoded.
COPIES = 2
#: Bytes that one header takes beyond its text: four strings, two tuples, a place in a map.
HEADER_BYTES = 320
#: Bytes a second from which on a client is never cut off to make room.
SLOW = 256 * 1024
#: Seconds that a client has before it can count as slow.
GRACE = 1.0
#: The largest request that is not counted, if it came in one piece and is alone on its connection: its bytes, and its headers.
#: So much is part of what a connection costs.
UNCOUNTED_BYTES, UNCOUNTED_HEADERS = 2048, 32


class BodyDropped(web.RequestPayloadError):
    """The rest of a body is not received, for the worker has no memory for it; the request is answered 503."""


class Holder(ABC):
    """A connection as `Memory` sees it."""

    __slots__ = ()

    @abstractmethod
    def holding(self) -> int:
        """Bytes that the connection makes the worker keep now."""

    @abstractmethod
    def pace(self) -> float | None:
        """Bytes a second that the client sends, or takes of its answer; None where nothing waits for it, or not for long."""

    @abstractmethod
    def cut_off(self) -> None:
        """Make room: the client is too slow."""


class Memory:
    """The sum, in bytes. It is 0 when no connection holds anything."""

    __slots__ = ("_limit", "held", "total")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        #: Bytes by connection, of those that hold some, in the order in which they began.
        self.held: dict[Holder, int] = {}
        self.total = 0

    def count(self, holder: Holder) -> bool:
        """Count what a connection holds now. False where that is too much, and no slow client is left to be cut off."""
        self._set(holder, holder.holding())
        return self.has_room()

    def has_room(self, size: int = 0) -> bool:
        """Whether `size` more bytes are within the limit; where they are not, slow clients are cut off first."""
        return self.total + size <= self._limit or self._make_room(self._limit - size)

    def forget(self, holder: Holder) -> None:
        """A connection is closed."""
        self._set(holder, 0)

    def _set(self, holder: Holder, size: int) -> None:
        self.total += size - self.held.get(holder, 0)
        if size:
            self.held[holder] = size
        else:
            self.held.pop(holder, None)

    def _make_room(self, wanted: int) -> bool:
        """Cut off the slowest clients until the sum is `wanted`. Only this takes longer the more connections hold something."""
        for holder in list(self.held):
            self._set(holder, holder.holding())
        paces = {holder: pace for holder in self.held if (pace := holder.pace()) is not None and pace < SLOW}
        # Of those that are equally slow, the one that has waited longest goes first.
        for holder in sorted(paces, key=paces.__getitem__):
            if self.total <= wanted:
                break
            holder.cut_off()
            self._set(holder, holder.holding())
        return self.total <= wanted


class Unanswered:
    """What one connection received of requests that have no answer yet: bytes by the number of the request, from 1."""

    __slots__ = ("_parts", "total")

    def __init__(self) -> None:
        self._parts: deque[list[int]] = deque()
        self.total = 0

    def add(self, request: int, size: int) -> None:
        """`size` more bytes belong to `request` or those before it. They may be negative: not all that came was of them."""
        self.total += size
        if self._parts and self._parts[-1][0] == request:
            self._parts[-1][1] += size
        else:
            self._parts.append([request, size])

    def answered(self, request: int) -> None:
        """`request` and those before it have their answers."""
        while self._parts and self._parts[0][0] <= request:
            self.total -= self._parts.popleft()[1]
