"""Load: throughput from wrk and redis-benchmark, which are faster than any server here; latency of one request at a time.

Requests are rendered once, as the bytes that go over the wire, and every side of a comparison gets the same.
"""

import csv
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import quote

import orjson

from scripts.benchmark import tools
from scripts.lib.program import Failed

SCRIPT = Path(__file__).with_name("wrk.lua")
API = "/api/v1"

Origin = tuple[str, int]


def request(
    method: str, path: str, *, key: str = "", body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """One HTTP request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def configs_path(session_id: str) -> str:
    """Path of a session's configs."""
    return f"{API}/session/{session_id}/configs"


def list_path(configs: object, *, descending: bool = False, cursor: str | None = None, limit: int = 20) -> str:
    """Path and query of a filtered list."""
    after = f"&cursor={quote(cursor)}" if cursor else ""
    wanted = quote(orjson.dumps(configs))
    return f"{API}/session?limit={limit}&time_desc={str(descending).lower()}&filter_by_configs={wanted}{after}"


def write_requests(path: Path, requests: Sequence[bytes]) -> Path:
    """Write `requests` into a file that `wrk.lua` reads."""
    path.write_bytes(b"".join(b"%d\n%b" % (len(one), one) for one in requests))
    return path


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw: requests a second, and latencies in microseconds."""

    rate: float
    p50: float
    p99: float


def _wrk_command(origin: Origin, requests: Path, connections: int, seconds: float) -> list[str]:
    # wrk takes whole seconds; one thread of it sends several times what any server here answers.
    where = f"http://{origin[0]}:{origin[1]}"
    return [
        *(tools.path("wrk"), "--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s"),
        *("--latency", "--script", str(SCRIPT), where, "--", str(requests)),
    ]


def wrk(origin: Origin, requests: Path, *, connections: int, seconds: float, refusals: bool = False) -> Load:
    """Send `requests` over and over, each connection as fast as it is answered; what is refused, if it may be, is not counted.

    Raises:
        Failed: a request was not answered, or with an error.
    """
    command = _wrk_command(origin, requests, connections, seconds)
    printed = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    seen = json.loads(printed.strip().rpartition("\n")[2])
    good = seen["requests"] - seen["refused"]
    if seen["failed"] or (seen["refused"] and not refusals) or not good:
        raise Failed(f"of {seen['requests']} requests {seen['refused']} were refused and {seen['failed']} not answered")
    return Load(good / seen["duration"] * 1e6, seen["p50"], seen["p99"])


def open_loop(origin: Origin, requests: Path, *, rate: float, connections: int, seconds: float) -> Load:
    """Send `rate` requests a second, whatever becomes of them; what was answered well, with latencies from when it was due."""
    words = [*origin, requests, rate, seconds, connections]
    command = [sys.executable, "-m", "scripts.benchmark.load.open_loop", *map(str, words)]
    printed = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, cwd=SCRIPT.parents[3]).stdout
    seen = json.loads(printed)
    return Load(seen["good"], seen["p50"], seen["p99"])


@contextmanager
def beside(origin: Origin, requests: Path, *, connections: int) -> Iterator[None]:
    """Send `requests` from another wrk while the body runs."""
    process = subprocess.Popen(_wrk_command(origin, requests, connections, 3600), stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.2)
        yield
        if process.poll() is not None:
            raise Failed("the load beside ended early")
    finally:
        process.terminate()
        process.wait()


def redis_benchmark(redis_socket: Path, command: Sequence[str], *, connections: int, count: int) -> Load:
    """Send one Redis command `count` times."""
    words = ["-s", str(redis_socket), "-c", str(connections), "-n", str(count), "--csv", *command]
    printed = subprocess.run([tools.path("redis-benchmark"), *words], capture_output=True, encoding="utf-8", check=True).stdout
    # The test's name is the command, and may hold anything; the header and the figures stand in the last two lines.
    header, figures = list(csv.reader(printed.strip().splitlines()[-2:]))
    seen = dict(zip(header, figures, strict=True))
    return Load(float(seen["rps"]), float(seen["p50_latency_ms"]) * 1000, float(seen["p99_latency_ms"]) * 1000)


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One keep-alive connection on which requests are sent one at a time."""

    def __init__(self, origin: Origin) -> None:
        self._socket = socket.create_connection(origin, timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def ask(self, sent: bytes) -> Answer:
        """Send one request and read its answer."""
        self._socket.sendall(sent)
        received = self._socket.recv(65536)
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._more()
        status, *lines = received[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = received[end + 4 :]
        length = int(headers.get("content-length", 0))
        while len(body) < length:
            body += self._more()
        return Answer(int(status.split()[1]), headers, body)

    def good(self, sent: bytes) -> Answer:
        """As `ask`.

        Raises:
            Failed: the answer is an error.
        """
        answer = self.ask(sent)
        if answer.status >= 300:
            raise Failed(f"{sent.split(b' HTTP')[0].decode()} was answered with {answer.status}: {answer.body[:200].decode()}")
        return answer

    def p50(self, sent: bytes, *, seconds: float, least: int = 3) -> float:
        """Median latency in microseconds of the request, sent for `seconds`, `least` times at least."""
        taken: list[float] = []
        end = time.perf_counter() + seconds
        while len(taken) < least or time.perf_counter() < end:
            started = time.perf_counter()
            self.ask(sent)
            taken.append((time.perf_counter() - started) * 1e6)
        return median(taken)

    def _more(self) -> bytes:
        received = self._socket.recv(1 << 20)
        if not received:
            raise Failed("the connection was closed")
        return received
