"""The end of a soak: the store is held to the model, all of it, when nothing is in doubt any more."""

import asyncio
import sys
import time
from collections.abc import Iterable
from random import Random

from scripts.lib.program import ROOT, environment
from service.store.keys import Partition
from tests.soak import deeds
from tests.soak.answers import Row, members
from tests.soak.client import Client
from tests.soak.differences import Difference
from tests.soak.lists import Query, fits, walk
from tests.soak.server import Server
from tests.soak.sessions import Session
from tests.soak.states import Span, State, microseconds
from tests.soak.user_operations import all_users, count_sessions
from tests.soak.values import Values

#: Lists that are asked for.
LISTS = 60
#: Seconds in which sessions whose lifetime is over must be gone from Redis.
PATIENCE = 30.0

_PARTITION = Partition("default", 0)


class Ending:
    """What is there, beside what should be there."""

    def __init__(self, server: Server, clients: list[Client], seed: int) -> None:
        self._server = server
        self._clients = clients
        self._random = Random(f"{seed} end")
        self._users = [user for client in clients for user in client.users.values()]
        #: Every session that should be there, in the order of creation.
        self._states: list[State] = []

    async def hold(self, shared: set[str]) -> int:
        """Hold sessions, lists, users and Redis to the model; returns the number of sessions. `shared` are ids.

        Raises:
            Difference: something is not as it must be.
            Unavailable: a request got no answer.
        """
        everything = Query(None, None, descending=False, limit=200)
        rows, span = await walk(self._clients[0], everything)
        self._states = sorted(self._expected(rows, span, shared), key=lambda state: state.created_at or 0)
        await self._hold_lists()
        await self._hold_each()
        await self._hold_users()
        await self._hold_redis()
        await self._check()
        return len(self._states)

    def _expected(self, rows: list[Row], span: Span, shared: set[str]) -> Iterable[State]:
        """The states of all sessions; what only the answer can tell is taken from `rows`."""
        own = {session.id: session for client in self._clients for session in client.sessions.values()}
        strays = [stray for client in self._clients for stray in client.strays]
        shown = {row.id: row for row in rows}
        for session in own.values():
            state = session.listed(shown.get(session.id), span)
            if state is not None:
                yield state
        for row in rows:
            if row.id in shared:
                yield _shared_state(row)
            elif row.id not in own:
                stray = next((each for each in strays if any(state and fits(state, row) for state in each.states)), None)
                if stray is None:
                    raise Difference(f"a session is in the store that nobody created, or that was deleted: {row}")
                strays.remove(stray)
                yield next(state.seen(row) for state in stray.states if state and fits(state, row))

    async def _hold_lists(self) -> None:
        """Many lists are, session by session, what a look at every session finds."""
        living = [Session(state.id, state) for state in self._states]
        queries = [Query(None, None, descending=True, limit=200), Query(None, None, descending=False, limit=7)]
        queries += [Query.choose(self._random, (user.name for user in self._users), living) for _ in range(LISTS)]
        for query in queries:
            rows, _ = await walk(self._clients[0], query)
            right = [state for state in self._states if query.finds(state)]
            if query.descending:
                right.reverse()
            if [row.id for row in rows] != [state.id for state in right]:
                raise Difference(f"{query} finds\n{[row.id for row in rows]}, and should find\n{[state.id for state in right]}")
            for row, state in zip(rows, right, strict=True):
                if not fits(state, row):
                    raise Difference(f"{query} shows {row}, and should show {state}")

    async def _hold_each(self) -> None:
        """Each session is by itself what it should be; those that are gone are not there."""
        for client in self._clients:
            for session in client.sessions.values():
                await client.do(session, deeds.read(session))

    async def _hold_users(self) -> None:
        asking = self._clients[0]
        shown = {user.identifier for user in await all_users(asking, 7)}
        for client in self._clients:
            for user in client.users.values():
                user.hold(user.name in shown, "in the list of users")
                await count_sessions(client, user)
        unknown = shown - {user.name for user in self._users}
        if unknown:
            raise Difference(f"users are known that nobody named: {unknown}")

    async def _hold_redis(self) -> None:
        """The documents in Redis are those that should be there, byte for byte."""
        redis, deadline = self._server.redis(), time.monotonic() + PATIENCE
        right = {_PARTITION.session(state.id).encode(): state.configs for state in self._states}
        async with redis:
            while {key async for key in redis.scan_iter(_PARTITION.session("*"), count=1000)} != set(right):
                if time.monotonic() > deadline:
                    raise Difference("Redis has documents of sessions that are gone, or lacks some")
                await asyncio.sleep(0.1)
            for key, configs in right.items():
                if await redis.hget(key.decode(), "configs") != configs:
                    raise Difference(f"{key.decode()} is not byte for byte what was acknowledged: {configs!r}")

    async def _check(self) -> None:
        """`check` finds nothing."""
        words = [sys.executable, "-m", "service", "check", "--data-dir", str(self._server.data)]
        process = await asyncio.create_subprocess_exec(
            *words, cwd=ROOT, env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, errors = await process.communicate()
        if process.returncode != 0 or not output.endswith(b"no differences\n"):
            raise Difference(f"check is not clean:\n{output.decode()[-3000:]}{errors.decode()[-3000:]}")


def _shared_state(row: Row) -> State:
    """The state of a session that all clients write to: each of them has held its part of it."""
    values: Values = members(row.configs)
    times = microseconds(row.created_at), microseconds(row.updated_at)
    return State(row.id, values, revision=row.revision, created_at=times[0], updated_at=times[1])
