"""One command that an operator typed, and the reply to it as Redis sent it."""

from collections.abc import Sequence
from typing import TypeAlias

from service.errors import StoreUnavailable, WriteUncertain
from service.redis_client.client import RedisClient
from service.redis_client.errors import TimedOut
from service.store import keys

#: A RESP2 reply. An error is an exception whose text is Redis's, also as an element of an array.
Reply: TypeAlias = bytes | int | Exception | list["Reply"] | None


async def run(redis: RedisClient, command: Sequence[bytes]) -> Reply:
    """Run `command` and return the reply; an error reply is returned, not raised.

    Nothing is known about the command, so it is treated as a write: it is sent again only when Redis has refused it or has not
    seen it. In a cluster it is sent to the node of the store's own record, and from there to the node that MOVED or ASK names.

    Raises:
        StoreUnavailable: Redis cannot be reached; nothing was executed.
        WriteUncertain: there is no reply; the command may have been executed.
    """
    reply: Reply = await redis.call_raw(command, near=keys.STORE)
    return reply


def describe(error: StoreUnavailable, timeout: float) -> str:
    """One sentence for an operator on an error of `run`, for a link whose commands take at most `timeout` seconds."""
    if not isinstance(error, WriteUncertain):
        return str(error)
    if isinstance(error.__cause__, TimedOut):
        return f"Redis sent no complete reply in {timeout:g} s (--command-timeout); the command may have been executed"
    return "the connection to Redis was lost before the reply; the command may have been executed"
