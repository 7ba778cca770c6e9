"""Fuzzing: schemathesis generates valid and invalid requests from the description; every response must be as described.

Nothing may be logged meanwhile (conftest): no traceback, whatever is sent.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi import checks

from service.http.api.routes import ROUTES, Route
from tests.support.http import Api
from tests.support.openapi import description
from tests.support.server import PATIENCE

#: Where the expectations of schemathesis differ: conditions fail, limits give 413, a cursor must come from a list, an empty
#: parameter counts as absent, and DELETE of the user "ls" is not an operation of the list of users.
EXPECTED = {
    "checks": {
        "negative_data_rejection": {"expected-statuses": [400, 401, 404, 405, 412, 413, 415, 417]},
        "positive_data_acceptance": {"expected-statuses": ["2xx", 304, 404, 412, 413]},
    },
    "operations": [
        {
            "include-operation-id": ["list_sessions", "list_users"],
            "checks": {
                "positive_data_acceptance": {"expected-statuses": ["2xx", 400]},
                "negative_data_rejection": {"expected-statuses": ["2xx", 400, 401]},
            },
        },
    ],
}
#: `test_envelope` tests unsupported methods better; the checks that send requests again take too long for what they find.
EXCLUDED = [checks.unsupported_method, checks.allow_header_conformance, checks.ignored_auth]

AnyCase = Case[Any]

EXAMPLES = settings(max_examples=25, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
MODES = pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
#: Routes without parameters and body have nothing to vary.
VARIABLE = [route for route in ROUTES if "{" in route.path or route.operation.parameters or route.operation.body]


@cache
def schema(origin: str) -> Any:  # noqa: ANN401 - schemathesis's own
    return schemathesis.openapi.from_dict(description(origin).document, config=schemathesis.Config.from_dict(EXPECTED))


def operation(api: Api, route: Route) -> Any:  # noqa: ANN401 - schemathesis's own
    return schema(api.server.origin)[route.path][route.method]


@pytest.fixture
def client() -> Iterator[requests.Session]:
    with requests.Session() as client:
        yield client


def send(api: Api, client: requests.Session, case: AnyCase) -> None:
    """Send a request, and compare the response with the description."""
    # In JSON Schema 60.0 is an integer; the service requires a TTL without a fraction.
    body = case.body if isinstance(case.body, dict) else {}
    for name in ("ttl", "session_ttl"):
        value = body.get(name)
        if isinstance(value, float) and value.is_integer():
            body[name] = int(value)
    response = case.call(api.server.origin, client, {"Authorization": f"Bearer {api.key}"}, timeout=PATIENCE)
    case.validate_response(response, excluded_checks=EXCLUDED)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation.id)
@MODES
def test_boundary_values_of_the_description(api: Api, client: requests.Session, route: Route, mode: GenerationMode) -> None:
    tested = operation(api, route)
    generation = tested.schema.config.generation_for(operation=tested)
    for case in tested.schema.iter_coverage_cases(tested, generation_modes=[mode], generation_config=generation):
        send(api, client, case)
    api.ids()


@pytest.mark.parametrize("route", VARIABLE, ids=lambda route: route.operation.id)
@MODES
def test_random_requests(api: Api, client: requests.Session, route: Route, mode: GenerationMode) -> None:
    session_id = api.new({"agent": "bot1"}, user="alice")
    # Existing sessions and users, and missing ones.
    existing = {"session_id": session_id} if "{session_id}" in route.path else {"identifier": "alice"}
    tested = operation(api, route)
    strategy = tested.as_strategy(generation_mode=mode)
    if "{" in route.path:
        strategy |= tested.as_strategy(generation_mode=mode, path_parameters=existing)

    @EXAMPLES
    @given(case=strategy)
    def run(case: AnyCase) -> None:
        send(api, client, case)

    run()
    api.ids()
