"""The available memory: the minimum of what the machine, the process and its cgroups allow."""

import os
import resource
from pathlib import Path

import pytest

from service.process.memory_limit import MIN_MEMORY, available_memory, default_max_memory

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
LIMIT = 100_000_000


@pytest.fixture(autouse=True)
def _unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def system(root: Path, cgroups: str, limits: dict[str, str]) -> Path:
    """A file system with the cgroups of a process and the files of their limits."""
    for name, text in {"proc/self/cgroup": cgroups, **limits}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


V1 = "sys/fs/cgroup/memory"
NO_LIMIT_V1 = "9223372036854771712\n"


@pytest.mark.parametrize(
    ("cgroups", "limits", "expected"),
    [
        ("0::/\n", {"sys/fs/cgroup/memory.max": f"{LIMIT}\n"}, LIMIT),
        ("0::/\n", {"sys/fs/cgroup/memory.max": "max\n"}, MACHINE),
        ("0::/a/b\n", {"sys/fs/cgroup/a/memory.max": f"{LIMIT}\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}, LIMIT),
        ("0::/a/b\n", {"sys/fs/cgroup/a/memory.max": "900000000\n", "sys/fs/cgroup/a/b/memory.max": f"{LIMIT}\n"}, LIMIT),
        ("0::/of/the/host\n", {"sys/fs/cgroup/memory.max": f"{LIMIT}\n"}, LIMIT),
        ("5:cpu,memory:/a\n0::/\n", {f"{V1}/a/memory.limit_in_bytes": f"{LIMIT}\n"}, LIMIT),
        ("5:memory:/docker/1\n", {f"{V1}/memory.limit_in_bytes": f"{LIMIT}\n"}, LIMIT),
        ("5:memory:/\n", {f"{V1}/memory.limit_in_bytes": NO_LIMIT_V1}, MACHINE),
        ("5:cpu:/\n", {f"{V1}/memory.limit_in_bytes": f"{LIMIT}\n"}, MACHINE),
        ("5:memory:/../..\n", {"memory.limit_in_bytes": f"{LIMIT}\n"}, MACHINE),
        ("nonsense\n\n::\n", {"sys/fs/cgroup/memory.max": "0\n"}, MACHINE),
        ("0::/\n", {"sys/fs/cgroup/memory.max": "\x80 what\n"}, MACHINE),
    ],
)  # fmt: skip
def test_the_lowest_limit_of_all_cgroups_counts(tmp_path: Path, cgroups: str, limits: dict[str, str], expected: int) -> None:
    assert available_memory(system(tmp_path, cgroups, limits)) == expected


def test_without_cgroups_the_machine_counts(tmp_path: Path) -> None:
    assert available_memory(tmp_path) == MACHINE


@pytest.mark.parametrize("kind", [resource.RLIMIT_AS, resource.RLIMIT_DATA])
def test_a_limit_of_the_process_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    limits = {kind: (LIMIT, resource.RLIM_INFINITY)}
    monkeypatch.setattr(resource, "getrlimit", lambda asked: limits.get(asked, (resource.RLIM_INFINITY,) * 2))
    assert available_memory(tmp_path) == LIMIT
    assert default_max_memory() == LIMIT * 2 // 5


def test_the_default_is_never_below_the_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1, resource.RLIM_INFINITY))
    assert default_max_memory() == MIN_MEMORY
