"""A server stops, or a worker is killed, under load."""

import asyncio
import os
import signal

import pytest

from tests.support.http_client import PREFIX
from tests.support.server import PATIENCE, Serving, Start, eventually
from tests.support.workload import KEY, LENIENT, TOKEN, check_after_fault, workload_over_http


@pytest.mark.parametrize("fresh", [False, True], ids=["kept alive", "a connection each"])
async def test_sigterm_under_load_fails_no_accepted_request(start: Start, fresh: bool) -> None:
    serving = start(*LENIENT, SCC_ROOT_TOKEN=TOKEN)
    clients = workload_over_http(serving.origin, KEY, clients=16, fresh=fresh)
    clients.start()
    await clients.wait_for("acknowledged", 200)
    clients.may_end = True
    serving.process.terminate()
    await clients.wait_until_server_ends()
    assert await asyncio.to_thread(serving.process.wait, PATIENCE) == 0
    assert serving.errors == ""
    assert (clients.stats.refused, clients.stats.reads_refused, clients.stats.uncertain) == (0, 0, 0)
    assert await check_after_fault(clients, start(SCC_ROOT_TOKEN=TOKEN)) == 0


def pause_workers(serving: Serving, number: signal.Signals) -> None:
    for worker in serving.workers():
        os.kill(worker, number)


@pytest.mark.parametrize("early", [True, False], ids=["sent before", "sent after"])
async def test_a_queued_connection_at_sigterm_gets_its_response(start: Start, early: bool) -> None:
    serving = start(SCC_ROOT_TOKEN=TOKEN)
    request = f"GET {PREFIX}/ping HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()
    pause_workers(serving, signal.SIGSTOP)
    host, port = serving.origin.removeprefix("http://").split(":")
    streams = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
    if early:
        for _, writer in streams:
            writer.write(request)
    serving.process.terminate()
    # The supervisor has closed its sockets, and the signal is pending for the workers, which are still paused.
    await eventually(lambda: not sockets_listening(serving.process.pid), "the end of new connections")
    pause_workers(serving, signal.SIGCONT)
    if not early:
        for _, writer in streams:
            writer.write(request)
    for reader, writer in streams:
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
        assert b"\r\nConnection: close\r\n" in answer
        writer.close()
    assert await asyncio.to_thread(serving.process.wait, PATIENCE) == 0


def sockets_listening(pid: int) -> set[str]:
    """The listening TCP sockets of process `pid`."""
    with open("/proc/net/tcp", encoding="utf-8") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    listening = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A"}
    open_files = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            open_files.add(os.readlink(entry.path))
        except FileNotFoundError:
            continue
    return listening & open_files


async def test_after_sigterm_no_new_connection_is_accepted(start: Start) -> None:
    serving = start(SCC_ROOT_TOKEN=TOKEN)
    pause_workers(serving, signal.SIGSTOP)
    serving.process.terminate()
    await eventually(lambda: not sockets_listening(serving.process.pid), "the end of new connections")
    # The workers' sockets are still open, for the connections in their queues. A new connection would be reset with them.
    host, port = serving.origin.removeprefix("http://").split(":")
    for _ in range(4):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.open_connection(host, int(port)), 0.3)
    pause_workers(serving, signal.SIGCONT)
    assert await asyncio.to_thread(serving.process.wait, PATIENCE) == 0


async def test_a_killed_worker_fails_only_its_requests(start: Start) -> None:
    serving = start(*LENIENT, SCC_ROOT_TOKEN=TOKEN)
    first, second = serving.workers()
    async with workload_over_http(serving.origin, KEY, clients=12) as clients:
        await clients.wait_for("acknowledged", 100)
        clients.may_lose_connections = True
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: len(serving.workers()) == 2 and first not in serving.workers(), "another worker")
        await clients.wait_for("acknowledged", 100)
        # Each connection breaks once at most; none breaks after the replacement.
        clients.may_lose_connections = False
        await clients.wait_for("acknowledged", 100)
    assert second in serving.workers()
    assert clients.stats.connections_lost <= 12
    assert (clients.stats.refused, clients.stats.reads_refused - clients.stats.connections_lost) <= (0, 0)
    assert await check_after_fault(clients, serving) == 0
