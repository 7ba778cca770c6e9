"""The counted memory returns to 0 whatever clients do, and the slowest clients are cut off first."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import cast

import pytest
import uvloop
from aiohttp import web

from service.http.server.client_memory import BufferingConnection, Memory, UnansweredBytes
from service.http.server.connections import Server
from service.http.server.framing import complete_prefix
from service.http.server.protocol import Protocol
from service.http.server.response import Response
from service.settings import Settings

#: What a client sends in random order; every second one is an incomplete request.
PARTS = [
    b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: x\r\nX: ",
    b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000,
    b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n" + b"\r\n\r\n" * 1000,
    b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\r\n",
    b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 40,
    b"GET /a HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 100 + b"\r\n",
    b"rubbish\r\n\r\n",
    b"GET /" + b"y" * 200_000,
]


async def dispatch(request: web.BaseRequest) -> Response:
    """Reads the body of every other POST; the response to /large is large."""
    if request.method == "POST" and random.random() < 0.5:
        with suppress(web.RequestPayloadError, ConnectionError):
            await request.content.read()
    return Response(b"1" * 300_000 if request.path == "/large" else b"{}")


@asynccontextmanager
async def serving(**settings: float) -> AsyncIterator[tuple[Server, int]]:
    """A server with this dispatch, and its port."""
    server = Server(dispatch, replace(Settings(), **settings), Protocol)  # type: ignore[arg-type]  # numbers, all of them
    listening = await asyncio.get_running_loop().create_server(cast("type[asyncio.Protocol]", server), "127.0.0.1", 0)
    yield server, listening.sockets[0].getsockname()[1]
    listening.close()
    await server.shutdown(1)
    await listening.wait_closed()


async def client(port: int, source: random.Random) -> None:
    """Connect, send a few parts, each split in two, read a part of the responses, and disconnect."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(ConnectionError, TimeoutError):
        for _ in range(source.randint(1, 4)):
            part = source.choice(PARTS)
            cut = source.randrange(len(part))
            for piece in (part[:cut], part[cut:]):
                writer.write(piece)
                async with asyncio.timeout(0.2):
                    await writer.drain()
                await asyncio.sleep(0)
        async with asyncio.timeout(0.01):
            await reader.read(source.choice([1, 100, 1_000_000]))
    if source.random() < 0.5:
        writer.transport.abort()
    else:
        writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


class Recording(Memory):
    """Records the highest sum."""

    highest = 0

    def _set(self, connection: BufferingConnection, size: int) -> None:
        super()._set(connection, size)
        self.highest = max(self.highest, self.total)


async def run_clients(seed: int) -> None:
    source = random.Random(seed)
    async with serving(max_buffered_bytes=2 * 1024 * 1024, client_timeout=0.3) as (server, port):
        server.memory = recording = Recording(2 * 1024 * 1024)
        for _ in range(10):
            await asyncio.gather(*(client(port, source) for _ in range(20)))
        while server.open_connections:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
        assert server.memory.total == 0
        assert server.memory.buffered == {}
        assert recording.highest > 100_000


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_no_memory_stays_counted_however_connections_end(seed: int, loop: object) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]  # either of them
        runner.run(asyncio.wait_for(run_clients(seed), 60))


class Client(BufferingConnection):
    """A connection with a given buffer size and throughput."""

    def __init__(self, size: int, throughput: float | None) -> None:
        self.size, self._throughput = size, throughput

    def buffered_bytes(self) -> int:
        return self.size

    def throughput(self) -> float | None:
        return self._throughput

    def cut_off(self) -> None:
        self.size = 0


def test_the_slowest_clients_are_cut_off_first_and_of_equals_the_oldest() -> None:
    memory = Memory(100)
    quick, steady, oldest, newest, working = clients = [
        Client(20, 1e9), Client(20, 100.0), Client(20, 0.0), Client(20, 0.0), Client(20, None),
    ]  # fmt: skip
    assert [memory.update(client) for client in clients] == [True] * 5
    assert memory.has_room(15)
    assert [client.size for client in clients] == [20, 20, 0, 20, 20]
    assert memory.has_room(50)
    assert [client.size for client in clients] == [20, 0, 0, 0, 20]
    # A client that reads quickly and one whose request is being processed are not cut off.
    assert not memory.has_room(70)
    assert (memory.total, [quick.size, working.size]) == (40, [20, 20])
    for client in clients:
        memory.forget(client)
    assert (memory.total, memory.buffered) == (0, {})
    assert (oldest.size, newest.size, steady.size) == (0, 0, 0)


def test_bytes_are_released_in_the_order_of_their_requests() -> None:
    unanswered = UnansweredBytes()
    for request, size in ((1, 10), (1, 5), (2, 7), (4, 100), (4, -20)):
        unanswered.add(request, size)
    totals = []
    for request in range(6):
        unanswered.release(request)
        totals.append(unanswered.total)
    assert totals == [102, 87, 80, 80, 0, 0]


@pytest.mark.parametrize(("before", "data", "end"), [
    (b"", b"", 0), (b"", b"abc", 0), (b"", b"a\r\n\r\n", 5), (b"", b"a\r\n\r\nb\r\n", 5), (b"\r\n\r", b"\n", 1),
    (b"a\r\n", b"\r\nGET", 2), (b"\r", b"\n\r\nGET", 3), (b"a\r\n", b"GET\r\n", 0), (b"\r\n\r", b"\nx\r\n\r\n", 6),
    (b"a\r\n", b"\r", 0),
])  # fmt: skip
def test_the_complete_prefix_ends_at_the_last_empty_line_even_one_split_over_two_reads(
    before: bytes, data: bytes, end: int
) -> None:
    assert complete_prefix(before, data) == end
