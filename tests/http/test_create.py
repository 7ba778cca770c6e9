"""POST /session."""

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4, uuid5

import pytest

from tests.support.http import JSON, Api

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
FIELDS = [
    "id", "project_id", "user_id", "space_id", "disable_task_tracking", "configs", "created_at", "updated_at", "expires_at",
    "revision",
]  # fmt: skip
NOT_STRINGS = [b"1", b"0", b"true", b"false", b"[]", b'["a"]', b"{}", b"1.5"]
NOT_BOOLEANS = [b"1", b"0", b'"true"', b'""', b"[]", b"{}"]
NOT_OBJECTS = [b"1", b"0", b'""', b'"{}"', b"true", b"false", b"[]", b"[{}]", b"1.5"]


def test_a_session_has_every_field(api: Api) -> None:
    session = api.create(user="alice", configs={"agent": "bot1"}, disable_task_tracking=True)
    assert list(session) == FIELDS
    assert session["project_id"] == api.project.id
    assert session["user_id"] == str(uuid5(UUID(api.project.id), "alice"))
    assert (session["space_id"], session["disable_task_tracking"], session["revision"]) == (None, True, 1)
    assert session["configs"] == {"agent": "bot1"}
    assert TIME.fullmatch(session["created_at"])
    assert session["updated_at"] == session["created_at"]
    assert abs(datetime.now(UTC) - datetime.fromisoformat(session["created_at"])) < timedelta(minutes=1)


@pytest.mark.parametrize(("body", "kind"), [
    (None, ""), (b"", ""), (b"", JSON), (b"{}", JSON), (b"{}", ""), (b' \n{ "unknown" : [1] }\r\n', JSON),
    (b'{"user":null,"disable_task_tracking":null,"configs":null,"use_uuid":null}', JSON),
    (b'{"user":"","use_uuid":""}', JSON),
])  # fmt: skip
def test_without_members_a_session_has_defaults(api: Api, body: bytes | None, kind: str) -> None:
    response = api.send("POST", "/session", body, {"Content-Type": kind})
    assert response.status == 201
    session = response.data
    assert [session[name] for name in FIELDS[2:6]] == [None, None, False, None]
    assert UUID(session["id"]).version == 4
    assert api.get(session["id"]).data == session


def test_null_values_and_empty_configs_are_kept(api: Api) -> None:
    assert api.create(configs={"a": None, "b": {"c": None}})["configs"] == {"a": None, "b": {"c": None}}
    assert api.create(configs={})["configs"] == {}


def test_every_worker_can_read_a_new_session_immediately(api: Api) -> None:
    for _ in range(10):
        session = api.create(configs={"n": 1}, user="u")
        assert api.get(session["id"]).data == session


@pytest.mark.parametrize("spelling", [
    "{u}", "urn:uuid:{u}", "{{{u}}}", "{h}", "{U}", "URN:UUID:{U}", "{{{U}}}", "{H}",
])  # fmt: skip
def test_use_uuid_is_accepted_in_every_spelling_and_made_canonical(api: Api, spelling: str) -> None:
    uuid = str(uuid4())
    text = spelling.format(u=uuid, U=uuid.upper(), h=uuid.replace("-", ""), H=uuid.replace("-", "").upper())
    session = api.create(use_uuid=text)
    assert session["id"] == uuid
    in_path = text.replace("{", "%7B").replace("}", "%7D")
    assert api.get(in_path).data == session
    assert api.get(in_path.replace(":", "%3A")).data == session
    assert api.call("POST", f"/session/{in_path}/copy").data["old_session_id"] == uuid
    # Another spelling is the same session.
    assert api.call("POST", "/session", {"use_uuid": uuid}, 200).data == session


@pytest.mark.parametrize("uuid", [
    "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "1ef5b1a2-3c4d-6e5f-8a9b-0c1d2e3f4a5b",
])  # fmt: skip
def test_use_uuid_may_be_of_any_version(api: Api, uuid: str) -> None:
    assert api.create(use_uuid=uuid)["id"] == uuid


@pytest.mark.parametrize("text", [
    "nope", " ", "0", "0190d1f2-5a3b-4c6d-8e7f-00112233445", "0190d1f2-5a3b-4c6d-8e7f-0011223344556",
    "0190d1f25a3b-4c6d-8e7f-001122334455", "0190d1f2-5a3b-4c6d-8e7f-00112233445g", " 0190d1f2-5a3b-4c6d-8e7f-001122334455",
    "0190d1f2-5a3b-4c6d-8e7f-001122334455\n", "{0190d1f2-5a3b-4c6d-8e7f-001122334455", "{0190d1f25a3b4c6d8e7f001122334455}",
    "urn:uuid:0190d1f25a3b4c6d8e7f001122334455", "urn:uuid:", "uuid:0190d1f2-5a3b-4c6d-8e7f-001122334455",
    "\u0660190d1f2-5a3b-4c6d-8e7f-001122334455",
])  # fmt: skip
def test_an_invalid_use_uuid_gets_400(api: Api, text: str) -> None:
    response = api.call("POST", "/session", {"use_uuid": text}, 400)
    assert response.msg == "invalid UUID format for use_uuid"
    assert api.ids() == []


def test_create_with_an_id_in_use_returns_the_existing_session_unchanged(api: Api) -> None:
    uuid = str(uuid4())
    first = api.call("POST", "/session", {"use_uuid": uuid, "configs": {"a": 1}, "user": "alice"}, 201)
    again = api.call(
        "POST", "/session", {"use_uuid": uuid, "configs": {"b": 2}, "user": "bob", "disable_task_tracking": True}, 200
    )
    assert again.data == first.data
    assert again.etag == first.etag
    assert [user["identifier"] for user in api.call("GET", "/user/ls").data["items"]] == ["alice"]
    assert api.ids(user="bob") == api.matching({"b": 2}) == []


@pytest.mark.parametrize(
    ("members", "status"),
    [
        ({"use_uuid": "nope"}, 400),
        ({"ttl": "soon"}, 400),
        ({"disable_task_tracking": 1}, 400),
        ({"configs": []}, 400),
        ({"configs": {"a": "x" * 262144}}, 413),
        ({"configs": {f"k{number}": 1 for number in range(1025)}}, 413),
    ],
    ids=["uuid", "ttl", "flag", "configs", "size", "keys"],
)
def test_a_refused_create_registers_no_user(api: Api, members: dict[str, object], status: int) -> None:
    api.call("POST", "/session", {"user": "alice", **members}, status)
    assert api.call("GET", "/user/ls").data["items"] == []


def test_a_session_of_another_project_with_the_same_id_is_never_returned(api: Api, other: Api) -> None:
    uuid = str(uuid4())
    mine = api.create(use_uuid=uuid, configs={"secret": 1})
    theirs = other.create(use_uuid=uuid, configs={"mine": 2})
    assert (theirs["configs"], theirs["project_id"]) == ({"mine": 2}, other.project.id)
    assert api.get(uuid).data == mine


@pytest.mark.parametrize(("body", "message"), [
    *((b'{"user":%b}' % value, "user must be a string") for value in NOT_STRINGS),
    *((b'{"use_uuid":%b}' % value, "use_uuid must be a string") for value in NOT_STRINGS),
    *((b'{"disable_task_tracking":%b}' % value, "disable_task_tracking must be true or false") for value in NOT_BOOLEANS),
    *((b'{"configs":%b}' % value, "configs must be a JSON object") for value in NOT_OBJECTS),
    *((value, "the body must be a JSON object") for value in (*NOT_OBJECTS, b"null")),
])  # fmt: skip
def test_a_member_of_the_wrong_type_gets_400_and_is_named(api: Api, body: bytes, message: str) -> None:
    assert api.call("POST", "/session", body, 400).msg == message
    assert api.ids() == []


@pytest.mark.parametrize("path", ["", "/configs", "/copy"])
@pytest.mark.parametrize("bad", [
    "nope", "1", "%20", "..%2F..", "0190d1f2-5a3b-4c6d-8e7f-00112233445", "%F0%9F", "%00", "*", "%7B%7D",
])  # fmt: skip
def test_an_invalid_id_in_the_path_gets_400_with_every_method(api: Api, bad: str, path: str) -> None:
    for method in {"": ("GET", "DELETE"), "/configs": ("GET", "PUT", "PATCH"), "/copy": ("POST",)}[path]:
        body = b'{"configs":{}}' if path == "/configs" and method != "GET" else None
        assert api.call(method, f"/session/{bad}{path}", body, 400).msg == "invalid session_id"


def test_a_missing_session_gets_404_with_every_method(api: Api, other: Api) -> None:
    for session_id in (str(uuid4()), other.new({"secret": 1})):
        for method, path, body in (
            ("GET", "", None), ("DELETE", "", None), ("GET", "/configs", None), ("PUT", "/configs", {"configs": {}}),
            ("PATCH", "/configs", {"configs": {"a": 1}}), ("POST", "/copy", None),
        ):  # fmt: skip
            assert api.call(method, f"/session/{session_id}{path}", body, 404).reason == "session_not_found"
    assert other.ids() != []


def test_created_at_increases_with_every_session(api: Api) -> None:
    times = [api.create()["created_at"] for _ in range(30)]
    assert times == sorted(set(times))
