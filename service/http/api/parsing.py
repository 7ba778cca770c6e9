"""Ids, bodies and query values of a request: parsed and checked."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from aiohttp import web
from aiohttp.streams import StreamReader

from service.configs.document import Document, member_span, parse
from service.configs.limits import Limits
from service.configs.ttl import UNSPECIFIED, Ttl, parse_ttl
from service.errors import BadRequest, BodyTooLarge, Overloaded, RequestTimeout
from service.http.server.client_memory import BodyDropped
from service.http.server.context import Call
from service.http.server.headers import require_json, require_uncompressed, send_100_continue

_UUID = re.compile(
    r"(?:urn:uuid:)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|[0-9a-f]{32}|\{[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\}",
    re.ASCII | re.IGNORECASE,
)
_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False, "": False}


def canonical_uuid(text: str) -> str | None:
    """The UUID that `text` spells (36 characters, 32 hex digits, urn:uuid: or braces), in lower case with hyphens."""
    return str(UUID(text.lower())) if _UUID.fullmatch(text) else None


def session_id(text: str) -> str:
    """The id of the session in the path, canonical.

    Raises:
        BadRequest: it is not a UUID.
    """
    # Most clients send the canonical form.
    if _CANONICAL_UUID.fullmatch(text):
        return text
    canonical = canonical_uuid(text)
    if canonical is None:
        raise BadRequest("invalid session_id")
    return canonical


def user_identifier(text: str) -> str:
    """The user's identifier in the path.

    Raises:
        BadRequest: it is not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest("the user in the path is not valid UTF-8") from None
    return text


@dataclass(frozen=True, slots=True)
class Body:
    """The JSON object in a request body: its values, and its bytes."""

    values: dict[str, Any]
    raw: bytes

    def text(self, name: str) -> str | None:
        """A string member; None if it is null or absent.

        Raises:
            BadRequest: the member has another type.
        """
        value = self.values.get(name)
        if value is not None and not isinstance(value, str):
            raise BadRequest(f"{name} must be a string")
        return value

    def boolean(self, name: str) -> bool:
        """A boolean member; False if it is null or absent.

        Raises:
            BadRequest: the member has another type.
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
        """The member `configs`; None if it is null or absent and not `required`.

        Raises:
            BadRequest: it is not an object.
            ConfigsTooLarge: it exceeds a limit.
        """
        value = self.values.get("configs")
        if value is None and not required:
            return None
        if not isinstance(value, dict):
            raise BadRequest("configs must be a JSON object")
        return Document.build(value, member_span(self.raw, "configs"), limits)


async def read_body(call: Call) -> bytes:
    """The bytes of a body whose media type is JSON or missing. The API key is still valid when it returns.

    Raises:
        Unauthorized, LayoutChanged: as `Call.confirm_key`.
        UnsupportedMediaType: the body is not JSON.
        UnsupportedContentCoding: it is compressed.
        BodyTooLarge: it exceeds the limit; if Content-Length says so, before 100 Continue is sent.
        BadRequest: it is incomplete.
        Overloaded: the worker has no memory for it.
        RequestTimeout: the client is too slow.
    """
    request = call.request
    require_json(request.headers)
    require_uncompressed(request.headers)
    if (request.content_length or 0) > call.settings.max_body_bytes:
        raise _too_large(call.settings)
    send_100_continue(request)
    raw = await _receive(call)
    await call.confirm_key()
    return raw


async def _receive(call: Call) -> bytes:
    request = call.request
    try:
        if request.content.is_eof():
            return await _read_all(request.content, call.settings)
        async with call.worker.admission.receiving(call.ticket), asyncio.timeout(call.settings.client_timeout):
            return await _read_all(request.content, call.settings)
    except TimeoutError:
        raise RequestTimeout from None
    except BodyDropped:
        raise Overloaded from None
    except (web.RequestPayloadError, ConnectionError):
        raise BadRequest("the body is incomplete, or its encoding does not match the headers") from None


async def _read_all(content: StreamReader, limits: Limits) -> bytes:
    """A whole body. aiohttp's `request.read()` would keep it in memory until the connection's next request."""
    body = bytearray()
    while part := await content.readany():
        body += part
        if len(body) > limits.max_body_bytes:
            raise _too_large(limits)
    return bytes(body)


def _too_large(limits: Limits) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {limits.max_body_bytes} bytes")


async def json_body(call: Call) -> Body:
    """The JSON object in the body; a missing body is an empty object.

    Raises:
        BadRequest: the body is not a JSON object.
        ServiceError: as `read_body`.
    """
    raw = await read_body(call)
    if not raw:
        return Body({}, b"")
    # The body's own braces are one level above the configs.
    values = parse(raw, max_nesting=call.settings.max_nesting, around=1)
    if not isinstance(values, dict):
        raise BadRequest("the body must be a JSON object")
    return Body(values, raw)


def integer(parameters: Mapping[str, str], name: str, *, default: int, minimum: int, maximum: int) -> int:
    """An integer in the query; `default` if it is absent or empty.

    Raises:
        BadRequest: it is not an integer, or out of bounds.
    """
    text = parameters.get(name, "")
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not minimum <= int(text) <= maximum:
        raise BadRequest(f"{name} must be a whole number from {minimum} to {maximum}")
    return int(text)


def boolean(parameters: Mapping[str, str], name: str) -> bool:
    """A boolean in the query; False if it is absent or empty.

    Raises:
        BadRequest: it is neither true nor false.
    """
    value = _BOOLEANS.get(parameters.get(name, "").lower())
    if value is None:
        raise BadRequest(f"{name} must be true or false")
    return value
