"""Lists of sessions: read page by page to the end, and compared with the model, which scans all sessions."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from random import Random
from urllib.parse import quote_plus, urlencode

from service.configs.containment import contains, exact
from tests.soak import values
from tests.soak.client import Client
from tests.soak.sessions import Session
from tests.soak.states import Mismatch, Span, State, microseconds, now
from tests.support.http_client import Request, Violation
from tests.support.responses import Page, Row, data
from tests.support.strategies import spell

#: Bytes of a filter in the request line, which has 8 KiB.
MAX_FILTER_BYTES = 6000


@dataclass(frozen=True)
class Query:
    """The parameters of a list. `filter` is a JSON text in some spelling; None for none."""

    user: str | None
    filter: str | None
    descending: bool
    limit: int

    @classmethod
    def choose(cls, random: Random, users: Iterable[str], sessions: list[Session]) -> "Query":
        """A random query, with a filter that most likely matches some of `sessions`."""
        sample = [state for session in random.sample(sessions, min(3, len(sessions))) for state in session.states if state]
        text = None
        if random.random() < 0.75:
            spelled = spell(values.filter_for(random, (sample[0].values if sample else None) or {}), random)
            text = spelled if len(quote_plus(spelled)) < MAX_FILTER_BYTES else None
        user = random.choice([*users]) if random.random() < 0.4 else None
        # Not too many pages.
        limits = (1, 3, 20, 200) if user or (text and random.random() < 0.3) else (50, 200)
        return cls(user, text, random.random() < 0.5, random.choice(limits))

    def path(self, cursor: str | None) -> str:
        """Path and query of a page."""
        parameters: dict[str, str] = {"limit": str(self.limit)}
        if self.user is not None:
            parameters["user"] = self.user
        if self.filter is not None:
            parameters["filter_by_configs"] = self.filter
        if self.descending:
            parameters["time_desc"] = "true"
        if cursor:
            parameters["cursor"] = cursor
        return f"/session?{urlencode(parameters)}"

    def matches(self, state: State) -> bool:
        """Whether a session in this state is in the list."""
        return (self.user is None or state.user == self.user) and self.filter_matches(state.exact)

    def filter_matches(self, configs: object) -> bool:
        """Whether the filter matches these configs, which have exact numbers."""
        return self._filter_value == {} or contains(configs, self._filter_value)

    @cached_property
    def _filter_value(self) -> object:
        return {} if self.filter is None else exact(self.filter.encode())


async def read_all(client: Client, query: Query) -> tuple[list[Row], Span]:
    """All rows of a list, and the time within which they were read.

    Raises:
        Unavailable: a page got no response.
        Violation: a page has a wrong size or cursor, or rows are out of order.
    """
    rows: list[Row] = []
    cursor, start = None, now()
    while True:
        response, _ = await client.send(Request("GET", query.path(cursor)))
        page = data(response, Page)
        rows += page.items
        full = len(page.items) == query.limit
        if len(page.items) > query.limit or (page.has_more and not full) or page.has_more != (page.next_cursor is not None):
            raise Violation(f"{query} has a page of {len(page.items)} and says {page.has_more}, {page.next_cursor}")
        if not page.has_more:
            break
        cursor = page.next_cursor
    order = [(microseconds(row.created_at), row.id) for row in rows]
    if any((one >= other) is not query.descending or one == other for one, other in pairwise(order)):
        raise Violation(f"{query} is out of order, or has a session twice:\n{order}")
    return rows, Span(start, now())


def check_against_model(
    query: Query, rows: Iterable[Row], span: Span, sessions: Iterable[Session], orphans: Iterable[Session]
) -> None:
    """Compare the rows of a list with a client's sessions, and those of other clients' sessions with the query.

    Raises:
        Violation: a session is missing, is listed and should not be, or is listed in a wrong state.
    """
    rows_by_id = {row.id: row for row in rows}
    for session in sessions:
        row = rows_by_id.pop(session.id, None)
        states = session.possible(span)
        matching = [state for state in states if state is not None and query.matches(state)]
        if row is None:
            if len(matching) == len(states):
                raise session.violation(f"is missing in {query}")
        elif not any(fits(state, row) for state in matching):
            raise session.violation(f"is wrong in {query}: {row}, expected one of {matching}")
    # A user's sessions belong to one client, so the others can only be its orphans.
    unlisted = [*orphans]
    for row in rows_by_id.values():
        if query.user is not None:
            orphan = next((each for each in unlisted if any(state and fits(state, row) for state in each.states)), None)
            if orphan is None:
                raise Violation(f"{query} has a session that nobody created: {row}")
            unlisted.remove(orphan)
        if not query.filter_matches(exact(bytes(row.configs))):
            raise Violation(f"{query} has a session that does not match: {row}")


def fits(state: State, row: Row) -> bool:
    """Whether a row is this state."""
    try:
        state.seen(row)
    except Mismatch:
        return False
    return True
