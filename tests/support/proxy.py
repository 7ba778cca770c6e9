"""A TCP proxy before a Redis, that cuts, delays, drops and garbles as a test wants it."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import hiredis


class Proxy:
    """Hands on what comes; what it does to it can be changed at any time, for all of its connections."""

    def __init__(self, upstream: str) -> None:
        """`upstream` is the path of Redis's socket, or its host:port."""
        self.port = 0
        #: Where new connections lead.
        self.upstream = upstream
        #: Seconds by which every piece of a reply is delayed.
        self.delay = 0.0
        #: Whether everything is swallowed, in both directions.
        self.is_hole = False
        #: The reply to every command, which then does not reach Redis; empty to forward commands.
        self.answer = b""
        #: Bytes of replies that still pass until their connection ends; None for all.
        self.passing: int | None = None
        #: Connections so far.
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        """Take connections, on the same port as before."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Reset all connections, and take no more."""
        assert self._server is not None
        self._server.close()
        await self.reset()

    async def reset(self) -> None:
        """Reset all connections there are."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        ways: list[asyncio.Task[None]] = []
        ends = [writer]
        try:
            far_reader, far_writer = await self._connect()
            ends.append(far_writer)
            ways.append(asyncio.create_task(self._commands(reader, writer, far_writer)))
            ways.append(asyncio.create_task(self._replies(far_reader, writer)))
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # Not an orderly end: the other side gets a reset.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in ends:
                end.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.upstream.startswith("/"):
            return await asyncio.open_unix_connection(self.upstream)
        host, port = self.upstream.split(":")
        return await asyncio.open_connection(host, int(port))

    async def _commands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        while data := await reader.read(65536):
            parser.feed(data)
            commands = 0
            while parser.gets() is not False:
                commands += 1
            if self.answer:
                writer.write(self.answer * commands)
            elif not self.is_hole:
                far.write(data)

    async def _replies(self, far: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await far.read(65536):
            await asyncio.sleep(self.delay)
            if self.is_hole:
                continue
            if self.passing is None:
                writer.write(data)
                continue
            writer.write(data[: self.passing])
            self.passing -= min(len(data), self.passing)
            if self.passing == 0:
                self.passing = None
                return


@asynccontextmanager
async def proxy(upstream: str) -> AsyncIterator[Proxy]:
    """A proxy that listens as long as the block."""
    made = Proxy(upstream)
    await made.listen()
    try:
        yield made
    finally:
        await made.refuse()
