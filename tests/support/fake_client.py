"""A `RedisClient` on fakeredis, which has no connections."""

from collections.abc import Sequence
from typing import Any

import fakeredis
from redis.exceptions import RedisError

from service.redis_client.client import RedisClient
from service.redis_client.multiplexer import Command
from service.redis_client.topology import Target


class FakeClient(RedisClient):
    """Runs each command on fakeredis, one at a time."""

    def __init__(self, server: fakeredis.FakeServer) -> None:
        self._client = fakeredis.FakeAsyncRedis(server=server, protocol=2)
        self._client.response_callbacks.clear()

    async def close(self) -> None:
        await self._client.aclose()

    async def call(
        self,
        *command: str | bytes | int,
        writes: bool = False,  # noqa: ARG002 - as `RedisClient.call`
        near: Target | None = None,  # noqa: ARG002 - as `RedisClient.call`
    ) -> Any:  # noqa: ANN401 - as `RedisClient.call`
        return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py leaves it so

    async def masters(self) -> list[int]:
        return [0]

    async def call_on_masters(self, *command: str | bytes | int, writes: bool = False) -> list[Any]:
        return [await self.call(*command, writes=writes)]

    async def batch(self, commands: Sequence[Command], *, writes: bool = False, near: Target | None = None) -> list[Any]:
        replies: list[Any] = []
        for command in commands:
            try:
                replies.append(await self.call(*command, writes=writes, near=near))
            except RedisError as error:
                replies.append(error)
        return replies
