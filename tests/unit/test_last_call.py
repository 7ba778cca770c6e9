"""The end of a worker: it waits for pending connections and for their first requests, and not for longer than it may."""

import asyncio
import itertools
import socket
from collections.abc import Iterable, Iterator
from typing import cast

import pytest

from service.http import app
from service.http.server.connections import Server
from service.process.listeners import has_pending, open_listeners


class FakeServer:
    """A server whose connections wait for their first requests as often as the test says."""

    def __init__(self, awaits: Iterable[bool]) -> None:
        self._awaits = iter(awaits)

    def awaits_first_request(self) -> bool:
        return next(self._awaits)


async def last_call(monkeypatch: pytest.MonkeyPatch, pending: Iterator[bool], awaits: Iterator[bool], seconds: float) -> None:
    monkeypatch.setattr(app, "LAST_CALL", 0.01)
    monkeypatch.setattr(app, "has_pending", lambda _: next(pending))
    server, listener = cast("Server", FakeServer(awaits)), cast("socket.socket", None)
    await app._last_call(server, listener, seconds)


NEVER, ALWAYS = itertools.repeat(False), itertools.repeat(True)  # noqa: FBT003 - positional only


@pytest.mark.parametrize("what", ["pending connections", "first requests"])
async def test_it_waits_until_none_is_left(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    answers = iter([True, True, True, False])
    pending, awaits = (answers, NEVER) if what == "pending connections" else (NEVER, answers)
    await last_call(monkeypatch, pending, awaits, 60)
    assert list(answers) == []


@pytest.mark.parametrize(("pending", "awaits"), [(ALWAYS, NEVER), (NEVER, ALWAYS)])
async def test_it_waits_no_longer_than_it_may(
    monkeypatch: pytest.MonkeyPatch, pending: Iterator[bool], awaits: Iterator[bool]
) -> None:
    async with asyncio.timeout(30):
        await last_call(monkeypatch, pending, awaits, 0.1)


class IdleServer:
    """A server of which, at each check, one connection less is open."""

    def __init__(self, connections: int, *, is_last_one_idle: bool) -> None:
        self._connections = connections
        self._minimum = int(is_last_one_idle)

    @property
    def open_connections(self) -> int:
        self._connections = max(self._connections - 1, self._minimum)
        return self._connections


async def serve_idle(monkeypatch: pytest.MonkeyPatch, server: IdleServer, hurry: asyncio.Event, seconds: float) -> None:
    monkeypatch.setattr(app, "LAST_CALL", 0.01)
    async with asyncio.timeout(60):
        await app.serve_idle(cast("Server", server), hurry, seconds)


async def test_a_process_with_a_successor_waits_until_every_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    server = IdleServer(5, is_last_one_idle=False)
    await serve_idle(monkeypatch, server, asyncio.Event(), 3600)
    assert server.open_connections == 0


async def test_it_waits_for_no_idle_connection_for_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    await serve_idle(monkeypatch, IdleServer(5, is_last_one_idle=True), asyncio.Event(), 0.05)
    await serve_idle(monkeypatch, IdleServer(5, is_last_one_idle=True), asyncio.Event(), 0.0)


async def test_a_stop_ends_the_wait_for_idle_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, hurry.set)
    await serve_idle(monkeypatch, IdleServer(5, is_last_one_idle=True), hurry, 3600)


def test_a_listener_that_is_closed_has_no_pending_connections() -> None:
    (listener,) = open_listeners("127.0.0.1", 0, 1)
    assert not has_pending(listener)
    listener.close()
    assert not has_pending(listener)
