"""The description of the API (OpenAPI 3.1), made from the table of routes."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import orjson

from service.configs.limits import Limits
from service.errors import (
    BadRequest,
    BodyTooLarge,
    ConfigsTooLarge,
    ExpectationFailed,
    FilterTooExpensive,
    HeadTooLarge,
    NotReplicated,
    Overloaded,
    PreconditionFailed,
    ProjectFull,
    RequestTimeout,
    ServiceError,
    SessionNotFound,
    StoreEmpty,
    StoreFull,
    StoreUnavailable,
    TooManyRequests,
    Unauthorized,
    Unreadable,
    UnsupportedContentCoding,
    UnsupportedMediaType,
    UriTooLong,
    UserNotFound,
    WriteUncertain,
    reasons,
)
from service.http.api import schemas
from service.http.api.schemas import Schema

Errors = tuple[type[ServiceError], ...]

#: Errors of any path, of those that need an API key, and of those that take a body.
_ALWAYS: Errors = (BadRequest, RequestTimeout, UriTooLong, HeadTooLarge, Overloaded)
_WITH_KEY: Errors = (
    Unauthorized,
    TooManyRequests,
    StoreUnavailable,
    StoreFull,
    ProjectFull,
    StoreEmpty,
    WriteUncertain,
    NotReplicated,
)
_WITH_BODY: Errors = (
    ConfigsTooLarge,
    BodyTooLarge,
    UnsupportedMediaType,
    UnsupportedContentCoding,
    ExpectationFailed,
)
#: All errors of the described paths.
_ALL: Errors = (
    *_ALWAYS,
    *_WITH_KEY,
    *_WITH_BODY,
    PreconditionFailed,
    SessionNotFound,
    UserNotFound,
    Unreadable,
    FilterTooExpensive,
)

_JSON = "application/json"
_TEXT: Schema = {"schema": {"type": "string"}}
_ETAG: Schema = {"schema": {"type": "string", "pattern": '^"[0-9]+-[0-9]+"$'}, "required": True}
_SECONDS: Schema = {"schema": {"type": "integer", "minimum": 1}, "required": True}
#: Headers of every response, and more of errors, by status.
_COMMON: dict[str, Schema] = {"X-Request-Id": {**_TEXT, "required": True}, "RateLimit": _TEXT, "RateLimit-Policy": _TEXT}
_HEADERS: dict[int, dict[str, Schema]] = {
    401: {"WWW-Authenticate": {**_TEXT, "required": True}},
    415: {"Accept": _TEXT, "Accept-Encoding": _TEXT},
    429: {"Retry-After": _SECONDS},
    503: {"Retry-After": _SECONDS},
}

_INTRODUCTION = """\
The sessions of your agents and their configs. Every response is the envelope {code, msg, data}. On success, code is 0. On an
error, code is the HTTP status, and reason is a stable word for programs. Every path with GET supports HEAD too. Unknown paths
get 404, unsupported methods 405, and Acontext's other calls 501. Below /api/v1, undescribed query parameters and conditions
(If-Match, If-None-Match) and repeated parameters get 400.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What one route accepts and returns.

    `responses` has a schema of the whole body for each status of success; `errors` are those in addition to the ones
    that follow from key, body and conditions. The responses of a route with `etag` have an ETag. `body` is the schema of the
    request body.
    """

    id: str
    summary: str
    responses: Mapping[int, Schema]
    errors: Errors = ()
    parameters: tuple[Schema, ...] = ()
    body: Schema | None = None
    body_required: bool = True
    etag: bool = False
    requires_key: bool = True

    def names_in(self, location: str) -> frozenset[str]:
        """The names of its parameters in `location`: query or header."""
        return frozenset(str(parameter["name"]) for parameter in self.parameters if parameter["in"] == location)


def document(routes: Iterable[tuple[str, str, Operation]], limits: Limits, version: str) -> bytes:
    """The OpenAPI document as JSON; `routes` are method, path and operation, `limits` those in force."""
    paths: dict[str, dict[str, Schema]] = {}
    for method, path, operation in routes:
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, operation)
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "Session Config Cache", "version": version, "description": _INTRODUCTION},
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": {
                "schemas": schemas.components(limits),
                "responses": _error_responses(),
                "securitySchemes": {
                    "key": {"type": "http", "scheme": "bearer", "description": "an API key gives access to one project"}
                },
            },
        }
    )


def _operation(method: str, path: str, operation: Operation) -> Schema:
    description: Schema = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": [*(schemas.IN_PATH[name] for name in re.findall(r"{(\w+)}", path)), *operation.parameters],
        "responses": {str(status): response for status, response in sorted(_responses(method, operation))},
        "security": [{"key": []}] if operation.requires_key else [],
    }
    if operation.body is not None:
        description["requestBody"] = {"required": operation.body_required, "content": {_JSON: {"schema": operation.body}}}
    return description


def _responses(method: str, operation: Operation) -> Iterator[tuple[int, Schema]]:
    headers = _COMMON | ({"ETag": _ETAG} if operation.etag else {})
    for status, schema in operation.responses.items():
        yield status, _response(HTTPStatus(status).phrase, headers, schema)
    if method == "GET" and operation.names_in("header"):
        yield 304, _response(HTTPStatus(304).phrase, headers)
    for status in {error.status for error in _errors(operation)}:
        yield status, {"$ref": f"#/components/responses/{status}"}


def _errors(operation: Operation) -> Errors:
    return (
        *_ALWAYS,
        *operation.errors,
        *(_WITH_KEY if operation.requires_key else ()),
        *(_WITH_BODY if operation.body is not None else ()),
        *((PreconditionFailed,) if operation.names_in("header") else ()),
    )


def _error_responses() -> dict[str, Schema]:
    """The error responses by status, each described by the messages of its errors."""
    # A dict in place of an ordered set: some errors of one status share a message.
    messages: dict[int, dict[str, None]] = {}
    for error in _ALL:
        messages.setdefault(error.status, {})[error.message] = None
    by_status = reasons()
    return {
        str(status): _response(
            "; or ".join(texts), _COMMON | _HEADERS.get(status, {}), schemas.error(status, by_status[status])
        )
        for status, texts in messages.items()
    }


def _response(description: str, headers: Mapping[str, Schema], schema: Schema | None = None) -> Schema:
    content = {} if schema is None else {"content": {_JSON: {"schema": schema}}}
    return {"description": description, "headers": headers, **content}
