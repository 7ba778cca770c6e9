"""Workers that hang, and workers whose supervisor was killed."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.acceptance.test_processes import answers, half_sent, key_of
from tests.support.server import Serving, alive, until

#: Seconds; the limits of these tests.
ABORT, KILL, START = 4.0, 0.5, 20.0

#: `session-configs` with such limits. On SIGUSR1 a worker hangs in a C function that holds the GIL.
PROGRAM = f"""
import signal, sys
from service import cli
from service.commands import serve
from service.process.heartbeat import Limits

load_parts = serve.load_parts

def hang(*_):
    sum(range(10**15))

def run_worker(*arguments):
    signal.signal(signal.SIGUSR1, hang)
    parts.run_worker(*arguments)

def load():
    global parts
    parts = load_parts()
    return parts._replace(run_worker=run_worker, limits=Limits(abort={ABORT}, kill={KILL}, start={START}))

serve.load_parts = load
sys.exit(cli.main())
"""


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path / "data", "--workers", "2", program=("-c", PROGRAM)).wait_ready()
    yield serving
    if serving.process.poll() is None:
        serving.stop()


def wait_for_replacement(serving: Serving, hung: int) -> None:
    """Wait until another worker has replaced the worker `hung`, and the others are the same as before."""
    others = set(serving.workers()) - {hung}
    until(lambda: hung not in serving.workers() and len(serving.workers()) == 2, "another worker")
    assert others < set(serving.workers())


def test_a_stopped_worker_is_killed_and_replaced(serving: Serving) -> None:
    key, hung = key_of(serving), serving.workers()[0]
    os.kill(hung, signal.SIGSTOP)
    wait_for_replacement(serving, hung)
    assert f"worker 1 (process {hung}) hangs: it missed its heartbeat; aborting it" in serving.errors
    assert "worker 1 exited (signal 9)" in serving.errors
    assert all(answers(serving, key) for _ in range(20))


def test_a_worker_that_hangs_in_a_c_function_prints_its_stacks_and_is_replaced(serving: Serving) -> None:
    key, hung = key_of(serving), serving.workers()[1]
    os.kill(hung, signal.SIGUSR1)
    wait_for_replacement(serving, hung)
    assert "worker 2 exited (signal 6)" in serving.errors
    assert "Fatal Python error: Aborted" in serving.errors
    assert "in hang" in serving.errors
    assert all(answers(serving, key) for _ in range(20))


def test_draining_workers_and_workers_stopped_with_their_supervisor_are_not_killed(serving: Serving) -> None:
    key, workers = key_of(serving), serving.workers()
    processes = [serving.process.pid, *workers]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    time.sleep(ABORT + 1)
    for process in processes:
        os.kill(process, signal.SIGCONT)
    connection, rest = half_sent(serving, key)
    # The worker with the request shuts down only after the rest of the request has arrived.
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
    time.sleep(ABORT + KILL + 2)
    connection.send(rest)
    assert connection.getresponse().status == 201
    connection.close()
    until(lambda: len(serving.workers()) == 2 and not set(workers) & set(serving.workers()), "new workers")
    assert "hangs" not in serving.errors
    assert serving.errors.count("exited (exit status 0)") == 2


#: The service on a system that does not notify a child of its parent's death.
WITHOUT_SIGNAL = """
import sys
from service import cli
from service.process import workers

workers.set_parent_death_signal = lambda *_: None
sys.exit(cli.main())
"""


@pytest.mark.parametrize(
    "program", [("-m", "service"), pytest.param(("-c", WITHOUT_SIGNAL), id="without a signal")], ids=["on Linux", None]
)
def test_an_orphaned_worker_sends_no_more_responses(tmp_path: Path, program: tuple[str, str]) -> None:
    serving = Serving(tmp_path / "data", "--workers", "2", program=program, SCC_SHUTDOWN_TIMEOUT="60").wait_ready()
    connection, rest = half_sent(serving, key_of(serving))
    workers = serving.workers()
    serving.process.kill()
    killed = time.monotonic()
    serving.process.wait(60)
    until(lambda: not any(alive(worker) for worker in workers), "the end of the workers")
    assert time.monotonic() - killed < 10, "far below the time that requests in flight have at an orderly end"
    with suppress(OSError):
        connection.send(rest)
    with pytest.raises((OSError, HTTPException)):
        connection.getresponse()
    connection.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing reaches a process that is stopped")
def test_a_stopped_worker_dies_with_its_supervisor(start: Callable[..., Serving]) -> None:
    serving = start()
    workers = serving.workers()
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    serving.process.kill()
    serving.process.wait(60)
    until(lambda: not any(alive(worker) for worker in workers), "the end of the workers")
