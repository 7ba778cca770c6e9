"""What every request passes: a request id, the translation of errors into answers, the key check."""

import logging

from aiohttp import web
from aiohttp.typedefs import Handler

from service.errors import BadRequest, MethodNotAllowed, NotFound, ServiceError, TooLarge
from service.http import envelope, requests
from service.http.context import PROJECT, context
from service.http.routes import API

log = logging.getLogger("service")


@web.middleware
async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every request an answer in the envelope, and its id."""
    request_id = requests.request_id(request)
    try:
        response = await handler(request)
    except ServiceError as error:
        response = envelope.failure(error)
    except web.HTTPException as error:
        response = envelope.failure(_of_aiohttp(error))
    except Exception:
        # Neither the query nor the body goes to the log: both may hold configs.
        log.exception("request %s: %s %s failed", request_id, request.method, request.rel_url.raw_path)
        response = envelope.failure(ServiceError())
    response.headers["X-Request-Id"] = request_id
    return response


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find the project that the key opens, for all paths of the API, unknown ones included."""
    # The decoded path, because routes are found by it: /%61pi/v1 leads to the API too.
    if request.rel_url.path.startswith(API):
        request[PROJECT] = await context(request).keys.open(request.headers.get("Authorization", ""))
    return await handler(request)


def _of_aiohttp(error: web.HTTPException) -> ServiceError:
    match error:
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed(error.allowed_methods)
        case web.HTTPNotFound():
            return NotFound("there is no such route")
        case web.HTTPRequestEntityTooLarge():
            return TooLarge("the body is too large")
        case web.HTTPException(status=status) if status < 500:
            return BadRequest(error.reason.lower())
        case _:
            return ServiceError()
