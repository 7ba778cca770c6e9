"""What a run was made on and with."""

import os
import platform
import re
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

from scripts.benchmark import tools
from scripts.lib.program import ROOT


def machine() -> dict[str, str]:
    """Processor, versions, commit and date."""
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    changed = _says("git", "-C", str(ROOT), "status", "--porcelain", "--", "service", "pyproject.toml")
    redis = re.search(r"v=(\S+)", _says("redis-server", "--version"))
    return {
        "processor": f"{len(os.sched_getaffinity(0))} cores of {processor[1] if processor else platform.machine()}",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{name: version(name) for name in ("aiohttp", "uvloop", "redis", "hiredis", "asyncpg")},
        "redis-server": redis[1] if redis else "",
        "Postgres": _says("postgres", "--version").rpartition(") ")[2].split(" ")[0],
        "commit": _says("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD") + (" with changes" if changed else ""),
        "date": time.strftime("%Y-%m-%d"),
    }


def _says(program: str, *words: str) -> str:
    path = tools.find(program)
    if path is None:
        return ""
    done = subprocess.run([path, *words], capture_output=True, encoding="utf-8", check=False)
    return (done.stdout.strip().splitlines() or [""])[0]
