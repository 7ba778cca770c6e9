"""The headers of requests and responses: request id, API key, what a body may be, 100-continue, rate limits."""

import re
from collections.abc import Mapping
from math import ceil
from random import getrandbits

from aiohttp import HttpVersion11, web
from aiohttp.hdrs import AUTHORIZATION
from multidict import CIMultiDictProxy, istr

from service.errors import BadRequest, ExpectationFailed, UnsupportedContentCoding, UnsupportedMediaType
from service.store.rate_limit import Quota, RateLimiter

Headers = CIMultiDictProxy[str]

_REQUEST_ID = istr("X-Request-Id")  # case-folded once
#: Which trace a request belongs to (W3C Trace Context). Versions after 00 may add fields.
TRACEPARENT = istr("traceparent")
_TRACEPARENT = re.compile(
    r"(?P<fields>(?!ff)[0-9a-f]{2}-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(?:(?<!^00.{53})-.*)?",
    re.ASCII,
)
_SAFE_ID = re.compile(r"(?!.*sk-ac-)[A-Za-z0-9._:/+=@-]{1,128}", re.ASCII)  # an API key would be logged


def request_id(headers: Mapping[str, str]) -> str:
    """The X-Request-Id of a request, or a new id if it has none or one that is not safe to log."""
    text = headers.get(_REQUEST_ID)
    return text if text is not None and _SAFE_ID.fullmatch(text) else getrandbits(128).to_bytes(16).hex()


def traceparent(headers: Headers) -> re.Match[str] | None:
    """The traceparent of a request, with its groups `fields` and `trace`; None if it is not valid, or if there are several."""
    values = headers.getall(TRACEPARENT, ())
    return _TRACEPARENT.fullmatch(values[0]) if len(values) == 1 else None


def server_timing(headers: Headers) -> bytes:
    """The line Server-Timing that passes on a valid traceparent, so that a browser or client finds the trace; else nothing."""
    match = traceparent(headers)
    return b'Server-Timing: traceparent;desc="%b"\r\n' % match["fields"].encode() if match else b""


def authorization(headers: Headers) -> str:
    """The value of the Authorization header, "" without one.

    Raises:
        BadRequest: the request has several. A proxy may have checked another one than this service would use.
    """
    values = headers.getall(AUTHORIZATION, ())
    if len(values) > 1:
        raise BadRequest("the request has more than one Authorization header")
    return values[0] if values else ""


def api_key(headers: Headers) -> str:
    """The API key in an Authorization header that was authenticated before."""
    return headers[AUTHORIZATION].partition(" ")[2]


def require_json(headers: Headers) -> None:
    """Check that a body is JSON by its media type; a request without a media type passes.

    Raises:
        UnsupportedMediaType: the body is not JSON, or a patch format such as application/merge-patch+json.
    """
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and (not kind.endswith("+json") or "-patch+" in kind):
        raise UnsupportedMediaType


def require_uncompressed(headers: Headers) -> None:
    """Check Content-Encoding (RFC 9110, 8.4): a small compressed body could inflate to any size.

    Raises:
        UnsupportedContentCoding: the body is compressed.
    """
    for line in headers.getall("Content-Encoding", ()):
        # Empty list elements are skipped (RFC 9110, 5.6.1.2).
        if any(coding.strip().lower() not in ("", "identity") for coding in line.split(",")):
            raise UnsupportedContentCoding


def send_100_continue(request: web.BaseRequest) -> None:
    """Tell a client that sent Expect: 100-continue (RFC 9110, 10.1.1) to send the body.

    Raises:
        ExpectationFailed: the client expects something else.
    """
    expectation = request.headers.get("Expect")
    if expectation is None:
        return
    if expectation.lower() != "100-continue":
        raise ExpectationFailed
    if request.transport is not None and request.version >= HttpVersion11:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def rate_limit(limiter: RateLimiter, quota: Quota) -> bytes:
    """The lines RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers) for a key with `quota` left."""
    window = ceil(limiter.burst / limiter.per_second)
    return b'RateLimit-Policy: "key";q=%d;w=%d\r\nRateLimit: "key";r=%d;t=%d\r\n' % (
        limiter.burst,
        window,
        quota.remaining,
        quota.reset_after,
    )
