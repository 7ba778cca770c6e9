"""The command line: `session-configs COMMAND …`. Each command is a module of `service.commands`."""

import importlib
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple, Protocol, cast

from service import __version__
from service.errors import BadRequest, OutputError, ServiceError
from service.process import streams
from service.settings import CONNECTION, Settings, add_flags, decoded, flag, load

PROGRAM = "session-configs"


class CommandModule(Protocol):
    """The functions of a module in `service.commands`."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the arguments and flags that only this command has."""

    def run(self, arguments: Namespace, settings: Settings) -> int:
        """Run the command and return the exit status; raises ServiceError for an error to report."""


class Command(NamedTuple):
    """A command of the command line.

    `connects`: it takes the connection flags. `needs_server`: its settings get the URL of a running server's Redis.
    `needs_key_secret`: and the server's secret for hashing keys.
    """

    module: str
    help: str
    connects: bool = True
    needs_server: bool = True
    needs_key_secret: bool = False


COMMANDS = {
    "serve": Command("serve", "run the server until SIGTERM or Ctrl-C", connects=False, needs_server=False),
    "project": Command("project", "create, list and delete projects, and rotate their keys", needs_key_secret=True),
    "find": Command("find", "find sessions by what their configs contain"),
    "check": Command("check", "compare the index with the stored configs, and repair it with --repair"),
    "repartition": Command(
        "repartition", "move the store to another number of partitions; stop all servers first", needs_server=False
    ),
    "repair-aof": Command(
        "repair_aof", "cut off the damaged end of the embedded Redis's file", connects=False, needs_server=False
    ),
    "health": Command("health", "check that the server with these settings answers", connects=False, needs_server=False),
    "redis-cli": Command("redis_cli", "run redis-cli on the Redis of a running server", needs_server=False),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; a ServiceError is one line on standard error and status 1."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = next((word for word in words if not word.startswith("-")), "")
    own_words, rest = _split(words) if name == "redis-cli" else (words, [])
    parser, module = _parser(name)
    arguments = parser.parse_args(own_words)
    if rest:
        arguments.rest = rest
    if module is None:
        parser.print_help()
        return 2
    try:
        _decode(arguments)
        return module.run(arguments, _settings(COMMANDS[name], arguments))
    except ServiceError as error:
        if isinstance(error, OutputError):
            streams.discard_output()
        streams.report(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        streams.discard_output()  # the reader (`| head`) has exited
        return 141


def _parser(name: str) -> tuple[ArgumentParser, CommandModule | None]:
    """The parser, with arguments for command `name` only, so that no other command's module is imported."""
    parser = ArgumentParser(prog=PROGRAM, description="Session configs for fleets of agents, stored in Redis.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    choices = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    module: CommandModule | None = None
    for choice, command in COMMANDS.items():
        description = f"{command.help[:1].upper()}{command.help[1:]}."
        subparser = choices.add_parser(choice, help=command.help, description=description)
        if choice != name:
            continue
        module = cast("CommandModule", importlib.import_module(f"service.commands.{command.module}"))
        module.add_arguments(subparser)
        if command.connects:
            add_flags(subparser, CONNECTION)
    return parser, module


def _decode(arguments: Namespace) -> None:
    """Decode the command's arguments as UTF-8, except settings, which `load` decodes.

    Raises:
        BadRequest: an argument is not UTF-8.
    """
    settings = {item.name for item in fields(Settings)}
    for name, word in vars(arguments).items():
        if isinstance(word, str) and name not in settings:
            try:
                setattr(arguments, name, decoded(word))
            except UnicodeDecodeError:
                raise BadRequest(f"the argument {word!a} is not UTF-8") from None


def _settings(command: Command, arguments: Namespace) -> Settings:
    settings = load(arguments)
    if not command.needs_server:
        return settings
    from service.process import data_dir

    return data_dir.with_running_redis(settings, needs_key_secret=command.needs_key_secret)


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """The command with its connection flags, and the arguments after them, which are for redis-cli."""
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
