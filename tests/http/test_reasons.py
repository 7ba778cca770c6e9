"""`reason`, the word by which programs distinguish errors: on every error (`tests.support.http`), and in the description."""

import inspect
from typing import Any

import pytest

from service import errors
from service.errors import (
    CallRefused,
    ClientGone,
    LayoutChanged,
    NotFound,
    NothingFound,
    OutputError,
    ProjectFull,
    ProjectNotFound,
    ServerUnreachable,
    ServiceError,
    StartupError,
    StateIncomplete,
    StoreDamaged,
    TooLarge,
    reasons,
)
from tests.support.http import Api
from tests.support.server import request

ID = "0190d1f2-5a3b-4c6d-8e7f-001122334455"
CONFIGS = f"/session/{ID}/configs"
LARGE = b'{"configs":{"a":"%b"}}' % (b"x" * 300_000)
KEYS = b'{"configs":{%b}}' % b",".join(b'"k%d":1' % number for number in range(1025))
TERMS = b'{"configs":{%b}}' % b",".join(b'"k%d":[%b]' % (key, b",".join(b"%d" % n for n in range(64))) for key in range(65))

#: The reasons that the contract names.
CONTRACT = {
    "bad_request", "unauthorized", "session_not_found", "user_not_found", "route_not_found", "method_not_allowed",
    "request_timeout", "stored_configs_corrupt", "precondition_failed", "configs_too_large", "body_too_large", "uri_too_long",
    "head_too_large", "unsupported_media_type", "unsupported_content_coding", "expectation_failed", "filter_too_expensive",
    "rate_limited", "not_implemented", "overloaded", "store_unavailable", "store_empty", "store_full", "write_uncertain",
    "not_replicated", "internal",
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "reason"), [
    ("GET", "/session?limit=0", None, {}, 400, "bad_request"),
    ("GET", "/session/nope", None, {}, 400, "bad_request"),
    ("POST", "/session", b"{", {}, 400, "bad_request"),
    ("GET", "/ping", None, {"Authorization": "Bearer sk-ac-nope"}, 401, "unauthorized"),
    ("GET", f"/session/{ID}", None, {}, 404, "session_not_found"),
    ("DELETE", f"/session/{ID}", None, {}, 404, "session_not_found"),
    ("PUT", CONFIGS, b'{"configs":{}}', {}, 404, "session_not_found"),
    ("PATCH", CONFIGS, b'{"configs":{}}', {}, 404, "session_not_found"),
    ("POST", f"/session/{ID}/copy", None, {}, 404, "session_not_found"),
    ("GET", "/user/nobody/resources", None, {}, 404, "user_not_found"),
    ("GET", "/nope", None, {}, 404, "route_not_found"),
    ("PUT", "/session", b"{}", {}, 405, "method_not_allowed"),
    ("PATCH", CONFIGS, b'{"configs":{}}', {"If-Match": "*"}, 412, "precondition_failed"),
    ("POST", "/session", LARGE, {}, 413, "configs_too_large"),
    ("POST", "/session", KEYS, {}, 413, "configs_too_large"),
    ("POST", "/session", TERMS, {}, 413, "configs_too_large"),
    ("PATCH", "/project/configs", LARGE, {}, 413, "configs_too_large"),
    ("POST", "/session", b" " * 1_048_577, {}, 413, "body_too_large"),
    ("POST", "/session", b"x", {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
    ("POST", "/session", b"{}", {"Expect": "more"}, 417, "expectation_failed"),
    ("GET", f"/session/{ID}/messages", None, {}, 501, "not_implemented"),
])  # fmt: skip
def test_an_error_has_its_reason(
    api: Api, method: str, path: str, body: bytes | None, headers: dict[str, str], status: int, reason: str
) -> None:
    response = api.send(method, path, body, headers)
    assert (response.status, response.reason) == (status, reason)
    assert list(response.body)[:3] == ["code", "msg", "reason"]


def all_errors() -> list[type[ServiceError]]:
    classes = (each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, ServiceError))
    return [each for each in classes if each not in (NotFound, TooLarge)]  # never raised themselves


def test_every_error_that_a_client_can_get_has_a_distinct_reason() -> None:
    words = [each.reason for each in all_errors() if "reason" in vars(each)]
    assert len(words) == len(set(words))
    assert sorted(word for of_status in reasons().values() for word in of_status) == sorted(words)
    assert set(words) <= CONTRACT
    inheriting = {each for each in all_errors() if "reason" not in vars(each)}
    assert inheriting == {
        ProjectNotFound, StartupError, OutputError, NothingFound, CallRefused, ServerUnreachable,  # only in commands
        StoreDamaged, StateIncomplete, LayoutChanged, ProjectFull,  # an unavailable and a full store
        ClientGone,  # nobody reads it
    }  # fmt: skip


def test_the_description_lists_every_reason_and_those_of_each_status(api: Api) -> None:
    _, document = request("GET", f"{api.server.origin}/openapi.json")
    error: Any = document["components"]["schemas"]["Error"]
    assert set(error["properties"]["reason"]["enum"]) == {word for words in reasons().values() for word in words}
    assert "reason" in error["required"]
    for status, response in document["components"]["responses"].items():
        properties = response["content"]["application/json"]["schema"]["properties"]
        assert properties["code"]["const"] == int(status)
        assert tuple(properties["reason"]["enum"]) == reasons()[int(status)]
