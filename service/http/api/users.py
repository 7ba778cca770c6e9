"""Users of a project."""

from service.http.api import parsing, representations
from service.http.server.context import Call
from service.http.server.response import Response
from service.store.cursors import decode_user_cursor

#: The most users of one page; an absent limit or 0 means as many.
MAX_LIMIT = 200


async def list_page(call: Call) -> Response:
    """GET /user/ls."""
    parameters = call.query
    cursor = parameters.get("cursor")
    users, next_cursor = await call.store.users.page(
        limit=parsing.integer(parameters, "limit", default=0, minimum=0, maximum=MAX_LIMIT) or MAX_LIMIT,
        after=decode_user_cursor(cursor) if cursor else None,
        descending=parsing.boolean(parameters, "time_desc"),
    )
    items = [representations.user_json(user, call.store.project.id) for user in users]
    return representations.ok(representations.list_json(items, next_cursor))


async def delete(call: Call) -> Response:
    """DELETE /user/{identifier}."""
    await call.store.users.delete(parsing.user_identifier(call.parameter))
    return representations.ok()


async def resources(call: Call) -> Response:
    """GET /user/{identifier}/resources."""
    count = await call.store.users.count_sessions(parsing.user_identifier(call.parameter))
    return representations.ok(b'{"counts":{"sessions_count":%d,"disks_count":0,"skills_count":0}}' % count)
