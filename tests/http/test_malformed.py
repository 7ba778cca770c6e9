"""Invalid HTTP over a raw socket gets 400 in the envelope and causes no traceback (conftest checks the log)."""

import http.client
import time

import pytest

from tests.support.http import Api
from tests.support.raw_http import answer_on, connect, exchange, head

NOT_HTTP = "the request is not valid HTTP"
NO_METHOD = "the request is not valid HTTP: it must start with a method such as GET, in upper case"
BROKEN_BODY = "the body is incomplete, or its encoding does not match the headers"


@pytest.mark.parametrize("line", [
    "GET /health HTTP/1.1 x", "GET /health HTTP/9.9", "GET /health HTTP/x",
    "GET /health FTP/1.1", "GET health HTTP/1.1", "GET /he\x00alth HTTP/1.1", "GET /\xff HTTP/1.1",
    "GET /api/v1/session?user=\xff HTTP/1.1", "PRI * HTTP/2.0",
])  # fmt: skip
def test_an_invalid_request_line_gets_400(api: Api, line: str) -> None:
    response = exchange(api, head(api, line))
    assert (response.status, response.msg) == (400, NOT_HTTP)


@pytest.mark.parametrize("line", [
    "hello", "GET", "/health GET HTTP/1.1", "G\x00T /health HTTP/1.1", "BREW /health HTTP/1.1", "patch /health HTTP/1.1",
    "FOO /health HTTP/1.1",
    "Get /health HTTP/1.1", "\x16\x03\x01\x02\x00", "A" * 20_000,
])  # fmt: skip
def test_a_request_without_a_valid_method_gets_400_that_says_so(api: Api, line: str) -> None:
    response = exchange(api, head(api, line))
    assert (response.status, response.msg) == (400, NO_METHOD)


@pytest.mark.parametrize("header", [
    "no colon", ": no name", "spa ce: x", "X\x00: y", "X: \x00", "X: a\rb",
    "Content-Length: abc", "Content-Length: -1", "Content-Length: 1, 2", "Content-Length: 1\r\nContent-Length: 2",
    "Content-Length: 3\r\nTransfer-Encoding: chunked", "Transfer-Encoding: nonsense",
])  # fmt: skip
def test_an_invalid_header_gets_400(api: Api, header: str) -> None:
    response = exchange(api, head(api, "POST /api/v1/session HTTP/1.1", header) + b"{}")
    assert response.status == 400
    assert api.ids() == []


CHUNKED = "Transfer-Encoding: chunked"
BAD_CHUNKS = [b"zz\r\n{}\r\n0\r\n\r\n", b"-1\r\n{}\r\n0\r\n\r\n", b"2\r\n{}xx0\r\n\r\n", b"2 2\r\n{}\r\n0\r\n\r\n",
              b"fffffffffffffffff\r\n{}\r\n", b"\r\n{}\r\n0\r\n\r\n"]  # fmt: skip


@pytest.mark.parametrize("chunk", BAD_CHUNKS)
def test_invalid_chunks_get_400_whenever_they_arrive(api: Api, chunk: bytes) -> None:
    start = head(api, "POST /api/v1/session HTTP/1.1", CHUNKED)
    for parts in ((start + chunk,), (start, chunk), (start, b"2\r\n{}\r\n", chunk), (start + b"2\r\n{}\r\n", chunk)):
        response = exchange(api, *parts)
        # On a busy machine the parts may arrive together.
        assert (response.status, response.msg in (NOT_HTTP, BROKEN_BODY)) == (400, True)
        # Nobody knows where such a body ends, so nothing can follow it.
        assert response.headers["Connection"] == "close"
    assert api.ids() == []


def test_garbage_behind_a_valid_request_gets_400_and_closes_the_connection(api: Api) -> None:
    with connect(api) as connection:
        for sent, status in (
            (head(api, "POST /api/v1/session HTTP/1.1", "Content-Length: 2") + b"{}", 201),
            (b"rubbish\r\n\r\n", 400),
        ):
            connection.sendall(sent)
            response = http.client.HTTPResponse(connection)
            response.begin()
            response.read()
            assert response.status == status
        assert connection.recv(1) == b""
    assert len(api.ids()) == 1


def test_a_client_that_disconnects_within_its_body_writes_nothing(api: Api) -> None:
    for header, body in (("Content-Length: 200", b'{"configs":{}'), (CHUNKED, b"2\r\n{}\r\n"), (CHUNKED, b"5\r\n{}")):
        with connect(api) as connection:
            connection.sendall(head(api, "POST /api/v1/session HTTP/1.1", header) + body)
            time.sleep(0.1)
    # Later requests are served.
    assert api.ids() == []


def test_a_client_that_disconnects_before_its_response_harms_nobody(api: Api) -> None:
    session_id = api.new({"k": "x" * 200_000})
    for _ in range(20):
        with connect(api) as connection:
            connection.sendall(head(api, f"GET /api/v1/session/{session_id} HTTP/1.1"))
    assert api.get(session_id).data["revision"] == 1


def test_an_unknown_expectation_gets_417(api: Api) -> None:
    response = exchange(api, head(api, "POST /api/v1/session HTTP/1.1", "Expect: the-impossible", "Content-Length: 2") + b"{}")
    assert (response.status, response.reason) == (417, "expectation_failed")
    assert api.ids() == []


def test_expect_100_continue_gets_100_continue(api: Api) -> None:
    with connect(api) as connection:
        connection.sendall(head(api, "POST /api/v1/session HTTP/1.1", "Expect: 100-continue", "Content-Length: 2"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(b"{}")
        assert connection.recv(100).startswith(b"HTTP/1.1 201 Created")


def test_a_client_of_http_1_0_gets_no_100_continue(api: Api) -> None:
    with connect(api) as connection:
        connection.sendall(head(api, "POST /api/v1/session HTTP/1.0", "Expect: 100-continue", "Content-Length: 2") + b"{}")
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 201 Created")


def test_a_client_of_http_1_0_keeps_its_connection_only_if_it_asks_to(api: Api) -> None:
    with connect(api) as connection:
        for header, kept in (("Connection: keep-alive", "keep-alive"), ("X: y", "close")):
            connection.sendall(head(api, "GET /api/v1/ping HTTP/1.0", header))
            response = answer_on(connection)
            assert (response.status, response.headers["Connection"]) == (200, kept)
        assert connection.recv(1) == b""
    assert exchange(api, head(api, "GET /api/v1/ping HTTP/1.1")).headers["Connection"] is None


@pytest.mark.parametrize(("line", "status"), [
    ("GET http://x/health HTTP/1.1", 200), ("GET /health HTTP/1.0", 200), ("OPTIONS * HTTP/1.1", 404),
    ("CONNECT x:80 HTTP/1.1", 404),
    ("GET /health?x=%ff&%zz HTTP/1.1", 200), ("GET /%68ealth HTTP/1.1", 200), ("GET /../health HTTP/1.1", 404),
])  # fmt: skip
def test_odd_but_valid_requests_are_answered_in_the_envelope(api: Api, line: str, status: int) -> None:
    assert exchange(api, head(api, line)).status == status


def test_pipelined_requests_are_answered_in_order(api: Api) -> None:
    create = head(api, "POST /api/v1/session HTTP/1.1", "Content-Length: 2") + b"{}"
    with connect(api) as connection:
        connection.sendall(create * 5 + head(api, "GET /api/v1/session?limit=200 HTTP/1.1", "Connection: close"))
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.count(b"HTTP/1.1 201 Created") == 5
    assert received.rpartition(b"HTTP/1.1 200 OK")[2].count(b'"revision":1') == 5
