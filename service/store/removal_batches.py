"""Batches of sessions to remove, small enough that no round trip blocks Redis for long."""

from collections.abc import AsyncIterator, Sequence

from service.redis_client.client import RedisClient

#: Sessions removed in one round trip, and the bytes of their terms together. Redis executes everything that one connection has
#: sent before it serves another.
BATCH_SESSIONS, BATCH_BYTES = 100, 2 * 1024


async def removal_batches(redis: RedisClient, session_keys: Sequence[tuple[str, str]]) -> AsyncIterator[list[str]]:
    """Split sessions to remove, given as pairs of id and Redis key, into batches of ids.

    A session with many terms is a batch by itself. A key of the wrong type counts as empty; its removal reports it.
    """
    batch: list[str] = []
    total = 0
    for first in range(0, len(session_keys), BATCH_SESSIONS):
        measured = session_keys[first : first + BATCH_SESSIONS]
        sizes = await redis.batch([("HSTRLEN", key, "terms") for _, key in measured])
        for (session_id, _), reply in zip(measured, sizes, strict=True):
            size = 0 if isinstance(reply, Exception) else reply
            if batch and (total + size > BATCH_BYTES or len(batch) == BATCH_SESSIONS):
                yield batch
                batch, total = [], 0
            batch.append(session_id)
            total += size
    if batch:
        yield batch
