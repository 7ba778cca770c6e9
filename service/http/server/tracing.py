"""Spans for OpenTelemetry: one for each request, below it one for each call of a script. Imported only with the setting `otel`.

A span says no more of a request than the access log. Spans are exported by a thread of the worker, as the variables OTEL_* say.
"""

from threading import Thread
from time import time_ns

from aiohttp import web

from service import __version__
from service.errors import StartupError
from service.http.server import headers
from service.http.server.admission import NO_ROUTE, Ticket
from service.http.server.connections import RequestCallback
from service.http.server.context import WorkerContext
from service.http.server.counters import METHODS
from service.http.server.observation import Observer
from service.http.server.response import Response
from service.redis_client.client import Meter
from service.store.script_calls import SCRIPTS

try:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as missing:
    raise StartupError(
        f"setting otel needs packages that are not installed: pip install '.[otel]', in the checkout ({missing})"
    ) from None

#: Seconds for exporting the last spans at shutdown.
FLUSH_SECONDS = 2.0

#: Instead of a method that no route has: that may be any text.
_OTHER_METHOD = "_OTHER"
_SCRIPT_NAMES = {script.sha: script.name for script in SCRIPTS}
_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """Traces one worker. Make it in the worker's process, because threads do not survive a fork, and before its dispatch."""

    def __init__(self, worker: WorkerContext, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("session-config-cache", __version__)
        worker.observer = RequestSpans(worker.observer)
        worker.redis.meter = ScriptSpans(self._tracer, worker.redis.meter)

    @classmethod
    def start(cls, worker: WorkerContext) -> "Tracing":
        """Export the worker's spans over OTLP/HTTP."""
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(worker, provider)

    def traced(self, dispatch: RequestCallback) -> RequestCallback:
        """`dispatch`, with a span around each request; RequestSpans completes the span."""

        async def dispatch_in_span(request: web.BaseRequest) -> Response:
            # Without tracestate: it may contain anything, and would be exported.
            traceparent = headers.traceparent(request.headers)
            parent = _PROPAGATOR.extract({"traceparent": traceparent["fields"] if traceparent else ""})
            with self._tracer.start_as_current_span(
                "HTTP",
                context=parent,
                kind=trace.SpanKind.SERVER,
                record_exception=False,  # its message may quote configs
                set_status_on_exception=False,
            ):
                return await dispatch(request)

        return dispatch_in_span

    def stop(self) -> None:
        """Export the spans that are left, for at most `FLUSH_SECONDS`; others are lost."""
        flush = Thread(target=self._provider.shutdown, daemon=True)
        flush.start()
        flush.join(FLUSH_SECONDS)


class RequestSpans:
    """`Observer` that completes the span of a request, after `inner` has received it."""

    def __init__(self, inner: Observer | None) -> None:
        self._inner = inner

    def finish(self, request: web.BaseRequest, request_id: str, ticket: Ticket, response: Response, started: float) -> None:
        """The request that began at `started` (monotonic) has its response."""
        if self._inner is not None:
            self._inner.finish(request, request_id, ticket, response, started)
        span = trace.get_current_span()
        if not span.is_recording():
            return
        method = request.method if request.method in METHODS else _OTHER_METHOD
        span.set_attribute("http.request.method", method)
        span.set_attribute("http.response.status_code", response.status)
        span.set_attribute("scc.request_id", request_id)
        name = "HTTP" if method == _OTHER_METHOD else method
        if ticket.route != NO_ROUTE:
            span.set_attribute("http.route", ticket.route)
            name = f"{name} {ticket.route}"
        span.update_name(name)
        if response.reason:
            span.set_attribute("error.type", response.reason)
        if response.status >= 500:
            span.set_status(trace.StatusCode.ERROR)

    def refuse(self, request_id: str, peer: str, response: Response) -> None:
        """Input is answered with an error without having become a request: it has no span."""
        if self._inner is not None:
            self._inner.refuse(request_id, peer, response)


class ScriptSpans:
    """`Meter` that makes a span of each call of a script that belongs to a request, after `inner` has received it."""

    def __init__(self, tracer: trace.Tracer, inner: Meter | None) -> None:
        self._tracer = tracer
        self._inner = inner

    def called(self, sha: str, seconds: float) -> None:
        """The call of a script, or a batch of calls of it, has its replies or has failed, after so many seconds."""
        if self._inner is not None:
            self._inner.called(sha, seconds)
        if not trace.get_current_span().is_recording():
            return
        name, end = _SCRIPT_NAMES[sha], time_ns()
        attributes = {"db.system.name": "redis", "db.operation.name": "EVALSHA", "db.stored_procedure.name": name}
        start = end - int(seconds * 1_000_000_000)
        span = self._tracer.start_span(name, kind=trace.SpanKind.CLIENT, attributes=attributes, start_time=start)
        span.end(end)

    def retried(self, count: int) -> None:
        """So many commands are sent to Redis again."""
        if self._inner is not None:
            self._inner.retried(count)


def _resource() -> Resource:
    """What the spans say of this process: as the variables say, which may leave out the service's name."""
    resource = Resource.create({SERVICE_VERSION: __version__})
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return resource.merge(Resource({SERVICE_NAME: "session-config-cache"}))
    return resource
