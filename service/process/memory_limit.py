"""How much memory this process and its children may use, and the share of it for the embedded Redis's data."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

#: Two fifths. While Redis rewrites its file, it has two copies of the pages written meanwhile, at worst of all of them; the
#: last fifth is for the workers.
SHARE, PARTS = 2, 5
#: Bytes; an empty Redis needs one or two million.
MIN_MEMORY = 8_000_000


def default_max_memory() -> int:
    """The default of `max_memory`: bytes for the data in the embedded Redis."""
    return max(MIN_MEMORY, available_memory() * SHARE // PARTS)


def available_memory(root: Path = Path("/")) -> int:
    """Bytes: the minimum of the machine's memory, this process's limits, and the limits of its cgroups (v1 and v2)."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    processes = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    return min([machine, *(limit for limit in processes if limit != resource.RLIM_INFINITY), *_cgroup_limits(root)])


def _cgroup_limits(root: Path) -> Iterator[int]:
    """The limits of this process's cgroups and of their parents."""
    for mount, name, group in _cgroups(root):
        # In a container the path may be the host's, while only this cgroup is mounted: then the mount itself is the cgroup.
        for directory in (mount / group, *(mount / group).parents):
            if directory.is_relative_to(mount):
                yield from _limit(directory / name)


def _cgroups(root: Path) -> Iterator[tuple[Path, str, str]]:
    """Where the cgroups of this process are mounted, the name of the file with the limit, and their paths (see cgroups(7))."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            yield root / "sys/fs/cgroup", "memory.max", path.lstrip("/")
        elif "memory" in controllers.split(","):
            yield root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", path.lstrip("/")


def _limit(file: Path) -> Iterator[int]:
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return
    # `max` means no limit; so does 0, with which no process could run.
    if text.isdigit() and int(text) > 0:
        yield int(text)
