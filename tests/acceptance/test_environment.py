"""Environments of a new machine: variables, locales, descriptors, limits and paths for a server and its commands."""

import http.client
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import PATIENCE, Serving, Start, clean_environment, request, run_command, until

ROOT = Path(__file__).parents[2]
TOKEN = "an-environment-test"
KEY = f"sk-ac-{TOKEN}"
#: An ASCII locale without the UTF-8 modes of Python; any use of a default encoding is an error.
ASCII = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONWARNDEFAULTENCODING": "1",
    "PYTHONWARNINGS": "error::EncodingWarning",
}
#: Characters with a meaning for setuptools, pip, Redis, URLs, shells or locales.
NAME = "feature%2Fx %(a)s [b] \"c\" 'd' 机器 back\\slash $HOME #?;"
CLOSED = {0: "<&-", 1: ">&-", 2: "2>&-"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def shell(line: str, *words: str, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a line of bash in which `run` stands for `session-configs` with `words`."""
    return subprocess.run(
        ["bash", "-c", line.replace("run", 'exec "$@"'), "bash", sys.executable, "-m", "service", *words],
        env=clean_environment(**variables),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def launch(data_dir: Path, line: str, *flags: str, **variables: str) -> "tuple[int, subprocess.Popen[str]]":
    """Start a server by a line of bash in which `run` stands for it; its port, which answers, and its process."""
    port = free_port()
    command = [sys.executable, "-m", "service", "serve", "--port", str(port), "--data-dir", str(data_dir), *flags]
    process = subprocess.Popen(
        ["bash", "-c", line.replace("run", 'exec "$@"'), "bash", *command],
        env=clean_environment(SCC_ROOT_TOKEN=TOKEN, **variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    until(lambda: answers(port) or process.poll() is not None, "a server")
    return port, process


def end(process: "subprocess.Popen[str]") -> str:
    """Stop a server; what it printed on standard error."""
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return errors


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server with one session, whose configs are not ASCII."""
    running = Serving(tmp_path_factory.mktemp("environment") / "data", "--workers", "1", SCC_ROOT_TOKEN=f" {TOKEN}\n", **ASCII)
    running.wait_ready()
    # Sent unescaped: the client of the tests would escape it.
    head = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    client = http.client.HTTPConnection(running.origin.removeprefix("http://"), timeout=PATIENCE)
    client.request("POST", "/api/v1/session", '{"configs":{"agent":"机器é"}}'.encode(), head)
    assert client.getresponse().status == 201
    client.close()
    yield running
    assert running.stop() == 0, running.errors


def test_empty_and_unknown_variables_change_nothing_and_unknown_ones_get_a_warning(start: Start) -> None:
    serving = start(SCC_HOST="", SCC_RATE_LIMIT="", SCC_ACCESS_LOG="", SCC_PORT="tcp://10.0.0.1:8029", SCC_PROT="hidden")
    assert serving.origin.startswith("http://127.0.0.1:")
    assert [line.split(" WARNING ")[1].split()[0] for line in serving.errors.splitlines()] == ["SCC_PROT", "SCC_PORT"]
    assert "hidden" not in serving.errors


def test_an_empty_data_directory_is_not_the_working_directory() -> None:
    refused = run_command("find", "a=1", SCC_DATA_DIR="")
    assert refused.stderr.startswith(f"no server is running on data directory {Path('.data').absolute()};")
    refused = run_command("serve", "--data-dir", "")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert refused.stderr.startswith("--data-dir must not be empty")


def test_a_root_token_with_a_trailing_newline_works(serving: Serving) -> None:
    assert request("GET", f"{serving.base_url}/ping", KEY)[0] == 200


@pytest.mark.parametrize("locale", [{}, ASCII, {"PYTHONIOENCODING": "gbk"}, {**ASCII, "PYTHONIOENCODING": "ascii"}])
def test_configs_are_printed_as_utf_8_in_every_locale(serving: Serving, locale: dict[str, str]) -> None:
    where = ("--data-dir", str(serving.data_dir))
    by_json = shell("run", "find", *where, "--json", '{"agent":"机器é"}', **locale)
    assert (by_json.returncode, by_json.stderr) == (0, b"")
    assert by_json.stdout.decode().endswith(' {"agent":"机器é"}\n')
    assert shell("run", "find", *where, 'agent="机器é"', **locale).stdout == by_json.stdout


@pytest.mark.parametrize("words", [["find", 'agent="\udcff"'], ["project", "create", "\udcff"]])
@pytest.mark.parametrize("locale", [{}, ASCII])
def test_an_argument_that_is_not_utf_8_is_one_line(words: list[str], locale: dict[str, str]) -> None:
    refused = shell("run", *words, **locale)
    assert refused.returncode == 1
    assert refused.stderr.decode().endswith(" is not UTF-8\n")
    assert refused.stderr.count(b"\n") == 1


@pytest.mark.parametrize("closed", [each for count in (1, 2, 3) for each in itertools.combinations(CLOSED, count)])
def test_a_server_with_closed_standard_streams_works(tmp_path: Path, closed: tuple[int, ...]) -> None:
    port, process = launch(tmp_path / "data", " ".join(["run", *(CLOSED[descriptor] for descriptor in closed)]))
    assert request("POST", f"http://127.0.0.1:{port}/api/v1/session", KEY, {"configs": {"a": 1}})[0] == 201
    # No socket and no lock has taken these descriptors.
    assert {os.readlink(f"/proc/{process.pid}/fd/{descriptor}") for descriptor in closed} == {os.devnull}
    end(process)


@pytest.mark.parametrize("full", [">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full"])
def test_a_server_works_when_its_output_is_full(tmp_path: Path, full: str) -> None:
    port, process = launch(tmp_path / "data", f"run {full}", SCC_UNKNOWN="a line on standard error")
    assert request("GET", f"http://127.0.0.1:{port}/api/v1/ping", KEY)[0] == 200
    end(process)


@pytest.mark.parametrize("words", [["find", "--json", "{}"], ["check"], ["project", "list"], ["--help"], ["--version"]])
@pytest.mark.parametrize(("output", "why"), [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")])
def test_output_that_cannot_be_written_is_one_line_and_status_1(
    serving: Serving, words: list[str], output: str, why: str
) -> None:
    failed = shell(f"run {output}", *words, SCC_DATA_DIR=str(serving.data_dir))
    assert (failed.returncode, failed.stderr.decode()) == (1, f"cannot write to standard output: {why}\n")


@pytest.mark.parametrize("words", [["find", "--json", "{}"], ["check"], ["project", "list"]])
@pytest.mark.parametrize("files", ["<&-", "2>&-", "2>/dev/full", "<&- 2>&-"])
def test_a_command_works_without_standard_input_and_error(serving: Serving, words: list[str], files: str) -> None:
    completed = shell(f"run {files}", *words, SCC_DATA_DIR=str(serving.data_dir))
    assert (completed.returncode, completed.stderr) == (0, b"")
    assert completed.stdout


@pytest.mark.parametrize("files", [">&- 2>&-", ">/dev/full 2>/dev/full", ">&- 2>&- <&-"])
def test_a_command_without_output_has_an_exit_status(serving: Serving, files: str) -> None:
    assert shell(f"run {files}", "check", SCC_DATA_DIR=str(serving.data_dir)).returncode == 1


def test_a_closed_pipe_is_not_an_error(serving: Serving) -> None:
    completed = shell('"$@" | true; exit ${PIPESTATUS[0]}', "check", SCC_DATA_DIR=str(serving.data_dir))
    assert (completed.returncode, completed.stderr) == (141, b"")


@pytest.mark.parametrize("output", [">&-", ">/dev/full"])
def test_a_key_that_cannot_be_printed_revokes_and_creates_nothing(serving: Serving, output: str) -> None:
    where = {"SCC_DATA_DIR": str(serving.data_dir)}
    name = f"unseen-{'closed' if output == '>&-' else 'full'}"
    for _ in range(2):  # it can be repeated
        assert shell(f"run {output}", "project", "create", name, **where).returncode == 1
        assert name not in run_command("project", "list", **where).stdout
    key = run_command("project", "create", name, **where).stdout.split()[-1]
    before = run_command("redis-cli", "SMEMBERS", f"scc:{{{name}}}:tokens", **where).stdout
    assert shell(f"run {output}", "project", "rotate-key", name, **where).returncode == 1
    assert request("GET", f"{serving.base_url}/ping", key)[0] == 200
    assert run_command("redis-cli", "SMEMBERS", f"scc:{{{name}}}:tokens", **where).stdout == before


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "127.0.0.2", "::1", "::", "localhost"])  # noqa: S104 - for a moment
def test_the_health_check_connects_to_the_server_without_a_proxy(start: Start, host: str) -> None:
    serving = start(SCC_HOST=host)
    (text,) = re.findall(r"^HEALTHCHECK .*?CMD (\[.*?\])$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    command = json.loads(text.replace("\\\n", ""))
    proxy = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:1")
    variables = {"SCC_HOST": host, "SCC_PORT": serving.origin.rpartition(":")[2]}
    environment = clean_environment(**proxy, **variables, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert subprocess.run(command, env=environment, timeout=PATIENCE, check=False).returncode == 0
    assert serving.stop() == 0
    ended = subprocess.run(command, env=environment, timeout=PATIENCE, check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.endswith(" does not answer: Connection refused\n")


def test_too_low_a_limit_on_open_files_is_one_line_and_status_1(tmp_path: Path) -> None:
    refused = shell("ulimit -n 40; run", "serve", "--port", "0", "--workers", "2", "--data-dir", str(tmp_path / "data"))
    assert refused.returncode == 1
    assert refused.stderr == (b"the limit on open files is 40; a server with --workers 2 needs 50; raise it with `ulimit -n`\n")


def test_a_low_limit_on_open_files_lowers_the_limit_of_connections(tmp_path: Path) -> None:
    port, process = launch(tmp_path / "data", "ulimit -n 50; run", "--workers", "2")
    # More connections than allowed: those that were idle longest are closed.
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    for _ in range(10):
        assert request("POST", f"http://127.0.0.1:{port}/api/v1/session", KEY, {"configs": {"a": 1}})[0] == 201
    counted = run_command("find", "a=1", "--count", "--data-dir", str(tmp_path / "data"))
    assert (counted.stdout, counted.stderr) == ("10\n", "")
    for connection in idle:
        connection.close()
    assert end(process).count("the limit on open files is 50 (ulimit -n): at most 25 connections, not 4096\n") == 2


@pytest.mark.parametrize(
    ("name", "locale"),
    [(NAME, {}), (NAME, ASCII), ("\udcff", {}), ("\udcff", ASCII), ("too long for a socket" * 8, {})],
    ids=("any", "any, ASCII", "bytes", "bytes, ASCII", "long"),
)
def test_a_data_directory_may_have_any_name(tmp_path: Path, name: str, locale: dict[str, str]) -> None:
    data = tmp_path / name / "data"
    data.parent.mkdir()
    # Not below the directory of pytest: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix='"\\') as temporary:
        serving = Serving(data, "--workers", "1", SCC_ROOT_TOKEN=TOKEN, TMPDIR=temporary, **locale).wait_ready()
        assert request("POST", f"{serving.base_url}/session", KEY, {"configs": {"a": 1}})[0] == 201
        counted = run_command("find", "a=1", "--count", "--data-dir", str(data), **locale)
        assert (counted.stdout, counted.stderr) == ("1\n", "")
        assert run_command("redis-cli", "--data-dir", str(data), "PING", **locale).stdout == "PONG\n"
        assert serving.stop() == 0, serving.errors
