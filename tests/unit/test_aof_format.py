"""Which server can read which append-only file, and what killed servers leave."""

import json
import stat
from pathlib import Path

import pytest

from service.process.aof_format import RECORD, examine, remove_temporary_files, write_record
from service.process.redis_binaries import Server

MANIFEST = "appendonlydir/appendonly.aof.manifest"
BASE = "appendonlydir/appendonly.aof.2.base.rdb"

#: The format of each, as observed on disk: layout and first bytes of the base file.
WRITTEN = {
    "Redis 6.2": {"appendonly.aof": b"REDIS0009\xfa"},
    "Redis 6.2, never rewritten": {"appendonly.aof": b"*2\r\n$6\r\nSELECT"},
    "Redis 6.2, empty": {"appendonly.aof": b""},
    "Redis 7.0": {BASE: b"REDIS0010\xfa"},
    "Redis 7.2, Valkey 8": {BASE: b"REDIS0011\xfa"},
    "Redis 7.4, Redis 8": {BASE: b"REDIS0012\xfa"},
    "Valkey 9": {BASE: b"VALKEY080\xfa"},
}  # fmt: skip
SERVERS = {
    name: Server(f"/usr/bin/{name}", name.split()[0], (int(name.split()[1][0]), int(name.split()[1][2])))
    for name in (
        "Redis 6.2", "Redis 7.0", "Redis 7.2", "Redis 7.4", "Redis 8.2", "Redis 9.9", "Valkey 7.2", "Valkey 8.1", "Valkey 9.0",
        "Valkey 9.1",
    )
}  # fmt: skip
_VALKEY_9 = {"Valkey 9.0", "Valkey 9.1"}
_REDIS_8 = {"Redis 7.4", "Redis 8.2", "Redis 9.9"}
READERS = {
    "Redis 6.2": set(SERVERS),
    "Redis 6.2, never rewritten": set(SERVERS),
    "Redis 6.2, empty": set(SERVERS),
    "Redis 7.0": set(SERVERS) - {"Redis 6.2"},
    "Redis 7.2, Valkey 8": set(SERVERS) - {"Redis 6.2", "Redis 7.0"},
    "Redis 7.4, Redis 8": _REDIS_8,
    "Valkey 9": _VALKEY_9,
}


def write(directory: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(content)
    if BASE in files:
        name = Path(BASE).name
        manifest = f"file {name} seq 2 type b\nfile appendonly.aof.2.incr.aof seq 2 type i\n"
        (directory / MANIFEST).write_text(manifest, encoding="utf-8")
    return directory


def readers(directory: Path) -> set[str]:
    data = examine(directory)
    return {name for name, server in SERVERS.items() if data.is_readable_by(server)}


@pytest.mark.parametrize("author", WRITTEN)
def test_the_base_file_decides_who_can_read_a_directory(tmp_path: Path, author: str) -> None:
    assert readers(write(tmp_path, WRITTEN[author])) == READERS[author]


@pytest.mark.parametrize("author", WRITTEN)
def test_a_record_of_another_server_changes_nothing_if_the_base_file_is_readable(tmp_path: Path, author: str) -> None:
    write(tmp_path, WRITTEN[author])
    for server in SERVERS.values():
        write_record(tmp_path, server)
        assert readers(tmp_path) == READERS[author]


@pytest.mark.parametrize(
    ("author", "needs"),
    [
        ("Redis 6.2", "Redis 6.2 or Valkey 7.2, or newer"),
        ("Redis 7.0", "Redis 7.0 or Valkey 7.2, or newer"),
        ("Redis 7.4, Redis 8", "Redis 7.4, or newer"),
        ("Valkey 9", "Valkey 9.0, or newer"),
    ],
)
def test_the_oldest_readers_are_named(tmp_path: Path, author: str, needs: str) -> None:
    assert examine(write(tmp_path, WRITTEN[author])).needs == needs


def test_every_server_can_use_a_new_directory(tmp_path: Path) -> None:
    assert readers(tmp_path) == set(SERVERS)
    write_record(tmp_path, SERVERS["Valkey 9.1"])
    assert readers(tmp_path) == set(SERVERS)


def test_a_format_newer_than_the_table_is_read_by_its_author_and_newer_ones(tmp_path: Path) -> None:
    write(tmp_path, {BASE: b"REDIS0014\xfa"})
    assert readers(tmp_path) == _REDIS_8
    write_record(tmp_path, Server("", "Redis", (8, 2)))
    assert readers(tmp_path) == {"Redis 8.2", "Redis 9.9"}
    assert examine(tmp_path).needs == "Redis 8.2, or newer"
    write_record(tmp_path, Server("", "Valkey", (9, 1)))
    assert readers(tmp_path) == _REDIS_8


def test_if_the_base_file_is_missing_the_record_decides(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    assert readers(tmp_path) == set(SERVERS) - {"Redis 6.2"}
    write_record(tmp_path, SERVERS["Valkey 9.1"])
    assert readers(tmp_path) == _VALKEY_9


def test_a_single_file_during_its_conversion_is_the_base_file(tmp_path: Path) -> None:
    write(tmp_path, {"appendonly.aof": b"REDIS0009\xfa", MANIFEST: b"file appendonly.aof seq 1 type b\n"})
    assert readers(tmp_path) == set(SERVERS) - {"Redis 6.2"}


def test_the_record_names_the_last_server_and_is_private(tmp_path: Path) -> None:
    write_record(tmp_path, SERVERS["Redis 7.0"])
    write_record(tmp_path, SERVERS["Valkey 9.1"])
    assert json.loads((tmp_path / RECORD).read_text(encoding="utf-8")) == {"kind": "Valkey", "version": "9.1"}
    assert stat.S_IMODE((tmp_path / RECORD).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [RECORD]
    assert examine(tmp_path).record == ("Valkey", (9, 1))


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "{}", '{"kind":"Redis","version":7}', '{"kind":"Other","version":"1.0"}'])
def test_a_damaged_record_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_text(text, encoding="utf-8")
    assert examine(tmp_path).record is None


def test_only_temporary_files_of_killed_servers_are_removed(tmp_path: Path) -> None:
    names = (
        "temp-rewriteaof-17.aof", "temp-rewriteaof-bg-17.aof", "temp-17.rdb", "appendonlydir/temp-rewriteaof-bg-9.aof",
        "appendonlydir/temp-appendonly.aof.manifest", "appendonlydir/temp-appendonly.aof.3.incr.aof",
    )  # fmt: skip
    others = {BASE: b"REDIS0010", "appendonly.aof": b"", "redis.log": b"", "notes-temp-1.rdb": b"", "temp-1.txt": b""}
    write(tmp_path, dict.fromkeys(names, b"x") | others)
    remove_temporary_files(tmp_path)
    actual = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert actual == {*others, MANIFEST}
