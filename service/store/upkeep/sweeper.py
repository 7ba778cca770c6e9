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
from collections.abc import Sequence
from contextlib import suppress
from random import uniform

from service.errors import StateIncomplete, StoreFull, StoreUnavailable, Unauthorized
from service.redis_client.client import RedisClient, checked
from service.redis_client.errors import ResponseError
from service.store import keys, manifest, script_calls
from service.store.keys import BLOCK_SIZE, Owner, Partition, all_partitions, is_text
from service.store.portions import portions
from service.store.record import microseconds
from service.store.scripts import run_many

#: Seconds between two looks of one worker, more or less: workers must not look in step.
INTERVAL = 1.0
SPREAD = 0.2
#: Milliseconds for which a worker has the sweep to itself; shorter than any pause, so that no look is in vain.
LEASE = 700
#: Sessions removed in one round, and partitions looked at in one and in one round trip.
ROUND, LOOKS, LOOKS_BATCH = 1000, 2000, 500
#: Sessions looked at in one round trip.
BATCH = 100

log = logging.getLogger("service")


async def partitions_with_expired(redis: RedisClient, partitions: Sequence[Partition]) -> list[Partition]:
    """Those of `partitions` in which a session's lifetime is over, by the clock of any of the store's servers."""
    found = []
    for first in range(0, len(partitions), LOOKS_BATCH):
        some = partitions[first : first + LOOKS_BATCH]
        commands = [("ZRANGE", partition.expiring, 0, 0, "WITHSCORES") for partition in some]
        clocks, heads = await asyncio.gather(redis.call_on_masters("TIME"), redis.batch(commands))
        now = max(map(microseconds, clocks))
        found += [partition for partition, head in zip(some, checked(heads), strict=True) if head and float(head[1]) <= now]
    return found


async def expired_ids(redis: RedisClient, partition: Partition) -> list[str]:
    """Sessions of `partition` whose lifetime is over, by id, those first whose lifetime was over first; `BATCH` at most."""
    clock, flat = checked(
        await redis.batch([("TIME",), ("ZRANGE", partition.expiring, 0, BATCH - 1, "WITHSCORES")], near=partition.prefix)
    )
    now = microseconds(clock)
    names = [name for name, expires_at in zip(flat[::2], flat[1::2], strict=True) if float(expires_at) <= now]
    return [name.decode() for name in names if is_text(name)]  # another one was written by hand; check removes it


async def expire(redis: RedisClient, partition: Partition, session_ids: Sequence[str]) -> int:
    """Remove those of `session_ids` whose lifetime is over; returns how many are no longer due because of it."""
    done = 0
    async for some in portions(redis, [(name, partition.session(name)) for name in session_ids]):
        calls = [
            script_calls.expire(
                session=partition.session(name), sessions=partition.sessions, partition=partition.arguments, session_id=name
            )
            for name in some
        ]
        # The script checks before it removes, so it may be sent again as reads are.
        replies = await run_many(redis, calls, writes=False)
        done += sum(reply != "alive" for reply in replies)
    return done


class Sweeper:
    """What one worker does of the sweep, over all projects and partitions of the store."""

    def __init__(self, redis: RedisClient, partitions: int, block_size: int = BLOCK_SIZE) -> None:
        """`partitions` and `block_size` are those with which the store was first used."""
        self._redis = redis
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
                await manifest.confirm(self._redis, self._partitions)
                if await self._take_lease():
                    while await self.round():
                        await self._renew_lease()
                failed = False
            except Exception as error:
                # Of an error that nobody expects its kind alone: its text may quote what is stored.
                if not failed:
                    why = str(error) if isinstance(error, StoreUnavailable) else type(error).__name__
                    log.warning("the sweep of expired sessions failed and is tried again: %s", why)
                failed = True

    async def _take_lease(self) -> bool:
        """Take the lease if no other worker has it.

        One that lasts longer than any is given for is from before the clock stepped back; nobody would sweep until it ends.
        """
        try:
            if await self._redis.call("SET", keys.SWEEP, "", "PX", LEASE, "NX", writes=True) is not None:
                return True
        except StoreFull:
            return True  # no memory even for the lease, and a sweep gives some back; several at a time do no harm
        if await self._redis.call("PTTL", keys.SWEEP) <= LEASE:
            return False
        await self._renew_lease()
        return True

    async def _renew_lease(self) -> None:
        with suppress(StoreFull):
            await self._redis.call("SET", keys.SWEEP, "", "PX", LEASE, writes=True)

    async def round(self) -> bool:
        """Sweep the next partitions, in turn and about `ROUND` sessions at most; whether some are left.

        Raises:
            redis.ResponseError, StateIncomplete: a partition was damaged by hand; the others were swept all the same.
            LayoutChanged: the store has another number of partitions now.
        """
        waiting = deque(await partitions_with_expired(self._redis, await self._next_partitions()))
        left = ROUND
        failure: Exception | None = None
        while waiting and left > 0:
            partition = waiting.popleft()
            started = time.monotonic()
            try:
                session_ids = await expired_ids(self._redis, partition)
                if await expire(self._redis, partition, session_ids):
                    waiting.append(partition)
                left -= len(session_ids)
            except (ResponseError, StateIncomplete) as error:
                failure = error
            except Unauthorized:
                pass  # The project has been deleted since.
            # As long again: others get their turn, here and at Redis, the more the slower it is.
            await asyncio.sleep(time.monotonic() - started)
        if failure is not None:
            raise failure
        return bool(waiting)

    async def _next_partitions(self) -> list[Partition]:
        """The partitions of the next projects; those of the first come after those of the last."""
        count = max(1, LOOKS // self._partitions)
        self._cursor, flat = await self._redis.call("HSCAN", keys.PROJECTS, self._cursor, "COUNT", count)
        return [
            partition
            for slug, project_id in zip(flat[::2], flat[1::2], strict=True)
            if is_text(slug) and is_text(project_id)
            for partition in all_partitions(
                slug.decode(), Owner(project_id.decode(), self._partitions), self._partitions, self._block_size
            )
        ]
