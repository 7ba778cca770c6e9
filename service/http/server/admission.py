"""Admission control: which requests a worker works at, which wait for a place, and which it refuses.

Work at too many requests at a time takes as long for each, and Redis's replies wait behind it until they count as late: what
was done is lost, and under load the worker would do nothing else. So beyond `CONCURRENCY` requests wait before they have cost
anything, and beyond `max_in_flight` the worker refuses.

No project can keep the others out. Requests wait by project, and projects take turns: round robin over them, first in first out
within each. Invariants:

- A place is free only while nobody waits.
- While others wait, a project gets no place beyond half of them. On its own it may have all.
- Where `max_in_flight` is reached, a project that has more than half of it makes room for the other projects: the newest of its
  requests that wait is refused.
- Every step takes constant time, and only what is in flight is remembered.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.errors import Overloaded

#: Requests that a worker works at.
CONCURRENCY = 64


class Ticket:
    """One request. `project` names whose it is; all whose key the worker does not know yet count as one project, ""."""

    __slots__ = ("is_active", "project")

    def __init__(self, project: str) -> None:
        self.project = project
        #: Whether it has a place.
        self.is_active = False


class AdmissionControl:
    """The places of one worker. Requests that wait for the rest of their bodies do no work, and count for nothing here."""

    __slots__ = ("_active", "_admitted", "_free", "_fullest", "_half", "_max_in_flight", "_waiting", "in_flight")

    def __init__(self, max_in_flight: int) -> None:
        #: Requests without an answer as yet, whatever they wait for; the dispatch counts them.
        self.in_flight = 0
        self._max_in_flight = max_in_flight
        # At least a quarter of the requests wait: only those can make room for another project.
        self._free = max(1, min(CONCURRENCY, max_in_flight * 3 // 4))
        self._half = (self._free + 1) // 2
        self._active: dict[str, int] = {}
        #: What each project waits for, the oldest first; the projects in the order of their turns. True grants a place.
        self._waiting: OrderedDict[str, OrderedDict[asyncio.Future[bool], None]] = OrderedDict()
        self._admitted = 0  # active and waiting
        #: The only project that can have more than half of `max_in_flight`, and requests that wait.
        self._fullest = ""

    @property
    def is_overloaded(self) -> bool:
        """Whether there are as many requests as there may be."""
        return self._admitted >= self._max_in_flight

    def make_room(self, project: str) -> bool:
        """Whether a request of `project` may come in; where it is others' turn to make room, one of theirs is refused."""
        if not self.is_overloaded:
            return True
        other = self._fullest
        queue = self._waiting.get(other)
        # Nobody makes room for a key that may be anybody's.
        if project in ("", other) or queue is None or self._count(other) <= self._max_in_flight // 2:
            return False
        newest = next(reversed(queue))
        self._remove(other, newest)
        if not newest.done():
            newest.set_result(False)
        return True

    def acquire(self, ticket: Ticket) -> bool:
        """Take a place; False where there is none, and the request has to `wait`."""
        if not self._free:
            return False
        self._admitted += 1
        self._activate(ticket)
        return True

    async def wait(self, ticket: Ticket) -> None:
        """Wait until the request has a place.

        Raises:
            Overloaded: it has to make room for another project.
        """
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(ticket.project, OrderedDict())[turn] = None
        self._admitted += 1
        if self._count(ticket.project) > self._max_in_flight // 2:
            self._fullest = ticket.project
        try:
            granted = await turn
        except asyncio.CancelledError:
            self._give_up(ticket, turn)
            raise
        if not granted:
            raise Overloaded
        ticket.is_active = True

    def release(self, ticket: Ticket) -> None:
        """Leave the place, if the request has one, to those who wait."""
        if ticket.is_active:
            ticket.is_active = False
            self._leave(ticket.project)

    @asynccontextmanager
    async def receiving(self, ticket: Ticket) -> AsyncIterator[None]:
        """While a body comes: the place is left to others.

        Raises:
            Overloaded: as `wait`.
        """
        self.release(ticket)
        try:
            yield
        finally:
            if not self.acquire(ticket):
                await self.wait(ticket)

    def _count(self, project: str) -> int:
        return self._active.get(project, 0) + len(self._waiting.get(project, ()))

    def _activate(self, ticket: Ticket) -> None:
        ticket.is_active = True
        self._occupy(ticket.project)

    def _occupy(self, project: str) -> None:
        self._free -= 1
        self._active[project] = self._active.get(project, 0) + 1

    def _leave(self, project: str) -> None:
        self._free += 1
        self._admitted -= 1
        active = self._active.pop(project) - 1
        if active:
            self._active[project] = active
        self._grant()

    def _grant(self) -> None:
        while self._free and self._waiting:
            project = self._next_project()
            turn = next(iter(self._waiting[project]))
            self._remove(project, turn)
            if turn.done():
                continue  # cancelled
            if project in self._waiting:
                self._waiting.move_to_end(project)
            self._admitted += 1
            self._occupy(project)
            turn.set_result(True)

    def _next_project(self) -> str:
        """The project whose turn it is; one that has its half of the places only where no other waits.

        No two projects have their half while a place is free, so the second is good where the first is not.
        """
        turns = iter(self._waiting)
        first = next(turns)
        return first if self._active.get(first, 0) < self._half else next(turns, first)

    def _give_up(self, ticket: Ticket, turn: asyncio.Future[bool]) -> None:
        """The request was cancelled while it waited, or just when it had got its place."""
        if turn in self._waiting.get(ticket.project, ()):
            self._remove(ticket.project, turn)
        elif not turn.cancelled() and turn.result():
            self._leave(ticket.project)

    def _remove(self, project: str, turn: asyncio.Future[bool]) -> None:
        queue = self._waiting[project]
        del queue[turn]
        self._admitted -= 1
        if not queue:
            del self._waiting[project]
