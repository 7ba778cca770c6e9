"""The state of one session at one time, compared with responses."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import NamedTuple

from service.configs.containment import exact
from tests.soak.values import Values
from tests.support.model import lines
from tests.support.responses import Row

#: Microseconds; see `Span.until_settled`.
MAX_DELAY = 60_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Mismatch(Exception):
    """A response does not match a state."""


def expect(name: str, actual: object, expected: object) -> None:
    """Raise Mismatch unless `actual` is `expected`."""
    if actual != expected:
        raise Mismatch(f"{name} is {actual!r}, not {expected!r}")


class Span(NamedTuple):
    """From one moment to another, in microseconds since 1970 by the clock of this host, which Redis uses too."""

    start: int
    end: int

    @classmethod
    def until_settled(cls, start: int) -> "Span":
        """From `start` to when a write without a response can no longer happen."""
        return cls(start, now() + MAX_DELAY)

    def later(self, seconds: int) -> "Span":
        """The same, `seconds` later."""
        return Span(self.start + seconds * 1_000_000, self.end + seconds * 1_000_000)


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def microseconds(actual: str) -> int:
    """A time in a response as microseconds since 1970."""
    return (datetime.fromisoformat(actual) - _EPOCH) // timedelta(microseconds=1)


def lifetime(ttl: int, span: Span) -> Span | None:
    """When a session expires to which a write within `span` gives `ttl` seconds; None for 0, which is never."""
    return span.later(ttl) if ttl else None


@dataclass(frozen=True)
class State:
    """A session. The id is empty, and times are None (else microseconds since 1970), until a response has them.

    Such a time is `not_before` at the earliest; created_at is later.
    """

    id: str
    values: Values | None
    user: str | None = None
    tracking: bool = False
    revision: int = 1
    created_at: int | None = None
    updated_at: int | None = None
    not_before: int = 0
    expires: Span | None = None

    @cached_property
    def configs(self) -> bytes:
        """Its configs as responses have them."""
        return b"null" if self.values is None else lines(self.values)

    @cached_property
    def exact(self) -> object:
        """Its configs with exact numbers, for filters."""
        return exact(self.configs)

    @property
    def etag(self) -> str:
        """Its ETag; it has `None` in it if created_at is unknown."""
        return f"{self.created_at}-{self.revision}"

    def written(self, values: Values, ttl: int | None, span: Span) -> "State":
        """The state after a write within `span`. `ttl` is a new lifetime in seconds, 0 for none; None keeps the old one."""
        return replace(
            self,
            values=values,
            revision=self.revision + 1,
            updated_at=None,
            not_before=self.updated_at or self.not_before,
            expires=self.expires if ttl is None else lifetime(ttl, span),
        )

    def aged(self, span: Span) -> Iterator["State | None"]:
        """The states in which a request within `span` may find it: this one, or None after its lifetime."""
        if self.expires is None or span.start < self.expires.end:
            yield self
        if self.expires is not None and span.end >= self.expires.start:
            yield None

    def seen(self, row: Row) -> "State":
        """This state with the id and times of a row.

        Raises:
            Mismatch: the row is of another state.
        """
        created_at, updated_at = microseconds(row.created_at), microseconds(row.updated_at)
        expect("id", row.id, self.id or row.id)
        expect("configs", bytes(row.configs), self.configs)
        expect("revision", row.revision, self.revision)
        expect("user_id", row.user_id, row.id_of(self.user))
        expect("disable_task_tracking", row.disable_task_tracking, self.tracking)
        if self.created_at is not None:
            expect("created_at", created_at, self.created_at)
        elif created_at <= self.not_before:
            raise Mismatch(f"created_at is {created_at}, not later than {self.not_before}")
        expected = created_at if self.revision == 1 else self.updated_at
        if expected is not None:
            expect("updated_at", updated_at, expected)
        elif updated_at < max(self.not_before, created_at):
            raise Mismatch(f"updated_at is {updated_at}, earlier than before")
        return replace(self, id=row.id, created_at=created_at, updated_at=updated_at, expires=self._expiry(row.expires_at))

    def _expiry(self, expires_at: str | None) -> Span | None:
        if self.expires is None or expires_at is None:
            expect("expires_at", expires_at, self.expires)
            return None
        moment = microseconds(expires_at)
        if not self.expires.start <= moment <= self.expires.end:
            raise Mismatch(f"expires_at is {expires_at}, {moment}, and should be within {tuple(self.expires)}")
        return Span(moment, moment)
