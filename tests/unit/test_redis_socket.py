"""The path of the socket, which a copy of a data directory must not use."""

import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.errors import StartupError
from service.process.redis_socket import FIRST_SIGHT, SOCKET, ServerSocket, ping, socket_path

LENGTHS = pytest.mark.parametrize("name", ["short", "long" * 40], ids=["short", "long"])


def make(path: Path) -> Path:
    path.mkdir()
    return path


@contextmanager
def listening(directory: Path) -> Iterator[ServerSocket]:
    """A listener instead of the server."""
    place = ServerSocket(directory)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / place.place()))
        listener.listen()
        assert not place.is_lost()
        yield place
    place.remove()


@LENGTHS
def test_a_copy_of_a_directory_in_use_does_not_lead_to_its_server(tmp_path: Path, name: str) -> None:
    original, copy = make(tmp_path / name), tmp_path / "copy"
    with listening(original) as place:
        path = socket_path(original)
        subprocess.run(["cp", "-a", original, copy], check=True)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        assert ping(copy) is None
        assert socket_path(copy) == copy / SOCKET
        other = ServerSocket(copy)
        other.place()
        other.remove()
        assert path.exists()
        assert not place.is_lost()
        assert socket_path(original) == path


def test_a_copy_with_a_long_path_gets_a_separate_directory(tmp_path: Path) -> None:
    original, copy = make(tmp_path / ("long" * 40)), tmp_path / ("copy" * 40)
    with listening(original):
        subprocess.run(["cp", "-a", original, copy], check=True)
        with listening(copy):
            assert socket_path(copy).parent != socket_path(original).parent
        assert socket_path(original).exists()


def test_a_moved_directory_keeps_its_socket(tmp_path: Path) -> None:
    original, moved = make(tmp_path / ("long" * 40)), tmp_path / ("moved" * 30)
    with listening(original) as place:
        path = socket_path(original)
        original.rename(moved)
        assert socket_path(moved) == path
        assert not place.is_lost()
        with pytest.raises(StartupError, match="was moved or replaced"):
            place.place()
        # Another directory in its place is not touched.
        shutil.copytree(moved, original, symlinks=True)
        place.remove()
        assert (original / SOCKET).is_symlink()
        assert not path.parent.exists()


@LENGTHS
@pytest.mark.parametrize("remove", ["socket", "directory"])
def test_a_removed_socket_is_detected_and_restored_at_the_same_path(tmp_path: Path, name: str, remove: str) -> None:
    directory = make(tmp_path / name)
    with listening(directory) as place:
        path = socket_path(directory)
        if remove == "socket" or name == "short":
            path.unlink()
        else:
            shutil.rmtree(path.parent)
        assert place.is_lost()
        assert directory / place.place() == path
        assert stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0 or name == "short"
        assert not place.is_lost()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            assert not place.is_lost()


def test_a_socket_that_was_replaced_counts_as_removed(tmp_path: Path) -> None:
    with listening(tmp_path) as place, socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other"))
        (tmp_path / "other").replace(tmp_path / SOCKET)
        assert place.is_lost()


def test_a_removed_symbolic_link_is_restored(tmp_path: Path) -> None:
    directory = make(tmp_path / ("long" * 40))
    with listening(directory) as place:
        path = socket_path(directory)
        (directory / SOCKET).unlink()
        assert not place.is_lost()
        assert socket_path(directory) == path


def test_a_socket_that_never_appears_counts_as_removed_after_a_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("service.process.redis_socket.monotonic", lambda: now)
    place = ServerSocket(tmp_path)
    place.place()
    assert not place.is_lost()
    now += FIRST_SIGHT + 1
    assert place.is_lost()


def test_a_directory_of_another_user_is_not_used(tmp_path: Path) -> None:
    directory = make(tmp_path / ("long" * 40))
    with listening(directory) as place:
        outside = socket_path(directory).parent
        shutil.rmtree(outside)
        outside.mkdir(mode=0o777)
        outside.chmod(0o777)
        with pytest.raises(StartupError, match="belongs to another user"):
            place.place()
        outside.rmdir()
        outside.symlink_to(tmp_path)
        with pytest.raises(StartupError, match="belongs to another user"):
            place.place()
        outside.unlink()


def test_no_server_answers_without_a_directory(tmp_path: Path) -> None:
    assert ping(tmp_path / "nowhere") is None
