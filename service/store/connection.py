"""The connection to Redis: commands out, replies in, and driver errors turned into the service's own."""

from collections.abc import Sequence
from typing import Any, Self

from redis import exceptions as redis_errors
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.errors import StoreUnavailable, WriteUncertain

#: A command as Redis takes it: its name, then its arguments.
Command = Sequence[str | bytes | int]

#: Refusals in which Redis did nothing, by the first word of its answer.
_REFUSALS = ("LOADING", "OOM", "READONLY", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "MISCONF", "TRYAGAIN")


class Link:
    """One worker's way to Redis. Replies are as Redis sends them: bytes, int, list or None."""

    def __init__(self, client: Redis) -> None:
        client.response_callbacks.clear()
        self._client = client

    @classmethod
    def open(cls, url: str, *, timeout: float) -> Self:
        """Open the Redis at `url`; a command takes at most `timeout` seconds.

        redis-py's own retries are off: a script that was sent twice would write twice.
        """
        return cls(
            Redis.from_url(
                url,
                protocol=2,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 0),
            )
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def call(self, *command: str | bytes | int, writes: bool = False) -> Any:  # noqa: ANN401 - Redis replies differ
        """Run one command.

        Raises:
            StoreUnavailable: Redis is away, too slow, or refuses to work.
            WriteUncertain: the same, for a command that `writes` and may have done so.
            redis.ResponseError: Redis answered with an error that is this service's fault (NOSCRIPT included).
        """
        try:
            return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py leaves it so
        except redis_errors.RedisError as error:
            raise _translated(error, writes) from error
        except (OSError, TimeoutError) as error:
            raise _unavailable(writes) from error

    async def batch(self, commands: Sequence[Command], *, writes: bool = False) -> list[Any]:
        """Run `commands` in one round trip, in order but not as one step; replies in the same order.

        An error that Redis answers to one command stands in its place in the list. Raises as `call` does otherwise.
        """
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        try:
            return await pipeline.execute(raise_on_error=False)
        except redis_errors.RedisError as error:
            raise _translated(error, writes) from error
        except (OSError, TimeoutError) as error:
            raise _unavailable(writes) from error


def _unavailable(writes: bool) -> StoreUnavailable:
    return WriteUncertain() if writes else StoreUnavailable()


def _translated(error: redis_errors.RedisError, writes: bool) -> Exception:
    if isinstance(error, redis_errors.ResponseError | redis_errors.BusyLoadingError | redis_errors.ReadOnlyError):
        refused = isinstance(error, redis_errors.BusyLoadingError | redis_errors.ReadOnlyError | redis_errors.OutOfMemoryError)
        return StoreUnavailable() if refused or str(error).startswith(_REFUSALS) else error
    # A connection that could not be made carried nothing.
    if isinstance(error, redis_errors.ConnectionError) and "connecting to" in str(error):
        return StoreUnavailable()
    return _unavailable(writes)
