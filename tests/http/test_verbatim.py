"""Configs are returned as they were sent: the same digits, the same order, whatever the keys."""

import pytest

from tests.support.http import Api

NUMBERS = (
    b'{"int40":1234567890123456789012345678901234567890,"one":1.0,"e":1e2,"E":1E+2,"minus":-0.0,"zero":0.0,"tiny":1e-400,'
    b'"long":0.1000000000000000055,"trail":1.50000,"max":18446744073709551616,"exp":1.0e0010,"arr":[1.0,[1e2,{"x":-0}]]}'
)
DOCUMENTS = [
    NUMBERS,
    b'{"z":1,"a":2,"m":{"z":1,"a":2},"Z":3,"0":4}',
    b'{"empty":{},"list":[],"deep":[[],{},[{}],{"x":[]}],"null":null,"nulls":[null,{"n":null}]}',
    '{"é":"ü","ключ":"знач","😀":"\U0010ffff","\u2028":"\u2029","e\u0301":"\x7f\x85"}'.encode(),
    b'{"":1,"a:b":2,"a,b":3,"{":4,"}":5,"[":"]","k":"},\\n{","\\u0000":"\\u0000","a\\nb":"a\\nb","\\"":"\\"","\\\\":"\\\\"}',
    b'{"esc":"\\u00e9\\ud83d\\ude00\\/\\b\\f\\n\\r\\t","s":"\\u0041"}',
    b'{"spaces":{ "a" : [ 1 , 2 ] , "b" : { } },"t":"  a  "}',
]


@pytest.mark.parametrize("configs", DOCUMENTS)
def test_every_write_and_read_keeps_the_bytes_of_configs(api: Api, configs: bytes) -> None:
    def line_form(raw: bytes) -> bytes:
        """The stored form without its line breaks, which are only between members."""
        assert raw.startswith(b"{\n")
        assert raw.endswith(b"\n}")
        return raw.replace(b"\n", b"")

    created = api.call("POST", "/session", b'{"configs":%b,"user":"u"}' % configs, 201)
    session_id = created.data["id"]
    copy = api.call("POST", f"/session/{session_id}/copy").data["new_session_id"]
    put, patched = api.new({"before": 1}), api.new()
    api.call("PUT", f"/session/{put}/configs", b'{"configs":%b}' % configs)
    responses = [created, api.get(session_id), api.get(copy), api.get(put)]
    if b":null" not in configs:
        responses.append(api.call("PATCH", f"/session/{patched}/configs", b'{"configs":%b}' % configs))
        responses.append(api.get(patched))
    assert {line_form(response.raw_configs) for response in responses} == {configs}
    assert api.call("GET", "/session", query={"user": "u"}).raw.replace(b"\n", b"").count(configs) == 2


def test_only_white_space_that_could_break_a_line_is_removed(api: Api) -> None:
    sent = b'{\r\n\t"a" :\n[1,\r\n 2.0 ],\t"b":{"x"\t:\n"\\n y"}\n}'
    session = api.call("POST", "/session", b'{"configs":%b}' % sent, 201)
    assert session.raw_configs == b'{\n"a":[1, 2.0 ],\n"b":{"x":"\\n y"}\n}'


def test_a_patch_leaves_other_members_unchanged_byte_for_byte(api: Api) -> None:
    session_id = api.call("POST", "/session", b'{"configs":%b}' % NUMBERS, 201).data["id"]
    response = api.call("PATCH", f"/session/{session_id}/configs", b'{"configs":{"e":1.00,"zero":null,"new":-1E-7}}')
    expected = NUMBERS.replace(b'"e":1e2', b'"e":1.00').replace(b'"zero":0.0,', b"").replace(b"}]]}", b'}]],"new":-1E-7}')
    assert response.raw_configs.replace(b"\n", b"") == expected
    assert api.get(session_id).raw_configs == response.raw_configs


@pytest.mark.parametrize("number", [b"0." + b"1" * 5000, b"9" * 308, b"-" + b"9" * 10_000 + b".5e-9999", b"1" * 400 + b"E-200"])
def test_numbers_of_hundreds_of_digits_are_kept(api: Api, number: bytes) -> None:
    assert b'"n":%b' % number in api.call("POST", "/session", b'{"configs":{"n":%b}}' % number, 201).raw


@pytest.mark.parametrize("number", [b"9" * 309, b"1" * 5000, b"1" * 400 + b".0"])
def test_numbers_beyond_a_double_get_400(api: Api, number: bytes) -> None:
    api.call("POST", "/session", b'{"configs":{"n":%b}}' % number, 400)
