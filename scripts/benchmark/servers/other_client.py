"""The service whose GETs use another Redis client: `python -m scripts.benchmark.servers.other_client CLIENT serve [OPTION …]`.

Its workers send HMGET, the only command of a GET, through valkey-glide or coredis with that client's defaults. Everything else
(scripts, bootstrap, sweeper) still goes through ours: it is the same handler and the same store.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Self

from service import __main__ as program
from service.http import app
from service.redis_client.client import RedisClient
from service.redis_client.topology import Target

HMGet = Callable[[Any, list[Any]], Awaitable[Any]]
_UNIX = "unix://"


class OtherClient(RedisClient):
    """Our client, except that HMGET goes through `connect`'s."""

    _hmget: asyncio.Future[HMGet]
    _connected: asyncio.Task[None]

    @classmethod
    def open(cls, url: str, *, timeout: float, min_replicas: int = 0, partitions: int = 0) -> Self:
        """As the service's; the other client starts to connect."""
        client = super().open(url, timeout=timeout, min_replicas=min_replicas, partitions=partitions)
        client._hmget = asyncio.get_running_loop().create_future()
        client._connected = asyncio.create_task(client._stay_connected(url))
        return client

    def connect(self, url: str) -> AbstractAsyncContextManager[HMGet]:
        """Connect the other client to the Redis at `url`, a Unix socket; gives its method for HMGET."""
        raise NotImplementedError

    async def _stay_connected(self, url: str) -> None:
        # In one task from beginning to end: coredis's task group has to be left where it was entered.
        try:
            async with self.connect(url) as hmget:
                self._hmget.set_result(hmget)
                await asyncio.Event().wait()
        except Exception as error:
            if self._hmget.done():
                raise
            self._hmget.set_exception(error)

    async def call(self, *command: str | bytes | int, writes: bool = False, near: Target | None = None) -> Any:  # noqa: ANN401 - Redis replies differ
        """As the service's, but HMGET goes through the other client."""
        if command[0] != "HMGET":
            return await super().call(*command, writes=writes, near=near)
        hmget = await self._hmget
        return await hmget(command[1], list(command[2:]))

    async def close(self) -> None:
        """Close both clients."""
        self._connected.cancel()
        await asyncio.wait([self._connected])
        await super().close()


# The packages of the extra `bench` are imported by the worker: no thread of theirs may exist before the fork.


class ValkeyGlide(OtherClient):
    """HMGET through valkey-glide: a core in Rust with threads of its own."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncIterator[HMGet]:
        """Connect a GlideClient."""
        from glide import GlideClient, GlideClientConfiguration, NodeAddress

        address = NodeAddress(unix_socket_path=url.removeprefix(_UNIX))
        client = await GlideClient.create(GlideClientConfiguration([address]))
        try:
            yield client.hmget
        finally:
            await client.close()


class Coredis(OtherClient):
    """HMGET through coredis: Python on anyio, one connection for concurrent commands."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncIterator[HMGet]:
        """Connect a coredis.Redis."""
        from coredis import Redis

        async with Redis.from_url(url) as client:
            yield client.hmget


CLIENTS: dict[str, type[OtherClient]] = {"valkey-glide": ValkeyGlide, "coredis": Coredis}

if __name__ == "__main__":
    app.RedisClient = CLIENTS[sys.argv.pop(1)]  # type: ignore[attr-defined]  # workers are forked from this process
    program.main()
