"""Clients that stop midway, close their sending side early, read nothing, or stay idle: no other client waits for them."""

import contextlib
import resource
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from service.http.server.protocol import EXTRA_CONNECTIONS
from tests.support.http import Api, api_on
from tests.support.raw_http import answer_on, answers_in, connect, conversation, head
from tests.support.server import PATIENCE, Serving, until

POST = "POST /api/v1/session HTTP/1.1"
PING = "GET /api/v1/ping HTTP/1.1"
#: The client timeout of the hasty server, in seconds; the limits on connections and requests in flight of the small one.
TIMEOUT, CONNECTIONS, IN_FLIGHT = 0.5, 20, 4


@pytest.fixture(scope="module")
def hasty(serve: Callable[..., Serving]) -> Iterator[Api]:
    """A server with a short client timeout."""
    api = api_on(serve("--workers", "1", "--client-timeout", str(TIMEOUT)))
    yield api
    api.close()


@pytest.fixture(scope="module")
def small(serve: Callable[..., Serving]) -> Iterator[Api]:
    """A server with few connections and requests in flight."""
    api = api_on(serve("--workers", "1", "--max-connections", str(CONNECTIONS), "--max-in-flight", str(IN_FLIGHT)))
    yield api
    api.close()


def served(api: Api) -> bool:
    """Whether a request on a new connection is served."""
    return [response.status for response in conversation(api, head(api, PING))] == [200]


def rest_of(connection: socket.socket) -> bytes:
    """All bytes until the server closes the connection."""
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            received += part
    return bytes(received)


def waiting(api: Api, *headers: str) -> socket.socket:
    """A connection on which a handler waits for a body."""
    connection = connect(api)
    connection.sendall(head(api, POST, "Expect: 100-continue", *(headers or ("Content-Length: 200",))))
    assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
    return connection


@pytest.mark.parametrize("part", [
    "POST", "\r\n", "POST /api/v1/session HTTP/1.1\r\nHost: x\r\nX-A", "{head}", '{head}{{"configs":', "{chunked}5",
    "{chunked}2\r\n{{}}\r\n",
])  # fmt: skip
def test_an_incomplete_request_gets_408_and_closes_the_connection(hasty: Api, part: str) -> None:
    length, chunked = (head(hasty, POST, framing).decode() for framing in ("Content-Length: 200", "Transfer-Encoding: chunked"))
    with connect(hasty) as connection:
        connection.sendall(part.format(head=length, chunked=chunked).encode())
        (response,) = answers_in(rest_of(connection))
    assert (response.status, response.headers["Connection"]) == (408, "close")
    assert response.reason == "request_timeout"
    assert served(hasty)
    assert hasty.ids() == []


@pytest.mark.parametrize("start", ["GET /", "{head}"])
def test_a_request_that_trickles_in_gets_408_too(hasty: Api, start: str) -> None:
    with connect(hasty) as connection:
        connection.sendall(start.format(head=head(hasty, POST, "Content-Length: 100000").decode()).encode())
        connection.settimeout(TIMEOUT / 10)
        received, deadline = b"", time.monotonic() + PATIENCE
        while not received and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                connection.sendall(b"a")
                received = connection.recv(65536)
    assert [response.status for response in answers_in(received)] == [408]


def test_an_incomplete_second_request_gets_408_after_the_first_response(hasty: Api) -> None:
    with connect(hasty) as connection:
        connection.sendall(head(hasty, PING))
        assert answer_on(connection).status == 200
        connection.sendall(b"GET /api")
        assert [response.status for response in answers_in(rest_of(connection))] == [408]


def test_a_connection_may_be_idle_for_longer_than_the_client_timeout(hasty: Api) -> None:
    with connect(hasty) as connection, connect(hasty) as fresh:
        for _ in range(3):
            connection.sendall(head(hasty, PING))
            assert answer_on(connection).status == 200
            time.sleep(TIMEOUT * 1.5)
        fresh.sendall(head(hasty, PING))
        assert answer_on(fresh).status == 200


def test_a_body_may_arrive_in_parts(api: Api) -> None:
    with waiting(api, "Content-Length: 22") as connection:
        for part in (b'{"configs":', b'{"kind":', b"1}", b"}"):
            connection.sendall(part)
        assert answer_on(connection).data["configs"] == {"kind": 1}
    assert len(api.ids()) == 1


def test_requests_that_wait_for_their_bodies_do_not_count_against_the_limit(small: Api) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3 * IN_FLIGHT):
            stack.enter_context(waiting(small))
        assert served(small)


def test_a_client_that_does_not_read_its_response_is_disconnected(hasty: Api) -> None:
    session_ids = [hasty.new({"k": "x" * 250_000}) for _ in range(40)]
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE)
        host, _, port = hasty.server.origin.removeprefix("http://").partition(":")
        connection.connect((host, int(port)))
        connection.sendall(head(hasty, "GET /api/v1/session?limit=200 HTTP/1.1"))
        established = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        assert served(hasty)
        until(lambda: connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != established, "the end of a connection")
    for session_id in session_ids:
        hasty.call("DELETE", f"/session/{session_id}")


def test_over_the_connection_limit_the_longest_idle_connection_is_closed(small: Api) -> None:
    small.close()
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(small)) for _ in range(CONNECTIONS)]
        # The first one sends the last request.
        for connection in [*idle[1:], idle[0]]:
            connection.sendall(head(small, PING))
            assert answer_on(connection).status == 200
        assert served(small)
        assert idle[1].recv(1) == b""
        for connection in (*idle[2:], idle[0]):
            connection.sendall(head(small, PING))
            assert answer_on(connection).status == 200


def test_of_several_connections_to_close_the_longest_idle_goes_first(serve: Callable[..., Serving]) -> None:
    # From 200 connections on the server selects several idle ones at a time, and closes them one by one.
    limit = 300
    api = api_on(serve("--workers", "1", "--max-connections", str(limit)))
    with contextlib.ExitStack() as stack:
        oldest_first = [stack.enter_context(connect(api)) for _ in range(limit)][::-1]
        for number, connection in enumerate(oldest_first):
            connection.sendall(head(api, PING))
            assert answer_on(connection).status == 200
            time.sleep(0.01 if number < 3 else 0)  # the server's clock counts milliseconds
        for oldest in oldest_first[:3]:
            newcomer = stack.enter_context(connect(api))
            newcomer.sendall(head(api, PING))
            assert answer_on(newcomer).status == 200
            oldest.settimeout(10)
            assert oldest.recv(1) == b""
    api.close()


@contextlib.contextmanager
def all_busy(small: Api) -> Iterator[None]:
    """All connections of the server wait for the rest of a body; each gets its response at the end."""
    small.close()
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(waiting(small, "Content-Length: 2")) for _ in range(CONNECTIONS)]
        yield
        for connection in busy:
            connection.sendall(b"{}")
            assert answer_on(connection).status == 201
    assert served(small)
    for session_id in small.ids():
        small.call("DELETE", f"/session/{session_id}")


def test_with_all_connections_busy_health_is_served_and_any_other_request_gets_503(small: Api) -> None:
    requests = {"GET /health": 200, "GET /ready": 503, "GET /api/v1/ping": 503, "POST /api/v1/session": 503, "bad": 400}
    with all_busy(small):
        for start, status in requests.items():
            (response,) = conversation(small, head(small, f"{start} HTTP/1.1"))
            assert (start, response.status, response.headers["Connection"]) == (start, status, "close")
            if status == 503:
                assert response.headers["Retry-After"] == "1"
        # Only the first request of such a connection is served.
        assert [response.status for response in conversation(small, head(small, "GET /health HTTP/1.1") * 2)] == [200]
        # The server closes it even though this client keeps its own side open.
        with connect(small) as connection:
            connection.settimeout(10)
            connection.sendall(head(small, "GET /health HTTP/1.1") * 2)
            (response,) = answers_in(rest_of(connection))
            assert (response.status, response.headers["Connection"]) == (200, "close")


@pytest.mark.parametrize("sent", [b"", b"GET /hea"])
def test_with_all_connections_busy_a_client_that_sends_no_request_gets_503(small: Api, sent: bytes) -> None:
    with all_busy(small), contextlib.ExitStack() as stack:
        extra = [stack.enter_context(connect(small)) for _ in range(2 * EXTRA_CONNECTIONS)]
        for connection in extra:
            with contextlib.suppress(ConnectionError):
                connection.sendall(sent)
        for connection in extra[:EXTRA_CONNECTIONS] if sent else extra:
            assert [response.status for response in answers_in(rest_of(connection))] == [503]
        assert [response.status for response in conversation(small, head(small, "GET /health HTTP/1.1"))] == [200]


def test_with_no_idle_connection_a_new_one_gets_503(small: Api) -> None:
    small.close()
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(waiting(small, "Content-Length: 2")) for _ in range(CONNECTIONS)]
        with connect(small) as connection:
            (response,) = answers_in(rest_of(connection))
        assert (response.status, response.headers["Retry-After"], response.headers["Connection"]) == (503, "1", "close")
        for connection in busy:
            connection.sendall(b"{}")
            assert answer_on(connection).status == 201
    assert served(small)
    for session_id in small.ids():
        small.call("DELETE", f"/session/{session_id}")


def test_a_client_that_closes_its_sending_side_gets_its_responses(api: Api) -> None:
    create = head(api, POST, "Content-Length: 2") + b"{}"
    assert [response.status for response in conversation(api, create, half_close=True)] == [201]
    assert [response.status for response in conversation(api, create * 40, half_close=True)] == [201] * 40
    large = b'{"configs":{"k":"%b"}}' % (b"x" * 200_000)
    create_large = head(api, POST, f"Content-Length: {len(large)}") + large
    assert [response.status for response in conversation(api, create_large, half_close=True)] == [201]
    assert len(api.ids()) == 42


@pytest.mark.parametrize("body", ["Content-Length: 9\r\n\r\n{}", "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"])
def test_a_client_that_closes_its_sending_side_within_a_body_gets_400_and_writes_nothing(api: Api, body: str) -> None:
    sent = head(api, POST).removesuffix(b"\r\n") + body.encode()
    (response,) = conversation(api, sent, half_close=True)
    assert (response.status, response.msg) == (400, "the body is incomplete, or its encoding does not match the headers")
    with waiting(api) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert [response.status for response in answers_in(rest_of(connection))] == [400]
    assert api.ids() == []


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /health HTTP/1.1\r\n", b"\r\n\r\n"])
def test_a_client_that_closes_its_sending_side_before_a_request_gets_no_response(api: Api, sent: bytes) -> None:
    assert conversation(api, sent, half_close=True) == []


def test_a_thousand_idle_connections_do_not_affect_others(api: Api) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    parts = [b"", b"GET /api", head(api, PING), head(api, POST, "Content-Length: 100") + b'{"configs":']
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(api)) for _ in range(1000)]
        for number, connection in enumerate(idle):
            connection.sendall(parts[number % len(parts)])
        assert all(answer_on(connection).status == 200 for connection in idle[2 :: len(parts)])
        session_id = api.new({"a": 1})
        for _ in range(10):
            assert served(api)
            api.patch(session_id, {"a": 2})
        # Connections with earlier responses still work.
        for connection in idle[2 :: len(parts)]:
            connection.sendall(head(api, PING))
            assert answer_on(connection).status == 200
    assert api.ids() == [session_id]
    assert served(api)
