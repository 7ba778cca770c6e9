"""What it costs a GET that the server keeps metrics."""

from functools import partial

import orjson

from scripts.benchmark.load.requests import create_request, get_request
from scripts.benchmark.rows.requests import settings_document
from scripts.benchmark.run import REQUESTS, Bench
from scripts.benchmark.servers.service import Service
from scripts.benchmark.statistics import Measurement


def metrics(bench: Bench) -> dict[str, Measurement]:
    """GET on two servers in turn, one of them with metrics, each with its own embedded Redis."""
    services = {
        name: bench.stack.enter_context(Service(bench.home / f"metrics-{name}", workers=1, settings={"SCC_ADMIN_PORT": port}))
        for name, port in (("with", "0"), ("without", "-1"))
    }
    files = {name: bench.write_requests(f"metrics-{name}", _requests(bench, service)) for name, service in services.items()}

    def micros(name: str) -> float:
        return 1e6 / bench.wrk(services[name].address, files[name]).rate

    figures = bench.alternate("GET with metrics", {name: partial(micros, name) for name in services})
    return {"metrics": Measurement.compared(figures["with"], figures["without"], "µs")}


def _requests(bench: Bench, service: Service) -> list[bytes]:
    """Requests for sessions that this creates."""
    connection = bench.connection(service.address)
    responses = [connection.send_ok(create_request(settings_document(number))) for number in range(REQUESTS)]
    return [get_request(orjson.loads(response.body)["data"]["id"]) for response in responses]
