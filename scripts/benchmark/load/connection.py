"""One keep-alive connection, for the latency of one request at a time."""

import socket
import time
from dataclasses import dataclass
from statistics import median

from scripts.lib.program import Failed

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """Sends one request at a time. Reads only responses with a Content-Length, or without a body."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.create_connection(address, timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def send(self, request: bytes) -> Response:
        """Send a request and read the response.

        Raises:
            Failed: the server closed the connection.
        """
        self._socket.sendall(request)
        received = self._receive()
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._receive()
        status, *lines = received[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = received[end + 4 :]
        while len(body) < int(headers.get("content-length", 0)):
            body += self._receive()
        return Response(int(status.split()[1]), headers, body)

    def send_ok(self, request: bytes) -> Response:
        """Send a request that must succeed.

        Raises:
            Failed: the status is not 2xx.
        """
        response = self.send(request)
        if response.status >= 300:
            text = response.body[:200].decode()
            raise Failed(f"{request.split(b' HTTP')[0].decode()} failed with status {response.status}: {text}")
        return response

    def median_latency(self, request: bytes, *, seconds: float, minimum: int = 3) -> float:
        """Median latency of `request` in microseconds, sent for `seconds`, and at least `minimum` times."""
        latencies: list[float] = []
        end = time.perf_counter() + seconds
        while len(latencies) < minimum or time.perf_counter() < end:
            start = time.perf_counter()
            self.send(request)
            latencies.append((time.perf_counter() - start) * 1e6)
        return median(latencies)

    def _receive(self) -> bytes:
        received = self._socket.recv(1 << 20)
        if not received:
            raise Failed("the server closed the connection")
        return received
