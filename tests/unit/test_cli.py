"""The command line: its exit statuses, and which words are redis-cli's."""

from pathlib import Path

import pytest

from service import cli


@pytest.mark.parametrize(
    ("words", "own", "rest"),
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
def test_redis_cli_takes_what_follows_our_flags(words: list[str], own: list[str], rest: list[str]) -> None:
    assert cli._split(words) == (own, rest)


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    said = capsys.readouterr().out
    assert all(name in said for name in cli.COMMANDS)


def test_a_command_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["sevre"])
    assert caught.value.code == 2
    assert "sevre" in capsys.readouterr().err


def test_an_error_of_ours_is_one_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["find", "--data-dir", str(tmp_path), "agent"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"no server runs on data directory {tmp_path}; ")
