"""Users: GET /user/ls, DELETE /user/{identifier}, GET /user/{identifier}/resources."""

import json
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4, uuid5

import pytest

from tests.support.http import JSON, Api, user_path

NAMES = [
    "alice", "alice@example.com", "a/b", "/", "//", "a/b/resources", "/resources", "%2F", "%252F", "%25", "%", "%zz", "a%2",
    "%FF", " ", "a b", " lead", "trail ", "+", "a+b", "?", "a?b=c", "#", "a#b", "&", "=", "..", ".", "../..", "./.", "...",
    "😀", "ключ", "e\u0301", "é", "\u202e", "\\", '"', "'", "{a}", "{", "}", "[x]", "<b>", "|", "^", "`", ";", ",", ":", "a:b",
    "*", "ls", "null", "0", "x" * 256, "é" * 128, "😀" * 64, "\u2028", "\u00a0", "\ufeff", "\U0010ffff",
]  # fmt: skip
#: A cursor with more digits than a time has.
LONG = "dTEyMzQ1Njc4OTAxMjM0NTY3ODkw"


def names(api: Api, **query: object) -> list[str]:
    return [user["identifier"] for user in api.call("GET", "/user/ls", query=query).data["items"]]


def sessions_count(api: Api, identifier: str) -> int:
    counts = api.call("GET", user_path(identifier) + "/resources").data["counts"]
    assert list(counts) == ["sessions_count", "disks_count", "skills_count"]
    assert (counts["disks_count"], counts["skills_count"]) == (0, 0)
    return int(counts["sessions_count"])


def test_every_identifier_works_percent_encoded_and_means_only_itself(api: Api) -> None:
    ids = {name: [api.new({"n": 1}, user=name), api.new(user=name)] for name in NAMES}
    assert names(api) == NAMES
    for name in NAMES:
        assert sessions_count(api, name) == 2
        assert api.ids(user=name) == api.ids(user=name, filter_by_configs="{}") == ids[name]
        assert api.matching({"n": 1}, user=name) == ids[name][:1]
    remaining = list(NAMES)
    while remaining:
        name = remaining.pop()
        assert api.call("DELETE", user_path(name)).raw == b'{"code":0,"msg":""}'
        assert names(api) == remaining
        api.call("GET", user_path(name) + "/resources", status=404)
        for session_id in ids[name]:
            api.get(session_id, 404)
    assert api.ids() == []


@pytest.mark.parametrize(("path", "name"), [
    ("/user/a@b:c", "a@b:c"), ("/user/a%40b%3ac", "a@b:c"), ("/user/a+b", "a+b"), ("/user/%61", "a"), ("/user/..", ".."),
    ("/user/.", "."), ("/user/%2e%2e", ".."), ("/user/%2E", "."), ("/user/a%2fb", "a/b"), ("/user/!$&'()*,;=~", "!$&'()*,;=~"),
    ("/user/%7Ba%7D", "{a}"), ("/user/{a}", "{a}"), ("/user/a%", "a%"), ("/user/ls", "ls"),
])  # fmt: skip
def test_all_spellings_of_a_path_mean_the_same_user(api: Api, path: str, name: str) -> None:
    api.new(user=name)
    api.new(user="bystander")
    assert api.call("GET", f"{path}/resources").data["counts"]["sessions_count"] == 1
    api.call("DELETE", path)
    assert names(api) == ["bystander"]


@pytest.mark.parametrize("path", ["%FF", "%C3", "%ED%A0%80", "a%80b", "%F0%9F%98"])
def test_a_path_that_is_not_utf_8_gets_400_and_deletes_nobody(api: Api, path: str) -> None:
    api.new(user=path)
    for method, rest in (("DELETE", ""), ("GET", "/resources")):
        assert api.call(method, f"/user/{path}{rest}", status=400).msg == "the user in the path is not valid UTF-8"
    assert names(api) == [path]


@pytest.mark.parametrize("name", ["x" * 257, "é" * 128 + "x", "😀" * 64 + "x", "x" * 100_000])
def test_an_identifier_of_more_than_256_bytes_gets_400(api: Api, name: str) -> None:
    assert api.call("POST", "/session", {"user": name}, 400).msg == "user is longer than 256 bytes"
    assert (api.ids(), names(api)) == ([], [])


@pytest.mark.parametrize("name", ["\0", "a\0", "\n", "a\nb", "\t", "\r", "\x1b[31m", "\x7f", "\x80", "\x9f", "a\x85"])
def test_control_characters_in_an_identifier_get_400(api: Api, name: str) -> None:
    assert api.call("POST", "/session", {"user": name}, 400).msg == "user must not contain control characters"
    assert (api.ids(), names(api)) == ([], [])


def test_users_have_every_field_and_are_listed_in_order_of_creation(api: Api) -> None:
    for name in ("b", "a", "c", "a", "b"):
        api.new(user=name)
    page = api.call("GET", "/user/ls").data
    assert (list(page), page["has_more"]) == (["items", "has_more"], False)
    assert [user["identifier"] for user in page["items"]] == ["b", "a", "c"]
    for user in page["items"]:
        assert list(user) == ["id", "project_id", "identifier", "created_at", "updated_at"]
        assert user["id"] == str(uuid5(UUID(api.project.id), user["identifier"]))
        assert (user["project_id"], user["updated_at"]) == (api.project.id, user["created_at"])
    assert names(api, time_desc="true") == ["c", "a", "b"]
    times = [user["created_at"] for user in page["items"]]
    assert times == sorted(set(times))


def test_the_user_id_of_a_session_is_that_of_its_user(api: Api) -> None:
    session = api.create(user="alice")
    assert [user["id"] for user in api.call("GET", "/user/ls").data["items"]] == [session["user_id"]]


def test_a_page_has_at_most_200_users_and_the_pages_together_list_all(api: Api) -> None:
    everyone = [f"u{number}" for number in range(205)]
    for name in everyone:
        api.new(user=name)
    limits: list[dict[str, object]] = [{}, {"limit": 0}, {"limit": "00"}, {"limit": ""}, {"limit": 200}]
    for query in limits:
        page = api.call("GET", "/user/ls", query=query).data
        assert ([user["identifier"] for user in page["items"]], page["has_more"]) == (everyone[:200], True)
        assert names(api, cursor=page["next_cursor"], **query) == everyone[200:]
    for limit in (50, 0):
        for time_desc, expected in (("false", everyone), ("true", everyone[::-1])):
            assert pages(api, limit=limit, time_desc=time_desc) == expected


def pages(api: Api, **query: object) -> list[str]:
    """The identifiers in all pages of the list."""
    identifiers: list[str] = []
    while True:
        page = api.call("GET", "/user/ls", query=query).data
        identifiers += [user["identifier"] for user in page["items"]]
        if not page["has_more"]:
            return identifiers
        query["cursor"] = page["next_cursor"]


def test_paging_through_users_continues_after_a_deletion(api: Api) -> None:
    for name in "abcdef":
        api.new(user=name)
    cursor = api.call("GET", "/user/ls", query={"limit": 2}).data["next_cursor"]
    api.call("DELETE", "/user/b")
    api.call("DELETE", "/user/d")
    api.new(user="g")
    assert names(api, cursor=cursor) == ["c", "e", "f", "g"]


@pytest.mark.parametrize(("query", "message"), [
    *(({"limit": limit}, "limit must be a whole number from 0 to 200") for limit in (-1, 201, "abc", "1.5", "+1")),
    *(({"time_desc": text}, "time_desc must be true or false") for text in ("yes", "2")),
    *(({"cursor": text}, "invalid cursor") for text in ("x", "!", "dQ", "dXg", "dTEu", "czE", LONG)),
])  # fmt: skip
def test_invalid_parameters_of_the_user_list_get_400(api: Api, query: dict[str, object], message: str) -> None:
    assert api.call("GET", "/user/ls", status=400, query=query).msg == message


def test_deleting_a_user_deletes_all_their_sessions_and_no_others(api: Api) -> None:
    for number in range(230):
        api.new({"n": number}, user="alice")
    kept = [api.new({"n": 1}, user="bob"), api.new({"n": 1})]
    assert sessions_count(api, "alice") == 230
    api.call("DELETE", "/user/alice")
    assert api.ids() == api.matching({"n": 1}) == kept
    assert names(api) == ["bob"]


def test_deleting_an_unknown_user_gets_200_and_reading_its_resources_404(api: Api) -> None:
    for name in ("nobody", "Alice", "x" * 300, "a\nb"):
        assert api.call("DELETE", user_path(name)).raw == b'{"code":0,"msg":""}'
        assert api.call("GET", user_path(name) + "/resources", status=404).reason == "user_not_found"


def test_a_user_stays_registered_when_their_last_session_is_deleted(api: Api) -> None:
    api.delete(api.new(user="alice"))
    assert sessions_count(api, "alice") == 0


def test_concurrent_creates_of_one_id_leave_no_user_without_a_session(api: Api) -> None:
    rivals = [Api(api.server, api.key, api.project) for _ in range(4)]
    ids = [str(uuid4()) for _ in range(40)]

    def create(rival: int, number: int) -> int:
        # Two of the four name the same user.
        members = {"use_uuid": ids[number], "user": f"user{number}-{rival % 3}"}
        return rivals[rival].send("POST", "/session", json.dumps(members).encode(), {"Content-Type": JSON}).status

    with ThreadPoolExecutor(len(rivals)) as pool:
        for number in range(len(ids)):
            assert sorted(pool.map(create, range(len(rivals)), [number] * len(rivals))) == [200, 200, 200, 201]
    for rival in rivals:
        rival.close()
    everyone = names(api)
    assert len(everyone) == len(ids)
    assert [sessions_count(api, name) for name in everyone] == [1] * len(ids)


def test_a_copy_counts_for_its_user_who_can_be_created_again_after_deletion(api: Api) -> None:
    session_id = api.new(user="alice")
    api.call("POST", f"/session/{session_id}/copy")
    assert sessions_count(api, "alice") == 2
    api.call("DELETE", "/user/alice")
    api.new(user="alice")
    assert sessions_count(api, "alice") == 1
