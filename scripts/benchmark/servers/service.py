"""The service under test."""

import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from scripts.benchmark.load.connection import Address
from scripts.benchmark.load.requests import API_KEY
from scripts.benchmark.servers.redis import RedisProbe
from scripts.lib.program import ROOT, Program, environment
from service.process import embedded_redis
from service.process.redis_binaries import SERVER_NAMES


class Service(Program):
    """`session-configs serve` from the code in `checkout`, with an embedded Redis unless `settings` (SCC_…) name another.

    `program` is the module to run, with arguments before `serve`.
    """

    def __init__(
        self,
        home: Path,
        *,
        workers: int,
        checkout: Path = ROOT,
        settings: Mapping[str, str] | None = None,
        program: Sequence[str] = ("service",),
    ) -> None:
        self.data_dir = home / "data"
        options = ["--port", "0", "--workers", str(workers), "--data-dir", str(self.data_dir)]
        # `python -m` looks in the working directory first.
        super().__init__(
            home,
            [sys.executable, "-m", *program, "serve", *options],
            cwd=checkout,
            env=environment(PYTHONPATH=str(checkout), SCC_ROOT_TOKEN=API_KEY.removeprefix("sk-ac-"), **(settings or {})),
        )
        self.address: Address = ("127.0.0.1", int(self.printed(r"http://[^\s:]+:(\d+)[^\n]*\n")))

    @cached_property
    def redis(self) -> RedisProbe:
        """Its embedded Redis."""
        return RedisProbe(f"unix://{embedded_redis.socket_path(self.data_dir)}")

    def workers(self) -> list[int]:
        """Process ids of its workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="utf-8").split()
        programs = {int(pid): Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() for pid in children}
        return [pid for pid, program in programs.items() if program not in SERVER_NAMES]
