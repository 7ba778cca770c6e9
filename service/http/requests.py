"""What a request carries, read and checked: ids, bodies, query parameters, conditions."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from random import getrandbits
from typing import Any
from urllib.parse import unquote_to_bytes
from uuid import UUID

from aiohttp import HttpVersion11, web
from multidict import CIMultiDictProxy

from service.configs.document import Document, document, member_span, parse
from service.configs.lifetime import ttl_of
from service.configs.limits import Limits
from service.errors import BadRequest, BodyTooLarge, ExpectationFailed, RequestTimeout, UnsupportedMediaType
from service.http.context import Call

Headers = CIMultiDictProxy[str]

_UUID = re.compile(
    r"(?:urn:uuid:)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|[0-9a-f]{32}|\{[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\}",
    re.ASCII | re.IGNORECASE,
)
_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_SANE_ID = re.compile(r"(?!.*sk-ac-)[A-Za-z0-9._:/+=@-]{1,128}", re.ASCII)  # a key would be logged
_ETAG = re.compile(r'\s*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"\s*(?:,|$)')
_OWN_ETAG = re.compile(r"[0-9]+-[0-9]+", re.ASCII)
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False, "": False}


def request_id(headers: Mapping[str, str]) -> str:
    """The id that the caller gave the request, or a new one where that is missing or could do harm in a log."""
    given = headers.get("X-Request-Id")
    return given if given is not None and _SANE_ID.fullmatch(given) else f"{getrandbits(128):032x}"


def key(headers: Headers) -> str:
    """The key in an Authorization header that has been found good."""
    return headers["Authorization"].partition(" ")[2]


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

    def ttl(self) -> int | None:
        """The member `ttl`, in seconds; 0 where it is null, None where it is not there.

        Raises:
            BadRequest: it is no lifetime.
        """
        return ttl_of(self.values["ttl"], "ttl") if "ttl" in self.values else None

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
    """The bytes of a body that is JSON by its media type, or has none.

    Raises:
        UnsupportedMediaType: it is of another.
        BodyTooLarge: it is over the limit.
        BadRequest: it is broken off, or not in the coding that it claims.
        RequestTimeout: it does not come.
    """
    request = call.request
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and (not kind.endswith("+json") or "-patch+" in kind):
        raise UnsupportedMediaType
    await _go_on(request)
    try:
        if request.content.is_eof():
            return await request.read()
        async with call.worker.load.receiving(), asyncio.timeout(call.settings.client_timeout):
            return await request.read()
    except TimeoutError:
        raise RequestTimeout from None
    except web.HTTPRequestEntityTooLarge:
        raise BodyTooLarge(f"the body is larger than {call.settings.max_body_bytes} bytes") from None
    except (web.RequestPayloadError, ConnectionError):
        raise BadRequest("the body is broken off, or not encoded as its headers say") from None


async def _go_on(request: web.BaseRequest) -> None:
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


def query(request: web.BaseRequest) -> dict[str, str]:
    """The query parameters; of equal names the first counts.

    Raises:
        BadRequest: a value is not UTF-8.
    """
    found: dict[str, str] = {}
    for pair in request.rel_url.raw_query_string.split("&"):
        name, _, value = pair.partition("=")
        try:
            decoded = unquote_to_bytes(value.replace("+", " ")).decode()
        except UnicodeDecodeError:
            raise BadRequest(f"{name[:40]} in the query is not UTF-8") from None
        found.setdefault(name, decoded)
    return found


def whole_number(parameters: dict[str, str], name: str, *, default: int, least: int, most: int) -> int:
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


def boolean(parameters: dict[str, str], name: str) -> bool:
    """A boolean in the query, false unless said.

    Raises:
        BadRequest: it is neither true nor false.
    """
    value = _BOOLEANS.get(parameters.get(name, "").lower())
    if value is None:
        raise BadRequest(f"{name} must be true or false")
    return value


def if_match(headers: Headers) -> str:
    """If-Match as scripts take it: "" for none, "*", or the ETags that could be ours, joined by commas.

    The comparison is strong (RFC 9110, 13.1.1), so weak ETags match nothing; what is not an ETag of ours cannot match either.

    Raises:
        BadRequest: the header is malformed.
    """
    header = _list_header(headers, "If-Match")
    if header is None:
        return ""
    if header.strip() == "*":
        return "*"
    ours = [tag for weak, tag in _etags(header, "If-Match") if not weak and _OWN_ETAG.fullmatch(tag)]
    return ",".join(ours) or "none"


def none_match(headers: Headers, etag: str) -> bool:
    """Whether If-None-Match (weak comparison, RFC 9110, 13.1.2) names `etag`, so that 304 is the answer.

    Raises:
        BadRequest: the header is malformed.
    """
    header = _list_header(headers, "If-None-Match")
    if header is None:
        return False
    return header.strip() == "*" or any(tag == etag for _, tag in _etags(header, "If-None-Match"))


def _list_header(headers: Headers, name: str) -> str | None:
    # Several lines are one list (RFC 9110, 5.3).
    lines = headers.getall(name, None)
    return None if lines is None else ",".join(lines)


def _etags(header: str, name: str) -> list[tuple[bool, str]]:
    found: list[tuple[bool, str]] = []
    at = 0
    while at < len(header) or not found:
        match = _ETAG.match(header, at)
        if match is None:
            raise BadRequest(f"{name} must be * or ETags in double quotes")
        found.append((match[1] is not None, match[2]))
        at = match.end()
    return found
