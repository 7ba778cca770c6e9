"""The Redis permissions in OPERATIONS.md suffice: for requests, for every command, and for a repartition."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from tests.support.filling import with_every_server
from tests.support.server import Serving, request, run_command
from tests.support.topology_servers import HOST, Server

OPERATIONS = Path(__file__).parents[2] / "service" / "OPERATIONS.md"
KEY = "sk-ac-root"


def rights() -> list[str]:
    """The arguments of the command in OPERATIONS.md."""
    (line,) = re.findall(r"^ACL SETUSER .*$", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE)
    return [str(word) for word in line.split()]


@pytest.fixture
def redis(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(tmp_path, request.param)
    server.ask(*rights())
    yield server
    server.stop()


def variables_of(redis: Server) -> dict[str, str]:
    url = f"redis://scc:PASSWORD@{HOST}:{redis.port}/2"
    return {"SCC_REDIS_URL": url, "SCC_ROOT_TOKEN": "root", "SCC_KEY_SECRET": "secret"}


def use(serving: Serving) -> None:
    """Send every kind of request."""
    base = serving.base_url

    status, answer = request("POST", f"{base}/session", KEY, {"user": "alice", "configs": {"agent": "a"}, "ttl": 3600})
    assert status == 201
    path = f"/session/{answer['data']['id']}"
    calls: list[tuple[str, str, object]] = [
        ("PATCH", f"{path}/configs", {"configs": {"n": None, "m": {"x": 1}}}),
        ("PUT", f"{path}/configs", {"configs": {"agent": "b", "n": [1, 2]}}),
        ("GET", path, None),
        ("GET", "/session?filter_by_configs=%7B%22agent%22%3A%22b%22%7D&time_desc=true", None),
        ("GET", "/session?user=alice", None),
        ("GET", "/user/ls?limit=10&time_desc=true", None),
        ("GET", "/user/alice/resources", None),
        ("PATCH", "/project/configs", {"session_ttl": 3600}),
        ("GET", "/project/configs", None),
        ("POST", f"{path}/copy", None),
        ("DELETE", path, None),
        ("DELETE", "/user/alice", None),
    ]
    for method, where, body in calls:
        status, answer = request(method, base + where, KEY, body)
        assert status in (200, 201), (method, where, answer)
    assert request("POST", f"{base}/session", KEY, {"user": "bob", "configs": {"agent": "c"}})[0] == 201
    assert request("GET", f"{serving.origin}/ready")[0] == 200


@pytest.mark.parametrize("redis", [case.values[0] for case in with_every_server.args[1]], indirect=True)
def test_the_documented_permissions_suffice_for_everything(redis: Server, tmp_path: Path) -> None:
    variables = variables_of(redis)
    serving = Serving(tmp_path / "data", "--workers", "1", "--rate-limit", "1000", **variables)
    serving.wait_ready()
    use(serving)
    for words in (
        ("project", "create", "acme"),
        ("project", "list"),
        ("project", "rotate-key", "acme"),
        ("find", "--json", '{"agent":"c"}'),
        ("check",),
        ("check", "--repair"),
        ("project", "delete", "acme"),
    ):
        completed = run_command(*words, **variables)
        assert completed.returncode == 0, (words, completed.stdout, completed.stderr)
    assert serving.stop() == 0, serving.errors
    assert "failed" not in serving.errors
    moved = run_command("repartition", "2", **variables)
    assert moved.returncode == 0, moved.stderr
    serving = Serving(tmp_path / "data", "--workers", "1", "--partitions", "2", **variables)
    serving.wait_ready()
    use(serving)
    assert run_command("check", **variables).returncode == 0
    assert serving.stop() == 0, serving.errors


@pytest.mark.parametrize("redis", [with_every_server.args[1][-1].values[0]], indirect=True)
def test_the_documented_permissions_exclude_other_keys_and_dangerous_commands(redis: Server) -> None:
    allowed = {word for word in rights() if word.startswith("+")}
    assert not allowed & {"+@all", "+@admin", "+@dangerous"}
    for words in (("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("SHUTDOWN",)):
        with Redis(host=HOST, port=redis.port, username="scc", password="PASSWORD", protocol=2) as client:
            assert client.ping()
            with pytest.raises(NoPermissionError):
                client.execute_command(*words)
