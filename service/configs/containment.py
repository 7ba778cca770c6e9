"""Containment of JSON as Postgres's `jsonb @> jsonb` decides it, on exact values.

Rules: PostgreSQL documentation, 8.14.3 "jsonb Containment and Existence". Numbers compare as exact decimals, strings by code
point; types match at every level; an array contains another if each of its elements is contained in some element, order and
repeats aside. "An array contains a bare scalar" holds for top-level arrays only, so never between objects.
"""

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from itertools import repeat
from typing import Any, NamedTuple

import orjson

from service.configs import terms
from service.configs.budget import Budget
from service.configs.document import is_stored_form, parse
from service.configs.limits import Limits
from service.errors import BadRequest

#: Recent filters that a process caches, and the largest that it caches, in bytes: every page of a list repeats its filter.
CACHED_FILTERS, CACHED_SIZE = 128, 512

_CONTAINERS = (dict, list)
_BOOLEANS = {False: object(), True: object()}
_EXACT = json.JSONDecoder(parse_float=Decimal, strict=False)


def exact(raw: bytes) -> Any:  # noqa: ANN401 - JSON is any value
    """Parse JSON with every number exact: int, or Decimal where it has a fraction or an exponent."""
    return _EXACT.decode(raw.decode())


def contains(config: object, wanted: object, budget: Budget | None = None) -> bool:
    """Whether `config @> wanted`, for exact values nested in the same place (so: an object never contains a scalar).

    Raises:
        OutOfBudget: an array costs more comparisons than `budget` has left.
    """
    return _contains(config, _compile(wanted), budget or Budget())


class _Object(NamedTuple):
    """A wanted object, its members in the order of their keys."""

    members: tuple[tuple[str, Any], ...]


class _Array(NamedTuple):
    """A wanted array without repeats, its scalars as `_scalar` returns them.

    `cost` is in comparisons for each element of a config's array.
    """

    scalars: frozenset[object]
    containers: tuple["_Object | _Array", ...]
    cost: int


def _compile(wanted: object) -> Any:  # noqa: ANN401 - an _Object, an _Array, or a scalar as _scalar returns it
    """`wanted` as `_contains` takes it. Equal values become equal, so that repeats in an array are compared once."""
    if isinstance(wanted, dict):
        return _Object(tuple((key, _compile(wanted[key])) for key in sorted(wanted)))
    if not isinstance(wanted, list):
        return _scalar(wanted)
    scalars = frozenset(_scalar(item) for item in wanted if not isinstance(item, _CONTAINERS))
    # In their order, not as a set: a set's order differs between processes, and then the number of comparisons would.
    containers = tuple(dict.fromkeys(_compile(item) for item in wanted if isinstance(item, _CONTAINERS)))
    return _Array(scalars, containers, bool(scalars) + sum(map(_weight, containers)))


def _weight(wanted: object) -> int:
    """Comparisons that a wanted value costs, without those inside its arrays, which are counted there."""
    return 1 + sum(_weight(value) for _, value in wanted.members) if isinstance(wanted, _Object) else 1


def _contains(config: object, wanted: Any, budget: Budget) -> bool:  # noqa: ANN401 - as _compile returns it
    if isinstance(wanted, _Object):
        return isinstance(config, dict) and _object_contains(config, wanted, budget)
    if isinstance(wanted, _Array):
        return isinstance(config, list) and _array_contains(config, wanted, budget)
    return not isinstance(config, _CONTAINERS) and bool(_scalar(config) == wanted)


def _object_contains(config: dict[str, Any], wanted: _Object, budget: Budget) -> bool:
    # Loops, here and below, because all() takes twice as long and one more frame per level.
    for key, value in wanted.members:  # noqa: SIM110
        if key not in config or not _contains(config[key], value, budget):
            return False
    return True


def _array_contains(config: list[Any], wanted: _Array, budget: Budget) -> bool:
    budget.take_comparisons(wanted.cost * len(config))
    # By hash, so that two long arrays cost their lengths and not the product.
    if wanted.scalars and not wanted.scalars <= {_scalar(item) for item in config if not isinstance(item, _CONTAINERS)}:
        return False
    for item in wanted.containers:
        kind, decide = _KINDS[type(item)]
        candidates = [candidate for candidate in config if isinstance(candidate, kind)]
        if True not in map(decide, candidates, repeat(item), repeat(budget)):
            return False
    return True


#: For each wanted container: the type in configs that can contain it, and the function that decides.
_KINDS: dict[type, tuple[type, Callable[[Any, Any, Budget], bool]]] = {
    _Object: (dict, _object_contains),
    _Array: (list, _array_contains),
}


def _scalar(value: object) -> object:
    # True == 1 in Python, so booleans are replaced by unique objects; int and Decimal are one JSON type and compare (and
    # hash) by value.
    return _BOOLEANS[value] if isinstance(value, bool) else value


class Filter:
    """A `filter_by_configs`: the terms to search for, and the test that decides on every candidate."""

    def __init__(self, values: Mapping[str, Any], exact_values: Mapping[str, Any]) -> None:
        self.required_terms = terms.required_terms(values)
        compiled = {key: _compile(value) for key, value in exact_values.items()}
        self._whole = _Object(tuple(compiled.items()))
        # A member is found in a stored document by the start of its line.
        self._wanted = [
            (b"\n" + orjson.dumps(key) + b":", value, _usual_endings(exact_values[key])) for key, value in compiled.items()
        ]

    @classmethod
    def parse(cls, raw: bytes, limits: Limits) -> "Filter | None":
        """Parse a filter; None if `raw` is empty, `{}` or `null`.

        Raises:
            BadRequest: it is not JSON, not an object, too deep, or has too many values.
        """
        if not raw.strip():
            return None
        parse_filter = _parse if len(raw) > CACHED_SIZE else _parse_cached
        return parse_filter(raw, limits.max_nesting, limits.max_filter_values)

    def matches(self, configs: bytes, budget: Budget | None = None) -> bool:
        """Whether the stored document `configs` contains this filter. Unreadable configs do not match.

        Raises:
            OutOfBudget: it costs more comparisons than `budget` has left.
        """
        budget = budget or Budget()
        try:
            if not is_stored_form(configs):
                return _contains(exact(configs), self._whole, budget)
            for start, value, usual_endings in self._wanted:
                at = configs.find(start)
                if at < 0:
                    return False
                at += len(start)
                if not configs.startswith(usual_endings, at) and not _contains(_member(configs, at), value, budget):
                    return False
        except (ValueError, ArithmeticError, RecursionError):
            return False
        return True


def _member(configs: bytes, start: int) -> Any:  # noqa: ANN401 - JSON is any value
    """The exact value of the member whose value starts at `start` of a stored document."""
    return exact(configs[start : configs.find(b"\n", start)].removesuffix(b","))


def _usual_endings(value: object) -> tuple[bytes, ...]:
    """How a line ends that has a wanted scalar in its usual spelling: such a member is equal without parsing."""
    if isinstance(value, str | bool) or value is None:
        spelling = orjson.dumps(value)
    elif isinstance(value, int):
        spelling = b"%d" % value
    else:
        return ()
    return spelling + b",\n", spelling + b"\n"


def _count(value: object) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_count, value.values()))
    if isinstance(value, list):
        return 1 + sum(map(_count, value))
    return 1


def _parse(raw: bytes, max_nesting: int, max_values: int) -> Filter | None:
    try:
        values = parse(raw, max_nesting=max_nesting)
    except BadRequest as error:
        raise BadRequest(f"filter_by_configs: {error.message}", detail=error.detail) from None
    if values is None or values == {}:
        return None
    if not isinstance(values, dict):
        raise BadRequest("filter_by_configs must be a JSON object")
    if _count(values) > max_values:
        raise BadRequest(f"filter_by_configs has more than {max_values} values")
    return Filter(values, exact(raw))


_parse_cached = lru_cache(maxsize=CACHED_FILTERS)(_parse)
