"""The pool of workers: what it does in which order when the settings change. Clock and processes are the test's."""

import errno
import math
import signal
from functools import partial
from typing import cast

import pytest

from service.process.worker_pool import DRAIN_GRACE, MAX_PROCESSES, WorkerPool
from service.process.workers import IDLE_GRACE, MAX_DELAY, RETIRE, WorkerProcess
from service.settings import Settings

OLD, NEW, NEWEST = Settings(max_keys=1), Settings(max_keys=2), Settings(max_keys=3)


class FakeWorker:
    """A process that the test starts, runs and ends."""

    def __init__(self, number: int, settings: Settings) -> None:
        self.name = f"worker {number}"
        self.settings = settings
        self.runs = False
        self.refuses = False
        self.starts = 0
        self.end: str | None = "not started"
        self.received: list[signal.Signals] = []

    def start(self) -> None:
        if self.refuses:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        self.starts += 1
        self.end = None

    def restart(self) -> None:
        self.start()

    def exit_reason(self) -> str | None:
        return self.end

    def send(self, number: signal.Signals) -> None:
        self.received.append(number)

    def kill_if_hung(self, now: float) -> None:
        pass


class Pool(WorkerPool):
    """A pool of `count` fake workers, which have started."""

    def __init__(self, count: int = 2, settings: Settings = OLD) -> None:
        self.made: list[FakeWorker] = []
        self.logs: list[Settings] = []
        self.refuses = ""  # what raises an error: "make" or "start"
        super().__init__([partial(self._fake, number) for number in range(count)], settings, self.logs.append)
        self.start(0.0)

    @property
    def current(self) -> list[FakeWorker]:
        return cast("list[FakeWorker]", self.processes)

    def run_next(self, now: float) -> None:
        """Start one replacement and let it run; its predecessor exits."""
        self.poll(now)
        self.made[-1].runs = True
        self.poll(now)
        for worker in self.made:
            if worker.received:
                worker.end = "exit status 0"

    def fail_next(self, problem: str, now: float) -> None:
        """The next replacement exits, or cannot be started: "make" or "start" raises an error of the system."""
        self.refuses = "" if problem == "exits" else problem
        self.poll(now)
        if problem == "exits":
            self.made[-1].end = "exit status 1"
            self.poll(now)
        self.refuses = ""

    def _fake(self, number: int, settings: Settings) -> WorkerProcess:
        if self.refuses == "make":
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        self.made.append(FakeWorker(number, settings))
        self.made[-1].refuses = self.refuses == "start"
        return cast("WorkerProcess", self.made[-1])


def test_workers_are_replaced_one_at_a_time_and_end_when_their_successor_runs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    pool = Pool()
    assert pool.poll(1.0) == math.inf
    pool.replace(NEW, 2.0)
    first, second, *_ = pool.made
    assert pool.poll(2.0) < 1.0
    assert [worker.settings for worker in pool.made] == [OLD, OLD, NEW]
    pool.poll(3.0)
    assert (len(pool.made), first.received) == (3, [])
    pool.made[2].runs = True
    pool.poll(4.0)
    assert (first.received, second.received) == ([RETIRE], [])
    first.end = "exit status 0"
    pool.poll(5.0)
    assert [worker.name for worker in pool.made] == ["worker 0", "worker 1", "worker 0", "worker 1"]
    pool.made[3].runs = True
    pool.poll(6.0)
    assert second.received == [RETIRE]
    assert caplog.messages == []
    second.end = "exit status 0"
    assert pool.poll(7.0) == math.inf
    assert caplog.messages == ["every worker has the new settings"]
    pool.poll(8.0)
    assert len(caplog.messages) == 1
    assert pool.current == pool.made[2:]


def test_a_replaced_worker_is_not_restarted_and_its_successor_is() -> None:
    pool = Pool()
    pool.replace(NEW, 0.0)
    for now in range(5):
        pool.poll(float(now))
        pool.made[-1].runs = True
    pool.made[0].end = pool.made[1].end = "exit status 0"
    pool.made[2].end = "signal 9"
    pool.poll(100.0)
    pool.poll(200.0)
    assert [worker.end for worker in pool.made] == ["exit status 0", "exit status 0", None, None]


def test_a_replacement_that_exits_ends_the_reload(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool()
    pool.replace(NEW, 0.0)
    pool.poll(0.0)
    pool.made[2].end = "exit status 1"
    pool.poll(1.0)
    assert pool.poll(2.0) == math.inf
    assert [worker.received for worker in pool.made] == [[], [], []]
    assert pool.current == pool.made[:2]
    assert "a worker with the new settings exited (exit status 1); the server keeps the old ones" in caplog.text
    # The next reload is compared with what is in force, and a restarted worker logs as before.
    assert (pool.settings, pool.logs) == (OLD, [NEW, OLD])


@pytest.mark.parametrize("refuses", ["make", "start"])
def test_a_replacement_that_cannot_be_started_ends_the_reload(caplog: pytest.LogCaptureFixture, refuses: str) -> None:
    pool = Pool()
    pool.replace(NEW, 0.0)
    pool.fail_next(refuses, 0.0)
    assert pool.poll(1.0) == math.inf
    assert (pool.current, pool.is_replacing) == (pool.made[:2], False)
    assert [worker.received for worker in pool.current] == [[], []]
    (line,) = caplog.messages
    assert line.startswith("a worker with the new settings cannot be started ([Errno ")
    assert line.endswith("); the server keeps the old ones")
    assert (pool.settings, pool.logs) == (OLD, [NEW, OLD])
    # The next one can succeed.
    pool.replace(NEWEST, 2.0)
    for now in (3.0, 4.0):
        pool.run_next(now)
    assert [worker.settings for worker in pool.current[:2]] == [NEWEST, NEWEST]


@pytest.mark.parametrize("problem", ["exits", "make", "start"])
def test_if_the_second_of_three_fails_the_first_gets_the_old_settings_again(
    caplog: pytest.LogCaptureFixture, problem: str
) -> None:
    caplog.set_level("INFO")
    pool = Pool(3)
    pool.replace(NEW, 0.0)
    pool.run_next(1.0)
    assert [worker.settings for worker in pool.current[:3]] == [NEW, OLD, OLD]
    pool.fail_next(problem, 2.0)
    assert pool.settings == OLD
    pool.poll(3.0)
    # One at a time: the one with the new settings serves until its successor runs.
    assert pool.current[0].settings == NEW
    assert pool.is_replacing
    pool.run_next(4.0)
    assert pool.poll(5.0) == math.inf
    assert [(worker.name, worker.settings) for worker in pool.current] == [(f"worker {number}", OLD) for number in range(3)]
    # Those that had the old settings are the same as before.
    assert pool.current[1:] == pool.made[1:3]
    assert (pool.is_replacing, caplog.messages[-1]) == (False, "every worker has the old settings")


@pytest.mark.parametrize("problem", ["exits", "make", "start"])
def test_old_settings_that_cannot_be_restored_are_tried_again_later(caplog: pytest.LogCaptureFixture, problem: str) -> None:
    pool = Pool()
    pool.replace(NEW, 0.0)
    pool.run_next(1.0)
    pool.fail_next("exits", 2.0)
    pool.fail_next(problem, 4.0)
    assert "a worker with the old settings " in caplog.messages[-1]
    made = len(pool.made)
    assert pool.poll(5.0) == pytest.approx(MAX_DELAY - 1.0)
    assert (len(pool.made), pool.current[0].settings) == (made, NEW)
    pool.run_next(4.0 + MAX_DELAY)
    pool.poll(4.1 + MAX_DELAY)
    assert [worker.settings for worker in pool.current] == [OLD, OLD]
    assert not pool.is_replacing


def test_a_reload_during_a_restoration_replaces_every_worker() -> None:
    pool = Pool()
    pool.replace(NEW, 0.0)
    pool.run_next(1.0)
    pool.fail_next("exits", 2.0)
    pool.replace(NEWEST, 4.0)
    for now in (5.0, 6.0):
        pool.run_next(now)
    pool.poll(7.0)
    assert [worker.settings for worker in pool.current] == [NEWEST, NEWEST]
    assert (pool.settings, pool.is_replacing) == (NEWEST, False)


def test_a_reload_that_fails_restores_the_settings_before_the_reload_that_it_ended() -> None:
    pool = Pool()
    for number, settings in enumerate((NEW, NEWEST)):
        pool.replace(settings, float(number))
        pool.poll(float(number))
    pool.made[-1].end = "exit status 1"
    pool.poll(3.0)
    assert (pool.settings, pool.logs) == (OLD, [NEW, NEWEST, OLD])


def test_a_reload_that_fails_restores_those_of_a_complete_one() -> None:
    pool = Pool()
    pool.replace(NEW, 0.0)
    for now in range(5):
        pool.poll(float(now))
        pool.made[-1].runs = True
    # The predecessors still drain.
    pool.replace(NEWEST, 5.0)
    pool.poll(5.0)
    pool.made[-1].end = "exit status 1"
    pool.poll(6.0)
    assert (pool.settings, pool.logs) == (NEW, [NEW, NEWEST, NEW])


@pytest.mark.parametrize(("old", "idle"), [(30.0, IDLE_GRACE), (2.0, 2.0), (0.0, 0.0)])
def test_a_worker_that_does_not_drain_in_its_own_time_is_killed(
    caplog: pytest.LogCaptureFixture, old: float, idle: float
) -> None:
    pool = Pool(settings=Settings(shutdown_timeout=old))
    pool.replace(Settings(shutdown_timeout=1.0), 0.0)
    pool.poll(0.0)
    pool.made[2].runs = True
    pool.poll(1.0)
    timeout = idle + old + DRAIN_GRACE
    pool.poll(1.0 + timeout - 0.1)
    assert (pool.made[0].received, caplog.messages) == ([RETIRE], [])
    pool.poll(1.0 + timeout)
    # Its end takes a moment; that is no reason to say it again.
    pool.poll(1.1 + timeout)
    assert pool.made[0].received == [RETIRE, signal.SIGKILL]
    assert caplog.messages == ["killing worker 0, which has been replaced; requests in flight are lost"]


def test_another_reload_starts_over_and_ends_the_replacement_that_was_starting() -> None:
    pool = Pool()
    pool.replace(OLD, 0.0)
    pool.poll(0.0)
    pool.replace(NEW, 1.0)
    pool.poll(1.0)
    assert pool.made[2].received == [RETIRE]
    assert [worker.settings for worker in pool.made[2:]] == [OLD, NEW]
    assert pool.current == [pool.made[0], pool.made[1], pool.made[3], pool.made[2]]


def test_a_reload_waits_while_too_many_workers_drain() -> None:
    pool = Pool()
    for now in range(40):
        pool.replace(NEW, float(now))
        pool.poll(float(now))
        pool.made[-1].runs = True
        pool.poll(float(now))
    assert len(pool.made) == MAX_PROCESSES * 2
    for worker in pool.made:
        if worker.received:
            worker.end = "exit status 0"
    for now in range(40, 50):
        pool.poll(float(now))
        pool.made[-1].runs = True
    assert len(pool.made) == MAX_PROCESSES * 2 + 2
    assert pool.current[:2] == pool.made[-2:]
