"""GET /session: limits, order, cursors, users. `test_filters` tests the filters."""

import base64
import random
from collections.abc import Iterator

import pytest

from tests.support.http import Api, Operator


def encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.fixture(scope="module")
def crowd(operator: Operator) -> Iterator[Api]:
    """A project with 250 sessions, every second one alice's. Read only."""
    api = operator.new_project()
    for number in range(250):
        api.create(configs={"n": number, "even": number % 2 == 0}, **({"user": "alice"} if number % 2 else {}))
    yield api
    api.close()


def test_an_empty_list_has_no_cursor(api: Api) -> None:
    assert api.page() == {"items": [], "has_more": False}


def test_items_are_whole_sessions(api: Api) -> None:
    session = api.create(configs={"agent": "bot1"}, user="alice")
    assert api.page() == {"items": [session], "has_more": False}


@pytest.mark.parametrize(("limit", "count"), [(None, 20), ("", 20), (1, 1), (2, 2), (199, 199), (200, 200), ("007", 7)])
def test_limit_defaults_to_20_and_is_200_at_most(crowd: Api, limit: object, count: int) -> None:
    page = crowd.page(**({} if limit is None else {"limit": limit}))
    assert [session["configs"]["n"] for session in page["items"]] == list(range(count))
    assert page["has_more"]
    assert page["next_cursor"]


@pytest.mark.parametrize("limit", [0, 201, -1, "abc", "1.0", "1e1", "+1", " 1", "1 ", "٣", "0x1", 10**12, "null", "1,2"])
def test_an_invalid_limit_gets_400(api: Api, limit: object) -> None:
    assert api.refusal(limit=limit) == "limit must be a whole number from 1 to 200"


@pytest.mark.parametrize(("text", "descending"), [
    ("true", True), ("1", True), ("True", True), ("TRUE", True),
    ("false", False), ("0", False), ("False", False), ("", False),
])  # fmt: skip
def test_time_desc_reverses_the_order(crowd: Api, text: str, descending: bool) -> None:
    first = crowd.page(time_desc=text, limit=1)["items"][0]["configs"]["n"]
    assert first == (249 if descending else 0)


@pytest.mark.parametrize("text", ["yes", "no", "2", "-1", "t", "null", "truee", " true", "on"])
def test_an_invalid_boolean_gets_400(api: Api, text: str) -> None:
    assert api.refusal(time_desc=text) == "time_desc must be true or false"


def test_the_order_is_created_at_then_id_in_both_directions(crowd: Api) -> None:
    for time_desc in ("false", "true"):
        keys, cursor = [], ""
        while True:
            page = crowd.page(limit=60, time_desc=time_desc, cursor=cursor)
            keys += [(session["created_at"], session["id"]) for session in page["items"]]
            if not page["has_more"]:
                assert "next_cursor" not in page
                break
            cursor = page["next_cursor"]
        assert len(keys) == len(set(keys)) == 250
        assert keys == sorted(keys, reverse=time_desc == "true")


def test_a_page_that_ends_with_the_last_session_has_no_cursor(api: Api) -> None:
    for _ in range(3):
        api.new()
    page = api.page(limit=3)
    assert (len(page["items"]), page["has_more"], "next_cursor" in page) == (3, False, False)


def test_user_selects_sessions_and_an_unknown_user_has_none(crowd: Api) -> None:
    ids = crowd.ids(user="alice", limit=100)
    assert len(ids) == 125
    assert crowd.ids(user="", limit=200) == crowd.ids(limit=200)
    for unknown in ("bob", "Alice", "alice ", '"alice"', "*", "x" * 3000, "\0", "😀"):
        assert crowd.page(user=unknown) == {"items": [], "has_more": False}


def test_a_plus_in_the_query_is_a_space(api: Api) -> None:
    session_id = api.new({"name": "a b"}, user="a b")
    assert [each["id"] for each in api.send("GET", "/session?user=a+b").data["items"]] == [session_id]
    assert [each["id"] for each in api.send("GET", "/session?user=a%20b").data["items"]] == [session_id]
    assert api.send("GET", "/session?user=a%2Bb").data["items"] == []
    assert [each["id"] for each in api.send("GET", "/session?filter_by_configs=%7B%22name%22:%22a+b%22%7D").data["items"]] == [
        session_id
    ]


BAD_CURSORS = [
    "x", "!", "%", "=", "====", "null", "0", "AAAA", encode("s1.2"), encode("sx"), encode("s-1"), encode("s1e3"),
    encode("s 1"), encode("s٣"), encode("S1"), encode("u1"), encode("1"), encode("s99999999999999999"), encode(f"s{2**53 + 1}"),
    encode("s1") + "!", encode("s1\n"), encode("ss1"), "s1", "0190d1f2-5a3b-4c6d-8e7f-001122334455", "💩", "a" * 4000,
    base64.b64encode(b"s\xff").decode(), base64.b64encode(b"2026-01-01T00:00:00Z|0190d1f2").decode(),
]  # fmt: skip


@pytest.mark.parametrize("cursor", BAD_CURSORS)
def test_an_invalid_cursor_gets_400(api: Api, cursor: str) -> None:
    api.new()
    assert api.refusal(cursor=cursor) == "invalid cursor"


def test_cursors_of_sessions_and_users_are_not_interchangeable(api: Api) -> None:
    for name in "abc":
        api.new(user=name)
    sessions, users = api.page(limit=1)["next_cursor"], api.call("GET", "/user/ls", query={"limit": 1}).data["next_cursor"]
    assert api.refusal(cursor=users) == "invalid cursor"
    response = api.call("GET", "/user/ls", status=400, query={"cursor": sessions})
    assert response.msg == "invalid cursor"


def test_an_altered_cursor_gets_400_or_stays_within_the_project(crowd: Api) -> None:
    cursor = crowd.page(limit=120)["next_cursor"]
    altered = [cursor[:at] for at in range(1, len(cursor))]
    altered += [cursor[:at] + other + cursor[at + 1 :] for at in range(len(cursor)) for other in "A9_"]
    for each in altered:
        response = crowd.send("GET", "/session", query={"cursor": each, "limit": 1})
        assert response.status in (200, 400)
        if response.status == 200:
            assert all(session["project_id"] == crowd.project.id for session in response.data["items"])


def test_an_empty_cursor_means_the_first_page(crowd: Api) -> None:
    assert crowd.page(cursor="") == crowd.page()


@pytest.mark.parametrize("query", [{}, {"user": "alice"}, {"filter_by_configs": '{"kind":"stays"}'}])
@pytest.mark.parametrize("time_desc", ["false", "true"])
def test_paging_lists_every_unchanged_session_once_despite_concurrent_writes(
    api: Api, query: dict[str, str], time_desc: str
) -> None:
    source = random.Random(7)
    stable = [api.new({"kind": "stays", "n": number}, user="alice") for number in range(40)]
    changing = [api.new({"kind": "stays", "r": number}, user="alice") for number in range(20)]
    # The changing ones are between the stable ones.
    stable += [api.new({"kind": "stays"}, user="alice") for _ in range(10)]
    listed: list[str] = []
    cursor = ""
    while True:
        page = api.page(limit=4, time_desc=time_desc, cursor=cursor, **query)
        listed += [session["id"] for session in page["items"]]
        if not page["has_more"]:
            break
        cursor = page["next_cursor"]
        api.delete(changing.pop(source.randrange(len(changing))))
        api.patch(source.choice(stable), {"patched": source.random()})
        api.put(source.choice(changing), {"kind": source.choice(["stays", "goes"])})
        # Newer than all others: listed in ascending order only, and not for ever.
        if len(listed) < 30:
            api.new({"kind": "stays"}, user="alice")
    assert [each for each in listed if each in stable] == (stable if time_desc == "false" else stable[::-1])
    assert len(listed) == len(set(listed))


def test_a_cursor_stays_valid_when_its_session_is_deleted(api: Api) -> None:
    for query in ({}, {"filter_by_configs": '{"a":1}'}):
        ids = [api.new({"a": 1}) for _ in range(6)]
        page = api.page(limit=2, **query)
        api.delete(ids[1])
        assert api.ids(limit=2, cursor=page["next_cursor"], **query) == ids[2:]
        for each in ids[:1] + ids[2:]:
            api.delete(each)
