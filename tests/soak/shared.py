"""What all clients write to at once: a few sessions, and the project's configs. Each client has members of its own in them.

So there is no telling what such an object is as a whole, but much that must hold: a client's members are as it left them,
nobody touches the others, each acknowledged write is one revision, and what is counted up under If-Match loses no step.
"""

import time
from uuid import UUID

from msgspec import Raw

from tests.soak import values
from tests.soak.answers import Configs, Row, data, members
from tests.soak.client import Client
from tests.soak.differences import Difference
from tests.soak.lists import Query, walk
from tests.soak.owned import Share
from tests.soak.values import Json, Number
from tests.soak.wire import Request, Response, Unavailable
from tests.soak.world import DEFAULT_TTLS

SHARED_SESSIONS = 3
#: Members of every shared session that nobody changes, and the one that is counted up.
UNTOUCHED: dict[str, str] = {"shared": "true", "untouched": '{"n": 1.0}'}
COUNTER = "counter"
TTL = "session_ttl"


class Counted:
    """How often something was done: for sure, and at most."""

    def __init__(self) -> None:
        self.least = self.most = 0

    def begin(self) -> int:
        """One more may be done; returns how many were surely done before."""
        self.most += 1
        return self.least

    def succeed(self) -> None:
        """It was."""
        self.least += 1

    def fail(self) -> None:
        """It was not."""
        self.most -= 1


class SharedSession:
    """One session that all clients write to."""

    def __init__(self, number: int) -> None:
        self.id = str(UUID(int=number + 1, version=4))
        self.writes, self.increments = Counted(), Counted()

    async def create(self, client: Client) -> None:
        """Create it, before any client knows of it."""
        said = ", ".join(f'"{key}": {text}' for key, text in {**UNTOUCHED, COUNTER: "0"}.items())
        body = f'{{"use_uuid": "{self.id}", "configs": {{{said}}}}}'
        data((await client.ask(Request("POST", "/session", body.encode()), writes=True))[0], Row)

    def hold(self, shown: dict[str, str], revision: int, least: tuple[int, int]) -> None:
        """Hold what an answer shows to what must be; `least` are the writes and increments done before its request.

        Raises:
            Difference: it shows something else.
        """
        if not 1 + least[0] <= revision <= 1 + self.writes.most:
            raise self.difference(f"revision {revision} of a session with {least[0]} to {self.writes.most} writes")
        if not least[1] <= int(shown.get(COUNTER, "-1")) <= self.increments.most:
            raise self.difference(f"counted to {shown.get(COUNTER)}, and should be {least[1]} to {self.increments.most}")
        if any(shown.get(key) != text for key, text in UNTOUCHED.items()):
            raise self.difference(f"what nobody touches is not as it was: {shown}")

    @property
    def done(self) -> tuple[int, int]:
        """The writes and increments that were surely done."""
        return self.writes.least, self.increments.least

    def difference(self, what: str) -> Difference:
        """What is wrong with it."""
        return Difference(f"shared session {self.id}: {what}")


class SharedOperations:
    """One client's. Each raises Unavailable where there is no answer, and Difference where it is wrong."""

    def __init__(self, client: Client, sessions: list[SharedSession]) -> None:
        self._client = client
        self._random = client.random
        self._keys = [f"c{client.number} {name}" for name in "ab"]
        self._shares = {session: Share(f"shared session {session.id}", self._keys) for session in sessions}
        self._project = Share("the project's configs", self._keys)
        #: A change of the default lifetime that may not have come through whole, and since when (monotonic seconds).
        self._unsure: tuple[int, float] | None = None

    async def patch(self) -> None:
        """PATCH of members of our own."""
        session, share = self._one()
        if not self._may_write(share):
            return
        text, changes = values.written(self._changes(), self._random)
        least, request = session.done, Request("PATCH", f"/session/{session.id}/configs", f'{{"configs": {text}}}'.encode())
        session.writes.begin()
        try:
            answer, _ = await self._client.ask(request, writes=True)
        except Unavailable as missing:
            if missing.uncertain:
                share.may_change(changes)
            else:
                session.writes.fail()
            raise
        session.writes.succeed()
        shown = members(data(answer, Configs).configs)
        session.hold(shown, _revision(answer), (least[0] + 1, least[1]))
        share.changed(changes, shown)

    async def read(self) -> None:
        """GET."""
        await self._read(*self._one())

    async def _read(self, session: SharedSession, share: Share) -> tuple[dict[str, str], Response]:
        self._settle(share)
        least = session.done
        answer, _ = await self._client.ask(Request("GET", f"/session/{session.id}"))
        shown = members(data(answer, Row).configs)
        session.hold(shown, _revision(answer), least)
        share.shown(shown)
        return shown, answer

    async def count_up(self) -> None:
        """GET, and PATCH of one more under If-Match."""
        session, share = self._one()
        shown, seen = await self._read(session, share)
        body = f'{{"configs": {{"{COUNTER}": {int(shown[COUNTER]) + 1}}}}}'.encode()
        request = Request("PATCH", f"/session/{session.id}/configs", body, {"If-Match": seen.headers["etag"]})
        counts = (session.writes, session.increments)
        for count in counts:
            count.begin()
        try:
            answer, _ = await self._client.ask(request, writes=True)
        except Unavailable as missing:
            if not missing.uncertain:
                for count in counts:
                    count.fail()
            raise
        if answer.status not in (200, 412):
            raise session.difference(f"a PATCH with If-Match was answered {answer.status}")
        for count in counts:
            count.succeed() if answer.status == 200 else count.fail()

    async def find(self) -> None:
        """A list that must have a shared session."""
        session, share = self._one()
        if share.doubted is not None or not share.possible[0]:
            return
        key = self._random.choice(list(share.possible[0]))
        query = Query(None, f'{{"shared": true, "{key}": {share.possible[0][key]}}}', self._random.random() < 0.5, 20)
        rows, _ = await walk(self._client, query)
        if session.id not in {row.id for row in rows}:
            raise session.difference(f"is missing in {query}")

    async def settle(self) -> None:
        """Read what is in doubt, once that can tell."""
        for session, share in self._shares.items():
            if share.doubted is not None:
                await self._read(session, share)
        if self._project.doubted is not None:
            await self.read_project()
        if self._unsure:
            await self.change_default()

    async def hold(self) -> None:
        """Read all of it."""
        for session, share in self._shares.items():
            await self._read(session, share)
        await self.read_project()

    @property
    def is_certain(self) -> bool:
        """Whether nothing is in doubt."""
        return self._unsure is None and all(map(self._may_write, (*self._shares.values(), self._project)))

    async def read_project(self) -> None:
        """GET of the project's configs."""
        self._settle(self._project)
        answer, _ = await self._client.ask(Request("GET", "/project/configs"))
        self._project.shown(members(data(answer, Raw)))

    async def patch_project(self) -> None:
        """PATCH of members of our own in the project's configs."""
        if not self._may_write(self._project):
            return
        text, changes = values.written(self._changes(), self._random)
        try:
            answer, _ = await self._client.ask(Request("PATCH", "/project/configs", text.encode()), writes=True)
        except Unavailable as missing:
            if missing.uncertain:
                self._project.may_change(changes)
            raise
        self._project.changed(changes, members(data(answer, Raw)))

    async def change_default(self) -> None:
        """PATCH of the project's `session_ttl`, which one client alone changes, and again where that got no answer."""
        world = self._client.world
        if self._client.number != 0 or (self._unsure and not world.weather.has_settled(self._unsure[1])):
            return
        ttl = self._unsure[0] if self._unsure else self._random.choice(DEFAULT_TTLS)
        world.defaults.change(ttl)
        request = Request("PATCH", "/project/configs", f'{{"{TTL}": {ttl or "null"}}}'.encode())
        try:
            answer, _ = await self._client.ask(request, writes=True)
        except Unavailable as missing:
            if missing.uncertain:
                self._unsure = ttl, time.monotonic()
            raise
        shown = members(data(answer, Raw))
        if shown.get(TTL, "0") != str(ttl):
            raise Difference(f"{request} was answered {shown}")
        world.defaults.settle()
        self._unsure = None

    def _one(self) -> tuple[SharedSession, Share]:
        return self._random.choice(list(self._shares.items()))

    def _changes(self) -> dict[str, Json]:
        keys = self._random.sample(self._keys, self._random.randint(1, len(self._keys)))
        return {key: self._random.choice((None, Number(str(next(self._client.marks))), "кот", [])) for key in keys}

    def _settle(self, share: Share) -> None:
        """Let the answer to what is asked from here on tell what became of a doubt, if it can."""
        if share.doubted is not None and self._client.world.weather.has_settled(share.doubted):
            share.settle()

    @staticmethod
    def _may_write(share: Share) -> bool:
        return share.doubted is None and len(share.possible) == 1


def _revision(answer: Response) -> int:
    return int(answer.etag.rpartition("-")[2])
