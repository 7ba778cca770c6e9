"""The pace of long work while a server is busy."""

import asyncio
from time import monotonic

#: For each second that Redis is used, the seconds that it is left to others.
REST = 0.5
#: Seconds of rest that are put together: short sleeps last longer than asked for.
SHORTEST_REST = 0.005


class Pace:
    """Lets Redis rest between two uses, each of which is an `async with pace`. What is done in between counts as rest."""

    def __init__(self) -> None:
        self._owed = 0.0
        self._started = self._ended = monotonic()

    async def __aenter__(self) -> None:
        self._take_rest()
        if self._owed >= SHORTEST_REST:
            await asyncio.sleep(self._owed)
            self._take_rest()
        self._started = monotonic()

    async def __aexit__(self, *_: object) -> None:
        self._ended = monotonic()
        self._owed += REST * (self._ended - self._started)

    def _take_rest(self) -> None:
        """Count the time since the last use, or since this was last called."""
        now = monotonic()
        self._owed = max(self._owed - (now - self._ended), 0.0)
        self._ended = now
