"""`redis-cli`: Redis's own command line on the Redis of a running server."""

import os
from argparse import REMAINDER, ArgumentParser, Namespace
from urllib.parse import unquote, urlsplit

from service import datadir
from service.settings import Settings
from service.store.binaries import find_cli


def add_arguments(parser: ArgumentParser) -> None:
    """Take what follows the flags as redis-cli's own arguments."""
    parser.add_argument(
        "rest", nargs=REMAINDER, metavar="ARGUMENT", help="handed to redis-cli as it is; without any, its prompt opens"
    )


def run(arguments: Namespace, settings: Settings) -> int:
    """Become redis-cli; its exit status is the command's.

    Raises:
        StartupError: no server runs on the data directory, or there is no redis-cli.
    """
    program = find_cli(settings.redis_server)
    command = [program, *_target(datadir.running(settings).redis_url), *arguments.rest]
    os.execv(program, command)  # noqa: S606 - the program found, or named by the operator


def _target(url: str) -> list[str]:
    parts = urlsplit(url)
    return ["-s", unquote(parts.path)] if parts.scheme == "unix" else ["-u", url]
