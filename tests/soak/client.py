"""One client of a soak: the sessions and users that it alone changes, and its connection to the server."""

import asyncio
import itertools
import time
from random import Random
from uuid import UUID

from tests.soak.context import Context
from tests.soak.ownership import UserModel
from tests.soak.sessions import Operation, Session
from tests.soak.states import Span, now
from tests.support import http_client
from tests.support.http_client import ConnectionLost, NotSent, Request, Response, Violation

#: Ids that a client asks for when it creates sessions; each is used again and again.
OWN_IDS = 40
USERS = ("alice@example.com", "b/o?b %2F", "кот 😀")

#: Seconds before a read is sent again.
RETRY_PAUSE = 0.5
#: Requests on one connection, on average: then another one is opened, which may lead to another worker.
REQUESTS_PER_CONNECTION = 30

#: How a request is abandoned: before all of it is sent, or before its response is read.
HALF_SENT, NOT_READ = "half sent", "response not read"


class Unavailable(Exception):
    """There is no response, or a 503. `uncertain`: a write may have happened, or may still happen."""

    def __init__(self, how: str, *, uncertain: bool) -> None:
        self.how = how
        self.uncertain = uncertain
        super().__init__(how)


class Client:
    """One client. Its sessions and users belong to it alone."""

    def __init__(self, number: int, context: Context, seed: int) -> None:
        self.number = number
        self.context = context
        self.random = Random(f"{seed} {number}")
        #: Numbers that no other client has, each once.
        self.marks = itertools.count(number * 10_000_000)
        self._connection = http_client.Client(context.origin, context.api_key)
        self.own_ids = [str(UUID(int=self.random.getrandbits(128), version=4)) for _ in range(OWN_IDS)]
        self.sessions = {session_id: Session(session_id) for session_id in self.own_ids}
        #: Sessions that may exist, under ids that no response named.
        self.orphans: list[Session] = []
        self.users = {name: UserModel(name) for name in (f"c{number} {user}" for user in USERS)}
        #: How the next write is to be abandoned.
        self.abandon_next: str | None = None
        self.requests = 0
        #: How often a read is sent again that gets no response.
        self.read_retries = 0

    async def send(self, request: Request, *, writes: bool = False) -> tuple[Response, Span]:
        """The response to a request, which is no 5xx, and the time within which the server handled it.

        Raises:
            Unavailable: there is none, or it is a 503.
            Violation: it cannot be right.
        """
        for _ in range(0 if writes else self.read_retries):
            try:
                return await self._send_once(request, writes)
            except Unavailable:
                await asyncio.sleep(RETRY_PAUSE)
        return await self._send_once(request, writes)

    async def _send_once(self, request: Request, writes: bool) -> tuple[Response, Span]:
        self.requests += 1
        context, start, started = self.context, now(), time.monotonic()
        is_clear = context.fault_windows.is_clear
        try:
            if writes and self.abandon_next:
                await self._abandon(request, self.abandon_next)
            return await self._exchange(request), Span(start, now())
        except Unavailable as error:
            is_clear = is_clear and context.fault_windows.is_clear
            context.stats.count_unanswered(error.how, uncertain=error.uncertain and writes, is_clear=is_clear)
            if error.uncertain and error.how == "503" and not writes:
                raise Violation(f"{request} writes nothing, but its response says that a write may have happened") from None
            raise
        finally:
            is_clear = is_clear and context.fault_windows.is_clear
            context.stats.count_time(time.monotonic() - started, f"{request.method} {request.path[:60]}", is_clear=is_clear)

    async def _exchange(self, request: Request) -> Response:
        if self.random.random() < 1 / REQUESTS_PER_CONNECTION:
            self._connection.close()
        try:
            response = await self._connection.send(request)
        except NotSent as error:
            raise Unavailable("no connection", uncertain=False) from error
        except ConnectionLost as error:
            raise Unavailable("cut", uncertain=True) from error
        if response.is_unavailable:
            raise Unavailable("503", uncertain=response.is_uncertain)
        return response

    async def _abandon(self, request: Request, how: str) -> None:
        self.abandon_next = None
        await self._connection.abandon(request, whole=how == NOT_READ, reset=self.random.random() < 0.5)
        raise Unavailable(how, uncertain=how == NOT_READ)

    async def do(self, session: Session, operation: Operation, late: Operation | None = None) -> Response:
        """Run an operation and update the model; `late` is the operation as it is when it happens later, if that differs.

        Raises:
            Unavailable: as `send`; the model has every state that is possible now.
            Violation: the response is wrong.
        """
        start = now()
        try:
            response, span = await self.send(operation.request, writes=operation.writes)
        except Unavailable as error:
            session.take_no_response(late or operation, start, error.how, uncertain=operation.writes and error.uncertain)
            raise
        session.take_response(operation, response, span)
        return response

    def living(self) -> list[Session]:
        """The sessions that most likely exist; none that is indeterminate."""
        span = Span(now(), now())
        return [
            each for each in self.sessions.values() if each.indeterminate_since is None and each.most_likely(span) is not None
        ]

    def indeterminate(self) -> list[Session]:
        """The indeterminate sessions whose state a read can now determine."""
        has_settled = self.context.fault_windows.has_settled
        return [
            each
            for each in self.sessions.values()
            if each.indeterminate_since is not None and has_settled(each.indeterminate_since)
        ]

    def of_user(self, user: str) -> list[Session]:
        """The sessions that may be a user's, orphans included."""
        sessions = [*self.sessions.values(), *self.orphans]
        return [each for each in sessions if any(state and state.user == user for state in each.states)]
