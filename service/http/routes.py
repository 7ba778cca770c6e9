"""The one table of routes. Paths below `API` need a key."""

from collections.abc import Awaitable, Callable

from service.http.answer import Answer
from service.http.context import Call
from service.http.handlers import health, project, sessions, users

API = "/api/v1"

Handler = Callable[[Call], Awaitable[Answer]]

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/health", health.health),
    ("GET", "/ready", health.ready),
    ("GET", f"{API}/ping", health.ping),
    ("POST", f"{API}/session", sessions.create),
    ("GET", f"{API}/session", sessions.list_page),
    ("GET", f"{API}/session/{{session_id}}", sessions.get),
    ("DELETE", f"{API}/session/{{session_id}}", sessions.delete),
    ("GET", f"{API}/session/{{session_id}}/configs", sessions.get),
    ("PUT", f"{API}/session/{{session_id}}/configs", sessions.replace),
    ("PATCH", f"{API}/session/{{session_id}}/configs", sessions.patch),
    ("POST", f"{API}/session/{{session_id}}/copy", sessions.copy),
    ("GET", f"{API}/user/ls", users.list_page),
    ("DELETE", f"{API}/user/{{identifier}}", users.delete),
    ("GET", f"{API}/user/{{identifier}}/resources", users.resources),
    ("GET", f"{API}/project/configs", project.get),
    ("PATCH", f"{API}/project/configs", project.patch),
)
