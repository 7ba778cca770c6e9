"""A forked process: what is left where the system forks none, and what the events of its end say."""

import asyncio
import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest

from service.http.app import end_events
from service.process import workers
from service.process.heartbeat import Heartbeat
from service.process.parent_death import ParentPipe
from service.process.slots import FIRST_COUNTER, RESTARTS, Slots
from service.process.workers import CHILD_SIGNALS, RETIRE, Signals, Supervision, WorkerProcess
from service.settings import Settings
from tests.support.server import until

COUNT = 2


@pytest.fixture
def slots() -> Slots:
    return Slots(COUNT, FIRST_COUNTER)


@contextmanager
def handlers_kept() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (*CHILD_SIGNALS, signal.SIGCHLD)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def process(slots: Slots) -> Iterator[WorkerProcess]:
    """One that exits immediately."""
    pipe = ParentPipe()
    with handlers_kept(), Signals() as signals:
        yield WorkerProcess("worker 1", lambda _: None, Settings(), signals, pipe, slots=slots)
    pipe.close()


def no_fork() -> NoReturn:
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


class NoMemory(Heartbeat):
    def __init__(self) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")


def make_start_fail(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    if call == "fork":
        monkeypatch.setattr(os, "fork", no_fork)
    else:
        monkeypatch.setattr(workers, "Heartbeat", NoMemory)


def restarts(slots: Slots) -> int:
    return sum(slot[RESTARTS] for slot in slots)


@pytest.mark.parametrize("call", ["fork", "mmap"])
def test_a_start_that_fails_keeps_no_slot_and_blocks_no_signal(
    monkeypatch: pytest.MonkeyPatch, process: WorkerProcess, slots: Slots, call: str
) -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with monkeypatch.context() as patch:
        make_start_fail(patch, call)
        for _ in range(COUNT + 1):
            with pytest.raises(OSError, match=r"memory|unavailable"):
                process.start()
            process.kill_if_hung(1e9)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked
    assert len([slots.take() for _ in range(COUNT)]) == COUNT


@pytest.mark.parametrize("call", ["fork", "mmap"])
def test_only_a_restart_that_starts_something_counts(
    monkeypatch: pytest.MonkeyPatch, process: WorkerProcess, slots: Slots, call: str
) -> None:
    process.start()
    until(process.exit_reason, "the end of the process")
    with monkeypatch.context() as patch:
        make_start_fail(patch, call)
        for _ in range(3):
            with pytest.raises(OSError, match=r"memory|unavailable"):
                process.restart()
    assert (restarts(slots), process.exit_reason()) == (0, "exit status 0")
    process.restart()
    assert restarts(slots) == 1
    until(process.exit_reason, "the end of the process")


@pytest.mark.parametrize(
    ("numbers", "hurries"),
    [
        ([signal.SIGTERM], True),
        ([signal.SIGINT], True),
        ([RETIRE], False),
        ([RETIRE, RETIRE], False),
        ([RETIRE, signal.SIGTERM], True),
    ],
)
async def test_a_process_hurries_unless_it_was_only_replaced(numbers: list[signal.Signals], hurries: bool) -> None:
    loop = asyncio.get_running_loop()
    reader, writer = os.pipe()
    with handlers_kept():
        events = end_events(Supervision(lambda: None, reader))
        assert not events.end.is_set()
        for number in numbers:
            os.kill(os.getpid(), number)
            async with asyncio.timeout(60):
                await events.end.wait()
        if hurries:
            async with asyncio.timeout(60):
                await events.hurry.wait()
        assert (events.end.is_set(), events.hurry.is_set()) == (True, hurries)
        for name in (signal.SIGTERM, signal.SIGINT, RETIRE):
            loop.remove_signal_handler(name)
        loop.remove_reader(reader)
    os.close(reader)
    os.close(writer)
