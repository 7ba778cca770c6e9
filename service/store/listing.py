"""Listing: which sessions match, page by page, in the order of (created_at, id).

A query becomes demands on the index (pure), `find.lua` walks the index for candidates, and the filter decides on every one of
them. Partitions are walked side by side and merged. A cursor holds, for each partition, the serial to go on after, so a page
costs the same at any depth and neither repeats nor skips a session that stands still.
"""

import asyncio
import base64
import binascii
import heapq
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from service.configs.terms import Alternatives, user_term
from service.errors import BadRequest
from service.store import scripts
from service.store.connection import Link, checked
from service.store.keys import Partition
from service.store.replies import WrongType
from service.store.sessions import FIELDS, Session, Sessions, is_expired, microseconds, session_of

FIND = scripts.load("find")

#: Most candidates that are read in one round trip: what a page of large configs may hold at once.
BATCH_MAX = 256

#: Bytes of configs that are judged before other requests get their turn.
TURN_BYTES = 64 * 1024

#: A serial that no session reaches; cursors with more are not ours.
_SERIAL_MAX = 2**53
_NO_FIELDS = [None] * len(FIELDS)


class Filter(Protocol):
    """What a session's configs must hold: demands that narrow, and the test that decides."""

    @property
    def demands(self) -> tuple[Alternatives, ...]:
        """What the index is asked for."""

    def matches(self, configs: bytes) -> bool:
        """Whether stored configs are such."""


@dataclass(frozen=True, slots=True)
class Query:
    """What to list. `user` and `filter` narrow where given; `after` is a serial a partition, None to begin."""

    user: str | None = None
    filter: Filter | None = None
    descending: bool = False
    after: tuple[int | None, ...] | None = None

    @property
    def demands(self) -> tuple[Alternatives, ...]:
        """What the index is asked for; empty where it cannot narrow the query."""
        demands = self.filter.demands if self.filter else ()
        return demands if self.user is None else (Alternatives(user_term(self.user)), *demands)

    def holds(self, session: Session) -> bool:
        """Whether the session is one that was asked for; the index only proposes."""
        if self.user is not None and session.user != self.user:
            return False
        return self.filter is None or self.filter.matches(session.configs)


@dataclass(frozen=True, slots=True)
class Page:
    """Sessions of one page; `cursor` leads to the next, and is None on the last."""

    sessions: list[Session]
    cursor: str | None


def encode_cursor(after: Sequence[int | None]) -> str:
    """A cursor of the serials to go on after, one a partition."""
    text = ".".join("" if serial is None else str(serial) for serial in after)
    return base64.urlsafe_b64encode(f"s{text}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str, partitions: int) -> tuple[int | None, ...]:
    """The serials in a cursor that `encode_cursor` made.

    Raises:
        BadRequest: it is none, or one of a store with another number of partitions.
    """
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        parts = text.removeprefix("s").split(".")
        valid = text.startswith("s") and all(part == "" or (part.isdigit() and len(part) <= 16) for part in parts)
    except (binascii.Error, ValueError):
        valid = False
    if not valid or len(parts) != partitions:
        raise BadRequest("cursor is not one that this list gave")
    after = tuple(int(part) if part else None for part in parts)
    if any(serial is not None and serial > _SERIAL_MAX for serial in after):
        raise BadRequest("cursor is not one that this list gave")
    return after


async def page(sessions: Sessions, query: Query, limit: int) -> Page:
    """The next `limit` sessions that `query` asks for."""
    after = query.after or await _beginning(sessions, query.descending)
    walks = [
        Walk(sessions.link, partition, query, position)
        for partition, position in zip(sessions.all_partitions, after, strict=True)
    ]
    wanted = limit + 1  # one more than the page holds tells whether there is a next
    share = _share(wanted, len(walks))
    await asyncio.gather(*(walk.fill(share) for walk in walks))
    first, dry = _merged(walks, wanted, query.descending)
    while dry is not None:
        await dry.fill(len(dry.found) + share)
        first, dry = _merged(walks, wanted, query.descending)
    for session, walk in first[:limit]:
        walk.position = session.serial
    cursor = encode_cursor([walk.position for walk in walks]) if len(first) > limit else None
    return Page([session for session, _ in first[:limit]], cursor)


def _share(wanted: int, partitions: int) -> int:
    """How many sessions of a partition to begin with: more than most have on the page, since ids spread them evenly."""
    return wanted if partitions == 1 else min(wanted, 2 * wanted // partitions + 3)


def _merged(walks: Sequence["Walk"], wanted: int, descending: bool) -> tuple[list[tuple[Session, "Walk"]], "Walk | None"]:
    """The first `wanted` sessions of all walks, each with its walk; and a walk that has to go on before they can be told."""
    left = {walk: len(walk.found) for walk in walks}
    first: list[tuple[Session, Walk]] = []
    for session, walk in heapq.merge(
        *([(session, walk) for session in walk.found] for walk in walks),
        key=lambda pair: (pair[0].created_at, pair[0].id),
        reverse=descending,
    ):
        first.append((session, walk))
        if len(first) == wanted:
            break
        left[walk] -= 1
        if not left[walk] and not walk.done:
            return [], walk
    return first, None


async def _beginning(sessions: Sessions, descending: bool) -> tuple[int | None, ...]:
    if not descending or sessions.partitions == 1:
        return (None,) * sessions.partitions
    # A partition that gives nothing to the first page must not begin a later one with sessions that are newer than it.
    last = checked(await sessions.link.batch([("HGET", partition.state, "serial") for partition in sessions.all_partitions]))
    return tuple((int(serial) if serial is not None and serial.isdigit() else 0) + 1 for serial in last)


async def all_matches(sessions: Sessions, query: Query, *, with_expired: bool = False) -> AsyncIterator[list[Session]]:
    """Every session that `query` asks for, in batches, a partition after another: for counting and bulk work.

    `with_expired`: those too whose lifetime is over and that are still to be swept.
    """
    for partition in sessions.all_partitions:
        walk = Walk(sessions.link, partition, query, None, with_expired=with_expired)
        while not walk.done:
            await walk.fill(BATCH_MAX)
            yield walk.found
            walk.found = []


@dataclass(slots=True, eq=False)
class Walk:
    """A walk over the matching sessions of one partition, in order. `found` fills up; `position` is the reader's."""

    link: Link
    partition: Partition
    query: Query
    position: int | None
    with_expired: bool = False
    found: list[Session] = field(default_factory=list)
    done: bool = False
    #: As Redis stores it: a score that somebody wrote by hand may be no serial.
    _after: bytes | None = None

    def __post_init__(self) -> None:
        """Begin at the reader's position."""
        self._after = None if self.position is None else b"%d" % self.position

    async def fill(self, wanted: int) -> None:
        """Go on until `wanted` sessions are found or there are no more."""
        batch = wanted
        while not self.done and len(self.found) < wanted:
            candidates = await self._candidates(min(batch, BATCH_MAX))
            self.found += await self._matching(candidates)
            batch *= 2  # few candidates match: read more of them a round trip

    async def _candidates(self, wanted: int) -> list[tuple[int, str]]:
        demands = self.query.demands
        return await (self._find(demands, wanted) if demands else self._scan(wanted))

    async def _find(self, demands: Sequence[Alternatives], wanted: int) -> list[tuple[int, str]]:
        partition, after = self.partition, self._after
        stopped, *flat = await FIND.run(
            self.link,
            (partition.sessions,),
            (
                partition.prefix,
                partition.block_size,
                "" if after is None else after,
                int(self.query.descending),
                wanted,
                *(part for demand in demands for part in (demand.term, demand.spill or "")),
            ),
            writes=False,
        )
        self.done = not stopped
        self._after = stopped or None
        return [(int(serial), name.decode(errors="replace")) for serial, name in zip(flat[::2], flat[1::2], strict=True)]

    async def _scan(self, wanted: int) -> list[tuple[int, str]]:
        # Nothing for the index to narrow: all sessions, by serial.
        after = self._after
        if self.query.descending:
            command, start, stop = "ZREVRANGEBYSCORE", "+inf" if after is None else b"(%b" % after, "-inf"
        else:
            command, start, stop = "ZRANGEBYSCORE", "-inf" if after is None else b"(%b" % after, "+inf"
        flat = await self.link.call(command, self.partition.sessions, start, stop, "WITHSCORES", "LIMIT", 0, wanted)
        self.done = len(flat) < 2 * wanted
        if flat:
            self._after = flat[-1]
        # What is no serial, or no UTF-8, is no session's.
        return [
            (int(serial), name.decode(errors="replace"))
            for name, serial in zip(flat[::2], flat[1::2], strict=True)
            if serial.isdigit()
        ]

    async def _matching(self, candidates: Sequence[tuple[int, str]]) -> list[Session]:
        if not candidates:
            return []
        replies = await self.link.batch(
            [("TIME",), *(("HMGET", self.partition.session(session_id), *FIELDS) for _, session_id in candidates)],
            at=self.partition.prefix,
        )
        # A session's key that is no hash is no session.
        time, *replies = checked([_NO_FIELDS if isinstance(reply, WrongType) else reply for reply in replies])
        now = microseconds(time)
        found, judged = [], 0
        for (serial, session_id), fields in zip(candidates, replies, strict=True):
            session = session_of(session_id, fields)
            # It may be gone since, or gone and come again under the same id with another serial.
            if session is None or session.serial != serial or (is_expired(fields, now) and not self.with_expired):
                continue
            judged += len(session.configs)
            if judged > TURN_BYTES:
                judged = 0
                await asyncio.sleep(0)
            if self.query.holds(session):
                found.append(session)
        return found
