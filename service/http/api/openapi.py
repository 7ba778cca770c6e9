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

#: Errors that any path can be answered with; beside them any path that needs a key, and any that takes a body.
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
#: All errors that a described path can be answered with.
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
#: Headers of every answer, and those that errors have beside, by status.
_COMMON: dict[str, Schema] = {"X-Request-Id": {**_TEXT, "required": True}, "RateLimit": _TEXT, "RateLimit-Policy": _TEXT}
_HEADERS: dict[int, dict[str, Schema]] = {
    401: {"WWW-Authenticate": {**_TEXT, "required": True}},
    415: {"Accept": _TEXT, "Accept-Encoding": _TEXT},
    429: {"Retry-After": _SECONDS},
    503: {"Retry-After": _SECONDS},
}

_ABOUT = """\
The sessions of your agents and their configs. Every answer is the envelope {code, msg, data}; code is 0, or the status of an
error, and then reason is a word for programs. A path that takes GET takes HEAD too. Paths and methods that are not here are
answered with 404 and 405, and Acontext's other calls with 501. Below /api/v1, query parameters and conditions (If-Match,
If-None-Match) that are not here, and repeated parameters, are answered with 400.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What one route takes and gives.

    `answers` has a schema of the whole body for each status of success; `errors` are those of its own, beside the ones that
    follow from what it takes. A route with `etag` answers with one; `body` is the JSON that it takes.
    """

    id: str
    summary: str
    answers: Mapping[int, Schema]
    errors: Errors = ()
    parameters: tuple[Schema, ...] = ()
    body: Schema | None = None
    body_required: bool = True
    etag: bool = False
    key: bool = True

    def names_in(self, place: str) -> frozenset[str]:
        """The names of its parameters in `place`, query or header."""
        return frozenset(str(parameter["name"]) for parameter in self.parameters if parameter["in"] == place)


def document(routes: Iterable[tuple[str, str, Operation]], limits: Limits, version: str) -> bytes:
    """The description as JSON; `routes` are method, path and operation, `limits` those in force."""
    paths: dict[str, dict[str, Schema]] = {}
    for method, path, operation in routes:
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, operation)
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "Session Config Cache", "version": version, "description": _ABOUT},
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": {
                "schemas": schemas.components(limits),
                "responses": _refusals(),
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "a key opens one project"}},
            },
        }
    )


def _operation(method: str, path: str, operation: Operation) -> Schema:
    described: Schema = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": [*(schemas.IN_PATH[name] for name in re.findall(r"{(\w+)}", path)), *operation.parameters],
        "responses": {str(status): answer for status, answer in sorted(_answers(method, operation))},
        "security": [{"key": []}] if operation.key else [],
    }
    if operation.body is not None:
        described["requestBody"] = {"required": operation.body_required, "content": {_JSON: {"schema": operation.body}}}
    return described


def _answers(method: str, operation: Operation) -> Iterator[tuple[int, Schema]]:
    headers = _COMMON | ({"ETag": _ETAG} if operation.etag else {})
    for status, schema in operation.answers.items():
        yield status, _answer(HTTPStatus(status).phrase, headers, schema)
    if method == "GET" and operation.names_in("header"):
        yield 304, _answer(HTTPStatus(304).phrase, headers)
    for status in {error.status for error in _errors(operation)}:
        yield status, {"$ref": f"#/components/responses/{status}"}


def _errors(operation: Operation) -> Errors:
    return (
        *_ALWAYS,
        *operation.errors,
        *(_WITH_KEY if operation.key else ()),
        *(_WITH_BODY if operation.body is not None else ()),
        *((PreconditionFailed,) if operation.names_in("header") else ()),
    )


def _refusals() -> dict[str, Schema]:
    """The answers that errors are, by status; what is said of each are the sentences that its errors begin with."""
    # A dict, because some errors of one status share a sentence.
    sentences: dict[int, dict[str, None]] = {}
    for error in _ALL:
        sentences.setdefault(error.status, {})[error.message] = None
    words = reasons()
    return {
        str(status): _answer("; or ".join(messages), _COMMON | _HEADERS.get(status, {}), schemas.error(status, words[status]))
        for status, messages in sentences.items()
    }


def _answer(description: str, headers: Mapping[str, Schema], schema: Schema | None = None) -> Schema:
    content = {} if schema is None else {"content": {_JSON: {"schema": schema}}}
    return {"description": description, "headers": headers, **content}
