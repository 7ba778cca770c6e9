"""A server that replies to each Redis command as a test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

Response = Callable[[bytes], bytes | None]


@asynccontextmanager
async def fake_redis(directory: Path, answer: Response) -> AsyncIterator[str]:
    """A server that replies to each command with `answer(name of the command)`; None closes the connection. Yields its URL."""
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            # The greeting of redis-py.
            reply = b"+OK\r\n" if words[0] in (b"CLIENT", b"HELLO", b"SELECT") else answer(words[0])
            if reply is None:
                break
            writer.write(reply)
        writer.close()

    path = directory / "s"
    server = await asyncio.start_unix_server(serve, path)
    try:
        yield f"unix://{path}"
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        await server.wait_closed()
