"""A full store: writes that need memory get 503 with a reason, everything else works, and deleting makes room."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.support.http import JSON, Api, Operator, Response, user_path
from tests.support.server import Server, Serving, until

MAX_MEMORY = 12_000_000
LARGE = {"k": "x" * 200_000, "small": 1}
#: Copies of several times the available memory.
MOST_COPIES = 5 * MAX_MEMORY // 200_000


class Owner(Operator):
    """An operator that closes its clients."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._clients: list[Api] = []

    def new_project(self, slug: str = "") -> Api:
        return self.client(super().new_project(slug))

    def client(self, api: Api) -> Api:
        """A client of the same project on this server."""
        if api.server is not self.server:
            api = Api(self.server, api.key, api.project)
        self._clients.append(api)
        return api

    def close(self) -> None:
        for client in self._clients:
            client.close()
        super().close()


Start = Callable[..., Owner]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server with one worker on the data directory of this test, and stops the one before."""
    running: list[tuple[Serving, Owner]] = []

    def stop() -> None:
        while running:
            serving, operator = running.pop()
            operator.close()
            assert serving.stop() == 0
            assert "ended" not in serving.errors, serving.errors

    def start(*flags: str) -> Owner:
        stop()
        serving = Serving(tmp_path / "data", "--workers", "1", *flags, SCC_ROOT_TOKEN="a-root-token-of-tests").wait_ready()
        running.append((serving, Owner(serving.server("sk-ac-a-root-token-of-tests"))))
        return running[-1][1]

    yield start
    stop()


def fill(api: Api) -> str:
    """Copy a session until there is no memory for another, nor for a small session; returns its id."""
    session_id = api.new(LARGE, user="alice")
    for method, path, body in (
        ("POST", f"/session/{session_id}/copy", None),
        ("POST", "/session", b'{"user":"alice","configs":{"k":"%b","small":1}}' % (b"x" * 5000)),
    ):
        for _ in range(MOST_COPIES):
            response = api.send(method, path, body, {"Content-Type": JSON} if body else {})
            if response.status not in (200, 201):
                break
        check_full(response)
    return session_id


def check_full(response: Response) -> None:
    assert (response.status, response.reason) == (503, "store_full"), response.raw
    assert response.msg == "the store is out of memory; try again later"
    assert int(response.headers["Retry-After"]) >= 1


def shrink(operator: Operator) -> None:
    """Lower the limit below the used memory, so that freed buffers make no room."""
    with Redis(unix_socket_path=str(operator.server.data_dir / "redis.sock")) as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) - 500_000)


def memory(operator: Operator) -> int:
    with Redis(unix_socket_path=str(operator.server.data_dir / "redis.sock")) as client:
        return int(client.info("memory")["used_memory"])


def test_a_full_store_refuses_copies_with_503_and_still_serves_what_needs_no_memory(start: Start) -> None:
    operator = start("--max-memory", str(MAX_MEMORY))
    api, other = operator.new_project(), operator.new_project()
    theirs = other.new({"a": 1})
    session_id = fill(api)
    assert memory(operator) < MAX_MEMORY + 1_000_000
    shrink(operator)
    check_full(api.call("POST", "/session", {"configs": {"a": 1}, "user": "bob"}, 503))
    check_full(other.patch(theirs, {"b": 2}, 503))
    check_full(api.put(session_id, {"other": 1}, 503))
    # Reads, and writes that need no memory.
    assert api.get(session_id).data["configs"] == LARGE
    assert len(api.matching({"small": 1})) == len(api.ids())
    assert other.get(theirs).data["configs"] == {"a": 1}
    assert other.patch(theirs, {}).data["configs"] == {"a": 1}
    assert other.patch(theirs, {"a": None}).data["configs"] == {}
    assert api.put(session_id, {"small": 1}).status == 200
    assert api.matching({"small": 1})[0] == session_id
    other.delete(theirs)
    # The user of the refused session was not registered; the other one can be deleted with all sessions.
    assert [user["identifier"] for user in api.call("GET", "/user/ls").data["items"]] == ["alice"]
    assert api.call("DELETE", user_path("alice")).status == 200
    assert api.ids() == []
    assert api.new(LARGE)
    assert operator.findings(api.project) == operator.findings(other.project) == []


def test_a_server_starts_on_a_full_store_even_with_a_lower_memory_limit(start: Start) -> None:
    operator = start("--max-memory", str(MAX_MEMORY))
    api = operator.new_project()
    session_id, ids = fill(api), api.ids()
    for limit in (MAX_MEMORY, MAX_MEMORY - 2_000_000):
        operator = start("--max-memory", str(limit))
        api = operator.client(api)
        check_full(api.call("POST", "/session", {"configs": LARGE}, 503))
        assert api.ids() == ids
        assert api.get(session_id).data["configs"] == LARGE
    for each in ids:
        api.delete(each)
    assert api.new(LARGE)


def test_a_sweep_frees_memory_in_a_full_store(start: Start) -> None:
    operator = start("--max-memory", str(MAX_MEMORY))
    api = operator.new_project()
    # New sessions, copies included, expire after two seconds.
    api.call("PATCH", "/project/configs", {"session_ttl": 2})
    source = api.create(configs=LARGE, ttl=None)["id"]
    while (response := api.send("POST", f"/session/{source}/copy")).status == 200:
        pass
    check_full(response)
    until(lambda: api.send("POST", f"/session/{source}/copy").status == 200, "memory freed by the sweep")


def test_a_rate_limit_holds_in_a_full_store(start: Start) -> None:
    operator = start("--max-memory", str(MAX_MEMORY), "--rate-limit", "0.01", "--rate-burst", "200")
    api = operator.new_project()
    session_id = fill(api)
    shrink(operator)
    remaining = [int(api.get(session_id).headers["RateLimit"].split(";")[1][2:]) for _ in range(3)]
    assert remaining == list(range(remaining[0], remaining[0] - 3, -1))


@pytest.fixture
def small(start: Start) -> Api:
    """A project with at most 5 sessions and 2 users."""
    return start("--max-sessions", "5", "--max-users", "2").new_project()


def check_project_full(response: Response, message: str) -> None:
    assert (response.status, response.reason, response.msg) == (503, "store_full", message)
    assert response.headers["Retry-After"] == "60"


def test_a_project_has_at_most_max_sessions(small: Api) -> None:
    message = "the project has reached max_sessions, 5; delete some sessions first"
    ids = [small.new({"a": number}) for number in range(5)]
    check_project_full(small.call("POST", "/session", {"user": "alice"}, 503), message)
    check_project_full(small.call("POST", f"/session/{ids[0]}/copy", status=503), message)
    assert small.call("GET", "/user/ls").data["items"] == []
    # Requests that create no session are not refused.
    assert small.call("POST", "/session", {"use_uuid": ids[0]}, 200).data["configs"] == {"a": 0}
    small.patch(ids[0], {"b": 1})
    small.delete(ids[1])
    small.create(ttl=1)
    check_project_full(small.call("POST", "/session", {}, 503), message)
    # An expired session does not count, swept or not.
    until(lambda: small.send("POST", "/session", b"{}").status == 201, "room for a session")
    assert len(small.ids()) == 5


def test_a_project_has_at_most_max_users(small: Api) -> None:
    message = "the project has reached max_users, 2; delete some users first"
    for user in ("alice", "bob", "alice"):
        small.new({"a": 1}, user=user)
    check_project_full(small.call("POST", "/session", {"user": "carol"}, 503), message)
    assert len(small.ids()) == 3
    small.new()
    assert small.call("DELETE", user_path("bob")).status == 200
    small.new({"a": 1}, user="carol")
    check_project_full(small.call("POST", "/session", {"user": "bob"}, 503), message)


def test_each_partition_has_its_share_of_max_sessions(start: Start) -> None:
    api = start("--partitions", "4", "--max-sessions", "10").new_project()
    statuses = [api.send("POST", "/session", b"{}").status for _ in range(60)]
    # Three for each of four partitions: of ten, the share is rounded up.
    assert statuses.count(201) == 12
    assert set(statuses) == {201, 503}
