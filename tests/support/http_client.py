"""A client that follows HTTP to the letter and no further, so that a test knows what became of every request."""

import asyncio
import json
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from tests.support.server import PATIENCE

PREFIX = "/api/v1"


class Refused(Exception):
    """Nobody listens: the request was not sent."""


class Lost(Exception):
    """The connection ended without an answer. `reused`: it had carried a request before, and no byte of this answer came.

    The latter is the one case in which HTTP lets a client send again of its own accord (RFC 9112, 9.3.1): a server may end a
    connection that is idle at any time.
    """

    def __init__(self, *, reused: bool) -> None:
        self.reused = reused
        super().__init__("on a connection in use" if reused else "on a new connection")


@dataclass(frozen=True)
class Reply:
    """An answer, and how long it took from the first byte sent, in seconds."""

    status: int
    headers: dict[str, str]
    raw: bytes
    seconds: float

    @cached_property
    def body(self) -> Any:  # noqa: ANN401 - JSON is any value
        return json.loads(self.raw)

    @property
    def data(self) -> Any:  # noqa: ANN401 - JSON is any value
        return self.body["data"]

    @property
    def unavailable(self) -> bool:
        """Whether this is the 503 of a store that cannot work, in its right form."""
        if self.status != 503:
            return False
        assert int(self.headers["retry-after"]) >= 1
        assert set(self.body) <= {"code", "msg", "reason", "error"}, self.body
        return True

    @property
    def uncertain(self) -> bool:
        """Whether it says that a write may have happened."""
        return self.unavailable and self.body["reason"] == "write_uncertain"


class Client:
    """One connection, kept alive as long as the server does, and opened when it is needed."""

    def __init__(self, origin: str, key: str) -> None:
        address = urlsplit(origin)
        self._address = address.hostname, address.port
        self._head = f"Host: {address.netloc}\r\nAuthorization: Bearer {key}\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def send(self, method: str, path: str, body: object = None) -> Reply:
        """One request; `body` is sent as JSON, bytes as they are.

        Raises:
            Refused, Lost: as their names say.
        """
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n" if raw else ""
        request = f"{method} {PREFIX}{path} HTTP/1.1\r\n{self._head}{kind}\r\n".encode() + raw
        reused = self._streams is not None
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(*self._address)
        except ConnectionError as error:
            raise Refused from error
        started = time.monotonic()
        try:
            reply = await asyncio.wait_for(self._exchange(*self._streams, request, started), PATIENCE)
        except asyncio.IncompleteReadError as error:
            self.close()
            raise Lost(reused=reused and not error.partial) from None
        except ConnectionError:
            self.close()
            raise Lost(reused=reused) from None
        if reply.headers.get("connection") == "close":
            self.close()
        return reply

    @staticmethod
    async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, started: float) -> Reply:
        writer.write(request)
        head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        raw = await reader.readexactly(int(headers["content-length"]))
        return Reply(int(head.split()[1]), headers, raw, time.monotonic() - started)
