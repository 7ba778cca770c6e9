"""Sessions of one project: create, read, replace, patch, delete, copy. Each write is one script."""

from collections.abc import Sequence
from typing import Any

from service.configs.document import EMPTY, NULL, Document, check_size
from service.configs.limits import Limits
from service.configs.ttl import UNSPECIFIED, Ttl
from service.errors import (
    LayoutChanged,
    PreconditionFailed,
    SessionNotFound,
    StateIncomplete,
    StoreFull,
    Unauthorized,
    Unreadable,
)
from service.redis_client.client import RedisClient, checked
from service.store import script_calls
from service.store.conditions import UNCONDITIONAL, Conditions, precondition_failed
from service.store.keys import BLOCK_SIZE, Owner, Partition, all_partitions, partition_number
from service.store.record import (
    FIELDS,
    STATE_FIELDS,
    Project,
    Session,
    Written,
    etag_of,
    is_expired,
    microseconds,
    session_of,
    user_field,
)
from service.store.registration import UserRegistration
from service.store.removal_batches import removal_batches
from service.store.script_calls import StatusReply
from service.store.scripts import Call, run_many
from service.store.verify import verify_session


class Sessions:
    """The sessions of one project. `conditions` are those of the request, on the current state of the session.

    `ttl` starts with the write. By default a new session gets the project's default TTL, and an existing one keeps its expiry.
    Once a session has expired, by Redis's clock, no method finds it.

    Every write raises, before it writes anything: Unauthorized if the project was deleted, or replaced by another of the same
    name, since the API key was checked; LayoutChanged if the store has another number of partitions; StateIncomplete if the
    partition's state names no owner.
    """

    def __init__(
        self, redis: RedisClient, project: Project, limits: Limits, partitions: int = 1, block_size: int = BLOCK_SIZE
    ) -> None:
        """`partitions` and `block_size` are those of the store."""
        self.redis = redis
        self.project = project
        self.limits = limits
        self.partitions = partitions
        self.block_size = block_size
        #: Every partition of the project.
        self.all_partitions = all_partitions(project.slug, Owner(project.id, partitions), partitions, block_size)
        self.registration = UserRegistration(redis, project, limits)
        # Whether any session read so far had an expiry; only then do reads ask Redis for the time.
        self._has_seen_expiry = False

    @property
    def partition_share(self) -> int:
        """How many sessions one partition may have, 0 for no limit: its share of `max_sessions`, rounded up."""
        return -(-self.limits.max_sessions // self.partitions)

    def partition(self, session_id: str) -> Partition:
        """The partition that holds `session_id`."""
        return self.all_partitions[partition_number(session_id, self.partitions)]

    async def create_session(
        self,
        session_id: str,
        document: Document | None,
        *,
        user: str | None = None,
        disable_task_tracking: bool = False,
        ttl: Ttl = UNSPECIFIED,
        may_exist: bool = True,
        conditions: Conditions = UNCONDITIONAL,
    ) -> tuple[Session, bool]:
        """Create a session with `document`, or with null configs, and register its `user`; leave an existing one unchanged.

        The user is registered before the session is created, because a crash must not leave a session whose user is not listed.
        If no session is created, the user is withdrawn. `may_exist` is false if the id is new, so nobody can have used it.

        Returns:
            The session, and whether it is new.

        Raises:
            PreconditionFailed: `conditions` do not hold for the existing session.
            ConfigsTooLarge: the configs are over the limit; nothing was written.
            StoreFull: there is no room for the session or its user.
            WriteUncertain: Redis is unavailable; the session may exist.
        """
        configs = NULL if document is None else document.configs
        check_size(configs, self.limits)
        expected = None if user is None else await self._expect_user(user, session_id, may_exist=may_exist)
        terms = EMPTY if document is None else document.terms
        try:
            session, is_new = await self._create(session_id, configs, terms, user, disable_task_tracking, ttl, conditions)
        except (PreconditionFailed, SessionNotFound, Unreadable, Unauthorized, LayoutChanged, StateIncomplete, StoreFull):
            await self._withdraw_user(user, expected)
            raise
        if not is_new:
            await self._withdraw_user(user, expected)
        elif user is not None:
            await self.registration.confirm(user)
        return session, is_new

    async def copy_session(self, session_id: str, new_id: str, conditions: Conditions = UNCONDITIONAL) -> Session:
        """Create `new_id` with the configs, user and tracking flag of `session_id`, read at one moment; register the user.

        The copy gets the project's default TTL. `conditions` are checked against the state that is copied.

        Raises:
            SessionNotFound: the session does not exist.
            PreconditionFailed: `conditions` do not hold for it.
            Unreadable: a manual edit broke fields other than its configs.
            WriteUncertain: Redis is unavailable; the copy may exist.
        """
        key = self.partition(session_id).session(session_id)
        now, (terms, *fields) = await self._read_with_time(key, ("terms", *FIELDS))
        source = _matching(session_id, fields, now, conditions)
        if conditions.excludes(source.etag):
            raise precondition_failed("If-None-Match")
        new, _ = await self._create(
            new_id, source.configs, terms or EMPTY, source.user, source.disable_task_tracking, UNSPECIFIED, UNCONDITIONAL
        )
        if new.user is not None:
            await self.registration.confirm(new.user)
        return new

    async def _expect_user(self, user: str, session_id: str, *, may_exist: bool) -> int | None:
        """Register the user, unless this object did so before, or the id is in use, so that the request will be ignored."""
        if self.registration.is_registered(user) or (may_exist and await self._exists(session_id)):
            return None
        return await self.registration.expect(user)

    async def _withdraw_user(self, user: str | None, expected: int | None) -> None:
        if user is not None and expected is not None:
            await self.registration.withdraw(user, expected)

    async def _exists(self, session_id: str) -> bool:
        try:
            await self.get(session_id)
        except SessionNotFound:
            return False
        except Unreadable:
            pass
        return True

    async def _create(
        self,
        session_id: str,
        configs: bytes,
        terms: bytes,
        user: str | None,
        disable_task_tracking: bool,
        ttl: Ttl,
        conditions: Conditions,
    ) -> tuple[Session, bool]:
        partition = self.partition(session_id)
        call = script_calls.create(
            session=partition.session(session_id),
            sessions=partition.sessions,
            state=partition.state,
            partition=partition.arguments,
            session_id=session_id,
            configs=configs,
            terms=terms,
            user=user_field(user),
            disable_task_tracking=int(disable_task_tracking),
            ttl=ttl.encode(),
            conditions=conditions.encode(),
            max_sessions=self.partition_share,
        )
        reply = await call.run(self.redis)
        reply.raise_for_status(self.limits)
        if reply.status == b"exists":
            return _existing(session_id, reply.values), False
        revision, created_at, updated_at, serial = map(int, reply.values[:4])
        new = Session(
            id=session_id,
            configs=configs,
            revision=revision,
            user=user,
            created_at=created_at,
            updated_at=updated_at,
            disable_task_tracking=disable_task_tracking,
            serial=serial,
            expires_at=int(reply.values[4]) if reply.values[4] else None,
        )
        return new, True

    async def get(self, session_id: str, conditions: Conditions = UNCONDITIONAL) -> Session:
        """Read a session. Checks If-Match of `conditions`; the caller answers If-None-Match.

        Raises:
            SessionNotFound: the project has no session with this id.
            PreconditionFailed: If-Match does not hold.
            Unreadable: a manual edit broke fields other than its configs.
        """
        now, fields = await self._read(self.partition(session_id).session(session_id), FIELDS)
        return _matching(session_id, fields, now, conditions)

    async def unchanged(self, session_id: str, conditions: Conditions) -> str | None:
        """The session's ETag if If-None-Match names it, and If-Match holds: the client has the current state.

        Else None, and the caller has to `get` the session. The configs, which may be large, are not read. A client with an old
        ETag waits for a second round trip, but most clients that poll find nothing changed. That a manual edit broke other
        fields, or deleted the configs, is not noticed.
        """
        now, fields = await self._read(self.partition(session_id).session(session_id), STATE_FIELDS)
        etag = None if is_expired(fields[-1], now) else etag_of(fields)
        return etag if etag is not None and conditions.matches(etag) and conditions.excludes(etag) else None

    async def _read(self, key: str, names: Sequence[str]) -> tuple[int, list[Any]]:
        """Fields of a session's hash, `expires_at` the last, and Redis's time as below; 0 if no session has had an expiry."""
        if not self._has_seen_expiry:
            fields = await self.redis.call("HMGET", key, *names)
            if fields[-1] is None:
                return 0, fields
            self._has_seen_expiry = True
        return await self._read_with_time(key, names)

    async def _read_with_time(self, key: str, names: Sequence[str]) -> tuple[int, list[Any]]:
        """Fields of a session's hash, and Redis's time just before they were read.

        In this order, a session that had not expired by that time is returned in its state then or after a later write, which
        itself found it unexpired.
        """
        time, fields = checked(await self.redis.batch([("TIME",), ("HMGET", key, *names)], near=key))
        return microseconds(time), fields

    async def replace(
        self, session_id: str, document: Document, *, conditions: Conditions = UNCONDITIONAL, ttl: Ttl = UNSPECIFIED
    ) -> Written:
        """Replace all configs of a session.

        Raises:
            SessionNotFound: the project has no session with this id.
            PreconditionFailed: `conditions` do not hold.
            ConfigsTooLarge: the configs are over the limit.
        """
        configs = document.configs
        check_size(configs, self.limits)
        partition = self.partition(session_id)
        call = script_calls.replace(
            session=partition.session(session_id),
            partition=partition.arguments,
            conditions=conditions.encode(),
            ttl=ttl.encode(),
            configs=configs,
            terms=document.terms,
        )
        return self._written(await call.run(self.redis))

    async def patch(
        self, session_id: str, changes: Document, *, conditions: Conditions = UNCONDITIONAL, ttl: Ttl = UNSPECIFIED
    ) -> Written:
        """Merge `changes` into the configs: set each member, or delete it if it is null. Returns all configs.

        Raises:
            SessionNotFound: the project has no session with this id.
            PreconditionFailed: `conditions` do not hold.
            ConfigsTooLarge: the result would be over a limit; nothing was written.
            Unreadable: a manual edit made the stored configs unreadable.
        """
        partition = self.partition(session_id)
        call = script_calls.patch(
            session=partition.session(session_id),
            partition=partition.arguments,
            conditions=conditions.encode(),
            ttl=ttl.encode(),
            max_bytes=self.limits.max_configs_bytes,
            max_keys=self.limits.max_keys,
            max_terms=self.limits.max_terms,
            members=changes.as_changes(),
        )
        reply = await call.run(self.redis)
        if reply.status == b"unreadable":
            await verify_session(self.redis, partition, session_id, repair=True)
            reply = await call.run(self.redis)
        return self._written(reply)

    def _written(self, reply: StatusReply) -> Written:
        reply.raise_for_status(self.limits)
        revision, created_at, updated_at, *configs = reply.values
        return Written(int(revision), int(created_at), int(updated_at), *configs)

    async def delete(self, session_id: str, *, conditions: Conditions = UNCONDITIONAL) -> None:
        """Delete a session.

        Raises:
            SessionNotFound: the project has no session with this id.
            PreconditionFailed: `conditions` do not hold.
        """
        reply = await self._delete_call(session_id, conditions).run(self.redis)
        reply.raise_for_status(self.limits)

    async def delete_many(self, session_ids: Sequence[str], *, user: str | None = None) -> None:
        """Delete those of `session_ids` that exist (and still belong to `user`, if given), expired ones included.

        Each deletion is atomic, all of them together are not.
        """
        session_keys = [(session_id, self.partition(session_id).session(session_id)) for session_id in session_ids]
        async for batch in removal_batches(self.redis, session_keys):
            await run_many(self.redis, [self._delete_call(session_id, UNCONDITIONAL, user) for session_id in batch])

    def _delete_call(self, session_id: str, conditions: Conditions, user: str | None = None) -> Call[StatusReply]:
        partition = self.partition(session_id)
        return script_calls.delete(
            session=partition.session(session_id),
            sessions=partition.sessions,
            partition=partition.arguments,
            conditions=conditions.encode(),
            session_id=session_id,
            user=user_field(user),
        )


def _existing(session_id: str, fields: Sequence[Any], now: int = 0) -> Session:
    if is_expired(fields[-1], now):
        raise SessionNotFound
    session = session_of(session_id, fields)
    if session is None:
        raise SessionNotFound if fields[0] is None else Unreadable
    return session


def _matching(session_id: str, fields: Sequence[Any], now: int, conditions: Conditions) -> Session:
    """As `_existing`, and check If-Match."""
    if conditions is UNCONDITIONAL:
        return _existing(session_id, fields, now)
    try:
        session = _existing(session_id, fields, now)
    except SessionNotFound:
        conditions.check_absent()
        raise
    conditions.check_match(session.etag)
    return session
