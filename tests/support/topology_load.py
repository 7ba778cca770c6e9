"""Clients that write and read sessions of their own, as many operations as they can, and know what must be in the store."""

import asyncio
from collections import Counter
from random import Random
from typing import Self

import orjson

from service.configs.containment import Filter
from service.errors import NotFound, NotReplicated, StoreUnavailable, WriteUncertain
from service.store.listing import Query, page
from service.store.sessions import Sessions
from tests.support.filling import document_of, session_id
from tests.support.server import PATIENCE

#: Sessions of one client.
OWN = 4


class Client:
    """One client. What each of its sessions may hold is a set: one value, and those of writes that are uncertain since."""

    def __init__(self, load: "Load", number: int) -> None:
        self.load = load
        self.random = Random(number)
        self.me = number
        self.may_hold: dict[str, set[int | None]] = {session_id(number * OWN + each): {None} for each in range(1, OWN + 1)}
        #: Of sessions whose writes are all known to have been made, or not.
        self.revisions: dict[str, int] = {}
        self.done = 0

    async def run(self) -> None:
        """Work as long as the load lasts."""
        while self.load.working:
            name = self.random.choice(list(self.may_hold))
            operation = self.random.choices((self.write, self.read, self.list, self.delete), (6, 4, 2, 1))[0]
            try:
                await operation(name)
            except StoreUnavailable as error:
                self.load.failures.append(type(error).__name__)
                await asyncio.sleep(0.01)
            self.done += 1

    def value(self, name: str, configs: bytes) -> int:
        """The value in configs, which must be this session's."""
        held = orjson.loads(configs)
        assert (held["me"], held["name"]) == (self.me, name), "an answer that is somebody else's"
        return int(held["n"])

    async def write(self, name: str) -> None:
        """A new value, merged into the session; one that is not there is created."""
        self.load.last += 1
        new = self.load.last
        document = document_of({"me": self.me, "name": name, "n": new, "tag": self.random.choice("abc")})
        held = self.may_hold[name]
        try:
            if held == {None}:
                made, _ = await self.load.sessions.create_session(name, document)
                assert self.value(name, made.configs) == new
                self.revisions[name] = made.revision
            else:
                written = await self.load.sessions.patch(name, document)
                assert self.value(name, written.configs) == new
                if name in self.revisions:
                    self.revisions[name] += 1
                    assert written.revision == self.revisions[name], "a write that was made twice, or not at all"
        except (WriteUncertain, NotReplicated):
            held.add(new)
            self.revisions.pop(name, None)
            raise
        except NotFound:
            assert None in held
            self.may_hold[name] = {None}
        else:
            self.may_hold[name] = {new}

    async def delete(self, name: str) -> None:
        """Delete the session."""
        held = self.may_hold[name]
        try:
            await self.load.sessions.delete(name)
        except (WriteUncertain, NotReplicated):
            held.add(None)
            raise
        except NotFound:
            assert None in held
        self.may_hold[name] = {None}

    async def read(self, name: str) -> None:
        """Read the session."""
        held = self.may_hold[name]
        found = await self.held(name)
        assert found in held, (name, found, held)

    async def held(self, name: str) -> int | None:
        """What the store holds."""
        try:
            return self.value(name, (await self.load.sessions.get(name)).configs)
        except NotFound:
            return None

    async def list(self, name: str) -> None:  # noqa: ARG002 - as the other operations
        """List all own sessions; each that must be there is there."""
        query = Query(filter=Filter.parse(b'{"me":%d}' % self.me, self.load.sessions.limits))
        listed = (await page(self.load.sessions, query, 20)).sessions
        found = {session.id: self.value(session.id, session.configs) for session in listed}
        for each, held in self.may_hold.items():
            assert found.get(each) in held, (each, found.get(each), held)


class Load:
    """Clients at work: from entering the context until leaving it. `failures` are the names of the errors that they met."""

    def __init__(self, sessions: Sessions, clients: int) -> None:
        self.sessions = sessions
        self.clients = [Client(self, number) for number in range(clients)]
        self.failures: list[str] = []
        self.last = 0
        self.working = True
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(client.run()) for client in self.clients]
        await self.some_more()
        return self

    async def __aexit__(self, *_: object) -> None:
        # Each ends what it does: what a write that is cut off left would be unknown.
        self.working = False
        await asyncio.gather(*self._tasks)

    async def some_more(self, operations: int = 20) -> None:
        """Wait until each client has done so many operations more, whatever came of them."""
        goals = {client: client.done + operations for client in self.clients}
        async with asyncio.timeout(PATIENCE):
            while any(client.done < goal for client, goal in goals.items()):
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)

    async def undisturbed(self) -> None:
        """Wait until clients meet no failures any more."""
        async with asyncio.timeout(PATIENCE):
            while True:
                seen = len(self.failures)
                await self.some_more(5)
                if len(self.failures) == seen:
                    return

    async def wrong(self) -> list[object]:
        """What the store holds and must not, once nobody works any more."""
        return [
            (name, found, held)
            for client in self.clients
            for name, held in client.may_hold.items()
            for found in [await client.held(name)]
            if found not in held
        ]

    def told(self) -> Counter[str]:
        """How often each failure was met."""
        return Counter(self.failures)
