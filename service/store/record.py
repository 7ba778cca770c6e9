"""A session as Redis stores it: the fields of its hash, and how they are parsed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from service.configs.ttl import LAST_MOMENT

#: The fields of a session's hash that make a `Session`, in the order in which scripts return them.
FIELDS = ("configs", "revision", "user", "created_at", "updated_at", "disable_task_tracking", "serial", "expires_at")

#: Those that make its ETag, and say how long it exists.
STATE_FIELDS = ("revision", "created_at", "expires_at")

_CANONICAL_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Project:
    """A project as a request knows it: Redis keys contain its slug, responses its id."""

    slug: str
    id: str


class Session(NamedTuple):
    """One session. `configs` is the stored form; times are microseconds since 1970; `user` is an identifier.

    `expires_at` is None if the session never expires.
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
        """The ETag of this state, without quotes and generation; a later session with the same id never repeats it."""
        return _etag(self.created_at, self.revision)


class StoredSession(NamedTuple):
    """A session as a list reads it: the values of `FIELDS` as Redis stores them, then its score in `sessions`, and its id.

    Most of them only pass through a list, so each is parsed where it is used. A manual edit may have broken any of them.
    """

    configs: bytes
    revision: bytes
    user: bytes | None
    created_at: bytes
    updated_at: bytes
    disable_task_tracking: bytes | None
    serial: bytes
    expires_at: bytes | None
    score: bytes
    raw_id: bytes

    @property
    def id(self) -> str:
        """The session's id."""
        return self.raw_id.decode(errors="replace")

    @property
    def is_intact(self) -> bool:
        """Whether `session_of` can parse it, and it stands in the order where its serial says."""
        try:
            int(self.revision)
            if self.user is not None:
                parse_user(self.user)
            _parse_time(self.created_at)
            if self.updated_at != self.created_at:
                _parse_time(self.updated_at)
            if self.expires_at is not None:
                _parse_time(self.expires_at)
            return b"%d" % int(self.serial) == self.score
        except (TypeError, ValueError):
            return False

    def parsed(self) -> Session:
        """The session; it must be intact."""
        *fields, _, _ = self
        session = session_of(self.id, fields)
        assert session is not None  # noqa: S101 - intact
        return session


class Written(NamedTuple):
    """The result of a write: the session's revision and times (microseconds), and its configs after a merge."""

    revision: int
    created_at: int
    updated_at: int
    configs: bytes = b""

    @property
    def etag(self) -> str:
        """As `Session.etag`."""
        return _etag(self.created_at, self.revision)


def _etag(created_at: int, revision: int) -> str:
    return f"{created_at}-{revision}"


def session_of(session_id: str, fields: Sequence[Any]) -> Session | None:
    """Parse the values of `FIELDS`; None if there is no session, or if a manual edit broke fields other than configs."""
    configs, revision, user, created_at, updated_at, tracking, serial, expires_at = fields
    if configs is None:
        return None
    try:
        return Session(
            id=session_id,
            configs=configs,
            revision=int(revision),
            user=None if user is None else parse_user(user),
            created_at=_parse_time(created_at),
            updated_at=_parse_time(updated_at),
            disable_task_tracking=tracking == b"1",
            serial=int(serial),
            expires_at=None if expires_at is None else _parse_time(expires_at),
        )
    except (TypeError, ValueError):
        return None


def etag_of(fields: Sequence[Any]) -> str | None:
    """The ETag of the session with these values of `STATE_FIELDS`; None as from `session_of`, as far as they tell."""
    revision, created_at, expires_at = fields
    try:
        if expires_at is not None:
            _parse_time(expires_at)
        return _etag(_parse_time(created_at), int(revision))
    except (TypeError, ValueError):
        return None


def is_expired(expires_at: bytes | None, now: int) -> bool:
    """Whether a session with this field `expires_at` has expired at `now` (microseconds since 1970)."""
    return expires_at is not None and expires_at.isdigit() and int(expires_at) <= now


def is_canonical_id(session_id: str) -> bool:
    """Whether a session with this id can be read over HTTP; any other was written manually."""
    return _CANONICAL_ID.fullmatch(session_id) is not None


def microseconds(time: Sequence[Any]) -> int:
    """Convert a reply of TIME to microseconds since 1970."""
    seconds, fraction = time
    return int(seconds) * 1_000_000 + int(fraction)


def user_field(user: str | None) -> str:
    """A user's identifier as a session's hash stores it: a JSON string, or "" for no user."""
    return "" if user is None else orjson.dumps(user).decode()


def _parse_time(stored: bytes) -> int:
    time = int(stored)
    if not 0 <= time <= LAST_MOMENT:
        raise ValueError
    return time


def parse_user(stored: bytes) -> str:
    """The user's identifier of which `user_field` made `stored`.

    Raises:
        TypeError, ValueError: a manual edit broke it.
    """
    user = orjson.loads(stored)
    if not isinstance(user, str):
        raise TypeError
    return user
