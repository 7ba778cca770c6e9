"""One project, or a client without a key, sends as many requests as a worker may have in flight: others hardly notice."""

import http.client
import re
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from os import kill
from uuid import uuid4

import pytest

from service.http.server.admission import CONCURRENCY
from tests.support.http import Api, Operator
from tests.support.raw_http import connect, conversation, head
from tests.support.server import PATIENCE, Serving, until

#: Requests of the attacker, and the most requests in flight of a worker.
FLOOD, IN_FLIGHT = 400, 500
#: Requests that the quiet project sends meanwhile.
QUIET = 20

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One worker with a long command timeout, which logs its responses in order."""
    flags = ["--workers", "1", "--access-log", "true", "--max-in-flight", str(IN_FLIGHT), "--command-timeout", str(PATIENCE)]
    serving = Serving(tmp_path_factory.mktemp("fair") / "data", *flags, SCC_ROOT_TOKEN="a-root-token-of-tests").wait_ready()
    yield serving
    assert serving.stop() == 0


@pytest.fixture(scope="module")
def projects(serving: Serving) -> Iterator[tuple[Api, Api]]:
    """Two projects whose keys are in the worker's cache."""
    operator = Operator(serving.server("sk-ac-a-root-token-of-tests"))
    attacker, victim = operator.new_project(), operator.new_project()
    for api in (attacker, victim):
        api.call("GET", "/ping")
    yield attacker, victim
    attacker.close()
    victim.close()
    operator.close()


@contextmanager
def frozen(serving: Serving) -> Iterator[None]:
    """Redis is stopped, so that every request stays in flight."""
    (redis,) = serving.redis_processes()
    kill(redis, signal.SIGSTOP)
    try:
        yield
    finally:
        kill(redis, signal.SIGCONT)


def status_on(connection: socket.socket) -> int:
    """The status of the next response; the rest is not checked, because the test sets the request id."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


def request_ids() -> str:
    """The prefix of the request ids of one sender."""
    return uuid4().hex[:28]


def last_position(serving: Serving, flood: str, quiet: str) -> int:
    """The position of the last response to `quiet` among all `FLOOD` and `QUIET` responses, in their order."""

    def order() -> list[str]:
        ids = re.findall(r"^.* request_id=(\S+)", serving.errors, re.MULTILINE)
        return [request_id for request_id in ids if request_id.startswith((flood, quiet))]

    until(lambda: len(order()) == FLOOD + QUIET, "all responses in the log")
    return max(position for position, name in enumerate(order()) if name.startswith(quiet))


def send(stack: ExitStack, api: Api, count: int, line: str, ids: str) -> list[socket.socket]:
    """Send `count` requests, each on its own connection; the worker has received all of them when this returns."""
    connections = [stack.enter_context(connect(api)) for _ in range(count)]
    for number, connection in enumerate(connections):
        connection.sendall(head(api, line, f"X-Request-Id: {ids}{number:04}"))
    # Once a later connection has a response, the earlier ones have been read.
    for _ in range(3):
        assert [response.status for response in conversation(api, HEALTH)] == [200]
    return connections


@pytest.mark.parametrize(("keys", "status"), [("of one project", 404), ("unknown", 401)])
def test_a_flood_of_requests_is_not_served_before_those_of_a_quiet_project(
    serving: Serving, projects: tuple[Api, Api], keys: str, status: int
) -> None:
    attacker, victim = projects
    session_id = victim.new({"a": 1})
    if keys == "unknown":
        attacker = Api(attacker.server, "sk-ac-nobody", attacker.project)
    missing = "GET /api/v1/session/00000000-0000-4000-8000-000000000000 HTTP/1.1"
    flood_ids, quiet_ids = request_ids(), request_ids()
    with ExitStack() as stack:
        with frozen(serving):
            flood = send(stack, attacker, FLOOD, missing, flood_ids)
            quiet = send(stack, victim, QUIET, f"GET /api/v1/session/{session_id} HTTP/1.1", quiet_ids)
        assert [status_on(connection) for connection in quiet] == [200] * QUIET
        assert {status_on(connection) for connection in flood} == {status}
    # The requests with a slot are answered first; after them the quiet project gets at least every other slot.
    assert last_position(serving, flood_ids, quiet_ids) < CONCURRENCY + 2 * QUIET


def test_a_project_that_fills_a_worker_makes_room_for_others(serving: Serving, projects: tuple[Api, Api]) -> None:
    attacker, victim = projects
    session_id = victim.new({"a": 1})
    with ExitStack() as stack:
        with frozen(serving):
            flood = send(stack, attacker, IN_FLIGHT, "GET /api/v1/session HTTP/1.1", request_ids())
            quiet = send(stack, victim, QUIET, f"GET /api/v1/session/{session_id} HTTP/1.1", request_ids())
        assert [status_on(connection) for connection in quiet] == [200] * QUIET
        assert Counter(status_on(connection) for connection in flood) == {200: IN_FLIGHT - QUIET, 503: QUIET}


def test_one_project_alone_may_use_the_whole_worker(serving: Serving, projects: tuple[Api, Api]) -> None:
    attacker, _ = projects
    with ExitStack() as stack:
        with frozen(serving):
            flood = send(stack, attacker, IN_FLIGHT, "GET /api/v1/session HTTP/1.1", request_ids())
        assert [status_on(connection) for connection in flood] == [200] * IN_FLIGHT


def test_a_flood_of_request_bodies_is_not_served_before_requests_of_a_quiet_project(
    serving: Serving, projects: tuple[Api, Api]
) -> None:
    attacker, victim = projects
    session_id = victim.new({"a": 1})
    flood_ids, quiet_ids = request_ids(), request_ids()
    create = [
        head(attacker, "POST /api/v1/session HTTP/1.1", f"X-Request-Id: {flood_ids}{number:04}", "Content-Length: 2")
        for number in range(FLOOD)
    ]
    with ExitStack() as stack:
        with frozen(serving):
            flood = [stack.enter_context(connect(attacker)) for _ in range(FLOOD)]
            for connection, request in zip(flood, create, strict=True):
                connection.sendall(request)
            assert [response.status for response in conversation(attacker, HEALTH)] == [200]
            for connection in flood:
                connection.sendall(b"{}")
            quiet = send(stack, victim, QUIET, f"GET /api/v1/session/{session_id} HTTP/1.1", quiet_ids)
        assert [status_on(connection) for connection in quiet] == [200] * QUIET
        assert {status_on(connection) for connection in flood} == {201}
    assert last_position(serving, flood_ids, quiet_ids) < CONCURRENCY + 2 * QUIET
