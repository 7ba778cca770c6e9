r"""The stored document: one JSON object, one top-level member a line.

    {
    "agent":"bot1",
    "runtime":{"name":"r1","version":"2.0"}
    }

`{}` when empty, `null` when a session has no configs. JSON allows raw line breaks only between tokens, so a line break
*is* the boundary of a member: Lua merges, and `Filter` finds a member, without parsing a value. Invariants:

- it begins with `{\n` and ends with `\n}`; each line but the last ends with one comma, which no value can end with;
- a line starts with the key as orjson spells it, followed by `:`, so one key has one spelling;
- a value is stored as its sender wrote it, without `\n`, `\r` and `\t` (white space, since strings contain them only escaped).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import msgspec
import orjson

from service.configs.limits import Limits
from service.configs.terms import packed_terms, unpack_terms
from service.errors import BadRequest, ConfigsTooLarge

NULL = b"null"
EMPTY = b"{}"

#: Members whose terms a process caches, and the largest that it caches: key in characters and value in bytes together.
CACHED_MEMBERS, CACHED_SIZE = 8192, 256

_RAW_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RAW_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
# Possessive, and an unclosed string extends to the end: one pass over any bytes.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_LONG_EXPONENT = re.compile(rb"[0-9][eE][+-]?[0-9]{5}")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_BRACES_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")


class Member(NamedTuple):
    """One top-level member as a write needs it: key as JSON, raw value, packed index terms."""

    key: bytes
    value: bytes
    terms: bytes

    @property
    def index_terms(self) -> tuple[str, ...]:
        """The index terms, unpacked."""
        return tuple(unpack_terms(orjson.loads(self.key), self.terms.decode()))

    @property
    def is_null(self) -> bool:
        """Whether the value is null, with which a PATCH deletes the member."""
        return self.value == NULL


@dataclass(frozen=True, slots=True)
class Document:
    """The members of one JSON object, in order, ready to be stored."""

    members: tuple[Member, ...]

    @classmethod
    def build(cls, values: Mapping[str, Any], raw: bytes, limits: Limits, *, is_indexed: bool = True) -> Self:
        """Build the document of the JSON object `raw`, of which `values` is the parsed form.

        The number of index terms is not limited if the document is not indexed.

        Raises:
            ConfigsTooLarge: more top-level keys, bytes or index terms than `limits` allow.
        """
        check_key_count(len(values), limits)
        spans = _RAW_MEMBERS.decode(raw)
        if len(raw) > limits.max_configs_bytes:
            _check_values(map(bytes, spans.values()), limits)
        # Of equal keys the last value counts, at the position of the first, as in `values`.
        members = [_cache.get((key, value := bytes(span))) or _member(key, value, values[key]) for key, span in spans.items()]
        # Every term takes at least one byte of `raw`, so most documents need no count.
        if is_indexed and len(raw) > limits.max_terms:
            _check_term_count(members, limits)
        return cls(tuple(members))

    @property
    def configs(self) -> bytes:
        """The stored form of the configs."""
        return _lines([key + b":" + value for key, value, _ in self.members])

    @property
    def terms(self) -> bytes:
        """The packed index terms in the same form, one line per member."""
        return _lines([key + b":" + terms for key, _, terms in self.members])

    def as_changes(self) -> list[bytes]:
        """The members as the changes of a PATCH, flat: key, value and terms of each, "" for both where it deletes the key."""
        changes: list[bytes] = []
        for member in self.members:
            changes += (member.key, b"", b"") if member.is_null else member
        return changes


def parse(raw: bytes, *, max_nesting: int, around: int = 0) -> Any:  # noqa: ANN401 - JSON is any value
    """Parse JSON from outside; all of it goes through here. The outermost `around` levels are not counted.

    orjson decides what is JSON (RFC 8259). Nesting is checked first, on the bytes, duplicate keys included, so that no later
    code can recurse too deep. So are exponents of more than four digits, which are too expensive for Decimal.

    Raises:
        BadRequest: it is not JSON (with orjson's position), too deep, or has an exponent that is too long.
    """
    levels = max_nesting + around
    if raw.count(b"[") + raw.count(b"{") > levels and _deeper_than(raw, levels):
        raise BadRequest(f"the JSON is nested deeper than {max_nesting} levels")
    if _LONG_EXPONENT.search(raw) and _LONG_EXPONENT.search(_STRING.sub(b'""', raw)):
        raise BadRequest("a number has an exponent of more than four digits")
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest("the JSON cannot be parsed", detail=str(error)) from None


def _deeper_than(raw: bytes, levels: int) -> bool:
    # Each round removes the innermost pair of brackets of every branch, so what remains after N rounds is deeper than N.
    brackets = _STRING.sub(b"", raw).translate(_BRACES_TO_BRACKETS, _NOT_BRACKETS)
    too_many = b"[" * (levels + 1)
    for _ in range(levels):
        if too_many in brackets:
            return True
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True


def member_span(raw: bytes, key: str) -> bytes:
    """The raw value of the member `key` of an object that `parse` accepted; of equal keys the last counts."""
    return bytes(_RAW_MEMBERS.decode(raw)[key])


def element_spans(raw: bytes) -> list[bytes]:
    """The raw elements of a JSON array."""
    return [bytes(element) for element in _RAW_ELEMENTS.decode(raw)]


#: Recent members by key and raw value: the sessions of a fleet are much alike, and deriving terms is slow.
_cache: dict[tuple[str, bytes], Member] = {}


def _member(key: str, raw: bytes, value: object) -> Member:
    # Copied, because bytes from orjson keep its whole 4 KiB buffer alive.
    member = Member(b"%b" % orjson.dumps(key), _stripped(raw), packed_terms(key, value).encode())
    if len(key) + len(raw) <= CACHED_SIZE:
        if len(_cache) >= CACHED_MEMBERS:
            _cache.clear()
        _cache[key, raw] = member
    return member


def _stripped(value: bytes) -> bytes:
    """A raw value without line breaks and tabs, which can only be white space between tokens."""
    return value.translate(None, b"\n\r\t")


def _lines(lines: Sequence[bytes]) -> bytes:
    return b"{\n" + b",\n".join(lines) + b"\n}" if lines else EMPTY


def too_large(limits: Limits) -> ConfigsTooLarge:
    """The error for configs whose stored form has too many bytes."""
    return ConfigsTooLarge(f"configs are larger than {limits.max_configs_bytes} bytes")


def too_many_keys(limits: Limits) -> ConfigsTooLarge:
    """The error for configs with too many top-level keys."""
    return ConfigsTooLarge(f"configs have more than {limits.max_keys} top-level keys")


def too_many_terms(limits: Limits) -> ConfigsTooLarge:
    """The error for configs with too many index terms."""
    return ConfigsTooLarge(f"configs have more than {limits.max_terms} index terms")


def check_key_count(count: int, limits: Limits) -> None:
    """Refuse too many top-level keys.

    Raises:
        ConfigsTooLarge: there are more than `limits` allow.
    """
    if count > limits.max_keys:
        raise too_many_keys(limits)


def _check_term_count(members: Iterable[Member], limits: Limits) -> None:
    # A member without terms counts as one, because it takes a line.
    if sum(member.terms.count(b"\t") + 1 for member in members) > limits.max_terms:
        raise too_many_terms(limits)


def check_size(configs: bytes, limits: Limits) -> None:
    """Refuse configs whose stored form is too large.

    Raises:
        ConfigsTooLarge: it is larger than `limits` allow.
    """
    if len(configs) > limits.max_configs_bytes:
        raise too_large(limits)


def _check_values(values: Iterable[bytes], limits: Limits) -> None:
    """Refuse configs that cannot fit before their terms are derived, which is slow; the write itself measures exactly.

    Nulls do not count: a PATCH deletes their keys.

    Raises:
        ConfigsTooLarge: the raw values alone are larger than configs may be.
    """
    check_size(b"".join(_stripped(value) for value in values if value != NULL), limits)


def is_stored_form(configs: bytes) -> bool:
    """Whether `configs` starts and ends as a stored document does; false after a manual edit in another form."""
    return (configs.startswith(b'{\n"') and configs.endswith(b"\n}")) or configs in (EMPTY, NULL)
