"""Containment: the rules of Postgres's `@>` one by one, and Postgres itself as the reference for thousands of random pairs."""

import json
from collections import Counter
from random import Random

import orjson
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from service.configs.containment import Filter, contains, exact
from service.configs.document import Document, parse
from service.configs.limits import Limits
from service.errors import BadRequest
from tests.support.postgres import Postgres
from tests.support.strategies import Spelled, cases, known_documents, part_of, spell

LIMITS = Limits()
#: For filters as long as the configs.
AMPLE = Limits(max_filter_values=10**6)


def under_a(value: str) -> str:
    return f'{{"a":{value}}}'


#: Config, filter, whether the first contains the second.
Rule = tuple[str, str, bool]

RULES: dict[str, list[Rule]] = {
    "1 every key of the filter is there and its value contained, types alike at every level": [
        ('{"a":1,"b":2}', '{"a":1}', True),
        ('{"a":1,"b":2}', '{"b":2,"a":1}', True),
        ('{"a":1}', '{"a":1,"b":2}', False),
        ('{"a":1}', '{"a":2}', False),
        ('{"a":{"b":{"c":1,"d":2},"e":3}}', '{"a":{"b":{"c":1}}}', True),
        ('{"a":{"b":{"c":1}}}', '{"a":{"c":1}}', False),
        ('{"a":{"b":1}}', '{"a":"b"}', False),
        ('{"a":"b"}', '{"a":{"b":1}}', False),
        ('{"a":[1]}', '{"a":{"0":1}}', False),
        ('{"a":{"b":1}}', '{"a.b":1}', False),
        ('{"a.b":1}', '{"a.b":1}', True),
        ('{"a.b":1}', '{"a":{"b":1}}', False),
        ('{"x":{"a":1}}', '{"a":1}', False),
    ],
    "2 an empty container is contained in any of its kind and in nothing else": [
        ('{"a":{}}', '{"a":{}}', True),
        ('{"a":{"b":1}}', '{"a":{}}', True),
        ('{"a":[]}', '{"a":{}}', False),
        ('{"a":1}', '{"a":{}}', False),
        ('{"a":null}', '{"a":{}}', False),
        ("{}", '{"a":{}}', False),
        ('{"a":[]}', '{"a":[]}', True),
        ('{"a":[1,{"b":2}]}', '{"a":[]}', True),
        ('{"a":{}}', '{"a":[]}', False),
        ('{"a":""}', '{"a":[]}', False),
        ('{"a":null}', '{"a":[]}', False),
    ],
    "3 each element of the filter is contained in some element of the config": [
        ('{"a":[1,2]}', '{"a":[2,1]}', True),
        ('{"a":[1,2]}', '{"a":[1,1,1]}', True),
        ('{"a":[1,1,1]}', '{"a":[1,2]}', False),
        ('{"a":[{"x":1,"y":2}]}', '{"a":[{"x":1},{"y":2}]}', True),
        ('{"a":[{"x":1},{"y":2}]}', '{"a":[{"x":1,"y":2}]}', False),
        ('{"a":[{"x":1},{"x":1,"y":2}]}', '{"a":[{"y":2,"x":1}]}', True),
        ('{"a":[1,"1",true,null]}', '{"a":[null,true,"1",1]}', True),
        ('{"a":[1,"1",null]}', '{"a":[true]}', False),
        ('{"a":[{"x":1},2]}', '{"a":[2,{}]}', True),
        ('{"a":[1,2]}', '{"a":[{}]}', False),
    ],
    "4 nested arrays keep their depth": [
        ('{"a":[[1,2]]}', '{"a":[[1]]}', True),
        ('{"a":[[1,2]]}', '{"a":[1]}', False),
        ('{"a":[1,2]}', '{"a":[[1]]}', False),
        ('{"a":[[1]]}', '{"a":[[]]}', True),
        ('{"a":[1]}', '{"a":[[]]}', False),
        ('{"a":[]}', '{"a":[[]]}', False),
        ('{"a":[[1],[2]]}', '{"a":[[1,2]]}', False),
        ('{"a":[[[1]]]}', '{"a":[[[]]]}', True),
        ('{"a":[[{"b":[1,2]}]]}', '{"a":[[{"b":[2]}]]}', True),
    ],
    "5 an array contains no bare scalar": [
        ('{"a":[1,2]}', '{"a":1}', False),
        ('{"a":1}', '{"a":[1]}', False),
        ('{"a":[[1],2]}', '{"a":[[2]]}', False),
        ('{"a":[["b"]]}', '{"a":["b"]}', False),
    ],
    "6 numbers compare as exact decimals": [
        *((under_a(number), under_a(same), True) for number in ("1", "1.0", "1e0") for same in ("1", "1.00", "10e-1")),
        ('{"a":100}', '{"a":1e2}', True),
        ('{"a":0}', '{"a":-0.0}', True),
        ('{"a":[0.0]}', '{"a":[-0,0e5]}', True),
        ('{"a":9007199254740993}', '{"a":9007199254740992}', False),
        ('{"a":[9007199254740993]}', '{"a":[9007199254740993.0]}', True),
        ('{"a":9007199254740993}', '{"a":9.007199254740993e15}', True),
        ('{"a":0.1}', '{"a":0.1000000000000000055}', False),
        ('{"a":1e-9999}', '{"a":0}', False),
        ('{"a":1e-9999}', '{"a":10e-9999}', False),
        ('{"a":1234567890123456789012345678901234567890}', '{"a":1234567890123456789012345678901234567891}', False),
        ('{"a":1234567890123456789012345678901234567890}', '{"a":123456789012345678901234567890123456789e1}', True),
        ('{"a":-1}', '{"a":1}', False),
    ],
    "7 true, 1, the string 1 and the string true are four values": [
        (under_a(one), under_a(other), one == other)
        for one in ("true", "1", '"1"', '"true"', "[true]", "[1]", '["1"]', '["true"]')
        for other in ("true", "1", '"1"', '"true"', "[true]", "[1]", '["1"]', '["true"]')
    ]
    + [('{"a":false}', '{"a":0}', False), ('{"a":[0]}', '{"a":[false]}', False), ('{"a":0.0}', '{"a":false}', False)],
    "8 null equals null only, and a missing key is not null": [
        ('{"a":null}', '{"a":null}', True),
        ("{}", '{"a":null}', False),
        ('{"a":0}', '{"a":null}', False),
        ('{"a":false}', '{"a":null}', False),
        ('{"a":""}', '{"a":null}', False),
        ('{"a":{}}', '{"a":null}', False),
        ('{"a":[]}', '{"a":[null]}', False),
        ('{"a":[null]}', '{"a":[null]}', True),
        ('{"a":{"b":null}}', '{"a":{"b":null}}', True),
    ],
    "9 a duplicate key's last value wins, on both sides and at any depth": [
        ('{"a":1,"a":2}', '{"a":2}', True),
        ('{"a":1,"a":2}', '{"a":1}', False),
        ('{"a":2}', '{"a":1,"a":2}', True),
        ('{"a":1}', '{"a":1,"a":2}', False),
        ('{"a":{"b":1,"b":2}}', '{"a":{"b":2}}', True),
        ('{"a":{"b":1,"c":3,"b":{}}}', '{"a":{"b":1}}', False),
        ('{"a":1,"\\u0061":2}', '{"a":2}', True),
    ],
    "10 strings compare by code point after unescaping": [
        ('{"a":"A"}', '{"a":"a"}', False),
        ('{"a":"\\u0061\\/"}', '{"\\u0061":"a/"}', True),
        ('{"a":"\\ud83d\\ude00"}', '{"a":"😀"}', True),
        ('{"a":"é"}', '{"a":"e\u0301"}', False),
        ('{"é":1}', '{"e\u0301":1}', False),
        ('{"a":" a"}', '{"a":"a"}', False),
        ('{"a":"ß"}', '{"a":"ss"}', False),
        ('{"":1}', '{"":1}', True),
        ('{"":1}', '{"a":1}', False),
        ('{"a":{"":""}}', '{"a":{"":""}}', True),
        ('{"a":"x\\ny"}', '{"a":"x\\u000ay"}', True),
        ('{"a":"foobar"}', '{"a":"foo"}', False),
        ('{"a":["foobar"]}', '{"a":["foo"]}', False),
    ],
    "12 having every term of a filter is not containing it": [
        ('{"a":[{"x":1},{"y":2}]}', '{"a":[{"x":1,"y":2}]}', False),
        ('{"a":[[1],[2]]}', '{"a":[[1,2],[1]]}', False),
        ('{"a":[{"b":[1]},{"b":[2]}]}', '{"a":[{"b":[1,2]}]}', False),
    ],
    # PostgreSQL documentation, 8.14.3. Its pairs with arrays at the top stand under a key here, where "an array may contain a
    # primitive value" does not hold; the chapter's last example but one is therefore false.
    "Postgres's documentation": [
        ('{"a":"foo"}', '{"a":"foo"}', True),
        ('{"a":[1,2,3]}', '{"a":[1,3]}', True),
        ('{"a":[1,2,3]}', '{"a":[3,1]}', True),
        ('{"a":[1,2,3]}', '{"a":[1,2,2]}', True),
        ('{"product":"PostgreSQL","version":9.4,"jsonb":true}', '{"version":9.4}', True),
        ('{"a":[1,2,[1,3]]}', '{"a":[1,3]}', False),
        ('{"a":[1,2,[1,3]]}', '{"a":[[1,3]]}', True),
        ('{"foo":{"bar":"baz"}}', '{"bar":"baz"}', False),
        ('{"foo":{"bar":"baz"}}', '{"foo":{}}', True),
        ('{"a":["foo","bar"]}', '{"a":"bar"}', False),
        ('{"a":"bar"}', '{"a":["bar"]}', False),
        ('{"tags":["qui"],"name":"Angela"}', '{"tags":["qui"]}', True),
    ],
}  # fmt: skip
ALL_RULES = [rule for rules in RULES.values() for rule in rules]


def store(raw: bytes) -> bytes:
    return Document.build(parse(raw, max_nesting=LIMITS.max_nesting), raw, LIMITS).configs


def matches(config: bytes, wanted: bytes, limits: Limits = AMPLE) -> bool:
    """Whether the filter matches the stored form; without a filter every config matches."""
    containment_filter = Filter.parse(wanted, limits)
    return containment_filter is None or containment_filter.matches(config)


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_holds_for_the_stored_form_and_for_manual_edits(rule: str) -> None:
    for config, wanted, verdict in RULES[rule]:
        assert matches(store(config.encode()), wanted.encode()) is verdict, (config, wanted)
        assert matches(config.encode(), wanted.encode()) is verdict, (config, wanted)


def test_postgres_agrees_with_every_rule(postgres: Postgres) -> None:
    verdicts = postgres.contains([(config.encode(), wanted.encode()) for config, wanted, _ in ALL_RULES])
    assert verdicts == [verdict for _, _, verdict in ALL_RULES]


def test_postgres_decides_random_pairs_as_we_do(postgres: Postgres) -> None:
    verdicts: Counter[bool] = Counter()

    # Not shrunk: pairs are small, and each failing one is shown.
    @settings(max_examples=260, deadline=None, phases=(Phase.reuse, Phase.generate), suppress_health_check=list(HealthCheck))
    @given(st.lists(cases(nul=False), min_size=10, max_size=10))
    def agree(batch: list[tuple[Spelled, Spelled]]) -> None:
        pairs = [(config.raw, wanted.raw) for config, wanted in batch]
        ours = [matches(store(config), wanted) for config, wanted in pairs]
        theirs = postgres.contains(pairs)
        assert [pair for pair, our, their in zip(pairs, ours, theirs, strict=True) if our is not their] == []
        verdicts.update(ours)

    agree()
    assert verdicts.total() >= 2500
    assert min(verdicts[True], verdicts[False]) >= verdicts.total() / 4, verdicts


@given(cases())
def test_a_filter_decides_on_the_stored_form_as_containment_decides_on_the_values(case: tuple[Spelled, Spelled]) -> None:
    config, wanted = case
    verdict = contains(config.value, wanted.value)
    assert contains(exact(config.raw), exact(wanted.raw)) is verdict
    assert matches(store(config.raw), wanted.raw) is verdict


def test_real_configs_contain_their_parts_and_themselves_in_any_spelling() -> None:
    random = Random(1)
    for name, raw in known_documents():
        form, value = store(raw), exact(raw)
        assert matches(form, raw), name
        assert matches(form, spell(part_of(value, random), random).encode()), name
        wanted = value | {"not there": None}
        assert not matches(form, spell(wanted, random).encode()), name


def test_u0000_is_a_character_like_others() -> None:
    form = store(b'{"a\\u0000":"\\u0000","b":["x\\u0000y"]}')
    assert matches(form, b'{"a\\u0000":"\\u0000"}')
    assert matches(form, b'{"b":["x\\u0000y"]}')
    assert not matches(form, b'{"a":"\\u0000"}')
    assert not matches(form, b'{"a\\u0000":""}')
    assert not matches(form, b'{"b":["x"]}')


@pytest.mark.parametrize("raw", ["", " ", "{}", "null", " { } ", "\n null\t"])
def test_nothing_and_an_empty_object_are_no_filter(raw: str) -> None:
    assert Filter.parse(raw.encode(), LIMITS) is None


@pytest.mark.parametrize(
    "wrong",
    ["[]", "1", '"a"', "true", "[{}]", "{", "nul", '{"a":01}', '{"a":+1}', '{"a":NaN}', '{"a":Infinity}', '{"a":1e400}',
     '{"a":"\\ud800"}', '{"a":"\n"}', '{"a":1e-10000}', "\ufeff{}", '{"a":1' + "0" * 5000 + "}"],
)  # fmt: skip
def test_an_invalid_filter_is_a_bad_request_that_names_the_parameter(wrong: str) -> None:
    with pytest.raises(BadRequest, match="filter_by_configs"):
        Filter.parse(wrong.encode(), LIMITS)


def test_a_filter_is_bounded_in_values_and_in_nesting() -> None:
    limits = Limits(max_filter_values=5, max_nesting=3)
    assert Filter.parse(b'{"a":[1,2,{}]}', limits) is not None
    with pytest.raises(BadRequest, match="filter_by_configs has more than 5 values"):
        Filter.parse(b'{"a":[1,2,{}],"b":1}', limits)
    with pytest.raises(BadRequest, match="filter_by_configs: the JSON is nested deeper than 3 levels"):
        Filter.parse(b'{"a":[[[]]]}', limits)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"x":', "}")])
def test_the_deepest_nesting_that_can_be_set_is_matched(opening: str, closing: str) -> None:
    limits = Limits(max_nesting=256, max_filter_values=1000)
    raw = f'{{"a":{opening * 255}1{closing * 255}}}'.encode()
    form = Document.build(parse(raw, max_nesting=256), raw, limits).configs
    assert matches(form, raw, limits)
    assert not matches(form, raw.replace(b"1", b"2"), limits)


def test_null_configs_match_no_filter() -> None:
    assert not matches(b"null", b'{"a":null}')
    assert not matches(b"null", b'{"a":{}}')
    assert not matches(b"{}", b'{"a":null}')


@pytest.mark.parametrize(
    "configs",
    [
        '{"a":1}',
        '{ "a" : 1 }',
        '{\n  "a": 1\n}',
        '{\r\n"a":1\r\n}',
        '{\n"a":1\n}\n',
        '{\n"a": 1 ,\n"b": 2\n}',
        '{"b":2,\n"a":1.0}',
    ],
)
def test_manually_edited_configs_in_another_form_are_matched(configs: str) -> None:
    assert matches(configs.encode(), b'{"a":1}')
    assert not matches(configs.encode(), b'{"a":2}')


@pytest.mark.parametrize("character", ["\t", "\x01", "\x1f", "\x00"])
def test_control_characters_in_manually_edited_configs_match_their_escapes(character: str) -> None:
    wanted = json.dumps({"a": f"x{character}y"}).encode()
    for form in (f'{{"a":"x{character}y"}}', f'{{\n"a":"x{character}y"\n}}', f'{{\n"a":"x{character}y",\n"b":1\n}}'):
        assert matches(form.encode(), wanted)
        assert not matches(form.encode(), b'{"a":"xy"}')


ODD = [
    b"", b" ", b"{", b"}", b"{\n}", b"nul", b"[]", b'["a"]', b"1", b'"a"', b"\xff\xfe", b'{"a":', b'{\n"a":\n}', b'{\n"a":1',
    b'{\n"a"\n}',
    b'{\n"a":[\n}', b'{\n"a":nope,\n}', b'{\n"a":\xff\n}', b'{\n"a":1e99999999999999999999\n}', b'{"a":1e99999999999999999999}',
    b'{\n"a":1' + b"0" * 5000 + b"\n}", b'{\n"a":NaN\n}', b'{\n"a":-Infinity\n}', b'{"a":NaN}', b'{\n"a":"\\ud800"\n}',
    b'{\n"a":' + b"[" * 100_000 + b"\n}", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'\xef\xbb\xbf{"a":2}',
]  # fmt: skip


@pytest.mark.parametrize("configs", ODD)
@pytest.mark.parametrize("wanted", ['{"a":1}', '{"a":[[]]}', '{"a":"x"}', '{"a":{"b":0.5}}'])
def test_damaged_configs_match_no_filter(configs: bytes, wanted: str) -> None:
    # "[[]]" is contained in a hundred thousand levels, and too deep to be read.
    assert matches(configs, wanted.encode()) is False


@given(st.binary(), st.binary(), st.sampled_from(('{"a":1}', '{"a":[{"b":0.5}],"b":{}}', '{"a":null}', '{"a":[true,1.5]}')))
@example(b"{\n", b"\n}", '{"a":1}')
def test_a_filter_never_raises_whatever_is_stored(before: bytes, after: bytes, wanted: str) -> None:
    containment_filter = Filter.parse(wanted.encode(), LIMITS)
    assert containment_filter is not None
    for form in (
        before + after,
        b'{\n"a":' + before + b"\n}",
        b'{\n"a":1' + before + b',\n"b":' + after + b"\n}",
        b'{"a":' + after + b"}",
    ):
        assert isinstance(containment_filter.matches(form), bool)


def test_two_long_arrays_of_scalars_cost_their_lengths() -> None:
    numbers = list(range(100_000))
    # Every number looked for in a list would be ten thousand million comparisons.
    assert contains({"a": numbers}, {"a": numbers[::-1]})
    assert not contains({"a": numbers}, {"a": [*numbers, -1]})


def test_a_short_filter_on_a_long_array_of_objects_is_quick_to_decide() -> None:
    items = [{"x": number} for number in range(10_000)]
    form = store(orjson.dumps({"a": items}))
    assert matches(form, json.dumps({"a": items[-3:]}).encode())
    assert not matches(form, b'{"a":[{"x":-1}]}')


def test_a_filter_that_was_parsed_before_is_still_bounded() -> None:
    raw = b'{"a":[1,2,{}]}'
    generous, strict = Limits(max_filter_values=5), Limits(max_filter_values=4)
    assert Filter.parse(raw, generous) is Filter.parse(raw, generous)
    with pytest.raises(BadRequest, match="filter_by_configs has more than 4 values"):
        Filter.parse(raw, strict)
    with pytest.raises(BadRequest, match="nested deeper than 1 levels"):
        Filter.parse(raw, Limits(max_nesting=1))
