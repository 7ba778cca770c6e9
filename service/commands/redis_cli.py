"""`redis-cli`: Redis's own command line on the Redis of a running server."""

import asyncio
import os
from argparse import REMAINDER, ArgumentParser, Namespace

from service import datadir
from service.errors import StartupError
from service.settings import Settings
from service.store import keys, urls
from service.store.binaries import find_cli
from service.store.connection import Link
from service.store.urls import Address

#: What redis-cli calls the options of TLS.
_TLS = {"ssl_ca_certs": "--cacert", "ssl_ca_path": "--cacertdir", "ssl_certfile": "--cert", "ssl_keyfile": "--key"}


def add_arguments(parser: ArgumentParser) -> None:
    """Take what follows the flags as redis-cli's own arguments."""
    parser.add_argument(
        "rest", nargs=REMAINDER, metavar="ARGUMENT", help="handed to redis-cli as it is; without any, its prompt opens"
    )


def run(arguments: Namespace, settings: Settings) -> int:
    """Become redis-cli; its exit status is the command's.

    Raises:
        StartupError: no server runs on the data directory, or there is no redis-cli.
        StoreUnavailable: no Sentinel tells which server is the master, or no node of the cluster answers.
    """
    settings = datadir.running(settings)
    program = find_cli(settings.redis_server)
    if program is None:
        raise StartupError("no redis-cli or valkey-cli is on PATH")
    address = urls.parse(settings.redis_url)
    command = [program, *_server(address, settings), *_options(address), *arguments.rest]
    # In the environment, because everybody may read a command line.
    password = {"REDISCLI_AUTH": address.options["password"]} if "password" in address.options else {}
    os.execve(program, command, os.environ | password)  # noqa: S606 - the program found, or named by the operator


def _server(address: Address, settings: Settings) -> list[str]:
    if address.path:
        return ["-s", address.path]
    if address.kind == "one":
        host, port = address.hosts[0]
    else:
        host, port = asyncio.run(_first(settings))
    return ["-h", host, "-p", str(port)]


async def _first(settings: Settings) -> urls.Endpoint:
    """The master, or the node of a cluster that has the store's own record."""
    link = Link.open(settings.redis_url, timeout=settings.command_timeout)
    try:
        endpoint = await link.where(keys.STORE)
        assert endpoint is not None  # noqa: S101 - only a socket has none
        return endpoint
    finally:
        await link.close()


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
