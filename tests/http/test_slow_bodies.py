"""Requests with slow bodies: their API key is checked with the head, and again before they write."""

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing

import pytest

from service.store.api_keys import KEY_TTL
from tests.support.http import Api, Operator, Response
from tests.support.raw_http import answer_on, connect, head

#: Every route that takes a body: method, path and body; `{id}` is an existing session.
ROUTES = {
    "create": ("POST", "/session", {"configs": {"late": 1}, "user": "late"}),
    "create of an id in use": ("POST", "/session", {"configs": {"late": 1}, "use_uuid": "{id}"}),
    "replace": ("PUT", "/session/{id}/configs", {"configs": {"late": 1}}),
    "patch": ("PATCH", "/session/{id}/configs", {"configs": {"late": 1}}),
    "project": ("PATCH", "/project/configs", {"late": 1}),
    "default ttl": ("PATCH", "/project/configs", {"session_ttl": 50}),
}


class SlowRequests:
    """Requests whose heads are sent and whose bodies are not; their keys have been authenticated."""

    def __init__(self, api: Api, session_id: str, stack: ExitStack) -> None:
        self._waiting: list[tuple[socket.socket, bytes]] = []
        for method, path, members in ROUTES.values():
            body = json.dumps(members).replace("{id}", session_id).encode()
            line = f"{method} /api/v1{path.replace('{id}', session_id)} HTTP/1.1"
            connection = stack.enter_context(connect(api))
            connection.sendall(head(api, line, f"Content-Length: {len(body)}", "Expect: 100-continue"))
            assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
            self._waiting.append((connection, body))

    def finish(self) -> Mapping[str, Response]:
        """Send the bodies; returns the responses by the names of the routes."""
        for connection, body in self._waiting:
            connection.sendall(body)
        return {name: answer_on(connection) for name, (connection, _) in zip(ROUTES, self._waiting, strict=True)}


@pytest.fixture
def slow(api: Api) -> Iterator[Callable[[], SlowRequests]]:
    """Starts a request of every route, in a project with one session."""
    with ExitStack() as stack:
        session_id = api.new({"a": 1}, user="alice")
        yield lambda: SlowRequests(api, session_id, stack)


def statuses(responses: Mapping[str, Response]) -> set[tuple[int, str]]:
    return {(response.status, response.reason) for response in responses.values()}


REFUSED = {(401, "unauthorized")}


def test_a_slow_body_is_accepted_while_the_key_is_valid(slow: Callable[[], SlowRequests]) -> None:
    requests = slow()
    time.sleep(KEY_TTL + 0.2)
    responses = requests.finish()
    assert {name: response.status for name, response in responses.items()} == dict.fromkeys(ROUTES, 200) | {"create": 201}


def test_a_write_is_refused_if_its_key_is_revoked_while_its_body_is_sent(
    api: Api, operator: Operator, slow: Callable[[], SlowRequests]
) -> None:
    requests = slow()
    operator.revoke_keys(api.project)
    time.sleep(KEY_TTL + 0.2)
    assert statuses(requests.finish()) == REFUSED
    with closing(operator.with_new_key(api)) as renewed:
        assert [item["configs"] for item in renewed.page()["items"]] == [{"a": 1}]
        assert renewed.call("GET", "/project/configs").data == {}
        assert [user["identifier"] for user in renewed.call("GET", "/user/ls").data["items"]] == ["alice"]


def test_a_write_is_refused_if_its_project_is_deleted_while_its_body_is_sent(
    api: Api, operator: Operator, slow: Callable[[], SlowRequests]
) -> None:
    requests = slow()
    operator.delete(api.project)  # The workers have the key in their caches.
    assert statuses(requests.finish()) == REFUSED
    assert operator.keys(api.project) == []


def test_no_write_reaches_a_new_project_with_the_name_of_a_deleted_one(
    api: Api, operator: Operator, slow: Callable[[], SlowRequests]
) -> None:
    requests = slow()
    operator.delete(api.project)
    with closing(operator.new_project(api.project.slug)) as new:
        assert statuses(requests.finish()) == REFUSED
        assert new.page()["items"] == []
        assert new.call("GET", "/user/ls").data["items"] == []
        assert new.call("GET", "/project/configs").data == {}
        assert new.create(configs={"a": 1})["project_id"] == new.project.id != api.project.id
        assert operator.findings(new.project) == []


def test_no_write_without_a_body_reaches_a_new_project_with_the_name_of_a_deleted_one(api: Api, operator: Operator) -> None:
    session_id = api.new({"a": 1}, user="alice")
    # Now both workers have the key in their caches.
    for _ in range(20):
        api.get(session_id)
    operator.delete(api.project)
    with closing(operator.new_project(api.project.slug)) as new:
        new.create(use_uuid=session_id, configs={"a": 2}, user="alice")
        for method, path in (
            ("DELETE", f"/session/{session_id}"), ("POST", f"/session/{session_id}/copy"), ("DELETE", "/user/alice"),
        ):  # fmt: skip
            for _ in range(4):
                assert api.send(method, path).status == 401
        assert [item["configs"] for item in new.page()["items"]] == [{"a": 2}]
        assert [user["identifier"] for user in new.call("GET", "/user/ls").data["items"]] == ["alice"]
