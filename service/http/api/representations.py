"""Successful responses: sessions, users and lists in the envelope `{"code":0,"msg":"","data":…}`, built from JSON bytes."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

import orjson

from service.http.server.response import Response
from service.store.record import Session, StoredSession, parse_user
from service.store.users import User, user_id

_OK = b'{"code":0,"msg":""}'


def ok(data: bytes | None = None, *, status: int = 200, etag: str | None = None) -> Response:
    """A success, with `data`, which is JSON, or without."""
    return Response(_OK if data is None else b'{"code":0,"msg":"","data":%b}' % data, status=status, headers=_etag(etag))


def message(text: str) -> Response:
    """A success whose `msg` is `text`."""
    return Response(orjson.dumps({"code": 0, "msg": text}))


def ready(warnings: Sequence[str]) -> Response:
    """The service is ready; `warnings` are sentences for the operator."""
    return Response(orjson.dumps({"code": 0, "msg": "ok", "data": {"warnings": warnings}}))


def not_modified(etag: str) -> Response:
    """304: the state that the client has is current."""
    return Response(status=304, headers=_etag(etag))


def _etag(etag: str | None) -> bytes:
    return b"" if etag is None else b'ETag: "%b"\r\n' % etag.encode()


@lru_cache(maxsize=8192)
def rfc3339(microseconds: int) -> str:
    """A time (microseconds since 1970) as RFC 3339 UTC with microseconds and Z."""
    seconds, fraction = divmod(microseconds, 1_000_000)
    return f"{_second(seconds)}.{fraction:06d}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


#: A session as JSON. `space_id` is always null: this service has no spaces, but older SDKs refuse a session without the field.
_SESSION = (
    b'{"id":"%b","project_id":"%b","user_id":%b,"space_id":null,"disable_task_tracking":%b,"configs":%b,'
    b'"created_at":"%b","updated_at":"%b","expires_at":%b,"revision":%d}'
)


def session_json(session: Session, project_id: str) -> bytes:
    """A session as JSON; the stored configs are copied verbatim."""
    user = b"null" if session.user is None else b'"%b"' % user_id(project_id, session.user).encode()
    return _SESSION % (
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


def stored_session_json(session: StoredSession, configs: bytes, project_id: bytes) -> bytes:
    """What `session_json` makes of the parsed session, made of the stored one; `configs` takes the place of its configs."""
    created_at = _stored_time(session.created_at)
    return _SESSION % (
        session.raw_id if session.raw_id.isascii() else session.id.encode(),
        project_id,
        b"null" if session.user is None else b'"%b"' % user_id(project_id.decode(), parse_user(session.user)).encode(),
        b"true" if session.disable_task_tracking == b"1" else b"false",
        configs,
        created_at,
        created_at if session.updated_at == session.created_at else _stored_time(session.updated_at),
        b"null" if session.expires_at is None else b'"%b"' % _stored_time(session.expires_at),
        int(session.revision),
    )


@lru_cache(maxsize=8192)
def _stored_time(stored: bytes) -> bytes:
    return rfc3339(int(stored)).encode()


def user_json(user: User, project_id: str) -> bytes:
    """A user as JSON. Users never change, so `updated_at` is `created_at`."""
    created_at = rfc3339(user.created_at)
    return orjson.dumps(
        {
            "id": user_id(project_id, user.identifier),
            "project_id": project_id,
            "identifier": user.identifier,
            "created_at": created_at,
            "updated_at": created_at,
        }
    )


def list_json(items: list[bytes], cursor: str | None) -> bytes:
    """A page of a list; `cursor` is that of the next page, None on the last."""
    more = b'"has_more":false' if cursor is None else b'"next_cursor":"%b","has_more":true' % cursor.encode()
    return b'{"items":[%b],%b}' % (b",".join(items), more)
