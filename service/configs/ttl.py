"""How long a session may live, as a client names it."""

from service.errors import BadRequest

#: Longest lifetime, in seconds: ten years of 365 days.
TTL_MAX = 315_360_000

#: The last microsecond of the year 9999, since 1970: RFC 3339 can write none that is later.
LAST_MOMENT = 253_402_300_799_999_999


def ttl_of(value: object, name: str) -> int:
    """The lifetime in seconds that the member `name` of a JSON object asks for; 0, which is none, where it is null.

    Raises:
        BadRequest: it is neither null nor a whole number from 1 to `TTL_MAX`.
    """
    if value is None:
        return 0
    # By the type: true is an int to Python.
    if type(value) is not int or not 1 <= value <= TTL_MAX:
        raise BadRequest(f"{name} must be null or a whole number of seconds from 1 to {TTL_MAX}")
    return value
