"""GET /openapi.json: the table of routes, described for programs."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib.metadata import version

from service.configs.limits import Limits
from service.http.api import openapi
from service.http.api.openapi import Operation
from service.http.server.context import Call, Handler
from service.http.server.response import Response


def handler(routes: Callable[[], Iterable[tuple[str, str, Operation]]]) -> Handler:
    """The handler, which describes `routes` (method, path, operation). They include this handler, so they are read later."""

    @lru_cache(maxsize=1)
    def document(limits: Limits) -> bytes:
        return openapi.document(routes(), limits, version("session-config-cache"))

    async def describe(call: Call) -> Response:
        return Response(document(call.settings))

    return describe
