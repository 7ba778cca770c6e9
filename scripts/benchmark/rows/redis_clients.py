"""Rows of the Redis client: GET with ours, and with others in its place."""

from contextlib import ExitStack

from scripts.benchmark import filling
from scripts.benchmark.load.requests import get_request
from scripts.benchmark.run import REQUESTS, Bench
from scripts.benchmark.servers import other_client
from scripts.benchmark.servers.other_client import CLIENTS
from scripts.benchmark.servers.redis import RedisServer
from scripts.benchmark.servers.service import Service
from scripts.benchmark.statistics import Measurement
from scripts.lib.program import Failed

_PROGRAMS = {"ours": ("service",)} | {name: (other_client.__name__, name) for name in CLIENTS}


def redis_clients(bench: Bench) -> dict[str, Measurement]:
    """GET on one worker with each client; all services share one Redis, and each reaches it through its Unix socket."""
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(bench.home / "clients-redis")).probe
        filling.fill_redis(redis.url, bench.small_data, f"loading {bench.small_data.total:,} sessions for the clients")
        settings = {"SCC_REDIS_URL": redis.url, "SCC_KEY_SECRET": "benchmark"}
        services = {
            name: stack.enter_context(Service(bench.home / f"client-{name}", workers=1, settings=settings, program=program))
            for name, program in _PROGRAMS.items()
        }
        gets = [get_request(session_id) for session_id in bench.small_data.ids(REQUESTS)]
        if len({bench.connection(service.address).send_ok(gets[0]).body for service in services.values()}) != 1:
            raise Failed("a GET with another Redis client got another response")
        requests = bench.write_requests("client-gets", gets)
        rates = bench.rates("GET, Redis clients", {name: (service.address, requests) for name, service in services.items()})
    return {f"client/{name}": Measurement.compared(rates["ours"], rates[name], "/s") for name in CLIENTS}
