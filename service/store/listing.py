"""Listing: which sessions match, page by page, in the order of (created_at, id).

A query becomes required terms (pure), `find_candidates.lua` searches the index for candidates, and the filter decides on each
of them. The candidates of all partitions are examined in the order of the list. So if a page ends early, because its budget is
used up, everything before its cursor has been examined and nothing after it. A cursor contains the serial to continue after for
each partition: a page costs the same at any depth, and neither repeats nor skips a session that does not change.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from math import ceil, floor
from typing import Protocol

from service.configs.budget import UNLIMITED, Budget, OutOfBudget
from service.configs.terms import RequiredTerm, user_term
from service.errors import FilterTooExpensive
from service.redis_client.client import RedisClient, checked
from service.store import script_calls
from service.store.cursors import SERIAL_MAX, encode_session_cursor
from service.store.keys import Partition
from service.store.record import Session, is_expired, microseconds, session_of
from service.store.sessions import Sessions
from service.store.time_slices import TimeSlice

#: Most candidates that are read in one round trip, and most bytes of configs that one list reads in it, over all partitions.
BATCH_MAX, READ_BYTES = 256, 2 * 1024 * 1024

#: As `READ_BYTES`, for a list that is not large: one whose page has less than half of this as yet.
SMALL_READ_BYTES = 256 * 1024
#: Large lists that a worker works at: what all of its lists have in memory has a bound.
LARGE_LISTS = 4

#: Members of index sets that a search looks at in about the time that a candidate takes.
MEMBERS_PER_CANDIDATE = 120


class Filter(Protocol):
    """What a session's configs must hold: required_terms that narrow, and the test that decides."""

    @property
    def required_terms(self) -> tuple[RequiredTerm, ...]:
        """What the index is asked for."""

    def matches(self, configs: bytes, budget: Budget) -> bool:
        """Whether stored configs are such; raises OutOfBudget."""


@dataclass(frozen=True, slots=True)
class Query:
    """What to list. `user` and `filter` narrow where given; `after` is a serial a partition, None to begin."""

    user: str | None = None
    filter: Filter | None = None
    descending: bool = False
    after: tuple[int | None, ...] | None = None

    @property
    def required_terms(self) -> tuple[RequiredTerm, ...]:
        """What the index is asked for; empty where it cannot narrow the query."""
        required_terms = self.filter.required_terms if self.filter else ()
        return required_terms if self.user is None else (RequiredTerm(user_term(self.user)), *required_terms)

    def holds(self, session: Session, budget: Budget) -> bool:
        """Whether the session is one that was asked for; the index only proposes. Raises OutOfBudget."""
        if self.user is not None and session.user != self.user:
            return False
        return self.filter is None or self.filter.matches(session.configs, budget)


@dataclass(frozen=True, slots=True)
class Page:
    """Sessions of one page; `cursor` leads to the next, and is None on the last.

    A page may have fewer sessions than it was asked for, even none, and still a next.
    """

    sessions: list[Session]
    cursor: str | None


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
    """The next sessions that `query` asks for: `limit` at most, with `max_bytes` of configs at most, or a single larger one.

    A large page waits for its turn at `large_lists`, without which there is no bound on their number.

    Raises:
        FilterTooExpensive: the first candidate alone costs more comparisons than `budget` allows.
        ClientGone: `time_slice` says so.
    """
    scan = Scan(sessions, query, await _beginning(sessions, query), budget or Budget(), time_slice or TimeSlice())
    turn = LargeTurn(large_lists)
    try:
        return await _filled(scan, limit, max_bytes, turn)
    finally:
        turn.release()


async def _filled(scan: "Scan", limit: int, max_bytes: int, turn: "LargeTurn") -> Page:
    items: list[Session] = []
    size = 0
    await scan.start(limit + 1)  # one more than the page holds shows whether there is a next
    while True:
        for session, walk in scan.matches():
            size += len(session.configs)
            if len(items) == limit or (items and size > max_bytes):
                return Page(items, encode_session_cursor([walk.position for walk in scan.walks]))
            items.append(session)
            walk.position = session.serial
        if size >= SMALL_READ_BYTES // 2:
            await turn.acquire()
            scan.read_bytes = READ_BYTES
        if not await scan.proceed():
            return Page(items, None if scan.is_complete else encode_session_cursor([walk.examined for walk in scan.walks]))


class LargeTurn:
    """The turn of one large list, taken once."""

    def __init__(self, large_lists: asyncio.Semaphore | None) -> None:
        self._large_lists = large_lists
        self._is_taken = False

    async def acquire(self) -> None:
        """Wait for the turn, unless it is taken already."""
        if self._large_lists is not None and not self._is_taken:
            await self._large_lists.acquire()
            self._is_taken = True

    def release(self) -> None:
        """Give it back, if it was taken."""
        if self._large_lists is not None and self._is_taken:
            self._large_lists.release()
            self._is_taken = False


class Scan:
    """Examines the candidates of all partitions in the order of the list, as far as its budget reaches."""

    def __init__(
        self, sessions: Sessions, query: Query, after: Sequence[int | None], budget: Budget, time_slice: TimeSlice
    ) -> None:
        self.walks = [
            PartitionScan(sessions.redis, partition, query, position)
            for partition, position in zip(sessions.all_partitions, after, strict=True)
        ]
        #: Whether every candidate has been examined.
        self.is_complete = False
        #: Most bytes of configs to read in the next round trip.
        self.read_bytes = SMALL_READ_BYTES
        self._query = query
        self._budget = budget
        self._time_slice = time_slice
        self._has_examined = False
        self._is_over = False
        self._batch = 0  # candidates of one walk to read in a round trip
        self._order: Iterator[PartitionScan] = iter(())

    async def start(self, wanted: int) -> None:
        """Read the first candidates, enough for `wanted` matches where most candidates match.

        Every list needs as much, so it costs nothing of the budget.
        """
        # More than most partitions have of a page, since ids spread the sessions evenly.
        partitions = len(self.walks)
        self._batch = wanted if partitions == 1 else min(wanted, 2 * wanted // partitions + 3)
        await self._fetch(self.walks)

    def matches(self) -> "Iterator[tuple[Session, PartitionScan]]":
        """The next sessions that were asked for, each with its walk, as far as they can be told without `proceed`.

        Raises:
            FilterTooExpensive: the first candidate alone costs more comparisons than there are.
        """
        for walk in self._order:
            session = walk.candidates[0]
            try:
                is_match = self._examine(session)
            except OutOfBudget:
                self._is_over = True
                return
            walk.take()
            if is_match:
                yield session, walk
            if self._time_slice.is_used_up:
                return

    async def proceed(self) -> bool:
        """Begin another slice of time, or read more candidates; false where the scan is over.

        It is over where all candidates have been examined, or the budget is used up.
        """
        if self._is_over:
            return False
        if self._time_slice.is_used_up:
            await self._time_slice.renew()
            return True
        if all(walk.done and not walk.candidates for walk in self.walks):
            self.is_complete = True
            return False
        if self._budget.candidates:
            await self._refill()
            return True
        return False

    def _examine(self, session: Session) -> bool:
        """Whether the query asks for the session. Raises OutOfBudget, or FilterTooExpensive for the first one."""
        self._budget.take_candidate(len(session.configs))
        try:
            is_match = self._query.holds(session, self._budget)
        except OutOfBudget:
            if self._has_examined:
                raise
            raise FilterTooExpensive from None
        self._has_examined = True
        return is_match

    async def _refill(self) -> None:
        """Read more candidates of every walk that is short of them: fewer match than was expected, so twice as many."""
        short = [walk for walk in self.walks if not walk.done and len(walk.candidates) <= self._batch // 4]
        self._batch *= 2
        self._budget.take_lookup(await self._fetch(short) // MEMBERS_PER_CANDIDATE)

    async def _fetch(self, walks: Sequence["PartitionScan"]) -> int:
        """Read candidates of `walks`; returns how many members of index sets were looked at."""
        self._batch = max(1, min(self._batch, BATCH_MAX, self._budget.candidates))
        max_bytes = self.read_bytes // len(self.walks)
        fetches = asyncio.gather(*(walk.fetch(self._batch, max_bytes) for walk in walks))
        members = sum(await self._time_slice.pause(fetches))
        self._order = self._in_order()
        return members

    def _in_order(self) -> Iterator["PartitionScan"]:
        """The walk of each next candidate, as far as the order is certain: until a walk with more to read has none left."""
        if len(self.walks) == 1:
            yield from repeat(self.walks[0], len(self.walks[0].candidates))
            return
        if any(not walk.done and not walk.candidates for walk in self.walks):
            return
        for _, walk in heapq.merge(
            *([(session, walk) for session in walk.candidates] for walk in self.walks),
            key=lambda pair: (pair[0].created_at, pair[0].id),
            reverse=self._query.descending,
        ):
            yield walk
            # The candidate has been taken.
            if not walk.done and not walk.candidates:
                return


async def _beginning(sessions: Sessions, query: Query) -> tuple[int | None, ...]:
    if query.after is not None:
        return query.after
    if not query.descending or sessions.partitions == 1:
        return (None,) * sessions.partitions
    # A partition that gives nothing to the first page must not begin a later one with sessions that are newer than it.
    last = checked(await sessions.redis.batch([("HGET", partition.state, "serial") for partition in sessions.all_partitions]))
    return tuple((int(serial) if serial is not None and serial.isdigit() else 0) + 1 for serial in last)


async def iter_matches(sessions: Sessions, query: Query, *, with_expired: bool = False) -> AsyncIterator[list[Session]]:
    """Every session that `query` asks for, in batches, a partition after another: for counting and bulk work.

    No budget ends it. `with_expired`: those too whose lifetime is over and that are still to be swept.
    """
    unlimited, time_slice = Budget(), TimeSlice()
    for partition in sessions.all_partitions:
        walk = PartitionScan(sessions.redis, partition, query, None, with_expired=with_expired)
        while not walk.done:
            await time_slice.pause(walk.fetch(BATCH_MAX, READ_BYTES))
            batch = []
            while walk.candidates:
                if time_slice.is_used_up:
                    await time_slice.renew()
                session = walk.take()
                if query.holds(session, unlimited):
                    batch.append(session)
            yield batch


@dataclass(slots=True, eq=False)
class PartitionScan:
    """A walk over the candidates of one partition, in order. `candidates` are those that were read and not taken yet.

    `position` is the serial of the last session on the page, or where the page began.
    """

    redis: RedisClient
    partition: Partition
    query: Query
    position: int | None
    with_expired: bool = False
    candidates: deque[Session] = field(default_factory=deque)
    done: bool = False
    #: Where the next candidates are read from: a serial as Redis stores it.
    _after: bytes | None = None
    _taken: int | None = None

    def __post_init__(self) -> None:
        """Begin at the page's position."""
        self._after = None if self.position is None else b"%d" % self.position
        self._taken = self.position

    @property
    def examined(self) -> int | None:
        """A serial such that all candidates up to it have been taken, and none behind it."""
        if self.candidates or self._after is None:
            return self._taken
        # A score that somebody wrote by hand may be no serial: then the one before it.
        score = min(max(float(self._after), 0), SERIAL_MAX)
        return ceil(score) if self.query.descending else floor(score)

    def take(self) -> Session:
        """The next candidate, which is examined now."""
        session = self.candidates.popleft()
        self._taken = session.serial
        return session

    async def fetch(self, wanted: int, max_bytes: int) -> int:
        """Read the next candidates: `wanted` at most, with `max_bytes` of configs at most, or a single larger one.

        There may be none, although the walk is not done. Returns how many members of index sets were looked at.
        """
        partition = self.partition
        call = script_calls.find_candidates(
            sessions=partition.sessions,
            prefix=partition.prefix,
            block_size=partition.block_size,
            after="" if self._after is None else self._after,
            descending=int(self.query.descending),
            limit=wanted,
            max_bytes=max_bytes,
            required_terms=[part for each in self.query.required_terms for part in (each.term, each.spill or "")],
        )
        reply = await call.run(self.redis, writes=False)
        self._after = reply.after
        self.done = not reply.has_more
        now = microseconds(reply.time)
        for *fields, serial, name in reply.sessions:
            session = session_of(name.decode(errors="replace"), fields)
            # Skip a session that a manual edit damaged.
            if session is not None and b"%d" % session.serial == serial and (self.with_expired or not is_expired(fields, now)):
                self.candidates.append(session)
        return reply.members
