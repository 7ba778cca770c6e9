"""Which server the client talks to, and with which API key: from the environment, or a file in the user's home directory.

The file is `session-configs/config.toml` in `$XDG_CONFIG_HOME`, by default `~/.config`, with the keys `url` and `api_key`. The
key is never a flag, which a process listing would show.
"""

import os
import re
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from service.errors import StartupError

DEFAULT_URL = "http://127.0.0.1:8029"
URL, API_KEY = "SCC_URL", "SCC_API_KEY"

_PREFIX = "/api/v1"
_VALID_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?", re.IGNORECASE)
_VALID_KEY = re.compile(r"[!-~]+")


class Access(NamedTuple):
    """The URL of the API, without a slash at its end, and the API key."""

    url: str
    api_key: str


def find(url: str | None = None, environment: Mapping[str, str] | None = None) -> Access:
    """`url` wins over the environment, the environment over the file.

    Raises:
        StartupError: there is no key, the file cannot be read, or a value is not valid; the message names the source.
    """
    environment = os.environ if environment is None else environment
    path = _path(environment)
    file = _read(path) if path is not None else {}
    api_key = environment.get(API_KEY, "").strip() or file.get("api_key", "").strip()
    if not api_key:
        raise StartupError(f"there is no API key: set {API_KEY}, or api_key in {path or 'a file in $XDG_CONFIG_HOME'}")
    if not _VALID_KEY.fullmatch(api_key):
        raise StartupError(f"the API key ({API_KEY}, or api_key in {path}) has characters that no key has")
    return Access(_base(url or environment.get(URL) or file.get("url") or DEFAULT_URL), api_key)


def _base(url: str) -> str:
    if not _VALID_URL.fullmatch(url):
        raise StartupError(f"the URL of the server must be http://HOST:PORT or https://HOST:PORT, not {url!a}")
    return url.rstrip("/").removesuffix(_PREFIX) + _PREFIX


def _path(environment: Mapping[str, str]) -> Path | None:
    """Path of the file; None if there is no home directory. A relative $XDG_CONFIG_HOME is ignored, as its standard says."""
    directory = Path(environment.get("XDG_CONFIG_HOME", ""))
    try:
        directory = directory if directory.is_absolute() else Path.home() / ".config"
    except RuntimeError:
        return None
    return directory / "session-configs" / "config.toml"


def _read(path: Path) -> dict[str, str]:
    import tomllib  # The environment is often enough.

    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
            mode = os.fstat(file.fileno()).st_mode
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise StartupError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    for key, value in content.items():
        if key not in ("url", "api_key"):
            raise StartupError(f"{ascii(key)[1:-1]} in {path} is not known; the keys are url and api_key")
        if not isinstance(value, str):
            raise StartupError(f"{key} in {path} must be text")
    if "api_key" in content and mode & (stat.S_IRGRP | stat.S_IROTH):
        sys.stderr.write(f"other users can read the API key in {path}; forbid that with chmod 600\n")
    return content
