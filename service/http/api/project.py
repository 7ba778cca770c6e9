"""The configs of the project itself."""

from service.configs.criteria import check_criteria
from service.configs.document import Document, parse
from service.errors import BadRequest
from service.http.api import parsing, representations
from service.http.server.context import Call
from service.http.server.response import Response


async def get(call: Call) -> Response:
    """GET /project/configs."""
    return representations.ok(await call.store.configs.get())


async def patch(call: Call) -> Response:
    """PATCH /project/configs: the body is the bare object of changes."""
    limits = call.settings
    raw = await parsing.read_body(call)
    values = parse(raw, max_nesting=limits.max_nesting) if raw else None
    if values is None or values == {}:
        raise BadRequest("empty body")
    if not isinstance(values, dict):
        raise BadRequest("the body must be a JSON object")
    check_criteria(values)
    return representations.ok(await call.store.configs.patch(Document.build(values, raw, limits, is_indexed=False)))
