"""`redis-cli`: run redis-cli on the Redis of a running server; without it on this machine, run single commands."""

import asyncio
import os
from collections.abc import Sequence
from typing import NoReturn

import click

from service.commands import _single_command
from service.commands._parameters import takes_settings
from service.process import data_dir
from service.process.redis_binaries import find_cli
from service.redis_client import url
from service.redis_client.client import RedisClient
from service.redis_client.url import Address
from service.setting_sources import CONFIG
from service.settings import CONNECTION, Settings, flag
from service.store import keys

#: The TLS options of redis-cli.
_TLS = {"ssl_ca_certs": "--cacert", "ssl_ca_path": "--cacertdir", "ssl_certfile": "--cert", "ssl_keyfile": "--key"}


class _RedisCli(click.Command):
    """The flags of the connection come first; what follows, options too, is for redis-cli."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse our flags only."""
        flags, rest = split(args)
        return super().parse_args(ctx, [*flags, "--", *rest] if rest else flags)


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """The flags of the connection at the beginning of `words`, and the arguments after them, which are for redis-cli."""
    flags = [flag(name) for name in (CONFIG, *CONNECTION)]
    position = 0
    while position < len(words):
        word = words[position]
        if word in flags:
            position += 2
        elif word.partition("=")[0] in flags or word in ("-h", "--help"):
            position += 1
        else:
            break
    return words[:position], words[position:]


@click.command(cls=_RedisCli)
@click.argument(
    "arguments",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="[ARGUMENT]...",
    help="arguments for redis-cli or valkey-cli, from PATH; without any, the prompt opens. If neither is on PATH: "
    "one command (after any of --raw, -e, -x), whose reply is printed raw",
)
@takes_settings(CONNECTION)
def command(settings: Settings, arguments: tuple[str, ...]) -> int:
    """Replace this process with redis-cli; without it, run a single command. The exit status is that of redis-cli.

    Raises:
        StartupError: no server is running on the data directory, or only redis-cli supports the arguments.
        StoreUnavailable: no Sentinel names the master, or no node of the cluster answers.
    """
    settings = data_dir.with_running_redis(settings)
    program = find_cli(settings.redis_server)
    if program is not None:
        _exec(program, arguments, settings)
    return _single_command.run(_single_command.parse(arguments), settings)


def _exec(program: str, arguments: Sequence[str], settings: Settings) -> NoReturn:
    """Replace this process with redis-cli."""
    address = url.parse(settings.redis_url)
    command = [program, *_server(address, settings), *_options(address), *arguments]
    # In the environment, because other users can read a command line.
    password = {"REDISCLI_AUTH": address.options["password"]} if "password" in address.options else {}
    os.execve(program, command, os.environ | password)  # noqa: S606 - from the operator's PATH or setting


def _server(address: Address, settings: Settings) -> list[str]:
    if address.path:
        return ["-s", address.path]
    if address.kind == "standalone":
        host, port = address.hosts[0]
    else:
        host, port = asyncio.run(_first(settings))
    return ["-h", host, "-p", str(port)]


async def _first(settings: Settings) -> url.Endpoint:
    """The master, or the node of the cluster that has the store's record."""
    redis = RedisClient.open(settings.redis_url, timeout=settings.command_timeout)
    try:
        endpoint = await redis.endpoint_of(keys.STORE)
        assert endpoint is not None  # noqa: S101 - only a socket has none
        return endpoint
    finally:
        await redis.close()


def _options(address: Address) -> list[str]:
    options = address.options
    words = ["-c"] if address.kind == "cluster" else []
    for name, word in (("username", "--user"), ("db", "-n")):
        if name in options:
            words += [word, str(options[name])]
    if address.tls:
        words.append("--tls")
        words += [part for name, word in _TLS.items() if name in options for part in (word, str(options[name]))]
        if options.get("ssl_cert_reqs") in ("none", "optional"):
            words.append("--insecure")
    return words
