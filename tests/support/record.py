"""What a workload remembers of its sessions: every write, the states that are possible, and which writes may be lost."""

import json
from dataclasses import dataclass, field
from math import inf

from tests.support.access import Snapshot
from tests.support.http_client import Violation
from tests.support.model import lines, merged

Values = dict[str, str]


@dataclass(frozen=True)
class Write:
    """The state that a write left (`values` None: no session), and when it was sent and answered; inf: it may have happened."""

    values: Values | None
    revision: int
    sent: float
    answered: float
    etag: str = ""

    def matches(self, snapshot: Snapshot | None) -> bool:
        """Whether a response has this state; None for no session."""
        if self.values is None or snapshot is None:
            return self.values is None and snapshot is None
        if self.revision != snapshot.revision or snapshot.configs not in (b"", lines(self.values)):
            return False
        return not (self.etag and snapshot.etag) or self.etag == snapshot.etag


@dataclass
class Record:
    """All writes to one session, in order, and the states in which it may be if no acknowledged write is lost."""

    id: str
    owner: int
    writes: list[Write] = field(default_factory=lambda: [Write(None, 0, -inf, -inf)])
    possible: list[Write] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.possible = self.writes[-1:]

    @property
    def is_indeterminate(self) -> bool:
        """Whether its last write may have happened or not."""
        return len(self.possible) > 1

    def acknowledge(self, write: Write) -> None:
        """A write got its response."""
        if write.etag and write.etag in {earlier.etag for earlier in self.writes}:
            raise Violation(f"ETag {write.etag} came twice: {self}")
        self.writes.append(write)
        self.possible = [write]

    def may_have(self, writes: list[Write]) -> None:
        """A write may have left one of these states."""
        self.writes += writes
        self.possible += writes

    def check(self, snapshot: Snapshot | None) -> None:
        """Raise Violation unless a response has a possible state."""
        if not any(write.matches(snapshot) for write in self.possible):
            raise Violation(f"{snapshot} is no possible state of {self}")


def after_write(before: Write, name: str, changes: Values, sent: float) -> Write:
    """The state that a write leaves, if it happens."""
    if name == "delete":
        return Write(None, 0, sent, inf)
    return Write(merged(before.values, changes) if name == "patch" else dict(changes), before.revision + 1, sent, inf)


def lost_writes(snapshots: list[tuple[Record, Snapshot | None]], lost_after: float) -> list[Write]:
    """The acknowledged writes that the store lacks.

    Raises:
        Violation: they are not the tail of all writes, or one was answered before `lost_after`.
    """
    cut = latest_consistent_cut(
        [(record, [at for at, write in enumerate(record.writes) if write.matches(each)]) for record, each in snapshots]
    )
    lost = [write for record, at in cut for write in record.writes[at + 1 :] if write.answered != inf]
    if any(write.answered <= lost_after for write in lost):
        raise Violation(f"lost, and answered before {lost_after}: {lost}")
    return lost


def latest_consistent_cut(states: list[tuple[Record, list[int]]]) -> list[tuple[Record, int]]:
    """The last write of each session that the store has. One moment, the latest possible, separates them from all lost ones.

    `states` has the writes that each session may show: a session that does not exist may have been deleted by any of its
    deletions. A write was done at some time between its being sent and its response.

    Raises:
        Violation: there is no such moment.
    """

    def last(record: Record, places: list[int], moment: float) -> int | None:
        following = [*record.writes[1:], Write(None, 0, inf, inf)]
        return max((at for at in places if record.writes[at].sent <= moment <= following[at].answered), default=None)

    for moment in sorted({record.writes[at].sent for record, places in states for at in places}, reverse=True):
        cut = [(record, last(record, places, moment)) for record, places in states]
        if all(at is not None for _, at in cut):
            return [(record, at) for record, at in cut if at is not None]
    raise Violation(f"what is lost is not the tail of all that was written: {states}")


def spelled(values: Values) -> bytes:
    """A JSON object of values as they are spelled."""
    return ("{" + ",".join(f"{json.dumps(key)}:{value}" for key, value in values.items()) + "}").encode()
