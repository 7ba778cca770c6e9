"""Rows of partitions: what a list and a write cost on a cluster, and how the work spreads over its nodes."""

from functools import partial
from statistics import median
from uuid import UUID

from scripts.benchmark import filling, load
from scripts.benchmark.bench import CONNECTIONS, Bench, create_request, get_request, list_request, patch_request
from scripts.benchmark.cluster import ClusterService, LocalCluster, Node
from scripts.benchmark.dataset import COMMONEST, RARE, DataSet
from scripts.benchmark.statistics import Result

COUNTS = (1, 16, 64)
#: Sessions at most: three stores are filled.
SESSIONS = 100_000
#: Lists whose cost for the nodes is taken together, and sessions that are patched in turn.
LISTS, PATCHED = 300, 500
_FULL, _RARE = {"agent": COMMONEST}, {"agent": RARE}


def partitions(bench: Bench) -> None:
    """Lists, GET and PATCH with each number of partitions."""
    data = DataSet(min(SESSIONS, bench.options.sessions))
    rows = []
    with LocalCluster(bench.home / "cluster") as cluster:
        for count in COUNTS:
            cluster.clear()
            home = bench.home / f"partitions-{count}"
            with ClusterService(home, cluster.url, workers=2, partitions=count) as service:
                filling.fill_redis(cluster.url, data, f"loading {data.total:,} into {count} partitions", count)
                rows.append(_measured(bench, cluster, service.origin, data, count))
    bench.details["partitions"] = rows


def _measured(bench: Bench, cluster: LocalCluster, origin: load.Origin, data: DataSet, count: int) -> dict[str, object]:
    connection = bench.connection(origin)
    full, rare = list_request(_FULL), list_request(_RARE)
    for sent in (full, rare):
        connection.good(sent)
    calls = sum(node.calls("hmget") for node in cluster.nodes)
    before = _used(cluster.nodes)
    for _ in range(LISTS):
        connection.good(full)
    list_cpu = _spent(before, cluster.nodes, LISTS)
    read = (sum(node.calls("hmget") for node in cluster.nodes) - calls) / LISTS
    gets = bench.requests(f"partition-gets-{count}", [get_request(session_id) for session_id in data.ids(1000)])
    patches = bench.requests(f"partition-patches-{count}", _patches(connection))
    spent: list[list[float]] = []

    def patch() -> float:
        used = _used(cluster.nodes)
        rate = bench.wrk(origin, patches).rate
        spent.append(_spent(used, cluster.nodes, round(rate * max(1, round(bench.options.seconds)))))
        return rate

    measured = bench.rounds(
        f"{count} partitions",
        {
            "full": partial(connection.p50, full, seconds=10 * bench.options.list_seconds),
            "rare": partial(connection.p50, rare, seconds=10 * bench.options.list_seconds),
            "get": lambda: bench.wrk(origin, gets).rate,
            "patch": patch,
        },
    )
    note = f"{read:.0f} sessions read; Redis {sum(list_cpu):.2f} ms, {max(list_cpu):.2f} on the busiest node"
    bench.add(Result.figure(f"partitions/list/{count}", [micros / 1000 for micros in measured["full"]], note=note))
    patch_cpu = [median(node) for node in zip(*spent, strict=True)]
    note = f"Redis {sum(patch_cpu) * 1000:.0f} µs a PATCH, {max(patch_cpu) / sum(patch_cpu):.0%} of it on the busiest node"
    bench.add(Result.figure(f"partitions/patch/{count}", measured["patch"], note=note))
    return {
        "store": f"{count} partition{'' if count == 1 else 's'}",
        "full page, ms": median(measured["full"]) / 1000,
        "few matches, ms": median(measured["rare"]) / 1000,
        "sessions read a full page": read,
        "Redis, ms a full page": sum(list_cpu),
        "of it the busiest node": max(list_cpu),
        f"GET, {CONNECTIONS} connections, /s": median(measured["get"]),
        f"PATCH, {CONNECTIONS} connections, /s": median(measured["patch"]),
        "Redis, µs a PATCH": sum(patch_cpu) * 1000,
        "of it the busiest node, µs": max(patch_cpu) * 1000,
    }


def _used(nodes: list[Node]) -> list[float]:
    return [node.cpu() for node in nodes]


def _spent(before: list[float], nodes: list[Node], count: int) -> list[float]:
    """Milliseconds of each node's processor for each of `count` requests."""
    return [(after - earlier) * 1000 / count for earlier, after in zip(before, _used(nodes), strict=True)]


def _patches(connection: load.Connection) -> list[bytes]:
    """PATCHes of two keys of sessions with twenty, each of which changes something."""
    sent = []
    for number in range(PATCHED):
        session_id = str(UUID(int=(1 << 90) + number, version=4))
        connection.good(create_request({f"setting_{key:02}": f"value {number}" for key in range(20)}, session_id=session_id))
        sent += [patch_request(session_id, {"setting_03": turn, "setting_11": f"text {turn}"}) for turn in (0, 1)]
    return sent
