"""How fast an API key may ask: counted in Redis by its clock, so that one rate holds over all workers and servers."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from service.redis_client.client import RedisClient
from service.store import keys, script_calls
from service.store.api_keys import digest

_SECOND = 1_000_000  # microseconds


class Quota(NamedTuple):
    """What a key has left: requests at once, whole seconds until its burst is whole, whole seconds to wait (0: go on)."""

    left: int
    reset_after: int
    wait: int


@dataclass(frozen=True, slots=True)
class RateLimiter:
    """The rate of every key: `per_second` requests, `burst` at once. `secret` is what keys are hashed with."""

    redis: RedisClient
    secret: str
    per_second: float
    burst: int

    async def acquire(self, key: str) -> Quota:
        """Count one request with `key`, which is a good one."""
        interval = round(_SECOND / self.per_second)
        call = script_calls.rate_limit(rate=keys.rate_key(digest(key, self.secret)), interval=interval, burst=self.burst)
        # Sent as a read: no replica needs to acknowledge it, and to count twice after a lost connection does no harm.
        reply = await call.run(self.redis, writes=False)
        return Quota(reply.remaining, math.ceil(reply.reset_after / _SECOND), math.ceil(reply.wait / _SECOND))
