"""GET /session with filter_by_configs. Unit and store tests compare the matching with Postgres's containment."""

import json
from urllib.parse import quote

import pytest

from tests.support.http import Api

MAX_NESTING, MAX_VALUES = 64, 128


def nested(levels: int) -> str:
    """An object with this many levels."""
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize("text", ["", "{}", "null", " ", "\n", " {} ", " null\t", "%7B%7D"])
def test_an_empty_filter_matches_every_session(api: Api, text: str) -> None:
    ids = [api.new(), api.new({}), api.new({"a": 1})]
    response = api.send("GET", f"/session?filter_by_configs={text if '%' in text else quote(text)}")
    assert [session["id"] for session in response.data["items"]] == ids


@pytest.mark.parametrize("text", ["[]", "1", '"x"', "true", "false", "[{}]", '[{"a":1}]', "0"])
def test_a_filter_that_is_not_an_object_gets_400(api: Api, text: str) -> None:
    assert api.refusal(filter_by_configs=text) == "filter_by_configs must be a JSON object"


@pytest.mark.parametrize("text", ["{", "}", "{'a':1}", "{a:1}", '{"a":}', '{"a":1,}', '{"a":NaN}', '{"a":01}', '{"a":1e400}',
                                  '{"a":"\\ud800"}', '{"a":1}x', "undefined", '{"a":"\x00"}', "agent=bot1"])  # fmt: skip
def test_a_filter_that_is_not_json_gets_400_with_the_position(api: Api, text: str) -> None:
    response = api.call("GET", "/session", status=400, query={"filter_by_configs": text})
    assert response.msg == "filter_by_configs: the JSON cannot be parsed"
    assert "line 1 column" in response.body["error"]


@pytest.mark.parametrize("text", ["%FF", "%7B%22a%22:%22%C3%22%7D", "%ED%A0%80", "{%22a%22:%22%80%22}"])
def test_a_filter_that_is_not_utf_8_gets_400(api: Api, text: str) -> None:
    response = api.send("GET", f"/session?filter_by_configs={text}")
    assert (response.status, response.msg) == (400, "filter_by_configs in the query is not valid UTF-8")


def test_nesting_is_limited_on_both_sides_of_the_limit(api: Api) -> None:
    session_id = api.new(json.loads(nested(MAX_NESTING)))
    assert api.ids(filter_by_configs=nested(MAX_NESTING)) == [session_id]
    for text in (nested(MAX_NESTING + 1), '{"a":' + "[" * MAX_NESTING + "]" * MAX_NESTING + "}", '{"a":' * 300):
        assert api.refusal(filter_by_configs=text) == "filter_by_configs: the JSON is nested deeper than 64 levels"


def test_the_number_of_values_is_limited_on_both_sides_of_the_limit(api: Api) -> None:
    # The filter itself counts as one value.
    full = {f"k{number}": number for number in range(MAX_VALUES - 1)}
    session_id = api.new(full)
    assert api.matching(full) == [session_id]
    over: tuple[object, ...] = (full | {"more": 1}, {"a": [0] * (MAX_VALUES - 1)}, {"a": [[[]]] * 128})
    for too_large in over:
        assert api.refusal(filter_by_configs=json.dumps(too_large)) == "filter_by_configs has more than 128 values"


def test_an_exponent_of_five_digits_gets_400(api: Api) -> None:
    assert api.refusal(filter_by_configs='{"a":1e-99999}') == (
        "filter_by_configs: a number has an exponent of more than four digits"
    )


def test_null_configs_match_no_filter(api: Api) -> None:
    api.new()
    empty, null = api.new({}), api.new({"a": None})
    assert api.matching({"a": None}) == [null]
    assert api.matching({"a": {}}) == []
    assert set(api.ids()) > {empty, null}


CONFIGS = {
    "agent": "bot1", "count": 1, "on": True, "none": None, "ratio": 0.1, "tags": ["t1", "t2", 3],
    "runtime": {"name": "r1", "version": "2.0", "deep": {"x": [{"y": 1}, {"z": 2}]}}, "": "empty", "a.b": 1, "ключ": "знач😀",
    "obj": {}, "list": [], 'q"\\': "\n", "wide": list(range(100)), "__proto__": 1, "a+b&c=d": "e f",
}  # fmt: skip


@pytest.mark.parametrize("subset", [
    {"agent": "bot1"}, {"count": 1}, {"count": 1.0}, {"on": True}, {"none": None}, {"ratio": 0.1}, {"tags": ["t2"]},
    {"tags": ["t2", "t1", "t1"]}, {"tags": []}, {"runtime": {}}, {"runtime": {"version": "2.0"}}, {"obj": {}}, {"list": []},
    {"runtime": {"deep": {"x": [{"y": 1}]}}}, {"runtime": {"deep": {"x": [{"z": 2}, {}]}}}, {"": "empty"}, {"a.b": 1},
    {"ключ": "знач😀"}, {'q"\\': "\n"}, {"wide": [99, 0]}, {"wide": list(range(100))}, {"a+b&c=d": "e f"}, {"__proto__": 1},
    {"agent": "bot1", "count": 1, "runtime": {"name": "r1"}},
])  # fmt: skip
def test_a_filter_matches_what_contains_it(api: Api, subset: object) -> None:
    session_id = api.new(CONFIGS, user="alice")
    assert api.matching(subset) == api.matching(subset, user="alice", time_desc="true") == [session_id]
    assert api.matching(subset, user="bob") == []
    # Also with other sessions around it, and with configs written by PATCH and PUT.
    api.new({"agent": "bot2"})
    patched = api.new({})
    api.patch(patched, {key: value for key, value in CONFIGS.items() if value is not None})
    api.put(patched, CONFIGS)
    assert api.matching(subset) == [session_id, patched]


@pytest.mark.parametrize("subset", [
    {"Agent": "bot1"}, {"agent": "Bot1"}, {"agent": "bot"}, {"agent": "bot11"}, {"agent": None}, {"count": "1"},
    {"count": True},
    {"count": 1.0000000001}, {"on": 1}, {"on": "true"}, {"none": False}, {"none": {}}, {"missing": None}, {"tags": "t1"},
    {"tags": ["t1", "t9"]}, {"tags": {"t1": 1}}, {"tags": ["3"]}, {"runtime": {"version": 2.0}}, {"runtime": []},
    {"runtime": {"deep": {"x": [{"y": 1, "z": 2}]}}}, {"runtime.name": "r1"}, {"a": {"b": 1}}, {"obj": []}, {"list": {}},
    {"wide": [100]}, {"wide": 5}, {"agent": "bot1", "count": 2}, {"on": ["true"]}, {"ratio": 0.1000000001},
])  # fmt: skip
def test_a_filter_does_not_match_what_does_not_contain_it(api: Api, subset: object) -> None:
    api.new(CONFIGS)
    assert api.matching(subset) == []


def test_numbers_match_by_their_exact_value(api: Api) -> None:
    texts = ["9007199254740993", "9007199254740992", "1e2", "0.1000000000000000055", "-0.0", "1" * 40]
    ids = [api.call("POST", "/session", b'{"configs":{"n":%b}}' % text.encode(), 201).data["id"] for text in texts]
    for subset, position in (("9007199254740993.0", 0), ("9007199254740992", 1), ("100", 2), ("0.1000000000000000055", 3),
                             ("0", 4), ("1" * 40, 5)):  # fmt: skip
        assert api.ids(filter_by_configs=f'{{"n":{subset}}}') == [ids[position]]
    for subset in ("0.1", "9007199254740991", "1" * 39, "100.0000000000000000000001"):
        assert api.ids(filter_by_configs=f'{{"n":{subset}}}') == []


def test_a_write_changes_immediately_which_filters_match(api: Api) -> None:
    session_id = api.new({"agent": "a"})
    api.patch(session_id, {"agent": "b"})
    assert (api.matching({"agent": "a"}), api.matching({"agent": "b"})) == ([], [session_id])
    api.put(session_id, {"other": 1})
    assert (api.matching({"agent": "b"}), api.matching({"other": 1})) == ([], [session_id])
    api.patch(session_id, {"other": None})
    assert api.matching({"other": 1}) == []


def test_a_filtered_list_is_paged(api: Api) -> None:
    ids = [api.new({"kind": number % 3, "n": number}) for number in range(30)]
    for time_desc in ("false", "true"):
        expected = ids[1::3] if time_desc == "false" else ids[1::3][::-1]
        assert api.matching({"kind": 1}, limit=3, time_desc=time_desc) == expected
    page = api.page(filter_by_configs='{"kind":1}', limit=10)
    assert (len(page["items"]), page["has_more"]) == (10, False)
