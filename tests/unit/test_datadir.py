"""The data directory: its modes, its lock, its secrets, and the way to the server that runs on it."""

import stat
from pathlib import Path

import pytest

from service import datadir
from service.errors import StartupError
from service.settings import Settings


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_for_its_owner_only(tmp_path: Path) -> None:
    directory = datadir.create(tmp_path / "a" / "data")
    assert directory.is_absolute()
    assert mode(directory) == 0o700


def test_a_mounted_directory_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o750)
    assert mode(datadir.create(tmp_path / "data")) == 0o750


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(StartupError, match=f"data directory {tmp_path / 'data'} cannot be made"):
        datadir.create(tmp_path / "data")


def test_two_servers_cannot_take_one_directory(tmp_path: Path) -> None:
    with datadir.lock(tmp_path) as lock:
        assert mode(tmp_path / datadir.LOCK) == 0o600
        with pytest.raises(StartupError, match=f"{tmp_path} is in use by another server"):
            datadir.lock(tmp_path, patience=0.1)
        assert not lock.closed
    datadir.lock(tmp_path).close()


def test_secrets_are_made_once_and_closed_to_others(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    first, second = datadir.with_secrets(settings), datadir.with_secrets(settings)
    assert (first.root_token, first.key_secret) == (second.root_token, second.key_secret)
    assert len({first.root_token, first.key_secret, ""}) == 3
    assert mode(tmp_path / "data" / datadir.ROOT_TOKEN) == 0o600
    assert mode(tmp_path / "data" / datadir.KEY_SECRET) == 0o600
    assert len(list((tmp_path / "data").iterdir())) == 2


def test_each_directory_has_secrets_of_its_own(tmp_path: Path) -> None:
    one, other = (datadir.with_secrets(Settings(data_dir=tmp_path / name)) for name in "ab")
    assert one.root_token != other.root_token
    assert one.key_secret != other.key_secret


def test_secrets_that_are_set_come_before_those_kept(tmp_path: Path) -> None:
    datadir.with_secrets(Settings(data_dir=tmp_path))
    settings = datadir.with_secrets(Settings(data_dir=tmp_path, root_token="mine"))
    assert settings.root_token == "mine"
    assert settings.key_secret == (tmp_path / datadir.KEY_SECRET).read_text(encoding="utf-8").strip()


def test_no_directory_is_made_where_nothing_is_kept(tmp_path: Path) -> None:
    datadir.with_secrets(Settings(data_dir=tmp_path / "data", root_token="a", key_secret="b"))
    assert not (tmp_path / "data").exists()


def test_an_empty_secret_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / datadir.KEY_SECRET).touch()
    with pytest.raises(StartupError, match="key-secret is empty"):
        datadir.with_secrets(Settings(data_dir=tmp_path))


def test_a_command_without_a_server_says_so(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=f"no server runs on data directory {tmp_path}"):
        datadir.running(Settings(data_dir=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_command_on_another_redis_takes_the_secret_where_it_finds_it(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, redis_url="redis://elsewhere")
    assert datadir.running(settings).key_secret == ""
    with pytest.raises(StartupError, match="set SCC_KEY_SECRET"):
        datadir.running(settings, needs_key_secret=True)
    secret = datadir.with_secrets(settings).key_secret
    found = datadir.running(settings, needs_key_secret=True)
    assert (found.redis_url, found.key_secret) == ("redis://elsewhere", secret)
