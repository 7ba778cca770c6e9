"""The export of a project: its configs, users and sessions as lines (see `service.configs.export_format`).

It runs while servers work. Each session is read whole, at one moment; all of them together are no snapshot: one that is created
or deleted meanwhile may be included or not. Sessions are in the order of creation over all partitions, so that an import into
any number of partitions can number them as it reads. Expired ones are left out.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from service.configs import export_format
from service.configs.document import NULL, parse
from service.configs.export_format import Totals
from service.errors import BadRequest
from service.redis_client.client import checked
from service.store import keys, script_calls
from service.store.keys import Partition
from service.store.record import Session, StoredSession, is_canonical_id, is_expired, microseconds
from service.store.sessions import Sessions
from service.store.upkeep.pace import Pace
from service.store.users import Users
from service.store.verify import MAX_STORED_NESTING, readable

#: Sessions, and bytes of their configs, that one call reads at most.
SESSIONS_BATCH, BYTES_BATCH = 128, 512 * 1024
#: Users read in one round trip.
USERS_BATCH = 500


@dataclass
class ProjectExport:
    """One export; `lines` makes it. Afterwards `damaged` has the ids of the sessions that it had to leave out."""

    sessions: Sessions
    #: Called with the number of sessions that were just read.
    progress: Callable[[int], object] = lambda _: None
    totals: Totals = field(default_factory=Totals)
    damaged: list[str] = field(default_factory=list)

    async def lines(self) -> AsyncIterator[bytes]:
        """All lines, several at a time."""
        yield self._add(await self._project_line())
        async for lines in self._user_lines():
            yield self._add(lines)
        async for lines in self._session_lines():
            yield self._add(lines)
        yield self.totals.end_line()

    def _add(self, lines: bytes) -> bytes:
        self.totals.add(lines)
        return lines

    async def _project_line(self) -> bytes:
        redis, project = self.sessions.redis, self.sessions.project
        states = [("HGET", partition.state, "created_at") for partition in self.sessions.all_partitions]
        (configs, revision), *times = checked(
            await redis.batch([("HMGET", keys.project_key(project.slug), "configs", "configs_revision"), *states])
        )
        if configs is not None and not _is_readable(configs):
            raise BadRequest(f"the configs of project {project.slug} cannot be read; run check")
        return export_format.project_line(
            name=project.slug,
            project_id=project.id,
            configs=configs or b"{}",
            configs_revision=_number(revision),
            not_before=max(map(_number, times)),
        )

    async def _user_lines(self) -> AsyncIterator[bytes]:
        users, after = Users(self.sessions), None
        while True:
            page, cursor = await users.page(limit=USERS_BATCH, after=after, descending=False)
            self.totals.users += len(page)
            yield b"".join(export_format.user_line(user.identifier, user.created_at) for user in page)
            if cursor is None:
                return
            after = page[-1].created_at

    async def _session_lines(self) -> AsyncIterator[bytes]:
        scans = [_Scan(self.sessions, partition, self.damaged) for partition in self.sessions.all_partitions]
        pace = Pace()
        while waiting := [scan for scan in scans if not scan.sessions and not scan.is_exhausted]:
            async with pace:
                counts = await asyncio.gather(*(scan.fetch() for scan in waiting))
            merged = list(_merge(scans))
            self.totals.sessions += len(merged)
            yield b"".join(map(_line, merged))
            self.progress(sum(counts))


@dataclass
class _Scan:
    """Reads the sessions of one partition, in the order of their serials. `sessions` are those that are not merged yet."""

    project: Sessions
    partition: Partition
    damaged: list[str]
    sessions: deque[Session] = field(default_factory=deque)
    is_exhausted: bool = False
    _after: bytes | str = ""

    async def fetch(self) -> int:
        """Read the next sessions; returns how many."""
        reply = await script_calls.find_candidates(
            sessions=self.partition.sessions,
            prefix=self.partition.prefix,
            block_size=self.partition.block_size,
            after=self._after,
            descending=0,
            limit=SESSIONS_BATCH,
            max_bytes=BYTES_BATCH,
            required_terms=(),
        ).run(self.project.redis, writes=False)
        self._after, self.is_exhausted = reply.after, not reply.has_more
        now = microseconds(reply.time)
        for stored in reply.sessions:
            if not is_expired(stored.expires_at, now):
                self._add(stored)
        return len(reply.sessions)

    def _add(self, stored: StoredSession) -> None:
        session = stored.parsed() if stored.is_intact else None
        if session is not None and _is_sound(session):
            self.sessions.append(session)
        else:
            self.damaged.append(readable(stored.raw_id))


def _is_sound(session: Session) -> bool:
    """Whether an import would accept the session."""
    return is_canonical_id(session.id) and session.revision >= 1 and _is_readable(session.configs)


def _merge(scans: list[_Scan]) -> list[Session]:
    """Take the sessions whose order is known, up to where a scan must read on; those of one moment by their ids."""
    if any(not scan.sessions and not scan.is_exhausted for scan in scans):
        return []
    heap = [(*_order(scan.sessions[0]), number) for number, scan in enumerate(scans) if scan.sessions]
    heapq.heapify(heap)
    merged = []
    while heap:
        number = heap[0][-1]
        scan = scans[number]
        merged.append(scan.sessions.popleft())
        if scan.sessions:
            heapq.heapreplace(heap, (*_order(scan.sessions[0]), number))
        elif scan.is_exhausted:
            heapq.heappop(heap)
        else:
            break
    return merged


def _order(session: Session) -> tuple[int, str]:
    return session.created_at, session.id


def _line(session: Session) -> bytes:
    return export_format.session_line(
        session_id=session.id,
        user=session.user,
        created_at=session.created_at,
        updated_at=session.updated_at,
        revision=session.revision,
        expires_at=session.expires_at,
        disable_task_tracking=session.disable_task_tracking,
        configs=session.configs,
    )


def _is_readable(configs: bytes) -> bool:
    """Whether stored configs are JSON that an import accepts; a manual edit may have broken them."""
    if configs == NULL:
        return True
    try:
        return isinstance(parse(configs, max_nesting=MAX_STORED_NESTING), dict)
    except BadRequest:
        return False


def _number(text: bytes | None) -> int:
    """A stored number; 0 if it is missing or damaged."""
    return int(text) if text is not None and text.isdigit() else 0
