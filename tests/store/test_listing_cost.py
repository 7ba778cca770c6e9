"""The cost of a listing in Redis: each call is bounded, and deep pages cost as much as the first."""

import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from service.configs.containment import Filter
from service.configs.limits import Limits
from service.redis_client.topology import Target, Topology
from service.store import script_calls
from service.store.cursors import decode_session_cursor
from service.store.listing import BATCH_MAX, Query, iter_matches, page
from tests.store.test_listing import everything
from tests.support.filling import (
    PROJECT,
    TIMEOUT,
    CountingClient,
    document_of,
    fill,
    fill_with_disjoint_terms,
    on_every_redis,
    opened,
    pour,
)

#: As in `find_candidates.lua`.
MAX_TERMS, MAX_COST, BLOCK_COST, PROBE_COST, WINDOW_MIN, WINDOW_MAX = 8, 40000, 100, 15, 8, 512
#: Each block costs something, so no call visits more.
MAX_BLOCKS = MAX_COST // BLOCK_COST


class WatchedClient(CountingClient):
    """A client that records, for each run of find_candidates.lua, how often it called each command."""

    def __init__(self, topology: Topology, *, timeout: float) -> None:
        super().__init__(topology, timeout=timeout)
        self.finds: list[Counter[str]] = []

    async def call(self, *command: str | bytes | int, writes: bool = False, near: Target | None = None) -> Any:  # noqa: ANN401 - as `RedisClient.call`
        if command[:2] != ("EVALSHA", script_calls.find_candidates.script.sha):
            return await super().call(*command, writes=writes, near=near)
        before = await self.stats()
        reply = await super().call(*command, writes=writes, near=near)
        self.finds.append(await self.stats() - before)
        return reply

    async def stats(self) -> Counter[str]:
        """How often each command was called since Redis started, calls by scripts included."""
        info = await super().call("INFO", "commandstats")
        calls = re.findall(r"cmdstat_(\w+):calls=(\d+)", info.decode())
        return Counter({name: int(count) for name, count in calls if name not in ("info", "evalsha")})


@pytest.fixture
async def watched(empty_redis: str) -> AsyncIterator[WatchedClient]:
    redis = WatchedClient.open(empty_redis, timeout=TIMEOUT)
    await redis.call("SCRIPT", "LOAD", script_calls.find_candidates.script.source)
    yield redis
    await redis.close()


def parse(configs: object) -> Query:
    return Query(filter=Filter.parse(document_of(configs).configs, Limits(max_filter_values=1000)))


def bounded(finds: list[Counter[str]], required_terms: int) -> bool:
    """Whether every run of find_candidates.lua stayed within its limits; `required_terms` with an overflow term count twice."""
    sets = min(required_terms, 2 * MAX_TERMS)
    probes = MAX_COST // (PROBE_COST * WINDOW_MIN) + sets
    return all(
        calls["scard"] <= (MAX_BLOCKS + 1) * sets + 2 * required_terms
        and calls["sinter"] <= MAX_BLOCKS + 1
        and calls["smismember"] <= probes + (MAX_BLOCKS + 1) * sets
        and calls["zrangebyscore"] <= BATCH_MAX
        for calls in finds
    )


def test_the_bounds_are_those_of_the_script() -> None:
    here = {"MAX_TERMS": MAX_TERMS, "MAX_COST": MAX_COST, "BLOCK_COST": BLOCK_COST, "PROBE_COST": PROBE_COST}
    for name, value in here.items():
        assert re.search(rf"^local {name} = {value}\b", script_calls.find_candidates.script.source, re.MULTILINE)
    assert f"local WINDOW_MIN, WINDOW_MAX = {WINDOW_MIN}, " in script_calls.find_candidates.script.source


@on_every_redis
@pytest.mark.parametrize("block_size", [4, 16, 4096])
async def test_three_common_tags_that_rarely_occur_together_are_found_in_bounded_calls(
    watched: WatchedClient, block_size: int
) -> None:
    sessions = await opened(watched, PROJECT, Limits(), 1, block_size)
    pairs = (["t1", "t2"], ["t2", "t3"], ["t1", "t3"])
    tags = [["t1", "t2", "t3"] if number in (77, 1200, 2390) else pairs[number % 3] for number in range(2400)]
    names = await pour(sessions, [{"tags": each} for each in tags])
    query = parse({"tags": ["t1", "t2", "t3"]})
    expected = [names[number] for number in (77, 1200, 2390)]
    assert await everything(sessions, query, 20) == expected
    ascending = len(watched.finds)
    assert await everything(sessions, replace(query, descending=True), 20) == expected[::-1]
    assert bounded(watched.finds, 6)
    # Each call but the last uses up its blocks or its members.
    blocks = 2401 // block_size + 1
    assert ascending <= blocks / MAX_BLOCKS + 2400 * 3 * PROBE_COST / MAX_COST + 2
    assert ascending >= blocks / MAX_BLOCKS


async def test_a_call_visits_few_large_blocks_with_few_common_members(watched: WatchedClient) -> None:
    sessions = await opened(watched, PROJECT, Limits(), 1, 1024)
    random = Random(1)
    tags = [f"t{number}" for number in range(8)]
    chosen = [[tag for tag in tags if random.random() < 0.5] for _ in range(12_000)]
    names = await pour(sessions, [{"tags": each} for each in chosen])
    expected = [name for name, each in zip(names, chosen, strict=True) if each == tags]
    assert await everything(sessions, parse({"tags": tags}), 100) == expected
    # A block costs its smallest set once for each of the eight: about 450 times 8.
    assert len(watched.finds) == 2
    assert max(calls["sinter"] for calls in watched.finds) <= 1 + MAX_COST // (400 * 8) + 1


@on_every_redis
@pytest.mark.parametrize("descending", [False, True])
async def test_a_block_that_one_call_cannot_finish_is_continued_by_the_next(watched: WatchedClient, descending: bool) -> None:
    # Two dense sets, which intersect only at both ends of the single block: the first match promises more.
    sessions = await opened(watched, PROJECT, Limits(), 1)
    halves: list[object] = [{"even": 1} if number % 2 else {"odd": 1} for number in range(4000)]
    both: list[object] = [{"even": 1, "odd": 1}] * 50
    names = await pour(sessions, both + halves + both[:1] if descending else both[:1] + halves + both)
    query = replace(parse({"even": 1, "odd": 1}), descending=descending)
    expected = [names[-1], *names[:50][::-1]] if descending else [names[0], *names[-50:]]
    assert await everything(sessions, query, 20) == expected
    assert watched.finds[0]["smismember"] > MAX_COST // PROBE_COST // WINDOW_MAX
    assert len(watched.finds) > 3
    assert bounded(watched.finds, 2)


async def test_a_stale_member_hides_no_session_behind_it(watched: WatchedClient) -> None:
    sessions = await opened(watched, PROJECT, Limits(), 1)
    names = await pour(sessions, [{"a": 1}] * 1000)
    await watched.call("ZREM", sessions.all_partitions[0].sessions, *names[:300])
    assert await everything(sessions, parse({"a": 1}), 20) == names[300:]


@pytest.mark.parametrize("configs", [{}, {"a": 1}, {"a": 1, "b": {"c": "x"}}], ids=["all", "one term", "two terms"])
@pytest.mark.parametrize("block_size", [16, 4096])
@pytest.mark.parametrize("descending", [False, True])
async def test_a_deep_page_costs_what_the_first_one_did(
    watched: WatchedClient, configs: object, block_size: int, descending: bool
) -> None:
    sessions = await opened(watched, PROJECT, Limits(), 1, block_size)
    await pour(sessions, [{"a": 1, "b": {"c": "x", "n": number}} for number in range(640)])
    query, costs = replace(parse(configs), descending=descending), []
    while True:
        before = await watched.stats()
        part = await page(sessions, query, 10)
        costs.append((await watched.stats() - before).total())
        if part.cursor is None:
            break
        query = replace(query, after=decode_session_cursor(part.cursor, 1))
    assert len(costs) == 64
    assert max(costs[32:]) <= max(costs[:8])


async def test_sessions_that_do_not_match_cost_nothing_in_blocks_without_a_match(watched: WatchedClient) -> None:
    sessions = await opened(watched, PROJECT, Limits(), 1, 4)
    rare = {40, 41, 390}
    names = await pour(sessions, [{"a": "rare" if number in rare else "common"} for number in range(400)])
    assert await everything(sessions, parse({"a": "rare"}), 20) == [names[number] for number in sorted(rare)]
    # One SCARD in the first block, and one a block in which the term occurs: serials 41 and 42 share one, 391 is in another.
    assert [calls["scard"] for calls in watched.finds] == [1 + 2]


async def test_a_bulk_operation_reads_one_batch_at_a_time(watched: WatchedClient) -> None:
    sessions = await opened(watched, PROJECT, Limits(), 1)
    names = await pour(sessions, [{"a": 1}] * 700)
    batches = [[session.id for session in batch] async for batch in iter_matches(sessions, parse({"a": 1}))]
    assert [name for batch in batches for name in batch] == names
    assert max(map(len, batches)) <= BATCH_MAX
    assert bounded(watched.finds, 1)


async def test_of_many_required_terms_the_rarest_lead_the_search(watched: WatchedClient) -> None:
    sessions = await opened(watched, PROJECT, Limits(), 1, 4)
    common = {f"k{number}": number for number in range(12)}
    stored = await fill(sessions, [{**common, "z": "rare"} if number == 30 else common for number in range(60)])
    assert await everything(sessions, parse({**common, "z": "rare"}), 20) == [stored[30].id]
    # One SCARD for each required term, to find the rarest; one in the first block, which lacks that; and one for each used term
    # in the one block that has it.
    assert [calls["scard"] for calls in watched.finds] == [13 + 1 + MAX_TERMS]


async def test_of_hundreds_of_required_terms_only_the_rarest_are_used(watched: WatchedClient) -> None:
    sessions = await opened(watched, PROJECT, Limits(), 1, 4)
    complete = {f"k{number}": number for number in range(200)}
    near: Callable[[int], dict[str, int]] = lambda number: {**complete, f"k{number}": -1}  # noqa: E731 - one line says it
    stored = await fill(sessions, [complete if number == 30 else near(number) for number in range(40)])
    assert await everything(sessions, parse(complete), 20) == [stored[30].id]
    assert bounded(watched.finds, 200)
    assert max(calls["scard"] for calls in watched.finds) <= 200 + 11 * MAX_TERMS


async def test_dense_terms_that_never_occur_together_are_soon_intersected_instead_of_probed(watched: WatchedClient) -> None:
    sessions = await opened(watched, PROJECT, Limits())
    await fill_with_disjoint_terms(sessions.all_partitions[0], watched, blocks=12)
    query = parse({"a": 1, "b": 1})
    assert await everything(sessions, query, 20) == []
    assert bounded(watched.finds, 2)
    # Each block costs about as much as its sets have members, twice: for the probes that find nothing, and for SINTER.
    assert len(watched.finds) <= 5
