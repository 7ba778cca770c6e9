"""The memory of a worker for all of its clients together is bounded, hostile ones with a valid key included."""

import socket
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.abuse.worker_memory import MIB, Victim, victim
from tests.support.raw_http import answer_on, head

#: The most memory of a worker with the default limits, in bytes.
BOUND = 256 * MIB
HONEST, HOSTILE = 64, 120

LIST = "GET /api/v1/session?limit=200 HTTP/1.1"
POST = "POST /api/v1/session HTTP/1.1"


def push(connection: socket.socket, data: bytes) -> None:
    """Send as much as the server accepts without blocking; it may have closed the connection."""
    connection.setblocking(False)  # noqa: FBT003 - positional only
    with suppress(BlockingIOError, ConnectionError):
        while data:
            data = data[connection.send(data) :]


def attack(attacked: Victim, stack: ExitStack) -> None:
    """Responses that nobody reads, bodies that stop shortly before their end, and incomplete heads."""
    body = b'{"configs":{"k":"' + b"x" * 1_000_000
    for _ in range(HOSTILE):
        lists, bodies, heads = (stack.enter_context(attacked.connect(4096)) for _ in range(3))
        push(lists, head(attacked.api, LIST))
        push(bodies, head(attacked.api, POST, "Content-Type: application/json", "Content-Length: 1048576") + body)
        push(heads, b"GET /" + b"x" * 60_000)


def test_hostile_clients_with_a_key_stay_within_the_documented_memory(tmp_path: Path) -> None:
    with victim(tmp_path) as attacked, ExitStack() as stack:
        small = attacked.api.new({"agent": "bot1"})
        for number in range(20):
            attacked.api.new({"k": "x" * 250_000, "n": number})
        honest = [stack.enter_context(attacked.connect()) for _ in range(HONEST)]
        request = head(attacked.api, f"GET /api/v1/session/{small} HTTP/1.1")
        attack(attacked, stack)
        measured = []
        for _ in range(5):
            for connection in honest:
                connection.sendall(request)
            assert {answer_on(connection).status for connection in honest} == {200}
            measured.append(attacked.memory)
        assert max(measured) < BOUND
