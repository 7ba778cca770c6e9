"""More requests than a worker may have in flight: those over the limit are refused immediately, the others are served."""

import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from os import kill

import pytest

from service.http.server.admission import CONCURRENCY
from tests.support.http import Api, api_on
from tests.support.raw_http import answer_on, connect, conversation, head
from tests.support.server import PATIENCE, Serving, until

#: More than it processes concurrently, so that some wait for a slot; and requests over the limit.
IN_FLIGHT, SURPLUS = CONCURRENCY + 36, 50


@pytest.fixture(scope="module")
def busy(serve: Callable[..., Serving]) -> Iterator[tuple[Api, int]]:
    """A server with a long command timeout, and the process id of its Redis."""
    flags = ["--workers", "1", "--max-in-flight", str(IN_FLIGHT), "--command-timeout", str(PATIENCE)]
    serving = serve(*flags)
    api = api_on(serving)
    yield api, serving.redis_processes()[0]
    api.close()


@contextmanager
def frozen(redis: int) -> Iterator[None]:
    """Redis is stopped, so that every request stays in flight."""
    kill(redis, signal.SIGSTOP)
    try:
        yield
    finally:
        kill(redis, signal.SIGCONT)


def answered(connections: list[socket.socket], number: int) -> list[socket.socket]:
    """The connections on which the first `number` responses arrive."""
    readable: list[socket.socket] = []
    while len(readable) < number:
        ready = select.select([each for each in connections if each not in readable], [], [], PATIENCE)[0]
        assert ready, "a response never arrived"
        readable += ready
    return readable


def test_requests_over_the_limit_get_503_immediately_and_the_others_are_served(busy: tuple[Api, int]) -> None:
    api, redis = busy
    session_id = api.new({"a": 1})
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(api)) for _ in range(IN_FLIGHT + SURPLUS)]
        with frozen(redis):
            for connection in connections:
                connection.sendall(head(api, f"GET /api/v1/session/{session_id} HTTP/1.1"))
            refused = answered(connections, SURPLUS)
            assert len(refused) == SURPLUS
            for connection in refused:
                response = answer_on(connection)
                assert (response.status, response.headers["Retry-After"]) == (503, "1")
                assert response.reason == "overloaded"
            # Neither key nor body is checked; the health check is served.
            bad = head(api, "POST /api/v1/session HTTP/1.1", "Content-Length: 1") + b"{"
            keyless = b"GET /api/v1/ping HTTP/1.1\r\nHost: x\r\n\r\n"
            health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
            for sent, status in ((bad, 503), (keyless, 503), (health, 200)):
                assert [response.status for response in conversation(api, sent)] == [status]
        served = [connection for connection in connections if connection not in refused]
        assert [answer_on(connection).data["configs"] for connection in served] == [{"a": 1}] * IN_FLIGHT
        # A refused connection can be used again.
        for connection in refused:
            connection.sendall(head(api, "GET /api/v1/ping HTTP/1.1"))
            assert answer_on(connection).status == 200
    for _ in range(20):
        assert api.get(session_id).status == 200


def test_a_refused_write_changes_nothing_and_an_accepted_one_is_made_once(busy: tuple[Api, int]) -> None:
    api, redis = busy
    session_id = api.new({"n": 0})
    body = b'{"configs":{"n":1}}'
    patch = head(api, f"PATCH /api/v1/session/{session_id}/configs HTTP/1.1", f"Content-Length: {len(body)}") + body
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(api)) for _ in range(IN_FLIGHT + SURPLUS)]
        with frozen(redis):
            for connection in connections:
                connection.sendall(patch)
            answered(connections, SURPLUS)
        statuses = sorted(answer_on(connection).status for connection in connections)
    assert statuses == [200] * IN_FLIGHT + [503] * SURPLUS
    assert api.get(session_id).data["revision"] == 1 + IN_FLIGHT


def test_a_waiting_request_is_dropped_when_its_client_disconnects(busy: tuple[Api, int]) -> None:
    api, redis = busy
    session_id = api.new({"n": 0})
    body = b'{"configs":{"n":1}}'
    patch = head(api, f"PATCH /api/v1/session/{session_id}/configs HTTP/1.1", f"Content-Length: {len(body)}") + body
    health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with frozen(redis):
        with ExitStack() as stack:
            connections = [stack.enter_context(connect(api)) for _ in range(IN_FLIGHT + SURPLUS)]
            for connection in connections:
                connection.sendall(patch)
            answered(connections, SURPLUS)
        # Once later connections have responses, the worker has seen that the earlier ones are closed.
        for _ in range(5):
            assert [response.status for response in conversation(api, health)] == [200]
    # The requests that had a slot are done, and all slots are free again.
    until(
        lambda: f'"revision":{1 + CONCURRENCY}}}' in api.send("GET", f"/session/{session_id}").raw.decode(),
        "the requests that had a slot",
    )
    for _ in range(2 * CONCURRENCY):
        assert api.get(session_id).data["revision"] == 1 + CONCURRENCY
