"""The file of an export: compressed or not, complete or not."""

import gzip
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from service.commands import _export_file
from service.configs import export_format
from service.configs.export_format import SessionLine, Totals
from service.configs.limits import Limits
from service.errors import BadRequest, StartupError
from service.store.upkeep.project_import import Item

CONFIGS = b'{\n"a":1.50,\n"\\n":[1, 2]\n}'


def whole() -> list[bytes]:
    """The lines of an export of two users and three sessions."""
    lines = [
        export_format.project_line(name="acme", project_id="id", configs=b"{}", configs_revision=0, not_before=9),
        *(export_format.user_line(user, number) for number, user in enumerate(("alice", 'b"ob'))),
        *(
            export_format.session_line(
                session_id=f"{number}", user="alice", created_at=number, updated_at=number, revision=1, expires_at=None,
                disable_task_tracking=False, configs=CONFIGS,
            )
            for number in range(3)
        ),
    ]  # fmt: skip
    totals = Totals()
    totals.users, totals.sessions = 2, 3
    for line in lines:
        totals.add(line)
    return [*lines, totals.end_line()]


async def read(lines: list[bytes], limits: Limits | None = None) -> list[Item]:
    return [item async for item in _export_file.items(io.BytesIO(b"".join(lines)), limits or Limits())]


async def problem(lines: list[bytes], limits: Limits | None = None) -> tuple[int, str]:
    """How many lines are read before the error, and its sentence."""
    count = 0
    try:
        async for _ in _export_file.items(io.BytesIO(b"".join(lines)), limits or Limits()):
            count += 1
    except BadRequest as error:
        return count, error.message
    return count, ""


async def test_configs_are_read_byte_for_byte() -> None:
    items = await read(whole())
    assert [item.where for item in items] == [f"line {number}" for number in range(1, 7)]
    assert [bytes(item.line.configs) for item in items if isinstance(item.line, SessionLine)] == [
        CONFIGS.replace(b"\n", b"")
    ] * 3


@pytest.mark.parametrize("kept", range(7))
async def test_a_file_that_was_cut_is_incomplete(kept: int) -> None:
    count, message = await problem(whole()[:kept])
    assert (count, message) == (kept, f"the file ends after line {kept}, without its last line: it is incomplete")


async def test_a_file_that_was_cut_within_a_line_is_broken_there() -> None:
    count, message = await problem([*whole()[:4], whole()[4][:-5]])
    assert count == 4
    assert message.startswith("line 5: ")


@pytest.mark.parametrize("removed", range(1, 6))
async def test_a_file_without_one_of_its_lines_was_changed(removed: int) -> None:
    lines = whole()
    del lines[removed]
    count, message = await problem(lines)
    assert count == 5
    assert message == "line 6: its counts and digest are not those of the lines before: the file was changed"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"\n", "line 4: "),
        (b"[]\n", "line 4: "),
        (b"\xff\n", "line 4: "),
        (b'{"type":"sessions"}\n', "line 4: Invalid value 'sessions' - at `$.type`"),
        (b'{"type":"user","user":"a"}\n', "line 4: Object missing required field `created_at`"),
        (b'{"type":"user","user":"a","created_at":-1}\n', "line 4: Expected `int` >= 0 - at `$.created_at`"),
        (b'{"type":"user","user":"a","created_at":1,"x":1}\n', "line 4: Object contains unknown field `x`"),
        (whole()[0], "line 4: the first line is that of a project, and no other"),
        (whole()[3].replace(b'"revision":1', b'"revision":0'), "line 4: Expected `int` >= 1 - at `$.revision`"),
        (
            whole()[3].replace(b'"revision":1', b'"revision":%d' % (2**52 + 1)),
            "line 4: Expected `int` <= 4503599627370496 - at `$.revision`",
        ),
        (
            b'{"type":"user","user":"' + b"a" * 70_000 + b'"}\n',
            "line 4 is longer than 65566 bytes, which max_configs_bytes allows",
        ),
    ],
)
async def test_a_broken_line_is_named(line: bytes, message: str) -> None:
    lines = whole()
    lines.insert(3, line)
    count, actual = await problem(lines, Limits(max_configs_bytes=30))
    assert count == 3
    assert actual.startswith(message)


async def test_a_file_begins_with_its_project_and_has_nothing_after_its_end() -> None:
    assert await problem(whole()[1:]) == (0, "line 1: the first line is that of a project, and no other")
    assert await problem([*whole(), b"\n"]) == (6, "line 8 comes after the last line")


@pytest.mark.parametrize("name", ["export.jsonl", "export.jsonl.gz"])
async def test_a_file_is_compressed_by_its_name(tmp_path: Path, name: str) -> None:
    path, data = tmp_path / name, b"".join(whole())
    with _export_file.writer(str(path)) as file:
        file.write(data)
    raw = path.read_bytes()
    assert (gzip.decompress(raw) if name.endswith(".gz") else raw) == data
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [name]
    with _export_file.reader(str(path)) as opened:
        assert len([item async for item in _export_file.items(opened.file, Limits())]) == 6
        assert opened.position() == opened.size == len(raw)


async def test_a_compressed_file_that_was_cut_or_damaged_is_named(tmp_path: Path) -> None:
    path, data = tmp_path / "export.gz", gzip.compress(b"".join(whole()))
    for raw in (data[:-12], data[:40] + b"\0\0\0" + data[43:], b"{}" + data):
        path.write_bytes(raw)
        with (
            _export_file.reader(str(path)) as opened,
            pytest.raises(BadRequest, match=r"^line [0-9]+: the compressed file is dam"),
        ):
            assert [item async for item in _export_file.items(opened.file, Limits())]


def test_an_export_that_fails_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "export"
    path.write_bytes(b"earlier")
    with suppress(KeyError), _export_file.writer(str(path)) as file:
        file.write(b"later")
        raise KeyError
    assert path.read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == ["export"]


def test_a_file_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=f"^cannot read {tmp_path}: Is a directory$"), _export_file.reader(str(tmp_path)):
        pass
    missing = tmp_path / "missing" / "export"
    with (
        pytest.raises(StartupError, match=f"^cannot write {missing}: No such file or directory$"),
        _export_file.writer(str(missing)),
    ):
        pass


@pytest.mark.parametrize("name", ["export", "export.gz"])
def test_an_error_that_is_not_the_files_stays_as_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(BrokenPipeError), _export_file.writer(str(path)):
        raise BrokenPipeError
    assert os.listdir(tmp_path) == []
    path.write_bytes(b"")
    with pytest.raises(ConnectionError), _export_file.reader(str(path)):
        raise ConnectionError


@pytest.mark.parametrize("name", ["export", "export.gz"])
@pytest.mark.parametrize("size", [1, 2_000_000])
def test_a_file_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, size: int
) -> None:
    path, opened = tmp_path / name, os.open
    path.write_bytes(b"earlier")
    monkeypatch.setattr(os, "open", lambda _, flags, __: opened("/dev/full", flags & ~os.O_CREAT))
    with (
        pytest.raises(StartupError, match=f"^cannot write {path}: No space left on device$"),
        _export_file.writer(str(path)) as file,
    ):
        file.write(os.urandom(size))
    assert path.read_bytes() == b"earlier"


async def test_a_file_that_cannot_be_read_further_is_one_sentence() -> None:
    class Broken(io.BytesIO):
        name = "export"

        def readline(self, _: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(StartupError, match=r"^cannot read export: Input/output error$"):
        assert [item async for item in _export_file.items(Broken(), Limits())]


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_stays_and_its_file_is_replaced(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "folder").mkdir()
    target, link, second = tmp_path / "folder" / "target", tmp_path / "link", tmp_path / "second"
    link.symlink_to("folder/target")
    second.symlink_to(link)
    if exists:
        target.write_bytes(b"earlier")
        with suppress(KeyError), _export_file.writer(str(second)) as file:
            file.write(b"later")
            raise KeyError
        assert target.read_bytes() == b"earlier"
    with _export_file.writer(str(second)) as file:
        file.write(b"later")
    assert link.is_symlink()
    assert second.is_symlink()
    assert target.read_bytes() == b"later"
    assert [os.listdir(target.parent), sorted(os.listdir(tmp_path))] == [["target"], ["folder", "link", "second"]]


@contextmanager
def fifo(path: Path, data: bytes | None = None) -> Iterator[list[bytes]]:
    """A named pipe with somebody at its other end, who writes `data`, or reads; what was read."""
    os.mkfifo(path)
    contents: list[bytes] = []
    work = (lambda: contents.append(path.read_bytes())) if data is None else (lambda: path.write_bytes(data) and None)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield contents
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("name", ["pipe", "pipe.gz"])
def test_a_pipe_is_written_directly_and_stays(tmp_path: Path, name: str) -> None:
    path, data = tmp_path / name, b"".join(whole())
    with fifo(path) as contents, _export_file.writer(str(path)) as file:
        file.write(data)
    assert [gzip.decompress(raw) if name.endswith(".gz") else raw for raw in contents] == [data]
    assert path.is_fifo()
    assert os.listdir(tmp_path) == [name]


def test_a_device_is_written_directly(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "full").symlink_to("/dev/full")
    with _export_file.writer(str(tmp_path / "null")) as file:
        file.write(b"x")
    name = str(tmp_path / "full")
    with (
        pytest.raises(StartupError, match=f"^cannot write {name}: No space left on device$"),
        _export_file.writer(name) as file,
    ):
        file.write(b"x")
    assert sorted(os.listdir(tmp_path)) == ["full", "null"]
    assert (tmp_path / "null").is_char_device()


def test_two_exports_to_one_name_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "export"
    with _export_file.writer(str(path)) as first, _export_file.writer(str(path)) as second:
        for file, data in ((first, b"1"), (second, b"2"), (first, b"1")):
            file.write(data)
    assert path.read_bytes() == b"11"
    assert os.listdir(tmp_path) == ["export"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "cannot {} a file without a name"),
        (".", r"cannot {} \.: Is a directory"),
        ("..", r"cannot {} \.\.: Is a directory"),
        ("/", "cannot {} /: Is a directory"),
    ],
)
def test_a_name_that_no_file_can_have_is_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(StartupError, match=f"^{sentence.format('write')}$"), _export_file.writer(name):
        pass
    with pytest.raises(StartupError, match=f"^{sentence.format('read')}$"), _export_file.reader(name):
        pass


@pytest.mark.parametrize(("name", "is_compressed"), [("pipe", True), ("pipe", False), ("pipe.gz", True)])
async def test_a_pipe_is_read_whatever_its_name(tmp_path: Path, name: str, is_compressed: bool) -> None:
    data = b"".join(whole())
    path = tmp_path / name
    with fifo(path, gzip.compress(data) if is_compressed else data), _export_file.reader(str(path)) as opened:
        assert len([item async for item in _export_file.items(opened.file, Limits())]) == 6
        assert (opened.size, opened.position()) == (0, 0)


async def test_a_compressed_file_needs_no_ending(tmp_path: Path) -> None:
    path, data = tmp_path / "export", gzip.compress(b"".join(whole()))
    path.write_bytes(data)
    with _export_file.reader(str(path)) as opened:
        assert len([item async for item in _export_file.items(opened.file, Limits())]) == 6
        assert opened.position() == opened.size == len(data)
    for raw in (b"\x1f", data[:30]):
        path.write_bytes(raw)
        with (
            _export_file.reader(str(path)) as opened,
            pytest.raises(BadRequest, match=r"^line [0-9]+: the compressed file is damaged or incomplete$"),
        ):
            assert [item async for item in _export_file.items(opened.file, Limits())]


async def test_a_compressed_line_is_bounded_as_any_other(tmp_path: Path) -> None:
    path = tmp_path / "export"
    path.write_bytes(gzip.compress(b"{" + b" " * 10_000_000))
    with (
        _export_file.reader(str(path)) as opened,
        pytest.raises(BadRequest, match=r"^line 1 is longer than 65566 bytes, which"),
    ):
        assert [item async for item in _export_file.items(opened.file, Limits(max_configs_bytes=30))]


def test_an_export_that_is_terminated_leaves_no_draft(tmp_path: Path) -> None:
    program = f"""
import time
from service.commands import _background, _export_file
_background.begin()
with _export_file.writer({str(tmp_path / "export")!r}):
    print(flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        assert len(os.listdir(tmp_path)) == 1
        process.terminate()
        assert process.wait(60) == 143
    assert os.listdir(tmp_path) == []
