"""What a request carries, read and checked: ids, bodies, values of query parameters."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from random import getrandbits
from typing import Any
from uuid import UUID

from aiohttp import HttpVersion11, web
from aiohttp.streams import StreamReader
from multidict import CIMultiDictProxy

from service.configs.document import Document, document, member_span, parse
from service.configs.limits import Limits
from service.configs.ttl import UNSPECIFIED, Ttl, parse_ttl
from service.errors import (
    BadRequest,
    BodyTooLarge,
    ExpectationFailed,
    Overloaded,
    RequestTimeout,
    UnsupportedContentCoding,
    UnsupportedMediaType,
)
from service.http.server.context import Call
from service.http.server.memory import BodyDropped

Headers = CIMultiDictProxy[str]

_UUID = re.compile(
    r"(?:urn:uuid:)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|[0-9a-f]{32}|\{[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\}",
    re.ASCII | re.IGNORECASE,
)
_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_SANE_ID = re.compile(r"(?!.*sk-ac-)[A-Za-z0-9._:/+=@-]{1,128}", re.ASCII)  # a key would be logged
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False, "": False}


def request_id(headers: Mapping[str, str]) -> str:
    """The id that the caller gave the request, or a new one where that is missing or could do harm in a log."""
    given = headers.get("X-Request-Id")
    return given if given is not None and _SANE_ID.fullmatch(given) else f"{getrandbits(128):032x}"


def key(headers: Headers) -> str:
    """The key in an Authorization header that has been found good."""
    return headers["Authorization"].partition(" ")[2]


def authorization(headers: Headers) -> str:
    """The value of the Authorization header, empty where there is none.

    Raises:
        BadRequest: there are several. A proxy may have checked another one than would be used here.
    """
    values = headers.getall("Authorization", ())
    if len(values) > 1:
        raise BadRequest("the request has more than one Authorization header")
    return values[0] if values else ""


def canonical_uuid(text: str) -> str | None:
    """The UUID that `text` spells (36 characters, 32 hex digits, urn:uuid: or braces), in lower case with hyphens."""
    return str(UUID(text.lower())) if _UUID.fullmatch(text) else None


def session_id(text: str) -> str:
    """The id of the session in the path.

    Raises:
        BadRequest: it is no UUID.
    """
    # As most clients send it, it is canonical already.
    if _CANONICAL_UUID.fullmatch(text):
        return text
    found = canonical_uuid(text)
    if found is None:
        raise BadRequest("invalid session_id")
    return found


def identifier(text: str) -> str:
    """The user's identifier in the path.

    Raises:
        BadRequest: it is not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest("the user in the path is not UTF-8") from None
    return text


@dataclass(frozen=True, slots=True)
class Body:
    """A JSON object that a client sent: its values, and its bytes."""

    values: dict[str, Any]
    raw: bytes

    def text(self, name: str) -> str | None:
        """A member that is a string, null, or not there.

        Raises:
            BadRequest: it is something else.
        """
        value = self.values.get(name)
        if value is not None and not isinstance(value, str):
            raise BadRequest(f"{name} must be a string")
        return value

    def flag(self, name: str) -> bool:
        """A member that is true or false; null or not there is false.

        Raises:
            BadRequest: it is something else.
        """
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise BadRequest(f"{name} must be true or false")
        return bool(value)

    def ttl(self) -> Ttl:
        """The member `ttl`; `UNSPECIFIED` if it is absent.

        Raises:
            BadRequest: it is not a valid TTL.
        """
        return parse_ttl(self.values["ttl"], "ttl") if "ttl" in self.values else UNSPECIFIED

    def configs(self, limits: Limits, *, required: bool) -> Document | None:
        """The member `configs`; None where it is not `required` and null or not there.

        Raises:
            BadRequest: it is no object.
            ConfigsTooLarge: it is over a limit.
        """
        value = self.values.get("configs")
        if value is None and not required:
            return None
        if not isinstance(value, dict):
            raise BadRequest("configs must be a JSON object")
        return document(value, member_span(self.raw, "configs"), limits)


async def read_body(call: Call) -> bytes:
    """The bytes of a body that is JSON by its media type, or has none. Once it is here, the key is good for a write still.

    Raises:
        Unauthorized, LayoutChanged: as `Call.confirm_key`.
        UnsupportedMediaType: it is of another.
        UnsupportedContentCoding: it is compressed.
        BodyTooLarge: it is over the limit; where its length says so, before any of it is asked for.
        BadRequest: it is incomplete.
        Overloaded: the worker has no memory for it.
        RequestTimeout: it does not come.
    """
    request = call.request
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and (not kind.endswith("+json") or "-patch+" in kind):
        raise UnsupportedMediaType
    _check_coding(request.headers)
    if (request.content_length or 0) > call.settings.max_body_bytes:
        raise _too_large(call.settings)
    await _send_100_continue(request)
    raw = await _received(call)
    await call.confirm_key()
    return raw


async def _received(call: Call) -> bytes:
    request = call.request
    try:
        if request.content.is_eof():
            return await _all_of(request.content, call.settings)
        async with call.worker.admission.receiving(call.ticket), asyncio.timeout(call.settings.client_timeout):
            return await _all_of(request.content, call.settings)
    except TimeoutError:
        raise RequestTimeout from None
    except BodyDropped:
        raise Overloaded from None
    except (web.RequestPayloadError, ConnectionError):
        raise BadRequest("the body is incomplete, or its encoding does not match the headers") from None


async def _all_of(content: StreamReader, limits: Limits) -> bytes:
    """All of a body. aiohttp's `request.read()` would keep it until the connection's next request."""
    body = bytearray()
    while part := await content.readany():
        body += part
        if len(body) > limits.max_body_bytes:
            raise _too_large(limits)
    return bytes(body)


def _too_large(limits: Limits) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {limits.max_body_bytes} bytes")


def _check_coding(headers: Headers) -> None:
    """Refuse a body that is compressed (RFC 9110, 8.4): a small one could inflate to any size."""
    for line in headers.getall("Content-Encoding", ()):
        # Empty list elements are skipped (RFC 9110, 5.6.1.2).
        if any(coding.strip().lower() not in ("", "identity") for coding in line.split(",")):
            raise UnsupportedContentCoding


async def _send_100_continue(request: web.BaseRequest) -> None:
    """Tell a client that asked before sending its body (RFC 9110, 10.1.1) to send it."""
    expected = request.headers.get("Expect")
    if expected is None:
        return
    if expected.lower() != "100-continue":
        raise ExpectationFailed
    if request.transport is not None and request.version >= HttpVersion11:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def json_body(call: Call) -> Body:
    """The JSON object in the body; no body at all is an empty one.

    Raises:
        BadRequest: it is no JSON object.
        UnsupportedMediaType, BodyTooLarge, RequestTimeout: as `read_body`.
    """
    raw = await read_body(call)
    if not raw:
        return Body({}, b"")
    # The body's own braces are one level above the configs.
    values = parse(raw, max_nesting=call.settings.max_nesting, around=1)
    if not isinstance(values, dict):
        raise BadRequest("the body must be a JSON object")
    return Body(values, raw)


def integer(parameters: Mapping[str, str], name: str, *, default: int, least: int, most: int) -> int:
    """A whole number in the query.

    Raises:
        BadRequest: it is none, or out of bounds.
    """
    text = parameters.get(name, "")
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not least <= int(text) <= most:
        raise BadRequest(f"{name} must be a whole number from {least} to {most}")
    return int(text)


def boolean(parameters: Mapping[str, str], name: str) -> bool:
    """A boolean in the query, false unless said.

    Raises:
        BadRequest: it is neither true nor false.
    """
    value = _BOOLEANS.get(parameters.get(name, "").lower())
    if value is None:
        raise BadRequest(f"{name} must be true or false")
    return value
