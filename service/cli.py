"""The command line: `python -m service COMMAND …`. Each command is a module of `service.commands`."""

import importlib
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple, Protocol, cast

from service.errors import ServiceError
from service.settings import Settings, flag, load, variable


class CommandModule(Protocol):
    """What a module of `service.commands` offers."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the command's own arguments."""

    def run(self, arguments: Namespace, settings: Settings) -> int:
        """Do it and return the exit status."""


class Command(NamedTuple):
    """A command of the command line.

    `reaches_server`: it works on the Redis of a running server, and gets settings that name it. `needs_key_secret`: and the
    secret that keys are hashed with.
    """

    module: str
    help: str
    reaches_server: bool = True
    needs_key_secret: bool = False


COMMANDS = {
    "serve": Command("serve", "run the server until SIGTERM or Ctrl-C", reaches_server=False),
    "project": Command("project", "create, list and delete projects, and change their keys", needs_key_secret=True),
    "find": Command("find", "find sessions by what their configs contain"),
    "check": Command("check", "compare the index with the stored configs, and mend it with --repair"),
    "repartition": Command(
        "repartition", "move a store to another number of partitions, while no server runs", reaches_server=False
    ),
    "redis-cli": Command("redis_cli", "redis-cli on the Redis of a running server", reaches_server=False),
}

#: The settings that a command beside a running server takes as flags; the others come from the environment.
CONNECTION = ("redis_url", "data_dir", "command_timeout")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; an error of ours is one line on standard error and status 1."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = next((word for word in words if not word.startswith("-")), "")
    own, rest = _split(words) if name == "redis-cli" else (words, [])
    parser, module = _parser(name)
    arguments = parser.parse_args(own)
    if rest:
        arguments.rest = rest
    if module is None:
        parser.print_help()
        return 2
    try:
        return module.run(arguments, _settings(COMMANDS[name], arguments))
    except ServiceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has enough. Without this, the interpreter's last flush would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _parser(name: str) -> tuple[ArgumentParser, CommandModule | None]:
    """The whole parser, with the arguments of command `name` only: the other modules need not be imported."""
    parser = ArgumentParser(prog="python -m service", description="Session configs for fleets of agents, kept in Redis.")
    choices = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    module: CommandModule | None = None
    for known, command in COMMANDS.items():
        chosen = choices.add_parser(known, help=command.help, description=f"{command.help.capitalize()}.")
        if known != name:
            continue
        module = cast("CommandModule", importlib.import_module(f"service.commands.{command.module}"))
        module.add_arguments(chosen)
        if known != "serve":
            _add_connection_flags(chosen)
    return parser, module


def _add_connection_flags(parser: ArgumentParser) -> None:
    for item in fields(Settings):
        if item.name in CONNECTION:
            shown = f"{item.metadata['help']} [{variable(item.name)}]"
            parser.add_argument(flag(item.name), dest=item.name, metavar="VALUE", help=shown)


def _settings(command: Command, arguments: Namespace) -> Settings:
    settings = load(arguments)
    if not command.reaches_server:
        return settings
    from service import datadir

    return datadir.running(settings, needs_key_secret=command.needs_key_secret)


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Our flags that stand first after the command, and what follows for redis-cli, its flags included."""
    position = words.index("redis-cli") + 1
    while position < len(words):
        word = words[position]
        if word in [flag(name) for name in CONNECTION]:
            position += 2
        elif word.partition("=")[0] in [flag(name) for name in CONNECTION] or word in ("-h", "--help"):
            position += 1
        else:
            break
    return words[:position], words[position:]
