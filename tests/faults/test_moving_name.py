"""One name for two servers (a managed failover, a TCP proxy): it moves, and connections to the demoted server stay open."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from service.errors import StoreUnavailable
from service.redis_client import standalone, url
from service.redis_client.client import RedisClient
from tests.support.filling import with_every_server
from tests.support.proxy import Proxy
from tests.support.server import Serving, eventually, request
from tests.support.topology_servers import HOST, Server

TIMEOUT = 10.0
COUNT = 'return redis.call("INCR", KEYS[1])'


class Pair(NamedTuple):
    """Two servers, the second a replica of the first, and the name that points to the first."""

    first: Server
    second: Server
    name: Proxy

    def promote(self, name: bool = True) -> None:
        """Make the second the master and the first its replica; the name follows."""
        self.second.ask("REPLICAOF", "NO", "ONE")
        self.first.ask("REPLICAOF", HOST, self.second.port)
        if name:
            self.name.upstream = f"{HOST}:{self.second.port}"


@asynccontextmanager
async def pair_of(binary: str, directory: Path) -> AsyncIterator[Pair]:
    first, second = Server(directory, binary), Server(directory, binary)
    second.ask("REPLICAOF", HOST, first.port)
    await eventually(lambda: "master_link_status:up" in second.ask("INFO", "replication"), "a replica")
    name = Proxy(f"{HOST}:{first.port}")
    await name.listen()
    try:
        yield Pair(first, second, name)
    finally:
        await name.refuse()
        first.stop()
        second.stop()


@pytest.fixture
async def pair(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    async with pair_of(request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def redis(pair: Pair) -> AsyncIterator[RedisClient]:
    opened = RedisClient.open(pair.name.url, timeout=TIMEOUT)
    yield opened
    await opened.close()


on_every_pair = pytest.mark.parametrize("pair", [case.values[0] for case in with_every_server.args[1]], indirect=True)
on_a_pair = pytest.mark.parametrize("pair", [with_every_server.args[1][-1].values[0]], indirect=True)


@on_every_pair
async def test_every_write_reaches_the_new_master_and_is_executed_once(pair: Pair, redis: RedisClient) -> None:
    assert await redis.call("EVAL", COUNT, 1, "scc:n", writes=True) == 1
    await eventually(lambda: pair.second.ask("GET", "scc:n") == "1", "the write at the replica")
    pair.promote()
    before = pair.name.connections
    # Scripts, plain writes and batches get READONLY concurrently.
    calls = [redis.call("EVAL", COUNT, 1, "scc:n", writes=True) for _ in range(40)]
    calls += [redis.call("INCR", "scc:n", writes=True) for _ in range(40)]
    batches = [redis.batch([("INCR", "scc:n"), ("INCR", "scc:m")], writes=True) for _ in range(20)]
    counts, pairs = await asyncio.gather(asyncio.gather(*calls), asyncio.gather(*batches))
    assert sorted([*counts, *(one for one, _ in pairs)]) == list(range(2, 102))
    assert sorted(other for _, other in pairs) == list(range(1, 21))
    assert pair.second.ask("GET", "scc:n") == "101"
    # All of them made one new connection.
    assert pair.name.connections == before + 1
    assert pair.first.client.ping()
    pair.second.ask("SET", "scc:x", "new")
    assert await redis.call("GET", "scc:x") == b"new"


@on_a_pair
async def test_after_the_first_readonly_error_no_read_goes_to_the_demoted_server(pair: Pair, redis: RedisClient) -> None:
    await redis.call("SET", "scc:x", "old", writes=True)
    await eventually(lambda: pair.second.ask("GET", "scc:x") == "old", "the write at the replica")
    pair.promote()
    pair.first.ask("CONFIG", "SET", "repl-timeout", "3600")
    pair.first.ask("REPLICAOF", HOST, 1)  # it will not receive the next write
    pair.second.ask("SET", "scc:x", "new")
    assert await redis.call("GET", "scc:x") == b"old"  # no client has noticed yet
    write = asyncio.create_task(redis.call("SET", "scc:y", "1", writes=True))
    assert await write == b"OK"
    assert await asyncio.gather(*(redis.call("GET", "scc:x") for _ in range(50))) == [b"new"] * 50


@on_a_pair
@pytest.mark.parametrize("replicas", [0, 1])
async def test_writes_that_wait_for_replicas_move_with_the_reads(pair: Pair, replicas: int) -> None:
    redis = RedisClient.open(pair.name.url, timeout=TIMEOUT, min_replicas=replicas)
    await redis.call("SET", "scc:x", "old", writes=True)
    await eventually(lambda: pair.second.ask("GET", "scc:x") == "old", "the write at the replica")
    assert await redis.call("GET", "scc:x") == b"old"
    pair.promote()
    await eventually(lambda: pair.second.ask("INFO", "replication").find("state=online") > 0, "a replica of the new master")
    assert await asyncio.gather(*(redis.call("INCR", "scc:n", writes=True) for _ in range(20))) == list(range(1, 21))
    pair.second.ask("SET", "scc:x", "new")
    assert await redis.call("GET", "scc:x") == b"new"
    await redis.close()


@on_a_pair
async def test_a_name_that_stays_with_the_replica_is_retried_with_backoff(
    pair: Pair,
) -> None:
    # An attempt to connect has a fifth of this at least, also on a busy machine.
    redis = RedisClient.open(pair.name.url, timeout=4.0)
    await redis.call("SET", "scc:x", "1", writes=True)
    await eventually(lambda: pair.second.ask("GET", "scc:x") == "1", "the write at the replica")
    pair.promote(name=False)
    for _ in range(2):
        results = await asyncio.gather(
            *(redis.call("SET", "scc:x", "2", writes=True) for _ in range(200)), return_exceptions=True
        )
        assert {type(result) for result in results} == {StoreUnavailable}
        assert {str(result) for result in results} == {"redis_url points to a read-only replica"}
    # 50, 100, 200, 400 and then 500 ms apart, and not one for each of 400 calls and their retries.
    assert pair.name.connections < 30
    # Meanwhile the replica still answers reads.
    assert await redis.call("GET", "scc:x") == b"1"
    pair.name.upstream = f"{HOST}:{pair.second.port}"
    assert await redis.call("SET", "scc:x", "3", writes=True) == b"OK"
    await redis.close()


@on_a_pair
@pytest.mark.parametrize(
    "words",
    [("CONFIG", "SET", "replica-serve-stale-data", "no"), ("CONFIG", "SET", "min-replicas-to-write", "1")],
    ids=["MASTERDOWN", "NOREPLICAS"],
)
async def test_other_errors_of_an_isolated_server_lead_to_the_new_one(
    pair: Pair, redis: RedisClient, words: tuple[str, ...]
) -> None:
    await redis.call("SET", "scc:x", "1", writes=True)
    pair.second.ask("REPLICAOF", "NO", "ONE")
    pair.name.upstream = f"{HOST}:{pair.second.port}"
    if words[2] == "replica-serve-stale-data":
        pair.first.ask("REPLICAOF", HOST, 1)
    pair.first.ask(*words)
    assert await redis.call("INCR", "scc:n", writes=True) == 1
    assert pair.second.ask("GET", "scc:n") == "1"


@on_a_pair
async def test_a_write_that_is_paused_and_then_refused_is_executed_on_the_new_master(pair: Pair, redis: RedisClient) -> None:
    await redis.call("SET", "scc:x", "1", writes=True)
    pair.first.ask("CLIENT", "PAUSE", 60_000, "WRITE")
    paused = asyncio.create_task(redis.call("INCR", "scc:n", writes=True))
    await eventually(lambda: "blocked_clients:1" in pair.first.ask("INFO", "clients"), "a write that is paused")
    pair.promote()
    pair.first.ask("CLIENT", "UNPAUSE")
    assert await paused == 1
    assert await redis.call("INCR", "scc:n", writes=True) == 2
    assert pair.second.ask("GET", "scc:n") == "2"


async def test_a_late_error_of_a_replaced_connection_replaces_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    # Otherwise one demotion would make many connections.
    monkeypatch.setattr(standalone, "FIRST_RECONNECT_INTERVAL", 0.0)
    topology = standalone.Standalone(url.parse("redis://127.0.0.1:1"), timeout=1.0, min_replicas=0)
    old = topology.route((), None)
    topology._replace(old)
    new = topology.route((), None)
    assert new is not old
    topology._replace(old)
    assert topology.route((), None) is new
    await topology.close()


@on_a_pair
async def test_the_service_follows_the_name_and_is_not_ready_before(pair: Pair, tmp_path: Path) -> None:
    serving = Serving(
        tmp_path / "data", "--workers", "2", SCC_REDIS_URL=pair.name.url, SCC_ROOT_TOKEN="root", SCC_KEY_SECRET="secret"
    )
    try:
        await asyncio.to_thread(serving.wait_ready)
        key, url = "sk-ac-root", serving.base_url

        async def send(method: str, path: str, body: object = None) -> tuple[int, object]:
            return await asyncio.to_thread(request, method, url + path, key, body)

        status, created = await send("POST", "/session", {"configs": {"n": 0}})
        assert status == 201
        path = f"/session/{created['data']['id']}/configs"  # type: ignore[index]  # the type of a response
        await eventually(lambda: pair.second.ask("KEYS", "scc:{default.0}:session:*"), "the session at the replica")
        pair.promote(name=False)
        # A worker that only reads notices it too, through its sweep, but has no other server yet.
        ready = f"{serving.origin}/ready"
        status, _ = await asyncio.to_thread(request, "GET", ready)
        assert status == 503
        assert (await send("PATCH", path, {"configs": {"n": 1}}))[0] == 503
        pair.name.upstream = f"{HOST}:{pair.second.port}"
        pair.first.ask("REPLICAOF", HOST, 1)
        for number in range(2, 12):
            assert (await send("PATCH", path, {"configs": {"n": number}}))[0] == 200
        assert (await asyncio.to_thread(request, "GET", ready))[0] == 200
        # Each worker has noticed after a second or so, whichever takes a request.
        await asyncio.sleep(2.5)
        for _ in range(20):
            status, answer = await send("GET", path)
            assert status == 200
            assert '"n":11' in str(answer).replace("'", '"').replace(" ", "")
        assert int(pair.second.ask("HGET", _session_key(pair.second), "revision")) == 11
    finally:
        serving.stop()


def _session_key(server: Server) -> str:
    (name,) = server.ask("KEYS", "scc:{default.0}:session:*")
    return str(name)
