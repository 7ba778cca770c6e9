r"""The stored document: one JSON object, one top-level member a line.

    {
    "agent":"bot1",
    "runtime":{"name":"r1","version":"2.0"}
    }

`{}` when empty, `null` when a session has no configs. JSON allows white space between tokens only, so a line break *is* the
boundary of a member: Lua merges, and `Filter` finds a member, without parsing a value. Invariants of the form:

- it begins with `{\n` and ends with `\n}`; each line but the last ends with one comma, which no value can end with;
- a line starts with the key as orjson spells it, then `:` at once, so one key has one spelling;
- a value stands as its sender wrote it, without `\n`, `\r` and `\t` (white space there, for inside a string they are escaped).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import orjson

from service.configs.limits import Limits
from service.configs.terms import packed_terms, unpack_terms
from service.errors import BadRequest, ConfigsTooLarge

NULL = b"null"
EMPTY = b"{}"

#: Members that a process remembers with their terms, and the largest of them: key and value, in characters and bytes.
REMEMBERED_MEMBERS, REMEMBERED_SIZE = 8192, 256

_RAW_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
# Possessive, and with a string that is never closed taken to the end: one pass over the bytes, whatever they are.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_LONG_EXPONENT = re.compile(rb"[0-9][eE][+-]?[0-9]{5}")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_BRACES_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")


class Member(NamedTuple):
    """One top-level member as a write needs it: key as JSON, raw value, index terms in the form that a session keeps."""

    key: bytes
    value: bytes
    terms: bytes

    @property
    def index_terms(self) -> tuple[str, ...]:
        """The index terms, each whole."""
        return tuple(unpack_terms(orjson.loads(self.key), self.terms.decode()))

    @property
    def is_null(self) -> bool:
        """Whether the value is JSON's null, which a PATCH reads as "delete"."""
        return self.value == NULL


@dataclass(frozen=True, slots=True)
class Document:
    """The members of one JSON object, in their order, ready to be stored."""

    members: tuple[Member, ...]

    @property
    def configs(self) -> bytes:
        """The stored form of the configs."""
        return _lines((member.key, member.value) for member in self.members)

    @property
    def terms(self) -> bytes:
        """The index terms in the same form, a line for each member."""
        return _lines((member.key, member.terms) for member in self.members)


def parse(raw: bytes, *, max_nesting: int, around: int = 0) -> Any:  # noqa: ANN401 - JSON is any value
    """Parse JSON that came from outside; the gate all of it passes. `around` levels of it are not counted.

    orjson is the judge of what is JSON (RFC 8259). Nesting is counted first, on the bytes, so that nothing behind this gate can
    recurse too deep, duplicate keys included; so are exponents of more than four digits, which Decimal could not take.

    Raises:
        BadRequest: not JSON (with orjson's position), too deep, or an exponent too long.
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
    # Each round takes the innermost pair of brackets off every branch, so what outlives N rounds is deeper than N.
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
    """The raw value of the member `key` of an object that `parse` let in; of equal keys the last counts."""
    return bytes(_RAW_MEMBERS.decode(raw)[key])


def document(values: Mapping[str, Any], raw: bytes, limits: Limits, *, is_indexed: bool = True) -> Document:
    """Build the document of the JSON object `raw`, of which `values` is the parsed form.

    The number of index terms is not limited where the document `is_indexed` by none.

    Raises:
        ConfigsTooLarge: more top-level keys, bytes or index terms than `limits` allow.
    """
    check_key_count(len(values), limits)
    spans = _RAW_MEMBERS.decode(raw)
    if len(raw) > limits.max_configs_bytes:
        _check_values(map(bytes, spans.values()), limits)
    members = tuple(_members(values, spans))
    # A member without terms counts as one, too: it takes a line.
    count = sum(member.terms.count(b"\t") + 1 for member in members)
    if is_indexed and count > limits.max_terms:
        raise too_many_terms(limits)
    return Document(members)


#: Members seen lately, by key and raw value. The sessions of a fleet are much alike, and terms are not quick to make.
_remembered: dict[tuple[str, bytes], Member] = {}


def _members(values: Mapping[str, Any], spans: Mapping[str, msgspec.Raw]) -> Iterator[Member]:
    # Of equal keys the last one's value counts, at the first one's place, as in `values`.
    for key, span in spans.items():
        value = bytes(span)
        yield _remembered.get((key, value)) or _member(key, value, values[key])


def _member(key: str, raw: bytes, value: object) -> Member:
    # Copied, because what orjson returns keeps the 4 KiB in which it was written for as long as it lives.
    member = Member(b"%b" % orjson.dumps(key), _stripped(raw), packed_terms(key, value).encode())
    if len(key) + len(raw) <= REMEMBERED_SIZE:
        if len(_remembered) >= REMEMBERED_MEMBERS:
            _remembered.clear()
        _remembered[key, raw] = member
    return member


def _stripped(value: bytes) -> bytes:
    """A raw value without line breaks and tabs, which are white space between tokens there."""
    return value.translate(None, b"\n\r\t")


def _lines(pairs: Iterator[tuple[bytes, bytes]]) -> bytes:
    body = b",\n".join([key + b":" + value for key, value in pairs])
    return b"{\n" + body + b"\n}" if body else EMPTY


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
    """Refuse more top-level keys than allowed.

    Raises:
        ConfigsTooLarge: there are more.
    """
    if count > limits.max_keys:
        raise too_many_keys(limits)


def check_size(configs: bytes, limits: Limits) -> None:
    """Refuse configs whose stored form is larger than allowed.

    Raises:
        ConfigsTooLarge: they are.
    """
    if len(configs) > limits.max_configs_bytes:
        raise too_large(limits)


def _check_values(values: Iterable[bytes], limits: Limits) -> None:
    """Refuse what cannot fit before its terms are made, which takes much longer; the write itself measures exactly.

    Nulls do not count: a PATCH deletes their keys.

    Raises:
        ConfigsTooLarge: the raw values alone are larger than configs may be.
    """
    check_size(b"".join(_stripped(value) for value in values if value != NULL), limits)


def is_stored_form(configs: bytes) -> bool:
    """Whether `configs` has the outline of a stored document; false where a hand wrote it in another form."""
    return (configs.startswith(b'{\n"') and configs.endswith(b"\n}")) or configs in (EMPTY, NULL)
