"""How the supervisor stops its workers: when it kills those that are still running. The clock is the test's."""

import signal
from types import SimpleNamespace
from typing import cast

import pytest

from service.process import supervisor
from service.process.worker_pool import DRAIN_GRACE
from service.process.workers import Signals, WorkerProcess
from service.settings import Settings

#: Seconds that the workers may take to end.
TIMEOUT = 30.0


class FakeSignals:
    """The first stop signal has come; another one may come at `another_at` seconds of the fake clock."""

    def __init__(self, another_at: float | None) -> None:
        self.now = 0.0
        self.stop_requests = 1
        self._another_at = another_at

    def wait(self, seconds: float) -> None:
        assert self.now < 10 * TIMEOUT, "the worker was not killed"
        if self._another_at is not None and self._another_at <= self.now + seconds:
            self.now, self._another_at = self._another_at, None
            self.stop_requests += 1
        else:
            self.now += seconds


class FakeWorker:
    """A worker that ends when it receives `last`; records each signal and its time."""

    def __init__(self, last: signal.Signals, signals: FakeSignals, *, shutdown_timeout: float = TIMEOUT - DRAIN_GRACE) -> None:
        self.settings = Settings(shutdown_timeout=shutdown_timeout)
        self.received: list[tuple[signal.Signals, float]] = []
        self._last = last
        self._signals = signals

    def exit_reason(self) -> str | None:
        return "exited" if self._last in [number for number, _ in self.received] else None

    def send(self, number: signal.Signals) -> None:
        self.received.append((number, self._signals.now))


def signals_received(
    monkeypatch: pytest.MonkeyPatch, last: signal.Signals, another_at: float | None
) -> list[tuple[int, float]]:
    """What a worker that ends with `last` receives while it is stopped."""
    signals = FakeSignals(another_at)
    worker = FakeWorker(last, signals)
    monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: signals.now))
    # Before a reload, requests were allowed more time than those of the other worker.
    other = FakeWorker(signal.SIGTERM, signals, shutdown_timeout=0.0)
    supervisor._stop_workers([cast("WorkerProcess", each) for each in (other, worker, other)], cast("Signals", signals))
    return [*worker.received]


# The supervisor looks at its workers again a second after the timeout.
@pytest.mark.parametrize(("another_at", "killed_at"), [(None, TIMEOUT + 1.0), (5.0, 5.0)])
def test_a_worker_still_running_is_killed_after_the_timeout_or_another_stop_signal(
    monkeypatch: pytest.MonkeyPatch, another_at: float | None, killed_at: float
) -> None:
    received = signals_received(monkeypatch, signal.SIGKILL, another_at)
    assert received == [(signal.SIGTERM, 0.0), (signal.SIGKILL, killed_at)]


def test_a_worker_that_ends_after_sigterm_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert signals_received(monkeypatch, signal.SIGTERM, None) == [(signal.SIGTERM, 0.0)]
