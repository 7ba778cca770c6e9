"""What all clients write to: a few sessions, and the project's configs. Each client has members of its own in them.

The model does not have such an object as a whole, but these must hold: a client's members are as it left them, nobody
changes the others, each acknowledged write is one revision, and a counter that is incremented under If-Match loses no step.
"""

import time
from uuid import UUID

from msgspec import Raw

from tests.soak import values
from tests.soak.client import Client, Unavailable
from tests.soak.context import DEFAULT_TTLS
from tests.soak.lists import Query, read_all
from tests.soak.ownership import OwnMembers
from tests.soak.values import Json
from tests.support.http_client import Request, Response, Violation
from tests.support.responses import Configs, Row, data, members

SHARED_SESSIONS = 3
#: Members of every shared session that nobody changes, and the one that is incremented.
UNTOUCHED: dict[str, str] = {"shared": "true", "untouched": '{"n": 1.0}'}
COUNTER = "counter"
TTL = "session_ttl"


class CountRange:
    """The minimum and maximum of how often something was done."""

    def __init__(self) -> None:
        self.minimum = self.maximum = 0

    def begin(self) -> int:
        """One more may be done; returns the minimum before."""
        self.maximum += 1
        return self.minimum

    def succeed(self) -> None:
        """It was done."""
        self.minimum += 1

    def fail(self) -> None:
        """It was not done."""
        self.maximum -= 1


class SharedSession:
    """One session that all clients write to."""

    def __init__(self, number: int) -> None:
        self.id = str(UUID(int=number + 1, version=4))
        self.writes, self.increments = CountRange(), CountRange()

    async def create(self, client: Client) -> None:
        """Create it, before any client uses it."""
        configs = ", ".join(f'"{key}": {text}' for key, text in {**UNTOUCHED, COUNTER: "0"}.items())
        body = f'{{"use_uuid": "{self.id}", "configs": {{{configs}}}}}'
        data((await client.send(Request("POST", "/session", body.encode()), writes=True))[0], Row)

    def check(self, actual: dict[str, str], revision: int, minimum: tuple[int, int]) -> None:
        """Check a response; `minimum` are the writes and increments done before its request.

        Raises:
            Violation: revision, counter or constant members are wrong.
        """
        if not 1 + minimum[0] <= revision <= 1 + self.writes.maximum:
            raise self.violation(f"revision {revision} of a session with {minimum[0]} to {self.writes.maximum} writes")
        if not minimum[1] <= int(actual.get(COUNTER, "-1")) <= self.increments.maximum:
            raise self.violation(f"counted to {actual.get(COUNTER)}, and should be {minimum[1]} to {self.increments.maximum}")
        if any(actual.get(key) != text for key, text in UNTOUCHED.items()):
            raise self.violation(f"members that nobody changes have changed: {actual}")

    @property
    def done(self) -> tuple[int, int]:
        """The minimum of writes and increments."""
        return self.writes.minimum, self.increments.minimum

    def violation(self, what: str) -> Violation:
        """An error of this session."""
        return Violation(f"shared session {self.id}: {what}")


class SharedOperations:
    """The operations of one client. Each raises Unavailable if there is no response, and Violation if it is wrong."""

    def __init__(self, client: Client, sessions: list[SharedSession]) -> None:
        self._client = client
        self._random = client.random
        self._keys = [f"c{client.number} {name}" for name in "ab"]
        self._own_members = {session: OwnMembers(f"shared session {session.id}", self._keys) for session in sessions}
        self._project = OwnMembers("the project's configs", self._keys)
        #: A default lifetime that may not be set in all partitions yet, and since when (monotonic seconds).
        self._unconfirmed_ttl: tuple[int, float] | None = None

    async def patch(self) -> None:
        """PATCH of the client's members."""
        session, own_members = self._pick()
        if not self._may_write(own_members):
            return
        text, changes = values.written(self._changes(), self._random)
        minimum, request = session.done, Request("PATCH", f"/session/{session.id}/configs", f'{{"configs": {text}}}'.encode())
        session.writes.begin()
        try:
            response, _ = await self._client.send(request, writes=True)
        except Unavailable as error:
            if error.uncertain:
                own_members.may_change(changes)
            else:
                session.writes.fail()
            raise
        session.writes.succeed()
        actual = members(data(response, Configs).configs)
        session.check(actual, _revision(response), (minimum[0] + 1, minimum[1]))
        own_members.change(changes, actual)

    async def read(self) -> None:
        """GET."""
        await self._read(*self._pick())

    async def _read(self, session: SharedSession, own_members: OwnMembers) -> tuple[dict[str, str], Response]:
        self._settle(own_members)
        minimum = session.done
        response, _ = await self._client.send(Request("GET", f"/session/{session.id}"))
        actual = members(data(response, Row).configs)
        session.check(actual, _revision(response), minimum)
        own_members.check(actual)
        return actual, response

    async def count_up(self) -> None:
        """GET, and PATCH of one more under If-Match."""
        session, own_members = self._pick()
        actual, seen = await self._read(session, own_members)
        body = f'{{"configs": {{"{COUNTER}": {int(actual[COUNTER]) + 1}}}}}'.encode()
        request = Request("PATCH", f"/session/{session.id}/configs", body, {"If-Match": seen.headers["etag"]})
        counts = (session.writes, session.increments)
        for count in counts:
            count.begin()
        try:
            response, _ = await self._client.send(request, writes=True)
        except Unavailable as error:
            if not error.uncertain:
                for count in counts:
                    count.fail()
            raise
        if response.status not in (200, 412):
            raise session.violation(f"a PATCH with If-Match was answered {response.status}")
        for count in counts:
            count.succeed() if response.status == 200 else count.fail()

    async def find(self) -> None:
        """A list that must have a shared session."""
        session, own_members = self._pick()
        if own_members.indeterminate_since is not None or not own_members.possible[0]:
            return
        key = self._random.choice(list(own_members.possible[0]))
        query = Query(None, f'{{"shared": true, "{key}": {own_members.possible[0][key]}}}', self._random.random() < 0.5, 20)
        rows, _ = await read_all(self._client, query)
        if session.id not in {row.id for row in rows}:
            raise session.violation(f"is missing in {query}")

    async def settle(self) -> None:
        """Read what is indeterminate, once a read can determine it."""
        for session, own_members in self._own_members.items():
            if own_members.indeterminate_since is not None:
                await self._read(session, own_members)
        if self._project.indeterminate_since is not None:
            await self.read_project()
        if self._unconfirmed_ttl:
            await self.change_default()

    async def check(self) -> None:
        """Read all of it."""
        for session, own_members in self._own_members.items():
            await self._read(session, own_members)
        await self.read_project()

    @property
    def is_certain(self) -> bool:
        """Whether nothing is indeterminate."""
        return self._unconfirmed_ttl is None and all(map(self._may_write, (*self._own_members.values(), self._project)))

    async def read_project(self) -> None:
        """GET of the project's configs."""
        self._settle(self._project)
        response, _ = await self._client.send(Request("GET", "/project/configs"))
        self._project.check(members(data(response, Raw)))

    async def patch_project(self) -> None:
        """PATCH of the client's members in the project's configs."""
        if not self._may_write(self._project):
            return
        text, changes = values.written(self._changes(), self._random)
        try:
            response, _ = await self._client.send(Request("PATCH", "/project/configs", text.encode()), writes=True)
        except Unavailable as error:
            if error.uncertain:
                self._project.may_change(changes)
            raise
        self._project.change(changes, members(data(response, Raw)))

    async def change_default(self) -> None:
        """PATCH of the project's `session_ttl`, which one client alone changes, and again where that got no response."""
        context = self._client.context
        if self._client.number != 0 or (
            self._unconfirmed_ttl and not context.fault_windows.has_settled(self._unconfirmed_ttl[1])
        ):
            return
        ttl = self._unconfirmed_ttl[0] if self._unconfirmed_ttl else self._random.choice(DEFAULT_TTLS)
        context.defaults.change(ttl)
        request = Request("PATCH", "/project/configs", f'{{"{TTL}": {ttl or "null"}}}'.encode())
        try:
            response, _ = await self._client.send(request, writes=True)
        except Unavailable as error:
            if error.uncertain:
                self._unconfirmed_ttl = ttl, time.monotonic()
            raise
        actual = members(data(response, Raw))
        if actual.get(TTL, "0") != str(ttl):
            raise Violation(f"{request} was answered {actual}")
        context.defaults.settle()
        self._unconfirmed_ttl = None

    def _pick(self) -> tuple[SharedSession, OwnMembers]:
        return self._random.choice(list(self._own_members.items()))

    def _changes(self) -> dict[str, Json]:
        keys = self._random.sample(self._keys, self._random.randint(1, len(self._keys)))
        return {key: self._random.choice((None, next(self._client.marks), "кот", [])) for key in keys}

    def _settle(self, own_members: OwnMembers) -> None:
        """Let the next response determine indeterminate members, if it can."""
        if own_members.indeterminate_since is not None and self._client.context.fault_windows.has_settled(
            own_members.indeterminate_since
        ):
            own_members.settle()

    @staticmethod
    def _may_write(own_members: OwnMembers) -> bool:
        return own_members.indeterminate_since is None and len(own_members.possible) == 1


def _revision(response: Response) -> int:
    return int(response.etag.rpartition("-")[2])
