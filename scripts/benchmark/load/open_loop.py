"""`python -m scripts.benchmark.load.open_loop HOST PORT REQUESTS RATE SECONDS CONNECTIONS`: load that does not wait.

Requests come at a rate of their own, whatever becomes of those before, each on a connection that has nothing to do, and a
connection that was refused is used again at once: clients that know no patience. Prints one line of JSON: `good` and `refused`
answers a second, those that found every connection in use (`lost`, a second), and `p50` and `p99` of good answers from the time
when they were due, in microseconds.
"""

import asyncio
import json
import sys
from collections import deque
from pathlib import Path
from typing import cast

import uvloop

#: Seconds between two looks at what is due, and the part of the time that is left out at the beginning.
TICK, WARM = 0.001, 0.2


class Client(asyncio.Protocol):
    """One connection; `free` takes it while it has nothing to do, `ended` what became of each request."""

    def __init__(self, free: "deque[Client]", ended: list[tuple[float, float, bool]]) -> None:
        self._free = free
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._due = self._left = 0.0
        self._good = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._free.append(self)

    def send(self, request: bytes, due: float) -> None:
        """Send a request that was due at a time of the loop."""
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Count what came of the answer."""
        if not self._left:
            # Heads are short and come in one piece.
            head, _, body = data.partition(b"\r\n\r\n")
            self._good = head.startswith(b"HTTP/1.1 200")
            self._left = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]) - len(body)
        else:
            self._left -= len(data)
        if not self._left:
            self._ended.append((self._loop.time(), self._loop.time() - self._due, self._good))
            self._free.append(self)


async def load(host: str, port: int, requests: list[bytes], rate: float, seconds: float, connections: int) -> dict[str, float]:
    """Send, and return what is to be printed."""
    loop = asyncio.get_running_loop()
    free: deque[Client] = deque()
    ended: list[tuple[float, float, bool]] = []
    for _ in range(connections):
        await loop.create_connection(lambda: Client(free, ended), host, port)
    begin = loop.time()
    sent = lost = 0
    while (now := loop.time()) < begin + seconds:
        for number in range(sent, int((now - begin) * rate)):
            due = begin + number / rate
            if free:
                free.popleft().send(requests[number % len(requests)], due)
            elif due > begin + WARM * seconds:
                lost += 1
            sent += 1
        await asyncio.sleep(TICK)
    counted = [(latency, good) for at, latency, good in ended if at > begin + WARM * seconds]
    latencies = sorted(latency for latency, good in counted if good) or [0.0]
    measured = seconds * (1 - WARM)
    return {
        "good": sum(good for _, good in counted) / measured,
        "refused": sum(not good for _, good in counted) / measured,
        "lost": lost / measured,
        "p50": latencies[len(latencies) // 2] * 1e6,
        "p99": latencies[len(latencies) * 99 // 100] * 1e6,
    }


def read_requests(path: Path) -> list[bytes]:
    """The requests of a file as `load.write_requests` writes it."""
    found, rest = [], path.read_bytes()
    while rest:
        length, _, rest = rest.partition(b"\n")
        found.append(rest[: int(length)])
        rest = rest[int(length) :]
    return found


def main() -> None:
    """Run, and print."""
    host, port, path, rate, seconds, connections = sys.argv[1:]
    requests = read_requests(Path(path))
    run = load(host, int(port), requests, float(rate), float(seconds), int(connections))
    sys.stdout.write(json.dumps(uvloop.run(run)) + "\n")


if __name__ == "__main__":
    main()
