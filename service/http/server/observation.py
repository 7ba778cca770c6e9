"""What is kept of every request: it is counted, or has a line in the log, or both."""

import logging
import re
from collections.abc import Callable
from time import monotonic
from typing import Protocol
from uuid import UUID

from aiohttp import web
from aiohttp.hdrs import AUTHORIZATION

from service.http.server import headers
from service.http.server.admission import Ticket
from service.http.server.counters import Counters
from service.http.server.response import Response
from service.process.logs import Event

access_log = logging.getLogger("service.access")

#: The ETag of a session ends with the revision; that of a file has letters.
_REVISION = re.compile(rb'^ETag: "[\d-]*?(\d+)"\r$', re.MULTILINE)


class Observer(Protocol):
    """Receives every request of a worker: `Counters`, or a `RequestLog`, which passes them on to `Counters`."""

    def finish(self, request: web.BaseRequest, request_id: str, ticket: Ticket, response: Response, started: float) -> None:
        """The request that began at `started` (monotonic) has its response."""

    def refuse(self, request_id: str, peer: str, response: Response) -> None:
        """Input is answered with an error without having become a request."""


class RequestLog:
    """Logs every request. `counters` is None if nobody reads them; `project_of` is that of the worker's API keys."""

    def __init__(self, counters: Counters | None, project_of: Callable[[str], str]) -> None:
        self._counters = counters
        self._project_of = project_of

    def finish(self, request: web.BaseRequest, request_id: str, ticket: Ticket, response: Response, started: float) -> None:
        """The request that began at `started` (monotonic) has its response."""
        seconds = monotonic() - started
        if self._counters is not None:
            self._counters.finish(request, request_id, ticket, response, started)
        event = Event(request_id=request_id, method=request.method, route=ticket.route, status=response.status)
        event["milliseconds"] = round(seconds * 1000, 3)
        event.update((name, value) for name, value in self._details(request, ticket, response).items() if value)
        access_log.info(event)

    def refuse(self, request_id: str, peer: str, response: Response) -> None:
        """Input is answered with an error without having become a request. It may be anything, so none of it is logged."""
        if self._counters is not None:
            self._counters.refuse(request_id, peer, response)
        access_log.info(Event(request_id=request_id, peer=peer, status=response.status, reason=response.reason))

    def _details(self, request: web.BaseRequest, ticket: Ticket, response: Response) -> dict[str, str | int]:
        """Values that many requests do not have. No path, query, header or body is among them: they may contain anything."""
        revision, traceparent = _REVISION.search(response.headers), headers.traceparent(request.headers)
        return {
            # Looked up again: when the request arrived, the worker may not have known the key.
            "project": self._project_of(request.headers.get(AUTHORIZATION, "")),
            "session": _session_id(ticket),
            "revision": int(revision[1]) if revision else 0,
            "reason": response.reason,
            "trace": traceparent["trace"] if traceparent else "",
        }


def _session_id(ticket: Ticket) -> str:
    """The id of the session that a request is about; "" if it is about none."""
    if "/session" not in ticket.route:
        return ""
    try:
        return str(UUID(ticket.subject))
    except ValueError:
        return ""
