"""The dispatch without a server: errors keep no body in memory, and draining waits for every request."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from service.errors import BadRequest, ClientGone
from service.http.api import conditions
from service.http.server.admission import AdmissionControl
from service.http.server.context import Call, Handler, WorkerContext
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
        return SimpleNamespace(etag_prefix="")


class FakeLimiter:
    """A rate that is never reached."""

    burst = 10
    per_second = 10.0

    async def acquire(self, api_key: str) -> Quota:  # noqa: ARG002 - the same for every key
        return Quota(9, 1, 0)


def dispatch_to(handler: Handler, limiter: FakeLimiter | None = None) -> Dispatch:
    """A dispatch with one route."""
    worker = SimpleNamespace(admission=AdmissionControl(4), rate_limiter=limiter, api_keys=FakeKeys(), observer=None)
    router = Router([("GET", "/api/v1/x", Endpoint("/api/v1/x", handler, frozenset(), frozenset()))], ())
    return Dispatch(cast("WorkerContext", worker), router, conditions.parse, api_prefix="/api/v1", health_path="/health")


def get() -> web.Request:
    """A request for that route."""
    return make_mocked_request("GET", "/api/v1/x", {"Authorization": "Bearer sk-ac-x"})


@pytest.fixture
def no_cycle_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_cycle_collector")
@pytest.mark.parametrize("limiter", [None, FakeLimiter()], ids=["no rate limit", "a rate limit"])
@pytest.mark.parametrize(("kind", "status"), [(BadRequest, 400), (RuntimeError, 500)])
async def test_an_error_that_is_part_of_a_cycle_keeps_no_body_in_memory(
    limiter: FakeLimiter | None, kind: type[Exception], status: int
) -> None:
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
            error = kind("not JSON")
            raise error from cause
        raise AssertionError

    dispatch = dispatch_to(handle, limiter)
    response = await dispatch(get())
    assert response.status == status
    assert [body() for body in bodies] == [None, None]


async def test_a_client_that_is_gone_is_no_sign_of_overload() -> None:
    async def handle(call: Call) -> Response:  # noqa: ARG001 - a handler's signature
        raise ClientGone

    response = await dispatch_to(handle)(get())
    assert (response.status, response.reason, orjson.loads(response.body)["reason"]) == (503, "client_gone", "overloaded")


async def test_draining_waits_for_every_request_in_flight() -> None:
    releases: list[asyncio.Event] = []

    async def handle(call: Call) -> Response:  # noqa: ARG001 - a handler's signature
        releases.append(asyncio.Event())
        await releases[-1].wait()
        return Response(b"")

    dispatch = dispatch_to(handle)
    requests = [asyncio.create_task(dispatch(get())) for _ in range(3)]
    while len(releases) < len(requests):  # noqa: ASYNC110 - the dispatch has no event to wait for
        await asyncio.sleep(0)
    draining = asyncio.create_task(dispatch.drain(3600.0))
    for number, request in enumerate(requests):
        await asyncio.sleep(0)
        assert not draining.done(), f"{len(requests) - number} requests are in flight"
        releases[number].set()
        await request
        for _ in range(5):
            await asyncio.sleep(0)
    assert draining.done()
    await draining
