"""The same API over Postgres, by asyncpg with Acontext's table, indexes and queries.

`python -m scripts.benchmark.servers.postgres_api SOCKET_DIRECTORY DATABASE`. It takes the faster alternative in each case:
jsonb passes through as text, statements are prepared, API keys are checked in memory, no ORM, no foreign keys.
"""

import base64
import sys
from datetime import datetime
from uuid import UUID, uuid4

import asyncpg
import orjson
from aiohttp import web

from scripts.benchmark.load.requests import API, API_KEY
from scripts.benchmark.servers.aiohttp_server import serve
from scripts.benchmark.servers.postgres import PROJECT, USER

_PROJECTS = {f"Bearer {API_KEY}": PROJECT}

_FIELDS = "id, project_id, user_id, disable_task_tracking, configs, created_at, updated_at"
_GET = f"SELECT {_FIELDS} FROM sessions WHERE id = $1 AND project_id = $2"  # noqa: S608 - constants
_UPDATE = "UPDATE sessions SET configs = $1, updated_at = now() WHERE id = $2"
_UPDATE_ATOMICALLY = (
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
    # Acontext's query, but with a row comparison, which makes better use of an index on the order than Acontext's OR.
    direction, comparison = ("DESC", "<") if descending else ("ASC", ">")
    condition = f" AND (created_at, id) {comparison} ($4, $5)" if after else ""
    return (
        f"SELECT {_FIELDS} FROM sessions WHERE project_id = $1 AND configs @> $2{condition}"  # noqa: S608 - constants
        f" ORDER BY created_at {direction}, id {direction} LIMIT $3"
    )


_LIST = {
    (descending, after): _list_query(descending=descending, after=after)
    for descending in (False, True)
    for after in (False, True)
}


def _project(request: web.Request) -> UUID:
    project = _PROJECTS.get(request.headers.get("Authorization", ""))
    if project is None:
        raise web.HTTPUnauthorized
    return project


def _session(row: "asyncpg.Record") -> str:
    user = f'"{row[2]}"' if row[2] else "null"
    return (
        f'{{"id":"{row[0]}","project_id":"{row[1]}","user_id":{user},"disable_task_tracking":{str(row[3]).lower()},'
        f'"configs":{row[4]},"created_at":"{row[5].isoformat()}","updated_at":"{row[6].isoformat()}"}}'
    )


def _response(data: str, status: int = 200) -> web.Response:
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
    return _response(_session(row))


async def list_page(request: web.Request) -> web.Response:
    """GET /session."""
    project, query = _project(request), request.query
    limit, descending, cursor = int(query["limit"]), query["time_desc"] == "true", query.get("cursor")
    after = _decode_cursor(cursor) if cursor else ()
    sql = _LIST[descending, bool(cursor)]
    rows = await request.app[LISTING].fetch(sql, project, query["filter_by_configs"], limit + 1, *after)
    items = ",".join([_session(row) for row in rows[:limit]])
    more = f'"next_cursor":"{_encode_cursor(rows[limit - 1])}","has_more":true' if len(rows) > limit else '"has_more":false'
    return _response(f'{{"items":[{items}],{more}}}')


async def create(request: web.Request) -> web.Response:
    """POST /session."""
    project = _project(request)
    body = orjson.loads(await request.read())
    session_id = UUID(body["use_uuid"]) if "use_uuid" in body else uuid4()
    row = await request.app[DATABASE].fetchrow(_INSERT, session_id, project, orjson.dumps(body["configs"]).decode())
    assert row is not None  # noqa: S101 - RETURNING
    return _response(_session(row), 201)


async def patch(request: web.Request) -> web.Response:
    """PATCH /session/{session_id}/configs as Acontext does it: read, merge, write, without a lock."""
    project, session_id = _project(request), UUID(request.match_info["session_id"])
    changes = orjson.loads(await request.read())["configs"]
    pool = request.app[DATABASE]
    row = await pool.fetchrow(_GET, session_id, project)
    if row is None:
        raise web.HTTPNotFound
    merged = orjson.loads(row[4] or "{}") | changes
    configs = orjson.dumps({key: value for key, value in merged.items() if key not in changes or value is not None}).decode()
    await pool.execute(_UPDATE, configs, session_id)
    return _response(f'{{"configs":{configs}}}')


async def patch_atomic(request: web.Request) -> web.Response:
    """PATCH /session/{session_id}/configs/atomic, which Acontext lacks: the same in one UPDATE."""
    project, session_id = _project(request), UUID(request.match_info["session_id"])
    changes = orjson.loads(await request.read())["configs"]
    removed = [key for key, value in changes.items() if value is None]
    configs = await request.app[DATABASE].fetchval(
        _UPDATE_ATOMICALLY, orjson.dumps(changes).decode(), removed, session_id, project
    )
    if configs is None:
        raise web.HTTPNotFound
    return _response(f'{{"configs":{configs}}}')


def make_app(directory: str, database: str) -> web.Application:
    """The application over one database of the Postgres with its socket in `directory`."""
    app = web.Application()
    app.router.add_get(f"{API}/session", list_page)
    app.router.add_post(f"{API}/session", create)
    app.router.add_get(f"{API}/session/{{session_id}}/configs", get)
    app.router.add_patch(f"{API}/session/{{session_id}}/configs", patch)
    app.router.add_patch(f"{API}/session/{{session_id}}/configs/atomic", patch_atomic)

    async def connect(app: web.Application) -> None:
        options = {"host": directory, "user": USER, "database": database}
        app[DATABASE] = await asyncpg.create_pool(**options, min_size=16, max_size=16)
        # A generic plan, made without the filter's value, would be bad for rare or for common values.
        settings = {"plan_cache_mode": "force_custom_plan"}
        app[LISTING] = await asyncpg.create_pool(**options, min_size=2, max_size=4, server_settings=settings)

    app.on_startup.append(connect)
    return app


if __name__ == "__main__":
    serve(make_app(*sys.argv[1:3]))
