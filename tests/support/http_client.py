"""An asyncio client of the API over raw sockets, which tells what became of every request.

A library would send some requests again on its own, and would not say whether a connection that broke had been used before.
"""

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

PREFIX = "/api/v1"
#: Seconds within which every request is answered, whatever fails. The server promises two to three; the rest is for a slow
#: machine.
MAX_RESPONSE_TIME = 10.0


class Violation(AssertionError):
    """The server broke its contract, or the store is not as the model says. The message has what an engineer needs to know."""


class NotSent(Exception):
    """No connection could be made: the request was not sent."""


class ConnectionLost(Exception):
    """The connection ended without a response. `reused`: it had carried a request before, and no byte of this response came.

    Only then HTTP lets a client send again on its own (RFC 9112, 9.3.1): a server may close an idle connection at any time.
    """

    def __init__(self, *, reused: bool) -> None:
        self.reused = reused
        super().__init__("on a reused connection" if reused else "on a new connection")


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `path` is below the API."""

    method: str
    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def encode(self, authority: str, api_key: str) -> bytes:
        """The bytes on the wire."""
        lines = [f"{self.method} {PREFIX}{self.path} HTTP/1.1", f"Host: {authority}", f"Authorization: Bearer {api_key}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(self.body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + (self.body or b"")

    def __str__(self) -> str:
        body = "" if self.body is None else f" {self.body[:300].decode(errors='replace')}"
        return " ".join([self.method, self.path, *(f"{name}: {value}" for name, value in self.headers.items())]) + body


@dataclass(frozen=True)
class Response:
    """One response, and the seconds from the first byte sent to the last received."""

    status: int
    headers: dict[str, str]
    raw: bytes
    seconds: float = 0.0

    @cached_property
    def body(self) -> Any:  # noqa: ANN401 - JSON is any value
        return json.loads(self.raw)

    @property
    def data(self) -> Any:  # noqa: ANN401 - JSON is any value
        return self.body["data"]

    @property
    def etag(self) -> str:
        """The ETag without its quotes, empty if there is none."""
        return self.headers.get("etag", "").strip('"')

    @property
    def is_unavailable(self) -> bool:
        """Whether this is the 503 of a store that cannot work.

        Raises:
            Violation: it is another error of the server, or a 503 of another form.
        """
        if self.status < 500:
            return False
        try:
            is_valid = self.body["code"] == self.status == 503 and set(self.body) <= {"code", "msg", "reason", "error"}
            is_valid = is_valid and int(self.headers["retry-after"]) >= 1 and self.body["reason"] != ""
        except (ValueError, TypeError, KeyError):
            is_valid = False
        if not is_valid:
            raise Violation(f"answered {self.status} {self.headers} {self.raw[:300].decode(errors='replace')}")
        return True

    @property
    def is_uncertain(self) -> bool:
        """Whether it says that a write may have happened, or may still happen."""
        return self.is_unavailable and self.body["reason"] == "write_uncertain"


class Client:
    """One connection, opened when it is needed and kept alive until the server closes it."""

    def __init__(self, origin: str, api_key: str) -> None:
        address = urlsplit(origin)
        self._host, self._port, self._authority = address.hostname, address.port, address.netloc
        self._api_key = api_key
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def close(self) -> None:
        """Close the connection; the next request opens another, which may lead to another worker."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def send(self, request: Request) -> Response:
        """Send a request and read its response.

        Raises:
            NotSent, ConnectionLost: there is no response.
            Violation: there is none in time, or the server announces to close the connection and does not.
        """
        reused = self._streams is not None
        try:
            async with asyncio.timeout(MAX_RESPONSE_TIME):
                reader, writer = await self._connect()
                started = time.monotonic()
                writer.write(request.encode(self._authority, self._api_key))
                status, headers, raw = await _read(reader)
                if headers.get("connection") == "close":
                    await _wait_closed(reader, request)
        except TimeoutError:
            self.close()
            raise Violation(f"no response within {MAX_RESPONSE_TIME:.0f} s to {request}") from None
        except asyncio.IncompleteReadError as error:
            self.close()
            raise ConnectionLost(reused=reused and not error.partial) from None
        except OSError:
            self.close()
            raise ConnectionLost(reused=reused) from None
        if headers.get("connection") == "close":
            self.close()
        return Response(status, headers, raw, time.monotonic() - started)

    async def abandon(self, request: Request, *, whole: bool, reset: bool) -> None:
        """Send a request, whole or without the last half of its body, and end the connection; `reset`: not in order."""
        try:
            _, writer = await self._connect()
            raw = request.encode(self._authority, self._api_key)
            writer.write(raw if whole else raw[: -max(1, len(request.body or b"") // 2)])
            await writer.drain()
            if not whole:
                await asyncio.sleep(0.01)  # the server is then waiting for the rest
            if reset:
                writer.transport.abort()
        except (NotSent, OSError):
            pass
        self.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            try:
                self._streams = await asyncio.open_connection(self._host, self._port)
            except OSError as error:
                raise NotSent from error
        return self._streams


async def _wait_closed(reader: asyncio.StreamReader, request: Request) -> None:
    """Wait until the server closes the connection, as it announced."""
    with suppress(ConnectionError):
        if rest := await reader.read():
            raise Violation(f"more than the response to {request}: {rest[:300]!r}")


async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))
