"""Rows of a page of 20 sessions against a GET: the latency on one connection, and requests a second on many."""

from scripts.benchmark.dataset import COMMONEST
from scripts.benchmark.load.requests import get_request, list_request
from scripts.benchmark.run import REQUESTS, Bench
from scripts.benchmark.statistics import Measurement

#: A third of all sessions match.
FULL_PAGE = list_request({"agent": COMMONEST})


def page(bench: Bench) -> dict[str, Measurement]:
    """Pages and GETs on one worker, in turn."""
    address = bench.one_worker.address
    pages = bench.write_requests("pages", [FULL_PAGE])
    gets = bench.write_requests("page-gets", [get_request(each) for each in bench.small_data.ids(REQUESTS)])
    p50 = bench.alternate(
        "pages, 1 connection",
        {"page": lambda: bench.wrk(address, pages, 1).p50, "get": lambda: bench.wrk(address, gets, 1).p50},
    )
    rates = bench.rates("pages, 64 connections", {"page": (address, pages), "get": (address, gets)})
    return {
        "page/latency": Measurement.compared(p50["page"], p50["get"], "µs"),
        "page/rate": Measurement.compared(rates["page"], rates["get"], "/s"),
    }
