"""`redis-cli` without a redis-cli on PATH: what it prints on a real Redis, and on one that refuses, hangs or hangs up."""

import asyncio
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from service import cli
from service.process.embedded_redis import EmbeddedRedis
from service.process.redis_binaries import find_cli
from tests.redis_client.test_client import SHORT
from tests.redis_client.test_tls import CERTIFICATE, URLS, Server
from tests.support.fake_redis import fake_redis

#: Runs `redis-cli` without one on PATH: takes a URL and arguments; returns exit status, standard output and standard error.
Run = Callable[..., tuple[int, bytes, bytes]]

PATH_AT_START = os.environ["PATH"]
WRONG_TYPE = b"WRONGTYPE Operation against a key holding the wrong kind of value\n"

# Arguments, standard input, standard output; run in this order on an empty database.
# fmt: off
SCRIPT: list[tuple[list[bytes], bytes, bytes]] = [
    ([b"PING"], b"", b"PONG\n"),
    ([b"SET", b"a", b"\xff \xc3\xa9\n"], b"", b"OK\n"),
    ([b"GET", b"a"], b"", b"\xff \xc3\xa9\n\n"),
    ([b"--raw", b"GET", b"none"], b"", b"\n"),
    ([b"SET", b"\xfe", b""], b"", b"OK\n"),
    ([b"GET", b"\xfe"], b"", b"\n"),
    ([b"KEYS", b"\xfe*"], b"", b"\xfe\n"),
    ([b"DBSIZE"], b"", b"2\n"),
    ([b"-x", b"SET", b"x"], b"a\0b\r\n", b"OK\n"),
    ([b"GET", b"x"], b"", b"a\0b\r\n\n"),
    ([b"RPUSH", b"list", b"a", b"", b"--raw"], b"", b"3\n"),
    ([b"LRANGE", b"list", b"0", b"-1"], b"", b"a\n\n--raw\n"),
    ([b"LRANGE", b"none", b"0", b"-1"], b"", b"\n"),
    ([b"HMGET", b"none", b"a", b"b"], b"", b"\n\n"),
    ([b"HGET", b"list", b"a"], b"", WRONG_TYPE + b"\n"),
    ([b"ZADD", b"zset", b"1.5", b"m"], b"", b"1\n"),
    ([b"ZSCORE", b"zset", b"m"], b"", b"1.5\n"),
    ([b"EVAL", b"return {1, {'a', {}, {'b', {}}}, {err = 'NO'}, false}", b"0"], b"", b"1\na\n\nb\n\nNO\n\n\n"),
    ([b"EVAL", b"return {err = 'NO'}", b"0"], b"", b"NO\n\n"),
    ([b"INFO", b"none"], b"", b""),
    ([b"LATENCY", b"RESET"], b"", b"0\n"),
    ([b"CONFIG", b"GET", b"port"], b"", b"port\n0\n"),
    ([b"QUIT"], b"", b"OK\n"),
]
# fmt: on


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    monkeypatch.setenv("PATH", "")

    def run(url: str, *words: bytes, stdin: bytes = b"", timeout: float = 30) -> tuple[int, bytes, bytes]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        flags = ["redis-cli", "--redis-url", url, "--command-timeout", str(timeout)]
        status = cli.main([*flags, *map(os.fsdecode, words)])
        sys.stdout.flush()
        return status, *capfdbinary.readouterr()

    return run


def test_a_command_prints_what_redis_cli_would_print(empty_redis: str, run: Run) -> None:
    for words, stdin, expected in SCRIPT:
        assert (words, *run(empty_redis, *words, stdin=stdin)) == (words, 0, expected, b"")


def test_a_redis_cli_on_path_prints_the_same(empty_redis: str) -> None:
    program = find_cli()
    for words, stdin, expected in SCRIPT if program else ():
        command: list[str | bytes] = [program or "", "-s", empty_redis.removeprefix("unix://"), *words]
        actual = subprocess.run(command, input=stdin, capture_output=True, check=True).stdout
        assert (words, actual) == (words, expected)


def test_with_e_an_error_goes_to_standard_error_and_the_status_is_1(empty_redis: str, run: Run) -> None:
    run(empty_redis, b"SET", b"a", b"1")
    assert run(empty_redis, b"-e", b"HGET", b"a", b"b") == (1, b"", WRONG_TYPE)
    assert run(empty_redis, b"-e", b"GET", b"a") == (0, b"1\n", b"")


@pytest.mark.parametrize("words", [[], [b"--raw"], [b"--no-raw", b"PING"], [b"SUBSCRIBE", b"a"], [b"-n", b"1", b"PING"]])
def test_what_needs_redis_cli_fails_with_one_sentence_that_says_what_to_install(
    empty_redis: str, run: Run, words: list[bytes]
) -> None:
    status, output, errors = run(empty_redis, *words)
    assert (status, output) == (1, b"")
    assert errors.count(b"\n") == 1
    assert b"install redis-tools or valkey-tools" in errors


# In a request these refusals become errors of this service. Here the operator sees the text of Redis.
REFUSALS = ["OOM command not allowed when used memory > 'maxmemory'.", "MISCONF Redis is configured to save RDB snapshots",
            "LOADING Redis is loading the dataset in memory", "READONLY You can't write against a read only replica.",
            "NOREPLICAS Not enough good replicas to write.", "BUSY Redis is busy running a script.",
            "MOVED 1 127.0.0.1:1", "NOPERM this user has no permissions", "NOSCRIPT No matching script."]  # fmt: skip


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refusal_of_redis_is_printed_verbatim(tmp_path: Path, run: Run, refusal: str) -> None:
    async with fake_redis(tmp_path, lambda _: f"-{refusal}\r\n".encode()) as url:
        expected = f"{refusal}\n\n".encode()
        assert await asyncio.to_thread(run, url, b"SET", b"a", b"1", timeout=2.0) == (0, expected, b"")


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (b"", b"Redis sent no complete reply within 0.3 s (--command-timeout); the command may have been executed\n"),
        (b"$9\r\nhalf", b"Redis sent no complete reply within 0.3 s (--command-timeout); the command may have been executed\n"),
        (None, b"the connection to Redis was lost before the reply; the command may have been executed\n"),
        (b"no RESP\r\n", b"the connection to Redis was lost before the reply; the command may have been executed\n"),
    ],
    ids=["none", "half", "hung up", "garbled"],
)
async def test_a_command_without_a_reply_is_sent_once_and_reported_in_one_sentence(
    tmp_path: Path, run: Run, reply: bytes | None, sentence: bytes
) -> None:
    commands: list[bytes] = []

    def answer(name: bytes) -> bytes | None:
        commands.append(name)
        return reply

    async with fake_redis(tmp_path, answer) as url:
        assert await asyncio.to_thread(run, url, b"INCR", b"a", timeout=SHORT) == (1, b"", sentence)
    assert commands == [b"INCR"]


@pytest.mark.parametrize(
    "url",
    ["unix:///nowhere/redis.sock", "redis://127.0.0.1:1", "redis+cluster://127.0.0.1:1", "redis+sentinel://127.0.0.1:1/a"],
)
def test_an_unreachable_redis_is_reported_in_one_sentence(run: Run, url: str) -> None:
    status, output, errors = run(url, b"PING", timeout=SHORT)
    assert (status, output, errors.count(b"\n")) == (1, b"", 1)
    assert b"127.0.0.1" not in errors


def test_after_shutdown_the_command_may_have_been_executed(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", PATH_AT_START)
        redis = EmbeddedRedis(tmp_path, fsync="no")
    redis.launch()
    redis.wait()
    status, output, errors = run(redis.url, b"SHUTDOWN", b"NOSAVE")
    assert (status, output) == (1, b"")
    assert errors == b"the connection to Redis was lost before the reply; the command may have been executed\n"
    redis.stop()


@pytest.mark.parametrize("url", URLS)
async def test_tls_is_used_as_the_url_says(run: Run, url: str) -> None:
    server = Server()
    await server.start()
    url = url.format(port=server.port)
    trusting = f"{url}{'&' if '?' in url else '?'}ssl_ca_certs={quote(str(CERTIFICATE))}"
    assert await asyncio.to_thread(run, trusting, b"ECHO", b"\xff") == (0, b"\xff\n", b"")
    status, output, errors = await asyncio.to_thread(run, url, b"ECHO", b"a", timeout=SHORT)
    assert (status, output, errors.count(b"\n")) == (1, b"", 1)
    # Let the server's loop see that the clients, whose loops ran in other threads, have closed their connections.
    await asyncio.sleep(0.2)
    await server.stop()


@pytest.mark.parametrize("name", ["redis-cli", "valkey-cli"])
def test_redis_cli_on_path_gets_all_arguments_unchanged(tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$REDISCLI_AUTH" "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    url = "redis://user:secret@127.0.0.1:1/2"
    command: list[str | bytes] = [sys.executable, "-m", "service", "redis-cli", "--redis-url", url, "--no-raw", "GET", b"\xff"]
    environment = os.environ | {"PATH": str(tmp_path)}
    output = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    expected = b"secret\n-h\n127.0.0.1\n-p\n1\n--user\nuser\n-n\n2\n--no-raw\nGET\n\xff\n"
    assert output == expected
