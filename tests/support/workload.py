"""A storm of writes by several clients that remember what was acknowledged, and what the store must hold afterwards.

Each client has sessions of its own, so what it reads must be exactly what it wrote last. A write that may have happened leaves
two states to choose from; the client touches that session no more, because such a write may still happen later.
"""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Any
from urllib.parse import quote
from uuid import UUID

from tests.support.http_client import Client, Lost, Refused, Reply
from tests.support.model import lines
from tests.support.server import PATIENCE

Values = dict[str, str]

#: Values as they are written; their spelling must come back.
SPELLINGS = ("1.0", "1e2", '"é"', "null", "[]", '{"a": [1, {"b": true}]}', "12345678901234567890123", '"' + "x" * 700 + '"')
USERS = ("alice", "bob")
MOST_SESSIONS = 8


@dataclass(frozen=True)
class Write:
    """A write: the state it left (`values` None: no session), and when it was sent and answered; inf: it may have happened."""

    values: Values | None
    revision: int
    sent: float
    answered: float
    etag: str = ""


@dataclass
class Record:
    """All writes to one session, in order."""

    id: str
    owner: int
    writes: list[Write] = field(default_factory=lambda: [Write(None, 0, -inf, -inf)])

    @property
    def last(self) -> Write:
        return self.writes[-1]

    @property
    def uncertain(self) -> bool:
        return self.last.answered == inf

    def possible(self) -> list[Write]:
        """What the session may be if nothing that was acknowledged is lost."""
        return self.writes[-2:] if self.uncertain else self.writes[-1:]


@dataclass
class Counts:
    """What became of the requests of a storm."""

    acknowledged: int = 0
    refused: int = 0
    uncertain: int = 0
    reads: int = 0
    reads_refused: int = 0
    connections_lost: int = 0
    longest: float = 0.0

    @property
    def unavailable(self) -> int:
        """All answers that were a 503."""
        return self.refused + self.uncertain + self.reads_refused


class Storm:
    """Runs from `brew` on; a wrong answer, or a fault that should not be seen, is raised by `reach` or at the end."""

    def __init__(self, origin: str, key: str, *, clients: int = 6, seed: int = 0, fresh: bool = False) -> None:
        """`fresh`: every request has a connection of its own."""
        self.origin, self.key, self.fresh = origin, key, fresh
        self.counts = Counts()
        self.records: list[Record] = []
        #: Whether a connection may break under a request (its worker was killed).
        self.may_lose = False
        #: Whether the server may go away.
        self.may_end = False
        self._clients = clients
        self._seed = seed
        self._marks = itertools.count(1)
        self._ending = False
        self._tasks: list[asyncio.Task[None]] = []

    def brew(self) -> None:
        self._tasks = [asyncio.create_task(self._live(number)) for number in range(self._clients)]

    async def reach(self, what: str, more: int) -> None:
        """Wait until `more` of what `Counts` calls `what` have come."""
        goal, deadline = getattr(self.counts, what) + more, time.monotonic() + PATIENCE
        while getattr(self.counts, what) < goal:
            for task in self._tasks:
                if task.done():
                    task.result()
            assert time.monotonic() < deadline, f"never came: {more} more {what}; {self.counts}"
            await asyncio.sleep(0.005)

    async def end(self) -> None:
        """Let every client finish its request."""
        self._ending = True
        await asyncio.gather(*self._tasks)

    async def over(self) -> None:
        """Wait until every client has found the server gone."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self._tasks)

    async def _live(self, number: int) -> None:
        client, random = Client(self.origin, self.key), Random(f"{self._seed} {number}")
        own: list[Record] = []
        try:
            while not self._ending:
                live = [record for record in own if not record.uncertain and record.last.values is not None]
                gone = [record for record in own if not record.uncertain and record.last.values is None]
                action = random.choices(("create", "patch", "put", "delete", "get", "list"), (3, 6, 3, 1, 3, 1))[0]
                if action == "list":
                    await self._list(client, number, own)
                elif (action == "create" and len(live) < MOST_SESSIONS) or not live:
                    if not gone or random.random() < 0.5:
                        gone = [Record(str(UUID(int=number << 64 | self._seed << 32 | len(own))), number)]
                        own += gone
                        self.records += gone
                    await self._write(client, "POST", random.choice(gone), random)
                elif action == "get":
                    await self._get(client, random.choice(own))
                elif action != "create":
                    await self._write(client, action.upper(), random.choice(live), random)
        except Refused:
            if not self.may_end:
                raise
        finally:
            client.close()

    async def _send(self, client: Client, method: str, path: str, body: bytes | None = None) -> Reply | None:
        """The answer; None where the connection broke and that was to be reckoned with."""
        while True:
            try:
                reply = await client.send(method, path, body)
                break
            except Lost as lost:
                self.counts.connections_lost += 1
                if self.may_lose:
                    return None
                # A client that follows HTTP sends again what an ending server closed an idle connection on.
                if not (self.may_end and lost.reused):
                    raise
        if self.fresh:
            client.close()
        self.counts.longest = max(self.counts.longest, reply.seconds)
        return reply

    async def _get(self, client: Client, record: Record) -> None:
        reply = await self._send(client, "GET", f"/session/{record.id}")
        if self._read(reply):
            assert reply is not None
            assert any(is_state(reply, state) for state in record.possible()), (reply, record)

    async def _list(self, client: Client, number: int, own: list[Record]) -> None:
        wanted = quote(json.dumps({"owner": number}))
        reply = await self._send(client, "GET", f"/session?limit=200&filter_by_configs={wanted}")
        if not self._read(reply):
            return
        assert reply is not None
        found = {item["id"]: item for item in reply.data["items"]}
        for record in own:
            item = found.pop(record.id, None)
            assert any(is_item(item, state) for state in record.possible()), (item, record)
        assert found == {}

    def _read(self, reply: Reply | None) -> bool:
        """Whether there is an answer to look at."""
        self.counts.reads += 1
        if reply is None or reply.unavailable:
            assert reply is None or not reply.uncertain, "a read cannot have written"
            self.counts.reads_refused += 1
            return False
        assert reply.status in (200, 404), reply
        return True

    async def _write(self, client: Client, method: str, record: Record, random: Random) -> None:
        before = record.last
        changes = {"mark": str(next(self._marks)), random.choice("abcd"): random.choice(SPELLINGS)}
        path, status = f"/session/{record.id}/configs", 200
        values: Values | None
        body: bytes | None
        match method:
            case "POST":
                path, status = "/session", 201
                values = {"owner": str(record.owner)} | changes
                user = random.choice((*USERS, f"user {values['mark']}"))
                body = b'{"use_uuid":"%b","user":"%b","configs":%b}' % (record.id.encode(), user.encode(), spelled(values))
            case "PUT":
                values = {"owner": str(record.owner)} | changes
                body = b'{"configs":%b}' % spelled(values)
            case "PATCH":
                changes[random.choice("efgh")] = random.choice(("1.0", "null"))
                body = b'{"configs":%b}' % spelled(changes)
                values = merged(before.values or {}, changes)
            case _:
                path, values, body = f"/session/{record.id}", None, None
        sent = time.monotonic()
        reply = await self._send(client, method, path, body)
        revision = 0 if values is None else before.revision + 1
        if reply is None or reply.uncertain:
            self.counts.uncertain += 1
            record.writes.append(Write(values, revision, sent, inf))
        elif reply.unavailable:
            self.counts.refused += 1
        else:
            assert reply.status == status, (reply, method, record)
            etag = reply.headers.get("etag", "")
            assert etag == "" or etag not in {write.etag for write in record.writes}, "an ETag came twice"
            record.writes.append(Write(values, revision, sent, time.monotonic(), etag))
            if method in ("POST", "PATCH"):
                assert values is not None
                assert lines(values) in reply.raw, (reply, record)
            self.counts.acknowledged += 1

    async def hold(self, origin: str = "", *, lost_after: float = inf) -> list[Write]:
        """Hold the store to what was acknowledged; returns what is missing.

        Only what was answered after `lost_after` may be, and only as the tail of all that was written.
        """
        readers = [Client(origin or self.origin, self.key) for _ in range(self._clients)]
        shares = [self._look(reader, self.records[first :: len(readers)]) for first, reader in enumerate(readers)]
        found = parted([shown for share in await asyncio.gather(*shares) for shown in share])
        lost = [write for record, at in found for write in record.writes[at + 1 :] if write.answered != inf]
        assert all(write.answered > lost_after for write in lost), (lost, lost_after)
        there = {record.id for record, at in found if record.writes[at].values is not None}
        assert sorted([session_id async for session_id in self._all(readers[0])]) == sorted(there)
        for reader in readers:
            reader.close()
        return lost

    async def _look(self, client: Client, records: Iterable[Record]) -> list[tuple[Record, list[int]]]:
        """Which of its writes each session may show: one that is not there may be so since any of its deletions."""
        shown = []
        for record in records:
            reply = await client.send("GET", f"/session/{record.id}")
            shown.append((record, [at for at, write in enumerate(record.writes) if is_state(reply, write)]))
            assert shown[-1][1], (reply, record)
        return shown

    async def _all(self, client: Client) -> AsyncIterator[str]:
        cursor = ""
        while True:
            page = (await client.send("GET", f"/session?limit=200&cursor={cursor}")).data
            for item in page["items"]:
                yield item["id"]
            if not page["has_more"]:
                return
            cursor = page["next_cursor"]


@asynccontextmanager
async def storm(origin: str, key: str, *, clients: int = 6, seed: int = 0, fresh: bool = False) -> AsyncIterator[Storm]:
    """A storm that runs as long as the block."""
    made = Storm(origin, key, clients=clients, seed=seed, fresh=fresh)
    made.brew()
    try:
        yield made
    finally:
        await made.end()


def parted(shown: list[tuple[Record, list[int]]]) -> list[tuple[Record, int]]:
    """The last write that is there of each session: one moment, the latest that can be, parts them from all that is missing.

    A write was done at some time between its being sent and its answer.
    """

    def last(record: Record, places: list[int], moment: float) -> int | None:
        after = [*record.writes[1:], Write(None, 0, inf, inf)]
        return max((at for at in places if record.writes[at].sent <= moment <= after[at].answered), default=None)

    for moment in sorted({record.writes[at].sent for record, places in shown for at in places}, reverse=True):
        found = [(record, last(record, places, moment)) for record, places in shown]
        if all(at is not None for _, at in found):
            return [(record, at) for record, at in found if at is not None]
    raise AssertionError("what is missing is not the tail of all that was written", shown)


def spelled(values: Values) -> bytes:
    """A JSON object of values as they are written."""
    return ("{" + ",".join(f"{json.dumps(key)}:{value}" for key, value in values.items()) + "}").encode()


def merged(values: Values, changes: Values) -> Values:
    """PATCH, as the contract says it: null removes."""
    return {key: value for key, value in (values | changes).items() if changes.get(key) != "null"}


def is_state(reply: Reply, write: Write) -> bool:
    """Whether an answer shows the session as `write` left it, to the byte."""
    if write.values is None or reply.status == 404:
        return write.values is None and reply.status == 404
    assert reply.status == 200, reply
    shown = reply.data["revision"] == write.revision and lines(write.values) in reply.raw
    return shown and write.etag in ("", reply.headers["etag"])


def is_item(item: dict[str, Any] | None, write: Write) -> bool:
    """Whether an item of a list shows the session as `write` left it."""
    if item is None or write.values is None:
        return item is None and write.values is None
    return bool(item["revision"] == write.revision and item["configs"] == json.loads(spelled(write.values)))
