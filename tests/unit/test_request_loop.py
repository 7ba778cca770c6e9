"""A connection answers its requests in turn, in one task, and ends in order whatever happens to it."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import cast

import pytest
from aiohttp import web

from service.http.server.connections import RequestCallback, Server
from service.http.server.protocol import Protocol
from service.http.server.response import Response
from service.settings import Settings
from tests.support.server import eventually

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]


@asynccontextmanager
async def serving(dispatch: RequestCallback, client_timeout: float = 60.0) -> AsyncIterator[tuple[Server, Connect]]:
    """A server, and a function that connects to it."""
    server = Server(dispatch, replace(Settings(), client_timeout=client_timeout), Protocol)
    listening = await asyncio.get_running_loop().create_server(cast("type[asyncio.Protocol]", server), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return reader, writer

    yield server, connect
    listening.close()
    await server.shutdown(1)
    for writer in writers:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    await listening.wait_closed()


async def number(request: web.BaseRequest) -> Response:
    """The response has the number in the path."""
    await asyncio.sleep(0)
    return Response(request.path.encode())


async def test_pipelined_requests_are_answered_in_order_however_many_they_are() -> None:
    async with serving(number) as (_, connect):
        reader, writer = await connect()
        writer.write(b"".join(GET % index for index in range(200)))
        for index in range(200):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(len(f"/{index}")) == b"/%d" % index


async def test_all_requests_of_a_connection_run_in_one_task_and_a_new_connection_has_another() -> None:
    tasks: list[object] = []

    async def dispatch(request: web.BaseRequest) -> Response:
        tasks.append(asyncio.current_task())
        return await number(request)

    async with serving(dispatch) as (_, connect):
        for _ in range(2):
            reader, writer = await connect()
            for index in range(3):
                writer.write(GET % index)
                await reader.readuntil(b"/%d" % index)
    assert [tasks.index(task) for task in tasks] == [0, 0, 0, 3, 3, 3]


async def test_an_unexpected_error_is_logged_and_ends_its_connection_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    finish = Protocol.finish_response

    async def failing(self: Protocol, request: web.BaseRequest, *rest: object) -> object:
        if request.path == "/1":
            raise RuntimeError
        return await finish(self, request, *rest)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(Protocol, "finish_response", failing)
    async with serving(number) as (server, connect):
        (reader, writer), (other, other_writer) = await connect(), await connect()
        writer.write(GET % 1)
        assert await reader.read() == b""
        other_writer.write(GET % 2)
        await other.readuntil(b"/2")
        assert server.open_connections == 1
    assert [record.getMessage() for record in caplog.records] == ["a connection failed"]


async def test_the_rest_of_a_body_that_no_response_needs_is_dropped_and_the_next_request_answered() -> None:
    async with serving(number) as (_, connect):
        reader, writer = await connect()
        writer.write(b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        await reader.readuntil(b"/1")
        writer.write(b"x" * 100_000 + GET % 2)
        await reader.readuntil(b"/2")


@pytest.mark.parametrize("rest", [b"", b"no chunk\r\n"], ids=["none in time", "not valid"])
async def test_a_rest_that_does_not_come_or_is_not_valid_closes_the_connection_without_a_log(
    rest: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(number, client_timeout=0.1 if rest == b"" else 60.0) as (_, connect):
        reader, writer = await connect()
        writer.write(b"POST /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        await reader.readuntil(b"/1")
        writer.write(rest)
        assert b"HTTP/1.1 200" not in await reader.read()
    assert caplog.records == []


async def test_a_client_that_resets_its_connection_before_the_rest_of_its_body_causes_no_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    throttled, proceed = asyncio.Event(), asyncio.Event()

    async def dispatch(request: web.BaseRequest) -> Response:
        response = await number(request)
        response.throttles = True
        return response

    async def throttle() -> None:
        throttled.set()
        await proceed.wait()

    async with serving(dispatch) as (server, connect):
        monkeypatch.setattr(server, "throttle", throttle)
        others = asyncio.all_tasks()
        _, writer = await connect()
        writer.write(b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        await throttled.wait()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await eventually(lambda: server.open_connections == 0, "the end of the connection")
        proceed.set()
        await eventually(lambda: asyncio.all_tasks() <= others, "the end of its task")
    assert caplog.records == []


async def test_a_shutdown_ends_idle_connections_and_the_request_of_a_busy_one() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def dispatch(request: web.BaseRequest) -> Response:
        if request.path == "/1":
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
        return await number(request)

    async with serving(dispatch) as (server, connect):
        (idle, _), (busy, writer) = await connect(), await connect()
        writer.write(GET % 1)
        await started.wait()
        await server.shutdown(0.05)
        assert (await idle.read(), await busy.read()) == (b"", b"")
        await ended.wait()
