"""The import of an export into a project: its configs, users and sessions.

Sessions come in the order of creation, and each partition gets its sessions in that order, one call after another: an import
can be interrupted anywhere and run again. What the project already has, in this state or a later one, stays as it is. Sessions
that have expired are left out: an import may be resumed after the sweep has removed some. A user is registered before their
first session, and again after it, as when a session is created (see `service.store.registration`).
"""

from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from uuid import UUID, uuid5

from service.configs.document import EMPTY, NULL, Document, check_size, parse
from service.configs.export_format import Line, ProjectLine, SessionLine, UserLine
from service.configs.limits import Limits
from service.errors import BadRequest, ConfigsTooLarge, ProjectFull, ServiceError, StoreUnavailable
from service.store import default_ttl, keys, script_calls
from service.store.keys import Partition
from service.store.record import is_canonical_id, user_field
from service.store.script_calls import UserKeys
from service.store.scripts import Argument, Call, run_many
from service.store.sessions import Sessions
from service.store.upkeep.pace import Pace
from service.store.users import check_identifier

OnConflict = Literal["fail", "skip", "replace"]

#: Lines that are collected before they are written.
BATCH = 256
#: Sessions, index terms and bytes of one call, because Redis runs nothing else meanwhile.
CALL_SESSIONS, CALL_TERMS, CALL_BYTES = 16, 200, 64 * 1024
#: Users that an import remembers as registered.
USERS_REMEMBERED = 100_000
#: Microseconds that a time of a file may be ahead of Redis's clock; later sessions are created after it.
MAX_AHEAD = 24 * 60 * 60 * 1_000_000

_OLDER = (
    "session {id} was created before sessions that the project has; stop the server and pass --renumber, which puts it among "
    "them, or pass --new-ids, or --on-conflict skip, which leaves it out"
)
_CONFLICT = "the project has another session {id}, or an earlier state of it; pass --on-conflict skip or replace"


#: The fields of a session's hash in the order in which `import_sessions` takes them, after the id.
_STORED = ("revision", "created_at", "updated_at", "expires_at", "disable_task_tracking", "user", "configs", "terms")


class Item(NamedTuple):
    """A line, and where it comes from, for messages."""

    where: str
    line: Line


@dataclass
class Counts:
    """What an import did.

    `present`: sessions that the project already had, in this state or a later one. `expired`, and `older` (than sessions of the
    project): those that were left out.
    """

    created: int = 0
    replaced: int = 0
    present: int = 0
    skipped: int = 0
    expired: int = 0
    older: int = 0
    users: int = 0


class PreparedSession(NamedTuple):
    """A session as `import_sessions` takes it; `cost` is the number of its index terms."""

    where: str
    id: str
    partition: Partition
    user: str | None
    created_at: int
    cost: int
    arguments: tuple[Argument, ...]

    @property
    def size(self) -> int:
        """Bytes of its configs and terms."""
        return sum(len(part) for part in self.arguments if isinstance(part, bytes))

    @property
    def stored(self) -> dict[str, bytes]:
        """The fields of its hash, as they are stored; those of an absent value are left out."""
        _, *values = self.arguments
        texts = (value if isinstance(value, bytes) else str(value).encode() for value in values)
        fields = dict(zip(_STORED, texts, strict=True))
        if fields["disable_task_tracking"] == b"0":
            del fields["disable_task_tracking"]
        return {name: value for name, value in fields.items() if value}


@dataclass
class ProjectImport:
    """An import into the project of `sessions`; `run` does it.

    With `new_ids` every session is created anew, with an id that follows from its old one: a repeated import finds it.
    """

    sessions: Sessions
    on_conflict: OnConflict = "fail"
    new_ids: bool = False
    counts: Counts = field(default_factory=Counts)
    _not_before: int = 0
    #: Redis's clock when the import begins.
    _now: int = 0
    _users: dict[str, int] = field(default_factory=dict)
    _batch: list[PreparedSession] = field(default_factory=list)
    _registered: set[str] = field(default_factory=set)
    _pace: Pace = field(default_factory=Pace)

    async def run(self, items: AsyncIterator[Item]) -> Counts:
        """Import all items; returns what was done.

        If an item cannot be read, or is refused whatever the project has, all before it are imported, and none after it. A
        conflict ends the import within the items that are written together, `BATCH` at most.

        Raises:
            BadRequest: a line is broken, over a limit, or in conflict with the project; the message names it.
            StoreUnavailable: Redis is unavailable; run it again.
            Exception: any other that `items` raises; all before it is imported.
        """
        seconds, microseconds = await self.sessions.redis.call("TIME", near=self.sessions.all_partitions[0].state)
        self._now = int(seconds) * 1_000_000 + int(microseconds)
        try:
            async for item in items:
                await self._take(item)
        except StoreUnavailable:
            raise
        except Exception:
            await self._flush()
            raise
        await self._flush()
        await self._finish()
        return self.counts

    async def _take(self, item: Item) -> None:
        line = item.line
        try:
            if isinstance(line, SessionLine):
                self._batch.append(self._prepared(item.where, line))
            elif isinstance(line, UserLine):
                check_identifier(line.user, self.sessions.limits)
                self._check_time("created_at", line.created_at)
                self._users[line.user] = line.created_at
            elif isinstance(line, ProjectLine):
                self._check_time("not_before", line.not_before)
                await self._import_project(line)
        except (BadRequest, ConfigsTooLarge) as error:
            raise _at(item.where, error) from error
        if len(self._batch) + len(self._users) >= BATCH:
            await self._flush()

    def _check_time(self, name: str, time: int) -> None:
        if time > self._now + MAX_AHEAD:
            raise BadRequest(f"{name} is more than a day ahead of Redis's clock")

    def _prepared(self, where: str, line: SessionLine) -> PreparedSession:
        """Check a session as a request's is checked.

        Raises:
            BadRequest, ConfigsTooLarge: it cannot be stored.
        """
        if not is_canonical_id(line.id):
            raise BadRequest(f"the id {ascii(line.id)[1:-1]} is not a UUID in lower case")
        self._check_time("created_at", line.created_at)
        if line.user is not None:
            check_identifier(line.user, self.sessions.limits)
        configs, terms = stored_form(bytes(line.configs), self.sessions.limits)
        session_id = new_id(self.sessions.project.id, line.id) if self.new_ids else line.id
        state = (1, "", "") if self.new_ids else (line.revision, line.created_at, line.updated_at)
        expires_at = "" if line.expires_at is None else line.expires_at
        arguments = (session_id, *state, expires_at, int(line.disable_task_tracking), user_field(line.user), configs, terms)
        partition, cost = self.sessions.partition(session_id), terms.count(b"\n") + terms.count(b"\t")
        return PreparedSession(where, session_id, partition, line.user, line.created_at, cost, arguments)

    async def _import_project(self, line: ProjectLine) -> None:
        """Import the project's own configs; their default TTL is in every partition afterwards."""
        sessions = self.sessions
        if not self.new_ids:
            self._not_before = line.not_before
        limits = sessions.limits
        values = parse(bytes(line.configs), max_nesting=limits.max_nesting)
        if not isinstance(values, dict):
            raise BadRequest("the project's configs are not a JSON object")
        configs = Document.build(values, bytes(line.configs), limits, is_indexed=False).configs
        check_size(configs, limits)
        reply = await script_calls.import_project(
            project=keys.project_key(sessions.project.slug),
            project_id=sessions.project.id,
            configs=configs,
            revision=line.configs_revision,
            on_conflict=self.on_conflict,
        ).run(sessions.redis)
        if reply.status == "conflict":
            raise BadRequest("the project has other configs; pass --on-conflict skip or replace")
        if reply.revision:
            await self._publish_default_ttl(reply.revision, reply.configs)

    async def _publish_default_ttl(self, revision: int, configs: bytes) -> None:
        ttl = default_ttl.default_ttl(configs)
        await default_ttl.publish(self.sessions.redis, self.sessions.all_partitions, revision, ttl)

    async def _flush(self) -> None:
        """Write what was collected, users first."""
        batch, self._batch = self._batch, []
        users, self._users = self._users, {}
        owners: dict[str, int] = {}
        for session in batch:
            if session.user is not None:
                owners.setdefault(session.user, session.created_at)
        new = {user: created_at for user, created_at in owners.items() if user not in self._registered and user not in users}
        await self._register(users | new)
        await self._write(batch)
        await self._register(owners)

    async def _register(self, users: dict[str, int]) -> None:
        if not users:
            return
        slug = self.sessions.project.slug
        user_keys = UserKeys(keys.users_key(slug), keys.expected_users_key(slug), keys.project_key(slug))
        pairs = [part for pair in users.items() for part in pair]
        max_users = self.sessions.limits.max_users
        call = script_calls.import_users(
            keys=user_keys, project_id=self.sessions.project.id, max_users=max_users, imported=pairs
        )
        async with self._pace:
            reply = await call.run(self.sessions.redis)
        self.counts.users += reply.values[0]
        if reply.status == b"too_many_users":
            raise BadRequest(ProjectFull("max_users", max_users).message)
        if len(self._registered) > USERS_REMEMBERED:
            self._registered.clear()
        self._registered |= users.keys()

    async def _write(self, batch: Sequence[PreparedSession]) -> None:
        """Import sessions: in each partition one call after another, and all partitions at the same time."""
        waiting: dict[Partition, deque[PreparedSession]] = defaultdict(deque)
        for session in batch:
            waiting[session.partition].append(session)
        while waiting:
            chunks = {partition: take_call(sessions) for partition, sessions in waiting.items()}
            async with self._pace:
                replies = await run_many(self.sessions.redis, [self._call(*chunk) for chunk in chunks.items()])
            results = [pair for pairs in map(zip, chunks.values(), replies) for pair in pairs]
            self._count(sorted(results, key=lambda pair: batch.index(pair[0])))
            waiting = {partition: sessions for partition, sessions in waiting.items() if sessions}

    def _call(self, partition: Partition, chunk: Sequence[PreparedSession]) -> Call[list[str]]:
        return script_calls.import_sessions(
            sessions=partition.sessions,
            state=partition.state,
            partition=partition.arguments,
            on_conflict=self.on_conflict,
            not_before=self._not_before,
            max_sessions=self.sessions.partition_share,
            imported=[part for session in chunk for part in session.arguments],
        )

    def _count(self, results: Sequence[tuple[PreparedSession, str]]) -> None:
        """Count the statuses of sessions, in the order of the lines; then raise the problem of the first line that has one."""
        sentences = {
            "conflict": _CONFLICT,
            "full": ProjectFull("max_sessions", self.sessions.limits.max_sessions).message,
        }
        if self.on_conflict != "skip":
            sentences["older"] = _OLDER
        for _, status in results:
            if status not in sentences:
                setattr(self.counts, status, getattr(self.counts, status) + 1)
        for session, status in results:
            if status in sentences:
                raise BadRequest(f"{session.where}: {sentences[status].format(id=session.id)}")

    async def _finish(self) -> None:
        """Let every partition know the last created_at, those without a session as well."""
        await run_many(self.sessions.redis, [self._call(partition, ()) for partition in self.sessions.all_partitions])


def stored_form(raw: bytes, limits: Limits) -> tuple[bytes, bytes]:
    """Configs and terms in their stored forms.

    Raises:
        BadRequest: `raw` is neither null nor a JSON object.
        ConfigsTooLarge: it is over a limit.
    """
    if raw == NULL:
        return NULL, EMPTY
    values = parse(raw, max_nesting=limits.max_nesting)
    if not isinstance(values, dict):
        raise BadRequest("configs must be null or a JSON object")
    document = Document.build(values, raw, limits)
    configs = document.configs
    check_size(configs, limits)
    return configs, document.terms


def new_id(project_id: str, session_id: str) -> str:
    """The id of the copy of a session in a project."""
    return str(uuid5(UUID(project_id), f"session {session_id}"))


def take_call(sessions: deque[PreparedSession]) -> list[PreparedSession]:
    """Take the sessions of the next call: one at least, and no more than Redis may be held for."""
    chunk = [sessions.popleft()]
    cost, size = chunk[0].cost, chunk[0].size
    while sessions and len(chunk) < CALL_SESSIONS:
        cost, size = cost + sessions[0].cost, size + sessions[0].size
        if cost > CALL_TERMS or size > CALL_BYTES:
            break
        chunk.append(sessions.popleft())
    return chunk


def _at(where: str, error: ServiceError) -> BadRequest:
    detail = f" ({error.detail})" if error.detail else ""
    return BadRequest(f"{where}: {error.message}{detail}")
