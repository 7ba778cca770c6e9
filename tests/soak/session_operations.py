"""The operations on a client's own sessions."""

from collections.abc import Iterable
from dataclasses import replace

from tests.soak import operations, values
from tests.soak.client import Client, Unavailable
from tests.soak.context import DEFAULT_TTLS, SHORT_TTL
from tests.soak.sessions import Session
from tests.soak.states import Span, State, lifetime, now
from tests.support.responses import Copied, data

#: Sessions of a client: from here on it deletes where it would create, so that the memory of processes should stay flat.
MAX_SESSIONS = 60
#: Deleted sessions that a client still requests sometimes.
MAX_DELETED = 10
#: Lifetimes that a write asks for (see `operations`), and how often.
TTLS = (None, 0, SHORT_TTL, 3600), (80, 5, 10, 5)


class SessionOperations:
    """One client's. Each raises Unavailable where there is no response, and Violation where it is wrong."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._random = client.random

    async def create(self) -> None:
        """POST, with an id of the client or one that the server makes."""
        client, random = self._client, self._random
        if len(client.living()) >= MAX_SESSIONS:
            await self.delete()
            return
        certain = [name for name in client.own_ids if client.sessions[name].indeterminate_since is None]
        session = client.sessions[random.choice(certain)] if certain and random.random() < 0.6 else Session("")
        configs = None if random.random() < 0.1 else self._configs()
        user, ttl, mark = self._user(), self._ttl(), client.context.defaults.mark
        body, new = operations.creation(session.id, configs, user, tracking=random.random() < 0.3, ttl=ttl)
        operation = operations.create(session, body, new, lambda: client.context.defaults.since(mark) if ttl is None else [ttl])
        # Done later, it meets whatever default there is then.
        late = operations.create(session, body, new, lambda: DEFAULT_TTLS if ttl is None else [ttl])
        try:
            response = await client.do(session, operation, late)
        except Unavailable as error:
            self._user_may_be_named(user, error)
            if session.indeterminate_since is not None and not session.id:
                client.orphans.append(session)
            raise
        if response.status == 201:
            self._user_named(user)
            self._adopt(session)

    async def copy(self) -> None:
        """POST of a copy."""
        client, source = self._client, self._pick()
        if source is None or len(client.living()) >= MAX_SESSIONS or not self._is_certain(source):
            return
        operation, start, mark = operations.copy(source), now(), client.context.defaults.mark
        user = next((state.user for state in source.states if state), None)
        try:
            response, span = await client.send(operation.request, writes=True)
        except Unavailable as error:
            self._user_may_be_named(user, error)
            if error.uncertain:
                orphan = Session("")
                orphan.may_be(_copies(source, Span.until_settled(start), DEFAULT_TTLS))
                client.orphans.append(orphan)
            raise
        source.take_response(operation, response, span)
        if response.status == 200:
            self._user_named(user)
            new = Session(data(response, Copied).new_session_id)
            created_at = int(response.etag.partition("-")[0])
            new.states = [
                replace(state, id=new.id, created_at=created_at, updated_at=created_at)
                for state in _copies(source, span, client.context.defaults.since(mark))
            ]
            self._adopt(new)

    async def put(self) -> None:
        """PUT, sometimes with If-Match."""
        session = self._pick()
        if session is not None:
            await self._client.do(
                session, operations.put(session, self._configs(), if_match=self._etag(session, 0.15), ttl=self._ttl())
            )

    async def patch(self) -> None:
        """PATCH, sometimes with If-Match."""
        session = self._pick()
        if session is None:
            return
        current = next((state.values for state in session.states if state), None)
        new_configs = values.changes(self._random, next(self._client.marks), current or {})
        changes = values.written(new_configs, self._random)
        await self._client.do(session, operations.patch(session, changes, if_match=self._etag(session, 0.15), ttl=self._ttl()))

    async def read(self) -> None:
        """GET, sometimes with If-None-Match."""
        session = self._pick()
        if session is not None:
            path = self._random.choice(("", "/configs"))
            await self._client.do(session, operations.read(session, path=path, none_match=self._etag(session, 0.3)))

    async def delete(self) -> None:
        """DELETE, sometimes with If-Match."""
        session = self._pick()
        if session is not None:
            await self._client.do(session, operations.delete(session, if_match=self._etag(session, 0.15)))
            self._forget_deleted()

    async def settle(self) -> None:
        """GET of a session indeterminate, once that can tell what became of it."""
        indeterminate = self._client.indeterminate()
        if indeterminate:
            session = self._random.choice(indeterminate)
            await self._client.do(session, operations.read(session))
            session.indeterminate_since = None

    def _pick(self) -> Session | None:
        """A session in a determined state, most likely one that exists."""
        living = self._client.living()
        if not living or self._random.random() < 0.07:
            living = [session for session in self._client.sessions.values() if session.indeterminate_since is None]
        return self._random.choice(living) if living else None

    def _etag(self, session: Session, chance: float) -> str:
        """What a condition names: mostly nothing, else the session's ETag, another, or any."""
        if self._random.random() > chance:
            return ""
        right = next((state.etag for state in session.states if state), "1-1")
        return self._random.choice((right, right, right, "*", f"{right}1", f"1{right}"))

    def _ttl(self) -> int | None:
        return self._random.choices(*TTLS)[0]

    def _configs(self) -> operations.Spelled:
        return values.written(values.configs(self._random, next(self._client.marks)), self._random)

    def _user(self) -> str | None:
        certain = [user.name for user in self._client.users.values() if user.indeterminate_since is None]
        return self._random.choice([None, *certain])

    def _is_certain(self, source: Session) -> bool:
        """Whether nothing indeterminate concerns the user of a session."""
        names = {state.user for state in source.states if state and state.user}
        return all(self._client.users[name].indeterminate_since is None for name in names)

    def _user_named(self, user: str | None) -> None:
        """A new session has named a user."""
        if user is not None:
            self._client.users[user].set_exists(exists=True)

    def _user_may_be_named(self, user: str | None, error: Unavailable) -> None:
        """A request without a response may have registered a user, even if it created no session."""
        if user is not None and (error.uncertain or error.how == "503"):
            self._client.users[user].may_exist(exists=True)

    def _adopt(self, session: Session) -> None:
        """Own a session that was created."""
        session.id = next(state.id for state in session.states if state)
        self._client.sessions[session.id] = session

    def _forget_deleted(self) -> None:
        """Forget deleted sessions whose ids the server made: no create uses these ids again."""
        sessions, own_ids, span = self._client.sessions, self._client.own_ids, Span(now(), now())
        deleted = [
            name for name, each in sessions.items()
            if each.indeterminate_since is None and each.most_likely(span) is None and name not in own_ids
        ]  # fmt: skip
        for name in deleted[:-MAX_DELETED]:
            del sessions[name]


def _copies(source: Session, span: Span, ttls: Iterable[int]) -> list[State]:
    """What a copy of `source` may be."""
    return [
        State("", state.values, state.user, state.tracking, expires=lifetime(ttl, span))
        for state in source.states if state for ttl in ttls
    ]  # fmt: skip
