"""Invalid JSON in configs and filters: what Python's parser refuses gets 400, what it accepts is stored verbatim."""

import json
import random
import re
from typing import Any
from urllib.parse import quote_from_bytes

import pytest

from tests.http.test_bodies import NOT_JSON
from tests.support.http import Api

RICH = (
    '{"a":{"é":[1,-2.5e3,true,false,null,""],"b\\n\\u00e9":{"c":"\\ud83d\\ude00 \\"x\\" \\\\"}},'
    '"":[[],{}],"n":12345678901234567890}'
)
#: The part in place of configs, of bodies that are not JSON.
FRAGMENTS = [
    body.removeprefix(b'{"configs":').removesuffix(b"}")
    for body in NOT_JSON
    if body.startswith(b'{"configs":{"') and body.endswith(b"}}")
]
#: Characters with most effect when inserted somewhere.
PIECES = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"0", b"-", b".", b"e", b"E9999", b"\x00", b"\x1f", b"\x7f", b"\xff",
    b"\n", b"\xed\xa0\x80", b"\xc2\x85", b"\\ud800", b"\\udc00", b"\\u0000", b"NaN", b"Infinity", b"tru", b"\xef\xbb\xbf", b" ",
    b"\t", b"/**/", b"'", b"+1", b"1e400", b"\xe2\x80\xa8", b"\xf0\x9f\x98\x80", b"1" * 400,
]  # fmt: skip


def reject(name: str) -> None:
    raise ValueError(name)


def valid(text: bytes) -> bool:
    """Whether Python accepts it as a JSON object (RFC 8259), with numbers within a double and text that UTF-8 can encode."""
    try:
        value = json.loads(text.decode(), parse_constant=reject, parse_float=bounded, parse_int=bounded)
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:  # UnicodeError included
        return False
    return isinstance(value, dict)


def bounded(text: str) -> Any:  # noqa: ANN401 - a number
    if abs(float(text)) == float("inf") or re.search(r"[eE][+-]?\d{5}", text):
        raise ValueError(text)
    return json.loads(text)


def check_refused_everywhere(api: Api, text: bytes) -> None:
    """Check that `text` is refused in every body and in a filter, and that nothing is written."""
    session_id = api.new({"a": 1})
    before = api.get(session_id).raw
    for method, path in (
        ("POST", "/session"), ("PUT", f"/session/{session_id}/configs"), ("PATCH", f"/session/{session_id}/configs"),
    ):  # fmt: skip
        api.call(method, path, b'{"configs":%b}' % text, 400)
    api.call("PATCH", "/project/configs", text, 400)
    assert api.send("GET", f"/session?filter_by_configs={quote_from_bytes(text, safe='')}").status == 400
    assert api.get(session_id).raw == before
    assert api.ids() == [session_id]
    assert api.call("GET", "/project/configs").data == {}


@pytest.mark.parametrize("text", FRAGMENTS)
def test_invalid_json_is_refused_in_bodies_and_filters(api: Api, text: bytes) -> None:
    assert not valid(text)
    check_refused_everywhere(api, text)


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig", "cp037"])
def test_json_in_another_encoding_gets_400(api: Api, coding: str) -> None:
    text = '{"é":1}'.encode(coding)
    check_refused_everywhere(api, text)
    api.call("POST", "/session", '{"configs":{"é":1}}'.encode(coding), 400)


def test_json_truncated_anywhere_gets_400(api: Api) -> None:
    text = RICH.encode()
    assert valid(text)
    for end in range(1, len(text)):
        assert api.send("POST", "/session", b'{"configs":%b' % text[:end]).status == 400
        # A part of a character is not UTF-8.
        assert api.send("GET", f"/session?filter_by_configs={quote_from_bytes(text[:end], safe='')}").status == 400
    assert api.ids() == []


@pytest.mark.parametrize("seed", range(4))
def test_randomly_changed_json_is_accepted_exactly_where_python_accepts_it(api: Api, seed: int) -> None:
    source, verdicts = random.Random(seed), set()
    for _ in range(150):
        text = RICH.encode()
        for _ in range(source.randint(1, 2)):
            at = source.randrange(len(text) + 1)
            text = text[:at] + source.choice([b"", source.choice(PIECES)]) + text[at + source.choice([0, 0, 1, 2]) :]
        verdict = valid(text)
        verdicts.add(verdict)
        response = api.send("POST", "/session", b'{"configs":%b}' % text)
        listed = api.send("GET", f"/session?time_desc=true&filter_by_configs={quote_from_bytes(text, safe='')}")
        assert (response.status, listed.status) == ((201, 200) if verdict else (400, 400)), text
        if verdict:
            assert json.loads(response.raw_configs) == json.loads(text)
            assert response.data["id"] in [session["id"] for session in listed.data["items"]]
    assert verdicts == {True, False}
