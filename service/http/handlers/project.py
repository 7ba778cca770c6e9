"""The project's own configs."""

from aiohttp import web

from service.configs.document import document, parse
from service.errors import BadRequest
from service.http import envelope, requests
from service.http.context import context, project_configs


async def get(request: web.Request) -> web.Response:
    """GET /project/configs."""
    return envelope.ok(await project_configs(request).get())


async def patch(request: web.Request) -> web.Response:
    """PATCH /project/configs: the body is the bare object of changes."""
    limits = context(request).settings
    raw = await requests.read_body(request, limits)
    values = parse(raw, max_nesting=limits.max_nesting) if raw else None
    if values is None or values == {}:
        raise BadRequest("empty body")
    if not isinstance(values, dict):
        raise BadRequest("the body must be a JSON object")
    return envelope.ok(await project_configs(request).patch(document(values, raw, limits)))
