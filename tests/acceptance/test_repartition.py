"""A repartition of a real server's store: only offline, resumed after kills, and served again afterwards."""

import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

from redis import Redis
from redis.exceptions import RedisError

from tests.support.server import PATIENCE, Serving, clean_environment, request, run_command, until

KEY = "sk-ac-root-of-the-tests"
COUNT = 30


def start(directory: Path, *flags: str) -> Serving:
    return Serving(directory, "--workers", "2", *flags, SCC_ROOT_TOKEN="root-of-the-tests").wait_ready()


def listed(serving: Serving) -> list[Any]:
    """Every session that the server lists."""
    sessions: list[Any] = []
    cursor = ""
    while True:
        status, answer = request("GET", f"{serving.base_url}/session?limit=7&cursor={cursor}", KEY)
        assert status == 200
        sessions += answer["data"]["items"]
        if not answer["data"]["has_more"]:
            return sessions
        cursor = answer["data"]["next_cursor"]


def move(directory: Path, partitions: int) -> subprocess.CompletedProcess[str]:
    return run_command("repartition", str(partitions), "--data-dir", str(directory))


def killed_in(phase: str, directory: Path) -> None:
    """Start a repartition to three partitions, and kill it in a phase, each of which takes seconds."""
    command = [sys.executable, "-m", "service", "repartition", "3", "--data-dir", str(directory)]
    moving = subprocess.Popen(command, env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    redis = Redis(unix_socket_path=str(directory / "redis.sock"))

    def reached() -> bool:
        assert moving.poll() is None
        try:
            return redis.hget("scc:store", "moving_phase") == phase.encode()
        except RedisError:
            return False

    try:
        until(reached, f"the phase {phase}")
    finally:
        redis.close()
        moving.kill()
        moving.wait(PATIENCE)


def test_a_repartition_runs_offline_and_resumes_after_kills(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    serving = start(directory)
    for number in range(COUNT):
        body = {"use_uuid": str(UUID(int=number)), "user": f"u{number % 3}", "configs": {"n": number, "float": 1.50}}
        assert request("POST", f"{serving.base_url}/session", KEY, body)[0] == 201
    before = listed(serving)
    assert [session["configs"]["n"] for session in before] == list(range(COUNT))
    cursor = request("GET", f"{serving.base_url}/session?limit=7", KEY)[1]["data"]["next_cursor"]

    # Refused while a server runs, however it is addressed.
    refused = move(directory, 3)
    assert (refused.returncode, refused.stderr) == (1, f"data directory {directory} is in use by another server\n")
    refused = run_command("repartition", "3", "--redis-url", f"unix://{directory}/redis.sock")
    assert refused.returncode == 1
    assert refused.stderr.startswith("a server or command of this service is connected to Redis from ")
    assert listed(serving) == before
    assert serving.stop() == 0

    for phase in ("move", "number"):
        killed_in(phase, directory)
        refused = run_command("serve", "--data-dir", str(directory), "--port", "0", SCC_ROOT_TOKEN="root-of-the-tests")
        assert refused.returncode == 1
        assert refused.stderr.endswith("a repartition to 3 is unfinished; run `repartition 3` to complete it\n")
        refused = move(directory, 2)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr == "a repartition to 3 is unfinished; run `repartition 3` first\n"
    moved = move(directory, 3)
    assert moved.returncode == 0, moved.stderr
    assert moved.stdout == (
        f"{COUNT} sessions are in 3 partitions; start servers with --partitions 3\n1 project checked: no differences\n"
    )

    refused = run_command("serve", "--data-dir", str(directory), "--port", "0", SCC_ROOT_TOKEN="root-of-the-tests")
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (1, "this store was created with partitions 3, not 1")
    serving = start(directory, "--partitions", "3")
    assert listed(serving) == before
    status, answer = request("GET", f"{serving.base_url}/session?limit=7&cursor={cursor}", KEY)
    assert (status, answer["msg"]) == (400, "invalid cursor")
    assert request("POST", f"{serving.base_url}/session", KEY, {"configs": {"n": COUNT}})[0] == 201
    assert [session["configs"]["n"] for session in listed(serving)] == list(range(COUNT + 1))
    assert serving.stop() == 0
