"""Random configs and filters: some awkward, most so alike that a filter matches several sessions."""

from collections.abc import Mapping
from decimal import Decimal
from random import Random
from typing import Any

from service.configs.containment import exact
from tests.support.model import spans
from tests.support.strategies import KEYS, NUMBERS, STRINGS, part_of, spell

#: The members of an object: key → value as the store keeps it. Never changed once made.
Values = Mapping[str, str]
Json = Any

#: Members that many sessions share: each session has each of them with a probability of one half.
COMMON: Mapping[str, tuple[Json, ...]] = {
    "agent": ("bot1", "bot1", "bot1", "bot2", "bot3"),
    "env": ("prod", "prod", "dev"),
    "temperature": (Decimal("0.7"), 1),
    "stream": (True, False, None),
    "runtime": ({"name": "r1", "version": "2.0"}, {"name": "r1"}, {"name": "r2", "limits": {"cpu": 2}}, {}),
    "tags": (["a", "b"], ["a"], ["b", "a", "a"], [], [["a"], {"x": 1, "y": 2}]),
}

#: Values in a filter; the server accepts 128 by default.
MAX_FILTER_VALUES = 100


def configs(random: Random, mark: int) -> dict[str, Json]:
    """Members of a session's configs; `mark` is a number that no other call gets."""
    members: dict[str, Json] = {key: random.choice(choices) for key, choices in COMMON.items() if random.random() < 0.5}
    if random.random() < 0.5:
        members["mark"] = mark
    for _ in range(random.choice((0, 0, 1, 3))):
        members[random.choice(KEYS)] = _awkward(random, 0)
    if random.random() < 0.03:
        members["wide"] = {f"k{number}": number % 7 for number in range(random.choice((60, 70, 200)))}
    if random.random() < 0.03:
        members["long"] = f"{mark} " * random.choice((50, 500))
    keys = list(members)
    random.shuffle(keys)
    return {key: members[key] for key in keys}


def changes(random: Random, mark: int, current: Values) -> dict[str, Json]:
    """Members of a PATCH of a session that has the members `current`: some set, some removed."""
    result: dict[str, Json] = {key: None for key in current if random.random() < 0.15}
    for key, value in configs(random, mark).items():
        if random.random() < 0.6:
            result[key] = None if random.random() < 0.2 else value
    return result


def _awkward(random: Random, depth: int) -> Json:
    kind = random.randrange(8 if depth < 3 else 5)
    if kind < 2:
        return random.choice(NUMBERS)
    if kind < 4:
        return random.choice(STRINGS)
    if kind == 4:
        return random.choice((True, False, None))
    if kind < 7:
        return [_awkward(random, depth + 1) for _ in range(random.randrange(4))]
    return {random.choice(KEYS): _awkward(random, depth + 1) for _ in range(random.randrange(3))}


def filter_for(random: Random, members: Values) -> dict[str, Json]:
    """A filter: a part of `members`, or, if there are none, members that many sessions share."""
    if not members or random.random() < 0.3:
        return {key: random.choice(COMMON[key]) for key in random.sample(sorted(COMMON), random.randint(1, 2))}
    keys = random.sample(sorted(members), min(len(members), random.randint(1, 3)))
    wanted = part_of({key: exact(members[key].encode()) for key in keys}, random, astray=0.05)
    return wanted if _size(wanted) <= MAX_FILTER_VALUES else filter_for(random, {})


def _size(value: Json) -> int:
    """The number of values in a value, itself included."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_size, inner))


def written(value: Mapping[str, Json], random: Random) -> tuple[str, Values]:
    """A JSON object that spells `value` in some way, and its members as the store keeps them."""
    text = spell(dict(value), random)
    return text, spans(text)
