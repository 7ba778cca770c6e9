"""One client's way to the server: HTTP by hand, so that it is known of every request whether it was sent, whole or in part.

A library would send some requests again of its own accord, and of a connection that broke it would not say when.
"""

import asyncio
from dataclasses import dataclass, field
from random import Random

import msgspec

from tests.soak.differences import Difference

API = "/api/v1"

#: Seconds after which a request that has no answer counts as one that hangs; a server that keeps its word answers in two.
PATIENCE = 20.0
#: Requests on one connection, about: then another one is opened, which may lead to another worker.
REQUESTS_A_CONNECTION = 30

UNCERTAIN = "write_uncertain"


class Unavailable(Exception):
    """There is no answer, or a 503. `uncertain`: a write may have happened, or may happen still."""

    def __init__(self, how: str, *, uncertain: bool) -> None:
        self.how = how
        self.uncertain = uncertain
        super().__init__(how)


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `path` is below the API."""

    method: str
    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def render(self, key: str) -> bytes:
        """The bytes on the wire."""
        lines = [f"{self.method} {API}{self.path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(self.body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + (self.body or b"")

    def __str__(self) -> str:
        sent = "" if self.body is None else f" {self.body[:300].decode(errors='replace')}"
        return " ".join([self.method, self.path, *(f"{name}: {value}" for name, value in self.headers.items())]) + sent


@dataclass(frozen=True, slots=True)
class Response:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def etag(self) -> str:
        """The ETag without its quotes."""
        return self.headers.get("etag", "").strip('"')


class _Failure(msgspec.Struct):
    """The envelope of an error."""

    code: int
    msg: str
    reason: str = ""


class Wire:
    """A client's connection, opened when it is needed, and now and then another one."""

    def __init__(self, port: int, key: str, random: Random) -> None:
        self._port = port
        self._key = key
        self._random = random
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: Request) -> Response:
        """Send a request and read its answer, which is any but a 5xx.

        Raises:
            Unavailable: there is none, or it is a 503.
            Difference: it is a 5xx that nothing excuses, malformed, or does not come.
        """
        sent = False
        if self._random.random() < 1 / REQUESTS_A_CONNECTION:
            self.close()
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await self._open()
                sent = True
                writer.write(request.render(self._key))
                status, headers, body = await _read(reader)
        except TimeoutError:
            raise Difference(f"no answer within {PATIENCE:.0f} s to {request}") from None
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise Unavailable("cut" if sent else "no connection", uncertain=sent) from error
        if headers.get("connection") == "close":
            self.close()
        answer = Response(status, headers, body)
        if status >= 500:
            raise _unavailable(answer, request)
        return answer

    async def break_off(self, request: Request, *, whole: bool) -> None:
        """Send a request, whole or without the last half of its body, and break the connection."""
        try:
            _, writer = await self._open()
            raw = request.render(self._key)
            writer.write(raw if whole else raw[: -max(1, len(request.body or b"") // 2)])
            await writer.drain()
            if not whole:
                await asyncio.sleep(0.01)  # so that the server surely waits for the rest
            if self._random.random() < 0.5:
                writer.transport.abort()
        except OSError:
            pass
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        return self._streams


async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))


def _unavailable(answer: Response, request: Request) -> Exception:
    try:
        said = msgspec.json.decode(answer.body, type=_Failure)
    except msgspec.DecodeError:
        said = _Failure(0, "")
    if answer.status != 503 or said.code != 503 or not answer.headers.get("retry-after", "").isdigit():
        return Difference(f"{request} was answered {answer.status}: {answer.body[:300].decode(errors='replace')}")
    return Unavailable("503", uncertain=said.reason == UNCERTAIN)
