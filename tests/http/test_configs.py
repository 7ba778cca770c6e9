"""GET, PUT and PATCH of a session's configs, copy and delete."""

import pytest

from tests.support.http import Api

START = {"a": 1, "b": {"x": 1, "y": None}, "c": None}


def test_get_returns_the_whole_session(api: Api) -> None:
    session = api.create(configs=START, user="alice", disable_task_tracking=True)
    for path in ("", "/configs"):
        assert api.call("GET", f"/session/{session['id']}{path}").data == session


def test_put_replaces_all_configs_and_returns_no_data(api: Api) -> None:
    session = api.create(configs=START, user="alice", disable_task_tracking=True)
    assert api.put(session["id"], {"d": None, "a": [None]}).raw == b'{"code":0,"msg":""}'
    after = api.get(session["id"]).data
    assert after["updated_at"] > session["updated_at"]
    assert after == session | {
        "configs": {"d": None, "a": [None]}, "updated_at": after["updated_at"], "revision": 2
    }  # fmt: skip


@pytest.mark.parametrize("configs", [None, START, {}])
def test_put_replaces_any_configs(api: Api, configs: object) -> None:
    session_id = api.new(configs)
    for revision, after in enumerate(({}, {"n": None}, {}), start=2):
        api.put(session_id, after)
        assert api.get(session_id).data["configs"] == after
        assert api.get(session_id).data["revision"] == revision


@pytest.mark.parametrize(("before", "changes", "after"), [
    # RFC 7396 at the top level: a shallow merge
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": [1, 2]}, {"a": {"b": "c"}}, {"a": {"b": "c"}}),
    # a value is replaced as a whole, and nulls below the top level are kept
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d", "c": None}}),
    ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3}}),
    ({"a": [{"b": "c"}]}, {"a": [None, {"b": None}]}, {"a": [None, {"b": None}]}),
    ({"a": {"bb": {"ccc": 1}}}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {"ccc": None}}}),
    # a stored null stays until a patch names its key
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({"e": None}, {"e": None}, {}),
    # empty patches, and absent keys
    ({"a": 1}, {}, {"a": 1}),
    ({}, {}, {}),
    ({"a": 1}, {"zz": None}, {"a": 1}),
    ({}, {"zz": None}, {}),
    # null configs start from {}
    (None, {}, {}),
    (None, {"a": 1}, {"a": 1}),
    (None, {"a": None}, {}),
    # keys are strings, not paths
    ({"a": {"b": 1}}, {"a.b": 2}, {"a": {"b": 1}, "a.b": 2}),
    ({"": 1, "a\nb": 2, '"': 3}, {"": None, "a\nb": 4, '"': None}, {"a\nb": 4}),
])  # fmt: skip
def test_patch_merges_shallowly_and_returns_all_configs(api: Api, before: object, changes: object, after: object) -> None:
    session_id = api.new(before)
    response = api.patch(session_id, changes)
    assert response.data == {"configs": after}
    stored = api.get(session_id).data
    assert stored["configs"] == after
    assert stored["revision"] == 2  # {} is a write too
    assert stored["updated_at"] > stored["created_at"]


def test_patch_keeps_the_order_of_keys_and_appends_new_ones(api: Api) -> None:
    session_id = api.new({"b": 1, "a": 2, "c": 3})
    merged = api.patch(session_id, {"z": 0, "a": 9, "b": None, "y": 1}).data["configs"]
    assert list(merged.items()) == [("a", 9), ("c", 3), ("z", 0), ("y", 1)]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("body", [
    {}, {"configs": None}, {"configs": []}, {"configs": "{}"}, {"configs": 1}, {"configs": False}, {"config": {}},
    {"Configs": {}},
])  # fmt: skip
def test_missing_configs_or_ones_that_are_not_an_object_get_400(api: Api, method: str, body: object) -> None:
    session_id = api.new(START)
    before = api.get(session_id).raw
    assert api.call(method, f"/session/{session_id}/configs", body, 400).msg == "configs must be a JSON object"
    assert api.get(session_id).raw == before


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("body", [None, b"", b"[]", b"null", b'"x"', b'[{"configs":{}}]'])
def test_a_missing_body_or_one_that_is_not_an_object_gets_400(api: Api, method: str, body: bytes | None) -> None:
    session_id = api.new(START)
    before = api.get(session_id).raw
    api.call(method, f"/session/{session_id}/configs", body, 400)
    assert api.get(session_id).raw == before


@pytest.mark.parametrize("configs", [None, {}, START])
def test_a_copy_has_the_same_configs_user_and_flag_and_is_independent(api: Api, configs: object) -> None:
    source = api.create(configs=configs, user="alice", disable_task_tracking=True)
    api.patch(source["id"], {"k": 1})
    source = api.get(source["id"]).data
    response = api.call("POST", f"/session/{source['id']}/copy")
    assert response.data == {"old_session_id": source["id"], "new_session_id": response.data["new_session_id"]}
    copied = api.get(response.data["new_session_id"])
    assert copied.etag == response.etag
    copy = copied.data
    assert copy["id"] != source["id"]
    assert copy["created_at"] == copy["updated_at"] > source["created_at"]
    differing = {name: copy[name] for name in ("id", "created_at", "updated_at")}
    assert copy == source | differing | {"revision": 1}
    # Changes of one do not affect the other.
    api.patch(copy["id"], {"only": "copy"})
    api.delete(source["id"])
    assert api.matching({"k": 1}) == api.matching({"only": "copy"}) == api.ids(user="alice") == [copy["id"]]


def test_a_copy_of_null_configs_has_null_configs(api: Api) -> None:
    copy = api.call("POST", f"/session/{api.new()}/copy").data["new_session_id"]
    assert api.get(copy).data["configs"] is None


def test_a_deleted_session_is_in_no_list_or_count(api: Api) -> None:
    session_id = api.new({"agent": "bot1"}, user="alice")
    assert api.delete(session_id).raw == b'{"code":0,"msg":""}'
    api.get(session_id, 404)
    api.delete(session_id, 404)
    assert api.ids() == api.ids(user="alice") == api.matching({"agent": "bot1"}) == []
    assert api.call("GET", "/user/alice/resources").data["counts"]["sessions_count"] == 0


def test_a_session_can_be_created_again_after_its_deletion(api: Api) -> None:
    session = api.create(configs={"a": 1}, user="alice")
    api.delete(session["id"])
    again = api.create(use_uuid=session["id"], configs={"b": 2})
    assert (again["revision"], again["user_id"], again["configs"]) == (1, None, {"b": 2})
    assert again["created_at"] > session["created_at"]
    assert (api.matching({"a": 1}), api.matching({"b": 2})) == ([], [session["id"]])
