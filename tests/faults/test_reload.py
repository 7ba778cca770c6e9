"""SIGHUP: a server with a file of settings takes them up under load, and fails no request."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.process.workers import IDLE_GRACE
from tests.support.http_client import PREFIX
from tests.support.server import PATIENCE, Serving, Start, alive, request, until
from tests.support.workload import KEY, LENIENT, TOKEN, check_after_fault, workload_over_http

#: Seconds between two requests: several times what a stop waits, and far less than a worker with a successor does.
THINK_TIME = IDLE_GRACE / 10
#: `session-configs` whose workers keep idle connections open for as long as they may.
PATIENT = """
import sys
from service.process import workers

workers.IDLE_GRACE = 3600.0

from service import cli

sys.exit(cli.main())
"""

#: `session-configs` that cannot fork while the file in NO_FORK exists.
NO_FORK = """
import errno
import os
import sys

fork = os.fork

def fork_if_possible():
    if os.path.exists(os.environ["NO_FORK"]):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    return fork()

os.fork = fork_if_possible

from service import cli

sys.exit(cli.main())
"""


@pytest.fixture
def patient(start: Start, file: Path) -> Serving:
    """A server with two workers that never close an idle connection because of a reload."""
    flags = ("--config", str(file), "--shutdown-timeout", "3600")
    return start(*flags, program=("-c", PATIENT), SCC_ROOT_TOKEN=TOKEN)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "scc.toml"
    path.write_text("max_keys = 100\n", encoding="utf-8")
    return path


def reload(serving: Serving) -> None:
    serving.process.send_signal(signal.SIGHUP)


def reload_and_wait(serving: Serving, file: Path, text: str) -> None:
    """Write the file, and wait until every worker has been replaced."""
    done = "every worker has the new settings"
    reloads = serving.errors.count(done)
    file.write_text(text, encoding="utf-8")
    reload(serving)
    until(lambda: serving.errors.count(done) > reloads, "a reload")


def create(serving: Serving, keys: int) -> int:
    """The status of a request that creates a session with so many keys."""
    configs = {f"k{number}": number for number in range(keys)}
    return request("POST", f"{serving.origin}{PREFIX}/session", KEY, {"configs": configs})[0]


@pytest.mark.parametrize(
    ("fresh", "think_time"),
    [(False, 0.0), (False, THINK_TIME), (True, 0.0)],
    ids=["kept alive", "kept alive and mostly idle", "a connection each"],
)
async def test_no_request_fails_while_workers_are_replaced(start: Start, file: Path, fresh: bool, think_time: float) -> None:
    serving = start(*LENIENT, "--config", str(file), SCC_ROOT_TOKEN=TOKEN)
    before = serving.workers()
    async with workload_over_http(serving.origin, KEY, clients=8, fresh=fresh) as clients:
        await clients.wait_for("acknowledged", 50)
        clients.think_time = think_time
        for keys in (50, 40):
            await asyncio.to_thread(reload_and_wait, serving, file, f"max_keys = {keys}\n")
            await clients.wait_for("acknowledged", 50)
        # Every client still runs.
        await clients.wait_for_operations(5)
        assert len(serving.workers()) == 2
    assert not set(before) & set(serving.workers())
    assert (clients.stats.refused, clients.stats.reads_refused, clients.stats.uncertain) == (0, 0, 0)
    assert clients.stats.connections_lost == 0
    assert {await asyncio.to_thread(create, serving, 41) for _ in range(20)} == {413}
    assert "killing" not in serving.errors
    assert await check_after_fault(clients, serving) == 0


Connect = Callable[[Serving], list[HTTPConnection]]


@pytest.fixture
def kept_alive() -> Iterator[Connect]:
    """A function that opens 20 connections. They are idle: each of them has had a response."""
    with ExitStack() as stack:

        def connect(serving: Serving) -> list[HTTPConnection]:
            netloc = urlsplit(serving.origin).netloc
            connections = [stack.enter_context(closing(HTTPConnection(netloc, timeout=PATIENCE))) for _ in range(20)]
            assert [ping_on(connection) for connection in connections] == [(200, None)] * 20
            return connections

        yield connect


def ping_on(connection: HTTPConnection) -> tuple[int, str | None]:
    """The status of a request, and what its response says of the connection."""
    connection.request("GET", f"{PREFIX}/ping", headers={"Authorization": f"Bearer {KEY}"})
    response = connection.getresponse()
    response.read()
    return response.status, response.headers["Connection"]


def replace_workers(serving: Serving) -> None:
    """Reload, and wait until each worker has a successor. The old ones still have their idle connections."""
    before = serving.workers()
    reload(serving)
    until(lambda: len(set(serving.workers()) - set(before)) == 2, "new workers")
    until(lambda: not any(map(listens, set(before) & set(serving.workers()))), "old workers that do not accept connections")


def listens(pid: int) -> bool:
    """Whether process `pid` has a listening TCP socket open."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    listening = {f"socket:[{line.split()[9]}]" for line in lines if line.split()[3] == "0A"}
    with suppress(OSError):
        return any(os.readlink(link) in listening for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


def test_an_idle_connection_gets_one_more_response_that_announces_its_end(patient: Serving, kept_alive: Connect) -> None:
    connections = kept_alive(patient)
    replace_workers(patient)
    assert [ping_on(connection) for connection in connections] == [(200, "close")] * 20
    # They connect again, to the new workers.
    assert [ping_on(connection) for connection in connections] == [(200, None)] * 20
    until(lambda: len(patient.workers()) == 2, "the end of the old workers")


def test_a_stop_waits_for_no_idle_connections_of_old_workers(patient: Serving, kept_alive: Connect) -> None:
    kept_alive(patient)
    for count in (4, 6):
        replace_workers(patient)
        kept_alive(patient)
        assert len(patient.workers()) == count
    workers = patient.workers()
    assert patient.stop() == 0
    assert not any(map(alive, workers))
    assert "killing" not in patient.errors


def test_what_cannot_change_is_named_and_kept(start: Start, file: Path) -> None:
    serving = start("--config", str(file), SCC_ROOT_TOKEN=TOKEN)
    redis = serving.redis_processes()
    reload_and_wait(serving, file, "max_keys = 1\nfsync = 'always'\npartitions = 16\nkey_secret = 'another'\n")
    assert "WARNING fsync, key_secret, partitions cannot change while the server runs; restart it for that\n" in serving.errors
    assert "changed settings: max_keys\n" in serving.errors
    assert "another" not in serving.errors
    assert serving.redis_processes() == redis
    assert (create(serving, 1), create(serving, 2)) == (201, 413)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_keys = 0", "the settings stay as they are: setting max_keys must be 1 or more (max_keys in {})\n"),
        ("max_kays = 5", "the settings stay as they are: max_kays in {} is not a setting; do you mean max_keys?\n"),
        ("max_keys", "the settings stay as they are: cannot read {}: "),
    ],
)
def test_an_invalid_file_changes_nothing(start: Start, file: Path, text: str, expected: str) -> None:
    serving = start("--config", str(file), SCC_ROOT_TOKEN=TOKEN)
    before = serving.workers()
    file.write_text(text, encoding="utf-8")
    reload(serving)
    until(lambda: expected.format(file) in serving.errors, "the error")
    assert serving.workers() == before
    assert (create(serving, 100), create(serving, 101)) == (201, 413)


def test_a_reload_for_which_no_process_can_be_forked_changes_nothing(start: Start, file: Path, tmp_path: Path) -> None:
    no_fork = tmp_path / "no-fork"
    serving = start("--config", str(file), program=("-c", NO_FORK), SCC_ROOT_TOKEN=TOKEN, NO_FORK=str(no_fork))
    before = serving.workers()
    no_fork.touch()
    file.write_text("max_keys = 1\n", encoding="utf-8")
    reload(serving)
    until(lambda: "cannot be started ([Errno 11] " in serving.errors, "the error")
    assert serving.workers() == before
    assert (create(serving, 100), create(serving, 101)) == (201, 413)
    no_fork.unlink()
    reload_and_wait(serving, file, "max_keys = 2\n")
    assert (create(serving, 2), create(serving, 3)) == (201, 413)


def test_a_stop_during_a_reload_ends_every_worker(start: Start, file: Path) -> None:
    serving = start("--config", str(file), SCC_ROOT_TOKEN=TOKEN)
    reload(serving)
    until(lambda: "replacing the workers" in serving.errors, "a reload")
    workers = serving.workers()
    serving.process.terminate()
    assert serving.process.wait(PATIENCE) == 0
    until(lambda: not any(os.path.exists(f"/proc/{worker}") for worker in workers), "the end of the workers")


def test_without_a_file_sighup_ends_the_server(start: Start) -> None:
    # Under nohup, this process ignores it, and so would the server.
    inherited = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        serving = start(SCC_ROOT_TOKEN=TOKEN)
    finally:
        signal.signal(signal.SIGHUP, inherited)
    reload(serving)
    assert serving.process.wait(PATIENCE) == 0
