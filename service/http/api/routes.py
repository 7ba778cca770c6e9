"""The table of routes, each with what it accepts and returns. Paths that start with `API_PREFIX` need an API key."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from service.errors import (
    FilterTooExpensive,
    NotServed,
    SessionNotFound,
    StoreEmpty,
    StoreUnavailable,
    Unreadable,
    UserNotFound,
)
from service.http.api import docs_page, health, openapi_page, project, schemas, sessions, users
from service.http.api.openapi import Operation
from service.http.api.schemas import (
    CONDITIONS,
    CURSOR,
    EMPTY_ENVELOPE,
    FILTER,
    IF_ID_IS_FREE,
    READY,
    TIME_DESC,
    USER,
    data,
    message_envelope,
    ref,
)
from service.http.server.context import Handler
from service.http.server.dispatch import Endpoint
from service.http.server.router import SUBTREE
from service.settings import API_PREFIX

#: Served however busy the worker is.
HEALTH_PATH = "/health"


class Route(NamedTuple):
    """One row: `handler` serves `method` on `path` as `operation` describes it."""

    method: str
    path: str
    handler: Handler
    operation: Operation

    @property
    def endpoint(self) -> Endpoint:
        """What the dispatch needs of the route."""
        return Endpoint(self.path, self.handler, self.operation.names_in("query"), self.operation.names_in("header"))


def _operations() -> Iterator[tuple[str, str, Operation]]:
    return ((route.method, route.path, route.operation) for route in ROUTES)


_SESSION = f"{API_PREFIX}/session/{{session_id}}"
_USER = f"{API_PREFIX}/user/{{identifier}}"

ROUTES: tuple[Route, ...] = (
    Route("GET", HEALTH_PATH, health.health, Operation(
        id="health", summary="the process is alive", responses={200: message_envelope("ok")}, requires_key=False,
    )),
    Route("GET", "/ready", health.ready, Operation(
        id="ready", summary="Redis can be reached, accepts writes, and contains the store", responses={200: READY},
        errors=(StoreUnavailable, StoreEmpty), requires_key=False,
    )),
    Route("GET", "/openapi.json", openapi_page.handler(_operations), Operation(
        id="describe", summary="this description", responses={200: {"type": "object"}}, requires_key=False,
    )),
    Route("GET", f"{API_PREFIX}/ping", health.ping, Operation(
        id="ping", summary="the API key is valid", responses={200: message_envelope("pong")},
    )),
    Route("POST", f"{API_PREFIX}/session", sessions.create, Operation(
        id="create_session", summary="create a session; if use_uuid is in use, return the session that has it",
        body=ref("NewSession"), body_required=False, parameters=(IF_ID_IS_FREE,), etag=True,
        responses={200: data(ref("Session")), 201: data(ref("Session"))}, errors=(Unreadable,),
    )),
    Route("GET", f"{API_PREFIX}/session", sessions.list_page, Operation(
        id="list_sessions", summary="list sessions in order of creation",
        parameters=(USER, FILTER, schemas.limit(sessions.DEFAULT_LIMIT, 1, sessions.MAX_LIMIT), CURSOR, TIME_DESC),
        responses={200: data(ref("SessionPage"))}, errors=(FilterTooExpensive,),
    )),
    Route("GET", _SESSION, sessions.get, Operation(
        id="get_session", summary="get a session", parameters=CONDITIONS, etag=True,
        responses={200: data(ref("Session"))}, errors=(SessionNotFound, Unreadable),
    )),
    Route("DELETE", _SESSION, sessions.delete, Operation(
        id="delete_session", summary="delete a session", parameters=CONDITIONS, responses={200: EMPTY_ENVELOPE},
        errors=(SessionNotFound, Unreadable),
    )),
    Route("GET", f"{_SESSION}/configs", sessions.get, Operation(
        id="get_configs", summary="get a session, same as GET without /configs", parameters=CONDITIONS, etag=True,
        responses={200: data(ref("Session"))}, errors=(SessionNotFound, Unreadable),
    )),
    Route("PUT", f"{_SESSION}/configs", sessions.replace, Operation(
        id="replace_configs", summary="replace all configs of a session", parameters=CONDITIONS,
        body=ref("ChangedConfigs"), etag=True, responses={200: EMPTY_ENVELOPE}, errors=(SessionNotFound, Unreadable),
    )),
    Route("PATCH", f"{_SESSION}/configs", sessions.patch, Operation(
        id="patch_configs", summary="merge into the configs of a session; null deletes a key", parameters=CONDITIONS,
        body=ref("ChangedConfigs"), etag=True, responses={200: data(ref("WholeConfigs"))}, errors=(SessionNotFound, Unreadable),
    )),
    Route("POST", f"{_SESSION}/copy", sessions.copy, Operation(
        id="copy_session", summary="create a session with the same configs, user and disable_task_tracking",
        parameters=CONDITIONS, etag=True, responses={200: data(ref("CopiedSession"))}, errors=(SessionNotFound, Unreadable),
    )),
    Route("GET", f"{API_PREFIX}/user/ls", users.list_page, Operation(
        id="list_users", summary="list users in order of their first session; limit 0 means the maximum",
        parameters=(schemas.limit(users.MAX_LIMIT, 0, users.MAX_LIMIT), CURSOR, TIME_DESC),
        responses={200: data(ref("UserPage"))},
    )),
    Route("DELETE", _USER, users.delete, Operation(
        id="delete_user", summary="delete a user and all their sessions", responses={200: EMPTY_ENVELOPE},
    )),
    Route("GET", f"{_USER}/resources", users.resources, Operation(
        id="count_resources", summary="count the sessions of a user", responses={200: data(ref("Resources"))},
        errors=(UserNotFound,),
    )),
    Route("GET", f"{API_PREFIX}/project/configs", project.get, Operation(
        id="get_project_configs", summary="get the configs of the project itself", responses={200: data({"type": "object"})},
    )),
    Route("PATCH", f"{API_PREFIX}/project/configs", project.patch, Operation(
        id="patch_project_configs", summary="merge into the configs of the project itself; null deletes a key",
        body=ref("ChangedProjectConfigs"), responses={200: data({"type": "object"})}, errors=(Unreadable,),
    )),
)  # fmt: skip

#: Pages for people, on top of the routes; the description of the API does not have them.
PAGES: tuple[tuple[str, str, Endpoint], ...] = tuple(
    ("GET", path, Endpoint(path, handler, frozenset(), frozenset()))
    for path, handler in (("/", docs_page.redirect), ("/docs", docs_page.page), ("/docs/{file}", docs_page.file))
)


def _not_served(noun: str, *, plural: bool = True) -> Callable[[], NotServed]:
    """The error for calls about `noun`."""
    return partial(NotServed, noun, plural=plural)


#: Paths and errors of Acontext's calls that are not part of this service, whatever the method, as its SDKs and server name
#: them. They are refused before the body is read. Both SDKs would take a success for a call that was executed.
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
    (f"{API_PREFIX}/sessions/search", _not_served("session search", plural=False)),
    (f"{API_PREFIX}/project/encrypt", _not_served("encryption", plural=False)),
    (f"{API_PREFIX}/project/decrypt", _not_served("encryption", plural=False)),
    (f"{API_PREFIX}/disk{SUBTREE}", _not_served("disks")),
    (f"{API_PREFIX}/agent_skills{SUBTREE}", _not_served("agent skills")),
    (f"{API_PREFIX}/sandbox{SUBTREE}", _not_served("sandboxes")),
    (f"{API_PREFIX}/learning_spaces{SUBTREE}", _not_served("learning spaces")),
    (f"{API_PREFIX}/space{SUBTREE}", _not_served("spaces")),
    (f"{API_PREFIX}/tool{SUBTREE}", _not_served("tools")),
)
