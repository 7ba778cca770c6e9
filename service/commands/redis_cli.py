"""`redis-cli`: run redis-cli on the Redis of a running server; without it on this machine, run single commands."""

import asyncio
import os
from argparse import REMAINDER, ArgumentParser, Namespace
from typing import NoReturn

from service.commands import _single_command
from service.process import data_dir
from service.process.redis_binaries import find_cli
from service.redis_client import url
from service.redis_client.client import RedisClient
from service.redis_client.url import Address
from service.settings import Settings
from service.store import keys

#: The TLS options of redis-cli.
_TLS = {"ssl_ca_certs": "--cacert", "ssl_ca_path": "--cacertdir", "ssl_certfile": "--cert", "ssl_keyfile": "--key"}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "rest",
        nargs=REMAINDER,
        metavar="ARGUMENT",
        help="arguments for redis-cli or valkey-cli, from PATH; without any, the prompt opens. If neither is on PATH: "
        "one command (after any of --raw, -e, -x), whose reply is printed raw",
    )


def run(arguments: Namespace, settings: Settings) -> int:
    """Replace this process with redis-cli; without it, run a single command. The exit status is that of redis-cli.

    Raises:
        StartupError: no server is running on the data directory, or only redis-cli supports the arguments.
        StoreUnavailable: no Sentinel names the master, or no node of the cluster answers.
    """
    settings = data_dir.with_running_redis(settings)
    program = find_cli(settings.redis_server)
    if program is not None:
        _exec(program, arguments.rest, settings)
    return _single_command.run(_single_command.parse(arguments.rest), settings)


def _exec(program: str, arguments: list[str], settings: Settings) -> NoReturn:
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
