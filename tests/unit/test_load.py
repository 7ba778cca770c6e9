"""The places at which a worker works: as many as there are, in turn, and none is lost."""

import asyncio
from argparse import Namespace
from typing import Any, cast

import pytest

from service.http.load import AT_ONCE, Load
from service.http.protocol import Protocol
from service.http.server import LONGEST_PAUSE, REFUSALS, Server
from service.settings import Settings


def full(load: Load) -> None:
    for _ in range(AT_ONCE):
        assert load.begin() is None


async def test_beyond_the_places_turns_come_in_the_order_of_asking() -> None:
    load = Load(1000)
    full(load)
    turns = [load.begin() for _ in range(5)]
    for number, turn in enumerate(turns):
        assert [other is not None and other.done() for other in turns] == [before < number for before in range(5)]
        load.end()
        assert turn is not None
        assert turn.done()
    for _ in range(AT_ONCE):
        load.end()
    full(load)
    assert load.begin() is not None


async def test_a_turn_that_was_given_up_is_passed_over() -> None:
    load = Load(1000)
    full(load)
    gone, next_one = load.begin(), load.begin()
    assert gone is not None
    assert next_one is not None
    gone.cancel()
    load.end()
    assert next_one.done()


async def test_what_waits_for_its_body_takes_no_place_and_does_not_count() -> None:
    load = Load(AT_ONCE)
    full(load)
    load.in_hand = AT_ONCE + 1
    turn = load.begin()
    seen = [load.over]
    async with load.receiving():
        assert turn is not None
        assert turn.done()
        seen.append(load.over)
        load.end()
    assert [*seen, load.over] == [True, False, True]


async def test_who_comes_back_with_a_body_waits_for_a_turn() -> None:
    load = Load(AT_ONCE)
    full(load)
    come = asyncio.Event()

    async def receive() -> None:
        async with load.receiving():
            await come.wait()

    receiving = asyncio.create_task(receive())
    await asyncio.sleep(0)
    assert load.begin() is None  # the place that it left
    come.set()
    await asyncio.sleep(0)
    assert not receiving.done()
    load.end()
    await receiving


async def test_refusals_have_a_rate_of_their_own_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    over = asyncio.Event()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await over.wait()

    server = Server(cast("Any", Namespace()), Settings(), Protocol)
    monkeypatch.setattr("service.http.server.asyncio.sleep", sleep)
    count = int(REFUSALS * LONGEST_PAUSE) + 10
    tasks = [asyncio.create_task(server.pause()) for _ in range(count)]
    while len(pauses) < count:
        await asyncio.wait(tasks, timeout=0)
    over.set()
    await asyncio.gather(*tasks)
    assert pauses == [min(number / REFUSALS, LONGEST_PAUSE) for number in range(1, count + 1)]
    await server.pause()
    assert pauses[-1] == 1 / REFUSALS
