"""Portions of sessions to be removed, such that no round trip keeps Redis from others for long."""

from collections.abc import AsyncIterator, Sequence

from service.redis_client.client import RedisClient

#: Sessions that are removed in one round trip, and the bytes of terms that they have together. Redis works off all that one
#: connection has sent before it looks at another.
REMOVED, REMOVED_BYTES = 100, 2 * 1024


async def portions(redis: RedisClient, named: Sequence[tuple[str, str]]) -> AsyncIterator[list[str]]:
    """The ids of sessions to be removed (each with its key), in portions that do not keep Redis from others for long.

    A session of many terms is a portion of its own; what has no size shows when it is removed.
    """
    portion: list[str] = []
    total = 0
    for first in range(0, len(named), REMOVED):
        batch = named[first : first + REMOVED]
        sizes = await redis.batch([("HSTRLEN", key, "terms") for _, key in batch])
        for (session_id, _), answer in zip(batch, sizes, strict=True):
            size = 0 if isinstance(answer, Exception) else answer
            if portion and (total + size > REMOVED_BYTES or len(portion) == REMOVED):
                yield portion
                portion, total = [], 0
            portion.append(session_id)
            total += size
    if portion:
        yield portion
