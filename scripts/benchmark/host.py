"""The host, the versions and the commit of a run."""

import os
import platform
import re
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

from scripts.benchmark import tools
from scripts.lib.program import ROOT


def describe() -> dict[str, str]:
    """Processor, system, versions, commit and date."""
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    redis = re.search(r"v=(\S+)", _first_line("redis-server", "--version"))
    return {
        "processor": f"{len(os.sched_getaffinity(0))} cores of {processor[1] if processor else platform.machine()}",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{name: version(name) for name in ("aiohttp", "uvloop", "redis", "hiredis", "asyncpg", "valkey-glide", "coredis")},
        "redis-server": redis[1] if redis else "",
        "Postgres": _first_line("postgres", "--version").rpartition(") ")[2].split(" ")[0],
        "commit": commit(ROOT),
        "date": time.strftime("%Y-%m-%d"),
    }


def commit(checkout: Path) -> str:
    """The commit of a checkout, and whether its code was changed since; empty if it is none."""
    changed = _first_line("git", "-C", str(checkout), "status", "--porcelain", "--", "service", "pyproject.toml")
    return _first_line("git", "-C", str(checkout), "rev-parse", "--short", "HEAD") + (" with changes" if changed else "")


def _first_line(program: str, *arguments: str) -> str:
    path = tools.find(program)
    if path is None:
        return ""
    output = subprocess.run([path, *arguments], capture_output=True, encoding="utf-8", check=False).stdout
    return (output.strip().splitlines() or [""])[0]
