"""Users of a project."""

from aiohttp import web

from service.http import envelope, requests
from service.http.context import PROJECT, users
from service.store.users import decode_cursor

MAX_LIMIT = 200


async def list_page(request: web.Request) -> web.Response:
    """GET /user/ls."""
    parameters = requests.query(request)
    cursor = parameters.get("cursor")
    found, next_cursor = await users(request).page(
        limit=requests.whole_number(parameters, "limit", default=0, least=0, most=MAX_LIMIT),
        after=decode_cursor(cursor) if cursor else None,
        descending=requests.boolean(parameters, "time_desc"),
    )
    items = [envelope.user_json(user, request[PROJECT].id) for user in found]
    return envelope.ok(envelope.list_json(items, next_cursor))


async def delete(request: web.Request) -> web.Response:
    """DELETE /user/{identifier}."""
    await users(request).delete(requests.identifier(request))
    return envelope.ok()


async def resources(request: web.Request) -> web.Response:
    """GET /user/{identifier}/resources."""
    count = await users(request).count_sessions(requests.identifier(request))
    return envelope.ok(b'{"counts":{"sessions_count":%d,"disks_count":0,"skills_count":0}}' % count)
