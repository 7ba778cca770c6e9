"""The model of one session at one time, and what an answer may tell of it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import NamedTuple

from service.configs.containment import exact
from tests.soak.answers import Row
from tests.soak.values import Values, lines

#: Microseconds; see `Span.open`.
LATEST = 60_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Mismatch(Exception):
    """An answer that cannot come from a state."""


def hold(name: str, shown: object, right: object) -> None:
    """Raise Mismatch unless what is shown is right."""
    if shown != right:
        raise Mismatch(f"{name} is {shown!r}, not {right!r}")


class Span(NamedTuple):
    """From one moment to another, in microseconds since 1970 by the clock of this machine, which is Redis's."""

    start: int
    end: int

    @classmethod
    def open(cls, start: int) -> "Span":
        """From `start` to when a write without an answer surely happens no more."""
        return cls(start, now() + LATEST)

    def later(self, seconds: int) -> "Span":
        """The same, `seconds` later."""
        return Span(self.start + seconds * 1_000_000, self.end + seconds * 1_000_000)


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def microseconds(shown: str) -> int:
    """A time in an answer as microseconds since 1970."""
    return (datetime.fromisoformat(shown) - _EPOCH) // timedelta(microseconds=1)


def lifetime(ttl: int, span: Span) -> Span | None:
    """When a session dies to which a write within `span` gives `ttl` seconds, 0 for as long as it is not deleted."""
    return span.later(ttl) if ttl else None


@dataclass(frozen=True)
class State:
    """A session. What no answer has told yet is an empty id, and None for times (microseconds since 1970).

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
    dies: Span | None = None

    @cached_property
    def configs(self) -> bytes:
        """Its configs as answers show them."""
        return lines(self.values)

    @cached_property
    def exact(self) -> object:
        """Its configs with exact numbers, as filters are held against."""
        return exact(self.configs)

    @property
    def etag(self) -> str:
        """Its ETag, None in it where created_at is not known."""
        return f"{self.created_at}-{self.revision}"

    def written(self, values: Values, ttl: int | None, span: Span) -> "State":
        """What a write within `span` leaves. `ttl` is a new lifetime in seconds, 0 for none; None leaves it as it is."""
        return replace(
            self,
            values=values,
            revision=self.revision + 1,
            updated_at=None,
            not_before=self.updated_at or self.not_before,
            dies=self.dies if ttl is None else lifetime(ttl, span),
        )

    def aged(self, span: Span) -> Iterator["State | None"]:
        """As what a request within `span` may meet it."""
        if self.dies is None or span.start < self.dies.end:
            yield self
        if self.dies is not None and span.end >= self.dies.start:
            yield None

    def seen(self, row: Row) -> "State":
        """The same, with what an answer tells of it.

        Raises:
            Mismatch: the answer shows another state.
        """
        created_at, updated_at = microseconds(row.created_at), microseconds(row.updated_at)
        hold("id", row.id, self.id or row.id)
        hold("configs", bytes(row.configs), self.configs)
        hold("revision", row.revision, self.revision)
        hold("user_id", row.user_id, row.id_of(self.user))
        hold("disable_task_tracking", row.disable_task_tracking, self.tracking)
        if self.created_at is not None:
            hold("created_at", created_at, self.created_at)
        elif created_at <= self.not_before:
            raise Mismatch(f"created_at is {created_at}, not later than {self.not_before}")
        right = created_at if self.revision == 1 else self.updated_at
        if right is not None:
            hold("updated_at", updated_at, right)
        elif updated_at < max(self.not_before, created_at):
            raise Mismatch(f"updated_at is {updated_at}, earlier than before")
        return replace(self, id=row.id, created_at=created_at, updated_at=updated_at, dies=self._dies(row.expires_at))

    def _dies(self, expires_at: str | None) -> Span | None:
        if self.dies is None or expires_at is None:
            hold("expires_at", expires_at, self.dies)
            return None
        moment = microseconds(expires_at)
        if not self.dies.start <= moment <= self.dies.end:
            raise Mismatch(f"expires_at is {expires_at}, {moment}, and should be within {tuple(self.dies)}")
        return Span(moment, moment)
