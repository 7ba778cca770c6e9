"""The data directory: its modes, its lock, its secrets, and how to reach the server that runs on it."""

import os
import stat
from pathlib import Path

import pytest

from service.errors import StartupError
from service.process import data_dir
from service.settings import Settings


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_directory_is_private(tmp_path: Path) -> None:
    directory = data_dir.create(tmp_path / "a" / "data")
    assert directory.is_absolute()
    assert mode(directory) == 0o700


def test_a_mounted_directory_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o750)
    assert mode(data_dir.create(tmp_path / "data")) == 0o750


def file_in(directory: Path, name: str) -> Path:
    path = directory / name
    path.parent.mkdir(mode=0o755, exist_ok=True)
    path.touch(mode=0o644)
    return path


NAMES = [
    ".", "lock", "root-token", "key-secret", "redis.log", "redis-server.json", "appendonly.aof", "appendonlydir",
    "appendonlydir/appendonly.aof.manifest", "appendonlydir/appendonly.aof.1.incr.aof",
]  # fmt: skip


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A data directory with a file of every kind; each may be read by everybody."""
    directory = data_dir.create(tmp_path / "data")
    directory.chmod(0o755)
    for name in NAMES:
        if name not in (".", "appendonlydir"):
            file_in(directory, name)
    data_dir.require_private(directory)
    return directory


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bit", [stat.S_IWGRP, stat.S_IWOTH], ids=["group", "others"])
def test_a_file_that_others_can_write_is_refused(directory: Path, name: str, bit: int) -> None:
    path = directory / name
    path.chmod(mode(path) | bit)
    with pytest.raises(StartupError) as caught:
        data_dir.create(directory)
    assert str(caught.value) == f"other users can write to {path}; forbid that with `chmod go-w {path}`"


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_another_user_is_refused(directory: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger, path = 12_345, directory / name
    owner, real = os.geteuid(), Path.stat

    def stat_with_stranger(self: Path, **options: bool) -> os.stat_result:
        status = real(self, **options)
        return os.stat_result((*status[:4], stranger if self == path else owner, *status[5:10]))

    monkeypatch.setattr(Path, "stat", stat_with_stranger)
    with pytest.raises(StartupError, match=f"^{path} belongs to user {stranger}, and this process runs as user {owner}: "):
        data_dir.create(directory)


@pytest.mark.parametrize("owner", [0, 12_345])
def test_the_group_of_a_kubernetes_volume_may_write_to_it(directory: Path, monkeypatch: pytest.MonkeyPatch, owner: int) -> None:
    for path in (directory, *directory.rglob("*")):
        path.chmod(mode(path) | 0o060 | (stat.S_ISGID if path.is_dir() else 0))
    monkeypatch.setattr(os, "geteuid", lambda: owner)
    real = Path.stat

    def owned(self: Path, **options: bool) -> os.stat_result:
        status = real(self, **options)
        return os.stat_result((*status[:4], owner, *status[5:10]))

    monkeypatch.setattr(Path, "stat", owned)
    if owner == 0:
        data_dir.require_private(directory)
    else:
        with pytest.raises(StartupError, match="other users can write to"):
            data_dir.require_private(directory)


def test_a_data_directory_may_be_a_symbolic_link(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(directory)
    assert data_dir.create(tmp_path / "link") == tmp_path / "link"
    (directory / data_dir.KEY_SECRET).chmod(0o666)
    with pytest.raises(StartupError, match=f"^other users can write to {tmp_path}/link/key-secret;"):
        data_dir.create(tmp_path / "link")


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(StartupError, match=f"cannot create data directory {tmp_path / 'data'}: "):
        data_dir.create(tmp_path / "data")


def test_two_servers_cannot_lock_one_directory(tmp_path: Path) -> None:
    with data_dir.lock(tmp_path) as lock:
        assert mode(tmp_path / data_dir.LOCK) == 0o600
        with pytest.raises(StartupError, match=f"{tmp_path} is in use by another server"):
            data_dir.lock(tmp_path, timeout=0.1)
        assert not lock.closed
    data_dir.lock(tmp_path).close()


def test_secrets_are_generated_once_and_private(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    first, second = data_dir.with_secrets(settings), data_dir.with_secrets(settings)
    assert (first.root_token, first.key_secret) == (second.root_token, second.key_secret)
    assert len({first.root_token, first.key_secret, ""}) == 3
    assert mode(tmp_path / "data" / data_dir.ROOT_TOKEN) == 0o600
    assert mode(tmp_path / "data" / data_dir.KEY_SECRET) == 0o600
    assert len(list((tmp_path / "data").iterdir())) == 2


def test_each_directory_has_different_secrets(tmp_path: Path) -> None:
    one, other = (data_dir.with_secrets(Settings(data_dir=tmp_path / name)) for name in "ab")
    assert one.root_token != other.root_token
    assert one.key_secret != other.key_secret


def test_secrets_that_are_set_win_over_saved_ones(tmp_path: Path) -> None:
    data_dir.with_secrets(Settings(data_dir=tmp_path))
    settings = data_dir.with_secrets(Settings(data_dir=tmp_path, root_token="mine"))
    assert settings.root_token == "mine"
    assert settings.key_secret == (tmp_path / data_dir.KEY_SECRET).read_text(encoding="utf-8").strip()


def test_no_directory_is_created_if_both_secrets_are_set(tmp_path: Path) -> None:
    data_dir.with_secrets(Settings(data_dir=tmp_path / "data", root_token="a", key_secret="b"))
    assert not (tmp_path / "data").exists()


def test_an_empty_secret_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / data_dir.KEY_SECRET).touch()
    with pytest.raises(StartupError, match="key-secret is empty"):
        data_dir.with_secrets(Settings(data_dir=tmp_path))


def test_a_command_without_a_server_says_so(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=f"no server is running on data directory {tmp_path}"):
        data_dir.with_running_redis(Settings(data_dir=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_command_with_an_external_redis_reads_the_saved_key_secret(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, redis_url="redis://elsewhere")
    assert data_dir.with_running_redis(settings).key_secret == ""
    with pytest.raises(StartupError, match="set SCC_KEY_SECRET"):
        data_dir.with_running_redis(settings, needs_key_secret=True)
    secret = data_dir.with_secrets(settings).key_secret
    loaded = data_dir.with_running_redis(settings, needs_key_secret=True)
    assert (loaded.redis_url, loaded.key_secret) == ("redis://elsewhere", secret)
