"""Concurrent clients that write and read sessions of their own, check every response, and then the whole store.

What a client reads must be exactly what it wrote last. A write that may have happened leaves several possible states.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from random import Random
from typing import Self, TypeVar
from uuid import UUID

from service.store.sessions import Sessions
from tests.support.access import Access, HttpAccess, Missing, Refused, Snapshot, StoreAccess, Uncertain
from tests.support.http_client import MAX_RESPONSE_TIME, ConnectionLost, NotSent, Violation
from tests.support.record import Record, Write, after_write, lost_writes, spelled
from tests.support.server import PATIENCE, Serving, run_command

Result = TypeVar("Result")

#: Values as they are written; their spelling must be kept.
SPELLINGS = ("1.0", "1e2", '"é"', "null", "[]", '{"a": [1, {"b": true}]}', "12345678901234567890123", '"' + "x" * 700 + '"')
USERS = ("alice", "bob")
MAX_SESSIONS = 8
#: A session with more possible states than this gets no further writes.
MAX_STATES = 4
#: Operations and how often each is chosen.
WEIGHTS = {"create": 3, "patch": 6, "replace": 3, "delete": 1, "get": 3, "list": 1}

#: A command timeout that nothing here comes near: where no request may fail, a slow machine must not make one fail.
LENIENT = ("--command-timeout", "15")
TOKEN = "workload-of-the-tests"
KEY = f"sk-ac-{TOKEN}"


@dataclass
class Stats:
    """What became of the requests of a workload."""

    acknowledged: int = 0
    refused: int = 0
    uncertain: int = 0
    reads: int = 0
    reads_refused: int = 0
    connections_lost: int = 0

    @property
    def unavailable(self) -> int:
        """All responses that were a 503."""
        return self.refused + self.uncertain + self.reads_refused


class _Client:
    """One client: its access, its random choices, its sessions."""

    def __init__(self, number: int, access: Access, seed: int) -> None:
        self.number, self.access, self.seed = number, access, seed
        self.random = Random(f"{seed} {number}")
        self.records: list[Record] = []
        self.operations = 0

    def new_record(self) -> Record:
        record = Record(str(UUID(int=self.number << 64 | self.seed << 32 | len(self.records))), self.number)
        self.records.append(record)
        return record


class Workload:
    """Runs from `start` on. A wrong response, or a failure that is not allowed, is raised by `wait_for` or at the end."""

    def __init__(
        self, connect: Callable[[], Access], *, clients: int = 6, seed: int = 0, writes_to_uncertain: bool = False
    ) -> None:
        """`writes_to_uncertain`: sessions get further writes after one that may have happened."""
        self.connect = connect
        self.stats = Stats()
        #: Whether a connection may break during a request (its worker was killed).
        self.may_lose_connections = False
        #: Whether the server may end.
        self.may_end = False
        #: Seconds that a client waits at most between two operations.
        self.think_time = 0.0
        self._clients = [_Client(number, connect(), seed) for number in range(clients)]
        self._max_states = MAX_STATES if writes_to_uncertain else 1
        self._marks = itertools.count(1)
        self._is_ending = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def records(self) -> list[Record]:
        """The sessions of all clients."""
        return [record for client in self._clients for record in client.records]

    @property
    def longest(self) -> float:
        """Seconds that the slowest response over HTTP took."""
        return max(client.access.longest for client in self._clients if isinstance(client.access, HttpAccess))

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._run(client)) for client in self._clients]

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.finish()

    async def wait_for(self, what: str, more: int) -> None:
        """Wait until `more` of what `Stats` calls `what` have come."""
        goal = getattr(self.stats, what) + more
        await self._wait_until(lambda: getattr(self.stats, what) >= goal, f"{more} more {what}")

    async def wait_for_operations(self, more: int = 20) -> None:
        """Wait until each client has finished `more` operations, whatever came of them."""
        goals = {client: client.operations + more for client in self._clients}
        await self._wait_until(
            lambda: all(client.operations >= goal for client, goal in goals.items()), f"{more} operations of each client"
        )

    async def wait_until_undisturbed(self) -> None:
        """Wait until no operation fails any more."""
        while True:
            before = self.stats.unavailable
            await self.wait_for_operations(5)
            if self.stats.unavailable == before:
                return

    async def _wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            for task in self._tasks:
                if task.done():
                    task.result()
            assert time.monotonic() < deadline, f"never came: {what}; {self.stats}"
            await asyncio.sleep(0.005)

    async def finish(self) -> None:
        """Let every client finish its operation: one that is cut off would leave an unknown state."""
        self._is_ending = True
        await asyncio.gather(*self._tasks)

    async def wait_until_server_ends(self) -> None:
        """Wait until no client can connect any more."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self._tasks)

    async def _run(self, client: _Client) -> None:
        try:
            while not self._is_ending:
                with suppress(Refused, Uncertain):
                    await self._operate(client)
                client.operations += 1
                if self.think_time:
                    await asyncio.sleep(client.random.uniform(0.0, self.think_time))
        except NotSent:
            if not self.may_end:
                raise
        finally:
            client.access.close()

    async def _operate(self, client: _Client) -> None:
        """One random operation."""
        writable = [record for record in client.records if len(record.possible) <= self._max_states]
        live = [record for record in writable if any(write.values is not None for write in record.possible)]
        deleted = [record for record in writable if record not in live]
        (name,) = client.random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        if name == "list":
            await self._list(client)
        elif (name == "create" and len(live) < MAX_SESSIONS) or not live:
            if not deleted or client.random.random() < 0.5:
                deleted = [client.new_record()]
            await self._write(client, "create", client.random.choice(deleted))
        elif name == "get":
            record = client.random.choice(client.records)
            record.check(await self._read(lambda: _get(client.access, record.id)))
        elif name != "create":
            await self._write(client, name, client.random.choice(live))

    async def _list(self, client: _Client) -> None:
        listed = await self._read(lambda: client.access.find(b'{"owner":%d}' % client.number))
        for record in client.records:
            record.check(listed.pop(record.id, None))
        if listed:
            raise Violation(f"sessions of nobody are in the list of client {client.number}: {listed}")

    async def _read(self, operation: Callable[[], Awaitable[Result]]) -> Result:
        self.stats.reads += 1
        try:
            return await self._attempt(operation)
        except (Refused, Uncertain):
            self.stats.reads_refused += 1
            raise

    async def _attempt(self, operation: Callable[[], Awaitable[Result]]) -> Result:
        """Run an operation; a connection that breaks is Uncertain if that is allowed."""
        while True:
            try:
                return await operation()
            except ConnectionLost as lost:
                self.stats.connections_lost += 1
                if self.may_lose_connections:
                    raise Uncertain from lost
                # HTTP lets a client send again if the server closes an idle connection, as it does when it ends.
                if not (self.may_end and lost.reused):
                    raise

    async def _write(self, client: _Client, name: str, record: Record) -> None:
        changes = {"mark": str(next(self._marks)), client.random.choice("abcd"): client.random.choice(SPELLINGS)}
        if name == "patch":
            changes[client.random.choice("efgh")] = client.random.choice(("1.0", "null"))
        else:
            changes = {"owner": str(record.owner)} | changes
        sent = time.monotonic()
        possible = [before for before in record.possible if name == "create" or before.values is not None]
        states = [after_write(before, name, changes, sent) for before in possible]
        user = client.random.choice((*USERS, f"user {changes['mark']}"))
        try:
            snapshot = await self._attempt(lambda: _send_write(client.access, name, record.id, user, spelled(changes)))
        except Refused:
            self.stats.refused += 1
            raise
        except Uncertain:
            self.stats.uncertain += 1
            record.may_have(states)
            raise
        except Missing:
            record.check(None)
            record.possible = [write for write in record.possible if write.values is None]
        else:
            matching = [state for state in states if state.matches(snapshot)]
            if not matching:
                raise Violation(f"{name} was answered {snapshot}, expected one of {states}")
            record.acknowledge(replace(matching[0], answered=time.monotonic(), etag=snapshot.etag if snapshot else ""))
            self.stats.acknowledged += 1

    async def verify(self, connect: Callable[[], Access] | None = None, *, lost_after: float = inf) -> list[Write]:
        """Compare the store with what was acknowledged; returns the writes that are lost.

        Only what was answered after `lost_after` may be lost, and only as the tail of all that was written.

        Raises:
            Violation: something else is lost or wrong.
        """
        accesses = [(connect or self.connect)() for _ in self._clients]
        parts = [_read_all(access, self.records[first :: len(accesses)]) for first, access in enumerate(accesses)]
        snapshots = [each for part in await asyncio.gather(*parts) for each in part]
        if lost_after == inf:
            for record, snapshot in snapshots:
                record.check(snapshot)
            lost = []
        else:
            lost = lost_writes(snapshots, lost_after)
        expected = sorted(record.id for record, snapshot in snapshots if snapshot is not None)
        actual = sorted(await accesses[0].list_ids())
        if actual != expected:
            raise Violation(f"the list of all sessions has {actual}, expected {expected}")
        for access in accesses:
            access.close()
        return lost


async def _send_write(access: Access, name: str, session_id: str, user: str, text: bytes) -> Snapshot | None:
    match name:
        case "create":
            return await access.create(session_id, user, text)
        case "replace":
            return await access.replace(session_id, text)
        case "patch":
            return await access.patch(session_id, text)
    await access.delete(session_id)
    return None


async def _get(access: Access, session_id: str) -> Snapshot | None:
    try:
        return await access.get(session_id)
    except Missing:
        return None


async def _read_all(access: Access, records: list[Record]) -> list[tuple[Record, Snapshot | None]]:
    return [(record, await _get(access, record.id)) for record in records]


def workload_over_http(origin: str, api_key: str, *, clients: int = 6, seed: int = 0, fresh: bool = False) -> Workload:
    """A workload on a server; with `fresh` every request has a connection of its own."""
    return Workload(lambda: HttpAccess(origin, api_key, fresh=fresh), clients=clients, seed=seed)


class StoreWorkload(Workload):
    """A workload directly on a store. `failures` are the names of the errors that its clients get."""

    def __init__(self, sessions: Sessions, clients: int) -> None:
        self.sessions = sessions
        self.failures: list[str] = []
        super().__init__(lambda: StoreAccess(sessions, self.failures), clients=clients, writes_to_uncertain=True)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self.wait_for_operations()
        return self


async def check_after_fault(workload: Workload, serving: Serving, *, lost_after: float = inf) -> int:
    """No acknowledged write is lost (but for those answered after `lost_after`), the index is correct, no response was late.

    Returns the number of writes that are lost.
    """
    assert workload.longest < MAX_RESPONSE_TIME, workload.stats
    lost = await workload.verify(lambda: HttpAccess(serving.origin, KEY), lost_after=lost_after)
    where = {"SCC_DATA_DIR": str(serving.data_dir)}
    if serving.redis_url:
        where["SCC_REDIS_URL"] = serving.redis_url
    result = await asyncio.to_thread(run_command, "check", **where)
    assert result.stdout.splitlines()[-1] == "1 project checked: no differences", result.stdout + result.stderr
    return len(lost)
