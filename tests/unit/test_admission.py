"""Admission control as a state machine: projects take turns, no slot is lost, and no request waits while one is free."""

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
    """One request as the dispatch handles it, until `finish` is set."""

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
    """Run every task until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def arrive(control: AdmissionControl, project: str, count: int = 1) -> list[Request]:
    """Send `count` requests of a project; returns those that were not refused immediately."""
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
    """Whether a request has a slot once all tasks wait."""
    await settle()
    return request.ticket.is_active


def states(requests: list[Request]) -> Counter[str]:
    return Counter(request.state for request in requests)


class Model(RuleBasedStateMachine):
    """Any order of arrivals, completions and cancellations, also several before the event loop has run."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.max_in_flight = 16
        self.control = AdmissionControl(self.max_in_flight)
        self.slots = self.control._free
        self.requests: list[Request] = []
        #: Slots granted to others while each project, with less than half of the slots, waited.
        self.passed_over: Counter[str] = Counter()
        self.most_waiting: Counter[str] = Counter()

    def those(self, state: str) -> list[Request]:
        return [request for request in self.requests if request.state == state and not request.task.done()]

    def act(self, action: Callable[[], object]) -> None:
        """Run `action` and the event loop, and record which requests got a slot."""
        waiting = self.those("waiting")
        before = {request.ticket.project: request for request in waiting}
        share = {project: sum(each.ticket.project == project for each in self.those("working")) for project in PROJECTS}
        self.runner.run(settle_after(action))
        granted = [request for request in waiting if request.state == "working"]
        for project in before:
            self.most_waiting[project] = max(self.most_waiting[project], len(before))
            if any(request.ticket.project == project for request in granted):
                self.passed_over[project] = self.most_waiting[project] = 0
            elif share[project] < self.slots // 2:
                self.passed_over[project] += len(granted)
        others = {request.ticket.project for request in self.those("waiting")}
        for project in {request.ticket.project for request in granted}:
            if others - {project}:
                assert sum(each.ticket.project == project for each in self.those("working")) <= (self.slots + 1) // 2
        for project in set(PROJECTS) - {request.ticket.project for request in self.those("waiting")}:
            self.passed_over[project] = self.most_waiting[project] = 0

    @rule(project=st.sampled_from(PROJECTS), count=st.integers(1, 4))
    def arrive(self, project: str, count: int) -> None:
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
        """A slot becomes free and a waiting request is cancelled before the event loop runs again."""
        steps: list[Callable[[], object]] = [
            data.draw(st.sampled_from(self.those("waiting"))).task.cancel,
            partial(self.complete, data.draw(st.sampled_from(self.those("working")))),
        ]
        self.act(lambda: [step() for step in (steps if first else reversed(steps))])

    def complete(self, request: Request) -> None:
        request.state = "done"
        self.control.release(request.ticket)

    @invariant()
    def no_slot_is_lost_and_no_request_waits_for_a_free_one(self) -> None:
        active = Counter(request.ticket.project for request in self.requests if request.ticket.is_active)
        waiting = Counter(request.ticket.project for request in self.those("waiting"))
        control = self.control
        assert control._active == active
        assert control._free == self.slots - active.total() >= 0
        assert {project: len(queue) for project, queue in control._waiting.items()} == waiting
        assert control._admitted == active.total() + waiting.total()
        assert not (waiting and control._free)

    @invariant()
    def no_project_is_passed_over_more_often_than_there_are_waiting_projects(self) -> None:
        for project, count in self.passed_over.items():
            assert count <= max(1, self.most_waiting[project])

    def teardown(self) -> None:
        async def cancel_all() -> None:
            for request in self.requests:
                request.task.cancel()
            await asyncio.gather(*(request.task for request in self.requests), return_exceptions=True)

        self.runner.run(cancel_all())
        self.runner.close()
        assert (self.control._active, self.control._waiting, self.control._admitted) == ({}, {}, 0)
        assert self.control._free == self.slots


async def settle_after(action: Callable[[], object]) -> None:
    action()
    await settle()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


async def test_one_project_alone_takes_all_slots_in_order() -> None:
    control = AdmissionControl(1000)
    requests = await arrive(control, "acme", CONCURRENCY + 5)
    assert states(requests) == {"working": CONCURRENCY, "waiting": 5}
    for number, last in enumerate(requests[CONCURRENCY:]):
        await end(requests[number])
        assert last.state == "working"
    await end(*requests)
    assert control.acquire(Ticket("acme"))


async def test_a_request_of_another_project_overtakes_all_waiting_ones_of_a_project() -> None:
    control = AdmissionControl(1000)
    many = await arrive(control, "acme", 400)
    (other,) = await arrive(control, "bolt")
    await end(many[0])
    # It was the turn of acme, but acme has more than half of the slots.
    assert other.state == "working"
    await end(other, *many)


async def test_while_others_wait_a_project_has_at_most_half_of_the_slots() -> None:
    control = AdmissionControl(1000)
    first, second = await arrive(control, "acme", 100), await arrive(control, "bolt", 100)
    for request in first[:CONCURRENCY]:
        await end(request)
        if states(second)["working"] == CONCURRENCY // 2:
            break
    working = [states(requests)["working"] for requests in (first, second)]
    assert working == [CONCURRENCY // 2, CONCURRENCY // 2]
    await end(*first, *second)


async def test_keys_that_are_not_cached_share_one_turn() -> None:
    control = AdmissionControl(1000)
    full, uncached = await arrive(control, "acme", CONCURRENCY), await arrive(control, "", 100)
    (cached,) = await arrive(control, "bolt")
    await end(full[0], full[1])
    assert (states(uncached)["working"], cached.state) == (1, "working")
    await end(cached, *full, *uncached)


async def test_a_project_with_more_than_half_of_the_requests_makes_room_for_another() -> None:
    control = AdmissionControl(200)
    many = await arrive(control, "acme", 300)
    assert len(many) == 200
    others = await arrive(control, "bolt", 120)
    # The newest waiting requests were refused; the others keep their turns.
    assert [request.state for request in many] == ["working"] * CONCURRENCY + ["waiting"] * 36 + ["refused"] * 100
    assert len(others) == 100
    assert not control.make_room("acme")
    assert not control.make_room("core")
    assert not control.make_room("")
    await end(*many, *others)


async def test_no_request_is_refused_for_a_key_that_is_not_cached_and_such_keys_make_room_for_all() -> None:
    control = AdmissionControl(200)
    cached = await arrive(control, "acme", 200)
    assert not control.make_room("")
    await end(*cached)
    uncached = await arrive(control, "", 200)
    assert control.make_room("acme")
    await settle()
    assert uncached[-1].state == "refused"
    await end(*uncached)


async def test_a_request_that_waits_for_its_body_has_no_slot_and_does_not_count() -> None:
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
async def test_even_the_lowest_limit_has_a_slot(max_in_flight: int) -> None:
    control = AdmissionControl(max_in_flight)
    requests = await arrive(control, "acme", max_in_flight + 1)
    assert len(requests) == max_in_flight
    assert 1 <= states(requests)["working"] <= CONCURRENCY
    if max_in_flight > 1:
        assert len(await arrive(control, "bolt")) == 1
    await end(*requests)


async def test_a_request_that_is_cancelled_after_its_body_releases_its_slot_once() -> None:
    control = AdmissionControl(1000)
    received = asyncio.Event()
    ticket = Ticket("acme")

    async def work() -> None:
        try:
            assert control.acquire(ticket)
            async with control.receiving(ticket):
                await received.wait()
        finally:
            control.release(ticket)

    free = control._free
    task = asyncio.create_task(work())
    await settle()
    full = await arrive(control, "acme", CONCURRENCY)
    received.set()
    await settle()
    task.cancel()
    await settle()
    await end(*full)
    assert (control._free, control._admitted) == (free, 0)


async def test_the_rate_of_refusals_is_limited_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []
    elapsed = asyncio.Event()

    async def sleep(seconds: float) -> None:
        delays.append(seconds)
        await elapsed.wait()

    server = Server(cast("Any", Namespace()), Settings(), Protocol)
    monkeypatch.setattr("service.http.server.connections.asyncio.sleep", sleep)
    count = int(REFUSALS * LONGEST_DELAY) + 10
    tasks = [asyncio.create_task(server.throttle()) for _ in range(count)]
    while len(delays) < count:
        await asyncio.wait(tasks, timeout=0)
    elapsed.set()
    await asyncio.gather(*tasks)
    assert delays == [min(number / REFUSALS, LONGEST_DELAY) for number in range(1, count + 1)]
    await server.throttle()
    assert delays[-1] == 1 / REFUSALS
