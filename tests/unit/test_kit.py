"""The test kit itself: what its clients and models must notice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import pytest

from tests.support import http_client
from tests.support.access import Missing, Snapshot
from tests.support.http_client import Client, ConnectionLost, NotSent, Request, Response, Violation
from tests.support.model import lines, merged, spans
from tests.support.record import Record, Write, latest_consistent_cut
from tests.support.workload import Workload

PING = Request("GET", "/ping")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"


@asynccontextmanager
async def client_of(*responses: bytes, stays_open: bool = False) -> AsyncIterator[Client]:
    """A client of a server that sends one of `responses` to each request, and then closes the connection."""
    handlers: list[asyncio.Task[None]] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for response in responses:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(response)
            if stays_open:
                await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.create_task(respond(reader, writer)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "key")
    async with server:
        yield client
        client.close()
        # Before Python 3.12 a server that is closed leaves its connections open.
        await asyncio.gather(*handlers, return_exceptions=True)


async def test_a_client_says_whether_the_connection_that_broke_was_reused() -> None:
    async with client_of(OK + b"\r\n{}") as client:
        assert (await client.send(PING)).raw == b"{}"
        with pytest.raises(ConnectionLost) as on_reused:
            await client.send(PING)
        assert on_reused.value.reused
    for part in (b"", b"HTTP"):
        async with client_of(part) as client:
            with pytest.raises(ConnectionLost) as on_new:
                await client.send(PING)
            assert not on_new.value.reused
    with pytest.raises(NotSent):
        await client.send(PING)


async def test_a_response_that_does_not_come_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "MAX_RESPONSE_TIME", 0.1)
    async with client_of(OK, stays_open=True) as client:
        with pytest.raises(Violation, match="no response within"):
            await client.send(PING)


async def test_a_server_that_announces_to_close_a_connection_must_close_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with client_of(OK + b"Connection: close\r\n\r\n{}") as client:
        assert (await client.send(PING)).status == 200
    async with client_of(OK + b"Connection: close\r\n\r\n{}more") as client:
        with pytest.raises(Violation, match="more than the response"):
            await client.send(PING)
    monkeypatch.setattr(http_client, "MAX_RESPONSE_TIME", 0.1)
    async with client_of(OK + b"Connection: close\r\n\r\n{}", stays_open=True) as client:
        with pytest.raises(Violation, match="no response within"):
            await client.send(PING)


def test_only_a_503_in_its_documented_form_is_unavailable() -> None:
    body = b'{"code":503,"msg":"x","reason":"store_unavailable"}'
    assert Response(503, {"retry-after": "1"}, body).is_unavailable
    assert not Response(404, {}, b"").is_unavailable
    for response in (
        Response(503, {}, body),
        Response(503, {"retry-after": "0"}, body),
        Response(503, {"retry-after": "1"}, b'{"code":503,"msg":"x"}'),
        Response(503, {"retry-after": "1"}, b"busy"),
        Response(500, {"retry-after": "1"}, body),
    ):
        with pytest.raises(Violation, match="answered 50"):
            _ = response.is_unavailable


def record(*values: str | None, answered: float = 0.0) -> Record:
    """A session with these values of `a`, each written in a different second."""
    result = Record("id", 0)
    for number, value in enumerate(values, 1):
        state = None if value is None else {"a": value}
        result.acknowledge(Write(state, number if state else 0, number, answered or number + 0.5))
    return result


def snapshot(value: str, revision: int) -> Snapshot:
    return Snapshot(revision, b'{\n"a":%b\n}' % value.encode(), "")


def test_a_record_has_one_possible_state_until_a_write_may_have_happened() -> None:
    written = record("1", "1.0")
    written.check(snapshot("1.0", 2))
    for wrong in (snapshot("1", 2), snapshot("1.0", 1), snapshot("1.00", 2), None):
        with pytest.raises(Violation, match="no possible state"):
            written.check(wrong)
    written.may_have([Write({"a": "2"}, 3, 3.0, inf)])
    assert written.is_indeterminate
    written.check(snapshot("1.0", 2))
    written.check(snapshot("2", 3))


def test_an_etag_that_comes_twice_is_a_violation() -> None:
    written = record("1")
    written.acknowledge(Write({"a": "2"}, 2, 2.0, 2.5, "1-2"))
    with pytest.raises(Violation, match="twice"):
        written.acknowledge(Write({"a": "3"}, 3, 3.0, 3.5, "1-2"))


def test_only_the_tail_of_all_writes_may_be_lost() -> None:
    first, second = record("1", "2", "3"), record("1", "2", "3")
    # The store has one write of the first session and two of the second: 2 was sent when the other's 2 was not yet answered.
    assert latest_consistent_cut([(first, [1]), (second, [2])]) == [(first, 1), (second, 2)]
    with pytest.raises(Violation, match="not the tail"):
        latest_consistent_cut([(first, [1]), (second, [3])])


class MemoryAccess:
    """Sessions in a dict: revision and members. Of all writes, number `loses` is acknowledged and not made."""

    def __init__(self, sessions: dict[str, tuple[int, dict[str, str]]], loses: int = 0) -> None:
        self.sessions = sessions
        self._loses = loses
        self._writes = 0

    def close(self) -> None:
        """Nothing to close."""

    async def create(self, session_id: str, user: str, text: bytes) -> Snapshot:
        assert user
        return self._write(session_id, 1, spans(text.decode()))

    async def replace(self, session_id: str, text: bytes) -> Snapshot:
        revision, _ = await self._session(session_id)
        return self._write(session_id, revision + 1, spans(text.decode()))

    async def patch(self, session_id: str, text: bytes) -> Snapshot:
        revision, members = await self._session(session_id)
        return self._write(session_id, revision + 1, merged(members, spans(text.decode())))

    async def delete(self, session_id: str) -> None:
        await self._session(session_id)
        del self.sessions[session_id]

    async def get(self, session_id: str) -> Snapshot:
        revision, members = await self._session(session_id)
        return Snapshot(revision, lines(members), "")

    async def find(self, text: bytes) -> dict[str, Snapshot]:
        wanted = spans(text.decode()).items()
        return {
            name: Snapshot(revision, lines(members), "")
            for name, (revision, members) in self.sessions.items()
            if wanted <= members.items()
        }

    async def list_ids(self) -> list[str]:
        return list(self.sessions)

    async def _session(self, session_id: str) -> tuple[int, dict[str, str]]:
        await asyncio.sleep(0)
        if session_id not in self.sessions:
            raise Missing
        return self.sessions[session_id]

    def _write(self, session_id: str, revision: int, members: dict[str, str]) -> Snapshot:
        self._writes += 1
        if self._writes != self._loses:
            self.sessions[session_id] = revision, members
        return Snapshot(revision, lines(members), "")


async def run_workload(access: MemoryAccess) -> Workload:
    async with Workload(lambda: access, clients=3) as workload:
        await workload.wait_for("acknowledged", 300)
        await workload.wait_for("reads", 100)
    return workload


async def test_a_workload_finds_nothing_wrong_with_a_store_that_keeps_every_write() -> None:
    access = MemoryAccess({})
    workload = await run_workload(access)
    assert await workload.verify() == []
    lost = next(iter(access.sessions))
    del access.sessions[lost]
    with pytest.raises(Violation, match="no possible state"):
        await workload.verify()
    access.sessions[lost] = (1, {})
    with pytest.raises(Violation, match="no possible state"):
        await workload.verify()


async def test_a_workload_finds_a_session_that_nobody_created() -> None:
    access = MemoryAccess({})
    workload = await run_workload(access)
    access.sessions["other"] = (1, {"owner": "7"})
    with pytest.raises(Violation, match="the list of all sessions"):
        await workload.verify()


async def test_a_workload_finds_an_acknowledged_write_that_was_not_made() -> None:
    with pytest.raises(Violation):
        await run_workload(MemoryAccess({}, loses=20))
