"""Index terms: the texts under which a session's configs can be found.

A term is text that an operator can read and type: `agent="bot1"`, `runtime.version="2.1"`, `tags[]="t1"`, `note=null`,
`runtime{}` (an empty object), `agents[].name="x"`, `@user="alice@example.com"`. One function derives them, for writes and for
filters, from parsed *values*, so that equal values have equal terms however they were spelled. Terms may only err towards
too many candidates; containment decides. Invariant: `contains(c, f)` implies that every term of `f` is among the
terms of `c`, or below a top-level key that overflows in `c`.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

#: Most distinct terms of one top-level container; with more it overflows: its only term is then `key~`.
OVERFLOW_LIMIT = 64
#: Longest string in a term, in bytes of JSON text between the quotes; a longer one is replaced by its hash.
STRING_LIMIT = 128
#: Longest path in a term, in characters; a longer one is replaced by its hash.
PATH_LIMIT = 256

#: The packed terms of a member without terms.
NO_TERMS = "!"

_CONTAINERS = (dict, list)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def member_terms(key: str, value: object, *, overflow_limit: int = OVERFLOW_LIMIT) -> list[str]:
    """The distinct terms of one top-level member, in the order of the document."""
    path = _key_text(key)
    if not isinstance(value, _CONTAINERS):
        return [f"{path}={_scalar_text(value)}"]
    if not value:
        return [path + ("{}" if isinstance(value, dict) else "[]")]
    terms: dict[str, None] = {}
    _gather(terms, path, value, overflow_limit)
    return list(terms) if len(terms) <= overflow_limit else [overflow_term(key)]


def pack_terms(key: str, terms: Iterable[str]) -> str:
    r"""The terms of the member `key` as a session stores them: joined by tabs, each without the key's text.

    `agent="bot1"` of the key `agent` is stored as `="bot1"`. The rest starts with one of `=.[{~`, which no whole term does.
    A member without terms is stored as `!`, so that the lines of terms are those of the configs, in their order.
    """
    key_text = _key_text(key)
    return "\t".join([term.removeprefix(key_text) for term in terms] if not key_text.startswith("#") else terms) or NO_TERMS


def packed_terms(key: str, value: object) -> str:
    """The terms of one top-level member, packed."""
    # A shortcut for scalars, which most members are.
    if not isinstance(value, _CONTAINERS) and not _key_text(key).startswith("#"):
        return f"={_scalar_text(value)}"
    return pack_terms(key, member_terms(key, value))


def unpack_terms(key: str, packed: str) -> list[str]:
    """The terms that `pack_terms` packed."""
    if packed == NO_TERMS:
        return []
    key_text = _key_text(key)
    return [key_text + term if term[0] in "=.[{~" else term for term in packed.split("\t")]


def overflow_term(key: str) -> str:
    """The one term of a top-level container with more than `OVERFLOW_LIMIT` terms."""
    return f"{_key_text(key)}~"


def user_term(user: str) -> str:
    """The term of the sessions of `user`; never shortened, because user identifiers are."""
    return f"@user={_json_text(user)}"


def _gather(terms: dict[str, None], path: str, value: object, limit: int) -> None:
    """Add the terms of the scalars in `value` to `terms`, until there are more than `limit`."""
    # Empty containers below the top level have no term: a filter cannot search for them by value.
    if isinstance(value, dict):
        for key, item in value.items():
            _gather(terms, _bounded(f"{path}.{_key_text(key)}"), item, limit)
            if len(terms) > limit:
                return
    elif isinstance(value, list):
        path = _bounded(f"{path}[]")
        for item in _distinct(value):
            _gather(terms, path, item, limit)
            if len(terms) > limit:
                return
    else:
        terms[f"{path}={_scalar_text(value)}"] = None


def _distinct(values: list[Any]) -> Iterable[Any]:
    """An array's values without repeats, if all are scalars: a number repeated a hundred thousand times is one term."""
    try:
        # By type too: True == 1, but their terms differ.
        return [value for _, value in dict.fromkeys(zip(map(type, values), values, strict=True))]
    except TypeError:
        return values


def _key_text(key: str) -> str:
    return _short_key_text(key) if len(key) <= STRING_LIMIT else _string_text(key)


@lru_cache(maxsize=8192)
def _short_key_text(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string_text(key)


def _scalar_text(value: object) -> str:
    if isinstance(value, str):
        return _string_text(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    assert isinstance(value, int | float)  # noqa: S101 - the only other scalars in JSON
    return _number_text(float(value))


def _number_text(number: float) -> str:
    # Through float, so that 1, 1.0 and 1e0 share one text; containment distinguishes other numbers that round to the same.
    return str(int(number)) if number.is_integer() and abs(number) < 1e16 else repr(number)


def _string_text(text: str) -> str:
    quoted = orjson.dumps(text)
    return quoted.decode() if len(quoted) <= STRING_LIMIT + 2 else _hash(text)


def _json_text(text: str) -> str:
    return orjson.dumps(text).decode()


def _bounded(path: str) -> str:
    return path if len(path) <= PATH_LIMIT else _hash(path)


def _hash(text: str) -> str:
    return "#" + hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class RequiredTerm:
    """A condition on candidates: they have `term`, or the `overflow` term of its top-level key."""

    term: str
    overflow: str | None = None


def required_terms(values: Mapping[str, Any]) -> tuple[RequiredTerm, ...]:
    """The terms that every session containing the filter `values` has; without any, the index cannot narrow the search.

    An empty container requires none, because any container of its kind contains it. A container of more than `OVERFLOW_LIMIT`
    terms can only be contained in one that overflows too.
    """
    return tuple(_required_terms(values))


def _required_terms(values: Mapping[str, Any]) -> Iterable[RequiredTerm]:
    for key, value in values.items():
        if not isinstance(value, _CONTAINERS):
            yield RequiredTerm(member_terms(key, value)[0])
        elif value:
            overflow = overflow_term(key)
            for term in member_terms(key, value):
                yield RequiredTerm(term, None if term == overflow else overflow)
