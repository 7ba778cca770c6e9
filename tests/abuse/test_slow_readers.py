"""Clients that read their responses slowly or not at all: they occupy little memory for a short time, and delay no others."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.abuse.worker_memory import MIB, NOISE, Victim, victim
from tests.support.raw_http import answer_on, answers_in, head
from tests.support.server import until

LIST = "GET /api/v1/session?limit=200 HTTP/1.1"
#: Bytes that the small server may buffer for its clients.
LIMIT = 16 * MIB


def fill(attacked: Victim) -> None:
    """Create sessions whose list has 3 MiB, below the limit of a page."""
    for number in range(12):
        attacked.api.new({"k": "x" * 250_000, "n": number})


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with victim(tmp_path_factory.mktemp("hasty"), "--client-timeout", "0.5") as attacked:
        fill(attacked)
        yield attacked


def is_open(connection: socket.socket) -> bool:
    """Whether the server has not reset the connection."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x01"


def test_a_client_that_reads_one_byte_at_a_time_is_disconnected(hasty: Victim) -> None:
    with hasty.connect(4096) as connection:
        connection.sendall(head(hasty.api, LIST))

        def is_disconnected() -> bool:
            with suppress(ConnectionError):
                connection.recv(1)
            return not is_open(connection)

        until(is_disconnected, "the end of a connection whose client reads one byte at a time")
        hasty.check_served()


def test_a_client_that_reads_steadily_gets_the_whole_response_however_long_it_takes(hasty: Victim) -> None:
    with hasty.connect(65536) as connection:
        connection.sendall(head(hasty.api, LIST, "Connection: close"))
        received = bytearray()
        while part := connection.recv(65536):
            received += part
            # 1.6 MiB/s: four times the client timeout for the whole.
            time.sleep(len(part) / (1.6 * MIB))
    (response,) = answers_in(bytes(received))
    assert len(response.data["items"]) == 12


@pytest.mark.parametrize("readers", [60])
def test_the_memory_of_all_slow_readers_together_is_bounded(tmp_path: Path, readers: int) -> None:
    with victim(tmp_path, "--max-buffered-bytes", str(LIMIT)) as attacked, ExitStack() as stack:
        fill(attacked)
        attacked.check_served()
        before = attacked.memory
        for _ in range(readers):
            connection = stack.enter_context(attacked.connect(4096))
            connection.sendall(head(attacked.api, LIST))
        # Slow clients are disconnected, so that one that reads its response gets it.
        statuses = []

        def is_listed() -> bool:
            with attacked.connect() as quick:
                quick.sendall(head(attacked.api, LIST, "Connection: close"))
                response = answer_on(quick)
            statuses.append(response.status)
            return response.status == 200

        until(is_listed, "a list for a client that reads it")
        assert set(statuses) <= {200, 503}
        # Twice the limit: the buffered responses, and one being built. Without a limit: 60 responses of 3 MiB.
        assert attacked.memory - before < 2 * LIMIT + 2 * NOISE
        attacked.check_served()


def test_small_unread_responses_count_too(tmp_path: Path) -> None:
    with victim(tmp_path, "--max-buffered-bytes", str(MIB)) as attacked, ExitStack() as stack:
        session_id = attacked.api.new({"k": "x" * 30_000})
        get = head(attacked.api, f"GET /api/v1/session/{session_id} HTTP/1.1")
        connections = [stack.enter_context(attacked.connect(4096)) for _ in range(200)]
        before = attacked.memory
        for _ in range(30):
            for connection in connections:
                with suppress(ConnectionError, BlockingIOError):
                    connection.send(get, socket.MSG_DONTWAIT)
        attacked.check_served()
        assert attacked.memory - before < 2 * NOISE
        assert answered(attacked, get)


def answered(attacked: Victim, sent: bytes) -> bool:
    with attacked.connect() as connection:
        connection.sendall(sent)
        return answer_on(connection).status == 200
