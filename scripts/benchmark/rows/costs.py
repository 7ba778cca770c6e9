"""Rows of what the service costs: how long scripts hold Redis, start-up, memory, disk."""

import re
import time
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from random import Random
from statistics import median
from uuid import UUID

from scripts.benchmark.load.generators import Connection, request
from scripts.benchmark.run import REPEATS, Bench, create_request, delete_request, patch_request, put_request
from scripts.benchmark.servers.processes import FINE, Service
from scripts.benchmark.statistics import Result
from scripts.lib.program import ROOT
from service.store.keys import Partition

_KEYS, _CHANGED, _VALUE = 500, 500, 500  # keys, keys in the PATCH, bytes of a value: 250 KiB in all
_PATCHES = 20  # a round


def _values(turn: int, step: int = 1) -> dict[str, str]:
    """A large document, or every `step`th key of it; each value is another session's in no other turn."""
    return {f"key_{key:04}": Random(f"{turn} {key}").randbytes(_VALUE // 2).hex() for key in range(0, _KEYS, step)}  # noqa: S311


def hold(bench: Bench) -> None:
    """The longest script in PATCHes of many keys of a large document, and in other writes of such documents."""
    one = bench.one
    connection = bench.connection(one.origin)
    session_id = str(UUID(int=1 << 100, version=4))
    connection.good(create_request(_values(0), session_id=session_id))
    bench.note_holds("preparing a large document")
    patches = [patch_request(session_id, _values(turn, _KEYS // _CHANGED)) for turn in (1, 2)]
    one.redis.watch(FINE)
    # Every value that changes takes its term with it, and none of these terms is another session's.
    changing = _held(bench, connection, patches, "PATCH of 500 keys")
    same = _held(bench, connection, patches[:1], "PATCH of 500 keys with the values they have")
    size = one.redis.ask("HSTRLEN", Partition("default", 0).session(session_id), "configs")
    one.redis.watch()
    _quiet(bench, connection, session_id)
    note = f"{_PATCHES} a round, {size / 1024:.0f} KiB, every value changes; median of the rounds {median(changing):.2f}"
    bench.add(Result.figure("hold/patch", changing, max(changing), note))
    bench.add(Result.figure("hold/same", same, max(same)))


def _quiet(bench: Bench, connection: Connection, session_id: str) -> None:
    """Every write of a large document, again and again."""
    ids = [str(UUID(int=(1 << 101) + number, version=4)) for number in range(REPEATS)]
    creates = [create_request(_values(number), session_id=one) for number, one in enumerate(ids)]
    writes = {
        "POST": creates,
        "DELETE": [delete_request(one) for one in ids],
        "PUT": [put_request(session_id, _values(number)) for number in range(REPEATS)],
        "PATCH of 500 keys": [
            patch_request(session_id, _values(100 + number, _KEYS // _CHANGED)) for number in range(REPEATS)
        ],
    }
    for name, requests in writes.items():
        bench.quiet_hold(bench.one, f"{name}, 250 KiB, 500 keys", connection, requests)


def _held(bench: Bench, connection: Connection, patches: list[bytes], phase: str) -> list[float]:
    """The longest script of each round, in milliseconds."""
    longest: list[float] = []
    for _ in range(bench.options.rounds):
        for turn in range(_PATCHES):
            connection.good(patches[turn % len(patches)])
        longest.append(max((hold.micros for hold in bench.note_holds(phase) if hold.is_script), default=0) / 1000)
    return longest


def longest_hold(bench: Bench) -> None:
    """The longest script of all phases that ran."""
    holds = [hold for hold in bench.holds if hold.is_script]
    if not holds:
        return
    worst = max(holds, key=lambda hold: hold.micros)
    by_phase = sorted(hold.micros / 1000 for hold in holds)
    over = sum(hold.over for hold in holds)
    note = f"{worst.command}, {worst.phase}; {over:,} of {bench.script_calls():,} calls over the target"
    bench.add(Result.figure("hold/run", by_phase, by_phase[-1], note))
    if bench.quiet_holds:
        longest = max(bench.quiet_holds, key=lambda name: bench.quiet_holds[name])
        values = sorted(bench.quiet_holds.values())
        bench.add(Result.figure("hold/quiet", values, values[-1], f"{longest}; {len(values)} kinds of requests"))


def footprint(bench: Bench) -> None:
    """Start-up, idle memory and installed size."""
    starts, idle = [], []
    resident = 0.0
    for number in range(bench.options.rounds):
        started = time.perf_counter()
        with Service(bench.home / f"start-{number}", workers=2) as service:
            _first_answer(service)
            starts.append((time.perf_counter() - started) * 1000)
            time.sleep(0.5)
            used = [_memory(pid) for pid in service.workers()]
            idle.append(sum(own for own, _ in used) / len(used))
            resident = used[0][1]
    bench.add(Result.figure("startup", starts))
    bench.add(Result.figure("idle", idle, note=f"RSS {resident:.1f} MB, shared pages included"))
    bench.add(Result.figure("tree", [tree_bytes() / 1e6]))


def _first_answer(service: Service) -> None:
    connection = Connection(service.origin)
    connection.good(request("GET", "/health"))
    connection.close()


def _memory(pid: int) -> tuple[float, float]:
    """Memory of a process that is its own, and all that is mapped into it, in MB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    kilobytes = {
        name: int(value) for name, value in re.findall(r"^(\w+): +(\d+) kB", rollup, re.MULTILINE)
    }
    return (kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]) / 1000, kilobytes["Rss"] / 1000


def tree_bytes() -> int:
    """Bytes of the package and of all that it depends on at run time."""
    seen: set[str] = set()
    waiting: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    total = sum(path.stat().st_size for path in (ROOT / "service").rglob("*") if path.is_file() and path.suffix != ".pyc")
    while waiting:
        required = waiting.pop()
        name = re.match(r"[A-Za-z0-9._-]+", required)
        if name is None or name[0].lower() in seen or "extra ==" in required:
            continue
        seen.add(name[0].lower())
        try:
            found = distribution(name[0])
        except PackageNotFoundError:  # another platform's or version's
            continue
        places = [Path(str(file.locate())) for file in found.files or []]
        total += sum(place.stat().st_size for place in places if place.is_file() and place.suffix != ".pyc")
        waiting += found.requires or []
    return total
