"""`export` and `import` while a server runs: files, pipes, interruptions, and clients that notice nothing."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

from redis import Redis

from service.store.keys import Partition
from tests.support.http import Api, Operator
from tests.support.server import PATIENCE, Serving, Start, clean_environment, request, run_command, until

KEY = "sk-ac-root-of-the-tests"
COUNT = 40


def fill(serving: Serving) -> None:
    for number in range(COUNT):
        body = {"use_uuid": str(UUID(int=number)), "user": f"u{number % 3}", "configs": {"n": number, "float": 1.50}}
        assert request("POST", f"{serving.base_url}/session", KEY, body)[0] == 201


def listed(serving: Serving, key: str = KEY) -> list[Any]:
    """Every session that the server lists, without what names its project."""
    status, answer = request("GET", f"{serving.base_url}/session?limit=200", key)
    assert status == 200
    return [session | {"project_id": "", "user_id": ""} for session in answer["data"]["items"]]


def command(serving: Serving, *words: str) -> subprocess.CompletedProcess[str]:
    return run_command(*words, "--data-dir", str(serving.data_dir))


def new_project(serving: Serving, name: str) -> str:
    """Create a project; its key."""
    return command(serving, "project", "create", name).stdout.split()[-1]


class Shell:
    """Runs lines of bash in a folder, in which `run` is `session-configs` on the store of a server."""

    def __init__(self, serving: Serving, folder: Path) -> None:
        program = f'run() {{ "{sys.executable}" -m service "$@" --data-dir "{serving.data_dir}"; }}'
        self._start = f'set -eu; PYTHONPATH="{Path(__file__).parents[2]}"; export PYTHONPATH; cd "{folder}"; {program}'

    def run(self, line: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """The result; its exit status must be `status`."""
        command = ["bash", "-c", f"{self._start}; {line}"]
        result = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert result.returncode == status, result
        return result


def test_an_export_is_imported_into_another_project(start: Start, tmp_path: Path) -> None:
    serving = start(SCC_ROOT_TOKEN="root-of-the-tests")
    fill(serving)
    for name in ("plain.jsonl", "compressed.jsonl.gz"):
        file, slug = str(tmp_path / name), name.partition(".")[0]
        exported = command(serving, "export", file)
        assert (exported.returncode, exported.stdout) == (0, "")
        assert exported.stderr == f"exported {COUNT} sessions and 3 users of project default\n"
        key = new_project(serving, slug)
        result = command(serving, "import", "--project", slug, file)
        assert (result.returncode, result.stdout, result.stderr) == (0, f"imported {COUNT} sessions and 3 users\n", "")
        assert listed(serving, key) == listed(serving)
        result = command(serving, "import", "--project", slug, file)
        assert result.stdout == f"imported 0 sessions ({COUNT} already in the project) and 0 users\n"
    check = command(serving, "check")
    assert (check.returncode, check.stdout) == (0, "3 projects checked: no differences\n")
    piped = command(serving, "export", "-").stdout
    assert piped == (tmp_path / "plain.jsonl").read_text(encoding="utf-8")
    assert json.loads(piped.splitlines()[-1])["sessions"] == COUNT


def test_pipes_links_and_compressed_input(start: Start, tmp_path: Path) -> None:
    serving = start(SCC_ROOT_TOKEN="root-of-the-tests")
    fill(serving)
    shell = Shell(serving, tmp_path)
    shell.run("ln -s target.gz link.gz; run export link.gz; test -L link.gz; gzip -t target.gz; run export plain")
    for number, words in enumerate(
        ("cat target.gz | run import -", "run import - <target.gz", "run import <(cat plain)", "run import <(cat target.gz)")
    ):
        slug = f"project-{number}"
        new_project(serving, slug)
        assert shell.run(f"{words} --project {slug}").stdout == f"imported {COUNT} sessions and 3 users\n"
    shell.run("run export >(cat >copy); while ! cmp -s copy plain; do sleep 0.1; done")
    shell.run("mkfifo fifo; cat fifo >copied & run export fifo; wait; test -p fifo; cmp copied plain")
    for name, sentence in (
        (".", ".: Is a directory"), ("''", "a file without a name"),
        ("missing/export", "missing/export: No such file or directory"),
    ):  # fmt: skip
        for verb, word in (("write", "export"), ("read", "import")):
            result = shell.run(f"run {word} {name}", 1)
            assert (result.stdout, result.stderr) == ("", f"cannot {verb} {sentence}\n")


def test_an_import_without_a_server_checks_the_store_afterwards(start: Start, tmp_path: Path) -> None:
    serving = start(SCC_ROOT_TOKEN="root-of-the-tests")
    fill(serving)
    file, data = str(tmp_path / "export"), ("--data-dir", str(serving.data_dir))
    assert command(serving, "export", file).returncode == 0
    expected = listed(serving)
    for number in range(0, COUNT, 2):
        assert request("DELETE", f"{serving.base_url}/session/{UUID(int=number)}", KEY)[0] == 200
    assert "stop the server and pass --renumber" in command(serving, "import", file).stderr
    assert serving.stop() == 0
    result = run_command("import", "--renumber", file, *data)
    line = f"imported {COUNT // 2} sessions ({COUNT // 2} already in the project) and 0 users\n"
    assert (result.returncode, result.stdout) == (0, f"{line}1 project checked: no differences\n")
    serving = start(SCC_ROOT_TOKEN="root-of-the-tests")
    assert listed(serving) == expected
    with Redis(unix_socket_path=str(serving.data_dir / "redis.sock")) as redis:
        redis.hset(Partition("default", 0).session(str(UUID(int=1))), "configs", "{")
    assert serving.stop() == 0
    result = run_command("import", "--renumber", file, *data)
    assert result.returncode == 1
    assert result.stdout.endswith("\n1 project checked: 4 differences\n")


def test_a_broken_line_is_named_and_the_repaired_file_imports_the_rest(start: Start, tmp_path: Path) -> None:
    serving = start(SCC_ROOT_TOKEN="root-of-the-tests")
    fill(serving)
    file, broken = tmp_path / "whole", tmp_path / "broken"
    command(serving, "export", str(file))
    lines = file.read_bytes().splitlines(keepends=True)
    broken.write_bytes(b"".join([*lines[:20], lines[20][1:], *lines[21:]]))
    new_project(serving, "acme")
    result = command(serving, "import", "--project", "acme", str(broken))
    assert (result.returncode, result.stdout) == (1, "imported 16 sessions and 3 users\n")
    assert result.stderr.startswith("line 21: ")
    assert result.stderr.count("\n") == 1
    result = command(serving, "import", "--project", "acme", str(file))
    assert (result.returncode, result.stdout) == (
        0,
        f"imported {COUNT - 16} sessions (16 already in the project) and 0 users\n",
    )


def test_an_import_that_was_killed_is_resumed_while_clients_write(start: Start, tmp_path: Path) -> None:
    serving = start(SCC_ROOT_TOKEN="root-of-the-tests")
    operator = Operator(serving.server(KEY))
    api = operator.new_project()
    file = tmp_path / "export"
    try:
        for number in range(600):
            api.create(configs={"n": number, "wide": {f"k{each}": number for each in range(20)}}, user=f"u{number % 50}")
        exported = command(serving, "export", "--project", api.project.slug, str(file))
        assert exported.returncode == 0, exported.stderr
        _import_during_writes(serving, file, api)
        check = command(serving, "check")
        assert check.stdout.endswith("projects checked: no differences\n"), check.stdout
    finally:
        api.close()
        operator.close()


def _import_during_writes(serving: Serving, file: Path, api: Api) -> None:
    """Import into a new project, kill it and repeat, while a client patches the sessions of another project."""
    key = new_project(serving, "acme")
    is_done = threading.Event()
    written: list[bool] = []

    def write() -> None:
        session = api.new({"n": 0})
        while not is_done.is_set():
            written.append(api.patch(session, {"n": len(written)}).data["configs"]["n"] == len(written))

    client = threading.Thread(target=write)
    client.start()
    try:
        words = ["import", "--project", "acme", str(file), "--data-dir", str(serving.data_dir)]
        process = subprocess.Popen(
            [sys.executable, "-m", "service", *words],
            env=clean_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: process.poll() is not None or listed(serving, key), "the first imported sessions")
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
        result = run_command(*words)
        assert result.returncode == 0, result.stderr
    finally:
        is_done.set()
        client.join(PATIENCE)
    assert written
    assert all(written)
    originals = {name: api.get(name).etag for name in api.ids()[:600]}
    copies = {session["id"]: session["revision"] for session in _all(serving, key)}
    assert list(copies) == list(originals)


def _all(serving: Serving, key: str) -> list[Any]:
    sessions: list[Any] = []
    cursor = ""
    while True:
        answer = request("GET", f"{serving.base_url}/session?limit=200&cursor={cursor}", key)[1]["data"]
        sessions += answer["items"]
        if not answer["has_more"]:
            return sessions
        cursor = answer["next_cursor"]
