"""Rows of what the service costs: how long its scripts block Redis, start-up, memory, disk."""

import re
import time
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from random import Random
from statistics import median
from uuid import UUID

from scripts.benchmark.load.connection import Connection
from scripts.benchmark.load.requests import create_request, delete_request, patch_request, put_request, request
from scripts.benchmark.run import REPEATS, Bench
from scripts.benchmark.servers.redis import FINE_THRESHOLD
from scripts.benchmark.servers.service import Service
from scripts.benchmark.statistics import Measurement
from scripts.lib.program import ROOT
from service.store.keys import Partition

_KEYS, _VALUE = 500, 500  # keys of the large document, bytes of a value: 250 KiB
_PATCHES = 20  # a round


def _large_document(turn: int) -> dict[str, str]:
    """A large document; no two turns share a value."""
    return {f"key_{key:04}": Random(f"{turn} {key}").randbytes(_VALUE // 2).hex() for key in range(_KEYS)}  # noqa: S311


def hold(bench: Bench) -> dict[str, Measurement]:
    """The longest script in PATCHes of all keys of a large document."""
    service = bench.one_worker
    connection = bench.connection(service.address)
    session_id = str(UUID(int=1 << 100, version=4))
    connection.send_ok(create_request(_large_document(0), session_id=session_id))
    bench.collect_slow_commands("preparing a large document")
    patches = [patch_request(session_id, _large_document(turn)) for turn in (1, 2)]
    service.redis.set_slowlog_threshold(FINE_THRESHOLD)
    # Each changed value removes and adds a term, and no other session has these terms.
    changing = _longest_scripts(bench, connection, patches, "PATCH of 500 keys")
    same = _longest_scripts(bench, connection, patches[:1], "PATCH of 500 keys with the values they have")
    size = service.redis.execute("HSTRLEN", Partition("default", 0).session(session_id), "configs")
    service.redis.set_slowlog_threshold()
    _measure_large_writes(bench, connection, session_id)
    note = f"{_PATCHES} a round, {size / 1024:.0f} KiB, every value changes; median of the rounds {median(changing):.2f}"
    return {
        "hold/patch": Measurement.figure(changing, max(changing), note),
        "hold/same": Measurement.figure(same, max(same)),
    }


def _longest_scripts(bench: Bench, connection: Connection, patches: list[bytes], phase: str) -> list[float]:
    """The longest script of each round, in milliseconds."""
    longest: list[float] = []
    for _ in range(bench.options.rounds):
        for turn in range(_PATCHES):
            connection.send_ok(patches[turn % len(patches)])
        commands = bench.collect_slow_commands(phase)
        longest.append(max((one.micros for one in commands if one.is_script), default=0) / 1000)
    return longest


def _measure_large_writes(bench: Bench, connection: Connection, session_id: str) -> None:
    ids = [str(UUID(int=(1 << 101) + number, version=4)) for number in range(REPEATS)]
    writes = {
        "POST": [create_request(_large_document(number), session_id=each) for number, each in enumerate(ids)],
        "DELETE": [delete_request(each) for each in ids],
        "PUT": [put_request(session_id, _large_document(number)) for number in range(REPEATS)],
        "PATCH of 500 keys": [patch_request(session_id, _large_document(100 + number)) for number in range(REPEATS)],
    }
    for name, requests in writes.items():
        bench.measure_script_time(bench.one_worker, f"{name}, 250 KiB, 500 keys", connection, requests)


def longest_script(bench: Bench) -> dict[str, Measurement]:
    """The longest script of all phases so far; nothing if none was slow enough for SLOWLOG."""
    measurements = {}
    scripts = sorted((one for one in bench.slow_commands if one.is_script), key=lambda one: one.micros)
    if scripts:
        values = [one.micros / 1000 for one in scripts]
        over = sum(one.over for one in scripts)
        note = f"{scripts[-1].command}, {scripts[-1].phase}; {over:,} of {bench.script_calls():,} calls over the target"
        measurements["hold/run"] = Measurement.figure(values, values[-1], note)
    if bench.script_times:
        request, longest = max(bench.script_times.items(), key=lambda item: item[1])
        note = f"{request}; {len(bench.script_times)} kinds of requests"
        measurements["hold/quiet"] = Measurement.figure(sorted(bench.script_times.values()), longest, note)
    return measurements


def footprint(bench: Bench) -> dict[str, Measurement]:
    """Start-up, idle memory and installed size."""
    starts, idle = [], []
    resident = 0.0
    for number in range(bench.options.rounds):
        start = time.perf_counter()
        with Service(bench.home / f"start-{number}", workers=2) as service:
            connection = Connection(service.address)
            connection.send_ok(request("GET", "/health", api_key=""))
            starts.append((time.perf_counter() - start) * 1000)
            connection.close()
            time.sleep(0.5)
            workers = [_memory(pid) for pid in service.workers()]
            idle.append(sum(private for private, _ in workers) / len(workers))
            resident = workers[0][1]
    return {
        "startup": Measurement.figure(starts),
        "idle": Measurement.figure(idle, note=f"RSS {resident:.1f} MB, shared pages included"),
        "tree": Measurement.figure([installed_bytes() / 1e6]),
    }


def _memory(pid: int) -> tuple[float, float]:
    """Private and resident memory of a process in MB (USS and RSS)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    kilobytes = {name: int(value) for name, value in re.findall(r"^(\w+): +(\d+) kB", rollup, re.MULTILINE)}
    return (kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]) / 1000, kilobytes["Rss"] / 1000


def installed_bytes() -> int:
    """Bytes of the package and of everything that it depends on at run time."""
    total = _bytes((ROOT / "service").rglob("*"))
    seen: set[str] = set()
    pending: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    while pending:
        requirement = pending.pop()
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        if name is None or name[0].lower() in seen or "extra ==" in requirement:
            continue
        seen.add(name[0].lower())
        try:
            package = distribution(name[0])
        except PackageNotFoundError:  # required on another platform or Python only
            continue
        total += _bytes(Path(str(file.locate())) for file in package.files or [])
        pending += package.requires or []
    return total


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file() and path.suffix != ".pyc")
