"""A process beats once it accepts connections: from then on its predecessor may end."""

import asyncio
import os
from collections.abc import Iterator
from typing import NoReturn

import pytest

from service.http import app
from service.http.admin import server as admin
from service.process.listeners import open_listeners
from service.process.slots import Slots
from service.process.workers import Supervision
from service.settings import Settings

SETTINGS = Settings(redis_url="redis://localhost:1", root_token="root", key_secret="a secret")


class _PortLostError(Exception):
    """What ends the process of the test."""


@pytest.fixture
def supervision() -> Iterator[tuple[Supervision, list[None]]]:
    """A connection to no supervisor, and a list with an element for each beat."""
    beats: list[None] = []
    reader, writer = os.pipe()
    yield Supervision(lambda: beats.append(None), reader), beats
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("name", ["worker", "admin server"])
def test_a_process_that_cannot_accept_connections_has_not_beaten(
    monkeypatch: pytest.MonkeyPatch, supervision: tuple[Supervision, list[None]], name: str
) -> None:
    async def start(_: object) -> NoReturn:
        await asyncio.sleep(0.01)
        raise _PortLostError

    monkeypatch.setattr("aiohttp.web.SockSite.start", start)
    connection, beats = supervision
    (listener,) = open_listeners("127.0.0.1", 0, 1)
    if name == "worker":
        serving = app._serve(SETTINGS, listener, connection)
    else:
        serving = admin._serve(SETTINGS, Slots(1, app.LAYOUT.words), listener, connection)
    with listener, pytest.raises(_PortLostError):
        asyncio.run(serving)
    assert beats == []
