"""Random configs and filters as JSON texts: some awkward, most so alike that a filter matches several sessions.

A number is a `Number`, the text that is in the JSON, so that no digit is lost. Other values are Python's.
"""

import json
from collections.abc import Mapping
from random import Random
from typing import TypeAlias


class Number(str):
    """A number as it is spelled."""

    __slots__ = ()


Json: TypeAlias = "dict[str, Json] | list[Json] | str | bool | None"
#: The members of an object: key → value as the store keeps it. Never changed once made.
Values = Mapping[str, str]

NUMBERS = (
    "0", "-0", "1", "1.0", "1e0", "100", "1e2", "0.7", "0.70", "0.1000000000000000055", "9007199254740993",
    "1234567890123456789012345678901234567890", "1e-400", "-2.5E+3",
)  # fmt: skip
STRINGS = (
    "", "a", "true", "1", "null", "\0", "\n\t", '"', "\\", '","b":1,"', "]}", "кот 😀", "e\u0301", "x" * 128, "x" * 129, "\x7f",
)  # fmt: skip
KEYS = ("", "a.b", "a[]", "a:b", '"', "\\", "a\nb", "@user", "ключ", "k" * 140, "a~", "__proto__", "#0123456789abcdef")

#: Members that many sessions share: each session has each of them with a probability of one half.
COMMON: Mapping[str, tuple[Json, ...]] = {
    "agent": ("bot1", "bot1", "bot1", "bot2", "bot3"),
    "env": ("prod", "prod", "dev"),
    "temperature": tuple(map(Number, ("0.7", "0.70", "1", "1.0"))),
    "stream": (True, False, None),
    "runtime": ({"name": "r1", "version": "2.0"}, {"name": "r1"}, {"name": "r2", "limits": {"cpu": Number("2")}}, {}),
    "tags": (["a", "b"], ["a"], ["b", "a", "a"], [], [["a"], {"x": Number("1"), "y": Number("2")}]),
}

#: Values in a filter; the server accepts 128 by default.
MAX_FILTER_VALUES = 100

_VALUES = json.JSONDecoder(parse_int=Number, parse_float=Number, strict=False)
#: White space between tokens; the store drops all of it but the spaces.
_GAPS = ("", "", "", "", " ", "\n", "\t", "\r\n ")
_DROPPED = {ord(character): None for character in "\n\t\r"}


def configs(random: Random, marks: int) -> dict[str, Json]:
    """Members of a session's configs; `marks` is a number that no other call gets."""
    members: dict[str, Json] = {key: random.choice(choices) for key, choices in COMMON.items() if random.random() < 0.5}
    if random.random() < 0.5:
        members["mark"] = Number(str(marks))
    for _ in range(random.choice((0, 0, 1, 3))):
        members[random.choice(KEYS)] = _awkward(random, 0)
    if random.random() < 0.03:
        members["wide"] = {f"k{number}": Number(str(number % 7)) for number in range(random.choice((60, 70, 200)))}
    if random.random() < 0.03:
        members["long"] = f"{marks} " * random.choice((50, 500))
    keys = list(members)
    random.shuffle(keys)
    return {key: members[key] for key in keys}


def changes(random: Random, marks: int, current: Values) -> dict[str, Json]:
    """Members of a PATCH of a session that has the members `current`: some set, some removed."""
    new = configs(random, marks)
    result: dict[str, Json] = {key: None for key in current if random.random() < 0.15}
    for key, value in new.items():
        if random.random() < 0.6:
            result[key] = None if random.random() < 0.2 else value
    return result


def _awkward(random: Random, depth: int) -> Json:
    kind = random.randrange(8 if depth < 3 else 5)
    if kind < 2:
        return Number(random.choice(NUMBERS))
    if kind < 4:
        return random.choice(STRINGS)
    if kind == 4:
        return random.choice((True, False, None))
    if kind < 7:
        return [_awkward(random, depth + 1) for _ in range(random.randrange(4))]
    return {random.choice(KEYS): _awkward(random, depth + 1) for _ in range(random.randrange(3))}


def part(random: Random, value: Json) -> Json:
    """Mostly something that `value` contains: some of its members or elements. Sometimes something else."""
    if random.random() < 0.03:
        return random.choice((Number("1"), "a", None, {}, []))
    if isinstance(value, dict):
        return {key: part(random, item) for key, item in value.items() if random.random() < 0.7}
    if isinstance(value, list):
        return [part(random, item) for item in random.sample(value, random.randint(0, len(value)))]
    return value


def filter_for(random: Random, members: Values) -> dict[str, Json]:
    """A filter: a part of `members`, or, if there are none, members that many sessions share."""
    if not members or random.random() < 0.3:
        return {key: random.choice(COMMON[key]) for key in random.sample(sorted(COMMON), random.randint(1, 2))}
    keys = random.sample(sorted(members), min(len(members), random.randint(1, 3)))
    wanted = {key: part(random, parsed(members[key])) for key in keys}
    return wanted if size(wanted) <= MAX_FILTER_VALUES else filter_for(random, {})


def size(value: Json) -> int:
    """The number of values in a value, itself included."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(size, inner))


def parsed(text: str) -> Json:
    """The value that a JSON text spells."""
    value: Json = _VALUES.decode(text)
    return value


def spelled(value: Json, random: Random | None = None) -> str:
    """A JSON text of `value`, compact, or with white space as `random` has it."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        items = [f"{_string(key, random)}{_gap(random)}:{spelled(item, random)}" for key, item in value.items()]
        return _joined("{}", items, random)
    if isinstance(value, list):
        return _joined("[]", [spelled(item, random) for item in value], random)
    return _string(value, random) if isinstance(value, str) else json.dumps(value)


def written(value: Mapping[str, Json], random: Random) -> tuple[str, Values]:
    """A JSON object that spells `value` in some way, and its members as the store keeps them."""
    texts = {key: spelled(item, random) for key, item in value.items()}
    body = _joined("{}", [f"{_string(key, random)}:{_gap(random)}{text}" for key, text in texts.items()], random)
    return body, {key: text.translate(_DROPPED) for key, text in texts.items()}


def _string(text: str, random: Random | None) -> str:
    return json.dumps(text, ensure_ascii=random is not None and random.random() < 0.3)


def _joined(brackets: str, items: list[str], random: Random | None) -> str:
    body = ",".join(f"{_gap(random)}{item}{_gap(random)}" for item in items)
    return f"{brackets[0]}{body}{brackets[1]}"


def _gap(random: Random | None) -> str:
    return random.choice(_GAPS) if random else ""
