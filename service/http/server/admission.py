"""Admission control: which requests a worker processes, which wait for a slot, and which it refuses.

More concurrent requests make each of them slower. Replies of Redis then wait in the socket until they count as timed out, and
an overloaded worker would throw away all of its work. So beyond `CONCURRENCY` requests wait before they have cost anything, and
beyond `max_in_flight` the worker refuses them.

No project can starve the others. Requests are queued by project, and projects take turns: round robin over projects, first in
first out within each. Invariants:

- A slot is free only while no request waits.
- While others wait, a project gets no slot beyond half of them. Alone it may have all.
- At `max_in_flight`, a project with more than half of the requests makes room for the other projects: the newest of its waiting
  requests is refused.
- Every step takes constant time, and only requests in flight take memory.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.errors import Overloaded

#: Requests that a worker processes concurrently.
CONCURRENCY = 64
#: Stands for the route of a request that has none, or was refused before it was looked up.
NO_ROUTE = "none"


class Ticket:
    """One request of `project`. Requests whose API key the worker has not cached yet share the project "".

    Once they are known, `route` is the path of its route in the table, and `subject` what that path's `{name}` stands for, or
    the id of the session that was created.
    """

    __slots__ = ("is_active", "project", "route", "subject")

    def __init__(self, project: str) -> None:
        self.project = project
        self.route = NO_ROUTE
        self.subject = ""
        #: Whether the request has a slot.
        self.is_active = False


class AdmissionControl:
    """The slots of one worker. A request that waits for the rest of its body has no slot and does not count."""

    __slots__ = ("_active", "_admitted", "_free", "_fullest", "_half", "_max_in_flight", "_waiting", "in_flight")

    def __init__(self, max_in_flight: int) -> None:
        #: Requests without a response yet, whatever they wait for; the dispatch counts them.
        self.in_flight = 0
        self._max_in_flight = max_in_flight
        # At least a quarter of the requests must wait: only waiting requests can make room for another project.
        self._free = max(1, min(CONCURRENCY, max_in_flight * 3 // 4))
        self._half = (self._free + 1) // 2
        self._active: dict[str, int] = {}
        #: The waiting requests of each project, oldest first; projects in the order of their turns. True grants a slot.
        self._waiting: OrderedDict[str, OrderedDict[asyncio.Future[bool], None]] = OrderedDict()
        self._admitted = 0  # active and waiting
        #: The only project that can have more than half of `max_in_flight`, and waiting requests.
        self._fullest = ""

    @property
    def is_overloaded(self) -> bool:
        """Whether the number of requests has reached its limit."""
        return self._admitted >= self._max_in_flight

    def make_room(self, project: str) -> bool:
        """Whether a request of `project` may enter; a waiting request of a project that has too many is refused for it."""
        if not self.is_overloaded:
            return True
        other = self._fullest
        queue = self._waiting.get(other)
        # A key that is not in the cache may be invalid: no request is refused for it.
        if project in ("", other) or queue is None or self._count(other) <= self._max_in_flight // 2:
            return False
        newest = next(reversed(queue))
        self._remove(other, newest)
        if not newest.done():
            newest.set_result(False)
        return True

    def acquire(self, ticket: Ticket) -> bool:
        """Take a slot; False where none is free, and the request has to `wait`."""
        if not self._free:
            return False
        self._admitted += 1
        ticket.is_active = True
        self._occupy(ticket.project)
        return True

    async def wait(self, ticket: Ticket) -> None:
        """Wait until the request has a slot.

        Raises:
            Overloaded: the request was refused to make room for another project.
        """
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(ticket.project, OrderedDict())[turn] = None
        self._admitted += 1
        if self._count(ticket.project) > self._max_in_flight // 2:
            self._fullest = ticket.project
        try:
            granted = await turn
        except asyncio.CancelledError:
            self._cancel(ticket, turn)
            raise
        if not granted:
            raise Overloaded
        ticket.is_active = True

    def release(self, ticket: Ticket) -> None:
        """Release the request's slot, if it has one, to the next waiting request."""
        if ticket.is_active:
            ticket.is_active = False
            self._vacate(ticket.project)

    @asynccontextmanager
    async def receiving(self, ticket: Ticket) -> AsyncIterator[None]:
        """Release the slot while a body is received, and take one again afterwards.

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

    def _occupy(self, project: str) -> None:
        self._free -= 1
        self._active[project] = self._active.get(project, 0) + 1

    def _vacate(self, project: str) -> None:
        self._free += 1
        self._admitted -= 1
        active = self._active.pop(project) - 1
        if active:
            self._active[project] = active
        if self._waiting:
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
        """The project whose turn it is. One that has half of the slots is skipped while another project waits.

        No two projects have half of the slots while one is free: if the first is skipped, the second need not be.
        """
        turns = iter(self._waiting)
        first = next(turns)
        return first if self._active.get(first, 0) < self._half else next(turns, first)

    def _cancel(self, ticket: Ticket, turn: asyncio.Future[bool]) -> None:
        """The request was cancelled while it waited, or after it was granted a slot and before it ran."""
        if turn in self._waiting.get(ticket.project, ()):
            self._remove(ticket.project, turn)
        elif not turn.cancelled() and turn.result():
            self._vacate(ticket.project)

    def _remove(self, project: str, turn: asyncio.Future[bool]) -> None:
        queue = self._waiting[project]
        del queue[turn]
        self._admitted -= 1
        if not queue:
            del self._waiting[project]
