"""The rate limit of API keys: counted in Redis, by its clock, so that one rate applies to all workers and servers."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from service.redis_client.client import RedisClient
from service.store import keys, script_calls
from service.store.api_keys import digest

_SECOND = 1_000_000  # microseconds


class Quota(NamedTuple):
    """The quota of an API key: requests left, seconds until its full burst is available, seconds to wait (0: admitted)."""

    remaining: int
    reset_after: int
    wait: int


@dataclass(frozen=True, slots=True)
class RateLimiter:
    """The rate of every API key: `per_second` requests, in bursts of `burst`. `secret` is the key of the hashes."""

    redis: RedisClient
    secret: str
    per_second: float
    burst: int

    async def acquire(self, api_key: str) -> Quota:
        """Count one request with a valid API key."""
        interval = round(_SECOND / self.per_second)
        call = script_calls.rate_limit(rate=keys.rate_key(digest(api_key, self.secret)), interval=interval, burst=self.burst)
        # Sent as a read: no replica needs to acknowledge it, and to count twice after a lost connection does no harm.
        reply = await call.run(self.redis, writes=False)
        return Quota(reply.remaining, math.ceil(reply.reset_after / _SECOND), math.ceil(reply.wait / _SECOND))
