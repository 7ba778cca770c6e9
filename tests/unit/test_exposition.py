"""The metrics: the exposition says what the workers counted, in both formats, and the files for operators name only metrics."""

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

from service.http.admin.exposition import Exposition
from service.http.admin.redis_state import RedisState
from service.http.api.routes import ROUTES
from service.http.app import LAYOUT
from service.http.server import counters as counting
from service.http.server.admission import Ticket
from service.http.server.counters import HTTP_OK, LIST_BOUNDS, METHODS, OTHER_STATUSES, REASONS, Counters
from service.http.server.response import Response
from service.process.slots import Slots
from service.store.script_calls import SCRIPTS

ROOT = Path(__file__).parents[2]
DASHBOARD, ALERTS = (ROOT / "scripts" / "deploy" / name for name in ("grafana-dashboard.json", "prometheus-alerts.yml"))
OPERATIONS = (ROOT / "service" / "OPERATIONS.md").read_text(encoding="utf-8")
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
STATUSES = (HTTP_OK, *OTHER_STATUSES)
REDIS = RedisState(is_up=True, memory=1000, aof=2000)

#: Requests as workers count them: worker, method, path, status, microseconds.
requests = st.tuples(
    st.integers(0, 2),
    st.sampled_from([*METHODS, "PROPFIND"]),
    st.sampled_from([*(route.path for route in ROUTES), "none"]),
    st.sampled_from(STATUSES),
    st.integers(0, 20_000_000),
)


def exposed(slots: Slots, accept: str = "", redis: RedisState = REDIS) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample: name and labels → value."""
    body, content_type = Exposition(LAYOUT, slots).encode(redis, accept)
    assert content_type.startswith("application/openmetrics-text" if accept else "text/plain")
    parse: Any = openmetrics.text_string_to_metric_families if accept else parser.text_string_to_metric_families
    samples = [sample for family in parse(body.decode()) for sample in family.samples]
    result = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(result) == len(samples)
    return result


def value(samples: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def finish(counters: Counters, method: str, path: str, response: Response) -> None:
    """A request that began at 0 has its response."""
    ticket = Ticket("project")
    ticket.route = path
    counters.finish(cast("web.BaseRequest", SimpleNamespace(method=method)), "id", ticket, response, 0.0)


def three_workers() -> tuple[Slots, list[Counters]]:
    slots = Slots(3, LAYOUT.words)
    return slots, [Counters(LAYOUT, slots.take()) for _ in range(3)]


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
@given(st.lists(requests, max_size=20))
def test_requests_of_all_workers_are_added(accept: str, sent: list[tuple[int, str, str, int, int]]) -> None:
    slots, workers = three_workers()
    with pytest.MonkeyPatch.context() as patch:
        for worker, method, path, status, micros in sent:
            # Half a microsecond more, for what the division loses.
            patch.setattr(counting, "monotonic", lambda micros=micros: (micros + 0.5) / 1_000_000)
            finish(workers[worker], method, path, Response(status=status))
    samples = exposed(slots, accept)
    expected: Counter[tuple[str, str, int]] = Counter()
    sums: Counter[tuple[str, str]] = Counter()
    for _, method, path, status, micros in sent:
        key = (method, path) if (method, path) in LAYOUT.requests else ("other", "none")
        expected[*key, status] += 1
        sums[key] += micros
    assert {key: count for key, count in samples.items() if key[0] == "scc_http_requests_total"} == {
        ("scc_http_requests_total", frozenset({("method", method), ("route", route), ("status", str(status))})): count
        for (method, route, status), count in expected.items()
    }
    for (method, route), micros in sums.items():
        labels = {"method": method, "route": route}
        count = sum(number for key, number in expected.items() if key[:2] == (method, route))
        assert value(samples, "scc_http_request_seconds_count", **labels) == count
        assert value(samples, "scc_http_request_seconds_bucket", le="+Inf", **labels) == count
        assert value(samples, "scc_http_request_seconds_sum", **labels) == pytest.approx(micros / 1_000_000)


@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 200)), max_size=20))
def test_a_histogram_counts_each_value_in_every_bucket_that_holds_it(pages: list[tuple[int, int]]) -> None:
    slots, workers = three_workers()
    for number, (candidates, matches) in enumerate(pages):
        workers[number % 3].listed(candidates, matches)
    samples = exposed(slots)
    for name, values in (
        ("scc_list_candidates", [page[0] for page in pages]),
        ("scc_list_matches", [page[1] for page in pages]),
    ):
        for bound in LIST_BOUNDS:
            assert value(samples, f"{name}_bucket", le=f"{bound:.1f}") == sum(each <= bound for each in values)
        assert value(samples, f"{name}_count") == len(values)
        assert value(samples, f"{name}_sum") == sum(values)


def test_everything_else_that_workers_count() -> None:
    slots, (first, second, _) = three_workers()
    for reason in REASONS:
        first.refuse("id", "peer", Response(status=400, reason=reason))
    finish(second, "PUT", "none", Response(status=503, reason="write_uncertain"))
    first.retried(2)
    second.retried(1)
    first.expired(7)
    first.update(3, 5)
    second.update(1, 1)
    slots.count_restart()
    for script in SCRIPTS:
        first.called(script.sha, 0.0)
    samples = exposed(slots)
    assert value(samples, "scc_http_refused_total", reason="overloaded") == 1
    assert (
        value(samples, "scc_write_uncertain_total") == value(samples, "scc_http_refused_total", reason="write_uncertain") == 2
    )
    assert value(samples, "scc_redis_retries_total") == 3
    assert value(samples, "scc_expired_sessions_total") == 7
    assert (value(samples, "scc_http_in_flight"), value(samples, "scc_http_connections")) == (4, 6)
    assert value(samples, "scc_worker_restarts_total") == 1
    for script in SCRIPTS:
        assert value(samples, "scc_redis_call_seconds_count", script=script.name) == 1


def test_what_is_known_of_redis() -> None:
    slots, _ = three_workers()
    samples = exposed(slots)
    assert value(samples, "scc_embedded_redis_memory_bytes") == 1000
    assert value(samples, "scc_embedded_redis_aof_bytes") == 2000
    down = exposed(slots, redis=RedisState(is_up=False))
    assert value(down, "scc_redis_up") == 0
    assert [name for name, _ in down if name.startswith("scc_embedded")] == []


def test_the_words_of_a_slot_have_one_meaning_each() -> None:
    def words() -> Iterator[int]:
        yield from (0, 1, 2, LAYOUT.retries, LAYOUT.expired, *LAYOUT.reasons.values())
        for histogram in (LAYOUT.candidates, LAYOUT.matches, *(histogram for _, histogram in LAYOUT.calls.values())):
            yield from range(histogram.start, histogram.end)
        for place in LAYOUT.requests.values():
            yield from range(place.statuses, place.statuses + len(OTHER_STATUSES))
            for histogram in (place.ok, place.other):
                yield from range(histogram.start, histogram.end)

    assert sorted(words()) == list(range(LAYOUT.words))


@pytest.mark.parametrize("status", sorted({status for route in ROUTES for status in route.operation.responses} | {304, 500}))
def test_every_status_of_a_route_can_be_counted(status: int) -> None:
    assert status in STATUSES


def metrics() -> dict[str, str]:
    """Every metric that the server exposes, with its type."""
    slots, _ = three_workers()
    body, _ = Exposition(LAYOUT, slots).encode(REDIS, "")
    return dict(re.findall(r"^# TYPE (\w+) (\w+)$", body.decode(), re.MULTILINE))


def series(name: str, kind: str) -> list[str]:
    return [f"{name}_{part}" for part in ("bucket", "sum", "count")] if kind == "histogram" else [name]


@pytest.mark.parametrize("path", [DASHBOARD, ALERTS], ids=lambda path: path.name)
def test_every_metric_that_a_file_for_operators_names_exists(path: Path) -> None:
    named = set(re.findall(r"\bscc_\w+", path.read_text(encoding="utf-8")))
    assert len(named) > 5
    assert named - {one for name, kind in metrics().items() for one in series(name, kind)} == set()


def test_the_dashboard_shows_every_metric() -> None:
    text = DASHBOARD.read_text(encoding="utf-8")
    assert json.loads(text)["panels"]
    assert [name for name in metrics() if name not in text] == []


def test_the_table_of_metrics_is_complete() -> None:
    rows = dict(re.findall(r"^\| `(scc_\w+)(?:\{[a-z, ]+\})?` \| (\w+) \|", OPERATIONS, re.MULTILINE))
    assert rows == metrics()


def test_the_reasons_and_statuses_that_alerts_name_exist() -> None:
    text = ALERTS.read_text(encoding="utf-8")
    reasons = {word for words in re.findall(r'reason=~?"([a-z_|]+)"', text) for word in words.split("|")}
    assert reasons
    assert reasons <= set(REASONS)
    statuses = {word for words in re.findall(r'status=~"([\d|]+)"', text) for word in words.split("|")}
    assert statuses
    assert {int(status) for status in statuses} <= set(STATUSES)


@pytest.fixture
def promtool() -> str:
    path = shutil.which("promtool")
    if path is None and not os.environ.get("CI"):
        pytest.skip("promtool is not on PATH; on Debian: apt-get install prometheus")
    assert path is not None
    return path


def test_promtool_accepts_the_alert_rules(promtool: str) -> None:
    checked = subprocess.run([promtool, "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("gone", "firing"), [("0+0x30", True), ("0+60x30", False)], ids=["requests fail", "their clients are gone"]
)
def test_failed_requests_raise_an_alert_unless_their_clients_are_gone(
    promtool: str, tmp_path: Path, gone: str, firing: bool
) -> None:
    summary = "50% of the requests to a fail."
    alert = {"exp_labels": {"severity": "critical", "instance": "a"}, "exp_annotations": {"summary": summary}}
    series = {
        'scc_http_requests_total{instance="a",status="200"}': "0+60x30",
        'scc_http_requests_total{instance="a",status="503"}': "0+60x30",
        'scc_http_refused_total{instance="a",reason="client_gone"}': gone,
    }
    expected = [{"eval_time": "20m", "alertname": "SessionConfigsErrors", "exp_alerts": [alert] if firing else []}]
    assert alerts_are_as_expected(promtool, tmp_path, series, expected)


@pytest.mark.parametrize(("up", "firing"), [("1x30", False), ("1x4 stale", True)], ids=["known", "no longer known"])
def test_servers_that_prometheus_no_longer_knows_raise_an_alert(promtool: str, tmp_path: Path, up: str, firing: bool) -> None:
    labels = {"severity": "critical", "job": "session-config-cache"}
    summary = "Prometheus knows no server of session-config-cache."
    alerts = [{"exp_labels": labels, "exp_annotations": {"summary": summary}}] if firing else []
    expected = [{"eval_time": "20m", "alertname": "SessionConfigsAbsent", "exp_alerts": alerts}]
    assert alerts_are_as_expected(promtool, tmp_path, {'up{instance="a",job="session-config-cache"}': up}, expected)


def alerts_are_as_expected(promtool: str, directory: Path, series: dict[str, str], expected: list[dict[str, Any]]) -> bool:
    """Whether the alerts are the expected ones, with one sample of each series a minute."""
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    test = {"interval": "1m", "input_series": inputs, "alert_rule_test": expected}
    path = directory / "test.yml"
    path.write_text(json.dumps({"rule_files": [str(ALERTS)], "tests": [test]}), encoding="utf-8")
    result = subprocess.run([promtool, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    return result.returncode == 0
