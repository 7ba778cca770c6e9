"""Data directories that an operator copies, cleans up, or opens with another server than before."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.process.aof_format import RECORD, examine
from service.process.embedded_redis import socket_path
from service.process.redis_binaries import SERVER_NAMES, bundled_server, servers
from tests.support.server import Serving, request, run_command, until

TOKEN = "root-of-the-tests"
KEY = f"sk-ac-{TOKEN}"
FILES = Path(__file__).parents[1] / "store"

LENGTHS = pytest.mark.parametrize("name", ["short", "long" * 40], ids=["short", "long"])


@pytest.fixture
def serving(tmp_path: Path, name: str) -> Iterator[Serving]:
    """A server whose data directory has that name."""
    serving = serve(tmp_path / name)
    yield serving
    assert serving.stop() == 0, serving.errors


def serve(directory: Path, *flags: str, **variables: str) -> Serving:
    return Serving(directory, "--workers", "1", *flags, **({"SCC_ROOT_TOKEN": TOKEN} | variables)).wait_ready()


def create(serving: Serving, number: int) -> int:
    body = {"use_uuid": session_id(number), "configs": {"number": number}}
    return request("POST", f"{serving.base_url}/session", KEY, body)[0]


def session_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def configs(serving: Serving, key: str = KEY) -> dict[str, object]:
    """The configs of every session, by its id."""
    status, answer = request("GET", f"{serving.base_url}/session?limit=200", key)
    assert status == 200
    return {item["id"]: item["configs"] for item in answer["data"]["items"]}


@LENGTHS
def test_changes_to_a_copied_data_directory_do_not_affect_the_original_server(serving: Serving, tmp_path: Path) -> None:
    assert create(serving, 1) == 201
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", serving.data_dir, copy], check=True)
    for words in (("project", "create", "acme"), ("check",)):
        refused = run_command(*words[:1], "--data-dir", str(copy), *words[1:])
        assert refused.returncode == 1
        assert f"no server is running on data directory {copy}" in refused.stderr
    assert "acme" not in run_command("project", "--data-dir", str(serving.data_dir), "list").stdout
    other = serve(copy)
    assert create(other, 2) == 201
    assert set(configs(other)) == {session_id(1), session_id(2)}
    assert other.stop() == 0
    assert socket_path(serving.data_dir).exists()
    assert "acme" in run_command("project", "--data-dir", str(serving.data_dir), "create", "acme").stdout
    assert set(configs(serving)) == {session_id(1)}


@LENGTHS
def test_a_removed_socket_is_restored_without_losing_acknowledged_writes(serving: Serving, name: str) -> None:
    path = socket_path(serving.data_dir)
    for number in range(1, 30):
        assert create(serving, number) == 201
    (before,) = serving.redis_processes()
    if name == "short":
        path.unlink()
    else:
        shutil.rmtree(path.parent)
    until(lambda: serving.redis_processes() not in ([], [before]), "another Redis")
    until(path.exists, "its socket, at the same path")
    # A new worker opens new connections.
    (worker,) = serving.workers()
    os.kill(worker, signal.SIGKILL)
    until(lambda: serving.workers() not in ([], [worker]), "another worker")
    until(lambda: request("GET", f"{serving.base_url}/session", KEY)[0] == 200, "an answer")
    assert configs(serving) == {session_id(number): {"number": number} for number in range(1, 30)}
    assert "the socket of the embedded Redis was removed" in serving.errors
    assert "bye bye" in (serving.data_dir / "redis.log").read_text(encoding="utf-8")


#: What the service stored with Redis 6.2.14: sessions 1 to 9, 1 patched, 2 deleted; and, in the file that was rewritten
#: meanwhile, then 3 patched and 10 created.
AT_FIRST: dict[str, object] = {
    session_id(1): {"agent": "bot7"},
    **{session_id(number): {"agent": f"bot{number % 2}", "n": number} for number in range(3, 9)},
    session_id(9): {"long": "x" * 100 + "é", "deep": {"tags": ["a", "b"], "t": 0.7}},
}
OLD_FILES = {
    "redis-6.2-commands.aof": AT_FIRST,
    "redis-6.2-rewritten.aof": AT_FIRST
    | {session_id(3): {"agent": "bot1", "n": 3, "after": "rewrite"}, session_id(10): {"agent": "bot1"}},
}


@pytest.mark.parametrize("name", OLD_FILES)
def test_the_bundled_server_loads_the_file_of_redis_6_2_without_loss(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    shutil.copy(FILES / name, directory / "appendonly.aof")
    (directory / "temp-rewriteaof-17.aof").write_bytes(b"unfinished")
    variables = {"SCC_ROOT_TOKEN": "old-root", "SCC_KEY_SECRET": "old-secret"}
    serving = serve(directory, "--redis-server", bundled_server(), **variables)
    assert configs(serving, "sk-ac-old-root") == OLD_FILES[name]
    result = run_command("check", "--data-dir", str(directory))
    assert (result.returncode, result.stdout) == (0, "1 project checked: no differences\n")
    assert not (directory / "temp-rewriteaof-17.aof").exists()
    assert serving.stop() == 0
    assert examine(directory).record == servers(bundled_server())[0][1:]
    # A second start succeeds too: the file was converted completely.
    serving = serve(directory, **variables)
    assert configs(serving, "sk-ac-old-root") == OLD_FILES[name]
    assert serving.stop() == 0


@pytest.mark.parametrize("program", SERVER_NAMES)
def test_a_newly_installed_server_that_cannot_read_the_directory_is_skipped(tmp_path: Path, program: str) -> None:
    directory, programs = tmp_path / "data", tmp_path / "bin"
    serving = serve(directory, "--redis-server", bundled_server())
    assert create(serving, 1) == 201
    assert serving.stop() == 0
    programs.mkdir()
    installed = programs / program
    installed.write_text("#!/bin/sh\necho Redis server v=7.0.15\n", encoding="utf-8")
    installed.chmod(0o755)
    serving = serve(directory, PATH=f"{programs}:{os.environ['PATH']}", SCC_REDIS_SERVER="")
    assert configs(serving) == {session_id(1): {"number": 1}}
    assert serving.stop() == 0
    assert f"{installed} (Redis 7.0) cannot read data directory {directory}" in serving.errors
    named = run_command("serve", "--port", "0", "--data-dir", str(directory), "--redis-server", str(installed))
    assert named.returncode == 1
    assert f"{installed} (Redis 7.0) cannot read it" in named.stderr
    assert named.stderr.count("\n") == 1
    assert (directory / RECORD).exists()
