"""Answers in the envelope, put together from bytes that are JSON already.

A success is `{"code":0,"msg":"","data":…}`, an error `{"code":…,"msg":…,"reason":…,"error":…}`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil

import orjson

from service.errors import (
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
from service.store.rate_limit import Quota, RateLimiter
from service.store.record import Session
from service.store.users import User, user_id

_OK = b'{"code":0,"msg":""}'


def ok(data: bytes | None = None, *, status: int = 200, etag: str | None = None) -> Response:
    """A success; `data` is JSON."""
    return Response(_OK if data is None else b'{"code":0,"msg":"","data":%b}' % data, status=status, headers=_etag(etag))


def message(text: str) -> Response:
    """A success that says something instead of carrying data."""
    return Response(orjson.dumps({"code": 0, "msg": text}))


def ready(warnings: Sequence[str]) -> Response:
    """The service can work; `warnings` are sentences for the operator."""
    return Response(orjson.dumps({"code": 0, "msg": "ok", "data": {"warnings": warnings}}))


def not_modified(etag: str) -> Response:
    """What the client has is still so."""
    return Response(status=304, headers=_etag(etag))


def _etag(etag: str | None) -> bytes:
    return b"" if etag is None else b'ETag: "%b"\r\n' % etag.encode()


def failure(error: ServiceError) -> Response:
    """An error in the envelope, with the header that its status asks for."""
    body: dict[str, object] = {"code": error.status, "msg": error.message, "reason": error.reason}
    if error.detail:
        body["error"] = error.detail
    answer = Response(orjson.dumps(body), status=error.status, headers=_headers(error))
    # What still comes of a request that was too late would be taken for the next one.
    answer.keep_alive = not isinstance(error, RequestTimeout)
    answer.pauses = isinstance(error, Overloaded)
    return answer


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


def rate_headers(rates: RateLimiter, allowance: Quota) -> bytes:
    """What a key may ask and what is left of it (draft-ietf-httpapi-ratelimit-headers): header lines."""
    window = ceil(rates.burst / rates.per_second)
    return b'RateLimit-Policy: "key";q=%d;w=%d\r\nRateLimit: "key";r=%d;t=%d\r\n' % (
        rates.burst,
        window,
        allowance.left,
        allowance.reset_after,
    )


@lru_cache(maxsize=8192)
def rfc3339(microseconds: int) -> str:
    """A time (microseconds since 1970) as RFC 3339 UTC with microseconds and Z."""
    seconds, fraction = divmod(microseconds, 1_000_000)
    return f"{_second(seconds)}.{fraction:06d}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def session_json(session: Session, project_id: str) -> bytes:
    """A session as JSON; the stored configs go in as they are.

    `space_id` is always null: there are no spaces here, but older SDKs refuse a session without the field.
    """
    user = b"null" if session.user is None else b'"%b"' % user_id(project_id, session.user).encode()
    return (
        b'{"id":"%b","project_id":"%b","user_id":%b,"space_id":null,"disable_task_tracking":%b,"configs":%b,'
        b'"created_at":"%b","updated_at":"%b","expires_at":%b,"revision":%d}'
    ) % (
        session.id.encode(),
        project_id.encode(),
        user,
        b"true" if session.disable_task_tracking else b"false",
        session.configs,
        rfc3339(session.created_at).encode(),
        rfc3339(session.updated_at).encode(),
        b"null" if session.expires_at is None else b'"%b"' % rfc3339(session.expires_at).encode(),
        session.revision,
    )


def user_json(user: User, project_id: str) -> bytes:
    """A user as JSON."""
    at = rfc3339(user.created_at)
    return orjson.dumps(
        {
            "id": user_id(project_id, user.identifier),
            "project_id": project_id,
            "identifier": user.identifier,
            "created_at": at,
            "updated_at": at,
        }
    )


def list_json(items: list[bytes], cursor: str | None) -> bytes:
    """A page of a list; `cursor` leads to the next page, None on the last."""
    more = b'"has_more":false' if cursor is None else b'"next_cursor":"%b","has_more":true' % cursor.encode()
    return b'{"items":[%b],%b}' % (b",".join(items), more)
