"""The sweep: sessions whose lifetime is over are removed, with all of their index members.

To every operation such a session is gone already; the sweep only gives its memory back. A partition's zset `expiring` names
those that are due, and `expire.lua` looks at each again before it removes it: so any number of sweeps may run at once, and a
lifetime that is extended meanwhile counts. A `Sweeper` runs in each worker; a lease in Redis lets one of them work at a time,
which only saves work.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from random import uniform

from redis.exceptions import ResponseError

from service.errors import StoreUnavailable
from service.store import keys, layout, scripts
from service.store.connection import Link, checked
from service.store.keys import BLOCK_SIZE, Partition
from service.store.sessions import microseconds

EXPIRE = scripts.load("expire")

#: Seconds between two looks of one worker, more or less: workers must not look in step.
INTERVAL = 1.0
SPREAD = 0.2
#: Milliseconds for which a worker has the sweep to itself; shorter than any pause, so that no look is in vain.
LEASE = 700
#: Sessions removed in one round, and partitions looked at in one and in one round trip.
ROUND, LOOKS, LOOKS_BATCH = 1000, 2000, 500
#: Sessions removed in one round trip, and the bytes of terms that they have together: what keeps Redis from others at once.
BATCH, BATCH_BYTES = 100, 2 * 1024

log = logging.getLogger("service")


async def overdue(link: Link, partitions: Sequence[Partition]) -> list[Partition]:
    """Those of `partitions` in which a session's lifetime is over, by the clock of any of the store's servers."""
    found = []
    for first in range(0, len(partitions), LOOKS_BATCH):
        some = partitions[first : first + LOOKS_BATCH]
        commands = [("ZRANGE", partition.expiring, 0, 0, "WITHSCORES") for partition in some]
        clocks, heads = await asyncio.gather(link.everywhere("TIME"), link.batch(commands))
        now = max(map(microseconds, clocks))
        found += [partition for partition, head in zip(some, checked(heads), strict=True) if head and float(head[1]) <= now]
    return found


async def due(link: Link, partition: Partition) -> list[str]:
    """Sessions of `partition` whose lifetime is over, by id, those first whose lifetime was over first; `BATCH` at most."""
    clock, flat = checked(
        await link.batch([("TIME",), ("ZRANGE", partition.expiring, 0, BATCH - 1, "WITHSCORES")], at=partition.prefix)
    )
    now = microseconds(clock)
    return [name.decode() for name, expires_at in zip(flat[::2], flat[1::2], strict=True) if float(expires_at) <= now]


async def expire(link: Link, partition: Partition, session_ids: Sequence[str]) -> int:
    """Remove those of `session_ids` whose lifetime is over; returns how many are no longer due because of it."""
    done = 0
    sizes = await link.batch([("HSTRLEN", partition.session(name), "terms") for name in session_ids])
    for some in _portions(zip(session_ids, sizes, strict=True)):
        replies = await EXPIRE.run_many(
            link,
            [
                ((partition.session(name), partition.sessions), (partition.prefix, partition.block_size, name))
                for name in some
            ],
            # It looks before it acts, so it may be sent again as reads are; and a read that sweeps first is no write.
            writes=False,
        )
        done += sum(reply[0] != b"lives" for reply in replies)
    return done


def _portions(sized: Iterable[tuple[str, int | Exception]]) -> Iterator[list[str]]:
    """Ids in portions that stay below `BATCH_BYTES`, or are one; what has no size shows when it is to be removed."""
    portion: list[str] = []
    total = 0
    for name, answer in sized:
        size = 0 if isinstance(answer, Exception) else answer
        if portion and total + size > BATCH_BYTES:
            yield portion
            portion, total = [], 0
        portion.append(name)
        total += size
    if portion:
        yield portion


async def sweep(link: Link, partitions: Sequence[Partition], seconds: float = inf) -> None:
    """Remove every session of `partitions` whose lifetime is over.

    Raises:
        StoreUnavailable: some were left after so many `seconds`; what was removed is gone.
    """
    deadline = time.monotonic() + seconds
    for partition in await overdue(link, partitions):
        while await expire(link, partition, await due(link, partition)):
            if time.monotonic() > deadline:
                raise StoreUnavailable


class Sweeper:
    """What one worker does of the sweep, over all projects and partitions of the store."""

    def __init__(self, link: Link, partitions: int, block_size: int = BLOCK_SIZE) -> None:
        """`partitions` and `block_size` are those with which the store was first used."""
        self._link = link
        self._partitions = partitions
        self._block_size = block_size
        self._cursor = b"0"

    async def run(self) -> None:
        """Sweep, about once in `INTERVAL`, until cancelled. No error ends it; the first of several in a row is logged."""
        failed = False
        while True:
            await asyncio.sleep(INTERVAL + uniform(-SPREAD, SPREAD))  # noqa: S311 - no secret
            try:
                # Nothing is written to a store that this server may not work on.
                await layout.confirm(self._link, self._partitions)
                if await self._lease("NX"):
                    while await self.round():
                        await self._lease()
                failed = False
            except Exception as error:
                # Of an error that nobody expects its kind alone: its text may quote what is stored.
                if not failed:
                    why = str(error) if isinstance(error, StoreUnavailable) else type(error).__name__
                    log.warning("the sweep of expired sessions failed and is tried again: %s", why)
                failed = True

    async def _lease(self, *condition: str) -> bool:
        return await self._link.call("SET", keys.SWEEP, "", "PX", LEASE, *condition, writes=True) is not None

    async def round(self) -> bool:
        """Sweep the next partitions, in turn and about `ROUND` sessions at most; whether some are left.

        Raises:
            redis.ResponseError: a partition was damaged by hand; the others were swept all the same.
        """
        waiting = deque(await overdue(self._link, await self._next_partitions()))
        left, failure = ROUND, None
        while waiting and left > 0:
            partition = waiting.popleft()
            started = time.monotonic()
            try:
                session_ids = await due(self._link, partition)
                if await expire(self._link, partition, session_ids):
                    waiting.append(partition)
                left -= len(session_ids)
            except ResponseError as error:
                failure = error
            # As long again: others get their turn, here and at Redis, the more the slower it is.
            await asyncio.sleep(time.monotonic() - started)
        if failure is not None:
            raise failure
        return bool(waiting)

    async def _next_partitions(self) -> list[Partition]:
        """The partitions of the next projects; those of the first come after those of the last."""
        count = max(1, LOOKS // self._partitions)
        self._cursor, flat = await self._link.call("HSCAN", keys.PROJECTS, self._cursor, "COUNT", count)
        return [
            Partition(slug.decode(), number, self._block_size)
            for slug in flat[::2]
            for number in range(self._partitions)
        ]
