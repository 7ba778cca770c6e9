"""Sessions of one project: create, read, replace, patch, delete, copy. Each write is one script."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from service.configs.document import EMPTY, NULL, Document, check_size
from service.configs.limits import Limits
from service.configs.ttl import LAST_MOMENT
from service.errors import ConfigsTooLarge, ProjectFull, SessionNotFound, Unreadable
from service.redis_client.client import RedisClient, checked
from service.store import scripts
from service.store.conditions import UNCONDITIONAL, Conditions, failure
from service.store.keys import BLOCK_SIZE, Owner, Partition, all_partitions, partition_number
from service.store.portions import portions
from service.store.verify import verify_session

CREATE = scripts.load("create")
REPLACE = scripts.load("replace")
PATCH = scripts.load("patch")
DELETE = scripts.load("delete")


#: The fields of a session's hash that make a `Session`, in the order in which scripts return them.
FIELDS = ("configs", "revision", "user", "created_at", "updated_at", "disable_task_tracking", "serial", "expires_at")


@dataclass(frozen=True, slots=True)
class Project:
    """A project as a request knows it: its slug names keys, its id stands in answers."""

    slug: str
    id: str


class Session(NamedTuple):
    """One session. `configs` is the stored form; times are microseconds since 1970; `user` an identifier.

    `expires_at` is None where the session lives until it is deleted.
    """

    id: str
    configs: bytes
    revision: int
    user: str | None
    created_at: int
    updated_at: int
    disable_task_tracking: bool
    serial: int
    expires_at: int | None

    @property
    def etag(self) -> str:
        """What an ETag names: this state of this session, never repeated by a later session with the same id."""
        return f"{self.created_at}-{self.revision}"


@dataclass(frozen=True, slots=True)
class Written:
    """What a write left: the session's revision and times (microseconds), and its configs where a merge made them."""

    revision: int
    created_at: int
    updated_at: int
    configs: bytes = b""

    @property
    def etag(self) -> str:
        """As `Session.etag`."""
        return f"{self.created_at}-{self.revision}"


def session_of(session_id: str, fields: Sequence[Any]) -> Session | None:
    """The session that the values of `FIELDS` describe; None if there is none, or a hand has damaged more than its configs."""
    configs, revision, user, created_at, updated_at, tracking, serial, expires_at = fields
    if configs is None:
        return None
    try:
        return Session(
            id=session_id,
            configs=configs,
            revision=int(revision),
            user=None if user is None else _user(user),
            created_at=_moment(created_at),
            updated_at=_moment(updated_at),
            disable_task_tracking=tracking == b"1",
            serial=int(serial),
            expires_at=None if expires_at is None else _moment(expires_at),
        )
    except (TypeError, ValueError):
        return None


def _moment(stored: bytes) -> int:
    moment = int(stored)
    if not 0 <= moment <= LAST_MOMENT:
        raise ValueError
    return moment


def microseconds(time: Sequence[Any]) -> int:
    """What Redis answers to TIME, as microseconds since 1970."""
    seconds, fraction = time
    return int(seconds) * 1_000_000 + int(fraction)


def is_expired(fields: Sequence[Any], now: int) -> bool:
    """Whether the lifetime of the session that the values of `FIELDS` describe is over at `now` (microseconds since 1970)."""
    expires_at = fields[-1]
    return expires_at is not None and expires_at.isdigit() and int(expires_at) <= now


def _user(stored: bytes) -> str:
    user = orjson.loads(stored)
    if not isinstance(user, str):
        raise TypeError
    return user


def _existing(session_id: str, fields: Sequence[Any], now: int = 0) -> Session:
    if is_expired(fields, now):
        raise SessionNotFound
    session = session_of(session_id, fields)
    if session is None:
        raise SessionNotFound if fields[0] is None else Unreadable
    return session


def _matching(session_id: str, fields: Sequence[Any], now: int, conditions: Conditions) -> Session:
    """As `_existing`, and its If-Match holds."""
    if conditions is UNCONDITIONAL:
        return _existing(session_id, fields, now)
    try:
        session = _existing(session_id, fields, now)
    except SessionNotFound:
        conditions.check_absent()
        raise
    conditions.check_match(session.etag)
    return session


def user_field(user: str | None) -> str:
    """A user's identifier as a session's hash holds it: a JSON string, or empty for no user."""
    return "" if user is None else orjson.dumps(user).decode()


class Sessions:
    """The sessions of one project. `conditions` are those of a request on the state of the session that it is for.

    `ttl` is a lifetime in seconds that begins with the write, 0 for none: the session lives until it is deleted. Without one
    (None) a new session gets the project's default, and an old one keeps what it has. Once its lifetime is over, by Redis's
    clock, a session is not found by anything.

    Every write raises Unauthorized where the project was deleted since, or another one has its name; LayoutChanged where the
    store has another number of partitions now; StateIncomplete where its state does not say. Nothing was written then.
    """

    def __init__(
        self, redis: RedisClient, project: Project, limits: Limits, partitions: int = 1, block_size: int = BLOCK_SIZE
    ) -> None:
        """`partitions` and `block_size` are those with which the store was first used."""
        self.redis = redis
        self.project = project
        self.limits = limits
        self.partitions = partitions
        self.block_size = block_size
        #: Every partition of the project.
        self.all_partitions = all_partitions(project.slug, Owner(project.id, partitions), partitions, block_size)
        # Whether a session with a lifetime was met; only then does a read ask for the time.
        self._lifetimes = False

    def partition(self, session_id: str) -> Partition:
        """The partition that holds `session_id`."""
        return self.all_partitions[partition_number(session_id, self.partitions)]

    async def create(
        self,
        session_id: str,
        document: Document | None,
        *,
        user: str | None,
        disable_task_tracking: bool,
        ttl: int | None = None,
        conditions: Conditions = UNCONDITIONAL,
    ) -> tuple[Session, bool]:
        """Create a session with `document`, or with null configs; one that is there already is left as it is.

        Returns:
            The session, and whether it is new.

        Raises:
            PreconditionFailed: `conditions` do not hold for the session that is there already.
            ConfigsTooLarge: the configs are over the limit.
        """
        configs = NULL if document is None else document.configs
        check_size(configs, self.limits)
        terms = EMPTY if document is None else document.terms
        return await self._create(session_id, configs, terms, user, disable_task_tracking, ttl, conditions)

    async def _create(
        self,
        session_id: str,
        configs: bytes,
        terms: bytes,
        user: str | None,
        disable_task_tracking: bool,
        ttl: int | None,
        conditions: Conditions = UNCONDITIONAL,
    ) -> tuple[Session, bool]:
        partition = self.partition(session_id)
        reply = await CREATE.run(
            self.redis,
            (partition.session(session_id), partition.sessions, partition.state),
            (
                *partition.arguments,
                session_id,
                configs,
                terms,
                user_field(user),
                int(disable_task_tracking),
                _ttl(ttl),
                conditions.encode(),
                -(-self.limits.max_sessions // self.partitions),  # its share, rounded up
            ),
        )
        if reply[0] == b"too_many_sessions":
            raise ProjectFull("max_sessions", self.limits.max_sessions)
        if reply[0] == b"precondition_failed":
            raise failure(reply[1].decode())
        if reply[0] == b"exists":
            return _existing(session_id, reply[1:]), False
        revision, created_at, updated_at, serial = map(int, reply[1:5])
        new = Session(
            id=session_id,
            configs=configs,
            revision=revision,
            user=user,
            created_at=created_at,
            updated_at=updated_at,
            disable_task_tracking=disable_task_tracking,
            serial=serial,
            expires_at=int(reply[5]) if reply[5] else None,
        )
        return new, True

    async def get(self, session_id: str, conditions: Conditions = UNCONDITIONAL) -> Session:
        """Read a session. Of `conditions` If-Match is checked here; If-None-Match decides how the session is answered.

        Raises:
            SessionNotFound: there is none with this id in the project.
            PreconditionFailed: If-Match does not hold.
            Unreadable: a hand has damaged more than its configs.
        """
        key = self.partition(session_id).session(session_id)
        if not self._lifetimes:
            fields = await self.redis.call("HMGET", key, *FIELDS)
            if fields[-1] is None:
                return _matching(session_id, fields, 0, conditions)
            self._lifetimes = True
        now, fields = await self._dated(key, FIELDS)
        return _matching(session_id, fields, now, conditions)

    async def _dated(self, key: str, names: Sequence[str]) -> tuple[int, list[Any]]:
        """Fields of a session's hash, and Redis's clock at the moment before they were read.

        In this order a session that was alive then is answered as it was then or after its last write, which found it alive.
        """
        time, fields = checked(await self.redis.batch([("TIME",), ("HMGET", key, *names)], near=key))
        return microseconds(time), fields

    async def replace(
        self, session_id: str, document: Document, *, conditions: Conditions = UNCONDITIONAL, ttl: int | None = None
    ) -> Written:
        """Replace all configs of a session.

        Raises:
            SessionNotFound, PreconditionFailed: as their names say.
            ConfigsTooLarge: the configs are over the limit.
        """
        configs = document.configs
        check_size(configs, self.limits)
        partition = self.partition(session_id)
        reply = await REPLACE.run(
            self.redis,
            (partition.session(session_id),),
            (*partition.arguments, conditions.encode(), _ttl(ttl), configs, document.terms),
        )
        return _written(reply, self.limits)

    async def patch(
        self, session_id: str, changes: Document, *, conditions: Conditions = UNCONDITIONAL, ttl: int | None = None
    ) -> Written:
        """Merge `changes` into the configs: a member is set, or deleted where it is null. Returns all configs.

        Raises:
            SessionNotFound, PreconditionFailed: as their names say.
            ConfigsTooLarge: the result would be over a limit; nothing was changed.
            Unreadable: a hand has made the stored configs unreadable.
        """
        partition = self.partition(session_id)
        members: list[str | bytes | int] = [
            part
            for member in changes.members
            for part in ((member.key, b"", b"") if member.is_null else (member.key, member.value, member.terms))
        ]
        limits = self.limits
        arguments: tuple[str | bytes | int, ...] = (
            *partition.arguments,
            conditions.encode(),
            _ttl(ttl),
            limits.max_configs_bytes,
            limits.max_keys,
            limits.max_terms,
            *members,
        )
        reply = await PATCH.run(self.redis, (partition.session(session_id),), arguments)
        if reply[0] == b"unreadable":
            await verify_session(self.redis, partition, session_id, repair=True)
            reply = await PATCH.run(self.redis, (partition.session(session_id),), arguments)
        return _written(reply, limits)

    async def delete(self, session_id: str, *, conditions: Conditions = UNCONDITIONAL) -> None:
        """Delete a session.

        Raises:
            SessionNotFound, PreconditionFailed: as their names say.
        """
        reply = await DELETE.run(self.redis, *self._delete_call(session_id, conditions, ""))
        _check(reply, self.limits)

    async def delete_many(self, session_ids: Sequence[str], *, user: str = "") -> None:
        """Delete those of `session_ids` that are there (and still `user`'s, if given), each atomically.

        Those whose lifetime is over go too.
        """
        named = [(session_id, self.partition(session_id).session(session_id)) for session_id in session_ids]
        async for some in portions(self.redis, named):
            await DELETE.run_many(self.redis, [self._delete_call(session_id, UNCONDITIONAL, user) for session_id in some])

    def _delete_call(self, session_id: str, conditions: Conditions, user: str) -> tuple[tuple[str, ...], tuple[str | int, ...]]:
        partition = self.partition(session_id)
        return (
            (partition.session(session_id), partition.sessions),
            (*partition.arguments, conditions.encode(), session_id, user_field(user or None)),
        )

    async def copy(self, session_id: str, new_id: str, conditions: Conditions = UNCONDITIONAL) -> Session:
        """Create `new_id` with the configs, user and tracking flag of `session_id` as they are at one moment.

        Its lifetime is that of any new session. `conditions` are checked against the very state that is copied.

        Raises:
            SessionNotFound: there is no such session.
            PreconditionFailed: `conditions` do not hold for it.
            Unreadable: a hand has damaged more than its configs.
        """
        key = self.partition(session_id).session(session_id)
        now, (terms, *fields) = await self._dated(key, ("terms", *FIELDS))
        source = _matching(session_id, fields, now, conditions)
        if conditions.excludes(source.etag):
            raise failure("If-None-Match")
        new, _ = await self._create(new_id, source.configs, terms or EMPTY, source.user, source.disable_task_tracking, None)
        return new


def _ttl(ttl: int | None) -> int | str:
    return "" if ttl is None else ttl


def _written(reply: list[Any], limits: Limits) -> Written:
    _check(reply, limits)
    return Written(int(reply[1]), int(reply[2]), int(reply[3]), *reply[4:5])


def _check(reply: list[Any], limits: Limits) -> None:
    """Raise the error that a write's reply tells of."""
    match reply[0]:
        case b"ok":
            return
        case b"not_found":
            raise SessionNotFound
        case b"precondition_failed":
            raise failure(reply[1].decode())
        case b"too_large":
            raise ConfigsTooLarge(f"configs are larger than {limits.max_configs_bytes} bytes")
        case b"too_many_keys":
            raise ConfigsTooLarge(f"configs have more than {limits.max_keys} top-level keys")
        case b"too_many_terms":
            raise ConfigsTooLarge(f"configs have more than {limits.max_terms} index terms")
        case _:
            raise Unreadable
