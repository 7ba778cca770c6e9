"""Reading the candidates of a list from one partition, and where its cursor continues."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

from service.store import script_calls
from service.store.cursors import SERIAL_MAX
from service.store.keys import Partition
from service.store.record import StoredSession, is_expired, microseconds
from service.store.script_calls import Candidates
from service.store.scripts import Call

#: A place in the order of (created_at, id).
Place = tuple[int, bytes]


@dataclass(slots=True, eq=False)
class PartitionScan:
    """Reads the candidates of one partition in order, after the serial `start`; `terms` are as `find_candidates` takes them."""

    partition: Partition
    terms: Sequence[str]
    descending: bool
    start: int | None
    with_expired: bool = False
    #: Whether there are no more candidates to read.
    is_exhausted: bool = False
    #: How many candidates were read and not examined yet.
    remaining: int = 0
    #: The place of the last one that was given a place.
    last_place: Place | None = None
    #: The last session on the page.
    last_listed: StoredSession | None = None
    _last_examined: StoredSession | None = None
    #: Where to read the next candidates: a serial as Redis stores it.
    _after: bytes | None = None

    def __post_init__(self) -> None:
        """Begin at `start`."""
        self._after = None if self.start is None else b"%d" % self.start

    @property
    def is_dry(self) -> bool:
        """Whether candidates must be read before the next one is known."""
        return not self.remaining and not self.is_exhausted

    @property
    def listed(self) -> int | None:
        """The serial of the last session on the page, or `start`."""
        return self._serial(self.last_listed)

    @property
    def examined(self) -> int | None:
        """A serial such that all candidates up to it have been examined, and none after it."""
        if self.remaining or self._after is None:
            return self._serial(self._last_examined)
        # A score written manually may not be a serial: then the one before it.
        score = min(max(float(self._after), 0), SERIAL_MAX)
        return ceil(score) if self.descending else floor(score)

    def _serial(self, session: StoredSession | None) -> int | None:
        return self.start if session is None else int(session.serial)

    def examine(self, session: StoredSession) -> None:
        """Record that `session` is the next candidate and was examined."""
        self.remaining -= 1
        self._last_examined = session

    def next_call(self, limit: int, max_bytes: int) -> Call[Candidates]:
        """The call that reads the next candidates: at most `limit`, with at most `max_bytes` of configs, or one larger session.

        It may read none although more follow.
        """
        partition = self.partition
        return script_calls.find_candidates(
            sessions=partition.sessions,
            prefix=partition.prefix,
            block_size=partition.block_size,
            after="" if self._after is None else self._after,
            descending=int(self.descending),
            limit=limit,
            max_bytes=max_bytes,
            required_terms=self.terms,
        )

    def read(self, reply: Candidates) -> list[StoredSession]:
        """The candidates that the last call has read, without sessions that expired, or that a manual edit damaged."""
        self._after = reply.after
        self.is_exhausted = not reply.has_more
        candidates = [session for session in reply.sessions if session.is_intact]
        if not self.with_expired:
            now = microseconds(reply.time)
            candidates = [each for each in candidates if each.expires_at is None or not is_expired(each.expires_at, now)]
        self.remaining += len(candidates)
        return candidates

    def place(self, session: StoredSession) -> Place:
        """The place of a session in the order of the list; call it for all of them, in the order in which they were read.

        Within a partition the serials decide, as in its cursor, even if a manual edit changed a created_at.
        """
        place = int(session.created_at), session.raw_id
        if self.last_place is not None:
            place = (min if self.descending else max)(place, self.last_place)
        self.last_place = place
        return place
