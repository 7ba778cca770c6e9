"""Rows of single requests: GET, PATCH and POST against bare aiohttp, redis-benchmark, webdis and Postgres; p99 under load."""

from collections.abc import Iterable
from functools import partial
from statistics import median
from urllib.parse import quote
from uuid import UUID

from scripts.benchmark.dataset import FILTERS
from scripts.benchmark.load import generators
from scripts.benchmark.load.connection import Connection
from scripts.benchmark.load.requests import create_request, get_request, list_request, patch_request, request
from scripts.benchmark.run import CONNECTIONS, REQUESTS, Bench
from scripts.benchmark.statistics import Measurement
from scripts.lib.program import Failed
from service.store.keys import Partition
from service.store.record import FIELDS

_BLOB = "bench:configs"


def _hmget(session_id: str) -> list[str]:
    return ["HMGET", Partition("default", 0).session(session_id), *FIELDS]


def get(bench: Bench) -> dict[str, Measurement]:
    """GET against bare aiohttp and redis-benchmark."""
    service, ids = bench.one_worker, bench.small_data.ids(REQUESTS)
    requests = bench.write_requests("get", [get_request(session_id) for session_id in ids])
    bare = bench.bare_aiohttp("get", "GET", bench.connection(service.address).send_ok(get_request(ids[0])))
    redis, count = service.redis.socket, bench.options.redis_requests
    rates = bench.alternate(
        "GET, 64 connections",
        {
            "ours": lambda: bench.wrk(service.address, requests).rate,
            "bare": lambda: bench.wrk(bare.address, requests).rate,
            "redis": lambda: generators.redis_benchmark(redis, _hmget(ids[0]), connections=64, count=count).rate,
        },
    )
    return {f"get/{other}": Measurement.compared(rates["ours"], rates[other], "/s") for other in ("bare", "redis")}


def latency(bench: Bench) -> dict[str, Measurement]:
    """GET on one connection: what the service adds to HTTP and to Redis."""
    service, ids = bench.one_worker, bench.small_data.ids(REQUESTS)
    requests = bench.write_requests("latency", [get_request(session_id) for session_id in ids])
    bare = bench.bare_aiohttp("latency", "GET", bench.connection(service.address).send_ok(get_request(ids[0])))
    redis, count = service.redis.socket, bench.options.redis_requests // 5
    latencies = bench.alternate(
        "GET, 1 connection",
        {
            "ours": lambda: bench.wrk(service.address, requests, 1).p50,
            "bare": lambda: bench.wrk(bare.address, requests, 1).p50,
            "redis": lambda: generators.redis_benchmark(redis, _hmget(ids[0]), connections=1, count=count).p50,
        },
    )
    parts = [plain + 2 * redis for plain, redis in zip(latencies["bare"], latencies["redis"], strict=True)]
    note = f"bare {median(latencies['bare']):.0f} µs, redis-benchmark {median(latencies['redis']):.0f} µs"
    return {"latency": Measurement.compared(latencies["ours"], parts, "µs", note)}


def webdis(bench: Bench) -> dict[str, Measurement]:
    """GET on two workers against webdis with two threads."""
    service, ids = bench.two_workers, bench.small_data.ids(REQUESTS)
    blob = service.redis.execute("HGET", Partition("default", 0).session(ids[0]), "configs")
    service.redis.execute("SET", _BLOB, blob)
    other, path = bench.webdis(service), f"/GET/{quote(_BLOB)}.txt"
    other.wait_for(path, blob)
    ours = bench.write_requests("get-two", [get_request(session_id) for session_id in ids])
    theirs = bench.write_requests("webdis", [request("GET", path, api_key="")])
    rates = bench.rates("GET, 2 workers, webdis", {"ours": (service.address, ours), "webdis": (other.address, theirs)})
    return {"webdis": Measurement.compared(rates["ours"], rates["webdis"], "/s")}


def settings_document(number: int) -> dict[str, object]:
    """20 keys like settings: strings, numbers, booleans."""
    kinds: tuple[object, ...] = (f"value {number}", number, number / 10, number % 2 == 0)
    return {f"setting_{key:02}": kinds[key % len(kinds)] for key in range(20)}


def settings_changes(number: int) -> dict[str, object]:
    """A PATCH of two keys of a settings document; as with most settings, many sessions share a value."""
    return {"setting_04": f"changed {number % 50}", "setting_13": number % 50}


def create_settings(connections: Iterable[Connection], count: int) -> list[tuple[str, dict[str, object]]]:
    """Create `count` settings documents on each server; returns sessions with changes to PATCH them with."""
    ids = [str(UUID(int=number, version=4)) for number in range(1, count + 1)]
    for connection in connections:
        for number, session_id in enumerate(ids):
            connection.send_ok(create_request(settings_document(number), session_id=session_id))
    # Each session comes twice in a cycle, with other values: every PATCH changes both keys and their terms.
    return [(session_id, settings_changes(number + turn)) for turn in range(2) for number, session_id in enumerate(ids)]


def patch(bench: Bench) -> dict[str, Measurement]:
    """PATCH against bare aiohttp, and against both implementations in Postgres."""
    service, postgres = bench.one_worker, bench.small_postgres_api
    ours, theirs = (bench.connection(server.address) for server in (service, postgres))
    changes = create_settings((ours, theirs), REQUESTS // 2)
    requests = bench.write_requests("patch", [patch_request(*change) for change in changes])
    atomic = bench.write_requests("patch-atomic", [patch_request(*change, "/atomic") for change in changes])
    bare = bench.bare_aiohttp("patch", "PATCH", ours.send_ok(patch_request(*changes[0])))
    theirs.send_ok(patch_request(*changes[0]))
    theirs.send_ok(patch_request(*changes[0], "/atomic"))
    others = {
        "bare": (bare.address, requests),
        "postgres": (postgres.address, requests),
        "postgres-atomic": (postgres.address, atomic),
    }
    rates = bench.rates("PATCH", {"ours": (service.address, requests)} | others)
    return {f"patch/{other}": Measurement.compared(rates["ours"], rates[other], "/s") for other in others}


def post(bench: Bench) -> dict[str, Measurement]:
    """POST against bare aiohttp and Postgres."""
    service, postgres = bench.one_worker, bench.small_postgres_api
    creates = [create_request(configs) for _, configs in bench.small_data.sessions(0, REQUESTS)]
    requests = bench.write_requests("post", creates)
    bare = bench.bare_aiohttp("post", "POST", bench.connection(service.address).send_ok(creates[0]))
    bench.connection(postgres.address).send_ok(creates[0])
    others = {"bare": (bare.address, requests), "postgres": (postgres.address, requests)}
    rates = bench.rates("POST", {"ours": (service.address, requests)} | others)
    return {f"post/{other}": Measurement.compared(rates["ours"], rates[other], "/s") for other in others}


def not_modified(bench: Bench) -> dict[str, Measurement]:
    """GET with the current ETag in If-None-Match against plain GET."""
    service, ids = bench.one_worker, bench.small_data.ids(REQUESTS)
    connection = bench.connection(service.address)
    etags = {session_id: connection.send_ok(get_request(session_id)).headers["etag"] for session_id in ids}
    conditional = [get_request(session_id, {"If-None-Match": etag}) for session_id, etag in etags.items()]
    if (status := connection.send(conditional[0]).status) != 304:
        raise Failed(f"a GET with the current ETag got status {status}, not 304")
    unchanged = bench.write_requests("304", conditional)
    plain = bench.write_requests("get-304", [get_request(session_id) for session_id in ids])
    rates = bench.rates("GET with If-None-Match", {"ours": (service.address, unchanged), "GET": (service.address, plain)})
    return {"304": Measurement.compared(rates["ours"], rates["GET"], "/s")}


def p99(bench: Bench) -> dict[str, Measurement]:
    """p99 of GET while another client lists and patches, against its p99 alone."""
    service, ids = bench.large_store, bench.large_data.ids(REQUESTS)
    requests = bench.write_requests("p99", [get_request(session_id) for session_id in ids])
    background = []
    for number, session_id in enumerate(ids):
        one = FILTERS[number % len(FILTERS)]
        background.append(list_request(one.configs, descending=number // len(FILTERS) % 2 == 1))
        # No filter has these keys: the lists stay as they are.
        background.append(patch_request(session_id, {"note": f"step {number}", "step": number}))
    background_file = bench.write_requests("p99-background", background)

    def alone(connections: int) -> float:
        return bench.wrk(service.address, requests, connections).p99

    def disturbed(connections: int) -> float:
        # Two connections, so that there are PATCHes during a list.
        with generators.background_wrk(service.address, background_file, connections=2):
            return alone(connections)

    measurements = {}
    for name, connections in (("p99", CONNECTIONS), ("p99/few", 4)):
        sides = {"disturbed": partial(disturbed, connections), "alone": partial(alone, connections)}
        latencies = bench.alternate(f"p99, {connections} connections", sides)
        measurements[name] = Measurement.compared(latencies["disturbed"], latencies["alone"], "µs")
    return measurements
