"""The spans of one worker, in memory: what they say of unusual requests, and which calls have none."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import StatusCode

from service.http.server.admission import NO_ROUTE, Ticket
from service.http.server.context import WorkerContext
from service.http.server.response import Response
from service.http.server.tracing import Tracing
from service.store.script_calls import SCRIPTS

PATCH = next(script for script in SCRIPTS if script.name == "patch")


class Recorder:
    """Observer and meter that record their calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any method of either
        return lambda *_: self.calls.append(name)


class Traced:
    """A worker whose requests call one script, with traces in memory."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self.exporter = InMemorySpanExporter()
        self.inner = Recorder()
        self.worker = cast("WorkerContext", SimpleNamespace(observer=self.inner, redis=SimpleNamespace(meter=self.inner)))
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(self.worker, provider)

    def call(self) -> None:
        assert self.worker.redis.meter is not None
        self.worker.redis.meter.called(PATCH.sha, 0.25)

    async def request(self, method: str, response: Response, route: str = NO_ROUTE, **headers: str) -> None:
        """Answer a request after a call of the script."""

        async def dispatch(request: web.BaseRequest) -> Response:
            self.call()
            ticket = Ticket("acme")
            ticket.route = route
            assert self.worker.observer is not None
            self.worker.observer.finish(request, "id", ticket, response, 0.0)
            return response

        assert await self.tracing.traced(dispatch)(make_mocked_request(method, "/x?y=z", headers)) is response

    @property
    def spans(self) -> Iterator[ReadableSpan]:
        return iter(self.exporter.get_finished_spans())


async def test_a_call_takes_the_measured_time_within_the_span_of_its_request() -> None:
    traced = Traced()
    await traced.request("PATCH", Response(), "/api/v1/x")
    call, request = traced.spans
    assert (call.name, request.name) == ("patch", "PATCH /api/v1/x")
    assert call.parent is not None
    assert request.context is not None
    assert call.parent.span_id == request.context.span_id
    assert call.start_time is not None
    assert call.end_time is not None
    assert call.end_time - call.start_time == 250_000_000
    assert traced.inner.calls == ["called", "finish"]


@pytest.mark.parametrize(("status", "code"), [(500, StatusCode.ERROR), (503, StatusCode.ERROR), (404, StatusCode.UNSET)])
async def test_only_errors_of_the_server_are_errors_of_the_span(status: int, code: StatusCode) -> None:
    traced = Traced()
    await traced.request("GET", Response(status=status, reason="why"), "/api/v1/x")
    _, request = traced.spans
    assert request.status.status_code is code
    assert request.attributes is not None
    assert request.attributes["error.type"] == "why"


async def test_a_method_that_no_route_has_is_not_named() -> None:
    traced = Traced()
    await traced.request("HUSH", Response(status=404, reason="why"))
    _, request = traced.spans
    assert request.name == "HTTP"
    assert request.attributes == {
        "http.request.method": "_OTHER", "http.response.status_code": 404, "scc.request_id": "id", "error.type": "why"
    }  # fmt: skip


@pytest.mark.parametrize("header", ["", "nonsense", f"00-{'0' * 32}-{'1' * 16}-01", f"00-{'1' * 32}-{'2' * 16}-01-x"])
async def test_without_a_valid_traceparent_a_request_begins_a_trace(header: str) -> None:
    traced = Traced()
    await traced.request("GET", Response(), traceparent=header, tracestate="vendor=hush")
    _, request = traced.spans
    assert request.parent is None


async def test_tracestate_is_not_exported() -> None:
    traced = Traced()
    await traced.request("GET", Response(), traceparent=f"00-{'1' * 32}-{'2' * 16}-01", tracestate="vendor=hush")
    for span in traced.spans:
        assert span.context is not None
        assert dict(span.context.trace_state) == {}


async def test_the_inner_ones_receive_requests_that_are_not_sampled_and_calls_outside_requests() -> None:
    traced = Traced(ALWAYS_OFF)
    await traced.request("GET", Response())
    assert list(traced.spans) == []
    assert traced.inner.calls == ["called", "finish"]
    outside = Traced()
    outside.call()
    assert list(outside.spans) == []
    assert outside.inner.calls == ["called"]
