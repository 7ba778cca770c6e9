"""Where settings come from: flags win over the environment, the environment over the file of `--config`, that over defaults.

An empty variable counts as unset, because a compose file passes an unset `${SCC_HOST}` that way. An empty flag is an error,
unless empty is a value of the setting (`--redis-url ''`). A variable can also name a file with a secret
(`SCC_ROOT_TOKEN_FILE`), as container platforms mount them. An error names the flag, the variable, or the file and its key.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, NamedTuple

from service.errors import StartupError
from service.settings import PATHS, SECRETS, Settings, converted, flag, type_of, type_words, variable

TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")

#: The file with settings has a flag and a variable like a setting.
CONFIG = "config"
#: The variables that name files with secrets, by setting.
SECRET_FILES = {name: f"{variable(name)}_FILE" for name in SECRETS}
#: Variables of the commands over HTTP, which may be set where a server runs.
CLIENT_VARIABLES = ("SCC_URL", "SCC_API_KEY")
#: A secret with fewer characters can be guessed, and causes a warning.
SHORT_SECRET = 16

#: Kubernetes sets SCC_PORT to an address in every pod of a namespace with a service called scc, SCC_ADMIN_PORT for scc-admin.
_PORTS = ("port", "admin_port")
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")


class Sourced(NamedTuple):
    """Settings, and the sources of those that are not defaults: a flag, a variable, or a key in a file."""

    settings: Settings
    sources: dict[str, str]


def load(flags: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from flags, environment, file and defaults.

    Raises:
        StartupError: a file cannot be read, a value is not valid, or the file has a key that is no setting.
    """
    return load_with_sources(flags, environment).settings


def load_with_sources(flags: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None) -> Sourced:
    """As `load`, with the sources of the values."""
    flags = {} if flags is None else flags
    environment = os.environ if environment is None else environment
    path = config_path(flags, environment)
    file = _read_config(path) if path else {}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for item in fields(Settings):
        name = item.name
        if given := _text(item, flags, environment):
            text, sources[name] = given
            with _naming(sources[name]):
                values[name] = _from_text(item, text)
        elif name in file:
            sources[name] = f"{name} in {path}"
            if file[name] == "" and item.default != "":
                raise StartupError(f"{sources[name]} must not be empty; leave it out for the default")
            with _naming(sources[name]):
                values[name] = converted(item, file[name])
    return Sourced(Settings(**values), sources)


def config_path(flags: Mapping[str, str], environment: Mapping[str, str] | None = None) -> str:
    """Path of the file with settings; empty if there is none.

    Raises:
        StartupError: the flag is empty.
    """
    environment = os.environ if environment is None else environment
    if flags.get(CONFIG) == "":
        raise _empty_flag(CONFIG)
    return flags.get(CONFIG) or environment.get(variable(CONFIG), "")


def _read_config(path: str) -> dict[str, Any]:
    """The keys and values of a TOML file."""
    import tomllib  # Most commands run without a file.

    try:
        file = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise StartupError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, or not TOML
        raise StartupError(f"cannot read {path}: {error}") from None
    names = [item.name for item in fields(Settings)]
    for key in file:
        if key not in names:
            raise StartupError(f"{key} in {path} is not a setting{_suggestion(key, names)}")
    return file


def _suggestion(key: str, names: list[str]) -> str:
    from difflib import get_close_matches  # only for this error

    similar = get_close_matches(key.replace("-", "_").lower(), names, n=1)
    return f"; do you mean {similar[0]}?" if similar else ""


def _text(item: "Field[Any]", flags: Mapping[str, str], environment: Mapping[str, str]) -> tuple[str, str] | None:
    """The text of a flag or variable, and which it is; None if the setting has neither."""
    text = flags.get(item.name)
    if text == "" and item.default != "":
        raise _empty_flag(item.name)
    if text is not None:
        return text, flag(item.name)
    text = _from_environment(item.name, environment)
    file = environment.get(SECRET_FILES.get(item.name, ""), "")
    if text and file:
        raise StartupError(f"{variable(item.name)} and {SECRET_FILES[item.name]} are both set; unset one of them")
    if file:
        return _read_secret(item.name, file), f"{SECRET_FILES[item.name]} ({file})"
    return (text, variable(item.name)) if text else None


def _empty_flag(name: str) -> StartupError:
    return StartupError(f"{flag(name)} must not be empty; leave it out for the default")


def _from_environment(name: str, environment: Mapping[str, str]) -> str:
    """Text of the variable of setting `name`; empty if it is unset or ignored."""
    text = environment.get(variable(name), "")
    if _is_service_link(name, text):
        return ""
    # White space around a key secret is part of it: existing stores were created with it.
    return text if name in ("key_secret", *PATHS) else text.strip()


def _is_service_link(name: str, text: str) -> bool:
    return name in _PORTS and _SERVICE_LINK.match(text) is not None


def _read_secret(name: str, path: str) -> str:
    """A secret from a file; a line break at its end is no part of it."""
    try:
        secret = Path(path).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise StartupError(f"cannot read {path}: {reason} ({SECRET_FILES[name]})") from None
    if not secret.strip():
        raise StartupError(f"{path} is empty ({SECRET_FILES[name]})")
    return secret if name == "key_secret" else secret.strip()


@contextmanager
def _naming(source: str) -> Iterator[None]:
    """Add the source to the message of an error."""
    try:
        yield
    except StartupError as error:
        raise StartupError(f"{error} ({source})") from None


def _from_text(item: "Field[Any]", text: str) -> object:
    """The value of a setting from the text of a flag or variable: everything that Python's int() and float() accept."""
    if item.name in PATHS:
        return converted(item, text)
    try:
        return converted(item, _scalar(type_of(item), decoded(text)))
    except UnicodeDecodeError:
        raise StartupError(f"setting {item.name} is not UTF-8") from None
    except ValueError:
        raise StartupError(f"setting {item.name} must be {type_words(item)}") from None


def _scalar(kind: Callable[[str], object], text: str) -> object:
    if kind is not bool:
        return kind(text)
    if text.lower() not in TRUE + FALSE:
        raise ValueError
    return text.lower() in TRUE


def decoded(word: str) -> str:
    """An argument or environment variable as text, decoded as UTF-8 in every locale.

    Python turns bytes that the locale's encoding cannot decode into surrogates: in C and POSIX, all bytes above 127.

    Raises:
        UnicodeDecodeError: those bytes are not UTF-8 either.
    """
    if any("\ud800" <= character <= "\udfff" for character in word):
        return os.fsencode(word).decode()
    return word


def _source_of_secret(name: str, environment: Mapping[str, str]) -> str:
    file = SECRET_FILES[name]
    return file if environment.get(file) and not environment.get(variable(name)) else variable(name)


def warnings(settings: Settings, environment: Mapping[str, str] | None = None) -> list[str]:
    """One sentence for each variable that is ignored or unsafe, with its name and without its value."""
    environment = os.environ if environment is None else environment
    names = {variable(item.name) for item in fields(Settings)} | {variable(CONFIG), *SECRET_FILES.values(), *CLIENT_VARIABLES}
    lines = [
        f"{ascii(name)[1:-1]} is ignored: it is not a setting"
        for name in sorted(environment)
        if name.startswith("SCC_") and name not in names
    ]
    lines += [
        f"{variable(name)} is ignored: it is the address of a Kubernetes service, not a port"
        for name in _PORTS
        if _is_service_link(name, environment.get(variable(name), ""))
    ]
    lines += [
        f"{_source_of_secret(name, environment)} is shorter than {SHORT_SECRET} characters and can be guessed"
        for name in SECRETS
        if len(getattr(settings, name)) > 0 and len(getattr(settings, name).strip()) < SHORT_SECRET
    ]
    if settings.key_secret != settings.key_secret.strip():
        lines.append(
            f"{_source_of_secret('key_secret', environment)} starts or ends with white space, which is part of the secret"
        )
    return lines
