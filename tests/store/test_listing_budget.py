"""Pages that end early: with any budget, all pages together are the list, on every number of partitions and in both orders."""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.configs.budget import UNLIMITED, Budget
from service.configs.containment import Filter
from service.configs.limits import Limits
from service.errors import ClientGone, FilterTooExpensive
from service.redis_client.client import RedisClient
from service.store import listing, script_calls, time_slices
from service.store.cursors import decode_session_cursor
from service.store.listing import READ_BYTES, Page, Query, iter_matches, page
from service.store.partition_scan import PartitionScan
from service.store.record import FIELDS
from service.store.script_calls import Candidates
from service.store.scripts import Call
from service.store.sessions import Sessions
from service.store.time_slices import SLICE, Scheduler, TimeSlice
from tests.store.test_listing import LIMITS, World, everything, few, with_store
from tests.support import strategies
from tests.support.filling import PROJECT, CountingClient, fill, on_every_redis, opened, pour, session_id
from tests.support.lua import script_with

#: A filter that the index cannot narrow.
NOT_NARROWED = Filter.parse(b'{"nobody":{}}', LIMITS)


async def pages(
    sessions: Sessions, query: Query, limit: int, budget: Callable[[], Budget], max_bytes: int = 2**40
) -> list[Page]:
    """All pages of a list, each with a new budget."""
    read_pages: list[Page] = []
    cursors: set[str] = set()
    while True:
        read_pages.append(await page(sessions, query, limit, budget=budget(), max_bytes=max_bytes))
        cursor = read_pages[-1].cursor
        if cursor is None:
            return read_pages
        assert cursor not in cursors, "a page made no progress"
        cursors.add(cursor)
        query = replace(query, after=decode_session_cursor(cursor, sessions.partitions))


def ids(read_pages: Sequence[Page]) -> list[str]:
    return [session.id for part in read_pages for session in part.sessions]


@pytest.mark.parametrize("required_terms", [(), ("kind=1", "")])
async def test_one_candidate_is_read_even_if_it_is_larger_than_the_limit(
    sessions: Sessions, required_terms: Sequence[str]
) -> None:
    await fill(sessions, [{"kind": 1}] * 3)
    partition = sessions.all_partitions[0]
    call = script_calls.find_candidates(
        sessions=partition.sessions,
        prefix=partition.prefix,
        block_size=partition.block_size,
        after="",
        descending=0,
        limit=3,
        max_bytes=1,
        required_terms=required_terms,
    )
    reply = await call.run(sessions.redis, writes=False)
    assert [session[-1].decode() for session in reply.sessions] == [session_id(1)]
    assert reply.has_more
    assert reply.after == b"1"


@on_every_redis
@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("descending", [False, True])
def test_with_any_budget_the_pages_together_are_the_complete_list(redis_url: str, partitions: int, descending: bool) -> None:
    @few
    @given(
        st.builds(World, st.lists(strategies.any_configs(), min_size=1, max_size=8), st.integers(0, 2**32)),
        st.integers(1, 9), st.integers(1, 12), st.integers(1, 2000), st.integers(0, 60), st.integers(1, 2000),
    )  # fmt: skip
    def holds(world: World, limit: int, candidates: int, max_bytes: int, comparisons: int, page_bytes: int) -> None:
        async def use(sessions: Sessions) -> None:
            await fill(sessions, [spelled.raw for spelled in world.configs])
            for wanted in (None, NOT_NARROWED, *(Filter.parse(spelled.raw, LIMITS) for spelled in world.filters)):
                query = Query(filter=wanted, descending=descending)
                expected = await everything(sessions, query)
                for maximum in (UNLIMITED, comparisons):
                    budget = partial(Budget, candidates=candidates, max_bytes=max_bytes, comparisons=maximum)
                    try:
                        read_pages = await pages(sessions, query, limit, budget, page_bytes)
                    except FilterTooExpensive:
                        assert maximum == comparisons
                        continue
                    assert ids(read_pages) == expected
                    assert all(len(part.sessions) <= limit for part in read_pages)
                    assert all(fits(part, page_bytes) for part in read_pages)

        with_store(redis_url, partitions, 4, use)

    holds()


def fits(part: Page, maximum: int) -> bool:
    return len(part.sessions) <= 1 or sum(len(session.configs) for session in part.sessions) <= maximum


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_page_on_which_nothing_matches_ends_empty_with_a_cursor_behind_what_it_examined(
    redis: RedisClient, partitions: int, descending: bool
) -> None:
    sessions = await opened(redis, PROJECT, LIMITS, partitions, 4)
    last = {"nobody": {"x": 1}}
    await pour(sessions, [last, *[{"n": number} for number in range(60)], last])
    query = Query(filter=NOT_NARROWED, descending=descending)
    read_pages = await pages(sessions, query, 20, lambda: Budget(candidates=10))
    assert [len(part.sessions) for part in read_pages] == [1, 0, 0, 0, 0, 0, 1]
    assert ids(read_pages) == await everything(sessions, query)


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_search_of_the_index_without_results_counts_and_ends_a_page(
    redis: RedisClient, partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = script_with(script_calls.find_candidates.script, MAX_COST=3300)
    monkeypatch.setattr(script_calls.find_candidates, "script", small)
    monkeypatch.setattr(listing, "COST_OF_CANDIDATE", 120)
    sessions = await opened(redis, PROJECT, LIMITS, partitions, 4)
    # Two terms that occur in each block, and only at the end in one session.
    halves = [{"even": 1} if number % 2 else {"odd": 1} for number in range(1200)]
    names = await pour(sessions, [*halves, {"even": 1, "odd": 1}])
    query = Query(filter=Filter.parse(b'{"even":1,"odd":1}', LIMITS))
    searches = 0
    next_call = PartitionScan.next_call

    def counted(self: PartitionScan, limit: int, max_bytes: int) -> Call[Candidates]:
        nonlocal searches
        searches += 1
        return next_call(self, limit, max_bytes)

    monkeypatch.setattr(PartitionScan, "next_call", counted)
    read_pages = await pages(sessions, query, 20, lambda: Budget(candidates=30))
    assert ids(read_pages) == names[-1:]
    assert len(read_pages) >= 2
    # A search of 32 blocks counts as 26 candidates or more: after two refills a page ends.
    assert searches <= 3 * partitions * len(read_pages)


async def test_a_first_session_that_is_too_expensive_is_refused_and_a_later_one_starts_the_next_page(
    sessions: Sessions,
) -> None:
    cheap, dear = {"a": [[1]]}, {"a": [*([[0]] * 50), [1]]}
    await fill(sessions, [cheap, cheap, dear, cheap])
    query = Query(filter=Filter.parse(b'{"a":[[1]]}', LIMITS))
    assert len(ids(await pages(sessions, query, 20, lambda: Budget(comparisons=102)))) == 4
    first = await page(sessions, query, 20, budget=Budget(comparisons=50))
    assert len(first.sessions) == 2
    assert first.cursor is not None
    query = replace(query, after=decode_session_cursor(first.cursor, 1))
    with pytest.raises(FilterTooExpensive, match="comparing filter_by_configs with the arrays of a session"):
        await page(sessions, query, 20, budget=Budget(comparisons=50))


class Measuring(CountingClient):
    """Records the bytes of configs in each reply of find_candidates.lua."""

    @property
    def read(self) -> list[int]:
        return [
            sum(len(session[0]) for session in reply[4:])
            for command, reply in self.seen
            if command[:2] == ("EVALSHA", script_calls.find_candidates.script.sha) and not isinstance(reply, Exception)
        ]


@on_every_redis
@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("wanted", [None, b'{"kind":1}', b'{"nobody":{}}'])
async def test_one_read_is_bounded_in_bytes(empty_redis: str, partitions: int, wanted: bytes | None) -> None:
    redis = Measuring.open(empty_redis, timeout=30)
    sessions = await opened(redis, PROJECT, Limits(), partitions, 4)
    large = 200_000
    names = await pour(sessions, [{"kind": 1, "big": "x" * large}] * 40 + [{"kind": 1}] * 20)
    query = Query(filter=None if wanted is None else Filter.parse(wanted, LIMITS))
    redis.seen.clear()
    read_pages = await pages(sessions, query, 60, Budget, max_bytes=1_000_000)
    assert sorted(ids(read_pages)) == (sorted(names) if wanted != b'{"nobody":{}}' else [])
    assert all(fits(part, 1_000_000) for part in read_pages)
    assert max(redis.read) <= max(READ_BYTES // partitions, large + 100)
    redis.seen.clear()
    assert sum([len(batch) async for batch in iter_matches(sessions, query)]) == len(ids(read_pages))
    assert 0 < max(redis.read) <= READ_BYTES
    await redis.close()


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_page_of_small_sessions_takes_one_round_trip_to_each_partition(empty_redis: str, partitions: int) -> None:
    redis = CountingClient.open(empty_redis, timeout=30)
    sessions = await opened(redis, PROJECT, Limits(), partitions)
    await pour(sessions, [{"kind": 1}] * 300)
    await redis.call("SCRIPT", "LOAD", script_calls.find_candidates.script.source)
    for wanted in (b'{"kind":1}', b""):
        redis.seen.clear()
        assert len((await page(sessions, Query(filter=Filter.parse(wanted, LIMITS)), 20)).sessions) == 20
        assert [command[0] for command, _ in redis.seen] == ["EVALSHA"] * partitions
    await redis.close()


def test_the_script_reads_the_fields_that_make_a_session() -> None:
    assert re.findall(
        r'"(\w+)"', script_calls.find_candidates.script.source.partition("local FIELDS = {")[2].partition("}")[0]
    ) == list(FIELDS)


def used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time slice is used up as soon as it begins."""
    monkeypatch.setattr(time_slices, "SLICE", -1.0)


async def test_a_scan_stops_when_its_client_is_gone(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    used_up(monkeypatch)
    await pour(sessions, [{"n": number} for number in range(400)])
    answers = iter([False] * 7)
    examined = 0
    matches = Filter.matches

    def counted(self: Filter, configs: bytes, budget: Budget | None = None) -> bool:
        nonlocal examined
        examined += 1
        return matches(self, configs, budget)

    monkeypatch.setattr(Filter, "matches", counted)
    time_slice = TimeSlice(is_client_gone=lambda: next(answers, True))
    with pytest.raises(ClientGone):
        await page(sessions, Query(filter=NOT_NARROWED), 200, time_slice=time_slice)
    assert examined <= 7


async def test_of_many_scans_one_continues_in_each_iteration_of_the_event_loop() -> None:
    scheduler = Scheduler()
    events: list[int] = []

    async def scan(name: int) -> None:
        time_slice = TimeSlice(scheduler)
        for _ in range(5):
            await time_slice.renew()
            events.append(name)

    async def iterations() -> None:
        while True:
            events.append(-1)
            await asyncio.sleep(0)

    counting = asyncio.create_task(iterations())
    await asyncio.gather(*map(scan, range(8)))
    counting.cancel()
    slices = "".join("." if name < 0 else "x" for name in events).split(".")
    assert max(map(len, slices)) == 1
    assert [events.count(name) for name in range(8)] == [5] * 8


async def test_a_slice_counts_the_computing_time_of_a_scan_and_not_its_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time_slices, "monotonic", lambda: now)

    async def wait() -> str:
        nonlocal now
        now += 1000
        return "reply"

    time_slice = TimeSlice()
    now += SLICE * 0.9
    assert await time_slice.pause(wait()) == "reply"
    used_up = [time_slice.is_used_up]
    now += SLICE * 0.2
    used_up.append(time_slice.is_used_up)
    await time_slice.renew()
    used_up.append(time_slice.is_used_up)
    assert used_up == [False, True, False]


async def test_a_wait_for_redis_ends_a_scan_whose_client_is_gone_meanwhile() -> None:
    time_slice = TimeSlice(is_client_gone=lambda: True)
    with pytest.raises(ClientGone):
        await time_slice.pause(asyncio.sleep(0))
