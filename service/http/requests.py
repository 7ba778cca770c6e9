"""What a request carries, read and checked: ids, bodies, query parameters, conditions."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes
from uuid import UUID, uuid4

from aiohttp import web

from service.configs.document import Document, document, parse, spans
from service.configs.limits import Limits
from service.errors import BadRequest, TooLarge, UnsupportedMediaType

_UUID = re.compile(
    r"(?:urn:uuid:)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|[0-9a-f]{32}|\{[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\}",
    re.ASCII | re.IGNORECASE,
)
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}", re.ASCII)
_ETAG = re.compile(r'\s*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"\s*(?:,|$)')
_OWN_ETAG = re.compile(r"[0-9]+-[0-9]+", re.ASCII)
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False, "": False}


def request_id(request: web.BaseRequest) -> str:
    """The id that the caller gave the request, or a new one where that is missing or could do harm in a log."""
    given = request.headers.get("X-Request-Id", "")
    return given if _SANE_ID.fullmatch(given) else uuid4().hex


def canonical_uuid(text: str) -> str | None:
    """The UUID that `text` spells (36 characters, 32 hex digits, urn:uuid: or braces), in lower case with hyphens."""
    return str(UUID(text.lower())) if _UUID.fullmatch(text) else None


def session_id(request: web.Request) -> str:
    """The id of the session in the path.

    Raises:
        BadRequest: it is no UUID.
    """
    found = canonical_uuid(request.match_info["session_id"])
    if found is None:
        raise BadRequest("invalid session_id")
    return found


def identifier(request: web.Request) -> str:
    """The user's identifier in the path, the segment after `/api/v1/user/`.

    Decoded here: the router leaves alone what is not UTF-8, and so would take `%FF` for `%25FF`.

    Raises:
        BadRequest: it is not UTF-8.
    """
    try:
        return unquote_to_bytes(request.rel_url.raw_path.split("/")[4]).decode()
    except UnicodeDecodeError:
        raise BadRequest("the user in the path is not UTF-8") from None


@dataclass(frozen=True, slots=True)
class Body:
    """A JSON object that a client sent: its values, and the raw span of each."""

    values: dict[str, Any]
    raw: dict[str, bytes]

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

    def configs(self, limits: Limits, *, required: bool) -> Document | None:
        """The member `configs`; None where it is not `required` and null or not there.

        Raises:
            BadRequest: it is no object.
            TooLarge: it is over a limit.
        """
        value = self.values.get("configs")
        if value is None and not required:
            return None
        if not isinstance(value, dict):
            raise BadRequest("configs must be a JSON object")
        return document(value, self.raw["configs"], limits)


async def read_body(request: web.Request, limits: Limits) -> bytes:
    """The bytes of a body that is JSON by its media type, or has none.

    Raises:
        UnsupportedMediaType: it is of another.
        TooLarge: it is over the limit.
        BadRequest: it is broken off, or not in the coding that it claims.
    """
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and (not kind.endswith("+json") or "-patch+" in kind):
        raise UnsupportedMediaType
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge(f"the body is larger than {limits.max_body_bytes} bytes") from None
    except (web.RequestPayloadError, ConnectionError):
        raise BadRequest("the body is broken off, or not encoded as its headers say") from None


async def json_body(request: web.Request, limits: Limits) -> Body:
    """The JSON object in the body; no body at all is an empty one.

    Raises:
        BadRequest: it is no JSON object.
        UnsupportedMediaType, TooLarge: as `read_body`.
    """
    raw = await read_body(request, limits)
    if not raw:
        return Body({}, {})
    # The body's own braces are one level above the configs.
    values = parse(raw, max_nesting=limits.max_nesting + 1)
    if not isinstance(values, dict):
        raise BadRequest("the body must be a JSON object")
    return Body(values, spans(raw))


def query(request: web.Request) -> dict[str, str]:
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


def if_match(request: web.Request) -> str:
    """If-Match as scripts take it: "" for none, "*", or the ETags that could be ours, joined by commas.

    The comparison is strong (RFC 9110, 13.1.1), so weak ETags match nothing; what is not an ETag of ours cannot match either.

    Raises:
        BadRequest: the header is malformed.
    """
    header = _list_header(request, "If-Match")
    if header is None:
        return ""
    if header.strip() == "*":
        return "*"
    ours = [tag for weak, tag in _etags(header, "If-Match") if not weak and _OWN_ETAG.fullmatch(tag)]
    return ",".join(ours) or "none"


def none_match(request: web.Request, etag: str) -> bool:
    """Whether If-None-Match (weak comparison, RFC 9110, 13.1.2) names `etag`, so that 304 is the answer.

    Raises:
        BadRequest: the header is malformed.
    """
    header = _list_header(request, "If-None-Match")
    if header is None:
        return False
    return header.strip() == "*" or any(tag == etag for _, tag in _etags(header, "If-None-Match"))


def _list_header(request: web.Request, name: str) -> str | None:
    # Several lines are one list (RFC 9110, 5.3).
    lines = request.headers.getall(name, None)
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
