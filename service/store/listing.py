"""Listing: which sessions match, page by page, in the order of (created_at, id).

A query becomes required terms (pure), `find_candidates.lua` searches the index for candidates, and the filter decides on each
of them. The candidates of all partitions are examined in the order of the list. So if a page ends early, because its budget is
used up, everything before its cursor has been examined and nothing after it. A cursor contains the serial to continue after for
each partition: a page costs the same at any depth, and neither repeats nor skips a session that does not change.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from operator import itemgetter
from typing import Protocol

from service.configs.budget import UNLIMITED, Budget, OutOfBudget
from service.configs.terms import RequiredTerm, user_term
from service.errors import FilterTooExpensive
from service.redis_client.client import checked
from service.store.cursors import encode_session_cursor
from service.store.partition_scan import PartitionScan, Place
from service.store.record import StoredSession, parse_user
from service.store.scripts import run_many
from service.store.sessions import Sessions
from service.store.time_slices import TimeSlice

#: Most candidates that are read in one round trip, and most bytes of configs that one list reads in it, over all partitions.
BATCH_MAX, READ_BYTES = 256, 2 * 1024 * 1024

#: As `READ_BYTES`, for a small list: one whose page has less than half of this so far.
SMALL_READ_BYTES = 256 * 1024
#: Large lists that a worker fills at the same time; this bounds the memory of all its lists.
LARGE_LISTS = 4

#: The cost of a search, as `find_candidates` counts it, that takes about as long as one candidate: 12 µs.
COST_OF_CANDIDATE = 600


class ConfigsPredicate(Protocol):
    """A condition on a session's configs: required terms that narrow the search, and the test that decides."""

    @property
    def required_terms(self) -> tuple[RequiredTerm, ...]:
        """The terms that every match has; empty if the index cannot narrow the search."""

    def matches(self, configs: bytes, budget: Budget) -> bool:
        """Whether stored configs match; raises OutOfBudget."""


@dataclass(frozen=True, slots=True)
class Query:
    """What to list: sessions of `user` and that match `filter`, where given. `after` is one serial per partition, or None."""

    user: str | None = None
    filter: ConfigsPredicate | None = None
    descending: bool = False
    after: tuple[int | None, ...] | None = None

    @property
    def required_terms(self) -> tuple[RequiredTerm, ...]:
        """The terms that every match has; empty if the index cannot narrow the query."""
        required_terms = self.filter.required_terms if self.filter else ()
        return required_terms if self.user is None else (RequiredTerm(user_term(self.user)), *required_terms)

    @property
    def terms(self) -> list[str]:
        """The required terms as `find_candidates` takes them."""
        return [part for each in self.required_terms for part in (each.term, each.overflow or "")]

    def matches(self, session: StoredSession, budget: Budget) -> bool:
        """Whether an intact session matches; the index only proposes candidates. Raises OutOfBudget."""
        if self.user is not None and (session.user is None or parse_user(session.user) != self.user):
            return False
        return self.filter is None or self.filter.matches(session.configs, budget)


@dataclass(frozen=True, slots=True)
class Page:
    """The sessions of one page; `cursor` leads to the next page and is None on the last.

    A page may have fewer sessions than its limit, even none, and still have a next page. `candidates` were examined for it.
    """

    sessions: list[StoredSession]
    cursor: str | None
    candidates: int


async def page(
    sessions: Sessions,
    query: Query,
    limit: int,
    *,
    max_bytes: int = UNLIMITED,
    budget: Budget | None = None,
    time_slice: TimeSlice | None = None,
    large_lists: asyncio.Semaphore | None = None,
) -> Page:
    """The next sessions that match `query`: at most `limit`, with at most `max_bytes` of configs, or a single larger one.

    A large page waits for `large_lists`; without it, any number of large pages are filled at the same time.

    Raises:
        FilterTooExpensive: the first candidate alone costs more comparisons than `budget` allows.
        ClientGone: the client of `time_slice` has disconnected.
    """
    scan = ListScan(sessions, query, await _start_positions(sessions, query), budget or Budget(), time_slice or TimeSlice())
    slot = LargeListSlot(large_lists)
    try:
        return await _fill_page(scan, limit, max_bytes, slot)
    finally:
        slot.release()


async def _fill_page(scan: "ListScan", limit: int, max_bytes: int, slot: "LargeListSlot") -> Page:
    items: list[StoredSession] = []
    size = 0
    await scan.start(limit + 1)  # one more than the page holds shows whether there is a next page
    while True:
        for session, partition_scan in scan.matches():
            size += len(session.configs)
            if len(items) == limit or (items and size > max_bytes):
                cursor = encode_session_cursor([each.listed for each in scan.partition_scans])
                return Page(items, cursor, scan.candidates_examined)
            items.append(session)
            partition_scan.last_listed = session
        if size >= SMALL_READ_BYTES // 2:
            await slot.acquire()
            scan.read_bytes = READ_BYTES
        if not await scan.advance(limit + 1 - len(items)):
            examined = [each.examined for each in scan.partition_scans]
            return Page(items, None if scan.is_complete else encode_session_cursor(examined), scan.candidates_examined)


class LargeListSlot:
    """One permit of the semaphore of large lists, acquired at most once."""

    def __init__(self, large_lists: asyncio.Semaphore | None) -> None:
        self._large_lists = large_lists
        self._is_acquired = False

    async def acquire(self) -> None:
        """Wait for the permit, unless this slot has it."""
        if self._large_lists is not None and not self._is_acquired:
            await self._large_lists.acquire()
            self._is_acquired = True

    def release(self) -> None:
        """Release the permit, if this slot has it."""
        if self._large_lists is not None and self._is_acquired:
            self._large_lists.release()
            self._is_acquired = False


#: A session to be examined, and the scan of its partition; before them its place, which is always the same with one partition.
Candidate = tuple[Place, StoredSession, PartitionScan]
_ONLY_PLACE: Place = (0, b"")


class ListScan:
    """Examines the candidates of all partitions in the order of the list, until its budget is used up."""

    def __init__(
        self, sessions: Sessions, query: Query, after: Sequence[int | None], budget: Budget, time_slice: TimeSlice
    ) -> None:
        terms = query.terms
        self.partition_scans = [
            PartitionScan(partition, terms, query.descending, start)
            for partition, start in zip(sessions.all_partitions, after, strict=True)
        ]
        #: Whether every candidate has been examined.
        self.is_complete = False
        #: Most bytes of configs to read in the next round trip.
        self.read_bytes = SMALL_READ_BYTES
        self._redis = sessions.redis
        self._query = query
        self._budget = budget
        self._time_slice = time_slice
        self.candidates_examined = 0
        self._is_out_of_budget = False
        self._batch_size = 0  # candidates of one partition to read in a round trip
        #: Candidates that were read and not examined yet, in the order of the list, each with the scan of its partition.
        self._candidates: deque[Candidate] = deque()
        #: Whether a partition with more candidates has none here, so that the order of the others is unknown.
        self._is_incomplete = False

    async def start(self, limit: int) -> None:
        """Read the first candidates: enough for `limit` matches if most candidates match.

        Every list needs them, so they cost nothing of the budget.
        """
        # Ids spread the sessions evenly over the partitions: few have more of the list than their share, a standard deviation
        # and one.
        share = limit / len(self.partition_scans)
        self._batch_size = min(limit, ceil(share + sqrt(share)) + 1)
        await self._fetch(self.partition_scans)

    def matches(self) -> Iterator[tuple[StoredSession, PartitionScan]]:
        """The next matches, each with the scan of its partition, up to where `advance` must be called.

        Raises:
            FilterTooExpensive: the first candidate alone costs more comparisons than the budget allows.
        """
        candidates, query, budget, time_slice = self._candidates, self._query, self._budget, self._time_slice
        while candidates and not self._is_incomplete:
            _, session, scan = candidates[0]
            try:
                budget.take_candidate(len(session.configs))
                is_match = query.matches(session, budget)
            except OutOfBudget:
                if not self.candidates_examined:
                    raise FilterTooExpensive from None
                self._is_out_of_budget = True
                return
            self.candidates_examined += 1
            candidates.popleft()
            scan.examine(session)
            self._is_incomplete = scan.is_dry
            if is_match:
                yield session, scan
            if time_slice.is_used_up:
                return

    async def advance(self, needed: int) -> bool:
        """Begin another time slice, or read more candidates for `needed` more matches. Returns false if the scan has ended.

        It ends when all candidates have been examined, or the budget is used up.
        """
        if self._is_out_of_budget:
            return False
        if self._time_slice.is_used_up:
            await self._time_slice.renew()
            return True
        if not self._candidates and all(scan.is_exhausted for scan in self.partition_scans):
            self.is_complete = True
            return False
        if self._budget.candidates:
            await self._fetch_more(needed)
            return True
        return False

    async def _fetch_more(self, needed: int) -> None:
        """Read more candidates of partitions that have few left. Fewer matched than expected, so read twice as many."""
        scans = [scan for scan in self.partition_scans if self._is_low(scan, needed)]
        if self._is_incomplete and sum(len(session.configs) for _, session, _ in self._candidates) > self.read_bytes:
            # Partitions whose next candidate is far must not fill the memory with those of the others.
            scans = [scan for scan in scans if scan.is_dry]
        self._batch_size *= 2
        self._budget.take_lookup(await self._fetch(scans) // COST_OF_CANDIDATE)

    def _is_low(self, scan: "PartitionScan", needed: int) -> bool:
        """Whether a partition has few candidates left, or will have none before the next `needed` candidates are examined."""
        if scan.is_exhausted or scan.last_place is None or scan.remaining <= self._batch_size // 4:
            return not scan.is_exhausted
        if needed > len(self._candidates):
            return True
        end = self._candidates[needed - 1][0]
        return scan.last_place >= end if self._query.descending else scan.last_place <= end

    async def _fetch(self, scans: Sequence["PartitionScan"]) -> int:
        """Read candidates of `scans`; returns what the searches cost."""
        self._batch_size = max(1, min(self._batch_size, BATCH_MAX, self._budget.candidates))
        max_bytes = self.read_bytes // len(self.partition_scans)
        calls = [scan.next_call(self._batch_size, max_bytes) for scan in scans]
        replies = await self._time_slice.pause(run_many(self._redis, calls, writes=False))
        candidates = [*self._candidates]
        is_merged = len(self.partition_scans) > 1
        for scan, reply in zip(scans, replies, strict=True):
            candidates += [(scan.place(each) if is_merged else _ONLY_PLACE, each, scan) for each in scan.read(reply)]
        if is_merged:
            # Stable: sessions with one place stay in the order of their serials.
            candidates.sort(key=itemgetter(0), reverse=self._query.descending)
        self._candidates = deque(candidates)
        self._is_incomplete = any(scan.is_dry for scan in self.partition_scans)
        return sum(reply.cost for reply in replies)


async def _start_positions(sessions: Sessions, query: Query) -> tuple[int | None, ...]:
    if query.after is not None:
        return query.after
    if not query.descending or sessions.partitions == 1:
        return (None,) * sessions.partitions
    # If the first page takes nothing from a partition, a later page must not start with newer sessions of that partition.
    serials = checked(
        await sessions.redis.batch([("HGET", partition.state, "serial") for partition in sessions.all_partitions])
    )
    return tuple((int(serial) if serial is not None and serial.isdigit() else 0) + 1 for serial in serials)


async def iter_matches(sessions: Sessions, query: Query, *, with_expired: bool = False) -> AsyncIterator[list[StoredSession]]:
    """Every session that matches `query`, in batches, one partition after another: for counts and bulk operations.

    No budget limits it. `with_expired` includes sessions that have expired and wait for the sweep.
    """
    unlimited, time_slice = Budget(), TimeSlice()
    for partition in sessions.all_partitions:
        scan = PartitionScan(partition, query.terms, query.descending, None, with_expired=with_expired)
        while not scan.is_exhausted:
            call = scan.next_call(BATCH_MAX, READ_BYTES)
            batch = []
            for session in scan.read(await time_slice.pause(call.run(sessions.redis, writes=False))):
                if time_slice.is_used_up:
                    await time_slice.renew()
                if query.matches(session, unlimited):
                    batch.append(session)
            yield batch
