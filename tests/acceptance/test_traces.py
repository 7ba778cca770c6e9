"""`--otel`: what a collector of OpenTelemetry gets of a real server, and that nothing confidential is in it."""

import gzip
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.server import PATIENCE, Serving, Start, request

KEY = "sk-ac-root-of-the-tests"
VALUE = "value-that-nobody-may-read"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
#: So that only the shutdown exports anything.
RARELY = {"OTEL_BSP_SCHEDULE_DELAY": "3600000"}


class Collector(ThreadingHTTPServer):
    """Keeps what is exported to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.bodies: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def spans(self) -> list[Any]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        scopes = [scope for each in requests for resource in each.resource_spans for scope in resource.scope_spans]
        return [span for scope in scopes for span in scope.spans]


class _Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = Thread(target=collector.serve_forever)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


def attributes(span: Any) -> dict[str, str | int]:  # noqa: ANN401 - generated
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def traced(start: Start, endpoint: str) -> Serving:
    variables = {"SCC_ROOT_TOKEN": "root-of-the-tests", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **RARELY}
    return start("--otel", "--workers", "1", "--partitions", "4", **variables)


def test_a_request_has_a_span_below_its_traceparent_and_scripts_have_spans_below_it(start: Start, collector: Collector) -> None:
    serving = traced(start, collector.url)
    headers = {"Authorization": f"Bearer {KEY}", "traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "mine"}
    with urlopen(Request(f"{serving.base_url}/session", headers=headers), timeout=PATIENCE) as response:  # noqa: S310 - our server
        assert response.status == 200
    assert serving.stop() == 0
    (server,) = [span for span in collector.spans if attributes(span).get("scc.request_id") == "mine"]
    assert (server.name, server.kind, server.trace_id.hex(), server.parent_span_id.hex()) == (
        "GET /api/v1/session", server.SPAN_KIND_SERVER, TRACE, PARENT
    )  # fmt: skip
    assert attributes(server) == {
        "http.request.method": "GET",
        "http.route": "/api/v1/session",
        "http.response.status_code": 200,
        "scc.request_id": "mine",
    }
    below = [span for span in collector.spans if span.parent_span_id == server.span_id]
    # One batch for all partitions.
    assert "find_candidates" in [span.name for span in below]
    for span in below:
        assert (span.kind, span.trace_id) == (span.SPAN_KIND_CLIENT, server.trace_id)
        assert server.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= server.end_time_unix_nano


def test_no_span_has_anything_confidential(start: Start, collector: Collector) -> None:
    serving = traced(start, collector.url)
    status, created = request("POST", f"{serving.base_url}/session", KEY, {"configs": {VALUE: VALUE}, "user": "alice"})
    session = created["data"]["id"]
    assert status == 201
    statuses = [
        request(method, f"{serving.base_url}{path}", key, body)[0]
        for method, path, key, body in (
            ("PATCH", f"/session/{session}/configs", KEY, {"configs": {VALUE: 1}}),
            ("GET", f"/session/{session}/configs", KEY, None),
            ("GET", f"/session?user=alice&cursor={VALUE}", KEY, None),
            ("GET", f"/session?filter_by_configs=%7B%22{VALUE}%22:1%7D", KEY, None),
            ("GET", f"/{VALUE}", KEY, None),
            (VALUE.upper(), f"/session/{session}", KEY, None),
            ("GET", f"/user/{VALUE}/resources", f"{KEY}x", None),
        )
    ]
    assert statuses[:2] == [200, 200]
    assert serving.stop() == 0
    assert {attributes(span).get("http.response.status_code") for span in collector.spans} >= {200, 201, 400, 401, 404}
    exported = b"".join(collector.bodies)
    words = (KEY, "root-of-the-tests", VALUE, VALUE.upper(), session, "alice", "default")
    assert [word for word in words if word.encode() in exported] == []


def test_without_a_collector_requests_are_answered_and_the_server_stops(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        serving = traced(start, f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert request("GET", f"{serving.base_url}/ping", KEY)[0] == 200
        assert serving.stop() == 0


def test_without_its_packages_the_setting_is_an_error() -> None:
    program = "import sys; sys.modules['opentelemetry'] = None; from service import cli; sys.exit(cli.main())"
    result = subprocess.run([sys.executable, "-c", program, "serve", "--otel"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "pip install '.[otel]'" in result.stderr


def test_without_the_setting_its_packages_are_not_imported() -> None:
    # redis-py imports the API of OpenTelemetry, where it is installed.
    program = "import sys, service.http.app, service.commands.serve; print('opentelemetry.sdk.trace' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
