"""Redis: what the benchmark reads from one (INFO, SLOWLOG), and those that it starts itself."""

import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from random import choice
from typing import Any, Self

from redis import Redis

from scripts.lib.program import Failed, Program, environment
from service.process.redis_binaries import find_server

#: SLOWLOG keeps commands that took as many microseconds. FINE_THRESHOLD is for a single request: much less would measure the
#: logging, which covers every command that a script calls.
SLOWLOG_THRESHOLD, FINE_THRESHOLD = 500, 100
_SLOWLOG_LENGTH = 10_000

_MASTERS = 3
_HOST = "127.0.0.1"
#: A node's bus port is its port plus 10,000. Both lie below the ports that systems use for outgoing connections.
_PORTS, _BUS = range(12_000, 22_000), 10_000
_SLOTS = 16_384
_CLUSTER_TIMEOUT = 60.0  # seconds


class RedisProbe:
    """A connection to a Redis for its INFO and SLOWLOG."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = Redis.from_url(url, protocol=2)

    @property
    def socket(self) -> Path:
        """Path of its Unix socket."""
        return Path(self.url.removeprefix("unix://"))

    def execute(self, *words: object) -> Any:  # noqa: ANN401 - Redis replies differ
        """Run one command."""
        return self.client.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py leaves it so

    def set_slowlog_threshold(self, microseconds: int = SLOWLOG_THRESHOLD) -> None:
        """Let SLOWLOG keep every command that takes so long."""
        self.execute("CONFIG", "SET", "slowlog-log-slower-than", microseconds)
        self.execute("CONFIG", "SET", "slowlog-max-len", _SLOWLOG_LENGTH)

    def take_slow_commands(self) -> list[tuple[str, int]]:
        """Commands in SLOWLOG since the last call, with their microseconds; a script by its SHA-1."""
        entries = self.client.slowlog_get(_SLOWLOG_LENGTH)
        self.execute("SLOWLOG", "RESET")
        commands = [(entry["command"].decode(errors="replace").split(" "), int(entry["duration"])) for entry in entries]
        return [(words[1] if words[0].upper() == "EVALSHA" else words[0], micros) for words, micros in commands]

    def command_stat(self, command: str, statistic: str = "calls") -> int:
        """One of INFO's statistics of a command: `calls`, or `usec` (their microseconds)."""
        return int(self.execute("INFO", "commandstats").get(f"cmdstat_{command}", {statistic: 0})[statistic])

    def cpu_seconds(self) -> float:
        """Seconds of processor time used so far."""
        used = self.execute("INFO", "cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    def memory(self) -> int:
        """Bytes in use, measured when no rewrite of the append-only file is running."""
        while self.execute("INFO", "persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.2)
        return int(self.execute("INFO", "memory")["used_memory"])


class RedisServer(Program):
    """A Redis in memory only, with default settings but for `settings`; on a Unix socket unless `port` is given."""

    def __init__(self, home: Path, *, port: int = 0, settings: Mapping[str, object] | None = None) -> None:
        home.mkdir(parents=True)
        path = home / "redis.sock"
        address = {"port": port, "bind": _HOST} if port else {"port": 0, "unixsocket": path}
        settings = address | {"dir": home, "save": "", "appendonly": "no"} | dict(settings or {})
        words = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        super().__init__(home, [find_server()[0], *words], env=environment(LC_ALL="C"))
        self.printed("(eady to accept connections)")
        self.probe = RedisProbe(f"redis://{_HOST}:{port}" if port else f"unix://{path}")


class RedisCluster:
    """Three masters on loopback that share all slots, with the settings that the README recommends."""

    def __init__(self, home: Path) -> None:
        self._stack = ExitStack()
        packed = "listpack" if find_server()[1] >= (7, 0) else "ziplist"
        settings = {"cluster-enabled": "yes", "set-max-intset-entries": 4096, f"hash-max-{packed}-value": 8192}
        ports = [_free_port() for _ in range(_MASTERS)]
        servers = [
            self._stack.enter_context(RedisServer(home / f"node-{number}", port=port, settings=settings))
            for number, port in enumerate(ports)
        ]
        self.url = f"redis+cluster://{_HOST}:{ports[0]}"
        self.nodes = [server.probe for server in servers]
        for number, node in enumerate(self.nodes):
            node.execute("CLUSTER", "ADDSLOTS", *range(_SLOTS * number // _MASTERS, _SLOTS * (number + 1) // _MASTERS))
            node.execute("CLUSTER", "MEET", _HOST, ports[0])
        self._wait_until_ok()

    def _wait_until_ok(self) -> None:
        deadline = time.monotonic() + _CLUSTER_TIMEOUT
        while any(b"cluster_state:ok" not in node.execute("CLUSTER", "INFO") for node in self.nodes):
            if time.monotonic() > deadline:
                raise Failed("the nodes did not form a cluster")
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _free_port() -> int:
    while True:
        port = choice(_PORTS)  # noqa: S311 - no secret
        try:
            with socket.create_server((_HOST, port)), socket.create_server((_HOST, port + _BUS)):
                return port
        except OSError:
            continue
