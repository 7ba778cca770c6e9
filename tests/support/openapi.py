"""The description in /openapi.json, against which every answer that a test gets is checked."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol
from urllib.parse import unquote

import jsonschema_rs
import orjson

from tests.support.server import request

#: What any path may be answered with, described or not: unknown paths and methods, Acontext's other calls, no key, limits.
UNDESCRIBED = {400, 401, 404, 405, 408, 414, 429, 431, 501, 503}


class SupportsGet(Protocol):
    """Headers, from whatever client."""

    def get(self, name: str, /) -> str | None: ...


@dataclass(frozen=True)
class Described:
    """One answer as described: the headers that it must have, and a validator of its body; None where it has none."""

    headers: tuple[str, ...]
    body: Any


class Description:
    """The operations of an OpenAPI document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._operations: dict[tuple[str, str], dict[int, Described]] = {
            (method.upper(), path): {int(status): self._described(answer) for status, answer in operation["responses"].items()}
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }
        self._error = self._validator({"$ref": "#/components/schemas/Error"})

    def _validator(self, schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
        return jsonschema_rs.Draft202012Validator({**schema, "components": self.document["components"]}, validate_formats=True)

    def _described(self, answer: dict[str, Any]) -> Described:
        if "$ref" in answer:
            answer = self.document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        headers = tuple(name for name, header in answer["headers"].items() if header.get("required"))
        content = answer.get("content")
        return Described(headers, content and self._validator(content["application/json"]["schema"]))

    def operations(self) -> set[tuple[str, str]]:
        """Method and path of each."""
        return set(self._operations)

    def statuses(self, method: str, path: str) -> set[int]:
        """The statuses that an operation can be answered with."""
        return set(self._operations[method, path])

    def check(self, method: str, target: str, status: int, headers: SupportsGet, raw: bytes) -> None:
        """Whether this is an answer that the description has for a request."""
        operation = self._find("GET" if method == "HEAD" else method, target)
        if operation is None:
            assert status in UNDESCRIBED, f"{status} on {method} {target}, which is not described"
            described = Described((), self._error)
        else:
            assert status in operation, f"{status} on {method} {target} is not described"
            described = operation[status]
        for name in described.headers:
            assert headers.get(name), f"{status} on {method} {target} without {name}"
        if described.body is None:
            assert raw == b""
        elif method != "HEAD":
            described.body.validate(orjson.loads(raw))

    def _find(self, method: str, target: str) -> dict[int, Described] | None:
        """The operation of a request; a path without a parameter wins over one that has one."""
        segments = [unquote(segment, errors="surrogateescape") for segment in target.partition("?")[0].split("/")]
        found = [
            path
            for described, path in self._operations
            if described == method
            and len(path.split("/")) == len(segments)
            and all(
                bool(segment) if name.startswith("{") else name == segment
                for name, segment in zip(path.split("/"), segments, strict=True)
            )
        ]
        return self._operations[method, min(found, key=lambda path: "{" in path)] if found else None


@cache
def description(origin: str) -> Description:
    """The description that a server gives."""
    status, document = request("GET", f"{origin}/openapi.json")
    assert status == 200
    return Description(document)
