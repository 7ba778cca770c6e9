"""The pool of workers: what it does in which order when the settings change. Clock and processes are the test's."""

import math
import signal
from typing import cast

import pytest

from service.process.worker_pool import DRAIN_GRACE, MAX_PROCESSES, WorkerPool
from service.process.workers import WorkerProcess
from service.settings import Settings

OLD, NEW, NEWEST = Settings(max_keys=1), Settings(max_keys=2), Settings(max_keys=3)


class FakeWorker:
    """A process that the test starts, runs and ends."""

    def __init__(self, number: int, settings: Settings) -> None:
        self.name = f"worker {number}"
        self.settings = settings
        self.runs = False
        self.end: str | None = "not started"
        self.received: list[signal.Signals] = []

    def start(self) -> None:
        self.end = None

    def exit_reason(self) -> str | None:
        return self.end

    def send(self, number: signal.Signals) -> None:
        self.received.append(number)

    def kill_if_hung(self, now: float) -> None:
        pass


class Pool(WorkerPool):
    """A pool of two fake workers, which have started."""

    def __init__(self) -> None:
        self.made: list[FakeWorker] = []
        self.logs: list[Settings] = []
        super().__init__(self._fake, 2, OLD, configure_logs=self.logs.append)
        self.start(0.0)

    @property
    def current(self) -> list[FakeWorker]:
        return cast("list[FakeWorker]", self.processes)

    def _fake(self, number: int, settings: Settings) -> WorkerProcess:
        self.made.append(FakeWorker(number, settings))
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
    assert (first.received, second.received) == ([signal.SIGTERM], [])
    first.end = "exit status 0"
    pool.poll(5.0)
    assert [worker.name for worker in pool.made] == ["worker 0", "worker 1", "worker 0", "worker 1"]
    pool.made[3].runs = True
    pool.poll(6.0)
    assert second.received == [signal.SIGTERM]
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
    assert "a worker with the new settings exited (exit status 1)" in caplog.text
    # The next reload is compared with what is in force, and a restarted worker logs as before.
    assert (pool.settings, pool.logs) == (OLD, [NEW, OLD])


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


def test_a_worker_that_does_not_drain_in_time_is_killed() -> None:
    pool = Pool()
    pool.replace(NEW, 0.0)
    pool.poll(0.0)
    pool.made[2].runs = True
    pool.poll(1.0)
    timeout = OLD.shutdown_timeout + DRAIN_GRACE
    pool.poll(1.0 + timeout - 0.1)
    assert pool.made[0].received == [signal.SIGTERM]
    pool.poll(1.0 + timeout)
    assert pool.made[0].received == [signal.SIGTERM, signal.SIGKILL]


def test_another_reload_starts_over_and_ends_the_replacement_that_was_starting() -> None:
    pool = Pool()
    pool.replace(OLD, 0.0)
    pool.poll(0.0)
    pool.replace(NEW, 1.0)
    pool.poll(1.0)
    assert pool.made[2].received == [signal.SIGTERM]
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
