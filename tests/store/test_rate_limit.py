"""The rate limit of an API key: the script admits what a token bucket would, even if the clock steps."""

import asyncio
import re
from fractions import Fraction
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.redis_client.client import RedisClient
from service.store import script_calls
from service.store.api_keys import digest
from service.store.keys import rate_key
from service.store.rate_limit import Quota, RateLimiter

#: A rate (per second) at which no token is added while a test runs.
SLOW = 0.001
SECRET = "s"


def rates(redis: RedisClient, burst: int, per_second: float = SLOW) -> RateLimiter:
    return RateLimiter(redis, SECRET, per_second, burst)


async def test_one_burst_is_shared_by_all_connections(empty_redis: str) -> None:
    clients = [RedisClient.open(empty_redis, timeout=60.0) for _ in range(3)]
    quotas = await asyncio.gather(*(rates(clients[turn % 3], 7).acquire("sk-ac-a") for turn in range(40)))
    assert sorted(quota.remaining for quota in quotas if not quota.wait) == list(range(7))
    refused = [quota for quota in quotas if quota.wait]
    assert len(refused) == 33
    # One token is added every 1,000 seconds.
    assert {quota.remaining for quota in refused} == {0}
    assert all(900 < quota.wait <= 1000 and 6900 < quota.reset_after <= 7000 for quota in refused)
    for redis in clients:
        await redis.close()


async def test_each_api_key_has_a_separate_rate_and_is_stored_as_a_digest(redis: RedisClient) -> None:
    for key in ("sk-ac-a", "sk-ac-b"):
        assert [(await rates(redis, 2).acquire(key)).wait > 0 for _ in range(3)] == [False, False, True]
    stored = {key.decode() for key in await redis.call("KEYS", "*")}
    assert stored == {rate_key(digest(key, SECRET)) for key in ("sk-ac-a", "sk-ac-b")}


async def test_the_redis_key_of_an_idle_api_key_expires(redis: RedisClient) -> None:
    await rates(redis, 3).acquire("sk-ac-a")
    assert 900_000 < await redis.call("PTTL", rate_key(digest("sk-ac-a", SECRET))) <= 1_000_000
    assert await rates(redis, 5, 100_000.0).acquire("sk-ac-b") == Quota(4, 1, 0)
    assert 0 <= await redis.call("PTTL", rate_key(digest("sk-ac-b", SECRET))) + 2 <= 3  # -2: already expired


#: The script with the clock as an argument, and without the expiry, which follows Redis's own clock.
SOURCE = script_calls.rate_limit.script.source
CLOCKED = re.sub(r', "PX", .*\)$', ")", SOURCE, flags=re.MULTILINE).replace('redis.call("TIME")', "{ 0, ARGV[3] }")
_numbers = count()


class Bucket:
    """The reference token bucket; times are in microseconds."""

    def __init__(self, interval: int, burst: int) -> None:
        self.interval, self.burst = interval, burst
        self.tokens, self.at = Fraction(burst), 0

    def acquire(self, now: int) -> tuple[int, int, int]:
        self.tokens = min(Fraction(self.burst), self.tokens + Fraction(now - self.at, self.interval))
        self.at = now
        wait = max(Fraction(0), (1 - self.tokens) * self.interval)
        if not wait:
            self.tokens -= 1
        return int(self.tokens), int((self.burst - self.tokens) * self.interval), int(wait)


async def acquire(redis: RedisClient, key: str, interval: int, burst: int, now: int) -> list[int]:
    reply: list[int] = await redis.call("EVAL", CLOCKED, 1, key, interval, burst, now)
    return reply


def test_the_script_under_test_reads_the_clock_from_its_argument() -> None:
    assert "ARGV[3]" in CLOCKED
    assert not re.search(r'"TIME"|"PX"', CLOCKED)
    assert CLOCKED.count("\n") == SOURCE.count("\n")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    interval=st.integers(10, 1_000_000_000),
    burst=st.integers(1, 20),
    steps=st.lists(st.tuples(st.integers(0, 30), st.fractions(0, 3)), min_size=1, max_size=40),
)
async def test_the_script_admits_what_a_token_bucket_would(
    redis_url: str, interval: int, burst: int, steps: list[tuple[int, Fraction]]
) -> None:
    redis, key = RedisClient.open(redis_url, timeout=60.0), f"rate:{next(_numbers)}"
    bucket, now = Bucket(interval, burst), 1_800_000_000_000_000
    try:
        for repeats, wait in steps:
            now += int(wait * interval)
            for _ in range(repeats):
                assert await acquire(redis, key, interval, burst, now) == list(bucket.acquire(now))
    finally:
        await redis.close()


@pytest.mark.parametrize("back", [1, 10_000, 10**12])
async def test_a_clock_that_steps_back_blocks_a_key_for_one_interval_at_most(redis: RedisClient, back: int) -> None:
    interval, now = 1_000_000_000, 1_800_000_000_000_000
    for _ in range(3):
        assert (await acquire(redis, "rate:back", interval, 3, now))[2] == 0
    _, reset_after, wait = await acquire(redis, "rate:back", interval, 3, now - back)
    assert (wait, reset_after) == (interval, 3 * interval)
    # From here on the key behaves like any other that used up its burst.
    assert (await acquire(redis, "rate:back", interval, 3, now - back + interval - 1)) == [0, 2 * interval + 1, 1]
    assert (await acquire(redis, "rate:back", interval, 3, now - back + interval)) == [0, 3 * interval, 0]
    assert (await acquire(redis, "rate:back", interval, 3, now - back + 4 * interval)) == [2, interval, 0]


#: Seconds.
HOUR = 3600


@pytest.mark.parametrize("step", [20, HOUR])
async def test_a_busy_key_regains_its_rate_soon_after_the_clock_of_redis_steps_back(redis: RedisClient, step: int) -> None:
    """After the step (seconds), the stored time and the expiry are ahead by that much."""
    fast = rates(redis, 2, 20.0)
    key = rate_key(digest("sk-ac-a", SECRET))
    while not (await fast.acquire("sk-ac-a")).wait:
        pass
    await redis.call("INCRBY", key, step * 1_000_000)
    await redis.call("PEXPIRE", key, step * 1000 + 100)
    async with asyncio.timeout(step / 2):
        while (await fast.acquire("sk-ac-a")).wait:  # noqa: ASYNC110 - a client that does not wait
            await asyncio.sleep(0.01)
    assert await redis.call("PTTL", key) <= 100


async def test_a_raised_rate_applies_from_the_next_request(redis: RedisClient) -> None:
    for _ in range(4):
        await rates(redis, 3).acquire("sk-ac-a")
    raised = rates(redis, 3, 1000.0)
    await raised.acquire("sk-ac-a")
    await asyncio.sleep(0.01)
    assert (await raised.acquire("sk-ac-a")).wait == 0
