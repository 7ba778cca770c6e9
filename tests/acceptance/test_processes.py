"""The processes of `serve`: start, shutdown, restart, and the death of each process."""

import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.process.workers import STOP_DEBOUNCE
from tests.support.server import Serving, Start, alive, request, run_command, until


def key_of(serving: Serving) -> str:
    return next(line for line in serving.output.splitlines() if line.startswith("key: ")).removeprefix("key: ")


def create(serving: Serving, key: str, configs: object) -> str:
    """Create a session with `configs` and return its id."""
    status, answer = request("POST", f"{serving.base_url}/session", key, {"configs": configs})
    assert status == 201
    return str(answer["data"]["id"])


def configs_of(serving: Serving, key: str, session: str) -> object:
    status, answer = request("GET", f"{serving.base_url}/session/{session}/configs", key)
    assert status == 200
    return answer["data"]["configs"]


def answers(serving: Serving, key: str) -> bool:
    """Whether the server reaches its Redis; otherwise it must answer 503."""
    status, _ = request("GET", f"{serving.base_url}/session", key)
    assert status in (200, 503)
    return status == 200


def test_what_the_first_start_prints_can_be_pasted(start: Start) -> None:
    serving = start()
    key = key_of(serving)
    lines = serving.output.splitlines()
    assert lines[0] == f"Session Config Cache is ready at {serving.base_url}"
    assert f"curl -H 'Authorization: Bearer {key}' {serving.base_url}/session" in lines
    assert request("GET", f"{serving.base_url}/session", key)[0] == 200
    sdk = next(line for line in lines if "AcontextClient(" in line)
    result = subprocess.run([sys.executable, "-c", f"{sdk}\nprint(client.ping())"], capture_output=True, text=True, check=True)
    assert result.stdout == "pong\n"


def test_the_generated_key_is_private_and_survives_a_restart(start: Start) -> None:
    serving = start()
    key = key_of(serving)
    for name in ("root-token", "key-secret"):
        assert stat.S_IMODE((serving.data_dir / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(serving.data_dir.stat().st_mode) == 0o700
    assert f"sk-ac-{(serving.data_dir / 'root-token').read_text(encoding='utf-8').strip()}" == key
    assert serving.stop() == 0
    assert key_of(start()) == key


def test_a_key_that_the_operator_set_is_used_and_never_printed(start: Start) -> None:
    serving = start(SCC_ROOT_TOKEN="set-by-the-operator")
    assert "key: from setting root_token" in serving.output
    assert "set-by-the-operator" not in serving.output + serving.errors
    assert request("GET", f"{serving.base_url}/session", "sk-ac-set-by-the-operator")[0] == 200
    assert not (serving.data_dir / "root-token").exists()


def test_other_users_and_the_network_cannot_reach_redis(start: Start) -> None:
    serving = start()
    redis_socket = serving.data_dir / "redis.sock"
    assert stat.S_IMODE(redis_socket.stat().st_mode) == 0o700
    assert [path for path in serving.data_dir.rglob("*") if stat.S_IMODE(path.lstat().st_mode) & 0o077] == []
    result = run_command("redis-cli", "--data-dir", str(serving.data_dir), "CONFIG", "GET", "port")
    assert result.stdout.split() == ["port", "0"]


def test_the_environment_of_redis_has_no_secrets(start: Start) -> None:
    serving = start(SCC_ROOT_TOKEN="set-by-the-operator")
    (redis,) = serving.redis_processes()
    assert "SCC_" not in Path(f"/proc/{redis}/environ").read_text(encoding="utf-8")


def test_a_second_server_on_the_data_directory_is_refused(start: Start) -> None:
    serving = start()
    second = run_command("serve", "--port", "0", "--data-dir", str(serving.data_dir))
    assert second.returncode == 1
    assert second.stderr == f"data directory {serving.data_dir} is in use by another server\n"
    assert answers(serving, key_of(serving))


def test_a_port_in_use_is_refused(start: Start, tmp_path: Path) -> None:
    port = urlsplit(start().origin).port
    second = run_command("serve", "--port", str(port), "--data-dir", str(tmp_path / "other"))
    assert second.returncode == 1
    message = f"cannot listen on 127.0.0.1 port {port}: Address already in use"
    assert second.stderr == f"{message}\n"
    second = run_command("serve", "--port", str(port), "--data-dir", str(tmp_path / "other"), "--log-format", "json")
    assert second.returncode == 1
    entry = json.loads(second.stderr)
    assert (entry["level"], entry["message"]) == ("error", message)


def test_a_setting_out_of_range_is_one_line_and_status_1() -> None:
    refused = run_command("serve", "--workers", "0")
    assert (refused.returncode, refused.stderr) == (1, "setting workers must be 1 to 256 (--workers)\n")


def test_configs_survive_a_restart(start: Start) -> None:
    first = start()
    session = create(first, key_of(first), {"agent": "bot1"})
    assert first.stop() == 0
    second = start()
    assert configs_of(second, key_of(second), session) == {"agent": "bot1"}


def fake_redis(directory: Path, body: str) -> str:
    """Write a redis-server that prints its version or else runs `body`; its path."""
    fake = directory / "redis-server"
    fake.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "v=7.0.15" && exit\n{body}\n', encoding="utf-8")
    fake.chmod(0o755)
    return str(fake)


def test_a_redis_that_exits_at_startup_is_one_line_and_status_1(tmp_path: Path) -> None:
    fake = fake_redis(tmp_path, "echo out of order; exit 3")
    refused = run_command("serve", "--port", "0", "--data-dir", str(tmp_path / "data"), "--redis-server", fake)
    assert refused.returncode == 1
    assert refused.stderr.startswith("the embedded Redis exited: exit status 3; ")
    assert refused.stderr.endswith("out of order\n")
    assert refused.stderr.count("\n") == 1


def test_sigterm_ends_a_start_that_waits_for_redis(tmp_path: Path) -> None:
    serving = Serving(tmp_path / "data", "--redis-server", fake_redis(tmp_path, "exec sleep 3600"))
    until(lambda: serving.children("sleep"), "the start of the fake")
    (fake,) = serving.children("sleep")
    assert serving.stop() == 0, serving.errors
    assert not alive(fake)
    assert serving.output == ""


def test_sigterm_shuts_everything_down_cleanly(start: Start) -> None:
    serving = start()
    children = serving.children()
    assert len(children) == 3
    assert serving.stop() == 0
    assert [pid for pid in children if alive(pid)] == []
    assert not (serving.data_dir / "redis.sock").exists()
    assert "bye bye" in (serving.data_dir / "redis.log").read_text(encoding="utf-8")
    assert serving.errors == ""


def test_ctrl_c_in_a_terminal_shuts_everything_down_cleanly(tmp_path: Path) -> None:
    # A terminal sends SIGINT to the whole process group.
    serving = Serving(tmp_path / "data", "--workers", "2").wait_ready()
    os.killpg(serving.process.pid, signal.SIGINT)
    assert serving.process.wait(60) == 0
    assert "bye bye" in (serving.data_dir / "redis.log").read_text(encoding="utf-8")
    assert serving.errors == ""


def half_sent(serving: Serving, key: str) -> tuple[http.client.HTTPConnection, bytes]:
    """Send a request without the end of its body; the connection, and the rest to send."""
    body = b'{"configs":{"agent":"bot1"}}'
    connection = http.client.HTTPConnection(urlsplit(serving.origin).netloc, timeout=60)
    connection.putrequest("POST", "/api/v1/session")
    for name, value in (
        ("Authorization", f"Bearer {key}"),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Expect", "100-continue"),
    ):
        connection.putheader(name, value)
    connection.endheaders()
    # The server asks for the body, so it has received the request.
    assert connection.sock.recv(1024).startswith(b"HTTP/1.1 100")
    return connection, body


def refuses_connections(serving: Serving) -> bool:
    address = urlsplit(serving.origin)
    try:
        socket.create_connection((address.hostname or "", address.port or 0)).close()
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize("end", ["SIGTERM", "Ctrl-C"])
def test_a_request_in_flight_is_answered_after_sigterm_and_ctrl_c(start: Start, end: str) -> None:
    serving = start()
    connection, rest = half_sent(serving, key_of(serving))
    if end == "SIGTERM":
        serving.process.terminate()
    else:
        os.killpg(serving.process.pid, signal.SIGINT)
    until(lambda: refuses_connections(serving), "an end of new connections")
    connection.send(rest)
    response = connection.getresponse()
    assert response.status == 201
    response.read()
    connection.close()
    assert serving.process.wait(60) == 0


def test_a_second_signal_does_not_wait_for_requests_in_flight(start: Start) -> None:
    # Neither the server nor the client ends the request.
    serving = start("--shutdown-timeout", "3600", "--client-timeout", "3600")
    connection, _ = half_sent(serving, key_of(serving))
    serving.process.terminate()
    until(lambda: refuses_connections(serving), "an end of new connections")
    time.sleep(STOP_DEBOUNCE + 0.1)
    serving.process.terminate()
    assert serving.process.wait(60) == 0
    assert "killing the workers; requests in flight are lost" in serving.errors
    assert "bye bye" in (serving.data_dir / "redis.log").read_text(encoding="utf-8")
    connection.close()


def test_two_signals_within_a_second_count_as_one(start: Start) -> None:
    serving = start()
    connection, rest = half_sent(serving, key_of(serving))
    serving.process.terminate()
    time.sleep(0.1)  # two pending signals would count as one for the system
    serving.process.terminate()
    until(lambda: refuses_connections(serving), "an end of new connections")
    connection.send(rest)
    response = connection.getresponse()
    assert response.status == 201
    response.read()
    connection.close()
    assert serving.process.wait(60) == 0
    assert serving.errors == ""


def test_a_killed_worker_is_replaced_without_refused_connections(start: Start) -> None:
    serving = start()
    key = key_of(serving)
    before = serving.workers()
    os.kill(before[0], signal.SIGKILL)
    # Connections in the queue of the dead worker's socket wait for the new worker.
    assert all(answers(serving, key) for _ in range(20))
    until(lambda: len(serving.workers()) == 2, "a new worker")
    assert before[0] not in serving.workers()
    assert before[1] in serving.workers()
    assert "worker 1 exited (signal 9)" in serving.errors


# A killed Redis may lose what it acknowledged during a sync of its file, at most 2 seconds of writes, unless it syncs before it
# answers.
ALWAYS = ("--fsync", "always")


def test_a_killed_redis_restarts_with_every_acknowledged_write(start: Start) -> None:
    serving = start(*ALWAYS)
    key = key_of(serving)
    session = create(serving, key, {"agent": "bot1"})
    (redis,) = serving.redis_processes()
    os.kill(redis, signal.SIGKILL)
    until(lambda: serving.redis_processes() not in ([], [redis]), "a new Redis")
    until(lambda: answers(serving, key), "an answer from the new Redis")
    assert configs_of(serving, key, session) == {"agent": "bot1"}


def test_all_processes_die_with_a_killed_supervisor(start: Start) -> None:
    serving = start(*ALWAYS)
    session = create(serving, key_of(serving), {"agent": "bot1"})
    children = serving.children()
    assert len(children) == 3
    serving.process.kill()
    serving.process.wait(60)
    until(lambda: not any(alive(pid) for pid in children), "the end of all children")
    again = start()
    assert configs_of(again, key_of(again), session) == {"agent": "bot1"}


def test_a_start_right_after_the_kill_waits_for_the_old_redis(start: Start) -> None:
    serving = start()
    serving.process.kill()
    serving.process.wait(60)
    assert answers(start(), key_of(serving))


@pytest.mark.parametrize("path", [os.environ["PATH"], ""], ids=["as it is", "empty"])
def test_redis_cli_gets_its_arguments_unchanged_with_and_without_a_program_on_path(start: Start, path: str) -> None:
    serving = start()
    where = ("--data-dir", str(serving.data_dir))
    assert run_command("redis-cli", *where, "PING", PATH=path).stdout == "PONG\n"
    assert run_command("redis-cli", *where, "--raw", "ECHO", "--data-dir", PATH=path).stdout == "--data-dir\n"
    assert run_command("redis-cli", f"--data-dir={serving.data_dir}", "-e", "ECHO", "a b", PATH=path).stdout == "a b\n"
    by_url = run_command("redis-cli", "PING", SCC_REDIS_URL=f"unix://{serving.data_dir}/redis.sock", PATH=path)
    assert by_url.stdout == "PONG\n"


def test_the_prompt_without_a_redis_cli_on_path_is_a_one_line_error(start: Start) -> None:
    refused = run_command("redis-cli", "--data-dir", str(start().data_dir), PATH="")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("the interactive prompt needs redis-cli or valkey-cli")
    assert refused.stderr.count("\n") == 1


def test_redis_cli_without_a_server_says_so(tmp_path: Path) -> None:
    refused = run_command("redis-cli", "--data-dir", str(tmp_path), "PING")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"no server is running on data directory {tmp_path};")


def test_a_server_with_an_external_redis_starts_none(start: Start, empty_redis: str) -> None:
    serving = start(SCC_REDIS_URL=empty_redis)
    assert serving.redis_processes() == []
    assert answers(serving, key_of(serving))
    assert sorted(path.name for path in serving.data_dir.iterdir()) == ["key-secret", "root-token"]


def test_an_ipv6_address_can_be_served(start: Start) -> None:
    serving = start("--host", "::1")
    assert serving.origin.startswith("http://[::1]:")
    assert answers(serving, key_of(serving))


COMMANDS = (
    "",
    "serve",
    "project",
    "project create",
    "find",
    "check",
    "repartition",
    "settings",
    "health",
    "redis-cli",
    "get",
    "list",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = run_command(*command.split(), "--help")
    assert result.returncode == 0
    assert result.stdout.startswith(f"Usage: session-configs {command}".strip())
    assert result.stderr == ""
