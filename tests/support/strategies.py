"""Hypothesis strategies for JSON: awkward values, awkward spellings of them, and filters that hit.

Values are exact (int, Decimal, str, bool, None, list, dict) and spelled by code of our own, so that a test holds the service
against the value that was meant and not against another parser. Spelling and picking parts go by a `Random` made of a drawn
seed, which keeps examples small enough to draw many at once; `PLAIN` spells compactly.
"""

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

PLAIN = None

#: 9007199254740993 and the double next to it, what no double holds, both ends of what orjson takes.
NUMBERS: tuple[int | Decimal, ...] = (
    0, 1, -1, 100, 9007199254740992, 9007199254740993, 18446744073709551615, 18446744073709551616, -9223372036854775809,
    1234567890123456789012345678901234567890, 10**300, *map(Decimal, (
        "-0.0", "1.0", "1e2", "0.7", "0.1", "0.1000000000000000055", "0.10", "1e-7", "1e16", "1.5e300", "1e-400", "1e-9999",
        "2.50000000000000000000000000000000000000001", "123456789.123456789123456789",
    )),
)  # fmt: skip
STRINGS = (
    "", "a", "A", "1", "true", "null", "\0", "\x01", "\n", "\t", "\r", '"', "\\", '\\"', '","b":1,"', "{[", "]}", "a\nb",
    "\u2028", "\x85", "\x7f", "é", "e\u0301", "😀", "\U0010ffff", "\ufffd", "#", "1e99999", " a ", "x" * 128, "x" * 129,
    "é" * 70,
)  # fmt: skip
KEYS = (
    "", "a", "b", "A", "a\nb", "a\tb", "a:b", '"', "\\", "a.b", "a[]", "a{}", "a~", "a=", "@user", "#x", "#0123456789abcdef",
    "ключ", "😀", "\0", "é", "e\u0301", "a b", "a,", "x" * 128, "x" * 129, "k" * 300, "__proto__", "-", "_",
)  # fmt: skip

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_SEEDS = st.integers(0, 2**32)
_RANDOMS = st.just(PLAIN) | _SEEDS.map(Random)


@dataclass(frozen=True, slots=True)
class Spelled:
    """A JSON text and the exact value it spells."""

    raw: bytes
    value: Any

    def __repr__(self) -> str:
        # Hypothesis shows whole batches of these.
        return f"Spelled({self.raw[:1000]!r}{'...' * (len(self.raw) > 1000)})"


@cache
def strings(*, nul: bool = True) -> SearchStrategy[str]:
    """Strings; without NUL where Postgres is asked, which refuses it."""
    texts = st.sampled_from(STRINGS) | _TEXT
    return texts if nul else texts.map(lambda text: text.replace("\0", "0"))


@cache
def keys(*, nul: bool = True) -> SearchStrategy[str]:
    """Keys, most of them awkward."""
    texts = st.sampled_from(KEYS) | _TEXT
    return texts if nul else texts.map(lambda text: text.replace("\0", "0"))


@cache
def numbers() -> SearchStrategy[int | Decimal]:
    """Numbers that orjson takes, many of which no double holds."""
    decimals = st.builds(lambda digits, exponent: Decimal(f"{digits}e{exponent}"), st.integers(), st.integers(-40, 40))
    return st.sampled_from(NUMBERS) | st.integers(-3, 3) | st.integers(-(10**40), 10**40) | decimals


@cache
def scalars(*, nul: bool = True) -> SearchStrategy[Any]:
    """All kinds of scalars."""
    return st.none() | st.booleans() | numbers() | strings(nul=nul)


@cache
def wide() -> SearchStrategy[Any]:
    """Containers around the limit of 64 terms: some spill, some do not, one counts its repeats as one."""
    sizes = st.integers(60, 70)
    return st.one_of(
        sizes.map(lambda size: list(range(size))),
        sizes.map(lambda size: {f"k{number}": number for number in range(size)}),
        sizes.map(lambda size: [{"n": number, "m": number % 2} for number in range(size)]),
        sizes.map(lambda size: [1] * size),
    )


@cache
def values(*, nul: bool = True) -> SearchStrategy[Any]:
    """Any JSON value: awkward scalars, nested containers, empty ones, wide ones."""
    hollow: SearchStrategy[Any] = st.sampled_from(({}, [], [[]], [{}], {"": {}}, {"a": []}, [[[]], []]))
    return st.recursive(
        scalars(nul=nul) | hollow,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys(nul=nul), inner, max_size=4),
        max_leaves=12,
    )


@cache
def objects(*, nul: bool = True) -> SearchStrategy[dict[str, Any]]:
    """Any JSON object, as a session's configs may be."""
    return st.dictionaries(keys(nul=nul), values(nul=nul) | wide(), max_size=6)


@cache
def small_values() -> SearchStrategy[Any]:
    """Values of a small vocabulary, so that two drawn apart have something in common."""
    vocabulary = (0, 1, 100, True, False, None, "", "a", "1", "true", Decimal("0.1"), Decimal("0.1000000000000000055"))
    return st.recursive(
        st.sampled_from(vocabulary),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        max_leaves=10,
    )


@cache
def small_configs() -> SearchStrategy[dict[str, Any]]:
    """Configs of a small vocabulary."""
    return st.dictionaries(st.sampled_from(("a", "b", "c", "", "a.b")), small_values(), min_size=1, max_size=4)


@cache
def any_configs(*, nul: bool = True) -> SearchStrategy[dict[str, Any]]:
    """Configs for properties of filters: small vocabulary, awkward and wide ones."""
    return small_configs() | small_configs() | objects(nul=nul)


def filter_of(draw: DrawFn, config: dict[str, Any]) -> dict[str, Any]:
    """Draw a filter for `config`: a part of it, a part with something changed, or one drawn apart; half of all hit."""
    kind = draw(st.sampled_from(("part", "near", "apart")))
    random = Random(draw(_SEEDS))
    if kind == "part":
        return part_of(config, random) or config
    if kind == "near" and config:
        return part_of(config, random, astray=0.6) or {random.choice(list(config)): draw(small_values())}
    wanted = draw(small_configs())
    return dict(zip(random.sample(sorted(config), len(config)), wanted.values(), strict=False)) or wanted


@st.composite
def cases(draw: DrawFn, *, nul: bool = True) -> tuple[Spelled, Spelled]:
    """A config and a filter for it, each spelled in its own way."""
    config = draw(any_configs(nul=nul))
    wanted = filter_of(draw, config)
    return _spelled(config, draw(_RANDOMS)), _spelled(wanted, draw(_RANDOMS))


def part_of(config: dict[str, Any], random: Random, *, astray: float = 0.0) -> dict[str, Any]:
    """A part of `config` that it contains: some members, some elements, in any order and repeated.

    `astray` is the chance of what is below to become something else, which `config` then rarely contains.
    """
    kept = [key for key in config if random.random() < 0.6]
    random.shuffle(kept)
    return {key: _part_of(config[key], random, astray) for key in kept}


def _part_of(value: Any, random: Random, astray: float) -> Any:  # noqa: ANN401 - JSON is any value
    if random.random() < astray / 2:
        return random.choice((0, 1, True, "a", "1", None, [], {}, [1], {"a": 1}))
    if isinstance(value, dict):
        return part_of(value, random, astray=astray)
    if isinstance(value, list):
        some = [_part_of(item, random, astray) for item in value if random.random() < 0.6]
        some += random.sample(some, min(len(some), random.choice((0, 0, 1))))
        random.shuffle(some)
        # What two elements have, one element rarely has.
        if len(some) > 1 and isinstance(some[0], dict) and isinstance(some[1], dict) and random.random() < astray:
            some[0] |= some[1]
        return some
    return value


@cache
def spelled_objects(*, nul: bool = True) -> SearchStrategy[Spelled]:
    """Any JSON object in some spelling."""
    return st.builds(_spelled, objects(nul=nul), _RANDOMS)


@st.composite
def twice_spelled_objects(draw: DrawFn) -> tuple[Spelled, Spelled]:
    """Any JSON object in two spellings."""
    value = draw(objects())
    return _spelled(value, draw(_RANDOMS)), _spelled(value, draw(_RANDOMS))


def _spelled(value: Any, random: Random | None) -> Spelled:  # noqa: ANN401 - JSON is any value
    return Spelled(spell(value, random).encode(), value)


def spell(value: Any, random: Random | None = PLAIN) -> str:  # noqa: ANN401 - JSON is any value
    """A JSON text that has exactly `value`: other escapes, other digits, white space, members that a later one overrides."""
    if isinstance(value, str):
        return _spell_string(value, random)
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | Decimal):
        return random.choice(_spellings(value)) if random else str(value)
    if isinstance(value, list):
        return _spell_items("[]", [spell(item, random) for item in value], random)
    return _spell_items("{}", _spell_members(value, random), random)


def _spell_members(value: dict[str, Any], random: Random | None) -> list[str]:
    members = [_member(key, spell(item, random), random) for key, item in value.items()]
    if random and members and random.random() < 0.2:
        # The key keeps the place of its first member and has the value of its last.
        at = random.randrange(len(members))
        last = members[at]
        members[at] = _member(list(value)[at], random.choice(("null", "[[1]]", '{"a":{}}', '"\\u0041"', "1e0")), random)
        members.insert(random.randint(at + 1, len(members)), last)
    return members


def _member(key: str, value: str, random: Random | None) -> str:
    return f"{_spell_string(key, random)}{_gap(random)}:{_gap(random)}{value}"


def _spell_items(brackets: str, items: list[str], random: Random | None) -> str:
    body = ",".join(f"{_gap(random)}{item}{_gap(random)}" for item in items) or _gap(random)
    return f"{brackets[0]}{body}{brackets[1]}"


def _gap(random: Random | None) -> str:
    return random.choice(("", "", "", "", " ", "\n", "\t", "\r\n", " \n\t ")) if random else ""


def _spell_string(text: str, random: Random | None) -> str:
    if random is None:
        return json.dumps(text, ensure_ascii=False)
    return '"' + "".join(_spell_character(character, random) for character in text) + '"'


def _spell_character(character: str, random: Random) -> str:
    if random.random() < 0.2:
        units = character.encode("utf-16-be").hex()
        units = random.choice((units, units.upper()))
        return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
    if character == "/" and random.random() < 0.5:
        return "\\/"
    return json.dumps(character, ensure_ascii=False)[1:-1]


def _spellings(number: int | Decimal) -> list[str]:
    if number == 0:
        return ["0", "-0", "0.0", "-0.0", "0e7", "0E-3", "0.000"]
    if isinstance(number, int):
        return [str(number), f"{number}.0", f"{number}e0", f"{number}E+00", f"{number}00e-2", f"{number}.00000000000000000000"]
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    minus, text = "-" * sign, "".join(map(str, digits))
    scientific = [f"{minus}{text}e{exponent}", f"{minus}{text}0E{exponent - 1}" if exponent > -9999 else str(number)]
    return [str(number), *scientific, f"{number:f}"] if abs(exponent) < 60 else [str(number), *scientific]


def known_documents() -> list[tuple[str, bytes]]:
    """Documents with a name: some of our own, and the corpus of real configs where the folder beside the repository has it."""
    own: dict[str, Any] = {
        "empty": {},
        "agent": {
            "agent": "bot1",
            "temperature": Decimal("0.7"),
            "runtime": {"name": "r1", "version": "2.0"},
            "tags": ["t1", "t2"],
        },
        "awkward keys": {key: [key, {key: key}] for key in KEYS},
        "awkward values": {"numbers": list(NUMBERS), "strings": list(STRINGS), "hollow": [{}, [], [[]], None, True, False]},
        "wide": {"list": list(range(200)), "map": {f"k{number}": number for number in range(200)}},
    }
    found = [(name, spell(value).encode()) for name, value in own.items()]
    corpus = Path(__file__).resolve().parents[3] / "shared" / "corpus" / "real_configs.jsonl"
    if corpus.exists():
        for line in corpus.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line, parse_float=Decimal)
            found.append((entry["name"], spell(entry["config"]).encode()))
    return found
