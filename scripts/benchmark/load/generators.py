"""Load generators in separate processes: wrk, redis-benchmark and the open loop. Each is faster than any server here."""

import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmark import tools
from scripts.benchmark.load.connection import Address
from scripts.lib.program import ROOT, Failed

_WRK_SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Successful requests a second, and their latencies in microseconds."""

    rate: float
    p50: float
    p99: float


def wrk(address: Address, requests: Path, *, connections: int, seconds: float, allow_refused: bool = False) -> LoadResult:
    """Send `requests` over and over, a closed loop on each connection.

    Raises:
        Failed: a response was missing, or an error. With `allow_refused` errors are only left out of the rate.
    """
    output = json.loads(_run(_wrk_command(address, requests, connections, seconds)).strip().rpartition("\n")[2])
    total, refused, failed = output["requests"], output["refused"], output["failed"]
    if failed or (refused and not allow_refused) or refused == total:
        raise Failed(f"of {total} requests {refused} got an error status and {failed} no response")
    return LoadResult((total - refused) / output["duration"] * 1e6, output["p50"], output["p99"])


@contextmanager
def background_wrk(address: Address, requests: Path, *, connections: int) -> Iterator[None]:
    """Send `requests` from another wrk while the body runs."""
    process = subprocess.Popen(_wrk_command(address, requests, connections, 3600), stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.2)
        yield
        if process.poll() is not None:
            raise Failed("the background load ended early")
    finally:
        process.terminate()
        process.wait()


def _wrk_command(address: Address, requests: Path, connections: int, seconds: float) -> list[str]:
    # wrk takes whole seconds. One thread of it sends several times what any server here can answer.
    return [
        *(tools.path("wrk"), "--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s"),
        # On a busy host some responses take longer than wrk's default of 2 s. They count in the latencies, not as failures.
        *(
            "--timeout",
            "20s",
            "--latency",
            "--script",
            str(_WRK_SCRIPT),
            f"http://{address[0]}:{address[1]}",
            "--",
            str(requests),
        ),
    ]


def open_loop(address: Address, requests: Path, *, rate: float, connections: int, seconds: float) -> LoadResult:
    """Send `rate` requests a second whether or not they are answered; latencies count from when a request was due."""
    arguments = map(str, (*address, requests, rate, seconds, connections))
    output = json.loads(_run([sys.executable, "-m", "scripts.benchmark.load.open_loop", *arguments]))
    return LoadResult(output["good"], output["p50"], output["p99"])


def redis_benchmark(redis_socket: Path, command: Sequence[str], *, connections: int, count: int) -> LoadResult:
    """Send one Redis command `count` times."""
    options = ["-s", str(redis_socket), "-c", str(connections), "-n", str(count), "--csv"]
    output = _run([tools.path("redis-benchmark"), *options, *command])
    # The last two lines are the header and the figures; before them stands the command, which may contain anything.
    header, figures = list(csv.reader(output.strip().splitlines()[-2:]))
    columns = dict(zip(header, figures, strict=True))
    return LoadResult(float(columns["rps"]), float(columns["p50_latency_ms"]) * 1000, float(columns["p99_latency_ms"]) * 1000)


def _run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True, cwd=ROOT).stdout
