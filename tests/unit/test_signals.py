"""How many stop requests a series of signals counts as; the test sets the clock."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from service.process import workers
from service.process.workers import STOP_DEBOUNCE, Signals


class Clock:
    """A fake of the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(workers, "time", clock)
    return clock


@contextmanager
def handling(*, reloads: bool) -> Iterator[Signals]:
    before = {number: signal.getsignal(number) for number in (*workers.STOP_SIGNALS, signal.SIGCHLD)}
    with Signals(reloads=reloads) as signals:
        yield signals
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def signals() -> Iterator[Signals]:
    with handling(reloads=False) as signals:
        yield signals


TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


@pytest.mark.parametrize(
    ("series", "stop_requests"),
    [
        ([(0.0, TERM)], 1),
        ([(0.0, TERM), (0.0, TERM)], 1),
        ([(0.0, TERM), (0.9, TERM)], 1),
        ([(0.0, HUP), (0.1, TERM)], 1),
        ([(0.0, INT), (0.1, TERM), (0.2, INT)], 1),
        ([(0.0, TERM), (STOP_DEBOUNCE, TERM)], 2),
        ([(0.0, TERM), (0.9, TERM), (1.1, TERM)], 2),
        ([(0.0, TERM), (30.0, INT), (30.5, INT)], 2),
        ([(0.0, TERM), (2.0, TERM), (4.0, TERM)], 3),
    ],
)
def test_signals_within_a_second_count_as_one(
    signals: Signals, clock: Clock, series: list[tuple[float, signal.Signals]], stop_requests: int
) -> None:
    for seconds, number in series:
        clock.now = 100.0 + seconds
        os.kill(os.getpid(), number)
    assert signals.stop_requests == stop_requests


def test_sighup_requests_a_reload_where_there_is_one() -> None:
    with handling(reloads=True) as signals:
        assert not signals.take_reload_request()
        os.kill(os.getpid(), HUP)
        os.kill(os.getpid(), HUP)
        assert signals.take_reload_request()
        assert not signals.take_reload_request()
        assert signals.stop_requests == 0
        os.kill(os.getpid(), TERM)
        assert signals.stop_requests == 1


def test_sighup_that_the_parent_ignores_reloads_too() -> None:
    before = signal.signal(HUP, signal.SIG_IGN)
    try:
        with handling(reloads=True) as signals:
            os.kill(os.getpid(), HUP)
            assert signals.take_reload_request()
    finally:
        signal.signal(HUP, before)
