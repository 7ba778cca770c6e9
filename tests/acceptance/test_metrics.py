"""The admin port of a real server: one answer for all workers, whatever happens to them and to Redis."""

import json
import os
import re
import signal
import socket
from collections import Counter
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from service.http.admin.server import MAX_CONNECTIONS
from tests.support.server import PATIENCE, Serving, Start, program_of, request, takes_signals, until
from tests.unit.test_exposition import OPENMETRICS

KEY = "sk-ac-root-of-the-tests"
PING = "/api/v1/ping"
#: How often the counters are read during a reload, at least.
SAMPLES = 50


def admin_url(serving: Serving) -> str:
    match = re.search(r"^metrics: (http://127\.0\.0\.1:\d+)/metrics$", serving.output, re.MULTILINE)
    assert match is not None
    return match[1]


def fetch(url: str, accept: str = "") -> tuple[int, str, str]:
    """Status, content type and body."""
    try:
        with urlopen(Request(url, headers={"Accept": accept}), timeout=PATIENCE) as response:  # noqa: S310 - our server
            return response.status, response.headers["Content-Type"], response.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def samples(serving: Serving) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    status, content_type, body = fetch(f"{admin_url(serving)}/metrics")
    assert (status, content_type.partition(";")[0]) == (200, "text/plain")
    families = text_string_to_metric_families(body)
    return {(sample.name, frozenset(sample.labels.items())): sample.value for family in families for sample in family.samples}


def value(serving: Serving, name: str, **labels: str) -> float:
    return samples(serving).get((name, frozenset(labels.items())), 0.0)


def pings(serving: Serving, status: str = "200") -> float:
    return value(serving, "scc_http_requests_total", route=PING, method="GET", status=status)


def ping(serving: Serving, count: int) -> None:
    for _ in range(count):
        assert request("GET", f"{serving.base_url}/ping", KEY)[0] == 200


def test_workers_are_counted_together_and_nothing_is_lost_when_one_is_killed(start: Start) -> None:
    serving = start("--admin-port", "0", SCC_ROOT_TOKEN="root-of-the-tests")
    ping(serving, 20)
    until(lambda: pings(serving) == 20, "20 requests")
    workers = [pid for pid in serving.workers() if pid not in admin_processes(serving)]
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    until(lambda: value(serving, "scc_worker_restarts_total") == 2, "two restarts")
    assert pings(serving) == 20
    ping(serving, 5)
    until(lambda: pings(serving) == 25, "25 requests")
    until(lambda: value(serving, "scc_http_in_flight") == 0, "no request in flight")


def admin_processes(serving: Serving) -> list[int]:
    """The children that listen on the admin port."""
    port = int(admin_url(serving).rpartition(":")[2])
    inodes = {
        fields[9]
        for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        if (fields := line.split())[3] == "0A" and int(fields[1].partition(":")[2], 16) == port
    }
    return [pid for pid in serving.children() if program_of(pid) and inodes & sockets_of(pid)]


def sockets_of(pid: int) -> set[str]:
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def test_metrics_answer_while_every_worker_hangs_and_redis_is_down(start: Start) -> None:
    serving = start("--admin-port", "0", "--command-timeout", "0.5")
    assert value(serving, "scc_redis_up") == 1
    assert value(serving, "scc_embedded_redis_memory_bytes") > 0
    assert value(serving, "scc_embedded_redis_aof_bytes") > 0
    assert fetch(f"{admin_url(serving)}/ready")[0] == 200
    (redis,) = serving.redis_processes()
    stopped = [redis, *(pid for pid in serving.workers() if pid not in admin_processes(serving))]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert value(serving, "scc_redis_up") == 0
        assert not [name for name, _ in samples(serving) if name.startswith("scc_embedded")]
        assert fetch(f"{admin_url(serving)}/health")[0] == 200
        assert fetch(f"{admin_url(serving)}/ready")[0] == 503
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def is_counter(name: str) -> bool:
    return name.endswith(("_total", "_count", "_sum", "_bucket"))


def counters(serving: Serving) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {sample: value for sample, value in samples(serving).items() if is_counter(sample[0])}


def test_counters_continue_while_workers_and_admin_server_are_replaced(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("max_keys = 100\n", encoding="utf-8")
    serving = start("--admin-port", "0", "--config", str(config), SCC_ROOT_TOKEN="root-of-the-tests")
    address, before = serving.origin.removeprefix("http://"), counters(serving)
    expected = 0
    for reload in range(1, 4):
        # While it is open, a worker with the old settings runs beside its successor.
        with closing(HTTPConnection(address, timeout=PATIENCE)) as idle:
            idle.connect()
            serving.process.send_signal(signal.SIGHUP)
            sampled, is_complete = 0, False
            while not is_complete or sampled < SAMPLES:
                is_complete = serving.errors.count("every worker has the new settings") == reload
                ping(serving, 1)
                expected += 1
                after = counters(serving)
                assert [(sample, value) for sample, value in before.items() if after.get(sample, 0.0) < value] == []
                before, sampled = after, sampled + 1
                assert sampled < 100 * SAMPLES, "the reload does not end"
                if sampled == SAMPLES:
                    idle.close()
        until(lambda expected=expected: pings(serving) == expected, "the requests so far")  # type: ignore[misc]
    assert value(serving, "scc_worker_restarts_total") == 0


def test_a_master_that_refuses_writes_is_not_up(start: Start) -> None:
    serving = start("--admin-port", "0", "--command-timeout", "0.5")
    with Redis(unix_socket_path=str(serving.data_dir / "redis.sock")) as redis:
        redis.replicaof("127.0.0.1", "1")
        until(lambda: value(serving, "scc_redis_up") == 0, "a master that refuses writes")
        redis.replicaof("NO", "ONE")
    until(lambda: value(serving, "scc_redis_up") == 1, "a master that accepts writes")


def test_a_response_that_the_worker_has_no_memory_for_is_counted_and_logged_once_as_it_was_sent(start: Start) -> None:
    serving = start(
        "--admin-port", "0", "--access-log", "--log-format", "json", "--max-buffered-bytes", "1048576",
        SCC_ROOT_TOKEN="root-of-the-tests",
    )  # fmt: skip
    sessions = f"{serving.base_url}/session"
    for _ in range(5):
        assert request("POST", sessions, KEY, {"configs": {"k": "x" * 250_000}})[0] == 201
    assert request("GET", f"{sessions}?limit=200", KEY)[0] == 503
    route = {"route": "/api/v1/session", "method": "GET"}
    until(lambda: value(serving, "scc_http_requests_total", status="503", **route) == 1, "one response with status 503")
    assert value(serving, "scc_http_requests_total", status="200", **route) == 0
    assert value(serving, "scc_http_refused_total", reason="overloaded") == 1
    lines = [json.loads(line) for line in serving.errors.splitlines()]
    (line,) = [line for line in lines if line.get("method") == "GET" and line.get("route") == route["route"]]
    assert (line["status"], line["reason"]) == (503, "overloaded")


def test_many_idle_connections_do_not_keep_others_from_the_admin_port(start: Start) -> None:
    serving = start("--admin-port", "0")
    host, _, port = admin_url(serving).removeprefix("http://").partition(":")
    with ExitStack() as stack:
        for _ in range(2 * MAX_CONNECTIONS):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE))
        assert fetch(f"{admin_url(serving)}/health")[0] == 200


def test_a_reload_reaches_the_admin_server(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("max_line_bytes = 16384\n", encoding="utf-8")
    serving = start("--admin-port", "0", "--config", str(config))
    url = f"{admin_url(serving)}/health?{'x' * 10_000}"
    assert fetch(url)[0] == 200
    (admin,) = admin_processes(serving)
    config.write_text("max_line_bytes = 8192\n", encoding="utf-8")
    serving.process.send_signal(signal.SIGHUP)
    until(lambda: "every worker has the new settings" in serving.errors, "new processes")
    (successor,) = admin_processes(serving)
    assert successor != admin
    assert fetch(url)[0] == 414
    # Its successor after a crash has them too.
    os.kill(successor, signal.SIGKILL)
    until(lambda: successor not in admin_processes(serving) and admin_processes(serving), "another admin server")
    assert fetch(url)[0] == 414


def test_openmetrics_is_given_to_those_who_accept_it(start: Start) -> None:
    serving = start("--admin-port", "0")
    status, content_type, body = fetch(f"{admin_url(serving)}/metrics", OPENMETRICS)
    assert (status, content_type.partition(";")[0]) == (200, "application/openmetrics-text")
    assert body.endswith("# EOF\n")


def test_the_admin_server_is_restarted_and_serves_nothing_else(start: Start) -> None:
    serving = start("--admin-port", "0", SCC_ROOT_TOKEN="root-of-the-tests")
    ping(serving, 3)
    until(lambda: pings(serving) == 3, "3 requests")
    (admin,) = admin_processes(serving)
    os.kill(admin, signal.SIGKILL)
    until(lambda: admin not in admin_processes(serving) and admin_processes(serving), "another admin server")
    until(lambda: all(map(takes_signals, admin_processes(serving))), "one with handlers")
    assert (pings(serving), value(serving, "scc_worker_restarts_total")) == (3, 0)
    assert fetch(f"{admin_url(serving)}{PING}")[0] == 401
    assert fetch(f"{admin_url(serving)}/openapi.json")[0] == 404
    assert request("GET", f"{serving.origin}/metrics")[0] == 404


def test_no_label_names_a_project_a_session_a_user_or_a_key(start: Start) -> None:
    serving = start("--admin-port", "0", SCC_ROOT_TOKEN="root-of-the-tests")
    _, created = request("POST", f"{serving.base_url}/session", KEY, {"configs": {"secret": "hush"}, "user": "alice"})
    session = created["data"]["id"]
    request("GET", f"{serving.base_url}/session/{session}/configs", KEY)
    request("GET", f"{serving.base_url}/session?user=alice", KEY)
    request("GET", f"{serving.base_url}/user/alice/resources", KEY)
    request("GET", f"{serving.base_url}/alice", KEY)
    until(lambda: value(serving, "scc_list_matches_sum") == 1, "the list")
    _, _, body = fetch(f"{admin_url(serving)}/metrics")
    assert [word for word in ("default", session, "alice", "hush", KEY, "root-of") if word in body] == []
    labels = Counter(name for _, items in samples(serving) for name, _ in items)
    assert set(labels) == {"le", "method", "python", "reason", "route", "script", "status", "version"}


@pytest.mark.parametrize("same", [True, False], ids=["as the main port", "of another server"])
def test_a_port_that_is_taken_is_an_error(start: Start, tmp_path: Path, same: bool) -> None:
    serving = start()
    port = serving.origin.rpartition(":")[2]
    flags = ["--port", port] if same else []
    other = Serving(tmp_path / "other", "--admin-port", port, *flags)
    assert other.process.wait(PATIENCE) == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in other.errors


def test_the_pages_are_counted_and_logged_without_a_revision(start: Start) -> None:
    serving = start("--admin-port", "0", "--access-log", "--log-format", "json", SCC_ROOT_TOKEN="root-of-the-tests")
    assert fetch(f"{serving.origin}/")[0] == 200  # it follows the redirect
    assert fetch(f"{serving.origin}/docs/swagger-ui.css")[0] == 200
    counted = [("/", "302"), ("/docs", "200"), ("/docs/{file}", "200")]
    for route, status in counted:
        until(lambda: value(serving, "scc_http_requests_total", route=route, method="GET", status=status) == 1, route)  # noqa: B023 - called here
    assert '"route": "/docs/{file}"' in serving.errors
    assert "revision" not in serving.errors
