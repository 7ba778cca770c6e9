"""The one table of routes. Paths below `API` need a key."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from service.http.handlers import health, project, sessions, users

API = "/api/v1"

# One segment of a path, braces included, which aiohttp's own pattern leaves out: ids and identifiers may have them.
_SESSION, _USER = "{session_id:[^/]+}", "{identifier:[^/]+}"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/health", health.health),
    ("GET", "/ready", health.ready),
    ("GET", f"{API}/ping", health.ping),
    ("POST", f"{API}/session", sessions.create),
    ("GET", f"{API}/session", sessions.list_page),
    ("GET", f"{API}/session/{_SESSION}", sessions.get),
    ("DELETE", f"{API}/session/{_SESSION}", sessions.delete),
    ("GET", f"{API}/session/{_SESSION}/configs", sessions.get),
    ("PUT", f"{API}/session/{_SESSION}/configs", sessions.replace),
    ("PATCH", f"{API}/session/{_SESSION}/configs", sessions.patch),
    ("POST", f"{API}/session/{_SESSION}/copy", sessions.copy),
    ("GET", f"{API}/user/ls", users.list_page),
    ("DELETE", f"{API}/user/{_USER}", users.delete),
    ("GET", f"{API}/user/{_USER}/resources", users.resources),
    ("GET", f"{API}/project/configs", project.get),
    ("PATCH", f"{API}/project/configs", project.patch),
)
