"""The service on a cluster and behind Sentinels: the suite of Acontext's SDK, and the commands while the server runs."""

import json
from collections.abc import Iterator

import pytest

from service.store.keys import Partition, partition_number
from tests.acceptance.test_sdk_python import *  # noqa: F403 - the same suite on other stores
from tests.support.http import Operator
from tests.support.server import Server, Serving, request, run_command
from tests.support.topology_servers import Cluster, Sentinels

SETTINGS = {"SCC_ROOT_TOKEN": "root-of-the-tests", "SCC_KEY_SECRET": "test-secret", "SCC_MIN_REPLICAS": "1"}


@pytest.fixture(scope="module", params=["cluster", "sentinel"])
def server(
    request: pytest.FixtureRequest,
    shared_cluster: Cluster,
    shared_sentinels: Sentinels,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server on a cluster with sixteen partitions, or behind Sentinels."""
    shared_cluster.wait_whole()
    shared_sentinels.wait_whole()
    for each in [*shared_cluster.masters(), shared_sentinels.master()]:
        each.ask("FLUSHALL")
    url, partitions = (shared_cluster.url, "16") if request.param == "cluster" else (shared_sentinels.url, "1")
    settings = SETTINGS | {"SCC_REDIS_URL": url, "SCC_PARTITIONS": partitions}
    serving = Serving(tmp_path_factory.mktemp("server") / "data", "--workers", "2", **settings)
    serving.wait_ready()
    # `Operator` reads it here.
    serving.data_dir.mkdir(exist_ok=True)
    (serving.data_dir / "key-secret").write_text(SETTINGS["SCC_KEY_SECRET"], encoding="utf-8")
    yield Server(serving.origin, serving.base_url, "sk-ac-root-of-the-tests", serving.data_dir, url, serving.process.pid)
    assert serving.stop() == 0, serving.errors
    assert "Traceback" not in serving.errors


@pytest.fixture(scope="module")
def operator(server: Server) -> Iterator[Operator]:
    operator = Operator(server)
    yield operator
    operator.close()


def command(server: Server, *words: str) -> tuple[int, str]:
    """A command's exit status and output."""
    process = run_command(*words, SCC_REDIS_URL=server.redis_url, SCC_KEY_SECRET=SETTINGS["SCC_KEY_SECRET"])
    assert process.stderr == "" or "check:" in process.stderr, process.stderr
    return process.returncode, process.stdout


def test_commands_work_while_the_server_runs(server: Server) -> None:
    numbers = {}
    for number in range(40):
        body = {"configs": {"n": number, "odd": number % 2}}
        status, answer = request("POST", f"{server.base_url}/session", server.key, body)
        assert status == 201
        numbers[answer["data"]["id"]] = number
    status, output = command(server, "find", "odd=1", "--limit", "100")
    sessions = {line.split(" ")[0]: json.loads(line.split(" ", 1)[1]) for line in output.splitlines()}
    assert sessions == {name: {"n": number, "odd": 1} for name, number in numbers.items() if number % 2}
    one = next(iter(numbers))
    partitions = int(command(server, "redis-cli", "--raw", "HGET", "scc:store", "partitions")[1])
    partition = Partition("default", partition_number(one, partitions))
    configs = command(server, "redis-cli", "--raw", "HGET", partition.session(one), "configs")[1]
    assert json.loads(configs) == {"n": numbers[one], "odd": numbers[one] % 2}
    # An operator deletes the list of sessions; `check --repair` rebuilds it.
    assert command(server, "redis-cli", "DEL", partition.sessions)[0] == 0
    assert command(server, "check", "--project", "default")[0] == 1
    assert command(server, "check", "--repair")[0] == 0
    assert command(server, "check")[0] == 0
    assert command(server, "find", "--json", '{"odd":1}', "--count") == (0, "20\n")
    assert command(server, "project", "create", f"acme-{partitions}")[0] == 0


def test_the_server_is_ready_and_healthy(server: Server) -> None:
    assert request("GET", f"{server.origin}/ready")[0] == 200
    assert request("GET", f"{server.origin}/health")[0] == 200
