"""What every request passes: a request id, the route, the key check, the handler, and errors turned into answers."""

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable
from urllib.parse import unquote

from aiohttp import web

from service.errors import Overloaded, ServiceError, StateIncomplete, TooManyRequests
from service.http.api import conditions, parsing, representations
from service.http.api.routes import API, HEALTH, NOT_SERVED, ROUTES
from service.http.server import query
from service.http.server.admission import Ticket
from service.http.server.context import Call, Store, Worker
from service.http.server.protocol import client_is_gone, is_extra
from service.http.server.response import Response
from service.http.server.router import Router
from service.store.conditions import UNCONDITIONAL
from service.store.rate_limit import RateLimiter

log = logging.getLogger("service")
access_log = logging.getLogger("service.access")


class Dispatch:
    """Answers every request of one worker; called with each."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._router = Router(((route.method, route.path, route.endpoint) for route in ROUTES), NOT_SERVED)
        self._logs = worker.settings.access_log
        self._admission = worker.admission
        self._rates = worker.rates
        self._ending = False
        self._drained: asyncio.Future[None] | None = None

    async def __call__(self, request: web.BaseRequest) -> Response:
        """Answer in the envelope, whatever happens."""
        self._admission.in_flight += 1
        started = time.monotonic() if self._logs else 0.0
        path, _, raw_query = request.path_qs.partition("?")
        request_id = parsing.request_id(request.headers)
        ticket = Ticket(self._worker.keys.project_of(request.headers.get("Authorization", "")))
        try:
            if path == HEALTH:
                answer = await self._served(request, path, raw_query, ticket)
            # Before anything is done for it: a refusal must cost next to nothing, or refusing would be the overload.
            elif is_extra(request) or not self._admission.make_room(ticket.project):
                raise Overloaded
            else:
                if not self._admission.acquire(ticket):
                    await self._admission.wait(ticket)
                    # Do no work that nobody will read.
                    if client_is_gone(request):
                        raise Overloaded
                answer = await self._served(request, path, raw_query, ticket)
        except ServiceError as error:
            answer = representations.failure(error)
            _free(error)
        except Exception:
            # Neither the query nor the body goes to the log: both may hold configs.
            log.exception("request %s: %s %s failed", request_id, request.method, path)
            answer = representations.failure(ServiceError())
        finally:
            self._admission.release(ticket)
            self._admission.in_flight -= 1
            if self._drained is not None and self._admission.in_flight == 0 and not self._drained.done():
                self._drained.set_result(None)
        answer.headers += b"X-Request-Id: %b\r\n" % request_id.encode()
        if self._logs:
            milliseconds = (time.monotonic() - started) * 1000
            access_log.info("%s %s %s %d %.1f ms", request_id, request.method, path, answer.status, milliseconds)
        if self._ending:
            answer.keep_alive = False
        return answer

    async def _served(self, request: web.BaseRequest, path: str, raw_query: str, ticket: Ticket) -> Response:
        opened = None
        # By the decoded path, as routes are found: /%61pi/v1 leads to the API too. Unknown paths of the API need a key as well.
        # An escaped character takes three, so that more than this need not be decoded.
        if (unquote(path[: 3 * len(API)]) if "%" in path else path).startswith(API):
            opened = await self._worker.keys.authenticate(parsing.authorization(request.headers))
            if self._rates is not None:
                return await self._rated(request, path, raw_query, ticket, opened, self._rates)
        return await self._handled(request, path, raw_query, ticket, opened)

    async def _handled(
        self, request: web.BaseRequest, path: str, raw_query: str, ticket: Ticket, opened: Store | None
    ) -> Response:
        """As `_routed`. Where a write finds nobody's keys, a new look-up of the API key says whether its project is gone.

        Raises:
            Unauthorized: it is.
            LayoutChanged: its partition is, for the store was moved to another number of them.
            StateIncomplete: neither; somebody damaged the store.
        """
        try:
            return await self._routed(request, path, raw_query, ticket, opened)
        except StateIncomplete:
            await self._worker.keys.authenticate(request.headers.get("Authorization", ""), anew=True)
            raise

    def _routed(
        self, request: web.BaseRequest, path: str, raw_query: str, ticket: Ticket, opened: Store | None
    ) -> Awaitable[Response]:
        """The handler's answer, once all that the request asks for is known to be something that its route takes."""
        method = request.method
        endpoint, parameter = self._router.find(method, path)
        if opened is None:
            # Not a path of the API: whatever else a health check sends is no reason to fail it.
            return endpoint.handler(Call(request, parameter, self._worker, ticket, None, query.NONE, UNCONDITIONAL))
        parameters = query.parse(raw_query, endpoint.query) if raw_query else query.NONE
        preconditions = conditions.parse(method, request.headers, endpoint.conditions)
        return endpoint.handler(Call(request, parameter, self._worker, ticket, opened, parameters, preconditions))

    async def _rated(
        self, request: web.BaseRequest, path: str, raw_query: str, ticket: Ticket, opened: Store, rates: RateLimiter
    ) -> Response:
        """As `_served`, within the rate of the key; every answer tells what is left of it."""
        allowance = await rates.acquire(parsing.key(request.headers))
        try:
            if allowance.wait:
                raise TooManyRequests(allowance.wait)
            answer = await self._handled(request, path, raw_query, ticket, opened)
        except ServiceError as error:
            answer = representations.failure(error)
            _free(error)
        answer.headers += representations.rate_headers(rates, allowance)
        return answer

    def start_draining(self) -> None:
        """Let every answer from here on close its connection."""
        self._ending = True

    async def drain(self, seconds: float) -> None:
        """Wait until every request in hand has its answer, its body still on the way included; `seconds` at most.

        aiohttp's own end would drop what arrives of a body after it began.
        """
        self._drained = asyncio.get_running_loop().create_future()
        if self._admission.in_flight:
            await asyncio.wait([self._drained], timeout=seconds)


def _free(error: BaseException | None) -> None:
    """Free what the frames hold that an error and its causes came through: a body, say.

    An exception is often part of a cycle (a stream keeps the one that broke it off), and the collector of cycles runs rarely.
    """
    errors = [error]
    while errors:
        error = errors.pop()
        if error is not None and error.__traceback__ is not None:
            traceback.clear_frames(error.__traceback__)
            error.__traceback__ = None
            errors += (error.__cause__, error.__context__)
