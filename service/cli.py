"""The command line: `session-configs COMMAND …`. Each command is a module of `service.commands`."""

import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from service import __version__
from service.errors import OutputError, ServiceError
from service.process import streams

PROGRAM = "session-configs"
#: The variable with which the completion of a shell calls the program; click derives its name from that of the program.
COMPLETION = "_SESSION_CONFIGS_COMPLETE"

#: Commands over HTTP, with an API key: all of them are in the module `shell`.
SHELL = {
    "get": "Print the configs of a session, or one value of them.",
    "set": "Replace the configs of a session.",
    "patch": "Set some keys of a session's configs; null deletes one.",
    "unset": "Delete keys of a session's configs.",
    "create": "Create a session, and print its id.",
    "delete": "Delete a session.",
    "list": "List sessions by what their configs contain.",
    "count": "Print how many sessions have configs that contain something.",
    "copy": "Copy a session, and print the id of the copy.",
    "ping": "Check that the server answers, and accepts the key.",
}
#: The help of each command, in the order of `--help`. A command's module has its name, with `_` for `-`.
COMMANDS = {
    "serve": "Run the server until SIGTERM or Ctrl-C.",
    "project": "Create, list and delete projects, and rotate their keys.",
    "find": "Find sessions by what their configs contain.",
    "check": "Compare the index with the stored configs, and repair it with --repair.",
    "export": "Write a project's configs, users and sessions to a file.",
    "import": "Put an export into a project.",
    "backup": "Copy the embedded Redis's data to a new directory, while its server runs.",
    "restore": "Put a backup into an empty data directory; stop its server first.",
    "verify": "Check a backup without restoring it.",
    "repartition": "Move the store to another number of partitions; stop all servers first.",
    "repair-aof": "Cut off the damaged end of the embedded Redis's file.",
    "settings": "Print the settings in force, and where each value comes from.",
    "health": "Check that the server with these settings answers.",
    "redis-cli": "Run redis-cli on the Redis of a running server.",
    **SHELL,
}


class _Program(click.Group):
    """The commands have only name and help until one is called: then its module is imported, and no other."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature of Group
        """The commands in their order, not that of the alphabet."""
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` name, imported, and its arguments."""
        name, listed, rest = super().resolve_command(ctx, args)
        if name is None or listed is None:
            return name, listed, rest
        command = _import(name)
        command.help = listed.help
        return name, command, rest


def _import(name: str) -> click.Command:
    module = importlib.import_module(f"service.commands.{'shell' if name in SHELL else name.replace('-', '_')}")
    command: click.Command = module.command.commands[name] if name in SHELL else module.command
    return command


@click.command(
    cls=_Program,
    commands=[click.Command(name, help=text, short_help=text) for name, text in COMMANDS.items()],
    help="Session configs for fleets of agents, stored in Redis.",
    invoke_without_command=True,
    subcommand_metavar="COMMAND ...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.pass_context
def program(context: click.Context) -> int:
    """Without a command: print the help. The exit status is that of wrong usage."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    return 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; a ServiceError is one line on standard error and status 1."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if COMPLETION in os.environ:
            return _complete(os.environ[COMPLETION])
        # Flags of settings, which a command and its action may both take, are collected in `obj`.
        with program.make_context(PROGRAM, words, obj={}) as context:
            status: int = program.invoke(context)
            return status
    except click.exceptions.Exit as end:  # help, or the version
        return end.exit_code
    except click.ClickException as error:
        with suppress(OSError):
            error.show(sys.stderr)
        return error.exit_code
    except ServiceError as error:
        if isinstance(error, OutputError):
            streams.discard_output()
        streams.report(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        streams.discard_output()  # the reader (`| head`) has exited
        return 141


def _complete(instruction: str) -> int:
    """Print the script of a shell's completion, or what it asks for."""
    from click.shell_completion import shell_complete

    return shell_complete(program, {}, PROGRAM, COMPLETION, instruction)
