"""The watch on a child process: when it restarts the child, and how long it waits in a crash loop."""

import math

import pytest

from service.errors import StartupError
from service.process.workers import MAX_DELAY, MIN_DELAY, STABLE_AFTER, Watched


class Child:
    def __init__(self) -> None:
        self.starts = 0
        self.end: str | None = None
        self.refuses = False

    def start(self) -> None:
        if self.refuses:
            raise StartupError("no")
        self.starts += 1
        self.end = None

    def exit_reason(self) -> str | None:
        return self.end


def watched(child: Child) -> Watched:
    return Watched("child", child.start, child.exit_reason, 0.0)


def test_a_running_child_is_not_restarted() -> None:
    child = Child()
    assert watched(child).poll(5.0) == math.inf
    assert child.starts == 0


def test_a_dead_child_is_restarted_after_the_delay() -> None:
    child = Child()
    watch = watched(child)
    child.end = "signal 9"
    assert watch.poll(100.0) == pytest.approx(MIN_DELAY)
    assert child.starts == 0
    watch.poll(100.1 + MIN_DELAY)
    assert child.starts == 1
    assert watch.poll(101.0) == math.inf


def test_the_delay_of_a_crash_loop_grows_to_a_maximum() -> None:
    child = Child()
    watch = watched(child)
    now, waits = 0.0, []
    for _ in range(12):
        child.end = "exit status 1"
        waits.append(watch.poll(now))
        now += waits[-1] + 0.001
        watch.poll(now)
    assert waits[:4] == pytest.approx([MIN_DELAY, MIN_DELAY * 2, MIN_DELAY * 4, MIN_DELAY * 8])
    assert waits[-1] == pytest.approx(MAX_DELAY)
    child.end = "exit status 1"
    assert watch.poll(now + STABLE_AFTER) == pytest.approx(MIN_DELAY)


def test_a_failed_start_is_retried_later() -> None:
    child = Child()
    watch = watched(child)
    child.end, child.refuses = "signal 9", True
    watch.poll(0.0)
    assert watch.poll(1.0) > 0.0
    child.refuses = False
    watch.poll(60.0)
    assert child.starts == 1
