"""API keys: which ones authenticate, and that no key gives access to another project."""

import time
from typing import Any

import pytest

from tests.support.http import Api, Operator

PATHS = ["/ping", "/session", "/session/nope", "/user/ls", "/project/configs", "/nope", ""]


def status(api: Api, header: str, path: str = "/ping") -> int:
    response = api.send("GET", path, headers={"Authorization": header})
    if response.status == 401:
        assert response.raw == b'{"code":401,"msg":"Unauthorized","reason":"unauthorized"}'
        assert response.headers["WWW-Authenticate"] == "Bearer"
    return response.status


@pytest.mark.parametrize("header", [
    "", "Bearer", "Bearer ", "bearer", "{key}", "Basic {key}", "Token {key}", "Bearer {secret}", "Bearer {key}x",
    "Bearer {key} x", "Bearer {key},", "Bearer sk-ac-", "Bearer sk-ac-nope", "Bearer x{key}", "Bearer {upper}", "Bearer\t{key}",
    "Bearer sk-ac-" + "x" * 300, "Bearer sk-ac-*", "Bearer null", "Bearer:{key}",
])  # fmt: skip
def test_invalid_keys_get_401_on_every_path(api: Api, header: str) -> None:
    header = header.format(key=api.key, secret=api.key.removeprefix("sk-ac-"), upper=api.key.upper())
    for path in PATHS:
        assert status(api, header, path) == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_bearer_is_case_insensitive(api: Api, scheme: str) -> None:
    assert status(api, f"{scheme} {api.key}") == 200


def test_the_root_token_authenticates_for_the_default_project(api: Api) -> None:
    assert status(api, f"Bearer {api.server.key}") == 200


@pytest.mark.parametrize("prefix", ["/%61pi/v1", "/api/%76%31", "/%61%70%69/v1"])
def test_an_encoded_path_needs_a_key_too(api: Api, prefix: str) -> None:
    for path in ("/ping", "/session", "/user/ls"):
        assert api.send("GET", path, headers={"Authorization": ""}, prefix=prefix).status == 401
        assert api.send("GET", path, prefix=prefix).status == 200


def test_a_request_without_a_key_writes_nothing(api: Api) -> None:
    session_id = api.new({"a": 1}, user="alice")
    before = api.get(session_id).raw
    for method, path, body in (
        ("POST", "/session", b"{}"), ("DELETE", f"/session/{session_id}", None), ("DELETE", "/user/alice", None),
        ("PUT", f"/session/{session_id}/configs", b'{"configs":{}}'), ("PATCH", "/project/configs", b'{"a":1}'),
        ("PATCH", f"/session/{session_id}/configs", b'{"configs":{"a":2}}'), ("POST", f"/session/{session_id}/copy", None),
    ):  # fmt: skip
        assert api.send(method, path, body, {"Authorization": "Bearer sk-ac-nope"}).status == 401
    assert api.get(session_id).raw == before
    assert api.ids() == [session_id]
    assert api.call("GET", "/project/configs").data == {}


def test_a_key_cannot_read_or_change_another_project(api: Api, other: Api) -> None:
    session = api.create(configs={"agent": "bot1"}, user="alice")
    other.new({"agent": "bot1", "mine": 1}, user="alice")
    before, path = api.get(session["id"]).raw, f"/session/{session['id']}"
    absent: list[tuple[str, str, Any]] = [
        ("GET", path, None), ("GET", f"{path}/configs", None), ("DELETE", path, None), ("POST", f"{path}/copy", None),
        ("PUT", f"{path}/configs", {"configs": {}}), ("PATCH", f"{path}/configs", {"configs": {"x": 1}}),
    ]  # fmt: skip
    for method, target, body in absent:
        assert other.call(method, target, body, 404).reason == "session_not_found"
    for query in ({}, {"user": "alice"}, {"filter_by_configs": '{"agent":"bot1"}'}):
        assert [each["configs"].get("mine") for each in other.page(**query)["items"]] == [1]
    other.call("DELETE", "/user/alice")
    assert api.get(session["id"]).raw == before
    assert [user["identifier"] for user in api.call("GET", "/user/ls").data["items"]] == ["alice"]
    # The same identifier is a different user there.
    assert other.create(user="alice")["user_id"] != session["user_id"]


def test_a_cursor_of_another_project_lists_none_of_its_data(api: Api, other: Api) -> None:
    for _ in range(4):
        api.new({"a": 1}, user="alice")
    cursor, users = api.page(limit=1)["next_cursor"], [other.new(user=name) for name in ("a", "b")]
    assert all(session["id"] in users for session in other.page(cursor=cursor)["items"])
    user_cursor = other.call("GET", "/user/ls", query={"limit": 1}).data["next_cursor"]
    users_listed = api.call("GET", "/user/ls", query={"cursor": user_cursor}).data["items"]
    assert all(user["project_id"] == api.project.id for user in users_listed)


def test_a_revoked_key_stops_working_on_all_workers_within_5_seconds(operator: Operator, api: Api) -> None:
    header = f"Bearer {api.key}"
    # Over all connections, so every worker has the key in its cache.
    assert {status(api, header) for _ in range(12)} == {200}
    operator.revoke_keys(api.project)
    deadline = time.monotonic() + 5
    refused = 0
    while refused < 12:
        refused = refused + 1 if status(api, header) == 401 else 0
        assert time.monotonic() < deadline
        time.sleep(0.02)
