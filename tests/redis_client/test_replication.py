"""The connection for replicated writes, on a connection that fails with an unexpected exception."""

import asyncio
from typing import Any, cast

import pytest

from service.redis_client.multiplexer import MultiplexedConnection, pack
from service.redis_client.replication import ReplicatedConnection


class Faulty:
    """A connection that fails once, then replies OK to writes and 1 to WAIT."""

    def __init__(self) -> None:
        self.failed = asyncio.Event()

    async def send(self, packed: bytes, commands: int = 1, seconds: float | None = None) -> list[Any]:  # noqa: ARG002 - as `MultiplexedConnection`
        await asyncio.sleep(0)
        if not self.failed.is_set():
            self.failed.set()
            raise UnicodeError
        return [b"OK"] * (commands - 1) + [1]


async def test_an_unexpected_exception_is_raised_to_its_callers_and_blocks_no_later_write() -> None:
    connection = ReplicatedConnection(cast("MultiplexedConnection", Faulty()), 1, timeout=5.0)
    command = pack(("SET", "a", "b"))
    first = [asyncio.create_task(connection.send(command)) for _ in range(2)]
    await asyncio.sleep(0)
    later = [asyncio.create_task(connection.send(command)) for _ in range(2)]
    for write in first:
        with pytest.raises(UnicodeError):
            await write
    assert await asyncio.gather(*later, connection.send(command)) == [[b"OK"]] * 3
