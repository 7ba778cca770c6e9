"""Cursors of lists: where the next page starts, as URL-safe base64 (RFC 4648, section 5, unpadded)."""

import base64
import binascii
from collections.abc import Sequence

from service.errors import BadRequest

#: No session has a higher serial, so a cursor with one is invalid.
SERIAL_MAX = 2**53


def encode_session_cursor(after: Sequence[int | None]) -> str:
    """A cursor of the serials to continue after, one per partition."""
    return _encode("s" + ".".join("" if serial is None else str(serial) for serial in after))


def decode_session_cursor(cursor: str, partitions: int) -> tuple[int | None, ...]:
    """The serials in a cursor of `encode_session_cursor`.

    Raises:
        BadRequest: it is not such a cursor, or comes from a store with another number of partitions.
    """
    text = _decode(cursor, "s")
    parts = text.split(".")
    if len(parts) != partitions or not all(part == "" or (part.isdigit() and len(part) <= 16) for part in parts):
        raise _invalid()
    after = tuple(int(part) if part else None for part in parts)
    if any(serial is not None and serial > SERIAL_MAX for serial in after):
        raise _invalid()
    return after


def encode_user_cursor(created_at: int) -> str:
    """A cursor to the users after `created_at` (microseconds)."""
    return _encode(f"u{created_at}")


def decode_user_cursor(cursor: str) -> int:
    """The created_at (microseconds) in a cursor of `encode_user_cursor`.

    Raises:
        BadRequest: it is not such a cursor.
    """
    text = _decode(cursor, "u")
    if not text.isdigit() or len(text) > 16:
        raise _invalid()
    return int(text)


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str, kind: str) -> str:
    """The text in a cursor, without its first letter, which must be `kind`."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise _invalid() from None
    if not text.startswith(kind):
        raise _invalid()
    return text[1:]


def _invalid() -> BadRequest:
    return BadRequest("invalid cursor")
