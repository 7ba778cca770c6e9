"""No room for the append-only file: writes are refused, reads succeed, and writes succeed again once there is room.

A limit on file sizes has the same effect on Redis as a full disk (its write fails, SIGXFSZ is ignored), and can be set on a
running process.
"""

import os
import resource
import signal

from tests.faults.test_truncated_file import append_only_file
from tests.support.filling import with_every_server
from tests.support.server import Serving, Start, eventually
from tests.support.workload import KEY, LENIENT, TOKEN, check_after_fault, workload_over_http

#: Bytes by which the file can still grow.
ROOM = 20_000


def limit_files(pid: int, size: int) -> None:
    """No file that process `pid` writes may grow beyond `size`; -1 lifts the limit."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def redis_of(serving: Serving) -> int:
    (redis,) = serving.redis_processes()
    return redis


@with_every_server
async def test_a_full_disk_refuses_writes_and_answers_reads(start: Start, server: str) -> None:
    # Without syncs every write is in the kernel before its response: the kill at the end can lose nothing.
    serving = start("--redis-server", server, "--fsync", "no", *LENIENT, SCC_ROOT_TOKEN=TOKEN)
    async with workload_over_http(serving.origin, KEY) as clients:
        await clients.wait_for("acknowledged", 100)
        limit_files(redis_of(serving), append_only_file(serving.data_dir).stat().st_size + ROOM)
        await clients.wait_for("refused", 50)
        before = clients.stats.acknowledged
        await clients.wait_for("reads", 50)
        assert clients.stats.acknowledged == before
        limit_files(redis_of(serving), -1)
        await clients.wait_for("acknowledged", 100)
    # A create with a new user is three writes, and the disk may become full between them: once for each client.
    assert (clients.stats.reads_refused, clients.stats.uncertain <= 6) == (0, True)
    assert await check_after_fault(clients, serving) == 0
    # The file is complete again: Redis has written what it could not write while the disk was full.
    os.kill(redis_of(serving), signal.SIGKILL)
    assert await check_after_fault(clients, serving) == 0


async def test_with_fsync_always_redis_exits_on_a_full_disk_and_restarts_with_every_acknowledged_write(start: Start) -> None:
    serving = start("--fsync", "always", SCC_ROOT_TOKEN=TOKEN)
    log = serving.data_dir / "redis.log"
    async with workload_over_http(serving.origin, KEY) as clients:
        await clients.wait_for("acknowledged", 100)
        size = append_only_file(serving.data_dir).stat().st_size + ROOM
        # The next Redis inherits the limit of the supervisor.
        for process in (serving.process.pid, redis_of(serving)):
            limit_files(process, size)
        await eventually(lambda: log.read_text("utf-8").count("Can't recover from AOF write error") >= 2, "a second exit")
        limit_files(serving.process.pid, -1)
        for redis in serving.redis_processes():
            limit_files(redis, -1)
        await clients.wait_for("acknowledged", 100)
    assert await check_after_fault(clients, serving) == 0
