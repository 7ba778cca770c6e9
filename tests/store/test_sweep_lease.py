"""Sweepers of several workers: the lease that lets one of them sweep at a time, clocks that step back, failures."""

import asyncio
import logging

import pytest
from redis.exceptions import ResponseError

from service.errors import StoreUnavailable
from service.redis_client.client import RedisClient
from service.store import keys
from service.store.upkeep import sweeper as sweeping
from service.store.upkeep.sweeper import Sweeper
from tests.store.test_sweeper import BLOCK, count_sessions, project, until
from tests.support.filling import (
    TIMEOUT,
    CountingClient,
    lapse,
    on_every_redis,
    session_id,
)


@on_every_redis
@pytest.mark.usefixtures("short_intervals")
async def test_a_store_without_memory_for_the_lease_is_swept_too(redis: RedisClient) -> None:
    await project(redis, "one", 1, 3)
    await redis.call("CONFIG", "SET", "maxmemory", 1)
    running = asyncio.create_task(Sweeper(redis, 1, BLOCK).run())

    async def swept() -> bool:
        return await count_sessions(redis, "one") == 1

    try:
        await until(swept)
        assert await redis.call("EXISTS", keys.SWEEP) == 0
    finally:
        running.cancel()
        await asyncio.wait([running])
        await redis.call("CONFIG", "SET", "maxmemory", 0)


@pytest.mark.usefixtures("short_intervals")
async def test_the_lease_is_renewed_after_each_incomplete_round(
    counting: CountingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "LEASE", 3_600_000)
    rounds = [True, True, True, False]

    async def one_round(_: Sweeper) -> bool:
        return rounds.pop(0)

    monkeypatch.setattr(Sweeper, "round", one_round)
    counting.seen.clear()
    running = asyncio.create_task(Sweeper(counting, 1, BLOCK).run())

    async def was_refused() -> bool:
        return any(command[0] == "PTTL" for command, _ in counting.seen)

    await until(was_refused)
    running.cancel()
    await asyncio.wait([running])
    lease = ("SET", keys.SWEEP, "", "PX", 3_600_000)
    leases = [command for command, _ in counting.seen if command[0] == "SET"]
    # Acquired, renewed three times, and then refused until it expires.
    assert leases[:5] == [(*lease, "NX"), lease, lease, lease, (*lease, "NX")]


@on_every_redis
@pytest.mark.usefixtures("short_intervals")
async def test_sweepers_of_several_workers_run_until_they_are_cancelled(
    redis: RedisClient, empty_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "BATCH", 4)
    monkeypatch.setattr(sweeping, "ROUND_SESSIONS", 8)
    clients = [RedisClient.open(empty_redis, timeout=TIMEOUT) for _ in range(3)]
    sessions = await project(redis, "one", 5, 40)
    running = [asyncio.create_task(Sweeper(each, 1, BLOCK).run()) for each in clients]

    async def swept() -> bool:
        return await count_sessions(redis, "one") == 5

    await until(swept)
    # Sessions that expire later are removed too.
    for number in range(3):
        await lapse(sessions, session_id(number))

    async def two_remain() -> bool:
        return await count_sessions(redis, "one") == 2

    await until(two_remain)
    for task in running:
        assert not task.done()
        task.cancel()
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*running, return_exceptions=True))
    for each in clients:
        await each.close()


@pytest.mark.usefixtures("short_intervals")
async def test_only_one_worker_at_a_time_sweeps(counting: CountingClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "LEASE", 3_600_000)
    await project(counting, "one", 1, 1)
    await counting.call("SET", keys.SWEEP, "", "PX", sweeping.LEASE)
    counting.seen.clear()
    running = asyncio.create_task(Sweeper(counting, 1, BLOCK).run())

    async def has_tried() -> bool:
        return len(counting.seen) >= 10

    await until(has_tried)
    assert {command[0] for command, _ in counting.seen} == {"HMGET", "SET", "PTTL"}
    await counting.call("DEL", keys.SWEEP)

    async def swept() -> bool:
        return await count_sessions(counting, "one") == 1

    await until(swept)
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.usefixtures("short_intervals")
@pytest.mark.parametrize("step", [1_000, 3_600_000, 10 * 365 * 24 * 3_600_000])
async def test_a_clock_that_steps_back_does_not_stop_the_sweep(redis: RedisClient, step: int) -> None:
    """After the step (milliseconds), the old lease lasts longer by that much."""
    await project(redis, "one", 1, 3)
    await redis.call("SET", keys.SWEEP, "", "PX", sweeping.LEASE + step)
    running = asyncio.create_task(Sweeper(redis, 1, BLOCK).run())

    async def swept() -> bool:
        return await count_sessions(redis, "one") == 1

    await until(swept)
    assert await redis.call("PTTL", keys.SWEEP) <= sweeping.LEASE
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.usefixtures("short_intervals")
async def test_failures_do_not_end_the_sweep_and_only_the_first_is_logged_without_values(
    redis: RedisClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    failures: list[Exception] = [
        StoreUnavailable(), StoreUnavailable(), ResponseError("secret"), TypeError("secret"), KeyError("secret"),
    ]  # fmt: skip
    rounds = 0
    whole = Sweeper.round

    async def failing(sweeper: Sweeper) -> bool:
        nonlocal rounds
        rounds += 1
        if failures:
            raise failures.pop(0)
        return await whole(sweeper)

    monkeypatch.setattr(Sweeper, "round", failing)
    await project(redis, "one", 1, 3)
    running = asyncio.create_task(Sweeper(redis, 1, BLOCK).run())

    async def swept() -> bool:
        return await count_sessions(redis, "one") == 1

    await until(swept)
    assert [record.getMessage() for record in caplog.records] == [
        "the sweep of expired sessions failed and will be retried: the store is not available; try again shortly"
    ]
    # After a successful round, the next failure is logged again.
    before = rounds

    async def succeeded() -> bool:
        return rounds >= before + 2

    await until(succeeded)
    failures.append(TypeError("secret"))

    async def logged() -> bool:
        return len(caplog.records) == 2

    await until(logged)
    assert caplog.records[1].getMessage().endswith(": TypeError")
    assert "secret" not in caplog.text
    running.cancel()
    await asyncio.wait([running])
