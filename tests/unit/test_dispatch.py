"""The dispatch of requests whose handlers fail: no error keeps a body in memory. No server runs, and nothing is sent."""

import gc
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest
from aiohttp.test_utils import make_mocked_request

from service.errors import BadRequest
from service.http.api import conditions
from service.http.server.admission import AdmissionControl
from service.http.server.context import Call, WorkerContext
from service.http.server.dispatch import Dispatch, Endpoint
from service.http.server.response import Response
from service.http.server.router import Router
from service.store.rate_limit import Quota


class Body:
    """Stands for a body, which may be large."""


class FakeKeys:
    """Every key gives access."""

    def project_of(self, authorization: str) -> str:  # noqa: ARG002 - the same for every key
        return "acme"

    async def authenticate(self, authorization: str) -> object:  # noqa: ARG002 - the same for every key
        return object()


class FakeLimiter:
    """A rate that is never reached."""

    burst = 10
    per_second = 10.0

    async def acquire(self, api_key: str) -> Quota:  # noqa: ARG002 - the same for every key
        return Quota(9, 1, 0)


@pytest.fixture
def no_cycle_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_cycle_collector")
@pytest.mark.parametrize("limiter", [None, FakeLimiter()], ids=["no rate limit", "a rate limit"])
async def test_an_error_that_is_part_of_a_cycle_keeps_no_body_in_memory(limiter: FakeLimiter | None) -> None:
    bodies = []

    def parse() -> None:
        body = Body()
        bodies.append(weakref.ref(body))
        error = ValueError()  # the traceback refers to this frame, and the frame to the error
        raise error

    async def handle(call: Call) -> Response:  # noqa: ARG001 - a handler's signature
        body = Body()
        bodies.append(weakref.ref(body))
        try:
            parse()
        except ValueError as cause:
            error = BadRequest("not JSON")
            raise error from cause
        raise AssertionError

    worker = SimpleNamespace(
        settings=SimpleNamespace(access_log=False), admission=AdmissionControl(4), rate_limiter=limiter, api_keys=FakeKeys()
    )
    router = Router([("GET", "/api/v1/x", Endpoint(handle, frozenset(), frozenset()))], ())
    dispatch = Dispatch(cast("WorkerContext", worker), router, conditions.parse, api_prefix="/api/v1", health_path="/health")
    response = await dispatch(make_mocked_request("GET", "/api/v1/x", {"Authorization": "Bearer sk-ac-x"}))
    assert response.status == 400
    assert [body() for body in bodies] == [None, None]
