"""Programs that Debian brings: wrk, webdis, redis-benchmark, Postgres. Installed where they are missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

#: Program → Debian package.
PACKAGES = {
    "wrk": "wrk",
    "webdis": "webdis",
    "redis-benchmark": "redis-tools",
    "redis-server": "redis-server",
    "postgres": "postgresql",
}

#: What each group needs beside wrk; those not named need nothing.
NEEDS = {
    "get": ("redis-benchmark",),
    "latency": ("redis-benchmark",),
    "webdis": ("webdis",),
    "patch": ("postgres",),
    "post": ("postgres",),
    "listing": ("postgres",),
}


class Missing(Exception):
    """A program is not there and cannot be installed."""


def find(program: str) -> str | None:
    """Path of `program`; Debian keeps Postgres's own programs off PATH, the newest version counts."""
    found = shutil.which(program)
    if found is not None:
        return found
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: float(path.parts[4]))
    return str(versions[-1]) if versions else None


def path(program: str) -> str:
    """Path of `program`.

    Raises:
        Missing: there is none.
    """
    found = find(program)
    if found is None:
        raise Missing(f"{program} is not installed")
    return found


def ensure(groups: list[str]) -> None:
    """Install what `groups` need and this machine has not.

    Raises:
        Missing: that is impossible here.
    """
    needed = {"wrk", "redis-server"}.union(*(NEEDS.get(group, ()) for group in groups))
    missing = sorted(PACKAGES[program] for program in needed if find(program) is None)
    if not missing:
        return
    told = f"apt-get install {' '.join(missing)}"
    if shutil.which("apt-get") is None:
        raise Missing(f"this machine has no apt-get; install what Debian calls: {' '.join(missing)}")
    if os.geteuid() != 0 and shutil.which("sudo") is None:
        raise Missing(f"the benchmark needs programs that only root can install: {told}")
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    sys.stderr.write(f"Installing: {told}\n")
    # What these packages start as services is not used here.
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-qq", "--no-install-recommends"]
    install = [*as_root, *quiet, *missing]
    for command in ([*as_root, "apt-get", "update", "-qq"], install):
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            raise Missing(f"{' '.join(command)} failed; install by hand: {told}")
    for program in needed:
        path(program)
