"""The JSON of an answer, read without converting values."""

import msgspec

from service.configs.document import element_spans, member_span
from service.errors import ServerUnreachable


def member(raw: bytes, key: str) -> bytes:
    """The JSON of a member of an object.

    Raises:
        ServerUnreachable: there is none: the answer is not one of this API.
    """
    try:
        return member_span(raw, key)
    except (msgspec.DecodeError, KeyError):
        raise _other_api() from None


def text(raw: bytes, key: str) -> str:
    """As `member`, for one that is a string."""
    try:
        return msgspec.json.decode(member(raw, key), type=str)
    except msgspec.DecodeError:
        raise _other_api() from None


def elements(raw: bytes) -> list[bytes]:
    """The JSON of each element of an array; raises as `member`."""
    try:
        return element_spans(raw)
    except msgspec.DecodeError:
        raise _other_api() from None


def _other_api() -> ServerUnreachable:
    return ServerUnreachable("the answer is not one of this API; is the URL right?")
