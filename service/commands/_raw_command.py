"""Run one command that an operator typed, and return the raw reply."""

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

    The command may be a write, so it is retried only if Redis refused it or never received it. In a cluster it goes to the node
    that has the store's record, and from there to the node that MOVED or ASK names.

    Raises:
        StoreUnavailable: Redis cannot be reached; the command was not executed.
        WriteUncertain: no reply came; the command may have been executed.
    """
    reply: Reply = await redis.call_raw(command, near=keys.STORE)
    return reply


def describe(error: StoreUnavailable, timeout: float) -> str:
    """One sentence for the operator about an error of `run`, on a client with a command timeout of `timeout` seconds."""
    if not isinstance(error, WriteUncertain):
        return str(error)
    if isinstance(error.__cause__, TimedOut):
        return f"Redis sent no complete reply within {timeout:g} s (--command-timeout); the command may have been executed"
    return "the connection to Redis was lost before the reply; the command may have been executed"
