"""The sweep: removes expired sessions with all of their index members.

Every operation treats an expired session as deleted already; the sweep only frees its memory. A partition's zset `expiring` has
the times, and `expire.lua` compares each again before it removes a session. So any number of sweeps may run concurrently, and a
ttl that is extended meanwhile counts. A `Sweeper` runs in each worker. A lease in Redis lets one of them sweep at a time, which
only saves work.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import uniform

from service.errors import StateIncomplete, StoreFull, StoreUnavailable, Unauthorized
from service.redis_client.client import RedisClient, checked
from service.redis_client.errors import ResponseError
from service.store import keys, manifest, script_calls
from service.store.keys import BLOCK_SIZE, Owner, Partition, all_partitions, is_text
from service.store.record import microseconds
from service.store.removal_batches import removal_batches
from service.store.scripts import run_many

#: Seconds between two rounds of one worker, and their jitter: workers must not run in step.
INTERVAL = 1.0
SPREAD = 0.2
#: Milliseconds for which a worker has the sweep to itself; shorter than any pause, so that the next round can take it.
LEASE = 700
#: Sessions removed in one round; partitions read in one round, and in one round trip.
ROUND_SESSIONS, ROUND_PARTITIONS, PARTITIONS_BATCH = 1000, 2000, 500
#: Sessions read in one round trip.
BATCH = 100

logger = logging.getLogger("service")


async def partitions_with_expired(redis: RedisClient, partitions: Sequence[Partition]) -> list[Partition]:
    """Those of `partitions` that have an expired session, by the latest clock of the store's masters."""
    expired = []
    for first in range(0, len(partitions), PARTITIONS_BATCH):
        batch = partitions[first : first + PARTITIONS_BATCH]
        commands = [("ZRANGE", partition.expiring, 0, 0, "WITHSCORES") for partition in batch]
        clocks, heads = await asyncio.gather(redis.call_on_masters("TIME"), redis.batch(commands))
        now = max(map(microseconds, clocks))
        expired += [partition for partition, head in zip(batch, checked(heads), strict=True) if head and float(head[1]) <= now]
    return expired


async def expired_ids(redis: RedisClient, partition: Partition) -> list[str]:
    """The ids of expired sessions of `partition`, those that expired first in front; `BATCH` at most."""
    clock, flat = checked(
        await redis.batch([("TIME",), ("ZRANGE", partition.expiring, 0, BATCH - 1, "WITHSCORES")], near=partition.prefix)
    )
    now = microseconds(clock)
    names = [name for name, expires_at in zip(flat[::2], flat[1::2], strict=True) if float(expires_at) <= now]
    return [name.decode() for name in names if is_text(name)]  # any other was written manually; check removes it


async def expire(
    redis: RedisClient, partition: Partition, session_ids: Sequence[str], count: Callable[[int], object] | None = None
) -> int:
    """Remove those of `session_ids` that have expired; returns how many are no longer listed as expiring.

    `count` is called with how many sessions were removed; another sweep may have removed the others.
    """
    removed = 0
    async for batch in removal_batches(redis, [(name, partition.session(name)) for name in session_ids]):
        calls = [
            script_calls.expire(
                session=partition.session(name), sessions=partition.sessions, partition=partition.arguments, session_id=name
            )
            for name in batch
        ]
        # It compares before it removes, so it may be sent again as reads are.
        replies = await run_many(redis, calls, writes=False)
        removed += sum(reply != "alive" for reply in replies)
        if count is not None:
            count(replies.count("expired"))
    return removed


class Sweeper:
    """One worker's part in the sweep over all projects and partitions of the store."""

    def __init__(
        self,
        redis: RedisClient,
        partitions: int,
        block_size: int = BLOCK_SIZE,
        count: Callable[[int], object] | None = None,
    ) -> None:
        """`partitions` and `block_size` are those of the store. `count` is that of `expire`."""
        self._redis = redis
        self._partitions = partitions
        self._block_size = block_size
        self._count = count
        self._cursor = b"0"

    async def run(self) -> None:
        """Sweep about once in `INTERVAL`, until cancelled. No error ends it; the first of several in a row is logged."""
        has_failed = False
        while True:
            await asyncio.sleep(INTERVAL + uniform(-SPREAD, SPREAD))  # noqa: S311 - no secret
            try:
                # Nothing is written to a store that this server may not work on.
                await manifest.confirm(self._redis, self._partitions)
                if await self._take_lease():
                    while await self.round():
                        await self._renew_lease()
                has_failed = False
            except Exception as error:
                # The text of an unexpected error may quote stored data, so only its class is logged.
                if not has_failed:
                    reason = str(error) if isinstance(error, StoreUnavailable) else type(error).__name__
                    logger.warning("the sweep of expired sessions failed and will be retried: %s", reason)
                has_failed = True

    async def _take_lease(self) -> bool:
        """Take the lease if no other worker has it.

        A lease that lasts longer than `LEASE` was taken before the clock stepped back; nobody would sweep until it ends.
        """
        try:
            if await self._redis.call("SET", keys.SWEEP, "", "PX", LEASE, "NX", writes=True) is not None:
                return True
        except StoreFull:
            return True  # no memory even for the lease, and a sweep frees some; concurrent sweeps do no harm
        if await self._redis.call("PTTL", keys.SWEEP) <= LEASE:
            return False
        await self._renew_lease()
        return True

    async def _renew_lease(self) -> None:
        with suppress(StoreFull):
            await self._redis.call("SET", keys.SWEEP, "", "PX", LEASE, writes=True)

    async def round(self) -> bool:
        """Sweep the next partitions in turn, about `ROUND_SESSIONS` sessions at most; whether expired sessions remain.

        Raises:
            redis.ResponseError, StateIncomplete: a partition is damaged; the others were swept.
            LayoutChanged: the store has another number of partitions now.
        """
        waiting = deque(await partitions_with_expired(self._redis, await self._next_partitions()))
        remaining = ROUND_SESSIONS
        failure: Exception | None = None
        while waiting and remaining > 0:
            partition = waiting.popleft()
            started = time.monotonic()
            try:
                session_ids = await expired_ids(self._redis, partition)
                if await expire(self._redis, partition, session_ids, self._count):
                    waiting.append(partition)
                remaining -= len(session_ids)
            except (ResponseError, StateIncomplete) as error:
                failure = error
            except Unauthorized:
                pass  # The project has been deleted since.
            # Pause for as long as the batch took: the slower Redis is, the more time others get.
            await asyncio.sleep(time.monotonic() - started)
        if failure is not None:
            raise failure
        return bool(waiting)

    async def _next_partitions(self) -> list[Partition]:
        """The partitions of the next projects; those of the first come after those of the last."""
        count = max(1, ROUND_PARTITIONS // self._partitions)
        self._cursor, flat = await self._redis.call("HSCAN", keys.PROJECTS, self._cursor, "COUNT", count)
        return [
            partition
            for slug, project_id in zip(flat[::2], flat[1::2], strict=True)
            if is_text(slug) and is_text(project_id)
            for partition in all_partitions(
                slug.decode(), Owner(project_id.decode(), self._partitions), self._partitions, self._block_size
            )
        ]
