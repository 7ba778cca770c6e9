"""Rows of `--against`: this checkout against another one of the same service, for instance the commit before a change."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import UUID

from scripts.benchmark.load.requests import create_request, get_request, patch_request
from scripts.benchmark.rows.requests import settings_changes, settings_document
from scripts.benchmark.run import REQUESTS, Bench
from scripts.benchmark.servers.service import Service
from scripts.benchmark.statistics import Measurement
from scripts.lib.program import ROOT, Failed


def against(bench: Bench) -> dict[str, Measurement]:
    """GET and PATCH on one worker, both checkouts in turn, each with a separate embedded Redis."""
    other_checkout = bench.options.other_checkout
    if other_checkout is None:
        raise Failed("no other checkout is given")
    ours, other = (_start(bench, name, checkout) for name, checkout in (("ours", ROOT), ("other", other_checkout)))
    ids = [_session_id(number) for number in range(REQUESTS)]
    gets = bench.write_requests("gets", [get_request(session_id) for session_id in ids])
    patches = bench.write_requests(
        "patches",
        # Each session comes twice in a cycle, with other values: every PATCH changes both keys and their terms.
        [patch_request(each, settings_changes(number + turn)) for turn in range(2) for number, each in enumerate(ids)],
    )
    rows: dict[str, tuple[str, Callable[[Service], float]]] = {
        "against/get": ("/s", lambda service: bench.wrk(service.address, gets).rate),
        "against/latency": ("µs", lambda service: bench.wrk(service.address, gets, 1).p50),
        "against/patch": ("/s", lambda service: bench.wrk(service.address, patches).rate),
    }
    measurements = {}
    for name, (unit, measure) in rows.items():
        figures = bench.alternate(name, {"ours": partial(measure, ours), "other": partial(measure, other)})
        measurements[name] = Measurement.compared(figures["ours"], figures["other"], unit)
    return measurements


def _start(bench: Bench, name: str, checkout: Path) -> Service:
    """Start the service of a checkout. Its sessions are created over HTTP: its store may differ from ours."""
    service = bench.stack.enter_context(Service(bench.home / name, workers=1, checkout=checkout))
    connection = bench.connection(service.address)
    for number in range(REQUESTS):
        connection.send_ok(create_request(settings_document(number), session_id=_session_id(number)))
    return service


def _session_id(number: int) -> str:
    return str(UUID(int=number + 1, version=4))
