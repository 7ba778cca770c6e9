"""Lists of sessions: asked for page by page to the end, and held against the model, which looks at every session."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from random import Random
from urllib.parse import quote_plus, urlencode

from service.configs.containment import contains, exact
from tests.soak import values
from tests.soak.answers import Page, Row, data
from tests.soak.client import Client
from tests.soak.differences import Difference
from tests.soak.sessions import Session
from tests.soak.states import Mismatch, Span, State, microseconds, now
from tests.soak.wire import Request

#: Bytes of a filter in the request line, which has 8 KiB.
LONGEST = 6000


@dataclass(frozen=True)
class Query:
    """What is asked for. `filter` is spelled in some way; None for none."""

    user: str | None
    filter: str | None
    descending: bool
    limit: int

    @classmethod
    def choose(cls, random: Random, users: Iterable[str], sessions: list[Session]) -> "Query":
        """Any, with a filter that most likely finds some of `sessions`."""
        some = [state for session in random.sample(sessions, min(3, len(sessions))) for state in session.states if state]
        wanted = None
        if random.random() < 0.75:
            text = values.spelled(values.wanted(random, (some[0].values if some else None) or {}), random)
            wanted = text if len(quote_plus(text)) < LONGEST else None
        user = random.choice([*users]) if random.random() < 0.4 else None
        # Not too many pages.
        limits = (1, 3, 20, 200) if user or (wanted and random.random() < 0.3) else (50, 200)
        return cls(user, wanted, random.random() < 0.5, random.choice(limits))

    def path(self, cursor: str | None) -> str:
        """Path and query of a page."""
        said: dict[str, str] = {"limit": str(self.limit)}
        if self.user is not None:
            said["user"] = self.user
        if self.filter is not None:
            said["filter_by_configs"] = self.filter
        if self.descending:
            said["time_desc"] = "true"
        if cursor:
            said["cursor"] = cursor
        return f"/session?{urlencode(said)}"

    def finds(self, state: State) -> bool:
        """Whether a session in this state is one of them."""
        return (self.user is None or state.user == self.user) and self.holds(state.exact)

    def holds(self, configs: object) -> bool:
        """Whether the filter finds these configs, which have exact numbers."""
        return self._wanted == {} or contains(configs, self._wanted)

    @cached_property
    def _wanted(self) -> object:
        return {} if self.filter is None else exact(self.filter.encode())


async def walk(client: Client, query: Query) -> tuple[list[Row], Span]:
    """All rows of a list, and the time within which they were read.

    Raises:
        Unavailable: a page got no answer.
        Difference: the pages are not as they must be, whatever is in them.
    """
    rows: list[Row] = []
    cursor, start = None, now()
    while True:
        answer, _ = await client.ask(Request("GET", query.path(cursor)))
        page = data(answer, Page)
        rows += page.items
        full = len(page.items) == query.limit
        if len(page.items) > query.limit or (page.has_more and not full) or page.has_more != (page.next_cursor is not None):
            raise Difference(f"{query} has a page of {len(page.items)} and says {page.has_more}, {page.next_cursor}")
        if not page.has_more:
            break
        cursor = page.next_cursor
    order = [(microseconds(row.created_at), row.id) for row in rows]
    if any((one >= other) is not query.descending or one == other for one, other in pairwise(order)):
        raise Difference(f"{query} is out of order, or shows a session twice:\n{order}")
    return rows, Span(start, now())


def hold_to_model(
    query: Query, rows: Iterable[Row], span: Span, sessions: Iterable[Session], strays: Iterable[Session]
) -> None:
    """Hold the rows of a list to what is known of a client's sessions; the others only to the query.

    Raises:
        Difference: a session is missing, shown though it should not be, or not shown as it is.
    """
    shown = {row.id: row for row in rows}
    for session in sessions:
        row = shown.pop(session.id, None)
        states = session.possible(span)
        found = [state for state in states if state is not None and query.finds(state)]
        if row is None:
            if len(found) == len(states):
                raise session.difference(f"is missing in {query}")
        elif not any(fits(state, row) for state in found):
            raise session.difference(f"should not be so in {query}: {row}, but {found}")
    # A user's sessions are one client's, so the others can only be its strays.
    free = [*strays]
    for row in shown.values():
        if query.user is not None:
            known = next((each for each in free if any(state and fits(state, row) for state in each.states)), None)
            if known is None:
                raise Difference(f"{query} shows a session that nobody created: {row}")
            free.remove(known)
        if not query.holds(exact(bytes(row.configs))):
            raise Difference(f"{query} shows a session that does not contain it: {row}")


def fits(state: State, row: Row) -> bool:
    """Whether a row shows this state."""
    try:
        state.seen(row)
    except Mismatch:
        return False
    return True
