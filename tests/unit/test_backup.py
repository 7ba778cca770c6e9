"""`backup.json` comes from anywhere: whatever it says, nothing outside of the backup is read and nothing else is written."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from service.errors import StartupError
from service.process import aof_format, aof_tail, backup
from service.process.redis_binaries import Server

CONTENT = b"victim"
GOOD = {"name": "appendonly.aof", "size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "backup"
    (source / "data").mkdir(parents=True)
    (source / "data" / "appendonly.aof").write_bytes(CONTENT)
    return source


def describe(source: Path, files: object) -> Path:
    (source / "backup.json").write_text(json.dumps({"format": 1, "files": files}), encoding="utf-8")
    return source


def copy(source: Path) -> None:
    target = source.with_name("target")
    target.mkdir(exist_ok=True)
    backup.copy_out(source, target, lambda _: None)


@pytest.mark.parametrize(
    "name",
    [
        "appendonly.aof", "appendonlydir/appendonly.aof.manifest", "appendonlydir/appendonly.aof.1.base.rdb",
        "redis-server.json", "key-secret", "root-token",
    ],
)  # fmt: skip
def test_the_files_of_a_store_are_accepted(source: Path, name: str) -> None:
    (source / "data" / "appendonlydir").mkdir()
    (source / "data" / name).write_bytes(CONTENT)
    copy(describe(source, [GOOD, GOOD | {"name": name}]))
    assert (source.with_name("target") / name).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "name",
    [
        "../victim", "{}/victim", "appendonlydir/../../victim", "appendonlydir/..", "appendonlydir/a/b", "appendonlydir/",
        "appendonly.aof\n", "appendonlyXaof", "lock", "redis.conf", ".", "",
    ],
)  # fmt: skip
def test_any_other_name_is_refused_and_nothing_is_written(source: Path, name: str) -> None:
    victim = source.with_name("victim")
    victim.write_bytes(CONTENT)
    for size in (0, len(CONTENT)):
        describe(source, [GOOD, GOOD | {"name": name.format(source.parent), "size": size}])
        with pytest.raises(StartupError, match=r"backup\.json is not as backup writes it"):
            copy(source)
    assert victim.read_bytes() == CONTENT
    assert list(source.with_name("target").iterdir()) == []


@pytest.mark.parametrize(
    "files",
    [
        None, 1, "appendonly.aof", {"name": "x"}, [1], [[]], [{}], [GOOD | {"size": -1}], [GOOD | {"size": "6"}],
        [GOOD | {"size": 6.5}], [GOOD | {"size": None}], [GOOD | {"name": 1}], [GOOD | {"sha256": 1}],
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(source: Path, files: Any) -> None:  # noqa: ANN401 - any JSON
    with pytest.raises(StartupError, match=r"backup\.json is not as backup writes it"):
        backup.read(describe(source, files))


def test_deep_nesting_is_refused(source: Path) -> None:
    (source / "backup.json").write_text("[" * 200_000, encoding="utf-8")
    with pytest.raises(StartupError, match=r"backup\.json is not as backup writes it"):
        backup.read(source)


@pytest.mark.parametrize("names", [[], ["key-secret"], ["appendonlydir/appendonly.aof.1.base.rdb"]])
def test_a_backup_without_an_append_only_file_is_refused(source: Path, names: list[str]) -> None:
    with pytest.raises(StartupError, match=r"is not a complete backup: it has no append-only file$"):
        backup.read(describe(source, [GOOD | {"name": name} for name in names]))


@pytest.mark.parametrize("linked", ["data/appendonly.aof", "data"])
def test_no_symbolic_link_is_followed_out_of_the_backup(source: Path, linked: str) -> None:
    describe(source, [GOOD])
    path = source / linked
    path.rename(source.with_name("elsewhere"))
    path.symlink_to(source.with_name("elsewhere"))
    with pytest.raises(StartupError, match=r"appendonly\.aof is outside of the backup$"):
        copy(source)
    assert list(source.with_name("target").iterdir()) == []


def test_a_symbolic_link_to_the_backup_or_inside_of_it_is_followed(source: Path) -> None:
    describe(source, [GOOD])
    (source / "data" / "appendonly.aof").rename(source / "data" / "other")
    (source / "data" / "appendonly.aof").symlink_to("other")
    source.with_name("link").symlink_to(source)
    copy(source.with_name("link"))


def test_a_manifest_that_names_a_path_has_no_such_part(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(CONTENT)
    (tmp_path / "data" / "appendonlydir").mkdir(parents=True)
    lines = "".join(f"file ../../victim seq 1 type {kind}\n" for kind in "bi")
    (tmp_path / "data" / "appendonlydir" / "appendonly.aof.manifest").write_text(lines, encoding="utf-8")
    assert aof_format.parts(tmp_path / "data") == []
    assert aof_format.last_file(tmp_path / "data") is None


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with a small append-only file."""
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "appendonly.aof").write_bytes(CONTENT)
    return directory


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """One for which every byte of a file is intact."""
    monkeypatch.setattr(aof_tail, "intact_size", lambda path, _: path.stat().st_size)
    return Server("redis-server", "Redis", (7, 0))


def modes(path: Path) -> set[int]:
    return {each.stat().st_mode & 0o777 for each in (path, *path.rglob("*")) if each.is_dir()}


def test_only_its_owner_can_read_a_backup(tmp_path: Path, data: Path, server: Server) -> None:
    before = os.umask(0)
    try:
        backup.write(data, tmp_path / "new" / "backup", server, lambda _: None)
    finally:
        os.umask(before)
    assert modes(tmp_path / "new" / "backup") == {0o700}
    assert os.listdir(tmp_path / "new") == ["backup"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt(), StartupError("x"), SystemExit(1)]
)
def test_a_backup_that_fails_leaves_nothing(tmp_path: Path, data: Path, server: Server, error: BaseException) -> None:
    def fail(_: int) -> None:
        assert len(os.listdir(tmp_path)) == 2
        raise error

    with pytest.raises(StartupError if isinstance(error, OSError) else type(error)):
        backup.write(data, tmp_path / "backup", server, fail)
    assert os.listdir(tmp_path) == ["data"]


def test_of_two_backups_with_one_name_the_first_that_is_complete_stays(tmp_path: Path, data: Path, server: Server) -> None:
    target = tmp_path / "backup"

    def write_another(_: int) -> None:
        (data / "appendonly.aof").write_bytes(CONTENT * 2)
        backup.write(data, target, server, lambda _: None)

    with pytest.raises(StartupError, match=f"^{target} exists; name a new directory$"):
        backup.write(data, target, server, write_another)
    assert [file.size for file in backup.read(target)] == [2 * len(CONTENT)]
    copy(target)
    assert (tmp_path / "target" / "appendonly.aof").read_bytes() == CONTENT * 2
    assert sorted(os.listdir(tmp_path)) == ["backup", "data", "target"]


def test_a_backup_whose_directory_appears_meanwhile_is_one_sentence(tmp_path: Path, data: Path, server: Server) -> None:
    target = tmp_path / "backup"
    with pytest.raises(StartupError, match=f"^{target} exists; name a new directory$"):
        backup.write(data, target, server, lambda _: target.write_bytes(b"a file") and None)
    assert target.read_bytes() == b"a file"


@pytest.mark.parametrize("name", ["/", ".", "..", "", "data"])
def test_a_directory_that_exists_is_one_sentence(
    data: Path, server: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(data.parent)
    target = Path(name).absolute()
    with pytest.raises(StartupError, match=f"^{target} exists; name a new directory$"):
        backup.write(data, target, server, lambda _: None)
