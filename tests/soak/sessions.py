"""The model of one session: the states in which it may be.

Usually there is one. A write without a response leaves two, the one before and the one after; a lifetime that ends about now
leaves two as well. A response rules out the states that it cannot come from, and one that fits no state is a violation. "No
session" is a state like any other: None.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import NoneType

from tests.soak.states import Mismatch, Span, State, expect
from tests.support.http_client import Request, Response, Violation
from tests.support.responses import Configs, Row, data

Possible = State | None
#: The status of the response that a request meets in some state, and the state that it leaves.
Outcome = tuple[int, Possible]

#: Requests to a session that a violation lists.
REMEMBERED = 12


@dataclass(frozen=True, slots=True)
class Operation:
    """A request about one session: what it does in each state, and what its response adds to the state that it leaves."""

    request: Request
    outcomes: Callable[[Possible, Span], Sequence[Outcome]]
    learn: Callable[[Response, State], State]
    writes: bool = True


class Session:
    """One session of one client."""

    def __init__(self, session_id: str, state: Possible = None) -> None:
        self.id = session_id
        self.states: list[Possible] = [state]
        #: When a write got no response (monotonic seconds); it may still happen for a while. None if nothing is indeterminate.
        self.indeterminate_since: float | None = None
        #: The latest created_at that it had: one that comes again under the same id is later.
        self.newest = 0
        self._history: deque[str] = deque(maxlen=REMEMBERED)

    def possible(self, span: Span) -> list[Possible]:
        """The states in which a request within `span` may find it."""
        return _distinct(aged for state in self.states for aged in ([None] if state is None else state.aged(span)))

    def most_likely(self, span: Span) -> Possible:
        """The state in which it most likely is: one in which it exists, if there is one."""
        return next((state for state in self.possible(span) if state is not None), None)

    def take_response(self, operation: Operation, response: Response, span: Span) -> None:
        """An operation within `span` got its response.

        Raises:
            Violation: no possible state explains it.
        """
        self._remember(operation.request, f"{response.status} {response.etag}")
        after_states: list[Possible] = []
        refuted: list[str] = []
        for before in self.possible(span):
            for status, after in operation.outcomes(before, span):
                try:
                    expect("status", response.status, status)
                    after_states.append(operation.learn(response, after) if after is not None and status < 400 else after)
                except Mismatch as mismatch:
                    refuted.append(f"as {_describe(before)}: {mismatch}")
                except Violation as malformed:
                    raise self.violation(str(malformed)) from None
        if not after_states:
            raise self.violation("\n".join(refuted))
        self.states = _distinct(after_states)
        self.newest = max(self.newest, *(state.created_at or 0 for state in after_states if state is not None), 0)

    def take_no_response(self, operation: Operation, start: int, how: str, *, uncertain: bool) -> None:
        """An operation got no response. If that is `uncertain`, it may have happened since `start`, or may still happen."""
        self._remember(operation.request, how)
        if uncertain:
            span = Span.until_settled(start)
            self.may_be(after for before in self.possible(span) for _, after in operation.outcomes(before, span))

    def may_be(self, states: Iterable[Possible]) -> None:
        """It may be in one of `states` too, which is indeterminate from now on."""
        self.states = _distinct([*self.states, *states])
        self.indeterminate_since = time.monotonic()

    def take_user_deletion(self, what: str, *, certain: bool) -> None:
        """It was deleted with its user, or may have been."""
        self._history.append(what)
        if certain:
            self.states = [None]
        else:
            self.may_be([None])

    def from_list(self, row: Row | None, span: Span) -> Possible:
        """The state that a complete list within `span` gives; `row` is None if the session is not in it.

        Raises:
            Violation: no possible state explains it.
        """
        refuted: list[str] = []
        for state in self.possible(span):
            if state is None or row is None:
                if state is None and row is None:
                    return None
                refuted.append(f"as {_describe(state)}: it should {'not ' * (state is None)}exist")
                continue
            try:
                return state.seen(row)
            except Mismatch as mismatch:
                refuted.append(f"as {_describe(state)}: {mismatch}")
        raise self.violation("\n".join(["in a list", *refuted]))

    def violation(self, what: str) -> Violation:
        """An error with the last requests to this session."""
        history = "\n".join(f"  {line}" for line in self._history)
        return Violation(f"session {self.id}\n{what}\nthe last requests to it:\n{history}")

    def _remember(self, request: Request, result: str) -> None:
        self._history.append(f"{time.strftime('%H:%M:%S')} {request} → {result}")


def _distinct(states: Iterable[Possible]) -> list[Possible]:
    distinct: list[Possible] = []
    for state in states:
        if state not in distinct:
            distinct.append(state)
    return distinct


def _describe(state: Possible) -> str:
    return "no session" if state is None else f"revision {state.revision}"


# What responses tell.


def shows_session(response: Response, state: State) -> State:
    """A whole session, or 304 for one that has not changed."""
    seen = state if response.status == 304 else state.seen(data(response, Row))
    expect("ETag", response.etag, seen.etag)
    return seen


def shows_configs(response: Response, state: State) -> State:
    """All configs after a PATCH."""
    expect("configs", bytes(data(response, Configs).configs), state.configs)
    expect("ETag", response.etag, state.etag)
    return state


def shows_nothing(response: Response, state: State) -> State:
    """An ETag and no data."""
    data(response, NoneType)
    expect("ETag", response.etag, state.etag)
    return state
