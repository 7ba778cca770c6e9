"""Rows of copies of a large store: export, import and backup, during GETs at a steady rate, whose p99 shows what they cost."""

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from scripts.benchmark.load import generators
from scripts.benchmark.load.requests import get_request
from scripts.benchmark.run import CONNECTIONS, REQUESTS, Bench
from scripts.benchmark.servers.service import Service
from scripts.benchmark.statistics import Measurement
from scripts.lib.program import ROOT, Failed, environment

#: GETs a second, and for how many seconds at a time their p99 is measured.
_RATE, _WINDOW = 1000, 5.0
_PROJECT = "imported"


def backup(bench: Bench) -> dict[str, Measurement]:
    """Seconds of each command, and the median of the p99 of GET meanwhile against that before."""
    service, data = bench.large_store, bench.large_data
    requests = bench.write_requests("backup", [get_request(session_id) for session_id in data.ids(REQUESTS)])
    home = bench.home / "backup"
    home.mkdir()
    file, copy = home / "export.jsonl", home / "copy"
    _run(service, "project", "create", _PROJECT)
    commands = {
        "export": ("export", str(file)),
        "import": ("import", str(file), "--project", _PROJECT),
        "backup": ("backup", str(copy)),
    }
    measurements = {}
    for name, words in commands.items():
        bench.say(f"{name} of {data.total:,} sessions")
        alone = [_p99(service, requests) for _ in range(3)]
        with ThreadPoolExecutor(1) as pool:
            command = pool.submit(_run, service, *words)
            meanwhile = [_p99(service, requests)]
            while not command.done():
                meanwhile.append(_p99(service, requests))
            seconds = command.result()
        measurements[f"backup/{name}"] = Measurement.figure([seconds], note=f"{data.total / seconds:,.0f} sessions a second")
        ratio = median(meanwhile) / median(alone)
        note = f"{median(meanwhile):,.0f} µs, alone {median(alone):,.0f} µs; {len(meanwhile)} windows of {_WINDOW:.0f} s"
        measurements[f"backup/{name}-p99"] = Measurement.figure([each / median(alone) for each in meanwhile], ratio, note)
        bench.collect_slow_commands(name)
    shutil.rmtree(home)
    return measurements


def _p99(service: Service, requests: Path) -> float:
    """p99 of GET in microseconds over one window, from when each request was due."""
    return generators.open_loop(service.address, requests, rate=_RATE, connections=CONNECTIONS, seconds=_WINDOW).p99


def _run(service: Service, *words: str) -> float:
    """Run a command on the data directory of `service`, which must succeed; returns how many seconds it took."""
    command = [sys.executable, "-m", "service", *words, "--data-dir", str(service.data_dir)]
    started = time.perf_counter()
    result = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, check=False)
    if result.returncode != 0:
        raise Failed(result.stderr.decode(errors="replace"))
    return time.perf_counter() - started
