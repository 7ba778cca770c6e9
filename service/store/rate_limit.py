"""How fast an API key may ask: counted in Redis by its clock, so that one rate holds over all workers and servers."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from service.redis_client.client import RedisClient
from service.store import keys, scripts
from service.store.projects import digest

RATE_LIMIT = scripts.load("rate_limit")

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
        # No write that anybody relies on: no replica is waited for, and to count twice after a broken connection does no harm.
        reply = await RATE_LIMIT.run(
            self.redis, (keys.rate_key(digest(key, self.secret)),), (interval, self.burst), writes=False
        )
        return Quota(reply[0], *(math.ceil(part / _SECOND) for part in reply[1:]))
