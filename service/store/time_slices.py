"""How a long scan shares the event loop of its worker with other requests: in slices of computing time."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

from service.errors import ClientGone

T = TypeVar("T")

#: Seconds that a scan computes before it yields.
SLICE = 0.005


class Scheduler:
    """One per worker. Of all scans that have used up a slice, one continues in each iteration of the event loop.

    Without it, each of many scans would take a slice in each iteration, and every other request would wait for all of them.
    """

    def __init__(self) -> None:
        # asyncio.Lock is fair: waiters acquire it in order.
        self._lock = asyncio.Lock()

    async def wait(self) -> None:
        """Wait for the next slice."""
        async with self._lock:
            await asyncio.sleep(0)


class TimeSlice:
    """The computing time of one scan, without its waits for Redis. Between two steps, call `renew` if it `is_used_up`."""

    def __init__(self, scheduler: Scheduler | None = None, is_client_gone: Callable[[], bool] | None = None) -> None:
        """`is_client_gone` is called at every pause; if it returns true, the scan stops."""
        self._scheduler = scheduler or Scheduler()
        self._is_client_gone = is_client_gone
        self._started = monotonic()

    @property
    def is_used_up(self) -> bool:
        """Whether to call `renew`."""
        return monotonic() - self._started > SLICE

    async def renew(self) -> None:
        """Let other tasks run, then begin the next slice.

        Raises:
            ClientGone: the client has disconnected.
        """
        self._check_client()
        await self._scheduler.wait()
        self._check_client()
        self._started = monotonic()

    async def pause(self, awaitable: Awaitable[T]) -> T:
        """Await something else, such as Redis; the time does not count."""
        before = monotonic()
        result = await awaitable
        self._started += monotonic() - before
        self._check_client()
        return result

    def _check_client(self) -> None:
        if self._is_client_gone is not None and self._is_client_gone():
            raise ClientGone
