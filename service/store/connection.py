"""The connection to Redis: commands out, replies in, and everything that can go wrong turned into the service's own errors."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import hiredis
from redis import exceptions as redis_errors
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.errors import StoreUnavailable, WriteUncertain
from service.store.lane import Broken, Lane, LaneError

#: A command as Redis takes it: its name, then its arguments.
Command = Sequence[str | bytes | int]

# hiredis declares a tuple of one; it packs any number.
_pack = cast("Callable[[Sequence[str | bytes | int]], bytes]", hiredis.pack_command)

# Answers by which Redis refuses to work for now, without having done anything; 6.2 wraps those to a script's own commands.
_REFUSAL = re.compile(
    r"(?:ERR Error running script .*?: -)?"
    r"(?:LOADING|OOM|READONLY|BUSY|MISCONF|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|TRYAGAIN)\b"
)


class Link:
    """One worker's way to Redis. Replies are as Redis sends them: bytes, int, list or None."""

    def __init__(self, pool: ConnectionPool, *, timeout: float) -> None:
        self._pool = pool
        self._timeout = timeout
        self._lane: Lane | None = None

    @classmethod
    def open(cls, url: str, *, timeout: float) -> Self:
        """A way to the Redis at `url`, connected when first used; a command takes at most `timeout` seconds.

        Raises:
            ValueError: `url` is no Redis URL.
        """
        pool = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            # What is sent again is decided below: a script that ran twice would write twice.
            retry=Retry(NoBackoff(), 0),
        )
        return cls(pool, timeout=timeout)

    async def close(self) -> None:
        """Close the connection."""
        if self._lane is not None:
            self._lane.close()

    async def call(self, *command: str | bytes | int, writes: bool = False) -> Any:  # noqa: ANN401 - Redis replies differ
        """Run one command.

        Raises:
            StoreUnavailable: Redis is away, too slow, or refuses to work.
            WriteUncertain: the same, for a command that `writes` and may have done so.
            redis.ResponseError: Redis answered with an error that is this service's fault (NOSCRIPT included).
        """
        (reply,) = await self._send(_pack(command), 1, writes)
        if isinstance(reply, hiredis.ReplyError):
            raise _translated(reply)
        return reply

    async def batch(self, commands: Sequence[Command], *, writes: bool = False) -> list[Any]:
        """Run `commands` in one round trip, in order but not as one step; replies in the same order.

        An error that Redis answers to one command stands, as `call` would raise it, in its place in the list.
        """
        if not commands:
            return []
        packed = b"".join([_pack(tuple(command)) for command in commands])
        replies = await self._send(packed, len(commands), writes)
        return [_translated(reply) if isinstance(reply, hiredis.ReplyError) else reply for reply in replies]

    async def _send(self, packed: bytes, commands: int, writes: bool) -> list[Any]:
        if self._lane is None:
            self._lane = Lane(self._pool, timeout=self._timeout)
        try:
            try:
                return await self._lane.send(packed, commands)
            except Broken as error:
                if writes and error.sent:
                    raise
                # Once more: it changed nothing, and a restarted Redis is there again at once.
                return await self._lane.send(packed, commands)
        except LaneError as error:
            raise WriteUncertain if writes and error.sent else StoreUnavailable from error
        except (redis_errors.RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable from error


def checked(replies: list[Any]) -> list[Any]:
    """The replies of a batch, where none of them is an error; else the first error is raised."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _translated(reply: hiredis.ReplyError) -> Exception:
    text = str(reply)
    if _REFUSAL.match(text):
        return StoreUnavailable()
    return redis_errors.NoScriptError(text) if text.startswith("NOSCRIPT") else redis_errors.ResponseError(text)
