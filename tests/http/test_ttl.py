"""`ttl` on POST, PUT and PATCH, `session_ttl` in the project's configs, and expired sessions as clients see them."""

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.http.test_create import TIME
from tests.support.http import Api, Operator, Response
from tests.support.server import until

MAX_TTL = 315_360_000
#: Invalid TTLs, as JSON.
INVALID = [
    b"0", b"-0", b"-1", b"1.0", b"1e2", b"0.5", b"true", b"false", b'""', b'"60"', b"[]", b"[60]", b"{}", b"315360001",
    b"9223372036854775807", b"99999999999999999999", b"1e300",
]  # fmt: skip
SENTENCE = f"must be null or a whole number of seconds from 1 to {MAX_TTL}"
PROJECT = "/project/configs"


def ttl_of(session: dict[str, Any], since: str = "updated_at") -> int:
    """Seconds from the time in `since` to `expires_at`, rounded."""
    assert TIME.fullmatch(session["expires_at"])
    start, end = (datetime.fromisoformat(session[name]) for name in (since, "expires_at"))
    return round((end - start) / timedelta(seconds=1))


@pytest.mark.parametrize("ttl", [1000, 3600, MAX_TTL])
def test_a_session_with_a_ttl_has_expires_at(api: Api, ttl: int) -> None:
    session = api.create(ttl=ttl, configs={"a": 1})
    assert ttl_of(session, "created_at") == ttl
    assert api.get(session["id"]).data == session
    assert api.page()["items"] == [session]
    # If the id is in use, the existing session is returned and the ttl ignored.
    assert api.call("POST", "/session", {"use_uuid": session["id"], "ttl": 5}, 200).data == session


@pytest.mark.parametrize("members", [{}, {"ttl": None}, {"ttl": None, "configs": {"ttl": 5}}])
def test_a_session_without_a_ttl_never_expires(api: Api, members: dict[str, Any]) -> None:
    session = api.create(**members)
    assert session["expires_at"] is None
    assert api.get(session["id"]).data == session


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_write_sets_keeps_or_removes_the_ttl(api: Api, method: str) -> None:
    session_id = api.new({"a": 1})
    path = f"/session/{session_id}/configs"

    def write(etag: str = "", **members: object) -> dict[str, Any]:
        headers = {"If-Match": etag} if etag else None
        response = api.call(method, path, {"configs": {"a": 2}, **members}, headers=headers)
        now = api.get(session_id)
        assert now.etag == response.etag
        return dict(now.data)

    assert write()["expires_at"] is None
    given = write(ttl=5000)
    assert ttl_of(given) == 5000
    kept = write()
    assert kept["expires_at"] == given["expires_at"]
    assert kept["updated_at"] > given["updated_at"]
    assert ttl_of(write(ttl=7000)) == 7000
    assert ttl_of(write(api.get(session_id).etag, ttl=10)) == 10
    assert write(ttl=None)["expires_at"] is None
    assert write(ttl=None)["expires_at"] is None
    # A refused write changes neither configs nor ttl.
    before = api.get(session_id).data
    api.call(method, path, {"configs": {"a": 3}, "ttl": 9}, 412, {"If-Match": '"1-1"'})
    assert api.call(method, path, {"ttl": 9}, 400).msg == "configs must be a JSON object"
    assert api.get(session_id).data == before


@pytest.mark.parametrize("ttl", INVALID)
def test_an_invalid_ttl_gets_400_and_changes_nothing(api: Api, ttl: bytes) -> None:
    session = api.create(configs={"a": 1}, ttl=5000)
    path = f"/session/{session['id']}/configs"
    body = b'{"configs":{"a":2},"ttl":%b}' % ttl
    for method, target in (("POST", "/session"), ("PUT", path), ("PATCH", path)):
        assert api.call(method, target, body, 400).msg == f"ttl {SENTENCE}"
    assert api.call("PATCH", PROJECT, b'{"session_ttl":%b,"b":1}' % ttl, 400).msg == f"session_ttl {SENTENCE}"
    assert api.get(session["id"]).data == session
    assert api.ids() == [session["id"]]
    assert api.call("GET", PROJECT).data == {}


def test_the_last_of_two_ttls_in_one_body_wins(api: Api) -> None:
    session = api.call("POST", "/session", b'{"ttl":"x","ttl":500}', 201).data
    assert ttl_of(session) == 500


def test_the_default_ttl_applies_to_sessions_created_without_a_ttl(api: Api, other: Api) -> None:
    old = api.create()
    assert api.call("PATCH", PROJECT, {"session_ttl": 4000, "x": 1}).data == {"session_ttl": 4000, "x": 1}
    # Immediately, by every worker.
    created = [api.create(configs={"a": number}) for number in range(8)]
    assert [ttl_of(session) for session in created] == [4000] * 8
    assert ttl_of(api.create(ttl=50)) == 50
    assert api.create(ttl=None)["expires_at"] is None
    # Existing sessions and other projects do not change.
    assert api.get(old["id"]).data == old
    api.patch(old["id"], {"a": 1})
    assert api.get(old["id"]).data["expires_at"] is None
    assert other.create()["expires_at"] is None
    copy = api.call("POST", f"/session/{old['id']}/copy").data["new_session_id"]
    assert ttl_of(api.get(copy).data) == 4000
    assert api.call("PATCH", PROJECT, {"session_ttl": None}).data == {"x": 1}
    assert [api.create()["expires_at"] for _ in range(8)] == [None] * 8


def test_an_expired_session_is_gone_for_every_method_and_later_swept_from_the_store(api: Api, operator: Operator) -> None:
    kept = api.create(user="alice", configs={"a": 1})
    created = api.call("POST", "/session", {"user": "alice", "configs": {"a": 1, "only": "here"}, "ttl": 1}, 201)
    session, etag = created.data, created.etag
    path = f"/session/{session['id']}"
    until(lambda: api.send("GET", path).status == 404, "the expiry of a session")
    for method, target, body in (
        ("GET", path, None), ("GET", f"{path}/configs", None), ("PUT", f"{path}/configs", {"configs": {}}),
        ("PATCH", f"{path}/configs", {"configs": {}, "ttl": 50}), ("POST", f"{path}/copy", None), ("DELETE", path, None),
    ):  # fmt: skip
        assert api.call(method, target, body, 404).reason == "session_not_found"
    assert api.get(session["id"], 404, {"If-None-Match": etag}).reason == "session_not_found"
    for if_match in ("*", etag):
        api.patch(session["id"], {}, 412, {"If-Match": if_match})
    assert api.ids() == api.matching({"a": 1}) == api.ids(user="alice") == [kept["id"]]
    assert api.matching({"only": "here"}) == []
    assert api.call("GET", "/user/alice/resources").data["counts"]["sessions_count"] == 1
    until(lambda: not any('only="here"' in key or session["id"] in key for key in operator.keys(api.project)), "a sweep")
    assert operator.findings(api.project) == []


def test_expired_sessions_are_swept_without_any_request_for_them(api: Api, operator: Operator) -> None:
    for number in range(25):
        api.create(configs={"n": number, "all": True}, ttl=1, user=f"u{number % 3}")

    def remaining() -> list[str]:
        return [key for key in operator.keys(api.project) if not key.endswith((":project", ":tokens", ":users", ":state"))]

    until(lambda: remaining() == [], "a sweep")
    assert operator.findings(api.project) == []
    assert api.ids() == []


def test_an_id_is_free_as_soon_as_its_session_expires(api: Api, operator: Operator) -> None:
    uuid, count = str(uuid4()), 3
    created: list[Response] = []

    def create() -> bool:
        body = {"use_uuid": uuid, "ttl": 1, "configs": {"turn": len(created)}}
        response = api.send("POST", "/session", json.dumps(body).encode())
        if response.status == 201:
            assert response.data["configs"] == body["configs"]
            assert api.matching({"turn": len(created) - 1}) == []
            created.append(response)
        return len(created) == count

    until(create, "a free id")
    assert len({response.etag for response in created}) == len({response.data["created_at"] for response in created}) == count
    assert operator.findings(api.project) == []
