"""The lines of the rate limit headers, and which of them round."""

from typing import cast

import pytest

from service.http.server import headers
from service.redis_client.client import RedisClient
from service.store.rate_limit import Quota, RateLimiter


@pytest.mark.parametrize(("per_second", "window"), [(5.0, 2), (3.0, 4), (100.0, 1)])
def test_the_window_of_a_rate_limit_is_whole_seconds_rounded_up(per_second: float, window: int) -> None:
    limiter = RateLimiter(cast("RedisClient", None), "", per_second=per_second, burst=10)
    assert headers.rate_limit(limiter, Quota(remaining=7, reset_after=3, wait=0)) == (
        b'RateLimit-Policy: "key";q=10;w=%d\r\nRateLimit: "key";r=7;t=3\r\n' % window
    )
