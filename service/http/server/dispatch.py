"""What happens to every request: admission, authentication, rate limit, route, handler, errors turned into responses."""

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Collection
from typing import NamedTuple
from urllib.parse import unquote

from aiohttp import web
from aiohttp.hdrs import AUTHORIZATION

from service.errors import ClientGone, Overloaded, ServiceError, StateIncomplete, TooManyRequests
from service.http.server import headers, query
from service.http.server.admission import Ticket
from service.http.server.context import Call, Handler, ProjectStore, WorkerContext
from service.http.server.failure import error_response
from service.http.server.headers import Headers
from service.http.server.protocol import client_is_gone, has_memory_for, is_extra
from service.http.server.response import Response
from service.http.server.router import Router
from service.store.conditions import UNCONDITIONAL, Conditions
from service.store.rate_limit import RateLimiter

logger = logging.getLogger("service")

#: Parses the condition headers of a request with a method, for a route that accepts some of them, and the prefix of ETags.
ParseConditions = Callable[[str, Headers, Collection[str], str], Conditions]


class Endpoint(NamedTuple):
    """What the dispatch needs of a route: path, handler, and the names of the query parameters and conditions it accepts."""

    path: str
    handler: Handler
    query: frozenset[str]
    conditions: frozenset[str]


class Dispatch:
    """Answers every request of one worker; called with each."""

    def __init__(
        self,
        worker: WorkerContext,
        router: Router[Endpoint],
        parse_conditions: ParseConditions,
        *,
        api_prefix: str,
        health_path: str,
    ) -> None:
        """Paths that start with `api_prefix` need an API key; `health_path` is served however busy the worker is."""
        self._worker = worker
        self._router = router
        self._parse_conditions = parse_conditions
        self._api_prefix = api_prefix
        self._health_path = health_path
        self._observer = worker.observer
        self._admission = worker.admission
        self._rate_limiter = worker.rate_limiter
        self._draining = False
        self._drained: asyncio.Future[None] | None = None

    async def __call__(self, request: web.BaseRequest) -> Response:
        """The response in the envelope, whatever happens."""
        started = 0.0 if self._observer is None else time.monotonic()
        request_id = headers.request_id(request.headers)
        ticket = Ticket(self._worker.api_keys.project_of(request.headers.get(AUTHORIZATION, "")))
        response = await self._answer(request, request_id, ticket)
        response.headers += b"X-Request-Id: %b\r\n" % request_id.encode()
        if headers.TRACEPARENT in request.headers:
            response.headers += headers.server_timing(request.headers)
        if self._observer is not None:
            self._observer.finish(request, request_id, ticket, response, started)
        if self._draining:
            response.keep_alive = False
        return response

    async def _answer(self, request: web.BaseRequest, request_id: str, ticket: Ticket) -> Response:
        """The response without the headers that every response has."""
        self._admission.in_flight += 1
        path, _, raw_query = request.path_qs.partition("?")
        try:
            if path == self._health_path:
                return await self._serve(request, path, raw_query, ticket)
            # Before any work: refusing must cost next to nothing, or the refusals would be the overload.
            if is_extra(request) or not self._admission.make_room(ticket.project):
                raise Overloaded
            if not self._admission.acquire(ticket):
                await self._admission.wait(ticket)
                # The client has disconnected; do no work nobody will read.
                if client_is_gone(request):
                    raise ClientGone
            response = await self._serve(request, path, raw_query, ticket)
            if not has_memory_for(request, response):
                raise Overloaded
        except ServiceError as error:
            response = error_response(error)
            _clear_frames(error)
        except Exception as error:
            # Neither query nor body goes to the log: both may contain configs.
            logger.exception("request %s: %s %s failed", request_id, request.method, path)
            response = error_response(ServiceError())
            _clear_frames(error)
        finally:
            self._admission.release(ticket)
            self._admission.in_flight -= 1
            if self._drained is not None and self._admission.in_flight == 0 and not self._drained.done():
                self._drained.set_result(None)
        return response

    async def _serve(self, request: web.BaseRequest, path: str, raw_query: str, ticket: Ticket) -> Response:
        """Authenticate a request below the API's prefix, and handle it."""
        project_store = None
        # By the decoded path, like the router: /%61pi/v1 is the API too. Unknown paths of the API need a key as well.
        # A percent-encoded character takes three, so no more than this needs to be decoded.
        if (unquote(path[: 3 * len(self._api_prefix)]) if "%" in path else path).startswith(self._api_prefix):
            project_store = await self._worker.api_keys.authenticate(headers.authorization(request.headers))
            if self._rate_limiter is not None:
                return await self._handle_within_rate(request, path, raw_query, ticket, project_store, self._rate_limiter)
        return await self._handle(request, path, raw_query, ticket, project_store)

    async def _handle(
        self, request: web.BaseRequest, path: str, raw_query: str, ticket: Ticket, project_store: ProjectStore | None
    ) -> Response:
        """As `_route`. If a write finds no owner of its partition, a new look-up of the API key shows why.

        Raises:
            Unauthorized: the project was deleted.
            LayoutChanged: the store was moved to another number of partitions.
            StateIncomplete: neither; the store is damaged.
        """
        try:
            return await self._route(request, path, raw_query, ticket, project_store)
        except StateIncomplete:
            await self._worker.api_keys.authenticate(request.headers.get(AUTHORIZATION, ""), anew=True)
            raise

    def _route(
        self, request: web.BaseRequest, path: str, raw_query: str, ticket: Ticket, project_store: ProjectStore | None
    ) -> Awaitable[Response]:
        """Check that the route accepts the query and the conditions, and call its handler."""
        method = request.method
        endpoint, parameter = self._router.find(method, path)
        ticket.route, ticket.subject = endpoint.path, parameter
        if project_store is None:
            # Not the API: whatever else a health check sends is no reason to fail it.
            return endpoint.handler(Call(request, parameter, self._worker, ticket, None, query.NONE, UNCONDITIONAL))
        parameters = query.parse(raw_query, endpoint.query) if raw_query else query.NONE
        conditions = self._parse_conditions(method, request.headers, endpoint.conditions, project_store.etag_prefix)
        return endpoint.handler(Call(request, parameter, self._worker, ticket, project_store, parameters, conditions))

    async def _handle_within_rate(
        self,
        request: web.BaseRequest,
        path: str,
        raw_query: str,
        ticket: Ticket,
        project_store: ProjectStore,
        limiter: RateLimiter,
    ) -> Response:
        """As `_handle`, within the rate limit of the API key; every response has the headers of the quota left."""
        quota = await limiter.acquire(headers.api_key(request.headers))
        try:
            if quota.wait:
                raise TooManyRequests(quota.wait)
            response = await self._handle(request, path, raw_query, ticket, project_store)
        except ServiceError as error:
            response = error_response(error)
            _clear_frames(error)
        response.headers += headers.rate_limit(limiter, quota)
        return response

    def start_draining(self) -> None:
        """Close each connection after its next response."""
        self._draining = True

    async def drain(self, seconds: float) -> None:
        """Wait until every request in flight has its response, requests still being received included; `seconds` at most.

        aiohttp's own shutdown would drop the rest of a body that arrives after it started.
        """
        self._drained = asyncio.get_running_loop().create_future()
        if self._admission.in_flight:
            await asyncio.wait([self._drained], timeout=seconds)


def _clear_frames(error: BaseException | None) -> None:
    """Clear the frames of an error's traceback and of its causes: they may reference a whole body.

    An exception is often part of a cycle (a stream keeps the one that ended it), and the cycle collector runs rarely.
    """
    errors = [error]
    while errors:
        error = errors.pop()
        if error is not None and error.__traceback__ is not None:
            traceback.clear_frames(error.__traceback__)
            error.__traceback__ = None
            errors += (error.__cause__, error.__context__)
