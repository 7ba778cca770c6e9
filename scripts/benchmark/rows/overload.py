"""Rows of overload: what is still served well when more is asked than can be done."""

from scripts.benchmark.dataset import COMMONEST
from scripts.benchmark.load import generators as load
from scripts.benchmark.run import CONNECTIONS, REQUESTS, Bench, get_request
from scripts.benchmark.servers.processes import KEY
from scripts.benchmark.statistics import Result

#: How much more is asked than can be done, and on how many connections.
TIMES, OPEN_CONNECTIONS, CLOSED_CONNECTIONS = 4, 1000, 1024


def overload(bench: Bench) -> None:
    """Lists that come at a multiple of the peak rate; GET on many connections that are never idle."""
    one, seconds = bench.one, bench.options.seconds
    path = load.list_path({"agent": COMMONEST}, limit=200)
    lists = bench.requests("overload-lists", [load.request("GET", path, key=KEY)])
    peak = 0.0
    latencies: list[float] = []

    def sustained() -> float:
        nonlocal peak
        peak = bench.wrk(one.origin, lists).rate
        return peak

    def overloaded() -> float:
        seen = load.open_loop(
            one.origin, lists, rate=TIMES * peak, connections=OPEN_CONNECTIONS, seconds=2 * seconds
        )
        latencies.append(seen.p99 / 1000)
        # What was in hand at the end is none of the next round's business.
        while bench.connection(one.origin).ask(load.request("GET", path, key=KEY)).status != 200:
            pass
        return seen.rate

    measured = bench.rounds("overload, lists", {"peak": sustained, "overload": overloaded})
    bench.add(Result.compared("overload/list", measured["overload"], measured["peak"], "/s"))
    bench.add(Result.figure("overload/p99", latencies[-len(measured["peak"]) :]))

    gets = bench.requests("overload-gets", [get_request(session_id) for session_id in bench.few.ids(REQUESTS)])

    def crowd(connections: int) -> float:
        # Long enough that to connect does not count.
        return load.wrk(one.origin, gets, connections=connections, seconds=max(seconds, 3.0), refusals=True).rate

    sides = {"overload": lambda: crowd(CLOSED_CONNECTIONS), "peak": lambda: crowd(CONNECTIONS)}
    measured = bench.rounds("overload, GET", sides)
    bench.add(Result.compared("overload/get", measured["overload"], measured["peak"], "/s"))
