"""Rows of single requests: GET, PATCH and POST beside bare aiohttp, redis-benchmark, webdis and Postgres; p99 under load."""

from functools import partial
from time import sleep
from urllib.parse import quote
from uuid import UUID

from scripts.benchmark.dataset import FILTERS
from scripts.benchmark.load import generators as load
from scripts.benchmark.run import (
    CONNECTIONS,
    REQUESTS,
    Bench,
    create_request,
    get_request,
    list_request,
    patch_request,
)
from scripts.benchmark.statistics import Result
from scripts.lib.program import Failed
from service.store.keys import Partition
from service.store.sessions import FIELDS

_BLOB = "bench:configs"


def _hmget(session_id: str) -> list[str]:
    return ["HMGET", Partition("default", 0).session(session_id), *FIELDS]


def get(bench: Bench) -> None:
    """GET beside bare aiohttp and redis-benchmark."""
    one, ids = bench.one, bench.few.ids(REQUESTS)
    requests = bench.requests("get", [get_request(session_id) for session_id in ids])
    bare = bench.bare("get", "GET", bench.connection(one.origin).good(get_request(ids[0])))
    count = bench.options.redis_requests
    measured = bench.rounds(
        "GET, 64 connections",
        {
            "ours": lambda: bench.wrk(one.origin, requests).rate,
            "bare": lambda: bench.wrk(bare.origin, requests).rate,
            "redis": lambda: load.redis_benchmark(one.redis.path, _hmget(ids[0]), connections=64, count=count).rate,
        },
    )
    bench.add(Result.compared("get/bare", measured["ours"], measured["bare"], "/s"))
    bench.add(Result.compared("get/redis", measured["ours"], measured["redis"], "/s"))


def latency(bench: Bench) -> None:
    """GET on one connection: what the service adds to HTTP and to Redis."""
    one, ids = bench.one, bench.few.ids(REQUESTS)
    requests = bench.requests("latency", [get_request(session_id) for session_id in ids])
    bare = bench.bare("latency", "GET", bench.connection(one.origin).good(get_request(ids[0])))
    count = bench.options.redis_requests // 5
    measured = bench.rounds(
        "GET, 1 connection",
        {
            "ours": lambda: bench.wrk(one.origin, requests, 1).p50,
            "bare": lambda: bench.wrk(bare.origin, requests, 1).p50,
            "redis": lambda: load.redis_benchmark(one.redis.path, _hmget(ids[0]), connections=1, count=count).p50,
        },
    )
    allowed = [plain + 2 * redis for plain, redis in zip(measured["bare"], measured["redis"], strict=True)]
    parts = {name: sorted(values)[len(values) // 2] for name, values in measured.items()}
    note = f"bare {parts['bare']:.0f} µs, redis-benchmark {parts['redis']:.0f} µs"
    bench.add(Result.compared("latency", measured["ours"], allowed, "µs", note))


def webdis(bench: Bench) -> None:
    """GET on two workers beside webdis with two threads."""
    two, ids = bench.two, bench.few.ids(REQUESTS)
    blob = two.redis.ask("HGET", Partition("default", 0).session(ids[0]), "configs")
    two.redis.ask("SET", _BLOB, blob)
    peer = bench.webdis(two)
    path = f"/GET/{quote(_BLOB)}.txt"
    _wait_for(bench, peer.origin, path, blob)
    ours = bench.requests("get-two", [get_request(session_id) for session_id in ids])
    theirs = bench.requests("webdis", [load.request("GET", path)])
    measured = bench.rounds(
        "GET, 2 workers, webdis",
        {"ours": lambda: bench.wrk(two.origin, ours).rate, "webdis": lambda: bench.wrk(peer.origin, theirs).rate},
    )
    bench.add(Result.compared("webdis", measured["ours"], measured["webdis"], "/s"))


def _wait_for(bench: Bench, origin: load.Origin, path: str, body: bytes) -> None:
    """Wait until webdis, which says nothing when it is ready, gives `body`."""
    for _ in range(100):
        try:
            if bench.connection(origin).ask(load.request("GET", path)).body == body:
                return
        except (OSError, Failed):
            pass
        sleep(0.05)
    raise Failed("webdis does not answer")


def settings_document(number: int) -> dict[str, object]:
    """20 keys, as settings are: texts, numbers, flags."""
    kinds: tuple[object, ...] = (f"value {number}", number, number / 10, number % 2 == 0)
    return {f"setting_{key:02}": kinds[key % len(kinds)] for key in range(20)}


def patch(bench: Bench) -> None:
    """PATCH beside bare aiohttp and both ways to do it in Postgres."""
    one, peer = bench.one, bench.few_peer
    ids = [str(UUID(int=number, version=4)) for number in range(1, REQUESTS // 2 + 1)]
    connections = [bench.connection(one.origin), bench.connection(peer.origin)]
    for number, session_id in enumerate(ids):
        for connection in connections:
            connection.good(create_request(settings_document(number), session_id=session_id))
    # Each session comes twice in a turn, with other values: every PATCH changes both keys and their terms. As with most
    # settings, many sessions share a value.
    changes = [
        (session_id, {"setting_04": f"changed {(number + turn) % 50}", "setting_13": (number + turn) % 50})
        for turn in range(2)
        for number, session_id in enumerate(ids)
    ]
    ours = bench.requests("patch", [patch_request(*change) for change in changes])
    atomic = bench.requests("patch-atomic", [patch_request(*change, "/atomic") for change in changes])
    bare = bench.bare("patch", "PATCH", connections[0].good(patch_request(*changes[0])))
    connections[1].good(patch_request(*changes[0]))
    connections[1].good(patch_request(*changes[0], "/atomic"))
    measured = bench.rounds(
        "PATCH",
        {
            "ours": lambda: bench.wrk(one.origin, ours).rate,
            "bare": lambda: bench.wrk(bare.origin, ours).rate,
            "postgres": lambda: bench.wrk(peer.origin, ours).rate,
            "postgres-atomic": lambda: bench.wrk(peer.origin, atomic).rate,
        },
    )
    for other in ("bare", "postgres", "postgres-atomic"):
        bench.add(Result.compared(f"patch/{other}", measured["ours"], measured[other], "/s"))


def post(bench: Bench) -> None:
    """POST beside bare aiohttp and Postgres."""
    one, peer = bench.one, bench.few_peer
    requests = [create_request(configs) for _, configs in bench.few.sessions(0, REQUESTS)]
    path = bench.requests("post", requests)
    bare = bench.bare("post", "POST", bench.connection(one.origin).good(requests[0]))
    bench.connection(peer.origin).good(requests[0])
    measured = bench.rounds(
        "POST",
        {
            "ours": lambda: bench.wrk(one.origin, path).rate,
            "bare": lambda: bench.wrk(bare.origin, path).rate,
            "postgres": lambda: bench.wrk(peer.origin, path).rate,
        },
    )
    for other in ("bare", "postgres"):
        bench.add(Result.compared(f"post/{other}", measured["ours"], measured[other], "/s"))


def not_modified(bench: Bench) -> None:
    """GET that finds nothing new, beside GET."""
    one, ids = bench.one, bench.few.ids(REQUESTS)
    connection = bench.connection(one.origin)
    tags = {session_id: connection.good(get_request(session_id)).headers["etag"] for session_id in ids}
    conditional = [get_request(session_id, **{"If-None-Match": tag}) for session_id, tag in tags.items()]
    if connection.ask(conditional[0]).status != 304:
        raise Failed("an ETag that is still true was not answered with 304")
    unchanged = bench.requests("304", conditional)
    whole = bench.requests("get-304", [get_request(session_id) for session_id in ids])
    measured = bench.rounds(
        "GET with If-None-Match",
        {"ours": lambda: bench.wrk(one.origin, unchanged).rate, "GET": lambda: bench.wrk(one.origin, whole).rate},
    )
    bench.add(Result.compared("304", measured["ours"], measured["GET"], "/s"))


def p99(bench: Bench) -> None:
    """p99 of GET while another client lists and patches, beside its p99 alone."""
    large, ids = bench.large, bench.all.ids(REQUESTS)
    requests = bench.requests("p99", [get_request(session_id) for session_id in ids])
    other = []
    for number, session_id in enumerate(ids):
        wanted = FILTERS[number % len(FILTERS)]
        other.append(list_request(wanted.configs, descending=number // len(FILTERS) % 2 == 1))
        # Keys that no filter asks for: the lists stay what they are.
        other.append(patch_request(session_id, {"note": f"step {number}", "step": number}))
    beside = bench.requests("p99-beside", other)

    def alone(connections: int) -> float:
        return bench.wrk(large.origin, requests, connections).p99

    def disturbed(connections: int) -> float:
        # Two connections: while a list is answered, a PATCH goes on.
        with load.beside(large.origin, beside, connections=2):
            return alone(connections)

    for name, connections in (("p99", CONNECTIONS), ("p99/few", 4)):
        sides = {"beside": partial(disturbed, connections), "alone": partial(alone, connections)}
        measured = bench.rounds(f"p99, {connections} connections", sides)
        bench.add(Result.compared(name, measured["beside"], measured["alone"], "µs"))
