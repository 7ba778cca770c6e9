"""A Redis that has lost the store, or may lose it: the service detects it, reports it, and never calls a valid key invalid."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.redis_servers import BUNDLED
from tests.support.server import PATIENCE, Serving, request, until
from tests.support.topology_servers import HOST, Server
from tests.support.workload import KEY, TOKEN

SECRET = "the-secret-of-the-tests"
PERSISTENT, FORGETFUL = ("--appendonly", "yes"), ("--appendonly", "no", "--save", "")

Serve = Callable[..., Serving]


@contextmanager
def redis_with(directory: Path, *settings: str) -> Iterator[Server]:
    server = Server(directory, BUNDLED.path, settings)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers on a Redis, and stop those that still run at the end."""
    started: list[Serving] = []

    def start(redis: Server, *flags: str) -> Serving:
        variables = {"SCC_REDIS_URL": f"redis://{HOST}:{redis.port}", "SCC_ROOT_TOKEN": TOKEN, "SCC_KEY_SECRET": SECRET}
        started.append(Serving(tmp_path / f"data{len(started)}", "--workers", "1", *flags, **variables))
        return started[-1]

    yield start
    for serving in started:
        if serving.process.poll() is None:
            serving.stop()


def refused(serving: Serving) -> str:
    """The last line that a server prints whose start is refused."""
    assert serving.process.wait(PATIENCE) == 1
    return serving.errors.splitlines()[-1]


def ready(serving: Serving) -> tuple[int, Any]:
    return request("GET", f"{serving.origin}/ready")


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_a_redis_that_evicts_any_key_is_refused_at_the_start(tmp_path: Path, serve: Serve, policy: str) -> None:
    with redis_with(tmp_path, *PERSISTENT, "--maxmemory-policy", policy) as redis:
        sentence = f"Redis has maxmemory-policy {policy} and may evict any key, which loses sessions; set it to noeviction"
        assert refused(serve(redis)) == sentence
        assert redis.ask("DBSIZE") == 0


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru", "volatile-ttl"])
def test_a_redis_that_evicts_no_session_is_accepted(tmp_path: Path, serve: Serve, policy: str) -> None:
    with redis_with(tmp_path, *PERSISTENT, "--maxmemory-policy", policy) as redis:
        assert ready(serve(redis).wait_ready()) == (200, {"code": 0, "msg": "ok", "data": {"warnings": []}})


def test_eviction_that_is_enabled_later_is_reported_in_the_log_and_by_ready_while_requests_succeed(
    tmp_path: Path, serve: Serve
) -> None:
    with redis_with(tmp_path, *PERSISTENT) as redis:
        serving = serve(redis).wait_ready()
        redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        until(lambda: ready(serving)[0] == 503, "a 503 of /ready")
        status, answer = ready(serving)
        assert (status, answer["reason"]) == (503, "store_unavailable")
        assert "evict" in answer["msg"]
        assert "ERROR Redis has maxmemory-policy allkeys-lru" in serving.errors
        assert request("POST", f"{serving.base_url}/session", KEY, {"configs": {}})[0] == 201
        redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        until(lambda: ready(serving)[0] == 200, "a 200 of /ready")
        assert serving.errors.count("allkeys-lru") == 1


@pytest.mark.parametrize(
    ("settings", "rights", "warning"),
    [
        (FORGETFUL, (), "Redis keeps no file (appendonly is no, and save is empty): a restart loses all data"),
        (FORGETFUL, ("-config",),
         "Redis has no append-only file, and CONFIG GET is not allowed: a restart may lose data"),
        (PERSISTENT, ("-info",), "INFO is not allowed: neither maxmemory-policy nor persistence of Redis can be checked"),
    ],
)  # fmt: skip
def test_each_risky_or_unknown_configuration_is_one_warning_in_the_log_and_in_ready(
    tmp_path: Path, serve: Serve, settings: tuple[str, ...], rights: tuple[str, ...], warning: str
) -> None:
    with redis_with(tmp_path, *settings) as redis:
        redis.ask("ACL", "SETUSER", "default", "on", "nopass", "~*", "&*", "+@all", *rights)
        serving = serve(redis).wait_ready()
        until(lambda: ready(serving)[1]["data"]["warnings"], "a warning")
        assert ready(serving)[1]["data"]["warnings"] == [warning]
        assert serving.errors.count(warning) == 1


def test_a_redis_that_saves_snapshots_needs_no_warning(tmp_path: Path, serve: Serve) -> None:
    with redis_with(tmp_path, "--appendonly", "no", "--save", "3600 1") as redis:
        assert "WARNING" not in serve(redis).wait_ready().errors


@pytest.mark.parametrize("loss", ["flushed", "restarted"])
def test_an_emptied_store_is_503_until_a_server_of_the_same_layout_makes_a_new_one(
    tmp_path: Path, serve: Serve, loss: str
) -> None:
    with redis_with(tmp_path, *FORGETFUL) as redis:
        serving = serve(redis).wait_ready()
        ping, session = f"{serving.base_url}/ping", f"{serving.base_url}/session"
        assert request("POST", session, KEY, {"configs": {}})[0] == 201
        if loss == "flushed":
            redis.ask("FLUSHALL")
        else:
            redis.kill()
            redis.start()
            until(lambda: redis.answers, "an answer of Redis")
        until(lambda: ready(serving)[1].get("reason") == "store_empty", "a 503 of /ready")
        until(lambda: request("GET", ping, KEY)[0] == 503, "a refusal of the key")
        for method, url in (("GET", ping), ("GET", session), ("POST", session)):
            status, answer = request(method, url, KEY, {"configs": {}} if method == "POST" else None)
            assert (status, answer["reason"]) == (503, "store_empty")
        until(lambda: "Redis no longer has a store" in serving.errors, "a line in the log")
        if loss == "flushed":
            # The server is still connected, and a server of another layout would take its store away.
            sentence = refused(serve(redis, "--partitions", "3"))
            assert sentence == (
                "this Redis was emptied while servers with --partitions 1 run on it; "
                "stop them first, or start with --partitions 1"
            )
        assert redis.ask("EXISTS", "scc:store", "scc:projects", "scc:sweep") == 0
        serve(redis).wait_ready()
        until(lambda: request("GET", ping, KEY)[0] == 200, "an answer of the first server")
        assert ready(serving)[0] == 200


def test_a_server_of_another_layout_can_create_a_store_if_no_server_is_running(tmp_path: Path, serve: Serve) -> None:
    with redis_with(tmp_path, *PERSISTENT) as redis:
        first = serve(redis).wait_ready()
        assert first.stop() == 0
        redis.ask("FLUSHALL")
        assert ready(serve(redis, "--partitions", "3").wait_ready())[0] == 200


def test_a_second_server_with_another_root_token_needs_a_flag_to_replace_the_first_token(tmp_path: Path, serve: Serve) -> None:
    with redis_with(tmp_path, *PERSISTENT) as redis:
        first = serve(redis).wait_ready()
        variables = {"SCC_REDIS_URL": f"redis://{HOST}:{redis.port}", "SCC_KEY_SECRET": SECRET}
        second = Serving(tmp_path / "second", **variables, SCC_ROOT_TOKEN="another-root-of-the-tests")
        assert refused(second).startswith("this store has another root key;")
        assert request("GET", f"{first.base_url}/ping", KEY)[0] == 200
        flags = ("--replace-root-key", "--workers", "1")
        third = Serving(tmp_path / "third", *flags, **variables, SCC_ROOT_TOKEN="another-root-of-the-tests").wait_ready()
        assert request("GET", f"{third.base_url}/ping", "sk-ac-another-root-of-the-tests")[0] == 200
        assert request("GET", f"{third.base_url}/ping", KEY)[0] == 401
        assert third.stop() == 0


def test_an_embedded_server_keeps_its_root_key_too(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert Serving(data, "--workers", "1", SCC_ROOT_TOKEN=TOKEN).wait_ready().stop() == 0
    assert refused(Serving(data, SCC_ROOT_TOKEN="another-root-of-the-tests")).startswith("this store has another root key;")
    assert Serving(data, "--workers", "1", SCC_ROOT_TOKEN=TOKEN).wait_ready().stop() == 0


def test_a_running_server_stops_serving_a_store_that_only_newer_releases_may_use(tmp_path: Path, serve: Serve) -> None:
    with redis_with(tmp_path, *PERSISTENT) as redis:
        serving = serve(redis).wait_ready()
        redis.ask("HSET", "scc:store", "layout", 3, "oldest_reader", 1, "oldest_writer", 1)
        assert ready(serving)[0] == 200
        redis.ask("HSET", "scc:store", "oldest_writer", 3)
        until(lambda: request("GET", f"{serving.base_url}/ping", KEY)[0] == 503, "a refusal")
        sentence = "only releases with layout 3 or newer may write to this store; this release has layout 2"
        assert ready(serving)[1]["msg"] == sentence
