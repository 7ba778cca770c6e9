"""The Postgres peer: our API over asyncpg with Acontext's table, indexes and queries.

`python -m scripts.benchmark.servers.postgres_api SOCKET_DIRECTORY DATABASE`. Where there was a choice it is the faster one:
jsonb goes through as text, statements are prepared, the key check is a look-up in memory, no ORM, no foreign keys.
"""

import base64
import sys
from datetime import datetime
from uuid import UUID, uuid4

import asyncpg
import orjson
from aiohttp import web

from scripts.benchmark.load.generators import API
from scripts.benchmark.servers import serve

USER, KEY = "bench", "sk-ac-bench"
PROJECT = UUID("5b1d8a4e-0000-4000-8000-000000000001")
PROJECTS = {f"Bearer {KEY}": PROJECT}

SCHEMA = """
CREATE TABLE sessions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    project_id uuid NOT NULL,
    user_id uuid,
    disable_task_tracking boolean NOT NULL DEFAULT false,
    configs jsonb,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP
)"""
INDEXES = (
    "CREATE INDEX idx_sessions_project_id ON sessions (project_id)",
    "CREATE INDEX idx_sessions_user_id ON sessions (user_id)",
    "CREATE INDEX idx_sessions_configs ON sessions USING gin (configs)",
)
#: What Acontext lacks and a filter with many matches would profit from; a row of its own.
ORDER_INDEX = "CREATE INDEX idx_sessions_order ON sessions (project_id, created_at, id)"

_FIELDS = "id, project_id, user_id, disable_task_tracking, configs, created_at, updated_at"
_GET = f"SELECT {_FIELDS} FROM sessions WHERE id = $1 AND project_id = $2"  # noqa: S608 - constants
_MERGED = "UPDATE sessions SET configs = $1, updated_at = now() WHERE id = $2"
_ATOMIC = (
    "UPDATE sessions SET configs = (coalesce(configs, '{}') || $1::jsonb) - $2::text[], updated_at = now()"
    " WHERE id = $3 AND project_id = $4 RETURNING configs"
)
_INSERT = (
    "INSERT INTO sessions (id, project_id, disable_task_tracking, configs) VALUES ($1, $2, false, $3)"  # noqa: S608 - as above
    f" RETURNING {_FIELDS}"
)

DATABASE: web.AppKey["asyncpg.Pool"] = web.AppKey("database", asyncpg.Pool)
LISTING: web.AppKey["asyncpg.Pool"] = web.AppKey("listing", asyncpg.Pool)


def _list_query(*, descending: bool, after: bool) -> str:
    # As Acontext asks, but for the row comparison, which serves an index on the order better than its OR.
    way, beyond = ("DESC", "<") if descending else ("ASC", ">")
    narrowed = f" AND (created_at, id) {beyond} ($4, $5)" if after else ""
    return (
        f"SELECT {_FIELDS} FROM sessions WHERE project_id = $1 AND configs @> $2{narrowed}"  # noqa: S608 - constants
        f" ORDER BY created_at {way}, id {way} LIMIT $3"
    )


_LIST = {
    (descending, after): _list_query(descending=descending, after=after)
    for descending in (False, True)
    for after in (False, True)
}


def _project(request: web.Request) -> UUID:
    project = PROJECTS.get(request.headers.get("Authorization", ""))
    if project is None:
        raise web.HTTPUnauthorized
    return project


def _session(row: "asyncpg.Record") -> str:
    user = f'"{row[2]}"' if row[2] else "null"
    return (
        f'{{"id":"{row[0]}","project_id":"{row[1]}","user_id":{user},"disable_task_tracking":{str(row[3]).lower()},'
        f'"configs":{row[4]},"created_at":"{row[5].isoformat()}","updated_at":"{row[6].isoformat()}"}}'
    )


def _answer(data: str, status: int = 200) -> web.Response:
    body = f'{{"code":0,"msg":"","data":{data}}}'.encode()
    return web.Response(body=body, status=status, content_type="application/json")


def _encode_cursor(row: "asyncpg.Record") -> str:
    return base64.urlsafe_b64encode(f"{row[5].isoformat()}|{row[0]}".encode()).decode()


def _decode_cursor(cursor: str) -> tuple[datetime, UUID]:
    moment, _, session_id = base64.urlsafe_b64decode(cursor).decode().partition("|")
    return datetime.fromisoformat(moment), UUID(session_id)


async def get(request: web.Request) -> web.Response:
    """GET /session/{session_id}/configs."""
    row = await request.app[DATABASE].fetchrow(_GET, UUID(request.match_info["session_id"]), _project(request))
    if row is None:
        raise web.HTTPNotFound
    return _answer(_session(row))


async def list_page(request: web.Request) -> web.Response:
    """GET /session."""
    project, query = _project(request), request.query
    limit, descending, cursor = int(query["limit"]), query["time_desc"] == "true", query.get("cursor")
    after = _decode_cursor(cursor) if cursor else ()
    sql = _LIST[descending, bool(cursor)]
    rows = await request.app[LISTING].fetch(sql, project, query["filter_by_configs"], limit + 1, *after)
    items = ",".join([_session(row) for row in rows[:limit]])
    more = f'"next_cursor":"{_encode_cursor(rows[limit - 1])}","has_more":true' if len(rows) > limit else '"has_more":false'
    return _answer(f'{{"items":[{items}],{more}}}')


async def create(request: web.Request) -> web.Response:
    """POST /session."""
    project = _project(request)
    body = orjson.loads(await request.read())
    session_id = UUID(body["use_uuid"]) if "use_uuid" in body else uuid4()
    row = await request.app[DATABASE].fetchrow(_INSERT, session_id, project, orjson.dumps(body["configs"]).decode())
    assert row is not None  # noqa: S101 - RETURNING
    return _answer(_session(row), 201)


async def patch(request: web.Request) -> web.Response:
    """PATCH /session/{session_id}/configs as Acontext does it: read, merge, write; without a lock."""
    project, session_id = _project(request), UUID(request.match_info["session_id"])
    changes = orjson.loads(await request.read())["configs"]
    pool = request.app[DATABASE]
    row = await pool.fetchrow(_GET, session_id, project)
    if row is None:
        raise web.HTTPNotFound
    merged = orjson.loads(row[4] or "{}") | changes
    configs = orjson.dumps({key: value for key, value in merged.items() if key not in changes or value is not None}).decode()
    await pool.execute(_MERGED, configs, session_id)
    return _answer(f'{{"configs":{configs}}}')


async def patch_atomic(request: web.Request) -> web.Response:
    """PATCH /session/{session_id}/configs/atomic: one UPDATE."""
    project, session_id = _project(request), UUID(request.match_info["session_id"])
    changes = orjson.loads(await request.read())["configs"]
    removed = [key for key, value in changes.items() if value is None]
    configs = await request.app[DATABASE].fetchval(_ATOMIC, orjson.dumps(changes).decode(), removed, session_id, project)
    if configs is None:
        raise web.HTTPNotFound
    return _answer(f'{{"configs":{configs}}}')


def make_app(directory: str, database: str) -> web.Application:
    """The application on the Postgres that listens in `directory`."""
    app = web.Application()
    app.router.add_get(f"{API}/session", list_page)
    app.router.add_post(f"{API}/session", create)
    app.router.add_get(f"{API}/session/{{session_id}}/configs", get)
    app.router.add_patch(f"{API}/session/{{session_id}}/configs", patch)
    app.router.add_patch(f"{API}/session/{{session_id}}/configs/atomic", patch_atomic)

    async def connect(app: web.Application) -> None:
        where = {"host": directory, "user": USER, "database": database}
        app[DATABASE] = await asyncpg.create_pool(**where, min_size=16, max_size=16)
        # A plan made without the filter's value would do badly for rare or for common ones.
        planned = {"plan_cache_mode": "force_custom_plan"}
        app[LISTING] = await asyncpg.create_pool(**where, min_size=2, max_size=4, server_settings=planned)

    app.on_startup.append(connect)
    return app


if __name__ == "__main__":
    serve(make_app(*sys.argv[1:3]))
