"""A power cut leaves the append-only file short: only its tail is lost, and never half a write."""

import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from math import inf
from pathlib import Path
from typing import Any

import pytest

from service.configs.limits import Limits
from service.store.connection import Link
from service.store.embedded import EmbeddedRedis
from service.store.sessions import Sessions
from tests.faults.aftermath import KEY, TOKEN, hold
from tests.faults.storm import storm
from tests.serving import Start
from tests.store.filling import PROJECT, TIMEOUT, add, document_of, keyspace, opened, session_id, with_every_server

BEGINNING = b"*1\r\n$5\r\nMULTI\r\n"
CUTS = 6

Writing = Callable[[Sessions], Awaitable[object]]

WRITES: dict[str, Writing] = {
    "create": lambda sessions: add(sessions, 3, {"a": 1, "b": [1, 2]}, "alice"),
    "replace": lambda sessions: sessions.replace(session_id(1), document_of({"a": 2, "c": {"d": "e"}})),
    "patch": lambda sessions: sessions.patch(session_id(1), document_of({"a": 2, "b": None, "c": [3]})),
    "delete": lambda sessions: sessions.delete(session_id(1)),
}


def append_only_file(directory: Path) -> Path:
    """The file that Redis appends to; 7 and newer keep it in a directory of its own."""
    (path,) = directory.rglob("*.aof")
    return path


async def contents(directory: Path, server: str, write: Writing | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Start Redis on `directory`; what it holds before and after `write`."""
    redis = EmbeddedRedis(directory, fsync="always", server=server)
    redis.launch()
    try:
        redis.wait()
        link = Link.open(redis.url, timeout=TIMEOUT)
        before = await keyspace(link)
        if write is not None:
            await write(await opened(link, PROJECT, Limits(), 1, 4))
        after = await keyspace(link)
        await link.close()
    finally:
        # Everything is on the disk; an orderly stop would only take longer.
        if redis.pid is not None:
            os.kill(redis.pid, signal.SIGKILL)
        redis.stop()
    return before, after


async def two_sessions(sessions: Sessions) -> None:
    await add(sessions, 1, {"a": 1, "b": [1, 2], "only": True}, "alice")
    await add(sessions, 2, {"a": 1, "b": 2}, "alice")


@with_every_server
@pytest.mark.parametrize("name", WRITES)
async def test_a_cut_in_the_middle_of_a_write_undoes_it_whole(tmp_path: Path, name: str, server: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    await contents(whole, server, two_sessions)
    before, after = await contents(whole, server, WRITES[name])
    assert before != after
    size = append_only_file(whole).stat().st_size
    start = append_only_file(whole).read_bytes().rindex(BEGINNING)
    for at in sorted({*range(start, size, (size - start) // CUTS), size - 1}):
        shutil.copytree(whole, cut)
        with append_only_file(cut).open("r+b") as file:
            file.truncate(at)
        assert (await contents(cut, server))[0] == before, f"cut at {at} of {start} to {size}"
        shutil.rmtree(cut)
    assert (await contents(whole, server))[0] == after


@pytest.mark.parametrize("missing", [1, 7_001, 60_013])
async def test_a_server_starts_on_a_short_file_and_lacks_only_the_tail(start: Start, missing: int) -> None:
    serving = start(SCC_ROOT_TOKEN=TOKEN)
    async with storm(serving.origin, KEY) as clients:
        await clients.reach("acknowledged", 400)
    assert serving.stop() == 0
    path = append_only_file(serving.data_dir)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - missing)
    lost = await hold(clients, start(SCC_ROOT_TOKEN=TOKEN), lost_after=-inf)
    assert lost < clients.counts.acknowledged / 2
    assert lost > 0 or missing == 1
