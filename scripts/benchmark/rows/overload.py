"""Rows of overload: the goodput when clients ask for more than the service can do."""

from functools import partial

from scripts.benchmark.dataset import COMMONEST
from scripts.benchmark.load import generators
from scripts.benchmark.load.connection import Address
from scripts.benchmark.load.requests import get_request, list_request
from scripts.benchmark.run import CONNECTIONS, REQUESTS, Bench
from scripts.benchmark.statistics import Measurement, ratios

#: The open loop sends lists at this multiple of the peak rate, on so many connections; the closed loop sends GETs.
_TIMES_PEAK, _OPEN_CONNECTIONS, _CLOSED_CONNECTIONS = 4, 1000, 1024


def overload(bench: Bench) -> dict[str, Measurement]:
    """Lists at a multiple of the peak rate; GET on many connections that are never idle."""
    return _lists(bench) | _gets(bench)


def _lists(bench: Bench) -> dict[str, Measurement]:
    service = bench.one_worker
    request = list_request({"agent": COMMONEST}, limit=200)
    requests = bench.write_requests("overload-lists", [request])
    rate = 0.0
    latencies: list[float] = []

    def peak() -> float:
        nonlocal rate
        # On a slow host a few lists are refused here as well.
        rate = generators.wrk(
            service.address, requests, connections=CONNECTIONS, seconds=bench.options.seconds, allow_refused=True
        ).rate
        return rate

    def overloaded() -> float:
        result = generators.open_loop(
            service.address,
            requests,
            rate=_TIMES_PEAK * rate,
            connections=_OPEN_CONNECTIONS,
            seconds=2 * bench.options.seconds,
        )
        latencies.append(result.p99 / 1000)
        # Let the requests in flight finish before the next round.
        while bench.connection(service.address).send(request).status != 200:
            pass
        return result.rate

    rates = bench.alternate("overload, lists", {"peak": peak, "overload": overloaded})
    return {
        "overload/list": Measurement.compared(rates["overload"], rates["peak"], "/s"),
        "overload/p99": Measurement.figure(latencies[-len(rates["peak"]) :]),
    }


def _gets(bench: Bench) -> dict[str, Measurement]:
    ours = bench.one_worker.address
    gets = [get_request(each) for each in bench.small_data.ids(REQUESTS)]
    bare = bench.bare_aiohttp("overload", "GET", bench.connection(ours).send_ok(gets[0])).address
    requests = bench.write_requests("overload-gets", gets)

    def goodput(address: Address, connections: int) -> float:
        seconds = max(bench.options.seconds, 3.0)  # so that the time to connect does not matter
        return generators.wrk(address, requests, connections=connections, seconds=seconds, allow_refused=True).rate

    sides = {
        "overload": partial(goodput, ours, _CLOSED_CONNECTIONS),
        "peak": partial(goodput, ours, CONNECTIONS),
        "bare, overload": partial(goodput, bare, _CLOSED_CONNECTIONS),
        "bare, peak": partial(goodput, bare, CONNECTIONS),
    }
    rates = bench.alternate("overload, GET", sides)
    kept = ratios(rates["overload"], rates["peak"])
    kept_by_bare = ratios(rates["bare, overload"], rates["bare, peak"])
    return {
        "overload/get": Measurement.compared(rates["overload"], rates["peak"], "/s"),
        "overload/bare": Measurement.compared(kept, kept_by_bare, "×"),
    }
