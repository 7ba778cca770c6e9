"""Query parameters are decoded, and unknown ones are refused: a misspelt filter must not list everything."""

import json
from urllib.parse import quote

import pytest

from service.http.api.routes import ROUTES, Route
from service.http.server.query import MAX_NAME, MAX_PAIRS
from service.settings import API_PREFIX
from tests.support.http import Api
from tests.support.raw_http import conversation, head
from tests.support.server import request

LIST_ACCEPTS = "this path accepts cursor, filter_by_configs, limit, time_desc, user"
BELOW_API = [route for route in ROUTES if route.path.startswith(API_PREFIX)]
OUTSIDE = [route for route in ROUTES if not route.path.startswith(API_PREFIX)]


def every_octet(text: str) -> str:
    """`text` with every byte percent-encoded, in lower case hex."""
    return "".join(f"%{byte:02x}" for byte in text.encode())


@pytest.mark.parametrize(
    "name", ["filter%5Fby%5Fconfigs", every_octet("filter_by_configs"), "filter_by_configs", "%66ilter_by_configs"]
)
@pytest.mark.parametrize("encode", [quote, every_octet, lambda text: quote(text).replace("%20", "+")])
def test_names_and_values_are_percent_decoded(api: Api, name: str, encode: object) -> None:
    assert callable(encode)
    api.new({"a": "b c"})
    expected = api.new({"a": "d e+é"})
    response = api.send("GET", f"/session?{name}={encode(json.dumps({'a': 'd e+é'}))}")
    assert [session["id"] for session in response.data["items"]] == [expected]


@pytest.mark.parametrize(("query", "name"), [
    ("id=1", "'id'"), ("filter=%7B%7D", "'filter'"), ("filter_by_config=%7B%22a%22%3A1%7D", "'filter_by_config'"),
    ("Limit=3", "'Limit'"), ("limit%20=3", "'limit '"), ("+limit=3", "' limit'"), ("limit[]=3", "'limit[]'"), ("=", "''"),
    ("=limit", "''"), ("nonsense", "'nonsense'"), ("limit=3&x=1", "'x'"), ("x=1&x=1", "'x'"), ("%ff=1", "'%ff'"),
    ("%zz=1", "'%zz'"), ("limit;x=1", "'limit;x'"), ("a%0d%0ab=1", r"'a\r\nb'"), ("%00=1", r"'\x00'"),
    ("%E2%80%AE=1", r"'\u202e'"),
    ("filter%255Fby%255Fconfigs=1", "'filter%5Fby%5Fconfigs'"), ("k" * 5000, f"'{'k' * MAX_NAME}'..."),
])  # fmt: skip
def test_an_unknown_parameter_gets_400_naming_it_and_the_accepted_ones(api: Api, query: str, name: str) -> None:
    api.new({"a": 1})
    response = api.send("GET", f"/session?{query}")
    assert (response.status, response.msg) == (400, f"unknown query parameter {name}; {LIST_ACCEPTS}")


@pytest.mark.parametrize("query", ["limit=3&limit=3", "limit=3&%6Cimit=4", "user=&user=a", "limit&limit"])
def test_a_repeated_parameter_gets_400(api: Api, query: str) -> None:
    response = api.send("GET", f"/session?{query}")
    assert (response.status, response.msg) == (400, f"query parameter {query[:5].rstrip('=')} is repeated")


@pytest.mark.parametrize("value", ["%", "a%", "%2", "%zz", "100%25%", "%u0041", "%%41"])
def test_a_percent_sign_without_two_hex_digits_gets_400(api: Api, value: str) -> None:
    response = api.send("GET", f"/session?user={value}")
    assert (response.status, response.msg) == (400, "user in the query has a % without two hex digits after it")


@pytest.mark.parametrize(
    "query", ["", "&", "&&&", "limit=1", "&limit=1&", "limit=1&&", "user=&limit=1", "user&limit=1", "limit=1#x"]
)
def test_empty_pairs_and_empty_values_are_tolerated(api: Api, query: str) -> None:
    ids = [api.new(), api.new()]
    (response,) = conversation(api, head(api, f"GET {API_PREFIX}/session?{query} HTTP/1.1"))
    assert [session["id"] for session in response.data["items"]] == (ids[:1] if "limit" in query else ids)


def test_the_number_of_pairs_is_limited(api: Api) -> None:
    assert api.send("GET", f"/session?{'&' * (MAX_PAIRS - 1)}").status == 200
    for query in ("&" * MAX_PAIRS, "&".join(["limit=1"] * (MAX_PAIRS + 1)), "&" * 60_000):
        response = api.send("GET", f"/session?{query}")
        assert (response.status, response.msg) == (400, f"the query has more than {MAX_PAIRS} parameters")


def send(api: Api, route: Route, query: str) -> tuple[int, str]:
    """Status and message of a valid request on a route, with a query."""
    path = route.path.removeprefix(API_PREFIX).format(session_id=api.new({"a": 1}, user="alice"), identifier="alice")
    body = None if route.operation.body is None else b'{"configs":{"b":2}}'
    response = api.send(route.method, f"{path}?{query}", body)
    return response.status, response.msg


@pytest.mark.parametrize("route", BELOW_API, ids=lambda route: route.operation.id)
def test_every_api_route_refuses_unknown_parameters_and_changes_nothing(api: Api, route: Route) -> None:
    names = ", ".join(sorted(route.endpoint.query))
    accepts = f"this path accepts {names or 'none'}"
    assert send(api, route, "nonsense=1") == (400, f"unknown query parameter 'nonsense'; {accepts}")
    assert [session["revision"] for session in api.page()["items"]] == [1]
    assert api.call("GET", "/project/configs").data == {}
    assert send(api, route, "&")[0] in (200, 201)


@pytest.mark.parametrize("route", OUTSIDE, ids=lambda route: route.operation.id)
@pytest.mark.parametrize("query", ["x=1", "x=1&x=2", "%zz=%ff", "&" * 1000])
def test_paths_outside_the_api_ignore_the_query(api: Api, route: Route, query: str) -> None:
    assert request(route.method, f"{api.server.origin}{route.path}?{query}")[0] == 200


def test_key_route_and_method_are_checked_before_the_query(api: Api) -> None:
    assert api.send("GET", "/session?x=1", headers={"Authorization": ""}).status == 401
    assert api.send("GET", "/nope?x=1").status == 404
    assert api.send("PATCH", "/session?x=1").status == 405
