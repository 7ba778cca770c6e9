"""`settings`: print the settings as a file for `--config`, with the source of each value."""

import json
import re
import sys
from dataclasses import fields

import click

from service.commands._parameters import FLAGS, setting_flags
from service.process import streams
from service.process.data_dir import generated_secrets
from service.setting_sources import Sourced, load_with_sources, warnings
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
    sourced = load_with_sources(click.get_current_context().obj)
    sys.stdout.write(as_toml(sourced))
    for warning in warnings(sourced.settings):
        streams.report(warning)
    return 0


def as_toml(sourced: Sourced) -> str:
    """The settings as TOML, each with a comment that names its source; what is masked is a comment, too.

    As a setting, a masked secret would be a key that everybody knows.
    """
    generated = generated_secrets(sourced.settings)
    sources = generated | sourced.sources
    names = [item.name for item in fields(Settings)]
    # A generated secret would be masked, so it is not read.
    lines = [(_line(name, _HIDDEN if name in generated else getattr(sourced.settings, name)), name) for name in names]
    width = max(len(line) for line, _ in lines)
    return "".join(f"{line:{width}}  # {sources.get(name, 'default')}\n" for line, name in lines)


def _line(name: str, value: object) -> str:
    if isinstance(value, bool | int | float):
        return f"{name} = {str(value).lower()}"
    text = masked = str(value)
    is_secret = name in SECRETS and text != ""
    if is_secret:
        masked = _HIDDEN
    elif name == "redis_url":
        masked = _without_passwords(text)
    # A string of JSON is one of TOML, but for the one control character that JSON allows in strings.
    string = json.dumps(masked, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"{'# ' if is_secret or masked != text else ''}{name} = {string}"


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
