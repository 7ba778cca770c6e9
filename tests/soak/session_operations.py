"""The operations on a client's own sessions."""

from collections.abc import Iterable
from dataclasses import replace

from tests.soak import deeds, values
from tests.soak.answers import Copied, data
from tests.soak.client import Client
from tests.soak.sessions import Session
from tests.soak.states import Span, State, lifetime, now
from tests.soak.wire import Unavailable
from tests.soak.world import DEFAULT_TTLS, SHORT_TTL

#: Sessions of a client: from here on it deletes where it would create, so that memory can be judged.
MOST = 60
#: Sessions that are gone for good, and that a client still asks for now and then.
GONE = 10
#: Lifetimes that a write asks for (see `deeds`), and how often.
TTLS = (None, 0, SHORT_TTL, 3600), (80, 5, 10, 5)


class SessionOperations:
    """One client's. Each raises Unavailable where there is no answer, and Difference where it is wrong."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._random = client.random

    async def create(self) -> None:
        """POST, with an id of our own or one that the server makes."""
        client, random = self._client, self._random
        if len(client.living()) >= MOST:
            await self.delete()
            return
        certain = [name for name in client.own_ids if client.sessions[name].doubted is None]
        session = client.sessions[random.choice(certain)] if certain and random.random() < 0.6 else Session("")
        configs = None if random.random() < 0.1 else self._configs()
        user, ttl, mark = self._user(), self._ttl(), client.world.defaults.mark
        body, new = deeds.creation(session.id, configs, user, tracking=random.random() < 0.3, ttl=ttl)
        deed = deeds.create(session, body, new, lambda: client.world.defaults.since(mark) if ttl is None else [ttl])
        # Done later, it meets whatever default there is then.
        late = deeds.create(session, body, new, lambda: DEFAULT_TTLS if ttl is None else [ttl])
        try:
            answer = await client.do(session, deed, late)
        except Unavailable as missing:
            self._may_name(user, missing)
            if session.doubted is not None and not session.id:
                client.strays.append(session)
            raise
        if answer.status == 201:
            self._name(user)
            self._take_in(session)

    async def copy(self) -> None:
        """POST of a copy."""
        client, source = self._client, self._one()
        if source is None or len(client.living()) >= MOST or not self._is_certain(source):
            return
        deed, start, mark = deeds.copy(source), now(), client.world.defaults.mark
        user = next((state.user for state in source.states if state), None)
        try:
            answer, span = await client.ask(deed.request, writes=True)
        except Unavailable as missing:
            self._may_name(user, missing)
            if missing.uncertain:
                stray = Session("")
                stray.may_be(_copies(source, Span.open(start), DEFAULT_TTLS))
                client.strays.append(stray)
            raise
        source.answered(deed, answer, span)
        if answer.status == 200:
            self._name(user)
            new = Session(data(answer, Copied).new_session_id)
            created_at = int(answer.etag.partition("-")[0])
            new.states = [
                replace(state, id=new.id, created_at=created_at, updated_at=created_at)
                for state in _copies(source, span, client.world.defaults.since(mark))
            ]
            self._take_in(new)

    async def put(self) -> None:
        """PUT, now and then with If-Match."""
        session = self._one()
        if session is not None:
            await self._client.do(
                session, deeds.put(session, self._configs(), if_match=self._etag(session, 0.15), ttl=self._ttl())
            )

    async def patch(self) -> None:
        """PATCH, now and then with If-Match."""
        session = self._one()
        if session is None:
            return
        there = next((state.values for state in session.states if state), None)
        made = values.changes(self._random, next(self._client.marks), there or {})
        changes = values.written(made, self._random)
        await self._client.do(session, deeds.patch(session, changes, if_match=self._etag(session, 0.15), ttl=self._ttl()))

    async def read(self) -> None:
        """GET, now and then with If-None-Match."""
        session = self._one()
        if session is not None:
            path = self._random.choice(("", "/configs"))
            await self._client.do(session, deeds.read(session, path=path, none_match=self._etag(session, 0.3)))

    async def delete(self) -> None:
        """DELETE, now and then with If-Match."""
        session = self._one()
        if session is not None:
            await self._client.do(session, deeds.delete(session, if_match=self._etag(session, 0.15)))
            self._forget_some()

    async def settle(self) -> None:
        """GET of a session in doubt, once that can tell what became of it."""
        doubts = self._client.doubts()
        if doubts:
            session = self._random.choice(doubts)
            await self._client.do(session, deeds.read(session))
            session.doubted = None

    def _one(self) -> Session | None:
        """A session that is not in doubt, most likely one that is there."""
        living = self._client.living()
        if not living or self._random.random() < 0.07:
            living = [session for session in self._client.sessions.values() if session.doubted is None]
        return self._random.choice(living) if living else None

    def _etag(self, session: Session, chance: float) -> str:
        """What a condition names: mostly nothing, else the session's ETag, another, or any."""
        if self._random.random() > chance:
            return ""
        right = next((state.etag for state in session.states if state), "1-1")
        return self._random.choice((right, right, right, "*", f"{right}1", f"1{right}"))

    def _ttl(self) -> int | None:
        return self._random.choices(*TTLS)[0]

    def _configs(self) -> deeds.Written:
        return values.written(values.configs(self._random, next(self._client.marks)), self._random)

    def _user(self) -> str | None:
        certain = [user.name for user in self._client.users.values() if user.doubted is None]
        return self._random.choice([None, *certain])

    def _is_certain(self, source: Session) -> bool:
        """Whether nothing in doubt concerns the user of a session."""
        names = {state.user for state in source.states if state and state.user}
        return all(self._client.users[name].doubted is None for name in names)

    def _name(self, user: str | None) -> None:
        """A new session has named a user."""
        if user is not None:
            self._client.users[user].is_now(known=True)

    def _may_name(self, user: str | None, missing: Unavailable) -> None:
        """A request without an answer may have made a user known, even where it surely made no session."""
        if user is not None and (missing.uncertain or missing.how == "503"):
            self._client.users[user].may_be(known=True)

    def _take_in(self, session: Session) -> None:
        """Own a session that was created."""
        session.id = next(state.id for state in session.states if state)
        self._client.sessions[session.id] = session

    def _forget_some(self) -> None:
        """Sessions whose ids the server made never come again."""
        sessions, own_ids, span = self._client.sessions, self._client.own_ids, Span(now(), now())
        gone = [
            name for name, each in sessions.items()
            if each.doubted is None and each.known(span) is None and name not in own_ids
        ]  # fmt: skip
        for name in gone[:-GONE]:
            del sessions[name]


def _copies(source: Session, span: Span, ttls: Iterable[int]) -> list[State]:
    """What a copy of `source` may be."""
    return [
        State("", state.values, state.user, state.tracking, dies=lifetime(ttl, span))
        for state in source.states if state for ttl in ttls
    ]  # fmt: skip
