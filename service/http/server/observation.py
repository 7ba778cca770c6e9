"""What is kept of every request: it is counted, and has a line in the access log."""

import logging
from time import monotonic

from aiohttp import web

from service.http.server.admission import Ticket
from service.http.server.counters import Counters
from service.http.server.response import Response

access_log = logging.getLogger("service.access")


class Observer:
    """One worker's; `counters` is None if nobody reads them."""

    def __init__(self, counters: Counters | None, *, logs: bool) -> None:
        self._counters = counters
        self._logs = logs

    def finish(self, request: web.BaseRequest, request_id: str, ticket: Ticket, response: Response, started: float) -> None:
        """The request that began at `started` (monotonic) has its response."""
        seconds = monotonic() - started
        if self._counters is not None:
            self._counters.request(request.method, ticket.route, response.status, seconds)
            if response.reason:
                self._counters.refused(response.reason)
        if self._logs:
            path = request.path_qs.partition("?")[0]
            access_log.info("%s %s %s %d %.1f ms", request_id, request.method, path, response.status, seconds * 1000)

    def refuse(self, request_id: str, peer: str, response: Response) -> None:
        """Input is answered with an error without having become a request. It may be anything, so none of it is logged."""
        if self._counters is not None:
            self._counters.refused(response.reason)
        if self._logs:
            access_log.info("%s refused %s %d", request_id, peer, response.status)
