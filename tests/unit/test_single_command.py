"""Which of redis-cli's arguments can be run without redis-cli, and the error for the others."""

import os

import pytest

from service.commands._single_command import SESSION_COMMANDS, SingleCommand, parse
from service.errors import StartupError

INSTALL = (
    "needs redis-cli or valkey-cli, and neither is on PATH; "
    "install redis-tools or valkey-tools (Debian, Ubuntu), redis or valkey (elsewhere)"
)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["PING"], SingleCommand([b"PING"])),
        (["--raw", "GET", "a"], SingleCommand([b"GET", b"a"])),
        (["-e", "--raw", "GET", "a"], SingleCommand([b"GET", b"a"], fails_on_error=True)),
        (["-x", "SET", "a"], SingleCommand([b"SET", b"a"], reads_stdin=True)),
        (["ECHO", "--no-raw"], SingleCommand([b"ECHO", b"--no-raw"])),
        ([""], SingleCommand([b""])),
        (["GET", os.fsdecode(b"\xff\xc3\xa9")], SingleCommand([b"GET", b"\xff\xc3\xa9"])),
    ],
)
def test_options_come_before_the_command_and_arguments_are_bytes(words: list[str], command: SingleCommand) -> None:
    assert parse(words) == command


@pytest.mark.parametrize("words", [[], ["--raw"], ["-x"], ["-e", "--raw"]])
def test_the_error_without_a_command_names_the_prompt(words: list[str]) -> None:
    with pytest.raises(StartupError) as caught:
        parse(words)
    assert str(caught.value) == f"the interactive prompt {INSTALL}"


@pytest.mark.parametrize(
    "option", ["--no-raw", "--csv", "--json", "-n", "-r", "-i", "-d", "-3", "-h", "--scan", "--stat", "--eval", "--", "-"]
)
@pytest.mark.parametrize("before", [[], ["--raw"]])
def test_an_unsupported_option_is_named_and_nothing_is_sent(before: list[str], option: str) -> None:
    with pytest.raises(StartupError) as caught:
        parse([*before, option, "1", "GET", "a"])
    assert str(caught.value) == f"the option {option} {INSTALL}"


@pytest.mark.parametrize("command", sorted(SESSION_COMMANDS))
def test_a_command_that_needs_a_session_is_named_in_either_case(command: str) -> None:
    for words in (command.split(), [*command.lower().split(), "a", "0"]):
        with pytest.raises(StartupError) as caught:
            parse(words)
        assert str(caught.value) == f"{command} {INSTALL}"


@pytest.mark.parametrize(
    ("command", "waits"),
    [
        ("XREAD BLOCK 0 STREAMS a $", True),
        ("xread count 1 block 10 streams a $", True),
        ("XREADGROUP GROUP g c BLOCK 0 STREAMS a >", True),
        ("XREAD COUNT 1 STREAMS a 0", False),
        ("XREAD STREAMS BLOCK 0", False),
        ("XREADGROUP GROUP block c STREAMS a >", False),
        ("XREAD", False),
        ("CLIENT", False),
        ("CLIENT ID", False),
        ("GET MONITOR", False),
    ],
)
def test_a_read_of_streams_is_refused_only_if_it_blocks(command: str, waits: bool) -> None:
    words = command.split()
    if waits:
        with pytest.raises(StartupError, match=f"^{words[0].upper()} BLOCK needs redis-cli"):
            parse(words)
    else:
        assert parse(words).words == command.encode().split()
