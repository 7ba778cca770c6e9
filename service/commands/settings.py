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
#: What may precede user and password in a `redis_url`.
_SCHEME = re.compile(r"(?:(?:unix|rediss?(?:\+cluster|\+sentinel)?)://)?", re.IGNORECASE)


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
    """The settings as TOML, each with a comment that names its source; what is masked is a comment, too.

    As a setting, a masked secret would be a key that everybody knows.
    """
    lines = [(_line(item.name, getattr(sourced.settings, item.name)), item.name) for item in fields(Settings)]
    width = max(len(line) for line, _ in lines)
    return "".join(f"{line:{width}}  # {sourced.sources.get(name, 'default')}\n" for line, name in lines)


def _line(name: str, value: object) -> str:
    if isinstance(value, bool | int | float):
        return f"{name} = {str(value).lower()}"
    text = shown = str(value)
    if name in SECRETS and text:
        shown = _HIDDEN
    elif name == "redis_url":
        shown = _without_passwords(text)
    # A string of JSON is one of TOML.
    return f"{'' if shown == text else '# '}{name} = {json.dumps(shown, ensure_ascii=False)}"


def _without_passwords(url: str) -> str:
    """A `redis_url`, even one that is not valid, without what may have passwords: before the hosts, and in the query."""
    scheme = _SCHEME.match(url)
    start = scheme.end() if scheme else 0
    address, mark, query = url[start:].partition("?")
    if "@" in query:
        # Either is not escaped: the ? may be one of a password, and the @ one of an option.
        return url[:start] + _HIDDEN
    _, at, hosts = address.rpartition("@")
    return f"{url[:start]}{_HIDDEN + at if at else ''}{hosts}{mark + _HIDDEN if mark else ''}"
