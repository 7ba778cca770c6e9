"""The serials of a partition: each has one session, in the order of creation.

A lost `state` makes serials begin at 1 again, so that two sessions have one serial and share their index members. Then the
sessions from the first offender on, by created_at, get new serials beyond all others. In an undamaged store, any two
pairs of (serial, created_at) are in order whenever they are read: neither number changes as long as a session lives.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from service.configs.ttl import LAST_MOMENT
from service.redis_client.client import RedisClient
from service.redis_client.errors import WrongType
from service.store import script_calls
from service.store.keys import Partition
from service.store.verify import MAX_INTEGER, Finding, is_number, verify_types

#: Sessions read in one round trip.
SESSIONS_BATCH = 100
#: How often sessions that were created meanwhile are included.
ATTEMPTS = 10


class Numbered(NamedTuple):
    """A session as it is sorted: by created_at (microseconds), then id."""

    created_at: int
    id: str
    serial: int


@dataclass(slots=True)
class Numbering:
    """Compares the sessions that it is given in the order of their serials."""

    _last: Numbered | None = None

    def observe(self, session: Numbered) -> Finding | None:
        """The difference between the next session and the one before it."""
        last, self._last = self._last, session
        if last is None or session.serial < last.serial:
            return None  # A session was created again under its id while it was listed.
        if session.serial == last.serial:
            self._last = min(last, session)
            return Finding("shared", max(last, session).id) if session.id != last.id else None
        return Finding("order", session.id) if session.created_at <= last.created_at else None


async def listed_sessions(
    redis: RedisClient, partition: Partition, after: str = "-inf"
) -> AsyncIterator[list[tuple[bytes, bytes]]]:
    """Ids and serials in the order of the serials, as they are stored: either may be damaged. `SESSIONS_BATCH` at a time."""
    start: str | bytes = after
    while True:
        page = await _listed(redis, partition, start, "+inf", "LIMIT", 0, SESSIONS_BATCH)
        if not page:
            return
        last, is_last = page[-1][1], len(page) < SESSIONS_BATCH
        if not is_last:
            # This page may lack sessions that share the last serial.
            page = [pair for pair in page if pair[1] != last] + await _listed(redis, partition, last, last)
        for first in range(0, len(page), SESSIONS_BATCH):
            yield page[first : first + SESSIONS_BATCH]
        if is_last:
            return  # Sessions created from here on are newer than the check.
        start = b"(" + last


async def _listed(
    redis: RedisClient, partition: Partition, start: str | bytes, stop: str | bytes, *limit: str | int
) -> list[tuple[bytes, bytes]]:
    flat = await redis.call("ZRANGEBYSCORE", partition.sessions, start, stop, "WITHSCORES", *limit)
    return list(zip(flat[::2], flat[1::2], strict=True))


async def numbered_sessions(redis: RedisClient, partition: Partition, after: str = "-inf") -> AsyncIterator[Numbered]:
    """The sessions that are listed under the serial in their hash, in the order of their serials."""
    async for page in listed_sessions(redis, partition, after):
        replies = await redis.batch([("HMGET", _hash_key(partition, name), "serial", "created_at") for name, _ in page])
        for (name, score), fields in zip(page, replies, strict=True):
            if isinstance(fields, WrongType):
                continue
            if isinstance(fields, Exception):
                raise fields
            serial, created_at = fields
            if serial == score and is_number(serial, MAX_INTEGER) and is_number(created_at, LAST_MOMENT):
                yield Numbered(int(created_at), name.decode(), int(serial))


def _hash_key(partition: Partition, name: bytes) -> bytes:
    return partition.session("").encode() + name


async def renumber(redis: RedisClient, partition: Partition) -> AsyncIterator[Finding]:
    """Give new serials to sessions whose serials are shared or not in the order of creation."""
    numbering, is_right = Numbering(), True
    async for session in numbered_sessions(redis, partition):
        finding = numbering.observe(session)
        if finding is not None:
            is_right = False
            yield finding
    if is_right:
        return
    sessions = [session async for session in numbered_sessions(redis, partition)]
    moved, first = await _reserve(redis, partition, misnumbered(sessions), max(session.serial for session in sessions))
    for serial, session in enumerate(moved, first):
        async for finding in _renumber(redis, partition, session, serial):
            yield finding


def misnumbered(sessions: Sequence[Numbered]) -> list[Numbered]:
    """Those that need a new serial, in the order of creation: all from the first whose serial is not above those before it."""
    ordered, last = sorted(sessions), -1
    for index, session in enumerate(ordered):
        if session.serial <= last:
            return ordered[index:]
        last = session.serial
    return []


async def _reserve(redis: RedisClient, partition: Partition, moved: list[Numbered], top: int) -> tuple[list[Numbered], int]:
    """Reserve consecutive serials above `top` for `moved` and what was created since; returns those, and the first serial."""
    first = 0
    for _ in range(ATTEMPTS):
        end = await redis.call("HINCRBY", partition.state, "serial", len(moved), writes=True)
        if end - len(moved) < top:
            end = await redis.call("HINCRBY", partition.state, "serial", top - end + len(moved), writes=True)
        first = end - len(moved) + 1
        newer = [each async for each in numbered_sessions(redis, partition, f"({top}") if each.serial < first]
        if not newer:
            break
        moved, top = moved + newer, newer[-1].serial
    return moved, first


async def _renumber(redis: RedisClient, partition: Partition, session: Numbered, serial: int) -> AsyncIterator[Finding]:
    try:
        await _run_renumber(redis, partition, session, serial)
    except WrongType:
        blocks = {partition.block_of(number) for number in (session.serial, serial)}
        async for finding in verify_types(redis, partition, session.id, blocks, repair=True):
            yield finding
        with suppress(WrongType):  # Its terms field is damaged as well; the next check continues from here.
            await _run_renumber(redis, partition, session, serial)


async def _run_renumber(redis: RedisClient, partition: Partition, session: Numbered, serial: int) -> None:
    call = script_calls.renumber(
        session=partition.session(session.id),
        sessions=partition.sessions,
        partition=partition.arguments,
        session_id=session.id,
        old=session.serial,
        new=serial,
    )
    await call.run(redis)
