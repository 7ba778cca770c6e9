"""The one table of routes, each with what it takes and gives. Paths below `API` need a key."""

from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from importlib.metadata import version
from typing import NamedTuple

from service.configs.limits import Limits
from service.errors import (
    FilterTooExpensive,
    NotServed,
    SessionNotFound,
    StoreEmpty,
    StoreUnavailable,
    Unreadable,
    UserNotFound,
)
from service.http.api import health, openapi, project, schemas, sessions, users
from service.http.api.openapi import Operation
from service.http.api.schemas import (
    CONDITIONS,
    CURSOR,
    DONE,
    FILTER,
    IF_NONE_IN_USE,
    READY,
    TIME_DESC,
    USER,
    data,
    ref,
    said,
)
from service.http.server.context import Call
from service.http.server.response import Response
from service.http.server.router import BELOW

API = "/api/v1"
#: Answered however busy the worker is.
HEALTH = "/health"

Handler = Callable[[Call], Awaitable[Response]]


class Endpoint(NamedTuple):
    """What a request needs of its route: the handler, and the names of the query parameters and conditions that it takes."""

    handler: Handler
    query: frozenset[str]
    conditions: frozenset[str]


class Route(NamedTuple):
    """One row: `handler` answers `method` on `path` as `operation` describes it."""

    method: str
    path: str
    handler: Handler
    operation: Operation

    @property
    def endpoint(self) -> Endpoint:
        """What its requests need of it."""
        return Endpoint(self.handler, self.operation.names_in("query"), self.operation.names_in("header"))


async def describe(call: Call) -> Response:
    """GET /openapi.json: this table, for programs."""
    return Response(_description(call.settings))


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
        id="ready", summary="Redis can be reached, takes writes, and holds the store", answers={200: READY},
        errors=(StoreUnavailable, StoreEmpty), key=False,
    )),
    Route("GET", "/openapi.json", describe, Operation(
        id="describe", summary="this description", answers={200: {"type": "object"}}, key=False,
    )),
    Route("GET", f"{API}/ping", health.ping, Operation(
        id="ping", summary="the key is good", answers={200: said("pong")},
    )),
    Route("POST", f"{API}/session", sessions.create, Operation(
        id="create_session", summary="create a session; an id in use leads to the session that has it",
        body=ref("NewSession"), body_required=False, parameters=(IF_NONE_IN_USE,), etag=True,
        answers={200: data(ref("Session")), 201: data(ref("Session"))}, errors=(Unreadable,),
    )),
    Route("GET", f"{API}/session", sessions.list_page, Operation(
        id="list_sessions", summary="sessions in the order of their creation",
        parameters=(USER, FILTER, schemas.limit(sessions.DEFAULT_LIMIT, 1, sessions.MAX_LIMIT), CURSOR, TIME_DESC),
        answers={200: data(ref("SessionPage"))}, errors=(FilterTooExpensive,),
    )),
    Route("GET", _SESSION, sessions.get, Operation(
        id="get_session", summary="a session", parameters=CONDITIONS, etag=True,
        answers={200: data(ref("Session"))}, errors=(SessionNotFound, Unreadable),
    )),
    Route("DELETE", _SESSION, sessions.delete, Operation(
        id="delete_session", summary="delete a session", parameters=CONDITIONS, answers={200: DONE},
        errors=(SessionNotFound, Unreadable),
    )),
    Route("GET", f"{_SESSION}/configs", sessions.get, Operation(
        id="get_configs", summary="a session, as GET of the session itself", parameters=CONDITIONS, etag=True,
        answers={200: data(ref("Session"))}, errors=(SessionNotFound, Unreadable),
    )),
    Route("PUT", f"{_SESSION}/configs", sessions.replace, Operation(
        id="replace_configs", summary="replace all configs of a session", parameters=CONDITIONS,
        body=ref("ChangedConfigs"), etag=True, answers={200: DONE}, errors=(SessionNotFound, Unreadable),
    )),
    Route("PATCH", f"{_SESSION}/configs", sessions.patch, Operation(
        id="patch_configs", summary="merge into the configs of a session; a null deletes its key", parameters=CONDITIONS,
        body=ref("ChangedConfigs"), etag=True, answers={200: data(ref("WholeConfigs"))}, errors=(SessionNotFound, Unreadable),
    )),
    Route("POST", f"{_SESSION}/copy", sessions.copy, Operation(
        id="copy_session", summary="create a session with the same configs, user and flag", parameters=CONDITIONS, etag=True,
        answers={200: data(ref("CopiedSession"))}, errors=(SessionNotFound, Unreadable),
    )),
    Route("GET", f"{API}/user/ls", users.list_page, Operation(
        id="list_users", summary="users in the order in which they became known; limit 0: the most",
        parameters=(schemas.limit(users.MAX_LIMIT, 0, users.MAX_LIMIT), CURSOR, TIME_DESC),
        answers={200: data(ref("UserPage"))},
    )),
    Route("DELETE", _USER, users.delete, Operation(
        id="delete_user", summary="delete a user with all sessions", answers={200: DONE},
    )),
    Route("GET", f"{_USER}/resources", users.resources, Operation(
        id="count_resources", summary="what a user has", answers={200: data(ref("Resources"))}, errors=(UserNotFound,),
    )),
    Route("GET", f"{API}/project/configs", project.get, Operation(
        id="get_project_configs", summary="the configs of the project itself", answers={200: data({"type": "object"})},
    )),
    Route("PATCH", f"{API}/project/configs", project.patch, Operation(
        id="patch_project_configs", summary="merge into the configs of the project itself; a null deletes its key",
        body=ref("ChangedProjectConfigs"), answers={200: data({"type": "object"})}, errors=(Unreadable,),
    )),
)  # fmt: skip


def _not_served(noun: str, *, plural: bool = True) -> Callable[[], NotServed]:
    """The error of calls about `noun`."""
    return partial(NotServed, noun, plural=plural)


#: Acontext's calls that are not part of this service, whatever the method: path and error. Its SDKs and server name
#: them. They are refused before the body is read, and never with a success: both SDKs would take that for the call done.
NOT_SERVED: tuple[tuple[str, Callable[[], NotServed]], ...] = (
    (f"{_SESSION}/messages", _not_served("messages")),
    (f"{_SESSION}/messages/{{message_id}}/meta", _not_served("messages")),
    (f"{_SESSION}/events", _not_served("events")),
    (f"{_SESSION}/task", _not_served("tasks")),
    (f"{_SESSION}/token_counts", _not_served("token counts")),
    (f"{_SESSION}/observing_status", _not_served("the observing status", plural=False)),
    (f"{_SESSION}/flush", _not_served("flushing messages", plural=False)),
    (f"{_SESSION}/asset/download", _not_served("assets")),
    (f"{_SESSION}/connect_to_space", _not_served("spaces")),
    (f"{_SESSION}/get_learning_status", _not_served("the learning status", plural=False)),
    (f"{API}/sessions/search", _not_served("session search", plural=False)),
    (f"{API}/project/encrypt", _not_served("encryption", plural=False)),
    (f"{API}/project/decrypt", _not_served("encryption", plural=False)),
    (f"{API}/disk{BELOW}", _not_served("disks")),
    (f"{API}/agent_skills{BELOW}", _not_served("agent skills")),
    (f"{API}/sandbox{BELOW}", _not_served("sandboxes")),
    (f"{API}/learning_spaces{BELOW}", _not_served("learning spaces")),
    (f"{API}/space{BELOW}", _not_served("spaces")),
    (f"{API}/tool{BELOW}", _not_served("tools")),
)
