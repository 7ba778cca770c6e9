"""What one client owns, and its way to the server: it knows after every answer what must hold."""

import asyncio
import itertools
import time
from random import Random
from uuid import UUID

from tests.soak.differences import Difference
from tests.soak.owned import OwnUser
from tests.soak.sessions import Deed, Session
from tests.soak.states import Span, now
from tests.soak.wire import Request, Response, Unavailable, Wire
from tests.soak.world import World

#: Ids that a client asks for when it creates; they come again and again.
OWN_IDS = 40
USERS = ("alice@example.com", "b/o?b %2F", "кот 😀")

#: Seconds before a read is sent again.
PAUSE = 0.5

HALF, WHOLE = "broken off half way", "not waited for"


class Client:
    """One client. Its sessions and users belong to it alone."""

    def __init__(self, number: int, world: World, seed: int) -> None:
        self.number = number
        self.world = world
        self.random = Random(f"{seed} {number}")
        #: Numbers that no other client has, each once.
        self.marks = itertools.count(number * 10_000_000)
        self.wire = Wire(world.port, world.key, self.random)
        self.own_ids = [str(UUID(int=self.random.getrandbits(128), version=4)) for _ in range(OWN_IDS)]
        self.sessions = {session_id: Session(session_id) for session_id in self.own_ids}
        #: Sessions that may be there under ids that nobody told.
        self.strays: list[Session] = []
        self.users = {name: OwnUser(name) for name in (f"c{number} {user}" for user in USERS)}
        #: How the next write is to be broken off.
        self.break_off: str | None = None
        self.requests = 0
        #: How often a read that gets no answer is sent again.
        self.patience = 0

    async def ask(self, request: Request, *, writes: bool = False) -> tuple[Response, Span]:
        """The answer to a request, and the time within which the server did it.

        Raises:
            Unavailable: there is none.
            Difference: it cannot be right.
        """
        for _ in range(0 if writes else self.patience):
            try:
                return await self._ask(request, writes)
            except Unavailable:
                await asyncio.sleep(PAUSE)
        return await self._ask(request, writes)

    async def _ask(self, request: Request, writes: bool) -> tuple[Response, Span]:
        self.requests += 1
        world, start, started = self.world, now(), time.monotonic()
        fair = world.weather.is_fair
        try:
            if writes and self.break_off:
                await self._break_off(request)
            return await self.wire.ask(request), Span(start, now())
        except Unavailable as missing:
            fair = fair and world.weather.is_fair
            world.tally.count_missing(missing.how, uncertain=missing.uncertain and writes, fair=fair)
            if missing.uncertain and missing.how == "503" and not writes:
                raise Difference(f"{request} writes nothing, and is said to have happened, or not") from None
            raise
        finally:
            fair = fair and world.weather.is_fair
            world.tally.count_time(time.monotonic() - started, f"{request.method} {request.path[:60]}", fair=fair)

    async def _break_off(self, request: Request) -> None:
        how, self.break_off = self.break_off or WHOLE, None
        await self.wire.break_off(request, whole=how == WHOLE)
        raise Unavailable(how, uncertain=how == WHOLE)

    async def do(self, session: Session, deed: Deed, late: Deed | None = None) -> Response:
        """Do a deed, and take in what became of it; `late` is what it is when it happens later, if that is something else.

        Raises:
            Unavailable: as `ask`; the model knows what may be.
            Difference: the answer is wrong.
        """
        start = now()
        try:
            answer, span = await self.ask(deed.request, writes=deed.writes)
        except Unavailable as missing:
            session.unanswered(late or deed, start, missing.how, uncertain=deed.writes and missing.uncertain)
            raise
        session.answered(deed, answer, span)
        return answer

    def living(self) -> list[Session]:
        """The sessions that are there, as far as is known; none in doubt."""
        span = Span(now(), now())
        return [each for each in self.sessions.values() if each.doubted is None and each.known(span) is not None]

    def doubts(self) -> list[Session]:
        """The sessions in doubt of which a read may now tell."""
        has_settled = self.world.weather.has_settled
        return [each for each in self.sessions.values() if each.doubted is not None and has_settled(each.doubted)]

    def of_user(self, user: str) -> list[Session]:
        """The sessions that may be a user's, strays among them."""
        all_of_them = [*self.sessions.values(), *self.strays]
        return [each for each in all_of_them if any(state and state.user == user for state in each.states)]
