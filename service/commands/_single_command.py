"""`redis-cli` on a machine without redis-cli and valkey-cli: run one command and print its raw reply."""

import asyncio
import os
import sys
from collections.abc import Sequence
from itertools import pairwise, takewhile
from typing import NamedTuple

from service.commands import _raw_command, _raw_reply
from service.errors import StartupError, StoreUnavailable
from service.redis_client.client import RedisClient
from service.settings import Settings

#: The supported options of redis-cli. Replies are always printed raw.
RAW, EXIT_STATUS, STDIN = "--raw", "-e", "-x"

#: Commands that need a connection that stays open after their reply.
SESSION_COMMANDS = frozenset({
    "MONITOR", "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE", "SYNC", "PSYNC",
    "MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH", "HELLO", "CLIENT REPLY",
    # They block; an element that is popped after --command-timeout would be lost.
    "BLPOP", "BRPOP", "BRPOPLPUSH", "BLMOVE", "BLMPOP", "BZPOPMIN", "BZPOPMAX", "BZMPOP",
    # redis-cli handles these itself.
    "HELP", "?",
})  # fmt: skip


class SingleCommand(NamedTuple):
    """A command and the redis-cli options before it.

    `reads_stdin`: standard input is the last argument. `fails_on_error`: print an error reply to standard error, with status 1.
    """

    words: list[bytes]
    reads_stdin: bool = False
    fails_on_error: bool = False


def parse(arguments: Sequence[str]) -> SingleCommand:
    """Parse redis-cli's arguments.

    Raises:
        StartupError: only redis-cli itself supports them.
    """
    options = list(takewhile(lambda word: word.startswith("-"), arguments))
    for option in options:
        if option not in (RAW, EXIT_STATUS, STDIN):
            raise _needs_cli(f"the option {option}")
    words = arguments[len(options) :]
    if not words:
        raise _needs_cli("the interactive prompt")
    name = _session_command(words)
    if name:
        raise _needs_cli(name)
    return SingleCommand([os.fsencode(word) for word in words], STDIN in options, EXIT_STATUS in options)


def run(command: SingleCommand, settings: Settings) -> int:
    """Run `command` on the Redis at `settings.redis_url`, print the reply, and return the exit status of redis-cli.

    Raises:
        StartupError: Redis cannot be reached, or no reply came.
    """
    words = [*command.words, sys.stdin.buffer.read()] if command.reads_stdin else command.words
    reply = asyncio.run(_reply(words, settings))
    if command.fails_on_error and isinstance(reply, Exception):
        sys.stderr.write(f"{reply}\n")
        return 1
    sys.stdout.buffer.write(_raw_reply.printed(words, reply))
    sys.stdout.buffer.flush()
    return 0


async def _reply(words: Sequence[bytes], settings: Settings) -> _raw_command.Reply:
    redis = RedisClient.open(settings.redis_url, timeout=settings.command_timeout)
    try:
        return await _raw_command.run(redis, words)
    except StoreUnavailable as error:
        raise StartupError(_raw_command.describe(error, settings.command_timeout)) from error
    finally:
        await redis.close()


def _session_command(words: Sequence[str]) -> str:
    """The name of a command of SESSION_COMMANDS, or of a blocking read of streams; empty for any other command."""
    name, *rest = [word.upper() for word in words]
    if name in ("XREAD", "XREADGROUP"):
        # Keys and ids follow STREAMS.
        options = takewhile(lambda word: word != "STREAMS", rest)
        waits = any(option == "BLOCK" and value.isdecimal() for option, value in pairwise(options))
        return f"{name} BLOCK" if waits else ""
    names = (name, " ".join([name, *rest[:1]]))
    return next((name for name in names if name in SESSION_COMMANDS), "")


def _needs_cli(what: str) -> StartupError:
    return StartupError(
        f"{what} needs redis-cli or valkey-cli, and neither is on PATH; "
        "install redis-tools or valkey-tools (Debian, Ubuntu), redis or valkey (elsewhere)"
    )
