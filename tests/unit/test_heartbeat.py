"""When a worker counts as hung, by a clock that the test sets."""

import subprocess
import sys

import pytest

from service.process.heartbeat import INTERVAL, Heartbeat, Limits, Verdict, Watchdog

LIMITS = Limits(abort=10.0, kill=2.0, start=60.0)
ALIVE, ABORT, KILL = Verdict.ALIVE, Verdict.ABORT, Verdict.KILL


def looks(watchdog: Watchdog, count: int, first: int, last: int) -> dict[Verdict, list[int]]:
    """At which of the seconds from `first` to `last`, with the counter at `count`, each verdict but ALIVE was given."""
    given: dict[Verdict, list[int]] = {}
    for second in range(first, last + 1):
        verdict = watchdog.check(count, float(second))
        if verdict is not ALIVE:
            given.setdefault(verdict, []).append(second)
    return given


def test_a_worker_that_misses_its_heartbeat_is_aborted_and_then_killed() -> None:
    watchdog = Watchdog(LIMITS, 0.0)
    assert watchdog.check(1, 1.0) is ALIVE
    assert looks(watchdog, 1, 2, 14) == {ABORT: [11], KILL: [13]}


def test_a_worker_that_beats_is_never_killed() -> None:
    watchdog, heartbeat = Watchdog(LIMITS, 0.0), Heartbeat()
    for second in range(1, 2000):
        if second % 9 == 0:
            heartbeat.beat()
        assert watchdog.check(heartbeat.count, float(second)) is ALIVE
    heartbeat.close()


def test_a_starting_worker_has_more_time() -> None:
    assert looks(Watchdog(LIMITS, 0.0), 0, 1, 63) == {ABORT: [60], KILL: [62]}


@pytest.mark.parametrize("slept", [11.0, 3600.0, 1e9])
def test_after_a_suspend_workers_have_their_full_time_again(slept: float) -> None:
    watchdog = Watchdog(LIMITS, 0.0)
    watchdog.check(1, 1.0)
    # The supervisor slept as long as they did: what passes in one of its looks counts as two intervals at most.
    assert watchdog.check(1, 1.0 + slept) is ALIVE
    assert [watchdog.check(1, 1.0 + slept + second) for second in range(1, 8)] == [ALIVE] * 7
    assert watchdog.check(1, 1.0 + slept + 8) is ABORT
    assert LIMITS.abort == 2 * INTERVAL + 8


def test_a_beat_after_sigabrt_does_not_prevent_sigkill() -> None:
    """The handler of SIGABRT ends the process; where something keeps it from that, SIGKILL does."""
    watchdog = Watchdog(LIMITS, 0.0)
    watchdog.check(1, 1.0)
    assert looks(watchdog, 1, 2, 11) == {ABORT: [11]}
    assert looks(watchdog, 2, 12, 13) == {KILL: [13]}


def test_the_counter_is_never_0_again() -> None:
    heartbeat = Heartbeat()
    assert heartbeat.count == 0
    counts = set()
    for _ in range(600):
        before = heartbeat.count
        heartbeat.beat()
        assert heartbeat.count != before
        counts.add(heartbeat.count)
    assert counts == set(range(1, 256))
    heartbeat.close()


#: In a separate process: one with threads, as pytest's may be, must not fork.
FORKED = """
import os
from service.process.heartbeat import Heartbeat

heartbeat = Heartbeat()
pid = os.fork()
if pid == 0:
    heartbeat.beat()
    os._exit(0)
os.waitpid(pid, 0)
print(heartbeat.count)
"""


def test_the_counter_is_shared_with_a_forked_process() -> None:
    assert subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True).stdout == "1\n"
