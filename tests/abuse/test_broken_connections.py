"""No memory is kept of requests and responses whose connections break, nor for connections that are idle afterwards."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.abuse.worker_memory import MIB, NOISE, Victim, memory_grown, reset, send, victim
from tests.support.raw_http import answer_on, head

POST = "POST /api/v1/session HTTP/1.1"
LIST = "GET /api/v1/session?limit=200 HTTP/1.1"
BODY = b'{"configs":{"k":"%b"}}' % (b"x" * 900_000)
CONNECTIONS = 40


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """A server whose lists have 3 MiB, below the limit of a page."""
    with victim(tmp_path_factory.mktemp("broken")) as attacked:
        for number in range(12):
            attacked.api.new({"k": "x" * 250_000, "n": number})
        yield attacked


def unread_list(attacked: Victim) -> None:
    """Request a list, read ten bytes of it, and close."""
    with attacked.connect(4096) as connection:
        connection.sendall(head(attacked.api, LIST))
        assert connection.recv(10) == b"HTTP/1.1 2"


def unread_list_with_a_reset(attacked: Victim) -> None:
    connection = attacked.connect(4096)
    connection.sendall(head(attacked.api, LIST))
    assert connection.recv(10) == b"HTTP/1.1 2"
    reset(connection)


def half_of_a_body(attacked: Victim) -> None:
    with attacked.connect() as connection:
        connection.sendall(head(attacked.api, POST, f"Content-Length: {len(BODY)}") + BODY[:-1])


def half_of_a_chunked_body(attacked: Victim) -> None:
    with attacked.connect() as connection:
        connection.sendall(head(attacked.api, POST, "Transfer-Encoding: chunked") + b"%x\r\n" % len(BODY) + BODY)


def a_body_that_grows_over_the_limit(attacked: Victim) -> None:
    with attacked.connect() as connection:
        send(connection, head(attacked.api, POST, "Transfer-Encoding: chunked") + (b"%x\r\n" % len(BODY) + BODY + b"\r\n") * 2)


def broken_chunks(attacked: Victim) -> None:
    with attacked.connect() as connection:
        send(connection, head(attacked.api, POST, "Transfer-Encoding: chunked") + b"%x\r\n" % len(BODY) + BODY + b"zz\r\n")


def a_reset_in_a_body(attacked: Victim) -> None:
    connection = attacked.connect()
    connection.sendall(head(attacked.api, POST, f"Content-Length: {len(BODY)}") + BODY[:-1])
    reset(connection)


def a_body_without_a_key(attacked: Victim) -> None:
    with attacked.connect() as connection:
        start = f"{POST}\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
        send(connection, start + BODY[:-1])


def half_of_a_head(attacked: Victim) -> None:
    with attacked.connect() as connection:
        connection.sendall(b"GET /" + b"y" * 60_000)


KINDS = (
    unread_list, unread_list_with_a_reset, half_of_a_body, half_of_a_chunked_body, a_body_that_grows_over_the_limit,
    broken_chunks, a_reset_in_a_body, a_body_without_a_key, half_of_a_head,
)  # fmt: skip


@pytest.mark.parametrize("attack", KINDS, ids=lambda kind: kind.__name__)
def test_broken_connections_leak_no_memory(attacked: Victim, attack: Callable[[Victim], None]) -> None:
    def round_of(attacked: Victim) -> None:
        for _ in range(CONNECTIONS):
            attack(attacked)

    assert memory_grown(attacked, round_of, rounds=4) < NOISE


def test_an_idle_connection_keeps_neither_its_last_body_nor_its_last_response_in_memory(attacked: Victim) -> None:
    body = BODY.ljust(1_000_000)
    lists = head(attacked.api, LIST)
    with ExitStack() as stack:
        before = attacked.memory
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(attacked.connect())
            connection.sendall(head(attacked.api, POST, f"Content-Length: {len(body)}") + body)
            assert answer_on(connection).status == 413
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(attacked.connect())
            connection.sendall(lists)
            assert len(answer_on(connection).raw) > 2 * MIB
        assert attacked.memory - before < 2 * NOISE
