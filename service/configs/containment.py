"""Containment of JSON as Postgres's `jsonb @> jsonb` decides it, on exact values.

Rules: PostgreSQL documentation, 8.14.3 "jsonb Containment and Existence". Numbers compare as exact decimals, strings by code
point; types match at every level; an array contains another if each of its elements is contained in some element, order and
repeats aside. "An array contains a bare scalar" holds for top-level arrays only, so never between objects.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from itertools import repeat
from typing import Any

import orjson

from service.configs import terms
from service.configs.document import is_stored_form, parse
from service.configs.limits import Limits
from service.errors import BadRequest

_CONTAINERS = (dict, list)
_EXACT = json.JSONDecoder(parse_float=Decimal, strict=False)


def exact(raw: bytes) -> Any:  # noqa: ANN401 - JSON is any value
    """Parse JSON with every number exact: int, or Decimal where it has a fraction or an exponent."""
    return _EXACT.decode(raw.decode())


def contains(config: object, wanted: object) -> bool:
    """Whether `config @> wanted`, for exact values nested in the same place (so: an object never contains a scalar)."""
    if isinstance(wanted, dict):
        if not isinstance(config, dict):
            return False
        for key, value in wanted.items():  # noqa: SIM110 - twice as fast as all(), and one frame a level
            if key not in config or not contains(config[key], value):
                return False
        return True
    if isinstance(wanted, list):
        return isinstance(config, list) and _array_contains(config, wanted)
    return _typed(config) == _typed(wanted)


def _array_contains(config: list[Any], wanted: list[Any]) -> bool:
    scalars: set[tuple[type, object]] | None = None
    for item in wanted:
        if isinstance(item, _CONTAINERS):
            if True not in map(contains, config, repeat(item)):
                return False
        else:
            # By hash, so that two long arrays cost their lengths and not the product.
            if scalars is None:
                scalars = {_typed(candidate) for candidate in config if not isinstance(candidate, _CONTAINERS)}
            if _typed(item) not in scalars:
                return False
    return True


def _typed(value: object) -> tuple[type, object]:
    # The type goes first because True == 1 in Python; int and Decimal are one JSON type and compare (and hash) by value.
    if isinstance(value, Decimal):
        return int, value
    return type(value), None if isinstance(value, _CONTAINERS) else value


class Filter:
    """A `filter_by_configs`: what the index is asked for, and the test that decides on every candidate."""

    def __init__(self, values: Mapping[str, Any], exact_values: Mapping[str, Any]) -> None:
        self.demands = terms.filter_demands(values)
        # A member is looked up in a stored document by the line it starts.
        self._wanted = [
            (key, b"\n" + orjson.dumps(key) + b":", value, _scalar_spelling(value)) for key, value in exact_values.items()
        ]

    @classmethod
    def parse(cls, raw: bytes, limits: Limits) -> "Filter | None":
        """The filter that `raw` spells, or None where `{}`, `null` or nothing asks for none.

        Raises:
            BadRequest: not JSON, not an object, too deep, or with too many values.
        """
        if not raw.strip():
            return None
        try:
            values = parse(raw, max_nesting=limits.max_nesting)
        except BadRequest as error:
            raise BadRequest(f"filter_by_configs: {error.message}", detail=error.detail) from None
        if values is None or values == {}:
            return None
        if not isinstance(values, dict):
            raise BadRequest("filter_by_configs must be a JSON object")
        if _count(values) > limits.max_filter_values:
            raise BadRequest(f"filter_by_configs has more than {limits.max_filter_values} values")
        return cls(values, exact(raw))

    def matches(self, configs: bytes) -> bool:
        """Whether the stored document `configs` contains this filter. Never raises: what cannot be read does not match."""
        try:
            if not is_stored_form(configs):
                return contains(exact(configs), {key: value for key, _, value, _ in self._wanted})
            return all(self._member_contains(configs, start, value, spelling) for _, start, value, spelling in self._wanted)
        except (ValueError, ArithmeticError, RecursionError):
            return False

    @staticmethod
    def _member_contains(configs: bytes, start: bytes, value: object, spelling: bytes | None) -> bool:
        at = configs.find(start)
        if at < 0:
            return False
        at += len(start)
        span = configs[at : configs.find(b"\n", at)].removesuffix(b",")
        return span == spelling or contains(exact(span), value)


def _scalar_spelling(value: object) -> bytes | None:
    """The usual bytes of a scalar: a member that is spelled so needs no parsing to be equal."""
    if isinstance(value, str | bool) or value is None:
        return orjson.dumps(value)
    return str(value).encode() if isinstance(value, int) else None


def _count(value: object) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_count, value.values()))
    if isinstance(value, list):
        return 1 + sum(map(_count, value))
    return 1
