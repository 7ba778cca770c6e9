"""`redis-cli`: Redis's own command line on the Redis of a running server; without it on this machine, single commands."""

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

#: What redis-cli calls the options of TLS.
_TLS = {"ssl_ca_certs": "--cacert", "ssl_ca_path": "--cacertdir", "ssl_certfile": "--cert", "ssl_keyfile": "--key"}


def add_arguments(parser: ArgumentParser) -> None:
    """Take what follows the flags as redis-cli's own arguments."""
    parser.add_argument(
        "rest",
        nargs=REMAINDER,
        metavar="ARGUMENT",
        help="passed on as they are to the redis-cli or valkey-cli on PATH; without any, its prompt opens. Where PATH has "
        "neither: one command (after any of --raw, -e, -x), whose reply is printed raw",
    )


def run(arguments: Namespace, settings: Settings) -> int:
    """Become redis-cli, or run the one command given where there is none. The exit status is redis-cli's.

    Raises:
        StartupError: no server runs on the data directory, or redis-cli is needed and there is none.
        StoreUnavailable: no Sentinel tells which server is the master, or no node of the cluster answers.
    """
    settings = data_dir.with_running_redis(settings)
    program = find_cli(settings.redis_server)
    if program is not None:
        _become(program, arguments.rest, settings)
    return _single_command.run(_single_command.parse(arguments.rest), settings)


def _become(program: str, arguments: list[str], settings: Settings) -> NoReturn:
    """Replace this process by redis-cli."""
    address = url.parse(settings.redis_url)
    command = [program, *_server(address, settings), *_options(address), *arguments]
    # In the environment, because everybody may read a command line.
    password = {"REDISCLI_AUTH": address.options["password"]} if "password" in address.options else {}
    os.execve(program, command, os.environ | password)  # noqa: S606 - the program on PATH, or named by the operator


def _server(address: Address, settings: Settings) -> list[str]:
    if address.path:
        return ["-s", address.path]
    if address.kind == "standalone":
        host, port = address.hosts[0]
    else:
        host, port = asyncio.run(_first(settings))
    return ["-h", host, "-p", str(port)]


async def _first(settings: Settings) -> url.Endpoint:
    """The master, or the node of a cluster that has the store's own record."""
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
