"""The end of a worker: it waits for pending connections and for their first requests, and not for longer than it may."""

import asyncio
import itertools
import socket
from collections.abc import Iterable, Iterator
from typing import cast

import pytest

from service.http import app
from service.http.server.connections import Server


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
