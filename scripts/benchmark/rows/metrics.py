"""What it costs a GET that the server keeps metrics."""

from functools import partial
from statistics import fmean

import orjson

from scripts.benchmark.load.requests import create_request, get_request
from scripts.benchmark.rows.requests import settings_document
from scripts.benchmark.run import REQUESTS, Bench
from scripts.benchmark.servers.service import Service
from scripts.benchmark.statistics import Measurement

#: Of either kind: two servers that are started alike differ by several percent for as long as they run.
SERVERS = 3


def metrics(bench: Bench) -> dict[str, Measurement]:
    """GET on servers in turn, half of them with metrics, each with its own embedded Redis."""
    services = {
        name: [_service(bench, f"metrics-{name}-{number}", port) for number in range(SERVERS)]
        for name, port in (("with", "0"), ("without", "-1"))
    }
    files = {
        service: bench.write_requests(f"metrics-{name}-{number}", _requests(bench, service))
        for name, each in services.items()
        for number, service in enumerate(each)
    }

    def micros(name: str) -> float:
        return fmean(1e6 / bench.wrk(service.address, files[service]).rate for service in services[name])

    figures = bench.alternate("GET with metrics", {name: partial(micros, name) for name in services})
    return {"metrics": Measurement.compared(figures["with"], figures["without"], "µs")}


def _service(bench: Bench, name: str, admin_port: str) -> Service:
    return bench.stack.enter_context(Service(bench.home / name, workers=1, settings={"SCC_ADMIN_PORT": admin_port}))


def _requests(bench: Bench, service: Service) -> list[bytes]:
    """Requests for sessions that this creates."""
    connection = bench.connection(service.address)
    responses = [connection.send_ok(create_request(settings_document(number))) for number in range(REQUESTS)]
    return [get_request(orjson.loads(response.body)["data"]["id"]) for response in responses]
