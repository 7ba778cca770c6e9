"""How many requests a worker has in hand, and how many of them it works at.

Work at too many at once takes as long for each, and Redis's answers wait behind it until they count as late: what was done is
lost, and under load the worker would do nothing else. So beyond `AT_ONCE` requests wait for their turn, before they have cost
anything; and beyond the most that it may have in hand, the worker refuses.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

#: Requests that a worker works at.
AT_ONCE = 64


class Load:
    """Counts the requests in hand. One that waits for the rest of its body does no work, and does not count against `most`."""

    __slots__ = ("_most", "_places", "_receiving", "_waiting", "in_hand")

    def __init__(self, most: int) -> None:
        self._most = most
        self._places = AT_ONCE
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._receiving = 0
        self.in_hand = 0

    @property
    def over(self) -> bool:
        """Whether there are more in hand than there may be."""
        return self.in_hand - self._receiving > self._most

    def begin(self) -> asyncio.Future[None] | None:
        """Take a place to work at; where there is none, what to wait for until there is."""
        if self._places:
            self._places -= 1
            return None
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        return turn

    def end(self) -> None:
        """Leave the place, to the one who has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._places += 1

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[None]:
        """While a body comes: the place is left to others."""
        self._receiving += 1
        self.end()
        try:
            yield
        finally:
            self._receiving -= 1
            if (turn := self.begin()) is not None:
                await turn
