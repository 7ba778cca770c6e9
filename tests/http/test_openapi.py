"""The description at /openapi.json: generated from the table of routes, and compared with every response of these tests."""

import json
from typing import Any

import jsonschema_rs
import pytest
import schemathesis

from service.http.api import openapi, routes
from service.settings import API_PREFIX, Settings
from tests.support.http import Api
from tests.support.openapi import Description, description
from tests.support.server import request

ID = "0190d1f2-5a3b-4c6d-8e7f-001122334455"
TABLE = {(route.method, route.path) for route in routes.ROUTES}


@pytest.fixture
def described(api: Api) -> Description:
    return description(api.server.origin)


def test_the_description_needs_no_key_and_contains_none(api: Api) -> None:
    status, document = request("GET", f"{api.server.origin}/openapi.json")
    assert (status, document["openapi"]) == (200, "3.1.0")
    assert "sk-ac-" not in str(document)


def test_the_description_is_valid_openapi(described: Description) -> None:
    schemathesis.openapi.from_dict(described.document).validate()


def test_the_description_has_exactly_the_routes_of_the_table(described: Description) -> None:
    assert described.operations() == TABLE
    assert len(routes.ROUTES) == len(TABLE) == len({route.operation.id for route in routes.ROUTES})


def test_only_paths_outside_the_api_need_no_key(described: Description) -> None:
    paths = described.document["paths"]
    open_paths = {path for path, methods in paths.items() for each in methods.values() if each["security"] == []}
    assert open_paths == {path for path in paths if not path.startswith(API_PREFIX)}
    assert open_paths == {"/health", "/ready", "/openapi.json"}


def test_every_parameter_in_braces_is_described(described: Description) -> None:
    for path, methods in described.document["paths"].items():
        for operation in methods.values():
            in_path = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"]
            assert in_path == [part[1:-1] for part in path.split("/") if part.startswith("{")]


def test_the_description_has_the_configured_limits() -> None:
    def schemas(settings: Settings) -> Any:  # noqa: ANN401 - JSON is any value
        table = [(route.method, route.path, route.operation) for route in routes.ROUTES]
        return json.loads(openapi.document(table, settings, "1"))["components"]["schemas"]

    custom, default = schemas(Settings(max_user_bytes=7, max_keys=9)), schemas(Settings())
    assert (custom["UserIdentifier"]["maxLength"], custom["Configs"]["maxProperties"]) == (7, 9)
    assert (default["UserIdentifier"]["maxLength"], default["Configs"]["maxProperties"]) == (256, 1024)


ERRORS = [
    ("GET", "/session/{session_id}", "", {}, None, 404), ("GET", "/session/{session_id}", "nope", {}, None, 400),
    ("DELETE", "/session/{session_id}", "", {"If-Match": "*"}, None, 412),
    ("PUT", "/session/{session_id}/configs", "", {"If-Match": '"1-1"'}, b'{"configs":{}}', 412),
    ("POST", "/session", "", {}, b'{"configs":{"a":"%b"}}' % (b"x" * 300_000), 413),
    ("POST", "/session", "", {"Content-Type": "text/plain"}, b"x", 415),
    ("POST", "/session", "", {"Expect": "more"}, b"{}", 417),
    ("GET", "/session", "", {"Authorization": ""}, None, 401),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "session_id", "headers", "body", "status"), ERRORS)
def test_errors_have_the_described_status(
    api: Api, described: Description, method: str, path: str, session_id: str, headers: dict[str, str], body: bytes | None,
    status: int,
) -> None:  # fmt: skip
    response = api.send(method, path.replace("{session_id}", session_id or ID), body, headers)
    assert (response.status, status in described.statuses(method, API_PREFIX + path)) == (status, True)


def test_an_undescribed_response_would_be_noticed(described: Description) -> None:
    valid = json.dumps({"code": 0, "msg": "ok"}).encode()
    headers = {"X-Request-Id": "x"}
    described.check("GET", "/health", 200, headers, valid)
    for target, status, response_headers, raw in (
        ("/health", 200, {}, valid),  # a header is missing
        ("/health", 201, headers, valid),  # another status
        ("/health", 404, headers, b'{"code":404,"msg":"no"}'),  # a known path
        ("/nope", 200, headers, valid),  # an unknown path
        ("/nope", 404, headers, b'{"code":404}'),  # not the envelope
        ("/health", 200, headers, b'{"code":0,"msg":"ok","more":1}'),  # a member that is not described
        ("/health", 200, headers, b'{"code":0,"msg":"well"}'),
        (f"/api/v1/session/{ID}", 304, headers | {"ETag": '"1-1"'}, b"{}"),  # a body where there is none
    ):
        with pytest.raises((AssertionError, jsonschema_rs.ValidationError)):
            described.check("GET", target, status, response_headers, raw)
