"""A Redis that runs but does not work as it should, under load: a correct 503 in time, and no wrong response."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from service.store.record import Project
from tests.support.filling import with_every_server
from tests.support.http import Api
from tests.support.server import Serving, Start
from tests.support.workload import KEY, LENIENT, TOKEN, Workload, check_after_fault, workload_over_http

#: Clients of a workload, each with one request at a time.
CLIENTS = 10
#: Seconds that a command may take.
COMMAND_TIMEOUT = 0.5

Fault = Callable[[Redis], object]


@asynccontextmanager
async def workload_over(serving: Serving) -> AsyncIterator[tuple[Workload, Redis]]:
    """A running workload, and a client of Redis. The workload continues after the block, and then the store is checked."""
    with Redis.from_url(f"unix://{serving.data_dir}/redis.sock") as redis:
        async with workload_over_http(serving.origin, KEY, clients=CLIENTS) as clients:
            await clients.wait_for("acknowledged", 100)
            yield clients, redis
            await clients.wait_for("acknowledged", 100)
    assert await check_after_fault(clients, serving) == 0


def started(start: Start, *flags: str) -> Serving:
    """Start a server; a later flag wins."""
    return start("--command-timeout", str(COMMAND_TIMEOUT), *flags, SCC_ROOT_TOKEN=TOKEN)


async def test_a_stopped_redis_causes_timeouts_in_time_and_recovers(start: Start) -> None:
    serving = started(start)
    (redis,) = serving.redis_processes()
    async with workload_over(serving) as (clients, _):
        os.kill(redis, signal.SIGSTOP)
        try:
            # First commands in flight, then those that find the connection closed and cannot open another.
            await clients.wait_for("uncertain", 5)
            await clients.wait_for("reads_refused", 5)
            await clients.wait_for("refused", 5)
        finally:
            os.kill(redis, signal.SIGCONT)


@asynccontextmanager
async def long_script(redis: Redis, silent: float) -> AsyncIterator[None]:
    """A script runs during the block. Redis does not answer for `silent` seconds, and then answers BUSY."""
    redis.config_set("lua-time-limit", int(silent * 1000))
    running = asyncio.create_task(asyncio.to_thread(run_long_script, redis))
    try:
        yield
    finally:
        await asyncio.to_thread(end_script, redis)
        await running


def run_long_script(redis: Redis) -> None:
    with pytest.raises(ResponseError, match="killed"):
        redis.eval("for i = 1, 1e10 do end", 0)


def end_script(redis: Redis) -> None:
    """Kill the script; Redis accepts that only after its silence, and once the script has started."""
    while True:
        try:
            redis.script_kill()
        except ResponseError as error:
            if not str(error).startswith("NOTBUSY"):
                raise
        else:
            return


@with_every_server
async def test_a_redis_that_is_busy_with_a_script_refuses_all_requests_until_it_ends(start: Start, server: str) -> None:
    async with workload_over(started(start, "--redis-server", server)) as (clients, redis), long_script(redis, 0.1):
        await clients.wait_for("refused", 5)
        await clients.wait_for("reads_refused", 5)


async def test_requests_wait_for_a_slow_redis_until_the_timeout(start: Start) -> None:
    async with workload_over(started(start)) as (clients, redis):
        async with long_script(redis, COMMAND_TIMEOUT / 5):
            pass
        await clients.wait_for("acknowledged", 50)
        async with long_script(redis, COMMAND_TIMEOUT * 3):
            await clients.wait_for("uncertain", 1)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (lambda redis: redis.config_set("maxmemory", 1), lambda redis: redis.config_set("maxmemory", 0)),
        (lambda redis: redis.replicaof("127.0.0.1", 1), lambda redis: redis.replicaof("NO", "ONE")),
    ],
    ids=["out of memory", "read-only"],
)
async def test_a_redis_that_refuses_writes_serves_reads(start: Start, begin: Fault, end: Fault) -> None:
    # A write to a server that has become a replica waits for another master until it times out.
    async with workload_over(started(start, "--command-timeout", "3")) as (clients, redis):
        begin(redis)
        await clients.wait_for("refused", 12)
        await clients.wait_for("reads", 12)
        end(redis)
    assert clients.stats.reads_refused == 0
    # A create with a user is several scripts, and its session exists when the last one is refused. All others are one script.
    uncertain = [record.writes[-1] for record in clients.records if record.is_indeterminate]
    assert [write.revision for write in uncertain] == [1] * len(uncertain)
    assert len(uncertain) <= CLIENTS, "only writes in flight can be uncertain"


@with_every_server
async def test_writes_that_a_full_redis_refuses_are_503_store_full(start: Start, server: str) -> None:
    serving = started(start, "--redis-server", server)
    api = Api(serving.server(KEY), KEY, Project("default", ""))
    session_id = api.new({"a": 1}, user="alice")
    with Redis.from_url(f"unix://{serving.data_dir}/redis.sock") as redis:
        redis.config_set("maxmemory", 1)
        for method, path, body in (
            ("POST", "/session", {}),
            ("POST", "/session", {"user": "bob"}),
            ("POST", f"/session/{session_id}/copy", None),
            ("PUT", f"/session/{session_id}/configs", {"configs": {"b": 1}}),
            ("PATCH", f"/session/{session_id}/configs", {"configs": {"b": 1}}),
            ("PATCH", "/project/configs", {"b": 1}),
        ):
            answer = api.call(method, path, body, 503)
            assert (answer.reason, answer.body.get("error")) == ("store_full", None), path
            assert int(answer.headers["Retry-After"]) >= 1
        assert api.get(session_id).data["configs"] == {"a": 1}
        redis.config_set("maxmemory", 0)
    assert api.ids() == [session_id]
    assert [user["identifier"] for user in api.call("GET", "/user/ls").data["items"]] == ["alice"]
    api.close()


async def test_repeated_script_flush_fails_no_request(start: Start) -> None:
    async with workload_over(started(start, *LENIENT)) as (clients, redis):
        for _ in range(30):
            redis.script_flush()
            await clients.wait_for("acknowledged", 5)
    assert (clients.stats.refused, clients.stats.reads_refused, clients.stats.uncertain) == (0, 0, 0)


async def test_connections_that_redis_closes_fail_no_read(start: Start) -> None:
    async with workload_over(started(start, *LENIENT)) as (clients, redis):
        for _ in range(30):
            redis.client_kill_filter(_type="normal", skipme=True)
            await clients.wait_for("acknowledged", 5)
    assert (clients.stats.refused, clients.stats.reads_refused) == (0, 0)
