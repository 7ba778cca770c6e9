"""A Redis Cluster of three masters on loopback, and the service on it."""

import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from random import choice
from types import TracebackType
from typing import Any, Self

from redis import Redis

from scripts.benchmark.load.generators import Origin
from scripts.benchmark.servers.processes import KEY
from scripts.lib.program import ROOT, Failed, Program, environment
from service.store.binaries import find_server

MASTERS = 3
#: A node's bus port is its port plus 10,000; both lie below the ports that systems give to connections.
_PORTS, _BUS = range(12_000, 22_000), 10_000
_SLOTS = 16_384
_HOST = "127.0.0.1"
_PATIENCE = 60.0  # seconds until the nodes know each other


class Node(Program):
    """One master, in memory only, with the settings that the README recommends."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True)
        self.port = _free_port()
        server, version = find_server()
        packed = "listpack" if version >= (7, 0) else "ziplist"
        settings = {
            "port": self.port, "bind": _HOST, "dir": home, "save": "", "appendonly": "no", "cluster-enabled": "yes",
            "set-max-intset-entries": 4096, f"hash-max-{packed}-value": 8192,
        }  # fmt: skip
        words = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        super().__init__(home, [server, *words], env=environment(LC_ALL="C"))
        self.printed("(eady to accept connections)")
        self.client = Redis(host=_HOST, port=self.port, protocol=2)

    def ask(self, *words: object) -> Any:  # noqa: ANN401 - Redis replies differ
        """Run one command."""
        return self.client.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py leaves it so

    def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        used = self.ask("INFO", "cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    def calls(self, command: str) -> int:
        """How often a command was called."""
        return int(self.ask("INFO", "commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def _free_port() -> int:
    while True:
        port = choice(_PORTS)  # noqa: S311 - no secret
        try:
            with socket.create_server((_HOST, port)), socket.create_server((_HOST, port + _BUS)):
                return port
        except OSError:
            continue


class LocalCluster:
    """Three masters that share all slots."""

    def __init__(self, home: Path) -> None:
        self._stack = ExitStack()
        self.nodes = [self._stack.enter_context(Node(home / f"node-{number}")) for number in range(MASTERS)]
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER", "ADDSLOTS", *range(_SLOTS * number // MASTERS, _SLOTS * (number + 1) // MASTERS))
            node.ask("CLUSTER", "MEET", _HOST, self.nodes[0].port)
        deadline = time.monotonic() + _PATIENCE
        while any(b"cluster_state:ok" not in node.ask("CLUSTER", "INFO") for node in self.nodes):
            if time.monotonic() > deadline:
                raise Failed("the nodes of the cluster do not find each other")
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def url(self) -> str:
        """Its URL."""
        return f"redis+cluster://{_HOST}:{self.nodes[0].port}"


class ClusterService(Program):
    """`session-configs serve` on a cluster."""

    def __init__(self, home: Path, url: str, *, workers: int, partitions: int) -> None:
        home.mkdir()
        command = [sys.executable, "-m", "service", "serve", "--port", "0", "--workers", str(workers)]
        settings = {
            "SCC_ROOT_TOKEN": KEY.removeprefix("sk-ac-"), "SCC_KEY_SECRET": "benchmark", "SCC_REDIS_URL": url,
            "SCC_PARTITIONS": str(partitions),
        }  # fmt: skip
        super().__init__(home, command, cwd=ROOT, env=environment(**settings))
        self.origin: Origin = ("127.0.0.1", int(self.printed(r"ready at http://[^:]+:(\d+)[^\n]*\nkey")))
