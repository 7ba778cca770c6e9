"""`python -m scripts.benchmark.load.open_loop HOST PORT REQUESTS RATE SECONDS CONNECTIONS`: an open loop.

Requests are sent at a fixed rate, whether or not earlier ones were answered, each on an idle connection. A refused request
frees its connection immediately: clients without back-off. Prints one line of JSON: `good` and `refused` responses a second,
`lost` requests a second (no connection was idle), and `p50` and `p99` of good responses, in microseconds from when they were
due.
"""

import asyncio
import json
import sys
from collections import deque
from pathlib import Path
from typing import NamedTuple, cast

import uvloop

from scripts.benchmark.load.requests import read_requests

_TICK = 0.001  # seconds between two batches of due requests
_WARM_UP = 0.2  # share of the time that is not counted


class Completed(NamedTuple):
    """One response: when it came, its latency from when the request was due (both in seconds), and whether it was a 200."""

    at: float
    latency: float
    good: bool


class OpenLoopConnection(asyncio.Protocol):
    """One connection; it puts itself into `idle` and its responses into `completed`."""

    def __init__(self, idle: "deque[OpenLoopConnection]", completed: list[Completed]) -> None:
        self._idle, self._completed = idle, completed
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self._missing = 0  # bytes of the body
        self._good = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; the connection is idle."""
        self._transport = cast("asyncio.Transport", transport)
        self._idle.append(self)

    def send(self, request: bytes, due: float) -> None:
        """Send a request that was due at a time of the loop."""
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Count the response once it is complete."""
        if self._missing:
            self._missing -= len(data)
        else:
            # Heads are short and come in one piece.
            head, _, body = data.partition(b"\r\n\r\n")
            self._good = head.startswith(b"HTTP/1.1 200")
            self._missing = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]) - len(body)
        if not self._missing:
            now = self._loop.time()
            self._completed.append(Completed(now, now - self._due, self._good))
            self._idle.append(self)


async def run(host: str, port: int, requests: list[bytes], rate: float, seconds: float, connections: int) -> dict[str, float]:
    """Send the requests; returns the figures to print."""
    loop = asyncio.get_running_loop()
    idle: deque[OpenLoopConnection] = deque()
    completed: list[Completed] = []
    for _ in range(connections):
        await loop.create_connection(lambda: OpenLoopConnection(idle, completed), host, port)
    begin = loop.time()
    warm = begin + _WARM_UP * seconds
    sent = lost = 0
    while (now := loop.time()) < begin + seconds:
        for number in range(sent, int((now - begin) * rate)):
            due = begin + number / rate
            if idle:
                idle.popleft().send(requests[number % len(requests)], due)
            elif due > warm:
                lost += 1
            sent += 1
        await asyncio.sleep(_TICK)
    return _figures([one for one in completed if one.at > warm], lost, seconds * (1 - _WARM_UP))


def _figures(completed: list[Completed], lost: int, seconds: float) -> dict[str, float]:
    latencies = sorted(one.latency for one in completed if one.good) or [0.0]
    good = sum(one.good for one in completed)
    return {
        "good": good / seconds,
        "refused": (len(completed) - good) / seconds,
        "lost": lost / seconds,
        "p50": latencies[len(latencies) // 2] * 1e6,
        "p99": latencies[len(latencies) * 99 // 100] * 1e6,
    }


def main() -> None:
    """Run and print the figures."""
    host, port, path, rate, seconds, connections = sys.argv[1:]
    figures = run(host, int(port), read_requests(Path(path)), float(rate), float(seconds), int(connections))
    sys.stdout.write(json.dumps(uvloop.run(figures)) + "\n")


if __name__ == "__main__":
    main()
