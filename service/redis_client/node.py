"""One Redis server: its connection for reads and its connection for writes.

They are the same connection, unless writes wait for replicas: `WAIT` would block the reads behind it (see `replication`).
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from redis.asyncio.connection import AbstractConnection

from service.redis_client.multiplexer import MAX_SILENT_TIMEOUTS, MultiplexedConnection
from service.redis_client.replication import ReplicatedConnection
from service.redis_client.url import Endpoint


class Sender(Protocol):
    """What sends packed commands and returns their replies: `MultiplexedConnection`, `ReplicatedConnection`."""

    async def send(self, packed: bytes, commands: int = 1, seconds: float | None = None) -> list[Any]:
        """Send `commands` packed commands and return as many replies.

        `seconds` is the time until the deadline, the timeout of the client if None.

        Raises:
            RequestFailed: there are no replies.
        """


class Node:
    """One Redis server. `reads` and `writes` are its connections, opened by their first call."""

    def __init__(
        self,
        endpoint: Endpoint | None,
        new_connection: Callable[[], AbstractConnection],
        *,
        timeout: float,
        min_replicas: int,
        on_demotion: "Callable[[Node], object] | None" = None,
    ) -> None:
        """`endpoint` is None on a Unix socket; `new_connection` returns a connection to the server that is not open yet.

        `on_demotion` is called with this node when it replies that it is no longer the master.
        """
        self.endpoint = endpoint
        multiplexed = partial(
            MultiplexedConnection,
            new_connection,
            timeout=timeout,
            on_demotion=None if on_demotion is None else partial(on_demotion, self),
        )
        self.reads = multiplexed()
        self.writes: MultiplexedConnection | ReplicatedConnection = self.reads
        if min_replicas:
            self.writes = ReplicatedConnection(multiplexed(), min_replicas, timeout=timeout)

    async def close(self) -> None:
        """Close the connections for good; calls in flight fail. Returns when they are closed."""
        await self.reads.close()
        if self.writes is not self.reads:
            await self.writes.close()


class DrainingNodes:
    """Nodes that get no new commands. Each is closed once no caller can be waiting for its replies any more."""

    def __init__(self, *, timeout: float) -> None:
        self._timeout = timeout
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    def add(self, node: Node) -> None:
        """Close `node` after its calls in flight have had their time."""
        task = asyncio.get_running_loop().create_task(self._close_later(node))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close_later(self, node: Node) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), self._timeout * MAX_SILENT_TIMEOUTS)
        await node.close()

    async def close(self) -> None:
        """Close all of them now; calls in flight fail. Returns when they are closed."""
        self._closing.set()
        await asyncio.gather(*self._tasks)
