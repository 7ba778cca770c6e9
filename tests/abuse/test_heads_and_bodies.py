"""Incomplete heads and bodies, with and without a key: their memory is counted, bounded and freed."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.abuse.worker_memory import MIB, NOISE, Victim, memory_grown, send, victim
from tests.support.raw_http import answer_on, answers_in, head

POST = "POST /api/v1/session HTTP/1.1"
PING = "GET /api/v1/ping HTTP/1.1"
LIMIT = 8 * MIB


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with victim(tmp_path_factory.mktemp("small"), "--max-buffered-bytes", str(LIMIT)) as attacked:
        yield attacked


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with victim(tmp_path_factory.mktemp("hasty"), "--client-timeout", "0.5") as attacked:
        yield attacked


LINE = b"GET /" + b"y" * 65_000 + b" HTTP/1.1\r\n"
FIELDS = b"".join(b"X-%d: %b\r\n" % (number, b"z" * 1000) for number in range(30))
TINY_FIELDS = b"GET / HTTP/1.1\r\n" + b"".join(b"%x:\r\n" % number for number in range(120))
UNFINISHED = {
    "a line": LINE[:65_000],
    "headers": LINE + FIELDS,
    "tiny headers": TINY_FIELDS,
    "a head behind a request": b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + LINE + FIELDS,
    "many complete requests": (b"GET /nope HTTP/1.1\r\nHost: x\r\n" + FIELDS + b"\r\n") * 20 + b"GET",
    "a body without a key": b"POST /api/v1/session HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n" + b"x" * 800_000,
    "a body": b"{head}",
}


@pytest.mark.parametrize("sent", UNFINISHED.values(), ids=UNFINISHED)
def test_incomplete_requests_take_bounded_memory_and_small_requests_are_still_served(attacked: Victim, sent: bytes) -> None:
    if sent == b"{head}":
        sent = head(attacked.api, POST, "Content-Length: 900000") + b"x" * 800_000
    with ExitStack() as stack:
        attacked.check_served()
        before = attacked.memory
        for _ in range(400):
            send(stack.enter_context(attacked.connect()), sent)
        for _ in range(10):
            attacked.check_served()
        # 400 connections, and the limit on buffered bytes.
        assert attacked.memory - before < 400 * 30_000 + LIMIT + NOISE


def test_requests_over_the_memory_limit_get_503(attacked: Victim) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(attacked.connect()) for _ in range(20)]
        for connection in connections:
            send(connection, head(attacked.api, POST, "Content-Length: 900000") + b"x" * 800_000)
        statuses = []
        for connection in connections:
            connection.settimeout(0.3)
            with suppress(TimeoutError):
                response = answer_on(connection)
                statuses.append((response.status, response.reason, response.headers["Retry-After"]))
        # The server still waits for the rest of the bodies that fit.
        assert set(statuses) == {(503, "overloaded", "1")}
        assert len(statuses) >= 10
    # All memory is released: as much fits again.
    with attacked.connect() as connection:
        body = b'{"configs":{"k":"%b"}}' % (b"x" * 200_000)
        connection.sendall(head(attacked.api, POST, f"Content-Length: {len(body)}") + body)
        assert answer_on(connection).status == 201


@pytest.mark.parametrize("first", [
    PING.encode() + b"\r\nHost: x\r\n\r\n",
    POST.encode() + b"\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    POST.encode() + b"\r\nHost: x\r\nContent-Length: 8\r\n\r\n\r\n\r\n\r\n\r\n",
    POST.encode() + b"\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    (PING.encode() + b"\r\nHost: x\r\n\r\n") * 50,
])  # fmt: skip
@pytest.mark.parametrize("cuts", [(), (10,), (-2,), (-6,)], ids=str)
def test_an_incomplete_head_behind_another_request_times_out(hasty: Victim, first: bytes, cuts: tuple[int, ...]) -> None:
    sent = first + b"GET /ap"
    parts = [sent[start:end] for start, end in zip((0, *cuts), (*cuts, len(sent)), strict=True)]
    received = bytearray()
    with hasty.connect() as connection:
        for part in parts:
            connection.sendall(part)
        # The connection is closed, long before an idle one would be.
        while data := connection.recv(65536):
            received += data
    statuses = [response.status for response in answers_in(bytes(received))]
    assert statuses == [401] * first.count(b"HTTP/1.1") + [408]


@pytest.mark.parametrize("first", [
    PING.encode() + b"\r\nHost: x\r\n\r\n",
    POST.encode() + b"\r\nHost: x\r\nContent-Length: 8\r\n\r\n\r\n\r\n\r\n\r\n",
    POST.encode() + b"\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
])  # fmt: skip
def test_a_connection_without_an_incomplete_request_stays_open(hasty: Victim, first: bytes) -> None:
    for cut in range(1, len(first), 7):
        with hasty.connect() as connection:
            connection.sendall(first[:cut])
            connection.sendall(first[cut:])
            assert answer_on(connection).status == 401
            connection.settimeout(0.02)
            with pytest.raises(TimeoutError):
                connection.recv(1)
    with hasty.connect() as connection:
        connection.sendall(first * 3)
        received = bytearray()
        while received.count(b"HTTP/1.1 401") < 3:
            received += connection.recv(65536)
        connection.settimeout(1.0)  # twice the client timeout
        with pytest.raises(TimeoutError):
            connection.recv(1)


ZEROS = b"\0" * (64 * MIB)
BOMBS = {
    "gzip": ("gzip", gzip.compress(ZEROS, mtime=0)),
    "deflate": ("deflate", zlib.compress(ZEROS)),
    "gzip twice": ("gzip, gzip", gzip.compress(gzip.compress(ZEROS * 4, mtime=0), mtime=0)),
    "br": ("br", b"\x1b\xff\xff\xff" * 20_000),
    "zstd": ("zstd", b"\x28\xb5\x2f\xfd\xa4\x00\x00\x00\x04" * 10_000),
}
TARGETS = {
    "401": (POST, ""),
    "404": ("POST /api/v1/nope HTTP/1.1", "key"),
    "health": ("GET /health HTTP/1.1", ""),
    "415": (POST, "key"),
}


@pytest.mark.parametrize(("coding", "body"), BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize(("line", "key"), TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_no_body_is_decompressed(attacked: Victim, coding: str, body: bytes, line: str, key: str, chunked: bool) -> None:
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    start = head(attacked.api, line, f"Content-Encoding: {coding}", framing)
    if not key:
        start = start.replace(b"Bearer sk", b"Bearer no")
    sent = start + (b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body)

    def attack(attacked: Victim) -> None:
        for _ in range(5):
            with attacked.connect() as connection:
                send(connection, sent)
                assert answer_on(connection).status in (200, 401, 404, 415)

    assert memory_grown(attacked, attack, rounds=2) < NOISE


@pytest.mark.parametrize(
    "coding", ["gzip", "identity", "gzip, chunked", "chunked, gzip", "deflate", "br", "chunked, chunked", "x"]
)
def test_a_transfer_coding_other_than_chunked_is_400(attacked: Victim, coding: str) -> None:
    with attacked.connect() as connection:
        connection.sendall(head(attacked.api, POST, f"Transfer-Encoding: {coding}") + b"2\r\n{}\r\n0\r\n\r\n")
        assert answer_on(connection).status == 400


@pytest.mark.parametrize("line", [PING, POST, "GET /api/v1/nope HTTP/1.1"])
def test_two_authorization_headers_get_400(attacked: Victim, line: str) -> None:
    for second in (attacked.api.key, "sk-ac-other"):
        with attacked.connect() as connection:
            connection.sendall(head(attacked.api, line, f"Authorization: Bearer {second}", "Content-Length: 0"))
            assert answer_on(connection).status == 400
