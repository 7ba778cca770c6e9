"""Request bodies: media types, and what is not valid JSON."""

import gzip

import pytest

from tests.support.http import JSON, Api

CREATE = b'{"configs":{"a":1}}'


@pytest.mark.parametrize("kind", [
    "", JSON, "application/json; charset=utf-8", "application/json;charset=UTF-8", "APPLICATION/JSON", " application/json ",
    "application/json; charset=latin-1", "application/json;", "application/vnd.api+json", "application/ld+json; profile=x",
    "application/problem+JSON", "text/x+json",
])  # fmt: skip
def test_json_is_accepted_with_its_media_types_and_without_one(api: Api, kind: str) -> None:
    session_id = api.send("POST", "/session", CREATE, {"Content-Type": kind}).data["id"]
    for method in ("PUT", "PATCH"):
        assert api.send(method, f"/session/{session_id}/configs", CREATE, {"Content-Type": kind}).status == 200
    assert api.send("PATCH", "/project/configs", CREATE, {"Content-Type": kind}).data == {"configs": {"a": 1}}


@pytest.mark.parametrize("kind", [
    "text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml",
    "application/octet-stream", "application/merge-patch+json", "application/json-patch+json",
    "application/merge-patch+json; charset=utf-8", "application/jsonx", "json", "*/*", "application/", "nonsense",
    "application/json, text/plain", "application/msgpack", "Application/Merge-Patch+JSON",
])  # fmt: skip
def test_another_media_type_gets_415_with_the_accepted_one(api: Api, kind: str) -> None:
    session_id = api.new({"b": 1})
    before = api.get(session_id).raw
    for method, path in (
        ("POST", "/session"), ("PUT", f"/session/{session_id}/configs"), ("PATCH", f"/session/{session_id}/configs"),
        ("PATCH", "/project/configs"),
    ):  # fmt: skip
        response = api.send(method, path, CREATE, {"Content-Type": kind})
        assert (response.status, response.headers["Accept"]) == (415, JSON)
        assert (response.reason, "application/json" in response.msg) == ("unsupported_media_type", True)
    assert api.get(session_id).raw == before
    assert api.ids() == [session_id]


def test_json_is_utf_8_whatever_the_charset_parameter(api: Api) -> None:
    body = '{"configs":{"é":"😀"}}'.encode()
    response = api.send("POST", "/session", body, {"Content-Type": "application/json; charset=latin-1"})
    assert response.data["configs"] == {"é": "😀"}


def test_an_unexpected_body_is_ignored(api: Api) -> None:
    session_id = api.new()
    assert api.send("POST", f"/session/{session_id}/copy", b"nonsense", {"Content-Type": "text/plain"}).status == 200
    assert api.send("GET", f"/session/{session_id}", b"nonsense").status == 200
    assert api.send("DELETE", f"/session/{session_id}", b'{"a":').status == 200


NOT_JSON = [
    b" ", b"\n", b"{", b"}", b'{"configs"', b'{"configs":', b'{"configs":}', b'{"configs":{}', b'{"configs":{}}}',
    b'{"configs":{}},', b'{"configs":{"a":1,}}', b'{"configs":{,}}', b'{"configs":{"a" 1}}', b"{'configs':{}}",
    b"{configs:{}}", b'{"configs":{1:2}}', b'{"configs":{"a":01}}', b'{"configs":{"a":+1}}', b'{"configs":{"a":.5}}',
    b'{"configs":{"a":1.}}', b'{"configs":{"a":1e}}', b'{"configs":{"a":0x1}}', b'{"configs":{"a":NaN}}',
    b'{"configs":{"a":Infinity}}', b'{"configs":{"a":-Infinity}}', b'{"configs":{"a":1e400}}', b'{"configs":{"a":-1e309}}',
    b'{"configs":{"a":True}}', b'{"configs":{"a":undefined}}', b'{"configs":{"a":"\\x"}}', b'{"configs":{"a":"\\u12"}}',
    b'{"configs":{"a":"\\ud800"}}', b'{"configs":{"a":"\\udc00\\ud800"}}', b'{"configs":{"\\ud83d":1}}',
    b'{"configs":{"a":"\n"}}', b'{"configs":{"a":"\t"}}', b'{"configs":{"a":"\x00"}}', b'{"configs":{"a":"\x1f"}}',
    b'{"configs":{"a":"\xff"}}', b'{"configs":{"a":"\xc3"}}', b'{"configs":{"a":"\xed\xa0\x80"}}',
    b'{"configs":{"a":"\xc0\x80"}}', b'{"configs":{"a":"\xf5\x80\x80\x80"}}', b'{"configs":{"\x80":1}}',
    b'\xef\xbb\xbf{"configs":{}}', b'{"configs":{}}\x00', b'{"configs":{}}{}', b'{"configs":{}}//', b'/**/{"configs":{}}',
    b'{"configs":{"a":[1,]}}', b'{"configs":{"a":[}}', b"\x00", b"nonsense", b"configs=1", b"<xml/>",
    '{"configs":{}}'.encode("utf-16"), '{"configs":{}}'.encode("utf-32-le"), b'{"configs":\xc2\xa0{}}', b'{"configs":\x0c{}}',
    b'{"configs":{}}\x85', gzip.compress(CREATE, mtime=0),
]  # fmt: skip


@pytest.mark.parametrize("body", NOT_JSON)
def test_invalid_json_gets_400_with_the_position(api: Api, body: bytes) -> None:
    session_id = api.new({"b": 1})
    before = api.get(session_id).raw
    for method, path in (
        ("POST", "/session"), ("PUT", f"/session/{session_id}/configs"), ("PATCH", f"/session/{session_id}/configs"),
        ("PATCH", "/project/configs"),
    ):  # fmt: skip
        response = api.call(method, path, body, 400)
        assert response.msg == "the JSON cannot be parsed"
        assert "line " in response.body["error"]
        assert "column " in response.body["error"]
    assert api.get(session_id).raw == before
    assert api.call("GET", "/project/configs").data == {}
    assert api.ids() == [session_id]


@pytest.mark.parametrize("number", ["1e-99999", "1E+00001", "0e10000", "-1.5e-12345678901234567890", "1e99999"])
def test_an_exponent_of_more_than_four_digits_is_400(api: Api, number: str) -> None:
    for body in (f'{{"configs":{{"a":{number}}}}}', f'{{"configs":{{"a":[{{"b":[{number}]}}]}}}}', f'{{"x":{number}}}'):
        response = api.call("POST", "/session", body.encode(), 400)
        assert response.msg == "a number has an exponent of more than four digits"
    assert api.create(configs={"a": f"{number}", number: 1})["configs"] == {"a": number, number: 1}


@pytest.mark.parametrize("body", [
    b'{"configs":{"a":{"b":1}},"configs":{"b":2}}', b'{"configs":null,"configs":{"b":2}}', b'{"configs":1,"configs":{"b":2}}',
    b'{"configs":{"a":1},"c\\u006fnfigs":{"b":2}}', b'{"configs":{"b":1,"b":2}}', b'{"configs":{"b":{},"\\u0062":2}}',
])  # fmt: skip
def test_the_last_of_duplicate_keys_wins(api: Api, body: bytes) -> None:
    session_id = api.call("POST", "/session", body, 201).data["id"]
    assert api.get(session_id).data["configs"] == {"b": 2}
    for method in ("PUT", "PATCH"):
        api.call(method, f"/session/{session_id}/configs", body)
        assert api.get(session_id).data["configs"] == {"b": 2}
    assert api.matching({"b": 2}) == [session_id]
