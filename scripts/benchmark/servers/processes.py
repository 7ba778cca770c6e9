"""What the benchmark starts: the service, its peers, Redis, webdis, Postgres; each in a directory of its own."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from redis import Redis

from scripts.benchmark import tools
from scripts.benchmark.load.generators import Answer, Origin
from scripts.benchmark.servers import postgres_api as postgres_peer
from scripts.lib.program import ROOT, Program, environment
from service.store import embedded
from service.store.binaries import SERVER_NAMES, find_server

KEY = postgres_peer.KEY

#: Commands that hold Redis for as long (in microseconds) are noted, and how many of them between two looks.
SLOW, _SLOW_COMMANDS = 500, 10_000
#: The same for a closer look. Much less would measure the noting: what a script calls is noted as well.
FINE = 100

_POSTGRES_SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "1GB",
    "effective_cache_size": "4GB",
    "work_mem": "64MB",
    "maintenance_work_mem": "512MB",
    "max_wal_size": "4GB",
    "random_page_cost": "1.1",
    # What was acknowledged may be lost with the machine for less than a second, as with `appendfsync everysec`.
    "synchronous_commit": "off",
    # Compiling costs more than it gains on pages of 20 rows.
    "jit": "off",
}


class RedisSide:
    """A Redis on a Unix socket, as the benchmark looks at it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.client = Redis(unix_socket_path=str(path), protocol=2)

    @property
    def url(self) -> str:
        """Its URL."""
        return f"unix://{self.path}"

    def ask(self, *words: str | int) -> Any:  # noqa: ANN401 - Redis replies differ
        """Run one command."""
        return self.client.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py leaves it so

    def watch(self, micros: int = SLOW) -> None:
        """Note every command that holds Redis for `micros` or more."""
        self.ask("CONFIG", "SET", "slowlog-log-slower-than", micros)
        self.ask("CONFIG", "SET", "slowlog-max-len", _SLOW_COMMANDS)

    def slow_commands(self) -> list[tuple[str, int]]:
        """Commands noted since the last call, with their microseconds; a script by its SHA-1."""
        entries = self.client.slowlog_get(_SLOW_COMMANDS)
        self.ask("SLOWLOG", "RESET")
        words = [(entry["command"].decode(errors="replace").split(" "), int(entry["duration"])) for entry in entries]
        return [(command[1] if command[0].upper() == "EVALSHA" else command[0], micros) for command, micros in words]

    def script_calls(self) -> int:
        """How many scripts it has run."""
        return int(self.ask("INFO", "commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])

    def memory(self) -> int:
        """Bytes in use, once no rewrite of its file is going on."""
        while self.ask("INFO", "persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.2)
        return int(self.ask("INFO", "memory")["used_memory"])


class Service(Program):
    """`session-configs serve` with an embedded Redis of its own."""

    def __init__(self, home: Path, *, workers: int) -> None:
        home.mkdir()
        data = home / "data"
        command = [sys.executable, "-m", "service", "serve", "--port", "0", "--workers", str(workers), "--data-dir", str(data)]
        super().__init__(home, command, cwd=ROOT, env=environment(SCC_ROOT_TOKEN=KEY.removeprefix("sk-ac-")))
        self.origin: Origin = ("127.0.0.1", int(self.printed(r"ready at http://[^:]+:(\d+)[^\n]*\nkey")))
        self.redis = RedisSide(embedded.socket_path(data))
        self.redis.watch()

    def workers(self) -> list[int]:
        """Process ids of its workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="utf-8").split()
        programs = {int(pid): Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() for pid in children}
        return [pid for pid, program in programs.items() if program not in SERVER_NAMES]


class DefaultRedis(Program):
    """A Redis as it is without a configuration file, in memory only."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        path = home / "redis.sock"
        settings = ["--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no", "--dir", str(home)]
        super().__init__(home, [find_server()[0], *settings], env=environment(LC_ALL="C"))
        self.printed("(eady to accept connections)")
        self.redis = RedisSide(path)


class Bare(Program):
    """The bare aiohttp peer, which answers each method as our service did."""

    def __init__(self, home: Path, answers: dict[str, Answer]) -> None:
        home.mkdir()
        told = {
            method: {"status": answer.status, "headers": answer.headers, "body": answer.body.decode()}
            for method, answer in answers.items()
        }
        path = home / "answers.json"
        path.write_text(json.dumps(told), encoding="utf-8")
        super().__init__(home, [sys.executable, "-m", "scripts.benchmark.servers.bare_aiohttp", str(path)], cwd=ROOT)
        self.origin: Origin = ("127.0.0.1", int(self.printed(r"ready on (\d+)\n")))


class Webdis(Program):
    """webdis before a Redis, with two threads."""

    def __init__(self, home: Path, redis: RedisSide, port: int) -> None:
        home.mkdir()
        settings = {
            "redis_host": str(redis.path),
            "http_host": "127.0.0.1",
            "http_port": port,
            "threads": 2,
            "pool_size": 20,
            "daemonize": False,
            "verbosity": 1,
            "logfile": str(home / "log"),
        }
        path = home / "webdis.json"
        path.write_text(json.dumps(settings), encoding="utf-8")
        super().__init__(home, [tools.path("webdis"), str(path)])
        self.origin: Origin = ("127.0.0.1", port)


class Postgres(Program):
    """A Postgres server of its own, on a Unix socket, with databases made on demand."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        initdb, server = tools.path("initdb"), tools.path("postgres")
        as_user: dict[str, Any] = {}
        if os.geteuid() == 0:  # Postgres refuses to run as root; the Debian package brings a user for it.
            user = pwd.getpwnam("postgres")
            os.chown(home, user.pw_uid, user.pw_gid)
            as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self.directory = str(home)
        data = str(home / "data")
        made = [initdb, "-D", data, "-U", postgres_peer.USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        subprocess.run(made, check=True, capture_output=True, cwd=home, **as_user)
        settings = [part for name, value in _POSTGRES_SETTINGS.items() for part in ("-c", f"{name}={value}")]
        super().__init__(home, [server, "-D", data, "-k", self.directory, *settings], tied=False, cwd=home, **as_user)
        self.printed("(ready to accept connections)")

    def stop(self) -> None:
        """End it without waiting for clients, and without writing what nobody reads again."""
        if self.process.poll() is None:
            self.process.send_signal(3)  # SIGQUIT: an immediate shutdown
            self.process.wait()


class PostgresPeer(Program):
    """The HTTP peer over one database."""

    def __init__(self, home: Path, postgres: Postgres, database: str) -> None:
        home.mkdir()
        command = [sys.executable, "-m", "scripts.benchmark.servers.postgres_api", postgres.directory, database]
        super().__init__(home, command, cwd=ROOT)
        self.origin: Origin = ("127.0.0.1", int(self.printed(r"ready on (\d+)\n")))


def remove(home: Path) -> None:
    """Remove the directory of all."""
    shutil.rmtree(home, ignore_errors=True)
