"""The command line: its exit statuses, and which words are redis-cli's."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from service import __version__, cli
from service.commands.redis_cli import split


@pytest.mark.parametrize(
    ("words", "flags", "rest"),
    [
        ([], [], []),
        (["GET", "a"], [], ["GET", "a"]),
        (["--raw", "GET", "a"], [], ["--raw", "GET", "a"]),
        (["--data-dir", "d", "-n", "1"], ["--data-dir", "d"], ["-n", "1"]),
        (["--data-dir=d", "PING"], ["--data-dir=d"], ["PING"]),
        (["SET", "a", "--data-dir"], [], ["SET", "a", "--data-dir"]),
        (["SET", "a", "--help"], [], ["SET", "a", "--help"]),
        (["--", "PING"], [], ["--", "PING"]),
        (["--help"], ["--help"], []),
        (["--data-dir"], ["--data-dir"], []),
    ],
)
def test_redis_cli_gets_the_arguments_after_the_flags(words: list[str], flags: list[str], rest: list[str]) -> None:
    assert split(words) == (flags, rest)


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    output = capsys.readouterr().out
    assert all(name in output for name in cli.COMMANDS)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sevre"], "No such command 'sevre'. Did you mean 'serve'?"),
        (["serve", "--partitons", "1"], "No such option '--partitons'. Did you mean '--partitions'?"),
        (["serve", "--port"], "Option '--port' requires an argument."),
        (["redis-cli", "--data-dir"], "Option '--data-dir' requires an argument."),
        (["project", "create"], "Missing argument 'NAME'."),
        (["find", "--limit", "x", "a=1"], "'x' is not a valid integer."),
        (["check", "extra"], "Got unexpected extra argument (extra)"),
    ],
)
def test_wrong_usage_is_named_with_status_2(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Error: " in err
    assert err.endswith(f"{expected}\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--version"], f"session-configs {__version__}\n"),
        (["--help"], "Usage: session-configs [OPTIONS] COMMAND ..."),
        (["-h"], "Usage: session-configs [OPTIONS] COMMAND ..."),
        (["serve", "--help"], "Usage: session-configs serve [OPTIONS]\n"),
        (["project", "create", "-h"], "Usage: session-configs project create [OPTIONS] NAME\n"),
    ],
)
def test_the_program_has_one_name(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
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


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_help_of_a_command_is_that_of_the_list(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    assert cli.COMMANDS[name] in " ".join(capsys.readouterr().out.split())


#: What a command must not import before it needs it, because it takes long.
SLOW = ("aiohttp", "asyncio", "http.client", "httpx", "msgspec", "orjson", "redis", "service.store", "tqdm")


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ("--version", set()),
        ("--help", set()),
        ("serve --help", {"msgspec"}),  # it checks settings
        ("health --help", {"msgspec"}),
        ("repair-aof --help", {"msgspec"}),
        ("get --help", {"msgspec", "orjson"}),
    ],
)
def test_a_command_imports_only_what_it_needs(words: str, needed: set[str]) -> None:
    program = f"import sys; from service import cli; status = cli.main({words.split()}); print(*sys.modules); sys.exit(status)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(result.stdout.splitlines()[-1].split()) & set(SLOW) == needed


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("session-configs ", cli.COMMANDS),
        ("session-configs re", ["restore", "repartition", "repair-aof", "redis-cli"]),
        ("session-configs project r", ["rotate-key"]),
        ("session-configs serve --max-b", ["--max-body-bytes", "--max-buffered-bytes"]),
    ],
)
def test_a_shell_completes_commands_and_flags(
    words: str, expected: Iterable[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(cli.COMPLETION, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    assert cli.main([]) == 0
    assert capsys.readouterr().out.split() == [f"plain,{word}" for word in expected]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        *(
            (f"session-configs {words} {path}", "file")
            for words in ("export", "import", "export --config")
            for path in ("", "a/b")
        ),
        *((f"session-configs {words} a/", "dir") for words in ("backup", "restore", "verify", "find --data-dir")),
        ("session-configs serve --redis-server /usr/", "file"),
        ("session-configs serve --config x", "file"),
        ("session-configs project --data-dir x", "dir"),
    ],
)
def test_a_shell_completes_names_of_files(
    words: str, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(cli.COMPLETION, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    assert cli.main([]) == 0
    assert capsys.readouterr().out == f"{kind},{words.rpartition(' ')[2]}\n"


def test_a_service_error_is_one_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["find", "--data-dir", str(tmp_path), "agent"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"no server is running on data directory {tmp_path}; ")
