"""The command line: its exit statuses, and which words are redis-cli's."""

from pathlib import Path

import pytest

from service import __version__, cli


@pytest.mark.parametrize(
    ("words", "flags", "rest"),
    [
        (["redis-cli"], ["redis-cli"], []),
        (["redis-cli", "GET", "a"], ["redis-cli"], ["GET", "a"]),
        (["redis-cli", "--raw", "GET", "a"], ["redis-cli"], ["--raw", "GET", "a"]),
        (["redis-cli", "--data-dir", "d", "-n", "1"], ["redis-cli", "--data-dir", "d"], ["-n", "1"]),
        (["redis-cli", "--data-dir=d", "PING"], ["redis-cli", "--data-dir=d"], ["PING"]),
        (["redis-cli", "SET", "a", "--data-dir"], ["redis-cli"], ["SET", "a", "--data-dir"]),
        (["redis-cli", "SET", "a", "--help"], ["redis-cli"], ["SET", "a", "--help"]),
        (["redis-cli", "--help"], ["redis-cli", "--help"], []),
        (["redis-cli", "--data-dir"], ["redis-cli", "--data-dir"], []),
    ],
)
def test_redis_cli_gets_the_arguments_after_the_flags(words: list[str], flags: list[str], rest: list[str]) -> None:
    assert cli._split(words) == (flags, rest)


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    output = capsys.readouterr().out
    assert all(name in output for name in cli.COMMANDS)


def test_a_command_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["sevre"])
    assert caught.value.code == 2
    assert "sevre" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--version"], f"session-configs {__version__}\n"),
        (["--help"], "usage: session-configs [-h]"),
        (["serve", "--help"], "usage: session-configs serve [-h]"),
        (["project", "create", "--help"], "usage: session-configs project create [-h]"),
    ],
)
def test_the_program_has_one_name(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(expected)


@pytest.mark.parametrize(
    "words",
    [
        ["find", 'agent="\udcff"'],
        ["find", "--json", '{"agent":"\udcff"}'],
        ["find", "--project", "\udcff", "a=1"],
        ["check", "--project", "\udcff"],
        ["project", "create", "\udcff"],
    ],
)
def test_an_argument_that_is_not_utf_8_is_one_line_and_status_1(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("the argument ")
    assert err.endswith(" is not UTF-8\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [["project", "--data-dir", "{}", "list"], ["project", "list", "--data-dir", "{}"], ["project", "list", "--data-dir={}"]],
)
def test_flags_may_come_before_or_after_an_action(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word.format(tmp_path) for word in words]) == 1
    assert f"no server is running on data directory {tmp_path};" in capsys.readouterr().err


def test_a_service_error_is_one_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["find", "--data-dir", str(tmp_path), "agent"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"no server is running on data directory {tmp_path}; ")
