"""`settings`: print the settings as a file for `--config`, with the source of each value."""

import json
import re
import sys
from dataclasses import fields

import click

from service.commands._parameters import FLAGS, setting_flags
from service.setting_sources import Sourced, load_with_sources
from service.settings import SECRETS, Settings

_HIDDEN = "***"
#: Where a `redis_url`, even one that is not valid, may have passwords: before the hosts, and in the query.
_PASSWORDS = re.compile(r"(?<=://).*(?=@)|^(?!.*://).*(?=@)|(?<=\?).*", re.DOTALL)


@click.command()
@setting_flags(FLAGS)
def command() -> int:
    """Print a line for each setting; the exit status is 0.

    Raises:
        StartupError: a setting is not valid.
    """
    sys.stdout.write(as_toml(load_with_sources(click.get_current_context().obj)))
    return 0


def as_toml(sourced: Sourced) -> str:
    """The settings as TOML, secrets masked, each with a comment that names its source."""
    lines = [(f"{item.name} = {_value(item.name, sourced.settings)}", item.name) for item in fields(Settings)]
    width = max(len(line) for line, _ in lines)
    return "".join(f"{line:{width}}  # {sourced.sources.get(name, 'default')}\n" for line, name in lines)


def _value(name: str, settings: Settings) -> str:
    value = getattr(settings, name)
    if isinstance(value, bool | int | float):
        return str(value).lower()
    text = str(value)
    if name in SECRETS and text:
        text = _HIDDEN
    elif name == "redis_url":
        text = _PASSWORDS.sub(_HIDDEN, text)
    # A string of JSON is one of TOML.
    return json.dumps(text, ensure_ascii=False)
