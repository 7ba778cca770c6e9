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
from service.process import data_dir
from service.process.embedded_redis import EmbeddedRedis
from service.redis_client.client import RedisClient
from service.store.sessions import Sessions
from tests.support.filling import PROJECT, TIMEOUT, add, document_of, keyspace, opened, session_id, with_every_server
from tests.support.redis_servers import BUNDLED
from tests.support.server import Serving, Start, run_command, until
from tests.support.workload import KEY, TOKEN, check_after_fault, workload_over_http

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
    """The file that Redis appends to; version 7 and newer keep it in a subdirectory."""
    (path,) = directory.rglob("*.aof")
    return path


def removed_from(directory: Path) -> list[Path]:
    """The files that contain what was cut off."""
    kept = list(directory.rglob("*.aof-removed-*"))
    assert [path.stat().st_mode & 0o077 for path in kept] == [0] * len(kept)
    return kept


async def contents(directory: Path, server: str, write: Writing | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Start Redis on `directory`; its content before and after `write`."""
    embedded = EmbeddedRedis(directory, fsync="always", server=server)
    embedded.launch()
    try:
        embedded.wait()
        redis = RedisClient.open(embedded.url, timeout=TIMEOUT)
        before = await keyspace(redis)
        if write is not None:
            await write(await opened(redis, PROJECT, Limits(), 1, 4))
        after = await keyspace(redis)
        await redis.close()
    finally:
        # Everything is on the disk; an orderly stop would only take longer.
        if embedded.pid is not None:
            os.kill(embedded.pid, signal.SIGKILL)
        embedded.stop()
    return before, after


async def two_sessions(sessions: Sessions) -> None:
    await add(sessions, 1, {"a": 1, "b": [1, 2], "only": True}, "alice")
    await add(sessions, 2, {"a": 1, "b": 2}, "alice")


@with_every_server
@pytest.mark.parametrize("name", WRITES)
async def test_a_file_cut_within_a_write_loses_the_whole_write(tmp_path: Path, name: str, server: str) -> None:
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
        torn = append_only_file(cut).read_bytes()[start:]
        assert (await contents(cut, server))[0] == before, f"cut at {at} of {start} to {size}"
        assert [path.read_bytes() for path in removed_from(cut)] == [torn] * (at > start)
        shutil.rmtree(cut)
    assert (await contents(whole, server))[0] == after


@pytest.mark.parametrize("missing", [1, 7_001, 60_013])
async def test_a_server_starts_on_a_truncated_file_and_loses_only_the_tail(start: Start, missing: int) -> None:
    serving = start(SCC_ROOT_TOKEN=TOKEN)
    async with workload_over_http(serving.origin, KEY) as clients:
        await clients.wait_for("acknowledged", 400)
    assert serving.stop() == 0
    path = append_only_file(serving.data_dir)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - missing)
    lost = await check_after_fault(clients, start(SCC_ROOT_TOKEN=TOKEN), lost_after=-inf)
    assert lost < clients.stats.acknowledged / 2
    assert lost > 0 or missing == 1
    assert len(removed_from(serving.data_dir)) == 1


ZEROS = [1, 4096, 70_000]


@with_every_server
@pytest.mark.parametrize("zeros", ZEROS)
async def test_zeros_at_the_end_are_cut_off_after_complete_and_incomplete_writes(
    tmp_path: Path, zeros: int, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    await contents(tmp_path, server, two_sessions)
    before, after = await contents(tmp_path, server, WRITES["patch"])
    path = append_only_file(tmp_path)
    whole = path.read_bytes()
    for written, kept, expected in ((whole, len(whole), after), (whole[:-9], whole.rindex(BEGINNING), before)):
        path.write_bytes(written + bytes(zeros))
        assert (await contents(tmp_path, server))[0] == expected
        (removed,) = removed_from(tmp_path)
        assert removed.read_bytes() == (written + bytes(zeros))[kept:]
        size = len(written) + zeros - kept
        assert caplog.messages[-1] == (
            f"cut off an unfinished write at the end of {path}; its {size} bytes are saved in {removed}"
        )
        removed.unlink()


@with_every_server
async def test_a_redis_killed_within_a_write_restarts(tmp_path: Path, server: str) -> None:
    await contents(tmp_path, server, two_sessions)
    path = append_only_file(tmp_path)
    path.write_bytes(path.read_bytes() + BEGINNING)
    redis = EmbeddedRedis(tmp_path, fsync="always", server=server)
    redis.launch()
    until(lambda: redis.exit_reason() is not None, "the exit of a Redis that refuses its file")
    redis.relaunch()
    try:
        redis.wait()
    finally:
        redis.stop()
    assert [kept.read_bytes() for kept in removed_from(tmp_path)] == [BEGINNING]


@pytest.fixture
async def damaged(tmp_path: Path) -> Path:
    """A data directory whose file is damaged before its last write."""
    directory = data_dir.create(tmp_path / "data")
    await contents(directory, BUNDLED.path, two_sessions)
    path = append_only_file(directory)
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(BEGINNING)] + b"damage" + content[content.rindex(BEGINNING) :])
    return directory


def test_other_damage_prevents_the_start_and_is_repaired_only_on_demand(damaged: Path) -> None:
    path = append_only_file(damaged)
    content = path.read_bytes()
    at = content.rindex(b"damage")
    where = ("--data-dir", str(damaged), "--redis-server", BUNDLED.path)
    refused = run_command("serve", "--port", "0", *where)
    assert (refused.returncode, path.read_bytes()) == (1, content)
    assert refused.stderr.splitlines()[-1] == (
        f"{path} is damaged from byte {at:,} on; restore a backup, or run `session-configs repair-aof`, "
        f"which cuts off its last {len(content) - at:,} bytes"
    )
    repaired = run_command("repair-aof", *where)
    assert (repaired.returncode, path.read_bytes()) == (0, content[:at]), repaired.stderr
    (copy,) = damaged.rglob("*-before-repair-*")
    assert copy.read_bytes() == content
    assert copy.stat().st_mode & 0o077 == 0
    assert repaired.stdout == (f"cut {len(content) - at:,} bytes off the end of {path}; {copy} is a copy of the damaged file\n")
    again = run_command("repair-aof", *where)
    assert (again.returncode, again.stdout) == (
        0, f"{path} is not damaged; if Redis refuses to load its other files, restore a backup\n",
    )  # fmt: skip
    assert list(damaged.rglob("*-before-repair-*")) == [copy]
    started = Serving(damaged, "--workers", "1").wait_ready()
    assert started.stop() == 0


def test_no_file_is_repaired_under_a_running_server_or_without_a_store(start: Start, tmp_path: Path) -> None:
    serving = start()
    refused = run_command("repair-aof", "--data-dir", str(serving.data_dir))
    assert (refused.returncode, refused.stderr) == (
        1, f"data directory {serving.data_dir} is in use by another server\n",
    )  # fmt: skip
    refused = run_command("repair-aof", "--data-dir", str(tmp_path))
    assert (refused.returncode, refused.stderr) == (1, f"there is no append-only file in data directory {tmp_path}\n")
