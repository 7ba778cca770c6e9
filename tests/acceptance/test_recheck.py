"""Requests that workers of a killed supervisor still answer during a repartition: no acknowledged write is lost."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

from redis import Redis
from redis.exceptions import RedisError

from tests.support.server import PATIENCE, Serving, clean_environment, request, run_command, until

KEY = "sk-ac-root-of-the-tests"
#: Sessions; with three partitions not all of them are in the first.
COUNT = 12


def session_id(number: int) -> str:
    return str(UUID(int=number))


def start(directory: Path, *flags: str) -> Serving:
    return Serving(directory, "--workers", "2", *flags, SCC_ROOT_TOKEN="root-of-the-tests").wait_ready()


class Slow:
    """A request whose body is sent later."""

    def __init__(self, serving: Serving, method: str, path: str, members: object) -> None:
        self._body = json.dumps(members).encode()
        host, _, port = serving.origin.removeprefix("http://").partition(":")
        self._connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
        lines = (
            f"{method} /api/v1{path} HTTP/1.1", "Host: x", f"Authorization: Bearer {KEY}", "Expect: 100-continue",
            f"Content-Length: {len(self._body)}", "", "",
        )  # fmt: skip
        self._connection.sendall("\r\n".join(lines).encode())
        assert self._connection.recv(100).startswith(b"HTTP/1.1 100")

    def finish(self) -> int:
        """Send the rest; the status, or 0 if the worker has exited."""
        with self._connection:
            try:
                self._connection.sendall(self._body)
                answer = self._connection.recv(65536)
            except ConnectionError:
                return 0
        return int(answer.split(b" ", 2)[1]) if answer else 0


def slow_requests(serving: Serving) -> dict[str, list[Slow]]:
    """Writes to existing sessions, new sessions, and a change of the default TTL."""
    late = {"configs": {"late": True}}
    return {
        "PUT": [Slow(serving, "PUT", f"/session/{session_id(number)}/configs", late) for number in range(COUNT)],
        "PATCH": [Slow(serving, "PATCH", f"/session/{session_id(number)}/configs", late) for number in range(COUNT)],
        "POST": [
            Slow(serving, "POST", "/session", late | {"use_uuid": session_id(100 + number), "user": "late"})
            for number in range(COUNT)
        ],
        "default TTL": [Slow(serving, "PATCH", "/project/configs", {"session_ttl": 5000})],
    }


def is_numbering(directory: Path) -> bool:
    with Redis(unix_socket_path=str(directory / "redis.sock")) as redis:
        try:
            return bool(redis.hget("scc:store", "moving_phase") == b"number")
        except RedisError:
            return False


def test_workers_of_a_killed_supervisor_acknowledge_no_write_that_a_repartition_loses(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    serving = start(directory, "--fsync", "always", "--shutdown-timeout", "60")
    for number in range(COUNT):
        body = {"use_uuid": session_id(number), "configs": {"n": number}}
        assert request("POST", f"{serving.base_url}/session", KEY, body)[0] == 201
    during, after = slow_requests(serving), slow_requests(serving)
    serving.process.kill()
    serving.process.wait(PATIENCE)
    moving = _moving(directory)
    until(lambda: moving.poll() is not None or is_numbering(directory), "the last phase of the move")
    assert moving.poll() is None
    statuses = {name: [each.finish() for each in requests] for name, requests in during.items()}
    output, errors = moving.communicate(timeout=PATIENCE)
    assert moving.returncode == 0, output + errors
    again = start(directory, "--partitions", "3")
    for name, requests in after.items():
        statuses[name] += [each.finish() for each in requests]
    _check_refused(again, statuses)
    assert run_command("check", "--data-dir", str(directory)).stdout == "1 project checked: no differences\n"
    assert again.stop() == 0


def _moving(directory: Path) -> "subprocess.Popen[str]":
    """Start a repartition that waits until the old server's Redis has exited."""
    command = [sys.executable, "-m", "service", "repartition", "3", "--data-dir", str(directory)]
    while True:
        moving = subprocess.Popen(command, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(1)
        if moving.poll() is None:
            return moving
        assert "in use" in moving.communicate()[1]


def _check_refused(serving: Serving, statuses: dict[str, list[int]]) -> None:
    """Check that nothing was acknowledged: each worker has refused or exited."""
    assert {status for each in statuses.values() for status in each} <= {0, 401, 503}
    _, answer = request("GET", f"{serving.base_url}/session?limit=200", KEY)
    assert [(item["id"], item["configs"]) for item in answer["data"]["items"]] == [
        (session_id(number), {"n": number}) for number in range(COUNT)
    ]
    assert request("GET", f"{serving.base_url}/user/ls", KEY)[1]["data"]["items"] == []
    assert request("GET", f"{serving.base_url}/project/configs", KEY)[1]["data"] == {}
