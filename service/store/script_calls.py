"""One typed function per Lua script. Each header in `lua/` documents the operation, its arguments and its reply.

Arguments are in the form that scripts take: `conditions` from `Conditions.encode`, `ttl` from `Ttl.encode`, configs and terms
in their stored form, `user` from `user_field`. `scripts.script` checks each function against the header at import.
"""

from collections.abc import Callable, Sequence
from itertools import starmap
from typing import Any, NamedTuple

from service.configs.document import too_large, too_many_keys, too_many_terms
from service.configs.limits import Limits
from service.errors import ProjectFull, SessionNotFound, Unreadable
from service.store.conditions import precondition_failed
from service.store.keys import Owner, PartitionArguments
from service.store.record import StoredSession
from service.store.scripts import Argument, KeysAndArguments, ScriptFunction, script


class StatusReply(NamedTuple):
    """The reply of a script that can refuse: a status, and the values that come with it."""

    status: bytes
    values: list[Any]

    def raise_for_status(self, limits: Limits) -> None:
        """Raise the error that the status stands for, unless it is one of success; `limits` are those of the call."""
        if self.status not in _SUCCESS:
            raise _ERRORS[self.status](self.values, limits)


#: The statuses of calls that did what they were asked for, or had nothing to do.
_SUCCESS = frozenset({b"ok", b"created", b"exists", b"expected", b"registered"})
#: The error for each status that refuses.
_ERRORS: dict[bytes, Callable[[list[Any], Limits], Exception]] = {
    b"not_found": lambda _, __: SessionNotFound(),
    b"precondition_failed": lambda values, _: precondition_failed(values[0].decode()),
    b"unreadable": lambda _, __: Unreadable(),
    b"too_large": lambda _, limits: too_large(limits),
    b"too_many_keys": lambda _, limits: too_many_keys(limits),
    b"too_many_terms": lambda _, limits: too_many_terms(limits),
    b"too_many_sessions": lambda _, limits: ProjectFull("max_sessions", limits.max_sessions),
    b"too_many_users": lambda _, limits: ProjectFull("max_users", limits.max_users),
}


class Candidates(NamedTuple):
    """A reply of `find_candidates`; `cost` is that of the search, `time` that of TIME."""

    has_more: bool
    after: bytes
    cost: int
    time: list[bytes]
    sessions: list[StoredSession]


class RateReply(NamedTuple):
    """A reply of `rate_limit`: requests remaining, microseconds until the full burst is available, microseconds to wait."""

    remaining: int
    reset_after: int
    wait: int


class SessionComparison(NamedTuple):
    """A reply of `verify_session`: whether the session has changed since it was read, else (finding, term) pairs."""

    has_changed: bool
    findings: list[tuple[str, bytes]]


class ProjectReply(NamedTuple):
    """A reply of `import_project`: what was done, and the configs as they are now, with their revision."""

    status: str
    revision: int
    configs: bytes


def _status(reply: list[Any]) -> StatusReply:
    return StatusReply(reply[0], reply[1:])


def _candidates(reply: list[Any]) -> Candidates:
    has_more, after, cost, time, *sessions = reply
    return Candidates(bool(has_more), after, cost, time, list(starmap(StoredSession, sessions)))


def _rate(reply: list[int]) -> RateReply:
    return RateReply(*reply)


def _project_reply(reply: list[Any]) -> ProjectReply:
    status, revision, configs = reply
    return ProjectReply(status.decode(), int(revision), configs)


def _text(reply: bytes) -> str:
    return reply.decode()


def _texts(reply: list[bytes]) -> list[str]:
    return [item.decode() for item in reply]


def _pairs(reply: list[bytes]) -> list[tuple[str, bytes]]:
    return [(name.decode(), value) for name, value in zip(reply[::2], reply[1::2], strict=True)]


def _comparison(reply: list[bytes]) -> SessionComparison:
    return SessionComparison(reply[0] == b"changed", _pairs(reply[1:]))


# Sessions.


@script(_status)
def create(
    *,
    session: str,
    sessions: str,
    state: str,
    partition: PartitionArguments,
    session_id: str,
    configs: bytes,
    terms: bytes,
    user: str,
    disable_task_tracking: int,
    ttl: int | str,
    conditions: str,
    max_sessions: int,
) -> KeysAndArguments:
    """Statuses: created, with revision, created_at, updated_at, serial, expires_at; or exists, with the values of `FIELDS`."""
    return (session, sessions, state), (
        *partition, session_id, configs, terms, user, disable_task_tracking, ttl, conditions, max_sessions
    )  # fmt: skip


@script(_status)
def replace(
    *, session: str, partition: PartitionArguments, conditions: str, ttl: int | str, configs: bytes, terms: bytes
) -> KeysAndArguments:
    """Status: ok, with revision, created_at and updated_at."""
    return (session,), (*partition, conditions, ttl, configs, terms)


@script(_status)
def patch(
    *,
    session: str,
    partition: PartitionArguments,
    conditions: str,
    ttl: int | str,
    max_bytes: int,
    max_keys: int,
    max_terms: int,
    members: Sequence[bytes],
) -> KeysAndArguments:
    """Status: ok, with revision, created_at, updated_at and configs."""
    return (session,), (*partition, conditions, ttl, max_bytes, max_keys, max_terms, *members)


@script(_status)
def delete(
    *,
    session: str,
    sessions: str,
    partition: PartitionArguments,
    conditions: str,
    session_id: str,
    user: str,
) -> KeysAndArguments:
    """Status: ok."""
    return (session, sessions), (*partition, conditions, session_id, user)


@script(_text)
def expire(*, session: str, sessions: str, partition: PartitionArguments, session_id: str) -> KeysAndArguments:
    """Result: expired, alive or missing."""
    return (session, sessions), (*partition, session_id)


@script(_candidates)
def find_candidates(
    *,
    sessions: str,
    prefix: str,
    block_size: int,
    after: bytes | str,
    descending: int,
    limit: int,
    max_bytes: int,
    required_terms: Sequence[str],
) -> KeysAndArguments:
    """Result: the next candidates. `required_terms` are pairs of term and overflow term."""
    return (sessions,), (prefix, block_size, after, descending, limit, max_bytes, *required_terms)


# Users.


@script(int)
def count_sessions(*, expiring: str, prefix: str, block_size: int, term: str, max_expired: int) -> KeysAndArguments:
    """Result: the number of sessions of the partition that have the term."""
    return (expiring,), (prefix, block_size, term, max_expired)


class UserKeys(NamedTuple):
    """The keys that every script on users takes: the users, those expected, and the project's record, which names the owner."""

    users: str
    expected: str
    project: str


@script(int)
def register_user(*, keys: UserKeys, project_id: str, identifier: str) -> KeysAndArguments:
    """Result: created_at in microseconds."""
    return keys, (project_id, identifier)


@script(_status)
def expect_user(*, keys: UserKeys, project_id: str, identifier: str, max_users: int) -> KeysAndArguments:
    """Statuses: expected, with created_at; or registered."""
    return keys, (project_id, identifier, max_users)


@script(bool)
def withdraw_user(*, keys: UserKeys, project_id: str, identifier: str, created_at: int) -> KeysAndArguments:
    """Result: whether the user was removed."""
    return keys, (project_id, identifier, created_at)


@script(bool)
def delete_user(*, keys: UserKeys, project_id: str, identifier: str) -> KeysAndArguments:
    """Result: whether the user was registered."""
    return keys, (project_id, identifier)


# Projects and API keys.


@script(_status)
def patch_project(
    *, project: str, project_id: str, max_bytes: int, max_keys: int, members: Sequence[bytes]
) -> KeysAndArguments:
    """Status: ok, with configs and configs_revision."""
    return (project,), (project_id, max_bytes, max_keys, *members)


@script(bool)
def set_session_ttl(*, state: str, owner: Owner, revision: int, ttl: int | str) -> KeysAndArguments:
    """Result: whether the partition had an earlier revision."""
    return (state,), (*owner, revision, ttl)


@script(_rate)
def rate_limit(*, rate: str, interval: int, burst: int) -> KeysAndArguments:
    """Result: what is left of the API key's burst."""
    return (rate,), (interval, burst)


# Upkeep.


@script(_texts)
def import_sessions(
    *,
    sessions: str,
    state: str,
    partition: PartitionArguments,
    on_conflict: str,
    not_before: int,
    max_sessions: int,
    imported: Sequence[Argument],
) -> KeysAndArguments:
    """Result: a status for each session, the last one of those that were looked at."""
    return (sessions, state), (*partition, on_conflict, not_before, max_sessions, *imported)


@script(_status)
def import_users(*, keys: UserKeys, project_id: str, max_users: int, imported: Sequence[Argument]) -> KeysAndArguments:
    """Statuses: ok, or too_many_users; with the number of users that were registered.

    `imported` are pairs of identifier and created_at.
    """
    return keys, (project_id, max_users, *imported)


@script(_project_reply)
def import_project(*, project: str, project_id: str, configs: bytes, revision: int, on_conflict: str) -> KeysAndArguments:
    """Result: what was done, and the project's configs."""
    return (project,), (project_id, configs, revision, on_conflict)


@script(_comparison)
def verify_session(
    *,
    session: str,
    sessions: str,
    state: str,
    partition: PartitionArguments,
    session_id: str,
    read_configs: bytes,
    read_user: bytes,
    configs: bytes,
    terms: bytes,
    repair: int,
    suspects: Sequence[str],
) -> KeysAndArguments:
    """Result: how the session differs from what its configs require."""
    return (session, sessions, state), (*partition, session_id, read_configs, read_user, configs, terms, repair, *suspects)


@script(_pairs)
def verify_set(
    *, sessions: str, partition: PartitionArguments, block: str, term: str, repair: int, serials: Sequence[bytes]
) -> KeysAndArguments:
    """Result: pairs of finding and serial."""
    return (sessions,), (*partition, block, term, repair, *serials)


@script(_text)
def verify_type(*, key: str, expected: str, repair: int) -> KeysAndArguments:
    """Result: the type of the key if it is not the expected one, else an empty text."""
    return (key,), (expected, repair)


@script(_texts)
def verify_state(*, state: str, sessions: str, prefix: str, owner: Owner, repair: int) -> KeysAndArguments:
    """Result: the findings."""
    return (state, sessions), (prefix, *owner, repair)


@script(bool)
def renumber(
    *,
    session: str,
    sessions: str,
    partition: PartitionArguments,
    session_id: str,
    old: int,
    new: int,
) -> KeysAndArguments:
    """Result: whether the session has the new serial."""
    return (session, sessions), (*partition, session_id, old, new)


@script(bool)
def adopt_session(*, session: str, state: str, owner: Owner, replace: int, fields: Sequence[bytes]) -> KeysAndArguments:
    """Result: whether the hash was written; false if a session exists and stays."""
    return (session, state), (*owner, replace, *fields)


@script(int)
def assign_serials(*, order: str, sessions: str, state: str, partition: PartitionArguments) -> KeysAndArguments:
    """Result: the number of ids taken from `order`."""
    return (order, sessions, state), partition


@script(_pairs)
def preflight(*, hash_key: str, set_key: str, zset_key: str, string_key: str, prefix: str) -> KeysAndArguments:
    """Result: pairs of refused command and error."""
    return (hash_key, set_key, zset_key, string_key), (prefix,)


#: Every script that has a function here.
SCRIPTS = tuple(value.script for value in list(globals().values()) if isinstance(value, ScriptFunction))
