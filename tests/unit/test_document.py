"""The stored document: what goes in comes out, in the form that Lua relies on; what is not JSON is refused and nothing else."""

import json
import time
from contextlib import suppress
from decimal import Decimal
from itertools import cycle, islice
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.configs import document as stored_document
from service.configs.containment import Filter, exact
from service.configs.document import EMPTY, NULL, Document, check_size, is_stored_form, member_span, parse
from service.configs.limits import Limits
from service.errors import BadRequest, TooLarge
from tests.support.strategies import Spelled, known_documents, spell, spelled_objects

LIMITS = Limits()
NESTING = LIMITS.max_nesting


def build(raw: bytes, limits: Limits = LIMITS) -> Document:
    return Document.build(parse(raw, max_nesting=limits.max_nesting), raw, limits)


def store(raw: bytes) -> bytes:
    return build(raw).configs


def shape(value: object) -> object:
    """A form of a value in which == distinguishes what JSON distinguishes: true from 1, and the order of keys."""
    if isinstance(value, dict):
        return "object", [(key, shape(item)) for key, item in value.items()]
    if isinstance(value, list):
        return "array", [shape(item) for item in value]
    kind = "number" if isinstance(value, Decimal | int) and not isinstance(value, bool) else type(value).__name__
    return kind, value


def read_lines(form: bytes) -> dict[str, Any]:
    """Read a stored document line by line, and check every line against the invariants in `document`'s docstring."""
    if form == EMPTY:
        return {}
    first, *lines, last = form.decode().split("\n")
    assert (first, last) == ("{", "}")
    assert lines, "the empty object is {}"
    values: dict[str, Any] = {}
    for line in lines:
        assert line.endswith(",") == (line is not lines[-1])
        member = line.removesuffix(",")
        key, end = json.JSONDecoder().raw_decode(member)
        assert member[:end] == orjson.dumps(key).decode()
        assert member[end] == ":"
        text = member[end + 1 :]
        assert not set(text) & set("\n\r\t")
        assert text == text.strip()
        assert not text.endswith(",")
        assert key not in values
        values[key] = json.loads(text, parse_float=Decimal)
    return values


def nested(levels: int, brackets: str = "[") -> bytes:
    """An object with `levels` levels, itself included; those below are of the kinds of `brackets`, in turn."""
    below = list(islice(cycle(brackets), levels - 1))
    opening = "".join('{"x":' if bracket == "{" else bracket for bracket in below)
    closing = "".join("}" if bracket == "{" else "]" for bracket in reversed(below))
    return f'{{"a":{opening}1{closing}}}'.encode()


@given(spelled_objects())
def test_a_stored_object_has_the_exact_values_in_their_order_one_member_a_line(case: Spelled) -> None:
    form = store(case.raw)
    assert shape(read_lines(form)) == shape(case.value)
    assert shape(exact(form)) == shape(case.value)
    assert is_stored_form(form)


@given(spelled_objects())
def test_storing_the_stored_form_again_changes_nothing(case: Spelled) -> None:
    once = build(case.raw)
    assert build(once.configs) == once


@given(spelled_objects())
def test_each_value_keeps_the_bytes_it_was_sent_with(case: Spelled) -> None:
    members = build(case.raw).members
    assert [orjson.loads(member.key) for member in members] == list(case.value)
    for member, key in zip(members, case.value, strict=True):
        assert member.value == member_span(case.raw, key).translate(None, b"\n\r\t")
        assert member.value in case.raw.translate(None, b"\n\r\t")


@given(spelled_objects())
def test_the_terms_have_the_form_of_the_configs_and_a_line_for_each_member(case: Spelled) -> None:
    built = build(case.raw)
    assert is_stored_form(built.terms)
    lines = [line.removesuffix(b",") for line in built.terms.split(b"\n")[1:-1]]
    assert lines == [member.key + b":" + member.terms for member in built.members]


def test_the_example_documents_come_back_unchanged() -> None:
    documents = known_documents()
    assert len(documents) >= 5
    for name, compact in documents:
        value = json.loads(compact, parse_float=Decimal)
        indented = json.dumps(orjson.loads(compact), indent=2).encode()
        for raw in (compact, indented):
            form = store(raw)
            assert store(form) == form, name
            assert orjson.loads(form) == orjson.loads(raw), name
        form = store(compact)
        assert shape(read_lines(form)) == shape(value), name
        # One line break a member and two for the braces is all that the form adds.
        assert form.replace(b"\n", b"") == compact, name


@pytest.mark.parametrize(
    ("sent", "form"),
    [
        ("{}", "{}"),
        (" {\n} ", "{}"),
        ('{"a":1}', '{\n"a":1\n}'),
        ('{ "a" :\r\n1.0 ,\t"b":[1,\n 2] }', '{\n"a":1.0,\n"b":[1, 2]\n}'),
        (r'{"\u0061":"\u0061\n"}', '{\n"a":"\\u0061\\n"\n}'),
        ('{"a":1,"b":2,"a":{"c":3}}', '{\n"a":{"c":3},\n"b":2\n}'),
        ('{"a":1,"\\u0061":2}', '{\n"a":2\n}'),
        ('{"a":1234567890123456789012345678901234567890}', '{\n"a":1234567890123456789012345678901234567890\n}'),
        ('{"a":1E+2,"b":-0.0}', '{\n"a":1E+2,\n"b":-0.0\n}'),
        ('{"a\\nb":"\\u0000","":[[],{}]}', '{\n"a\\nb":"\\u0000",\n"":[[],{}]\n}'),
        ('{"a":"\u2028\x85"}', '{\n"a":"\u2028\x85"\n}'),
    ],
)
def test_the_stored_form_is_the_documented_one(sent: str, form: str) -> None:
    assert store(sent.encode()).decode() == form


@pytest.mark.parametrize("spelling", ['"é"', '"\\u00e9"', '"\\u00E9"'])
def test_one_key_has_one_spelling(spelling: str) -> None:
    assert store(f"{{{spelling}:1}}".encode()) == '{\n"é":1\n}'.encode()


def test_is_null_is_true_only_for_null() -> None:
    null, text, empty = build(b'{"a": null ,"b":"null","c":{}}').members
    assert (null.is_null, text.is_null, empty.is_null) == (True, False, False)


def test_the_changes_of_a_patch_are_its_members_without_the_values_and_terms_of_nulls() -> None:
    changes = build(b'{"a":[1,2],"b":null,"c":"null","d":{}}').as_changes()
    assert changes == [
        b'"a"', b"[1,2]", b"[]=1\t[]=2",
        b'"b"', b"", b"",
        b'"c"', b'"null"', b'="null"',
        b'"d"', b"{}", b"{}",
    ]  # fmt: skip
    assert build(b"{}").as_changes() == []


@given(spelled_objects())
def test_the_limit_on_terms_is_exact_for_every_document(case: Spelled) -> None:
    document = build(case.raw, Limits(max_terms=10**9))
    count = sum(max(1, len(member.index_terms)) for member in document.members)
    assert build(case.raw, Limits(max_terms=max(1, count))) == document
    if count > 1:
        with pytest.raises(TooLarge, match="index terms"):
            build(case.raw, Limits(max_terms=count - 1))


@pytest.mark.parametrize("form", [EMPTY, NULL, b'{\n"a":1\n}'])
def test_the_stored_form_is_distinguished_from_manual_edits(form: bytes) -> None:
    assert is_stored_form(form)
    assert not is_stored_form(form + b"\n")
    assert not is_stored_form(b" " + form)
    assert not is_stored_form(b'{"a":1}')


@pytest.mark.parametrize("brackets", ["[", "{", "[{", "{[["])
def test_nesting_is_accepted_up_to_the_limit_and_not_beyond(brackets: str) -> None:
    assert is_stored_form(store(nested(NESTING, brackets)))
    with pytest.raises(BadRequest, match=f"nested deeper than {NESTING} levels"):
        store(nested(NESTING + 1, brackets))


@pytest.mark.parametrize("limit", [1, 2, 3, 256])
def test_every_limit_on_nesting_is_exact(limit: int) -> None:
    limits = Limits(max_nesting=limit, max_filter_values=1000)
    assert is_stored_form(build(nested(limit), limits).configs)
    with pytest.raises(BadRequest):
        build(nested(limit + 1), limits)


@pytest.mark.parametrize(
    "text",
    ["[" * 500, "{" * 500, '\\"' + "[" * 500, '\\\\\\"' + "[" * 500, "\\\\", "]" * 500, "\\u005b" * 500],
)
def test_brackets_inside_strings_are_no_nesting(text: str) -> None:
    assert is_stored_form(store(f'{{"{text}":["{text}"]}}'.encode()))
    deep = nested(NESTING + 1).decode()
    with pytest.raises(BadRequest, match="nested deeper"):
        store(f'{{"{text}":"{text}",{deep[1:]}'.encode())


def test_wide_is_not_deep() -> None:
    assert is_stored_form(store(b'{"a":[' + b",".join([b"[[]]"] * 5000) + b"]}"))


def test_a_duplicate_key_hides_no_nesting() -> None:
    deep = nested(NESTING + 1).decode()[1:-1]
    with pytest.raises(BadRequest, match="nested deeper"):
        store(f'{{{deep},"a":1}}'.encode())


@pytest.mark.parametrize("raw", [b"[" * 1_000_000, b'{"a":' * 200_000, b"]" * 100, b"[}" * 100])
def test_unbalanced_brackets_are_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        parse(raw, max_nesting=NESTING)


def test_a_string_that_is_never_closed_costs_one_pass() -> None:
    started = time.perf_counter()
    with pytest.raises(BadRequest):
        parse(b"[" * 100 + b'"' + b'\\"' * 30_000, max_nesting=NESTING)
    # A pass for each quote took half a minute.
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("number", ["1e-9999", "1E-9999", "0e9999", "0E+9999", "12.5e0000", "1e308"])
def test_an_exponent_of_four_digits_is_accepted(number: str) -> None:
    form = store(f'{{"a":{number}}}'.encode())
    assert read_lines(form)["a"] == Decimal(number)


@pytest.mark.parametrize("number", ["1e-10000", "0e10000", "0E+00001", "1.5e-99999999999", "0e00000"])
@pytest.mark.parametrize("around", ['{"a":%s}', '{"a":"1e1","b":[1,{"c":%s}]}', '{"a":1,"a":"","b":%s,"b":1}'])
def test_an_exponent_of_five_digits_is_refused(number: str, around: str) -> None:
    with pytest.raises(BadRequest, match="exponent of more than four digits"):
        store((around % number).encode())


@pytest.mark.parametrize("text", ["1e99999", '\\"1e99999', '\\"1e99999\\"', "\\\\1E+12345", "a\\u00221e99999"])
def test_what_looks_like_a_long_exponent_inside_a_string_is_text(text: str) -> None:
    raw = f'{{"{text}":"{text}"}}'.encode()
    assert orjson.loads(store(raw)) == orjson.loads(raw)


NOT_JSON = [
    b"", b" ", b"{", b"}", b'{"a":1', b'{"a":1}}', b'{"a":1,}', b"[1,]", b"{,}", b'{"a"}', b'{"a":}', b"{'a':1}", b"{a:1}",
    b"nul", b"True",
    b'{"a":NaN}', b'{"a":Infinity}', b'{"a":-Infinity}', b'{"a":01}', b'{"a":+1}', b'{"a":1.}', b'{"a":.5}', b'{"a":-}',
    b'{"a":0x1}',
    b'{"a":1e}', b'{"a":1e400}', b'{"a":-1e400}', b'{"a":1' + b"0" * 309 + b"}", b'{"a":1' + b"0" * 5000 + b"}", b'{"a":1_000}',
    b'{"a":"\n"}', b'{"a":"\t"}', b'{"a":"\0"}', b'{"a":"\x1f"}', b'{"a":"\\x41"}', b'{"a":"\\u12"}', b'{"a":"', b'{"a":"\\',
    b'{"a":"\\ud800"}', b'{"a":"\\udc00"}', b'{"a":"\\ud800\\ud800"}', b'{"a":"\\udc00\\ud800"}', b'{"\\ud800":1}',
    b'{"a":"\xed\xa0\x80"}', b'{"a":"\xff"}', b'{"a":"\xc0\x80"}', b'{"a":"\xf4\x90\x80\x80"}', b'{"a":"\xc3"}',
    b'\xef\xbb\xbf{"a":1}', '{"a":1}'.encode("utf-16"), '{"a":1}'.encode("utf-16-le"), '{"a":1}'.encode("utf-32"),
    b'{"a":1}\0', b'\x0b{"a":1}', b'\xc2\xa0{"a":1}', b'{"a":1}{"b":2}', b"// a\n{}", b"{} /* a */",
]  # fmt: skip


@pytest.mark.parametrize("raw", NOT_JSON)
def test_what_is_not_json_is_a_bad_request(raw: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(raw, max_nesting=NESTING)
    assert caught.value.message == "the JSON cannot be parsed"
    assert caught.value.detail


def test_the_detail_of_a_bad_request_has_the_position() -> None:
    with pytest.raises(BadRequest) as caught:
        parse(b'{"a":1,\n"b":?}', max_nesting=NESTING)
    assert "line 2 column 5" in (caught.value.detail or "")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A JSON object with random bytes changed, inserted, removed or cut off."""
    raw = draw(spelled_objects()).raw
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(raw)))
        end = draw(st.sampled_from((start, start + 1, start + 2, len(raw))))
        new = draw(st.sampled_from((b"", b'"', b"\\", b",", b"[", b"}", b"\xff", b"e99999", b"\0")) | st.binary(max_size=3))
        raw = raw[:start] + new + raw[end:]
    return raw


@given(st.binary() | damaged())
@example(b'{"a":1}')
@example(b'"\\')
def test_arbitrary_bytes_are_json_or_refused_and_nothing_else(raw: bytes) -> None:
    limits = Limits(max_nesting=3, max_keys=3, max_terms=5)
    with suppress(BadRequest, TooLarge):
        value = parse(raw, max_nesting=limits.max_nesting)
        if isinstance(value, dict):
            assert shape(read_lines(Document.build(value, raw, limits).configs)) == shape(exact(raw))
    with suppress(BadRequest):
        assert isinstance(Filter.parse(raw, limits), Filter | None)


def test_more_keys_than_allowed_are_too_large() -> None:
    limits = Limits(max_keys=3)
    assert len(build(b'{"a":1,"b":2,"c":3,"a":4}', limits).members) == 3
    with pytest.raises(TooLarge, match="more than 3 top-level keys"):
        build(b'{"a":1,"b":2,"c":3,"d":4}', limits)


def test_more_terms_than_allowed_are_too_large() -> None:
    limits = Limits(max_terms=4)
    assert len(build(b'{"a":1,"b":["x","y","x"],"c":{"d":null,"e":{}}}', limits).members) == 3
    with pytest.raises(TooLarge, match="more than 4 index terms"):
        build(b'{"a":1,"b":["x","y"],"c":{"d":1,"e":2}}', limits)


def test_a_container_that_overflows_counts_as_one_term() -> None:
    limits = Limits(max_terms=2)
    assert len(build(spell({"a": list(range(1000)), "b": 1}).encode(), limits).members) == 2
    with pytest.raises(TooLarge):
        build(spell({"a": list(range(1000)), "b": 1, "c": {}}).encode(), limits)


def test_configs_of_the_largest_size_are_accepted_and_one_byte_more_is_not() -> None:
    form = store(b'{"a":1}')
    check_size(form, Limits(max_configs_bytes=len(form)))
    with pytest.raises(TooLarge, match=f"larger than {len(form) - 1} bytes"):
        check_size(form, Limits(max_configs_bytes=len(form) - 1))


def test_the_docstring_shows_a_document_in_its_form() -> None:
    lines = [line.strip() for line in (stored_document.__doc__ or "").splitlines() if line.startswith("    ")]
    form = "\n".join(lines).encode()
    assert store(form) == form


def test_configs_that_are_too_large_are_refused_before_their_terms_are_derived(monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[str] = []

    def packed(key: str, value: object) -> str:  # noqa: ARG001 - as the function that it replaces
        created.append(key)
        return ""

    monkeypatch.setattr("service.configs.document.packed_terms", packed)
    limits = Limits(max_configs_bytes=100)
    too_large = (b'{"never":"%b"}' % (b"x" * 99), b'{"never":[%b1]}' % (b"1," * 50), b'{"never":"%b","b":1}' % (b"x" * 98))
    for raw in too_large:
        with pytest.raises(TooLarge, match="configs are larger than 100 bytes"):
            Document.build(orjson.loads(raw), raw, limits)
    assert created == []
    # Line breaks, and members that a PATCH may delete, do not count here.
    nulls = b",".join(b'"k%d":null' % number for number in range(50))
    for raw in (b'{"a":%b"x"}' % (b"\n" * 200), b'{"a":[1,%b2]}' % (b"\t" * 200), b'{"a":1,%b}' % nulls):
        Document.build(orjson.loads(raw), raw, limits)
