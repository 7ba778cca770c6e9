"""A session's time to live, as a client states it."""

from dataclasses import dataclass
from typing import Final

from service.errors import BadRequest

#: Longest TTL, in seconds: ten years of 365 days.
TTL_MAX = 315_360_000

#: The last microsecond of the year 9999, since 1970: the latest time that RFC 3339 can express.
LAST_MOMENT = 253_402_300_799_999_999


@dataclass(frozen=True, slots=True)
class Ttl:
    """What a write says of a session's time to live: `seconds` from the write on, 0 for no expiry, or nothing."""

    seconds: int = 0
    is_specified: bool = True

    def encode(self) -> int | str:
        """As scripts take it: the seconds, or "" if the write says nothing."""
        return self.seconds if self.is_specified else ""


#: The session never expires.
NO_EXPIRY: Final = Ttl()
#: A new session gets the project's default; an existing one keeps its expiry.
UNSPECIFIED: Final = Ttl(is_specified=False)


def parse_ttl(value: object, name: str) -> Ttl:
    """The TTL in the member `name` of a JSON object: seconds, or null for no expiry.

    Raises:
        BadRequest: it is neither null nor a whole number from 1 to `TTL_MAX`.
    """
    if value is None:
        return NO_EXPIRY
    # By the exact type, because true is an int in Python.
    if type(value) is not int or not 1 <= value <= TTL_MAX:
        raise BadRequest(f"{name} must be null or a whole number of seconds from 1 to {TTL_MAX}")
    return Ttl(value)
