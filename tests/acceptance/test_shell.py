"""The commands over HTTP, on a real server: what they send and print, and their exit statuses."""

import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service import cli
from tests.support.http import Api
from tests.support.server import clean_environment

NOBODY = "00000000-0000-4000-8000-000000000000"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command with the key of a new project; its status, and what it wrote to standard output and standard error."""
    monkeypatch.setenv("SCC_URL", api.server.origin)
    monkeypatch.setenv("SCC_API_KEY", api.key)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def run(*words: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = cli.main(words)
        return status, *capsys.readouterr()

    return run


def test_the_life_of_a_session(run: Run, api: Api) -> None:
    status, out, err = run("create", "agent=bot1", "temperature:=0.70", "--user", "alice@example.com")
    session = out.strip()
    assert (status, err) == (0, "")
    assert run("get", session) == (0, '{\n"agent":"bot1",\n"temperature":0.70\n}\n', "")
    assert run("patch", session, "agent=bot2", "note:=null", "tags:=[1, 2.0]") == (0, "", "")
    assert run("get", session, "tags") == (0, "[1, 2.0]\n", "")
    assert run("unset", session, "tags", "missing") == (0, "", "")
    assert run("get", session) == (0, '{\n"agent":"bot2",\n"temperature":0.70\n}\n', "")
    assert run("set", session, "only=this", "note:=null") == (0, "", "")
    assert api.get(session).raw_configs == b'{\n"only":"this",\n"note":null\n}'
    status, out, _ = run("copy", session)
    assert api.get(out.strip()).raw_configs == api.get(session).raw_configs
    assert run("delete", session) == (0, "", "")
    assert run("get", session) == (3, "", "session not found\n")
    assert run("ping") == (0, "pong\n", "")


def test_numbers_and_text_arrive_as_they_were_typed(run: Run, api: Api) -> None:
    session = api.new({})
    numbers = {
        "a": "1.0",
        "b": "0.1000000000000000055511151231257827",
        "c": "9" * 40,
        "d": "-0",
        "e": "1E+2",
        "f": "[1e2,0.30]",
    }
    assert run("set", session, *(f"{key}:={text}" for key, text in numbers.items()))[0] == 0
    for key, text in numbers.items():
        assert run("get", session, key) == (0, f"{text}\n", "")
    texts = {"line": "a\nb\t\\", "quote": '"', "é": "机器 ☃", "number": "1", "empty": "", "equals": "a=b:=c", "nul": "\x01"}
    assert run("set", session, *(f"{key}={text}" for key, text in texts.items()))[0] == 0
    assert api.get(session).data["configs"] == texts
    for key, text in texts.items():
        assert run("get", session, key) == (0, f"{text}\n", "")


def test_a_json_object_comes_from_standard_input_and_goes_back(run: Run, api: Api) -> None:
    text = b'{"a": 1.0, "b": {"c": [1e2]}}'
    _, out, _ = run("create", "-", stdin=text)
    session = out.strip()
    assert run("get", session)[1] == '{\n"a":1.0,\n"b":{"c": [1e2]}\n}\n'
    copy = api.new({})
    assert run("set", copy, "-", stdin=run("get", session)[1].encode())[0] == 0
    assert api.get(copy).raw_configs == api.get(session).raw_configs


def test_create_takes_id_user_and_lifetime(run: Run, api: Api) -> None:
    words = ("create", "--id", NOBODY, "--user", 'a "b"', "--ttl", "3600")
    assert run(*words) == (0, f"{NOBODY}\n", "")
    assert run(*words, "a=1") == (0, f"{NOBODY}\n", "a session with this id exists; nothing was changed\n")
    session = api.get(NOBODY).data
    assert session["configs"] is None
    assert session["expires_at"] is not None
    assert run("list", "--user", 'a "b"')[0] == 0
    assert run("patch", NOBODY, "a=1", "--ttl", "null")[0] == 0
    assert api.get(NOBODY).data["expires_at"] is None
    assert json.loads(run("get", NOBODY, "--session")[1]) == api.get(NOBODY).data


def test_a_list_in_a_pipe_is_lines_of_json(run: Run, api: Api) -> None:
    ids = [api.new({"agent": "bot1", "n": number}, user="alice") for number in range(3)]
    api.new({"agent": "bot2"})
    status, out, err = run("list", "agent=bot1", "--user", "alice")
    assert (status, err) == (0, "")
    assert [json.loads(line)["id"] for line in out.splitlines()] == ids
    assert [json.loads(line) for line in out.splitlines()] == [api.get(each).data for each in ids]
    assert [json.loads(line)["id"] for line in run("list", "--newest", "--limit", "2", "agent=bot1")[1].splitlines()] == [
        ids[2],
        ids[1],
    ]
    assert json.loads(run("list", "n:=1.0")[1])["id"] == ids[1]
    assert run("list", "agent=bot3") == (3, "", "no session matches\n")


def test_count_and_list_follow_the_pages(run: Run, api: Api) -> None:
    for number in range(203):
        api.new({"agent": "bot1" if number else "bot2"})
    assert run("count") == (0, "203\n", "")
    assert run("count", "agent=bot1") == (0, "202\n", "")
    assert run("count", "agent=bot3") == (0, "0\n", "")
    assert len(run("list", "--limit", "201")[1].splitlines()) == 201
    assert len(run("list", "--limit", "1000")[1].splitlines()) == 203


def test_the_exit_status_tells_what_happened(run: Run, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    session = api.new({"a": "b"})
    assert run("get", session, "missing") == (3, "", "the session has no key 'missing'\n")
    assert run("get", api.new(), "a") == (3, "", "the session has no key 'a'\n")
    for words in (("patch", NOBODY, "a=1"), ("set", NOBODY, "a=1"), ("delete", NOBODY), ("copy", NOBODY)):
        assert run(*words) == (3, "", "session not found\n")
    assert run("get", "no-id") == (4, "", "invalid session_id\n")
    assert run("get", "../user/ls") == (4, "", "invalid session_id\n")
    assert run("create", "--ttl", "0")[0] == 4
    assert run("set", session, f"a={'x' * 300_000}")[0] == 4
    monkeypatch.setenv("SCC_API_KEY", "sk-ac-wrong")
    assert run("ping") == (4, "", "Unauthorized\n")
    status, out, err = run("ping", "--url", "http://127.0.0.1:1")
    assert (status, out) == (5, "")
    assert err == "http://127.0.0.1:1/api/v1 does not answer: [Errno 111] Connection refused\n"
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    status, out, err = run("ping", "--url", "http://configs.example")
    assert (status, out) == (5, "")
    assert err.startswith("http://configs.example/api/v1 does not answer through the proxy that the environment names: ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("patch", NOBODY, "a"), "'a' is neither KEY=TEXT nor KEY:=JSON"),
        (("patch", NOBODY, "a:=1,2"), "'a:=1,2' has no valid JSON"),
        (("patch", NOBODY, "a:=NaN"), "'a:=NaN' has no valid JSON"),
        (("patch", NOBODY, "a=1", "a=2"), "the key 'a' occurs twice"),
        (("set", NOBODY, "-"), "the input is not a JSON object"),
        (("set", NOBODY), "Missing argument 'ITEM...'."),
        (("set", NOBODY, "a=1", "--ttl", "x"), "--ttl must be a number of seconds, or null"),
        (("list", "--limit", "0"), "0 is not in the range x>=1."),
    ],
)
def test_wrong_usage_is_status_2_and_sends_nothing(run: Run, words: tuple[str, ...], expected: str) -> None:
    status, out, err = run(*words, stdin=b"[]")
    assert (status, out) == (2, "")
    assert err.endswith(f"{expected}\n")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "service", *words]


def test_a_list_on_a_terminal_is_a_table(api: Api) -> None:
    session = api.new({"agent": "bot1", "text": "\u202e" + "x" * 500})
    leader, follower = pty.openpty()
    environment = clean_environment(SCC_URL=api.server.base_url, SCC_API_KEY=api.key, COLUMNS="100")
    subprocess.run(command("list"), stdout=follower, env=environment, check=True)
    os.close(follower)
    header, row = os.read(leader, 10_000).decode().splitlines()
    os.close(leader)
    assert header.split() == ["ID", "CREATED", "CONFIGS"]
    assert re.fullmatch(session + r'  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  \{"agent":"bot1","text":"\\u202exx*…', row)
    assert len(row) == 100


def test_watch_repeats_until_the_server_refuses(api: Api) -> None:
    session = api.new({"a": "1"})
    environment = clean_environment(SCC_URL=api.server.origin, SCC_API_KEY=api.key)
    process = subprocess.Popen(
        command("get", session, "a", "--watch", "1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        assert process.stdout.readline() == "1\n"
        api.patch(session, {"a": "2"})
        while (line := process.stdout.readline()) == "1\n":
            pass
        assert line == "2\n"
        api.delete(session)
        assert process.stderr.readline() == "session not found\n"
        process.terminate()
