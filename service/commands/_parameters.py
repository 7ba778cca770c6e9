"""What several commands take on the command line: flags for settings, and text."""

from collections.abc import Callable, Collection
from dataclasses import fields
from functools import update_wrapper
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import click
from click.shell_completion import CompletionItem

from service.errors import BadRequest
from service.setting_sources import CONFIG, decoded, load
from service.settings import PATHS, SECRETS, Settings, flag, type_of, variable

Parameters = ParamSpec("Parameters")
Decorated = TypeVar("Decorated", bound=Callable[..., Any])

#: Every setting that has a flag.
FLAGS = tuple(item.name for item in fields(Settings) if item.name not in SECRETS)


class Text(click.ParamType[str, str]):
    """An argument that must be UTF-8, in every locale."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002 - ParamType's
        """The argument as text.

        Raises:
            BadRequest: it is not UTF-8.
        """
        try:
            return decoded(value)
        except UnicodeDecodeError:
            raise BadRequest(f"the argument {value!a} is not UTF-8") from None


class PathName(click.ParamType[str, str]):
    """A path as it was given, whose bytes need not be UTF-8. The shell completes it."""

    name = "path"

    def __init__(self, kind: Literal["file", "dir"]) -> None:
        self._kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Let the shell complete names of files or of directories."""
        return [CompletionItem(incomplete, type=self._kind)]


TEXT = Text()
FILE, DIRECTORY = PathName("file"), PathName("dir")


def setting_flags(names: Collection[str]) -> Callable[[Decorated], Decorated]:
    """A decorator that adds to a command `--config`, and a flag for each setting in `names`.

    What they collect in the context's `obj` is the argument of `load`.
    """

    def decorate(function: Decorated) -> Decorated:
        for item in reversed(fields(Settings)):
            if item.name in names:
                # A Boolean flag without a value means true.
                value: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if type_of(item) is bool else {}
                value["type"] = _type_of_flag(item.name, type_of(item))
                metavar = "[VALUE]" if "flag_value" in value else "VALUE"
                function = _flag(item.name, metavar, item.metadata["help"], **value)(function)
        return _flag(CONFIG, "FILE", "TOML file with settings, which flags and variables override", type=FILE)(function)

    return decorate


def _type_of_flag(name: str, kind: type) -> click.ParamType[str, str]:
    """What a shell completes: the setting's own checks come later, with those of the environment and the file."""
    if kind is Path:
        return DIRECTORY
    return FILE if name in PATHS else click.UNPROCESSED


def _flag(name: str, metavar: str, text: str, **value: Any) -> Callable[[Decorated], Decorated]:  # noqa: ANN401 - click's
    return click.option(
        flag(name),
        name,
        metavar=metavar,
        help=f"{text} [{variable(name)}]",
        expose_value=False,
        callback=_collect,
        **value,
    )


def takes_settings(
    names: Collection[str],
) -> Callable[[Callable[Concatenate[Settings, Parameters], int]], Callable[Parameters, int]]:
    """A decorator for the function of a command: it gets the settings first, and the command flags for those in `names`."""

    def decorate(function: Callable[Concatenate[Settings, Parameters], int]) -> Callable[Parameters, int]:
        def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> int:
            return function(load(click.get_current_context().obj), *arguments, **options)

        return setting_flags(names)(update_wrapper(run, function))

    return decorate


def _collect(context: click.Context, option: click.Parameter, text: str | None) -> None:
    """Keep a flag that was given; that of an action replaces the one before the action."""
    if text is not None:
        context.obj[option.name] = text
