"""The embedded Redis is killed under load: no acknowledged write is lost, and the workers recover."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.filling import with_every_server
from tests.support.redis_servers import BUNDLED
from tests.support.server import Serving, Start, eventually
from tests.support.workload import KEY, TOKEN, Workload, check_after_fault, workload_over_http

#: Seconds. With `everysec`, Redis answers a write before it passes it to the kernel if a sync of the file is in progress. It
#: waits for the sync at most 2 s, and checks again once per tick of its timer.
WRITE_DELAY = 2.5


async def kill_redis(serving: Serving) -> float:
    """Kill Redis with SIGKILL, wait for its replacement, and return the time of the kill."""
    (redis,) = serving.redis_processes()
    killed = time.monotonic()
    os.kill(redis, signal.SIGKILL)
    await eventually(lambda: serving.redis_processes() not in ([], [redis]), "another Redis")
    return killed


async def kill_in(clients: Workload, serving: Serving, times: int) -> float:
    """Kill Redis several times under load that continues after each; returns the time of the first kill."""
    first = 0.0
    for _ in range(times):
        await clients.wait_for("acknowledged", 100)
        killed = await kill_redis(serving)
        first = first or killed
    await clients.wait_for("acknowledged", 100)
    return first


@pytest.mark.parametrize("fsync", ["always", "no"])
@with_every_server
async def test_writes_that_reach_the_kernel_before_the_response_are_never_lost(start: Start, server: str, fsync: str) -> None:
    serving = start("--redis-server", server, "--fsync", fsync, SCC_ROOT_TOKEN=TOKEN)
    async with workload_over_http(serving.origin, KEY) as clients:
        await kill_in(clients, serving, 2)
    assert await check_after_fault(clients, serving) == 0
    assert "the embedded Redis exited (exit status -9;" in serving.errors


async def test_with_everysec_at_most_the_last_writes_within_the_delay_are_lost(start: Start) -> None:
    serving = start(SCC_ROOT_TOKEN=TOKEN)
    async with workload_over_http(serving.origin, KEY) as clients:
        # After a loss the store differs from the records of the clients, so they end with the first kill.
        await clients.wait_for("acknowledged", 300)
        killed = time.monotonic()
        (redis,) = serving.redis_processes()
        os.kill(redis, signal.SIGKILL)
    await check_after_fault(clients, serving, lost_after=killed - WRITE_DELAY)


def redis_with_flags(directory: Path, flags: Path) -> str:
    """Write a redis-server that adds the content of the file `flags` to its arguments; its path."""
    wrapper = directory / "redis-server"
    wrapper.write_text(
        f"""#!/bin/sh
[ "$1" = --version ] && exec {BUNDLED.path} --version
exec {BUNDLED.path} "$@" $(cat {flags})
""",
        encoding="utf-8",
    )
    wrapper.chmod(0o755)
    return str(wrapper)


async def test_while_redis_loads_its_file_responses_are_503_within_the_timeout(start: Start, tmp_path: Path) -> None:
    flags = tmp_path / "flags"
    flags.touch()
    serving = start("--redis-server", redis_with_flags(tmp_path, flags), "--fsync", "always", SCC_ROOT_TOKEN=TOKEN)
    async with workload_over_http(serving.origin, KEY, clients=12) as clients:
        await clients.wait_for("acknowledged", 300)
        # Microseconds for each of the 8 or more commands of a write; Redis reads its sockets once per 1,000 commands.
        flags.write_text("--key-load-delay 1000", encoding="utf-8")
        await kill_redis(serving)
        await clients.wait_for("unavailable", 12)
        await clients.wait_for("acknowledged", 50)
    assert await check_after_fault(clients, serving) == 0


async def test_a_data_directory_with_a_long_name_reconnects_to_its_redis(tmp_path: Path) -> None:
    serving = Serving(tmp_path / ("long" * 40), "--fsync", "always", SCC_ROOT_TOKEN=TOKEN).wait_ready()
    try:
        async with workload_over_http(serving.origin, KEY, clients=2) as clients:
            await clients.wait_for("acknowledged", 10)
            await kill_redis(serving)
            await clients.wait_for("acknowledged", 10)
        assert await check_after_fault(clients, serving) == 0
    finally:
        assert serving.stop() == 0
