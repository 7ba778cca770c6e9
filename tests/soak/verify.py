"""The end of a soak: the whole store is compared with the model, when nothing is indeterminate any more."""

import asyncio
import time
from collections.abc import Iterable
from random import Random

from service.store.keys import Partition
from tests.soak import operations
from tests.soak.client import Client
from tests.soak.lists import Query, fits, read_all
from tests.soak.server import redis_of
from tests.soak.sessions import Session
from tests.soak.states import Span, State, microseconds
from tests.soak.user_operations import all_users, count_sessions
from tests.soak.values import Values
from tests.support.http_client import Violation
from tests.support.responses import Row, members
from tests.support.server import PATIENCE, Serving, run_command

#: Random lists that are read.
LISTS = 60

_PARTITION = Partition("default", 0)


class Verifier:
    """Compares sessions, lists, users and Redis with the model."""

    def __init__(self, server: Serving, clients: list[Client], seed: int) -> None:
        self._server = server
        self._clients = clients
        self._random = Random(f"{seed} end")
        self._users = [user for client in clients for user in client.users.values()]
        #: Every session that should exist, in the order of creation.
        self._states: list[State] = []

    async def verify(self, shared: set[str]) -> int:
        """Compare everything, and return the number of sessions. `shared` are the ids of the shared sessions.

        Raises:
            Violation: something differs from the model.
            Unavailable: a request got no response.
        """
        everything = Query(None, None, descending=False, limit=200)
        rows, span = await read_all(self._clients[0], everything)
        self._states = sorted(self._expected(rows, span, shared), key=lambda state: state.created_at or 0)
        await self._verify_lists()
        await self._verify_each_session()
        await self._verify_users()
        await self._verify_redis()
        await self._verify_with_check()
        return len(self._states)

    def _expected(self, rows: list[Row], span: Span, shared: set[str]) -> Iterable[State]:
        """The states of all sessions; what the model cannot know is taken from `rows`."""
        owned = {session.id: session for client in self._clients for session in client.sessions.values()}
        orphans = [orphan for client in self._clients for orphan in client.orphans]
        rows_by_id = {row.id: row for row in rows}
        for session in owned.values():
            state = session.from_list(rows_by_id.get(session.id), span)
            if state is not None:
                yield state
        for row in rows:
            if row.id in shared:
                yield _shared_state(row)
            elif row.id not in owned:
                orphan = next((each for each in orphans if any(state and fits(state, row) for state in each.states)), None)
                if orphan is None:
                    raise Violation(f"the store has a session that nobody created, or that was deleted: {row}")
                orphans.remove(orphan)
                yield next(state.seen(row) for state in orphan.states if state and fits(state, row))

    async def _verify_lists(self) -> None:
        """Many lists are, session by session, what a scan of all sessions gives."""
        living = [Session(state.id, state) for state in self._states]
        queries = [Query(None, None, descending=True, limit=200), Query(None, None, descending=False, limit=7)]
        queries += [Query.choose(self._random, (user.name for user in self._users), living) for _ in range(LISTS)]
        for query in queries:
            rows, _ = await read_all(self._clients[0], query)
            expected = [state for state in self._states if query.matches(state)]
            if query.descending:
                expected.reverse()
            if [row.id for row in rows] != [state.id for state in expected]:
                raise Violation(f"{query} lists\n{[row.id for row in rows]}, expected\n{[state.id for state in expected]}")
            for row, state in zip(rows, expected, strict=True):
                if not fits(state, row):
                    raise Violation(f"{query} has {row}, expected {state}")

    async def _verify_each_session(self) -> None:
        """A GET of each session gives what the model says; deleted sessions do not exist."""
        for client in self._clients:
            for session in client.sessions.values():
                await client.do(session, operations.read(session))

    async def _verify_users(self) -> None:
        listed = {user.identifier for user in await all_users(self._clients[0], 7)}
        for client in self._clients:
            for user in client.users.values():
                user.check(user.name in listed, "in the list of users")
                await count_sessions(client, user)
        unknown = listed - {user.name for user in self._users}
        if unknown:
            raise Violation(f"the store has users that nobody named: {unknown}")

    async def _verify_redis(self) -> None:
        """The configs in Redis are the acknowledged ones, byte for byte."""
        redis, deadline = redis_of(self._server), time.monotonic() + PATIENCE
        expected = {_PARTITION.session(state.id).encode(): state.configs for state in self._states}
        async with redis:
            while {key async for key in redis.scan_iter(_PARTITION.session("*"), count=1000)} != set(expected):
                if time.monotonic() > deadline:
                    raise Violation("Redis has sessions that were deleted or have expired, or lacks some")
                await asyncio.sleep(0.1)
            for key, configs in expected.items():
                if await redis.hget(key.decode(), "configs") != configs:
                    raise Violation(f"{key.decode()} is not byte for byte what was acknowledged: {configs!r}")

    async def _verify_with_check(self) -> None:
        """`check` finds nothing."""
        result = await asyncio.to_thread(run_command, "check", SCC_DATA_DIR=str(self._server.data_dir))
        if result.returncode != 0 or not result.stdout.endswith("no differences\n"):
            raise Violation(f"check is not clean:\n{result.stdout[-3000:]}{result.stderr[-3000:]}")


def _shared_state(row: Row) -> State:
    """The state of a shared session: each client has checked its own members of it."""
    values: Values = members(row.configs)
    times = microseconds(row.created_at), microseconds(row.updated_at)
    return State(row.id, values, revision=row.revision, created_at=times[0], updated_at=times[1])
