"""The model of one session: the states in which it may be.

Mostly there is one. A write without an answer leaves two, the one before and the one after; a lifetime that ends about now
leaves two as well. An answer strikes out the states that it cannot come from, and one that fits none is a difference. "No
session" is a state like any other: None.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import NoneType

from tests.soak.answers import Configs, Row, data
from tests.soak.differences import Difference
from tests.soak.states import Mismatch, Span, State, hold
from tests.soak.wire import Request, Response

Possible = State | None
#: The status of the answer that a request meets in some state, and the state that it leaves.
Outcome = tuple[int, Possible]

#: Requests to a session that are told when something is wrong with it.
REMEMBERED = 12


@dataclass(frozen=True, slots=True)
class Deed:
    """A request about one session: what it does in each state, and what its answer tells of the state that it leaves."""

    request: Request
    outcomes: Callable[[Possible, Span], Sequence[Outcome]]
    learn: Callable[[Response, State], State]
    writes: bool = True


class Session:
    """One session of one client."""

    def __init__(self, session_id: str, state: Possible = None) -> None:
        self.id = session_id
        self.states: list[Possible] = [state]
        #: When a write got no answer (monotonic seconds); it may happen for a while yet. None while nothing is in doubt.
        self.doubted: float | None = None
        #: The latest created_at that it had: one that comes again under the same id is later.
        self.newest = 0
        self._history: deque[str] = deque(maxlen=REMEMBERED)

    def possible(self, span: Span) -> list[Possible]:
        """The states in which a request within `span` may find it."""
        return _distinct(aged for state in self.states for aged in ([None] if state is None else state.aged(span)))

    def known(self, span: Span) -> Possible:
        """The state in which it most likely is: one where it is there, if there is such."""
        return next((state for state in self.possible(span) if state is not None), None)

    def answered(self, deed: Deed, answer: Response, span: Span) -> None:
        """Take in the answer to a deed that was done within `span`.

        Raises:
            Difference: it can come from no state.
        """
        self._remember(deed.request, f"{answer.status} {answer.etag}")
        left: list[Possible] = []
        refuted: list[str] = []
        for before in self.possible(span):
            for status, after in deed.outcomes(before, span):
                try:
                    hold("status", answer.status, status)
                    left.append(deed.learn(answer, after) if after is not None and status < 400 else after)
                except Mismatch as mismatch:
                    refuted.append(f"as {_shown(before)}: {mismatch}")
                except Difference as malformed:
                    raise self.difference(str(malformed)) from None
        if not left:
            raise self.difference("\n".join(refuted))
        self.states = _distinct(left)
        self.newest = max(self.newest, *(state.created_at or 0 for state in left if state is not None), 0)

    def unanswered(self, deed: Deed, start: int, how: str, *, uncertain: bool) -> None:
        """Take in that a deed got no answer; if that is `uncertain`, it may have happened since `start`, or happen still."""
        self._remember(deed.request, how)
        if uncertain:
            span = Span.open(start)
            self.may_be(after for before in self.possible(span) for _, after in deed.outcomes(before, span))

    def may_be(self, states: Iterable[Possible]) -> None:
        """It may be in one of `states` as well, which is in doubt from here on."""
        self.states = _distinct([*self.states, *states])
        self.doubted = time.monotonic()

    def gone(self, what: str, *, surely: bool) -> None:
        """Take in that it was deleted with its user, or may have been."""
        self._history.append(what)
        if surely:
            self.states = [None]
        else:
            self.may_be([None])

    def listed(self, row: Row | None, span: Span) -> Possible:
        """The state in which a list within `span` that must have it shows it; `row` is None where it does not.

        Raises:
            Difference: it cannot be so.
        """
        refuted: list[str] = []
        for state in self.possible(span):
            if state is None or row is None:
                if state is None and row is None:
                    return None
                refuted.append(f"as {_shown(state)}: it should {'not ' * (state is None)}be there")
                continue
            try:
                return state.seen(row)
            except Mismatch as mismatch:
                refuted.append(f"as {_shown(state)}: {mismatch}")
        raise self.difference("\n".join(["in a list", *refuted]))

    def difference(self, what: str) -> Difference:
        """What is wrong with it, and what was done to it last."""
        history = "\n".join(f"  {line}" for line in self._history)
        return Difference(f"session {self.id}\n{what}\nthe last requests to it:\n{history}")

    def _remember(self, request: Request, result: str) -> None:
        self._history.append(f"{time.strftime('%H:%M:%S')} {request} → {result}")


def _distinct(states: Iterable[Possible]) -> list[Possible]:
    found: list[Possible] = []
    for state in states:
        if state not in found:
            found.append(state)
    return found


def _shown(state: Possible) -> str:
    return "no session" if state is None else f"revision {state.revision}"


# What answers tell.


def shows_session(answer: Response, state: State) -> State:
    """A whole session, or 304 for one that is still so."""
    seen = state if answer.status == 304 else state.seen(data(answer, Row))
    hold("ETag", answer.etag, seen.etag)
    return seen


def shows_configs(answer: Response, state: State) -> State:
    """All configs after a PATCH."""
    hold("configs", bytes(data(answer, Configs).configs), state.configs)
    hold("ETag", answer.etag, state.etag)
    return state


def shows_nothing(answer: Response, state: State) -> State:
    """An ETag and no data."""
    data(answer, NoneType)
    hold("ETag", answer.etag, state.etag)
    return state
