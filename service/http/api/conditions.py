"""The condition headers of a request (RFC 9110, 13.1), parsed and checked. A condition is never ignored."""

import re
from collections.abc import Collection

from aiohttp import hdrs
from multidict import CIMultiDictProxy, istr

from service.errors import BadRequest
from service.store.conditions import UNCONDITIONAL, Conditions, ETags

_ETAG = re.compile(r'[ \t]*(W/)?"([^\x00-\x20"\x7f]*)"[ \t]*(?:,|$)')
_EMPTY_ELEMENTS = re.compile(r"[ \t]*,[ \t,]*")
#: The form of a session's ETag, after its prefix. Any other names no state.
_SESSION_ETAG = re.compile(r"[0-9]+-[0-9]+", re.ASCII)
#: What most clients send: the one ETag that they have.
_ONE_SESSION_ETAG = re.compile(r'"[0-9]+-[0-9]+"', re.ASCII)
_READS = ("GET", "HEAD")


def parse(method: str, headers: CIMultiDictProxy[str], accepted: Collection[str], prefix: str = "") -> Conditions:
    """The conditions of a request for a route that accepts the headers `accepted`: If-Match, If-None-Match, both or none.

    They have the ETags that begin with `prefix`, without it; any other is of another generation of the store.

    If-Modified-Since and, on a read, If-Unmodified-Since are ignored: no session has Last-Modified (RFC 9110, 13.1.3).

    Raises:
        BadRequest: a condition is malformed, or not supported on the route.
    """
    if method not in _READS and hdrs.IF_UNMODIFIED_SINCE in headers:
        raise BadRequest("If-Unmodified-Since is not supported; send If-Match with an ETag")
    if hdrs.IF_MATCH not in headers and hdrs.IF_NONE_MATCH not in headers:
        return UNCONDITIONAL
    return Conditions(
        if_match=_etags(headers, hdrs.IF_MATCH, accepted, prefix, weak=False),
        if_none_match=_etags(headers, hdrs.IF_NONE_MATCH, accepted, prefix, weak=True),
    )


def _etags(headers: CIMultiDictProxy[str], name: istr, accepted: Collection[str], prefix: str, *, weak: bool) -> ETags | None:
    """The value of one condition header, None if it is absent; `weak` is whether weak ETags match (RFC 9110, 8.8.3.2)."""
    lines = headers.getall(name, None)
    if lines is None:
        return None
    if name not in accepted:
        raise BadRequest(f"this path does not support {name} with this method")
    if not prefix and len(lines) == 1 and _ONE_SESSION_ETAG.fullmatch(lines[0]):
        return ETags(frozenset((lines[0][1:-1],)))
    # Several lines are one list (RFC 9110, 5.3).
    value = ",".join(lines).strip(" \t")
    if value == "*":
        return ETags(any=True)
    tags = [tag for is_weak, tag in _elements(value, name) if weak or not is_weak]
    current = (tag.removeprefix(prefix) for tag in tags if tag.startswith(prefix))
    return ETags(frozenset(filter(_SESSION_ETAG.fullmatch, current)))


def _elements(value: str, name: str) -> list[tuple[bool, str]]:
    """Weakness and opaque part of each ETag in a list. Empty elements are skipped (RFC 9110, 5.6.1.2)."""
    elements: list[tuple[bool, str]] = []
    position = 0
    while position < len(value):
        if empty := _EMPTY_ELEMENTS.match(value, position):
            position = empty.end()
            continue
        match = _ETAG.match(value, position)
        if match is None:
            break
        elements.append((match[1] is not None, match[2]))
        position = match.end()
    if position < len(value) or not elements:
        raise BadRequest(f"{name} must be * or a list of ETags in double quotes")
    return elements
