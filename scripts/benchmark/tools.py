"""Programs from Debian: wrk, webdis, redis-benchmark, Postgres. Missing ones are installed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

#: Program → Debian package.
PACKAGES = {
    "wrk": "wrk",
    "webdis": "webdis",
    "redis-benchmark": "redis-tools",
    "redis-server": "redis-server",
    "postgres": "postgresql",
}


class Missing(Exception):
    """A program is not installed and could not be."""


def find(program: str) -> str | None:
    """Path of `program`. Debian keeps Postgres's own programs off PATH; the newest version is taken."""
    if location := shutil.which(program):
        return location
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: float(path.parts[4]))
    return str(versions[-1]) if versions else None


def path(program: str) -> str:
    """Path of `program`.

    Raises:
        Missing: it is not installed.
    """
    location = find(program)
    if location is None:
        raise Missing(f"{program} is not installed")
    return location


def ensure(programs: Iterable[str]) -> None:
    """Install those of `programs` that are missing, with apt-get.

    Raises:
        Missing: there is no apt-get, it failed, or it needs root.
    """
    missing = sorted(PACKAGES[program] for program in set(programs) if find(program) is None)
    if not missing:
        return
    by_hand = f"apt-get install {' '.join(missing)}"
    if shutil.which("apt-get") is None:
        raise Missing(f"this system has no apt-get; install the equivalents of these Debian packages: {' '.join(missing)}")
    if os.geteuid() != 0 and shutil.which("sudo") is None:
        raise Missing(f"the benchmark needs programs that only root can install: {by_hand}")
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    sys.stderr.write(f"Installing: {by_hand}\n")
    install = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-qq", "--no-install-recommends", *missing]
    for command in (["apt-get", "update", "-qq"], install):
        if subprocess.run([*sudo, *command], stdout=subprocess.DEVNULL, check=False).returncode != 0:
            raise Missing(f"{' '.join(command)} failed; install manually: {by_hand}")
