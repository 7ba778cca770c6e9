"""Index terms: readable, the same for equal values, and never missing what a filter asks for."""

import hashlib
from collections import Counter

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from service.configs import terms
from service.configs.containment import Filter, contains
from service.configs.document import Document, parse
from service.configs.limits import Limits
from service.configs.terms import OVERFLOW_LIMIT, RequiredTerm, member_terms, overflow_term, required_terms, user_term
from tests.support.strategies import (
    Spelled,
    cases,
    keys,
    known_documents,
    spell,
    spelled_objects,
    strings,
    twice_spelled_objects,
    values,
)

AMPLE = Limits(max_filter_values=10**6, max_terms=10**6)


def terms_of(raw: bytes | str) -> list[str]:
    """All terms of a JSON object, as a session's index has them."""
    raw = raw.encode() if isinstance(raw, str) else raw
    members = Document.build(parse(raw, max_nesting=AMPLE.max_nesting), raw, AMPLE).members
    return [term for member in members for term in member.index_terms]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('{"agent":"bot1"}', '="bot1"'),
        ('{"runtime":{"name":"r1","version":2}}', '.name="r1"\t.version=2'),
        ('{"tags":["a","b"]}', '[]="a"\t[]="b"'),
        ('{"empty":{}}', "{}"),
        ('{"none":[]}', "[]"),
        ('{"below":{"a":[{}]}}', "!"),
        ('{"a b":1}', "=1"),
        ('{"=":1}', "=1"),
        ('{"' + "k" * 200 + '":1}', "#" + hashlib.sha256(b"k" * 200).hexdigest()[:16] + "=1"),
    ],
)
def test_packed_terms_omit_the_text_of_the_key(text: str, kept: str) -> None:
    raw = text.encode()
    (member,) = Document.build(parse(raw, max_nesting=64), raw, AMPLE).members
    assert member.terms.decode() == kept


@given(spelled_objects())
def test_unpacking_packed_terms_restores_them(case: Spelled) -> None:
    values = parse(case.raw, max_nesting=AMPLE.max_nesting)
    for member in Document.build(values, case.raw, AMPLE).members:
        key = orjson.loads(member.key)
        assert list(member.index_terms) == member_terms(key, values[key])


def required_terms_of(raw: bytes | str) -> tuple[RequiredTerm, ...]:
    filter_ = Filter.parse(raw.encode() if isinstance(raw, str) else raw, AMPLE)
    return filter_.required_terms if filter_ else ()


def sha(text: str) -> str:
    return "#" + hashlib.sha256(text.encode()).hexdigest()[:16]


def under(key: str, value: object) -> str:
    return orjson.dumps({key: value}).decode()


@pytest.mark.parametrize(
    ("configs", "terms"),
    [
        ('{"agent":"bot1"}', ['agent="bot1"']),
        ('{"temperature":0.70}', ["temperature=0.7"]),
        ('{"stream":true,"debug":false}', ["stream=true", "debug=false"]),
        ('{"note":null}', ["note=null"]),
        ('{"runtime":{"name":"r1","version":"2.0"}}', ['runtime.name="r1"', 'runtime.version="2.0"']),
        ('{"tags":["t1","t2","t1"]}', ['tags[]="t1"', 'tags[]="t2"']),
        ('{"agents":[{"name":"x"},{"name":"y","on":true}]}', ['agents[].name="x"', 'agents[].name="y"', "agents[].on=true"]),
        ('{"a":[[1,[2]]]}', ["a[][]=1", "a[][][]=2"]),
        ('{"a":{"b":[{"c":null}]}}', ["a.b[].c=null"]),
        ('{"runtime":{},"tags":[]}', ["runtime{}", "tags[]"]),
        ('{"a":{"b":{}},"c":[[]],"d":[{}]}', []),
        ("{}", []),
        ('{"a.b":1}', ['"a.b"=1']),
        ('{"a":{"b.c":1}}', ['a."b.c"=1']),
        ('{"":"","@user":"x"}', ['""=""', '"@user"="x"']),
        ('{"a\\nb":"x\\ty","ключ":"😀"}', ['"a\\nb"="x\\ty"', '"ключ"="😀"']),
        ('{"a~":1,"a[]":{},"a=":[]}', ['"a~"=1', '"a[]"{}', '"a="[]']),
        ('{"A-z_09":1}', ["A-z_09=1"]),
        ('{"a":"true","b":"1","c":"null"}', ['a="true"', 'b="1"', 'c="null"']),
    ],
)
def test_terms_read_as_a_person_would_type_them(configs: str, terms: list[str]) -> None:
    assert terms_of(configs) == terms


@pytest.mark.parametrize(
    ("spellings", "text"),
    [
        ("1 1.0 1e0 10e-1 100E-2", "1"),
        ("100 1e2 1E+2 100.0", "100"),
        ("0 -0 0.0 -0.0 0e9 -0e-9 1e-9999", "0"),
        ("-7 -7.00", "-7"),
        ("0.1 1e-1 0.10 0.1000000000000000055", "0.1"),
        ("9007199254740993 9007199254740992.0", "9007199254740992"),
        ("10000000000000000 1e16", "1e+16"),
        ("9999999999999998 9999999999999998.0", "9999999999999998"),
        ("1234567890123456789012345678901234567890 1.2345678901234567890123456789012345678900e39", "1.2345678901234568e+39"),
        ("18446744073709551616 18446744073709551615", "1.8446744073709552e+19"),
        ("1e-7 0.0000001", "1e-07"),
    ],
)
def test_a_number_has_the_text_of_its_double(spellings: str, text: str) -> None:
    assert {tuple(terms_of(f'{{"a":{number}}}')) for number in spellings.split()} == {(f"a={text}",)}


@pytest.mark.parametrize(
    ("text", "hashed"),
    [("x" * 128, False), ("x" * 129, True), ('"' * 64, False), ('"' * 65, True), ("é" * 64, False), ("é" * 65, True)],
)
def test_a_string_of_more_than_128_bytes_is_replaced_by_its_hash(text: str, hashed: bool) -> None:
    text_of_key = sha(text) if hashed else orjson.dumps(text).decode()
    assert terms_of(under("a", text)) == [f"a={text_of_key}"]
    assert terms_of(under("a", [text])) == [f"a[]={text_of_key}"]


@pytest.mark.parametrize(
    ("key", "text_of_key"),
    [
        ("k" * 128, "k" * 128),
        ("k" * 129, sha("k" * 129)),
        ("." * 128, f'"{"." * 128}"'),
        ("." * 129, sha("." * 129)),
        ("é" * 64, f'"{"é" * 64}"'),
        ("é" * 65, sha("é" * 65)),
    ],
)
def test_a_key_of_more_than_128_bytes_is_replaced_by_its_hash(key: str, text_of_key: str) -> None:
    assert terms_of(under(key, 1)) == [f"{text_of_key}=1"]
    assert terms_of(under(key, {})) == [text_of_key + "{}"]
    assert terms_of(under("a", {key: 1})) == [f"a.{text_of_key}=1"]
    assert terms_of(under(key, list(range(100)))) == [f"{text_of_key}~"]


def test_a_path_of_more_than_256_characters_is_replaced_by_its_hash() -> None:
    long = "k" * 100
    longest = f"{long}.{long}.{'l' * 54}"
    assert terms_of(under(long, {long: {"l" * 54: 1}})) == [f"{longest}=1"]
    assert terms_of(under(long, {long: {"l" * 55: 1}})) == [f"{sha(longest + 'l')}=1"]
    assert terms_of(under(long, {long: {"l" * 54: [1]}})) == [f"{sha(longest + '[]')}=1"]
    assert terms_of(under(long, {long: {"l" * 55: {"m": [1]}}})) == [f"{sha(longest + 'l')}.m[]=1"]


def test_a_container_of_64_terms_is_indexed_and_one_of_65_overflows() -> None:
    assert len(terms_of(under("a", list(range(OVERFLOW_LIMIT))))) == OVERFLOW_LIMIT == 64
    assert terms_of(under("a", list(range(OVERFLOW_LIMIT + 1)))) == ["a~"]
    assert terms_of(under("a", [*range(OVERFLOW_LIMIT)] * 5)) == [f"a[]={number}" for number in range(OVERFLOW_LIMIT)]
    assert terms_of(under("a", {"b": {str(number): 1 for number in range(65)}})) == ["a~"]
    assert terms_of(under("a.b", list(range(65)))) == ['"a.b"~']


def test_one_key_overflows_without_the_others() -> None:
    wide = list(range(100))
    assert terms_of(orjson.dumps({"a": {"b": 1}, "wide": wide, "c": wide[:2]})) == ["a.b=1", "wide~", "c[]=0", "c[]=1"]


def test_a_document_of_many_levels_and_items_is_read_in_one_pass() -> None:
    deep = '{"' + "k" * 128 + '":'
    raw = f'{{"a":{deep * 60}[{",".join(["1"] * 100_000)}]{"}" * 60}}}'
    (term,) = terms_of(raw)
    assert term.startswith("#")
    assert term.endswith("=1")


def test_a_filter_requires_the_terms_of_its_scalars_or_the_overflow_of_their_key() -> None:
    assert required_terms_of('{"agent":"bot1","n":1.0}') == (RequiredTerm('agent="bot1"'), RequiredTerm("n=1"))
    assert required_terms_of('{"a":{"b":[1,{"c":2}]}}') == (RequiredTerm("a.b[]=1", "a~"), RequiredTerm("a.b[].c=2", "a~"))
    assert required_terms_of('{"a.b":[1]}') == (RequiredTerm('"a.b"[]=1', '"a.b"~'),)


def test_a_filter_that_overflows_requires_a_session_that_overflows() -> None:
    assert required_terms_of(under("a", list(range(65)))) == (RequiredTerm("a~"),)


@pytest.mark.parametrize("raw", ['{"a":{}}', '{"a":[]}', '{"a":{"b":{}}}', '{"a":[[],{}]}', "{}"])
def test_containers_without_scalars_require_nothing(raw: str) -> None:
    assert required_terms_of(raw) == ()


def test_the_index_proposes_every_config_that_contains_a_filter() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=1500, phases=(Phase.reuse, Phase.generate), suppress_health_check=list(HealthCheck))
    @given(cases())
    def propose(case: tuple[Spelled, Spelled]) -> None:
        config, wanted = case
        if contains(config.value, wanted.value):
            have = set(terms_of(config.raw))
            for demand in required_terms_of(wanted.raw):
                assert demand.term in have or demand.overflow in have
                seen["by its term" if demand.term in have else "by an overflow"] += 1

    propose()
    assert min(seen["by its term"], seen["by an overflow"]) > 100, seen


def test_the_index_proposes_each_real_config_to_a_filter_that_is_the_config() -> None:
    for name, raw in known_documents():
        have = set(terms_of(raw))
        assert [demand for demand in required_terms_of(raw) if demand.term not in have] == [], name


@given(twice_spelled_objects())
def test_terms_come_from_the_value_and_not_from_its_spelling(case: tuple[Spelled, Spelled]) -> None:
    one, other = case
    assert terms_of(one.raw) == terms_of(other.raw)
    assert required_terms_of(one.raw) == required_terms_of(other.raw)


@given(st.lists(keys(), min_size=2, max_size=2, unique=True), values(), values())
def test_two_keys_at_the_top_share_no_term(pair: list[str], one: object, other: object) -> None:
    first, second = pair
    shared = set(terms_of(spell({first: one}))) & set(terms_of(spell({second: other})))
    # What begins with "#" is a hash; if two collide, containment still decides correctly.
    assert [term for term in shared if not term.startswith("#")] == []


@given(spelled_objects(), strings())
def test_no_term_has_a_tab_or_a_line_break_or_is_that_of_a_user(case: Spelled, user: str) -> None:
    for term in [*terms_of(case.raw), user_term(user)]:
        assert not set(term) & set("\t\n\r\0")
    assert user_term(user) not in terms_of(case.raw)
    assert user_term(user) not in terms_of(spell({"@user": user, "": user}))


@pytest.mark.parametrize(
    ("user", "term"),
    [
        ("alice@example.com", '@user="alice@example.com"'),
        ("", '@user=""'),
        ('a"b\\c', '@user="a\\"b\\\\c"'),
        ("über/alles", '@user="über/alles"'),
        ("x" * 256, f'@user="{"x" * 256}"'),
        ("é" * 128, f'@user="{"é" * 128}"'),
    ],
)
def test_a_users_term_is_readable_and_never_shortened(user: str, term: str) -> None:
    assert user_term(user) == term


def test_a_member_s_terms_can_be_derived_without_overflow() -> None:
    wide = list(range(100))
    assert member_terms("a", wide) == [overflow_term("a")] == ["a~"]
    assert len(member_terms("a", wide, overflow_limit=100)) == 100
    assert required_terms({"a": wide}) == (RequiredTerm("a~"),)


def test_the_term_of_equal_scalars_in_an_array_is_derived_once(monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[object] = []
    text = terms._scalar_text

    def counted(value: object) -> str:
        created.append(value)
        return text(value)

    monkeypatch.setattr(terms, "_scalar_text", counted)
    values = [1, "a", True, 1.5, None] * 10_000
    assert member_terms("k", values) == ["k[]=1", 'k[]="a"', "k[]=true", "k[]=1.5", "k[]=null"]
    assert len(created) == 5
    # Equal to Python, but not in JSON; and what has containers in it is taken as it is.
    assert member_terms("k", [True, 1, False, 0, -0.0]) == ["k[]=true", "k[]=1", "k[]=false", "k[]=0"]
    assert member_terms("k", [1, [1], {"x": 1}, 1]) == ["k[]=1", "k[][]=1", "k[].x=1"]
