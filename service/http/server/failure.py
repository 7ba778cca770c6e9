"""Errors as responses: the envelope `{"code":…,"msg":…,"reason":…,"error":…}` and the header that the status requires."""

import orjson

from service.errors import (
    ClientGone,
    MethodNotAllowed,
    Overloaded,
    RequestTimeout,
    ServiceError,
    StoreUnavailable,
    TooManyRequests,
    Unauthorized,
    UnsupportedContentCoding,
    UnsupportedMediaType,
)
from service.http.server.response import Response

#: In metrics and logs, the reason of a response that nobody reads: unlike other refusals, it is no sign of overload.
CLIENT_GONE = "client_gone"


def error_response(error: ServiceError) -> Response:
    """The response to a request that failed with `error`."""
    body: dict[str, object] = {"code": error.status, "msg": error.message, "reason": error.reason}
    if error.detail:
        body["error"] = error.detail
    reason = CLIENT_GONE if isinstance(error, ClientGone) else error.reason
    response = Response(orjson.dumps(body), status=error.status, headers=_headers(error), reason=reason)
    # The rest of a request that timed out would be parsed as the next request.
    response.keep_alive = not isinstance(error, RequestTimeout)
    response.throttles = isinstance(error, Overloaded)
    return response


def _headers(error: ServiceError) -> bytes:
    match error:
        case MethodNotAllowed():
            return b"Allow: %b\r\n" % error.allowed.encode()
        case StoreUnavailable() | Overloaded() | TooManyRequests():
            return b"Retry-After: %d\r\n" % error.retry_after
        case Unauthorized():
            return b"WWW-Authenticate: Bearer\r\n"
        case UnsupportedMediaType():
            return b"Accept: application/json\r\n"
        case UnsupportedContentCoding():
            return b"Accept-Encoding: identity\r\n"
        case _:
            return b""
