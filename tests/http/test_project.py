"""The configs of the project itself."""

import json

import pytest

from tests.support.http import Api

PATH = "/project/configs"


def test_a_new_project_has_no_configs(api: Api) -> None:
    assert api.call("GET", PATH).data == {}


def test_the_body_is_a_bare_object_that_is_merged_shallowly(api: Api) -> None:
    assert api.call("PATCH", PATH, {"a": 1, "b": {"x": 1, "y": None}}).data == {"a": 1, "b": {"x": 1, "y": None}}
    assert api.call("PATCH", PATH, {"b": {"z": None}, "c": [None]}).data == {"a": 1, "b": {"z": None}, "c": [None]}
    merged = api.call("PATCH", PATH, {"a": None, "zz": None, "configs": {"a": 1}}).data
    assert list(merged.items()) == [("b", {"z": None}), ("c", [None]), ("configs", {"a": 1})]
    assert api.call("GET", PATH).data == merged
    assert api.call("PATCH", PATH, {"b": None, "c": None, "configs": None}).data == {}


@pytest.mark.parametrize("body", [None, b"", b"{}", b"null", b" {} ", b"\nnull"])
def test_an_empty_body_gets_400(api: Api, body: bytes | None) -> None:
    api.call("PATCH", PATH, {"a": 1})
    assert api.call("PATCH", PATH, body, 400).msg == "empty body"
    assert api.call("GET", PATH).data == {"a": 1}


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"true", b"false", b"0", b'[{"a":1}]'])
def test_a_body_that_is_not_an_object_gets_400(api: Api, body: bytes) -> None:
    assert api.call("PATCH", PATH, body, 400).msg == "the body must be a JSON object"


def test_numbers_and_order_are_kept(api: Api) -> None:
    raw = b'{"z":1.0,"a":12345678901234567890123456789012345678901,"m":{"y":1e2,"b":-0.0}}'
    api.call("PATCH", PATH, raw)
    assert api.call("GET", PATH).raw.replace(b"\n", b"") == b'{"code":0,"msg":"","data":' + raw + b"}"


def test_a_write_over_a_limit_is_refused_and_changes_nothing(api: Api) -> None:
    api.call("PATCH", PATH, {"a": 1})
    full = {f"k{number}": 1 for number in range(1023)}
    assert len(api.call("PATCH", PATH, full).data) == 1024
    for changes, status, message in (
        ({"one": 1}, 413, "configs have more than 1024 top-level keys"),
        ({f"x{number}": 1 for number in range(1025)}, 413, "configs have more than 1024 top-level keys"),
        ({"a": "x" * 262_144}, 413, "configs are larger than 262144 bytes"),
        (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", 400, "the JSON is nested deeper than 64 levels"),
    ):
        assert api.call("PATCH", PATH, changes, status).msg == message
    assert api.call("GET", PATH).data == {"a": 1} | full


@pytest.mark.parametrize("name", ["task_success_criteria", "task_failure_criteria"])
@pytest.mark.parametrize("good", [b'""', b'"it works"', b'"%b"' % (b"x" * 2000), b'"%b"' % ("é" * 1000).encode(), b'"\\u0000"'])
def test_criteria_are_strings_of_at_most_2000_bytes_and_null_deletes_them(api: Api, name: str, good: bytes) -> None:
    assert list(api.call("PATCH", PATH, b'{"%b":%b}' % (name.encode(), good)).data) == [name]
    assert api.call("PATCH", PATH, {name: None}).data == {}


@pytest.mark.parametrize("name", ["task_success_criteria", "task_failure_criteria"])
@pytest.mark.parametrize("bad", [
    b"5", b"0", b"true", b"false", b"{}", b"[]", b'["x"]', b"1.5", b'"%b"' % (b"x" * 2001), b'"%b"' % ("é" * 1001).encode(),
])  # fmt: skip
def test_criteria_that_the_sdks_cannot_read_get_400_and_change_nothing(api: Api, name: str, bad: bytes) -> None:
    api.call("PATCH", PATH, {name: "as it was"})
    for spelling in (name, name.replace("_", r"\u005f")):
        response = api.call("PATCH", PATH, b'{"b":1,"%b":%b}' % (spelling.encode(), bad), 400)
        assert response.msg == f"{name} must be null or a string of at most 2000 bytes"
    assert api.call("GET", PATH).data == {name: "as it was"}
    # In sessions and deeper levels the name has no meaning.
    api.new({name: json.loads(bad)})
    api.call("PATCH", PATH, b'{"x":{"%b":%b}}' % (name.encode(), bad))


def test_each_project_has_its_own_configs(api: Api, other: Api) -> None:
    api.call("PATCH", PATH, {"a": 1})
    assert other.call("GET", PATH).data == {}
