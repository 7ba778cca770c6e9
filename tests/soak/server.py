"""The server that is soaked: its processes, their memory, and its Redis."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from scripts.lib.program import ROOT, Program, environment
from service.process import embedded_redis

WORKERS = 2
TOKEN = "token-of-the-soak"
KEY = f"sk-ac-{TOKEN}"


@dataclass(frozen=True, slots=True)
class Child:
    """A child process; `leads` a session of its own, which of the server's children only Redis does."""

    pid: int
    leads: bool
    started: int


class Server(Program):
    """`session-configs serve` with an embedded Redis that syncs every write before it is answered."""

    def __init__(self, home: Path) -> None:
        self.data = home / "data"
        command = [sys.executable, "-m", "service", "serve", "--port", "0", "--workers", str(WORKERS)]
        command += ["--data-dir", str(self.data), "--fsync", "always"]
        super().__init__(home, command, cwd=ROOT, env=environment(SCC_ROOT_TOKEN=TOKEN))
        self.port = int(self.printed(r"ready at http://[^:]+:(\d+)[^\n]*\nkey"))

    def redis(self) -> Redis:
        """A client of its Redis, which gives up soon."""
        path = str(embedded_redis.socket_path(self.data))
        return Redis(unix_socket_path=path, protocol=2, socket_timeout=1.0, socket_connect_timeout=1.0)

    def redis_pid(self) -> int | None:
        """Process id of its Redis, None where none runs."""
        return next((child.pid for child in self._children() if child.leads), None)

    def workers(self) -> list[int]:
        """Process ids of its workers, the oldest first."""
        workers = [child for child in self._children() if not child.leads]
        return [child.pid for child in sorted(workers, key=lambda child: (child.started, child.pid))]

    def _children(self) -> list[Child]:
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="utf-8").split()
        return [child for child in map(_child, pids) if child is not None]


def _child(pid: str) -> Child | None:
    """The living process `pid`."""
    try:
        # man 5 proc: after the name in parentheses come state, ppid, pgrp, session, …, and as 20th of these the start time.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else Child(int(pid), leads=fields[3] == pid, started=int(fields[19]))


def memory(pid: int) -> tuple[float, float] | None:
    """RSS and USS (what it shares with no other) of a process in MB, of 1,000,000 bytes; None if it is gone."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    except OSError:
        return None
    kilobytes = {name: int(number) for name, number in re.findall(r"^(\w+): +(\d+) kB", rollup, re.MULTILINE)}
    if "Rss" not in kilobytes:
        return None
    return kilobytes["Rss"] * 0.001024, (kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]) * 0.001024
