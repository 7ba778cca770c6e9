"""Servers that speak TLS, with a trusted and with an untrusted certificate: standalone, cluster node, Sentinel and master."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast
from urllib.parse import quote

import hiredis
import pytest

from service.errors import StoreUnavailable
from service.redis_client.client import RedisClient
from tests.redis_client.test_multiplexer import recorded_sockets

CERTIFICATE = Path(__file__).with_name("tls.pem")


class Server:
    """A server that is the only node of a cluster, its own Sentinel, and the master; it echoes the last word of a command."""

    def __init__(self) -> None:
        self.passwords: set[bytes] = set()
        self._transports: list[asyncio.WriteTransport] = []

    async def start(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    def pause_reading(self) -> None:
        """Read nothing more from any client, not even its TLS shutdown."""
        for transport in self._transports:
            cast("asyncio.Transport", transport).pause_reading()

    async def stop(self) -> None:
        self._server.close()
        for transport in self._transports:
            transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._transports.append(writer.transport)
        parser = hiredis.Reader()
        while data := await reader.read(65536):
            parser.feed(data)
            while (words := parser.gets()) is not False:
                writer.write(self.answer(words))
        writer.transport.abort()  # does not wait for the TLS shutdown of the client

    def answer(self, words: list[bytes]) -> bytes:
        host = b"$9\r\nlocalhost\r\n"
        match words[0]:
            case b"CLUSTER":
                return b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n%b:%d\r\n" % (host, self.port)
            case b"SENTINEL":
                port = str(self.port).encode()
                return b"*2\r\n%b$%d\r\n%b\r\n" % (host, len(port), port)
            case b"ROLE":
                return b"*1\r\n$6\r\nmaster\r\n"
            case b"AUTH":
                self.passwords.add(words[-1])
                return b"+OK\r\n"
            case b"CLIENT" | b"HELLO":
                return b"+OK\r\n"
        return b"$%d\r\n%b\r\n" % (len(words[-1]), words[-1])


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    yield server
    await server.stop()


URLS = ("rediss://:pass@127.0.0.1:{port}", "rediss+cluster://:pass@127.0.0.1:{port}",
        "rediss+sentinel://:pass@127.0.0.1:{port}/store?sentinel_password=other")  # fmt: skip


def trusting(url: str) -> str:
    """`url` for a client that trusts the certificate of the server."""
    return f"{url}{'&' if '?' in url else '?'}ssl_ca_certs={quote(str(CERTIFICATE))}"


@pytest.mark.parametrize("url", URLS)
async def test_a_server_with_a_trusted_certificate_is_used(server: Server, url: str) -> None:
    redis = RedisClient.open(trusting(url.format(port=server.port)), timeout=30)
    replies = await asyncio.gather(*(redis.call("ECHO", number) for number in range(100)))
    assert replies == [b"%d" % number for number in range(100)]
    large = "x" * 1_000_000
    assert await redis.batch([("ECHO", large), ("ECHO", "last")]) == [large.encode(), b"last"]
    assert server.passwords == ({b"pass", b"other"} if "sentinel" in url else {b"pass"})
    await redis.close()


@pytest.mark.parametrize("url", URLS)
async def test_closing_does_not_wait_for_the_tls_shutdown_and_leaves_no_socket_open(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets = recorded_sockets(monkeypatch, "open_connection")
    redis = RedisClient.open(trusting(url.format(port=server.port)), timeout=30)
    await redis.call("ECHO", "a")
    await redis.close()
    assert {socket.fileno() for socket in sockets} == {-1}


async def test_closing_after_a_refusal_leaves_no_socket_open(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    sockets = recorded_sockets(monkeypatch, "open_connection")
    refused = asyncio.Event()

    def refuse_and_stop_reading(_: list[bytes]) -> bytes:
        server.pause_reading()
        refused.set()
        return b"-WRONGPASS invalid username-password pair\r\n"

    monkeypatch.setattr(server, "answer", refuse_and_stop_reading)
    redis = RedisClient.open(trusting(URLS[0].format(port=server.port)), timeout=30)
    call = asyncio.create_task(redis.call("ECHO", "a"))
    await refused.wait()
    await asyncio.sleep(0.1)  # the client closes the connection
    await redis.close()
    assert {socket.fileno() for socket in sockets} == {-1}
    with pytest.raises(StoreUnavailable):
        await call


@pytest.mark.parametrize("url", URLS)
async def test_a_server_with_an_untrusted_certificate_gets_no_password(server: Server, url: str) -> None:
    redis = RedisClient.open(url.format(port=server.port), timeout=0.5)
    with pytest.raises(StoreUnavailable):
        await redis.call("ECHO", "a")
    assert server.passwords == set()
    await redis.close()
