"""The query of a request: parameters decoded, and checked against those that its route accepts."""

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote_to_bytes

from service.errors import BadRequest

#: Pairs of one query, empty ones included.
MAX_PAIRS = 64
#: Characters of a parameter's name in a message.
MAX_NAME = 40

#: No parameters.
NONE: Final[Mapping[str, str]] = MappingProxyType({})
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def parse(raw: str, accepted: Collection[str]) -> Mapping[str, str]:
    """The parameters of a raw query, names and values percent-decoded, + read as a space; `accepted` are those of the route.

    Empty pairs, as in `?&a=1&`, are skipped; a name without = has an empty value.

    Raises:
        BadRequest: a parameter is unknown, repeated, or not percent-encoded UTF-8, or there are too many.
    """
    raw = raw.partition("#")[0]  # a fragment, which no client should send (RFC 9112, 3.2.1)
    if raw.count("&") >= MAX_PAIRS:
        raise BadRequest(f"the query has more than {MAX_PAIRS} parameters")
    parameters: dict[str, str] = {}
    for pair in filter(None, raw.split("&")):
        encoded, _, value = pair.partition("=")
        # A name that cannot be decoded is quoted in its encoded form.
        name = encoded if encoded in accepted else _decode(encoded)
        if name is None or name not in accepted:
            raise BadRequest(f"unknown query parameter {_quoted(name or encoded)}; {_accepts(accepted)}")
        if name in parameters:
            raise BadRequest(f"query parameter {name} is repeated")
        decoded = _decode(value)
        if decoded is None:
            raise BadRequest(f"{name} in the query {_fault(value)}")
        parameters[name] = decoded
    return parameters


def _decode(text: str) -> str | None:
    """A name or value decoded; None where it is not percent-encoded UTF-8."""
    if _BAD_ESCAPE.search(text):
        return None
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode()
    except UnicodeError:
        return None


def _fault(text: str) -> str:
    return "has a % without two hex digits after it" if _BAD_ESCAPE.search(text) else "is not valid UTF-8"


def _quoted(name: str) -> str:
    return f"{name[:MAX_NAME]!a}{'...' if len(name) > MAX_NAME else ''}"


def _accepts(accepted: Collection[str]) -> str:
    return f"this path accepts {', '.join(sorted(accepted))}" if accepted else "this path accepts none"
