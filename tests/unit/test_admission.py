"""Admission control as a model: projects take turns, no place is lost, and nobody waits while one is free."""

import asyncio
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.errors import Overloaded
from service.http.server.admission import CONCURRENCY, AdmissionControl, Ticket
from service.http.server.connections import LONGEST_DELAY, REFUSALS, Server
from service.http.server.protocol import Protocol
from service.settings import Settings

PROJECTS = ("acme", "bolt", "core", "")


class Request:
    """One request as the dispatch handles it: `finish` ends its work, `body` its body."""

    def __init__(self, control: AdmissionControl, project: str) -> None:
        self.ticket = Ticket(project)
        self.finish = asyncio.Event()
        self.state = "waiting"
        self.task = asyncio.create_task(self._run(control))

    async def _run(self, control: AdmissionControl) -> None:
        try:
            if not control.acquire(self.ticket):
                await control.wait(self.ticket)
            self.state = "working"
            await self.finish.wait()
            self.state = "done"
        except Overloaded:
            self.state = "refused"
        finally:
            control.release(self.ticket)


async def settle() -> None:
    """Let every task go on until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def arrive(control: AdmissionControl, project: str, count: int = 1) -> list[Request]:
    """So many requests of a project that come in; those that are refused at the door are none."""
    requests = []
    for _ in range(count):
        if control.make_room(project):
            requests.append(Request(control, project))
            await settle()
    return requests


async def end(*requests: Request) -> None:
    for request in requests:
        request.finish.set()
        await settle()


async def settled(request: Request) -> bool:
    """Whether a request has a place once all have gone on."""
    await settle()
    return request.ticket.is_active


def states(requests: list[Request]) -> Counter[str]:
    return Counter(request.state for request in requests)


class Model(RuleBasedStateMachine):
    """Any order of arrivals, ends and cancellations, also several before the event loop has run."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.max_in_flight = 16
        self.control = AdmissionControl(self.max_in_flight)
        self.places = self.control._free
        self.requests: list[Request] = []
        #: Places that went to others since each project, with less than its half, has waited.
        self.passed_over: Counter[str] = Counter()
        self.most_waiting: Counter[str] = Counter()

    def those(self, state: str) -> list[Request]:
        return [request for request in self.requests if request.state == state and not request.task.done()]

    def act(self, action: Callable[[], object]) -> None:
        """Run `action` and the event loop, and look at who got a place."""
        waiting = self.those("waiting")
        before = {request.ticket.project: request for request in waiting}
        share = {project: sum(each.ticket.project == project for each in self.those("working")) for project in PROJECTS}
        self.runner.run(settle_after(action))
        granted = [request for request in waiting if request.state == "working"]
        for project in before:
            self.most_waiting[project] = max(self.most_waiting[project], len(before))
            if any(request.ticket.project == project for request in granted):
                self.passed_over[project] = self.most_waiting[project] = 0
            elif share[project] < self.places // 2:
                self.passed_over[project] += len(granted)
        others = {request.ticket.project for request in self.those("waiting")}
        for project in {request.ticket.project for request in granted}:
            if others - {project}:
                assert sum(each.ticket.project == project for each in self.those("working")) <= (self.places + 1) // 2
        for project in set(PROJECTS) - {request.ticket.project for request in self.those("waiting")}:
            self.passed_over[project] = self.most_waiting[project] = 0

    @rule(project=st.sampled_from(PROJECTS), count=st.integers(1, 4))
    def come(self, project: str, count: int) -> None:
        for _ in range(count):
            counts = Counter(request.ticket.project for request in self.those("waiting") + self.those("working"))
            made_room = False

            def enter() -> None:
                nonlocal made_room
                made_room = self.control.make_room(project)
                if made_room:
                    self.requests.append(Request(self.control, project))

            self.act(enter)
            if counts.total() < self.max_in_flight:
                assert made_room
            refused = [request for request in self.requests if request.state == "refused"]
            for request in refused:
                assert counts[request.ticket.project] > self.max_in_flight // 2
                assert request.ticket.project != project
            self.requests = [request for request in self.requests if request.state != "refused"]

    @precondition(lambda self: self.those("working"))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.act(data.draw(st.sampled_from(self.those("working"))).finish.set)

    @precondition(lambda self: self.those("waiting"))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.act(data.draw(st.sampled_from(self.those("waiting"))).task.cancel)

    @precondition(lambda self: self.those("waiting") and self.those("working"))
    @rule(data=st.data(), first=st.booleans())
    def cancel_at_the_grant(self, data: st.DataObject, first: bool) -> None:
        """A place becomes free and a request that waits is cancelled before the event loop has run in between."""
        steps: list[Callable[[], object]] = [
            data.draw(st.sampled_from(self.those("waiting"))).task.cancel,
            partial(self.leave, data.draw(st.sampled_from(self.those("working")))),
        ]
        self.act(lambda: [step() for step in (steps if first else reversed(steps))])

    def leave(self, request: Request) -> None:
        request.state = "done"
        self.control.release(request.ticket)

    @invariant()
    def no_place_is_lost_and_nobody_waits_for_a_free_one(self) -> None:
        active = Counter(request.ticket.project for request in self.requests if request.ticket.is_active)
        waiting = Counter(request.ticket.project for request in self.those("waiting"))
        control = self.control
        assert control._active == active
        assert control._free == self.places - active.total() >= 0
        assert {project: len(queue) for project, queue in control._waiting.items()} == waiting
        assert control._admitted == active.total() + waiting.total()
        assert not (waiting and control._free)

    @invariant()
    def nobody_is_passed_over_by_more_than_the_projects_that_wait(self) -> None:
        for project, count in self.passed_over.items():
            assert count <= max(1, self.most_waiting[project])

    def teardown(self) -> None:
        async def all_end() -> None:
            for request in self.requests:
                request.task.cancel()
            await asyncio.gather(*(request.task for request in self.requests), return_exceptions=True)

        self.runner.run(all_end())
        self.runner.close()
        assert (self.control._active, self.control._waiting, self.control._admitted) == ({}, {}, 0)
        assert self.control._free == self.places


async def settle_after(action: Callable[[], object]) -> None:
    action()
    await settle()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


async def test_one_project_takes_all_places_and_its_requests_go_in_order() -> None:
    control = AdmissionControl(1000)
    requests = await arrive(control, "acme", CONCURRENCY + 5)
    assert states(requests) == {"working": CONCURRENCY, "waiting": 5}
    for number, last in enumerate(requests[CONCURRENCY:]):
        await end(requests[number])
        assert last.state == "working"
    await end(*requests)
    assert control.acquire(Ticket("acme"))


async def test_a_request_of_another_project_passes_all_that_one_project_has_waiting() -> None:
    control = AdmissionControl(1000)
    many = await arrive(control, "acme", 400)
    (other,) = await arrive(control, "bolt")
    await end(many[0])
    # The turn of acme came first, but it has more than its half.
    assert other.state == "working"
    await end(other, *many)


async def test_while_others_wait_a_project_has_at_most_half_of_the_places() -> None:
    control = AdmissionControl(1000)
    first, second = await arrive(control, "acme", 100), await arrive(control, "bolt", 100)
    for request in first[:CONCURRENCY]:
        await end(request)
        if states(second)["working"] == CONCURRENCY // 2:
            break
    working = [states(requests)["working"] for requests in (first, second)]
    assert working == [CONCURRENCY // 2, CONCURRENCY // 2]
    await end(*first, *second)


async def test_keys_that_are_not_known_share_one_turn() -> None:
    control = AdmissionControl(1000)
    full, unknown = await arrive(control, "acme", CONCURRENCY), await arrive(control, "", 100)
    (known,) = await arrive(control, "bolt")
    await end(full[0], full[1])
    assert (states(unknown)["working"], known.state) == (1, "working")
    await end(known, *full, *unknown)


async def test_a_project_with_more_than_half_of_what_is_in_flight_makes_room_for_another() -> None:
    control = AdmissionControl(200)
    many = await arrive(control, "acme", 300)
    assert len(many) == 200
    others = await arrive(control, "bolt", 120)
    # The newest of those that waited were refused; the others keep their turns.
    assert [request.state for request in many] == ["working"] * CONCURRENCY + ["waiting"] * 36 + ["refused"] * 100
    assert len(others) == 100
    assert not control.make_room("acme")
    assert not control.make_room("core")
    assert not control.make_room("")
    await end(*many, *others)


async def test_nobody_makes_room_for_keys_that_are_not_known_and_those_make_room_for_everybody() -> None:
    control = AdmissionControl(200)
    known = await arrive(control, "acme", 200)
    assert not control.make_room("")
    await end(*known)
    unknown = await arrive(control, "", 200)
    assert control.make_room("acme")
    await settle()
    assert unknown[-1].state == "refused"
    await end(*unknown)


async def test_what_waits_for_its_body_takes_no_place_and_does_not_count() -> None:
    control = AdmissionControl(100)
    (first,) = await arrive(control, "acme")
    others = await arrive(control, "acme", 99)
    overloaded = [control.is_overloaded]
    async with control.receiving(first.ticket):
        assert not first.ticket.is_active
        overloaded.append(control.is_overloaded)
        assert len(await arrive(control, "acme", 2)) == 1
        await end(*others)
    assert await settled(first)
    assert overloaded == [True, False]
    await end(first)


@pytest.mark.parametrize("max_in_flight", [1, 2, 3, 10, 64, 100])
async def test_however_few_requests_there_may_be_one_is_worked_at(max_in_flight: int) -> None:
    control = AdmissionControl(max_in_flight)
    requests = await arrive(control, "acme", max_in_flight + 1)
    assert len(requests) == max_in_flight
    assert 1 <= states(requests)["working"] <= CONCURRENCY
    if max_in_flight > 1:
        assert len(await arrive(control, "bolt")) == 1
    await end(*requests)


async def test_a_request_that_was_cancelled_after_its_body_leaves_no_place_twice() -> None:
    control = AdmissionControl(1000)
    come = asyncio.Event()
    ticket = Ticket("acme")

    async def work() -> None:
        try:
            assert control.acquire(ticket)
            async with control.receiving(ticket):
                await come.wait()
        finally:
            control.release(ticket)

    free = control._free
    task = asyncio.create_task(work())
    await settle()
    full = await arrive(control, "acme", CONCURRENCY)
    come.set()
    await settle()
    task.cancel()
    await settle()
    await end(*full)
    assert (control._free, control._admitted) == (free, 0)


async def test_refusals_have_a_rate_of_their_own_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []
    over = asyncio.Event()

    async def sleep(seconds: float) -> None:
        delays.append(seconds)
        await over.wait()

    server = Server(cast("Any", Namespace()), Settings(), Protocol)
    monkeypatch.setattr("service.http.server.connections.asyncio.sleep", sleep)
    count = int(REFUSALS * LONGEST_DELAY) + 10
    tasks = [asyncio.create_task(server.throttle()) for _ in range(count)]
    while len(delays) < count:
        await asyncio.wait(tasks, timeout=0)
    over.set()
    await asyncio.gather(*tasks)
    assert delays == [min(number / REFUSALS, LONGEST_DELAY) for number in range(1, count + 1)]
    await server.throttle()
    assert delays[-1] == 1 / REFUSALS
