"""The real server in a process of its own, what its processes take, and one-line requests to it."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from service.process.redis_binaries import SERVER_NAMES
from tests.support.redis_servers import BUNDLED

#: Seconds after which a test gives up waiting. Far longer than anything here takes, so that a slow machine changes no result.
PATIENCE = 60.0


@dataclass(frozen=True)
class Server:
    """What a test needs to know of a running server."""

    origin: str
    base_url: str
    key: str
    data_dir: Path
    redis_url: str
    pid: int


@contextmanager
def logging_nothing(server: Server) -> Iterator[None]:
    """What happens inside makes the server log nothing: no traceback, no key, no configs."""
    log = server.data_dir.with_name(f"{server.data_dir.name}.err")
    before = log.stat().st_size
    yield
    with log.open("rb") as file:
        file.seek(before)
        assert file.read() == b""


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until `condition()` is true; fail with `what` if it never is."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.01)


async def eventually(condition: Callable[[], object], what: str) -> None:
    """As `until`, while other tasks of the event loop run."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        await asyncio.sleep(0.01)


def clean_environment(**variables: str) -> dict[str, str]:
    """The environment without any setting of ours, and `variables`.

    Tests name their server: a redis-server on PATH must not take the place of the bundled one.
    """
    others = {name: value for name, value in os.environ.items() if not name.startswith("SCC_")}
    return others | {"SCC_REDIS_SERVER": BUNDLED.path} | variables


def run_command(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `session-configs …` until it exits."""
    return subprocess.run(
        [sys.executable, "-m", "service", *words],
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class Serving:
    """One `session-configs serve` on a free port; its output goes to files next to the data directory.

    It has a process group of its own, as a shell in a terminal gives it.
    """

    def __init__(self, data_dir: Path, *flags: str, program: Sequence[str] = ("-m", "service"), **variables: str) -> None:
        """`program` are the arguments of Python that stand for `session-configs`."""
        self.data_dir = data_dir
        self._redis_url = variables.get("SCC_REDIS_URL", "")
        self._output, self._errors = (data_dir.with_name(f"{data_dir.name}.{kind}") for kind in ("out", "err"))
        command = [sys.executable, *program, "serve", "--port", "0", "--data-dir", str(data_dir), *flags]
        environment = clean_environment(**variables)
        with self._output.open("w", encoding="utf-8") as output, self._errors.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=errors, start_new_session=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()

    @property
    def output(self) -> str:
        """What it printed."""
        return self._output.read_text(encoding="utf-8")

    @property
    def errors(self) -> str:
        """What it logged."""
        return self._errors.read_text(encoding="utf-8")

    @property
    def base_url(self) -> str:
        """URL of the API; only when it is ready."""
        return self.output.splitlines()[0].split()[-1]

    @property
    def origin(self) -> str:
        """`http://host:port`; only when it is ready."""
        return self.base_url.removesuffix("/api/v1")

    def wait_ready(self) -> "Serving":
        """Wait for the ready block, and until every worker takes signals.

        The block is printed when the workers are forked. A worker that gets a signal before it has its handlers, or loses its
        supervisor before it has asked for the signal, would not do what a test expects of a running one.
        """
        until(lambda: self.process.poll() is not None or "\nkey: " in self.output, "a ready server")
        until(lambda: self.process.poll() is not None or all(map(takes_signals, self.workers())), "workers with handlers")
        assert self.process.poll() is None, self.errors
        return self

    def server(self, key: str) -> Server:
        """What a test needs to know of it; only when it is ready."""
        redis_url = f"unix://{self.data_dir / 'redis.sock'}"
        return Server(self.origin, self.base_url, key, self.data_dir, redis_url, self.process.pid)

    def stop(self) -> int:
        """Send SIGTERM, and return the exit status. Does nothing to a process that has ended.

        Raises:
            subprocess.TimeoutExpired: it did not end, and was killed.
        """
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    @property
    def redis_url(self) -> str:
        """URL of the Redis it was given, empty if it has an embedded one."""
        return self._redis_url

    def children(self, name: str = "") -> list[int]:
        """Process ids of its children whose program is called `name`, in the order of their start."""
        return [pid for pid in children_of(self.process.pid) if name in program_of(pid)]

    def workers(self) -> list[int]:
        """Process ids of its workers."""
        return [pid for pid in self.children() if program_of(pid) not in ("", *SERVER_NAMES)]

    def redis_processes(self) -> list[int]:
        """Process ids of its Redis or Valkey: one, none while it is replaced."""
        return [pid for pid in self.children() if program_of(pid) in SERVER_NAMES]


#: The fixture `start`: takes flags and variables, returns a server that is ready.
Start = Callable[..., Serving]


def children_of(parent: int) -> list[int]:
    """Process ids of the living children of process `parent`, in the order of their start."""
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # man 5 proc_pid_stat: after the name in parentheses come state and ppid, and as 20th the start time.
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] not in "ZX":
            children.append((int(fields[19]), int(stat.parent.name)))
    return [pid for _, pid in sorted(children)]


def memory_of(pid: int) -> tuple[float, float] | None:
    """RSS and USS (what it shares with no other process) of process `pid`, in MB of 1,000,000 bytes; None if it is gone."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    except OSError:
        return None
    kilobytes = {name: int(number) for name, number in re.findall(r"^(\w+): +(\d+) kB", rollup, re.MULTILINE)}
    if "Rss" not in kilobytes:
        return None
    return kilobytes["Rss"] * 0.001024, (kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]) * 0.001024


def program_of(pid: int) -> str:
    """Name of the program that process `pid` runs, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def takes_signals(pid: int) -> bool:
    """Whether process `pid` no longer blocks SIGTERM; true for one that is gone, and where there is no /proc."""
    try:
        blocked = re.search(r"^SigBlk:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return True
    return blocked is None or not int(blocked[1], 16) & 1 << (signal.SIGTERM - 1)


def alive(pid: int) -> bool:
    """Whether process `pid` exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def request(method: str, url: str, key: str = "", body: object = None) -> tuple[int, Any]:
    """One request; status and the decoded answer."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    try:
        with urlopen(Request(url, data, headers, method=method), timeout=PATIENCE) as response:  # noqa: S310 - our server
            return response.status, json.loads(response.read())
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read())
