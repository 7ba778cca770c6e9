"""The one table of routes, each with what it takes and gives. Paths below `API` need a key."""

from collections.abc import Awaitable, Callable
from functools import lru_cache
from importlib.metadata import version
from typing import NamedTuple

from service.configs.limits import Limits
from service.errors import FilterTooExpensive, NotFound, StoreUnavailable, Unreadable
from service.http import openapi, schemas
from service.http.answer import Answer
from service.http.context import Call
from service.http.handlers import health, project, sessions, users
from service.http.openapi import Operation
from service.http.schemas import CURSOR, DONE, FILTER, IF_MATCH, IF_NONE_MATCH, TIME_DESC, USER, data, ref, said

API = "/api/v1"
#: Answered however busy the worker is.
HEALTH = "/health"

Handler = Callable[[Call], Awaitable[Answer]]


class Route(NamedTuple):
    """One row: `handler` answers `method` on `path` as `operation` describes it."""

    method: str
    path: str
    handler: Handler
    operation: Operation


async def describe(call: Call) -> Answer:
    """GET /openapi.json: this table, for programs."""
    return Answer(_description(call.settings))


@lru_cache(maxsize=1)
def _description(limits: Limits) -> bytes:
    described = ((route.method, route.path, route.operation) for route in ROUTES)
    return openapi.document(described, limits, version("session-config-cache"))


_SESSION = f"{API}/session/{{session_id}}"
_USER = f"{API}/user/{{identifier}}"

ROUTES: tuple[Route, ...] = (
    Route("GET", HEALTH, health.health, Operation(
        id="health", summary="the process serves", answers={200: said("ok")}, key=False,
    )),
    Route("GET", "/ready", health.ready, Operation(
        id="ready", summary="Redis can be reached", answers={200: said("ok")}, errors=(StoreUnavailable,), key=False,
    )),
    Route("GET", "/openapi.json", describe, Operation(
        id="describe", summary="this description", answers={200: {"type": "object"}}, key=False,
    )),
    Route("GET", f"{API}/ping", health.ping, Operation(
        id="ping", summary="the key is good", answers={200: said("pong")},
    )),
    Route("POST", f"{API}/session", sessions.create, Operation(
        id="create_session", summary="create a session; an id in use leads to the session that has it",
        body=ref("NewSession"), body_required=False, etag=True,
        answers={200: data(ref("Session")), 201: data(ref("Session"))}, errors=(Unreadable,),
    )),
    Route("GET", f"{API}/session", sessions.list_page, Operation(
        id="list_sessions", summary="sessions in the order of their creation",
        parameters=(USER, FILTER, schemas.limit(sessions.DEFAULT_LIMIT, 1, sessions.MAX_LIMIT), CURSOR, TIME_DESC),
        answers={200: data(ref("SessionPage"))}, errors=(FilterTooExpensive,),
    )),
    Route("GET", _SESSION, sessions.get, Operation(
        id="get_session", summary="a session", parameters=(IF_NONE_MATCH,), etag=True,
        answers={200: data(ref("Session"))}, errors=(NotFound, Unreadable),
    )),
    Route("DELETE", _SESSION, sessions.delete, Operation(
        id="delete_session", summary="delete a session", parameters=(IF_MATCH,), answers={200: DONE},
        errors=(NotFound, Unreadable),
    )),
    Route("GET", f"{_SESSION}/configs", sessions.get, Operation(
        id="get_configs", summary="a session, as GET of the session itself", parameters=(IF_NONE_MATCH,), etag=True,
        answers={200: data(ref("Session"))}, errors=(NotFound, Unreadable),
    )),
    Route("PUT", f"{_SESSION}/configs", sessions.replace, Operation(
        id="replace_configs", summary="replace all configs of a session", parameters=(IF_MATCH,),
        body=ref("ChangedConfigs"), etag=True, answers={200: DONE}, errors=(NotFound, Unreadable),
    )),
    Route("PATCH", f"{_SESSION}/configs", sessions.patch, Operation(
        id="patch_configs", summary="merge into the configs of a session; a null deletes its key", parameters=(IF_MATCH,),
        body=ref("ChangedConfigs"), etag=True, answers={200: data(ref("WholeConfigs"))}, errors=(NotFound, Unreadable),
    )),
    Route("POST", f"{_SESSION}/copy", sessions.copy, Operation(
        id="copy_session", summary="create a session with the same configs, user and flag", etag=True,
        answers={201: data(ref("CopiedSession"))}, errors=(NotFound, Unreadable),
    )),
    Route("GET", f"{API}/user/ls", users.list_page, Operation(
        id="list_users", summary="users in the order in which they became known; without a limit all",
        parameters=(schemas.limit(0, 0, users.MAX_LIMIT), CURSOR, TIME_DESC), answers={200: data(ref("UserPage"))},
    )),
    Route("DELETE", _USER, users.delete, Operation(
        id="delete_user", summary="delete a user with all sessions", answers={200: DONE},
    )),
    Route("GET", f"{_USER}/resources", users.resources, Operation(
        id="count_resources", summary="what a user has", answers={200: data(ref("Resources"))}, errors=(NotFound,),
    )),
    Route("GET", f"{API}/project/configs", project.get, Operation(
        id="get_project_configs", summary="the configs of the project itself", answers={200: data({"type": "object"})},
    )),
    Route("PATCH", f"{API}/project/configs", project.patch, Operation(
        id="patch_project_configs", summary="merge into the configs of the project itself; a null deletes its key",
        body=ref("ChangedProjectConfigs"), answers={200: data({"type": "object"})}, errors=(Unreadable,),
    )),
)  # fmt: skip
