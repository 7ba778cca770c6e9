"""Rows of partitions: what a list and a write cost on a cluster, and how the work spreads over its nodes."""

from contextlib import ExitStack
from statistics import median
from uuid import UUID

from scripts.benchmark import filling
from scripts.benchmark.dataset import COMMONEST, RARE, DataSet
from scripts.benchmark.load import generators as load
from scripts.benchmark.run import CONNECTIONS, Bench, create_request, get_request, list_request, patch_request
from scripts.benchmark.servers.cluster import ClusterService, LocalCluster, Node
from scripts.benchmark.statistics import Result

COUNTS = (1, 16, 64)
#: Sessions at most: three stores are filled.
SESSIONS = 100_000
#: Sessions that are patched in turn.
PATCHED = 500
_LISTS = 20
_FULL, _RARE = list_request({"agent": COMMONEST}), list_request({"agent": RARE})


class Side:
    """The service on a cluster of its own, with one number of partitions, and what was seen of it, a figure a round."""

    def __init__(self, bench: Bench, stack: ExitStack, data: DataSet, count: int) -> None:
        self.bench, self.count = bench, count
        cluster = stack.enter_context(LocalCluster(bench.home / f"cluster-{count}"))
        service = stack.enter_context(
            ClusterService(bench.home / f"partitions-{count}", cluster.url, workers=2, partitions=count)
        )
        self.nodes = cluster.nodes
        filling.fill_redis(cluster.url, data, f"loading {data.total:,} into {count} partitions", count)
        self.origin = service.origin
        self.connection = bench.connection(self.origin)
        self.gets = bench.requests(f"partition-gets-{count}", [get_request(session_id) for session_id in data.ids(1000)])
        self.patches = bench.requests(f"partition-patches-{count}", _patches(self.connection))
        #: Milliseconds of each node's processor that a full page and a PATCH took.
        self.page_cpu: list[list[float]] = []
        self.patch_cpu: list[list[float]] = []

    def page(self) -> float:
        """Median latency of a full first page in microseconds."""
        used, scripts = _used(self.nodes), self.scripts()
        latency = self.connection.p50(_FULL, seconds=10 * self.bench.options.list_seconds)
        self.page_cpu.append(_spent(used, self.nodes, (self.scripts() - scripts) // self.count))
        return latency

    def scripts(self) -> int:
        """How many scripts have run: one a PATCH, and one for every partition a full page, or a few more."""
        return sum(node.calls("evalsha") for node in self.nodes)

    def few(self) -> float:
        """Median latency of a list with few matches in microseconds."""
        return self.connection.p50(_RARE, seconds=10 * self.bench.options.list_seconds)

    def get(self) -> float:
        """GETs a second."""
        return self.bench.wrk(self.origin, self.gets).rate

    def patch(self) -> float:
        """PATCHes a second."""
        used, scripts = _used(self.nodes), self.scripts()
        rate = self.bench.wrk(self.origin, self.patches).rate
        self.patch_cpu.append(_spent(used, self.nodes, self.scripts() - scripts))
        return rate

    def read_a_page(self) -> float:
        """Sessions that are read for a full first page."""
        self.connection.good(_FULL)
        calls = sum(node.calls("hmget") for node in self.nodes)
        for _ in range(_LISTS):
            self.connection.good(_FULL)
        return (sum(node.calls("hmget") for node in self.nodes) - calls) / _LISTS


def partitions(bench: Bench) -> None:
    """Lists, GET and PATCH with each number of partitions, in turn."""
    data = DataSet(min(SESSIONS, bench.options.sessions))
    with ExitStack() as stack:
        sides = [Side(bench, stack, data, count) for count in COUNTS]
        read = {side.count: side.read_a_page() for side in sides}
        measured = bench.rounds(
            "partitions",
            {
                f"{what} {side.count}": getattr(side, what)
                for what in ("page", "few", "get", "patch")
                for side in sides
            },
        )
    rows = []
    for side in sides:
        page, patch = _by_node(side.page_cpu), _by_node(side.patch_cpu)
        seen = {what: measured[f"{what} {side.count}"] for what in ("page", "few", "get", "patch")}
        note = f"{read[side.count]:.0f} sessions read; Redis {sum(page):.2f} ms, {max(page):.2f} on the busiest node"
        bench.add(Result.figure(f"partitions/list/{side.count}", [micros / 1000 for micros in seen["page"]], note=note))
        note = f"Redis {sum(patch) * 1000:.0f} µs a PATCH, {max(patch) / sum(patch):.0%} of it on the busiest node"
        bench.add(Result.figure(f"partitions/patch/{side.count}", seen["patch"], note=note))
        rows.append(
            {
                "store": f"{side.count} partition{'' if side.count == 1 else 's'}",
                "full page, ms": median(seen["page"]) / 1000,
                "few matches, ms": median(seen["few"]) / 1000,
                "sessions read a full page": read[side.count],
                "Redis, ms a full page": sum(page),
                "of it the busiest node": max(page),
                f"GET, {CONNECTIONS} connections, /s": median(seen["get"]),
                f"PATCH, {CONNECTIONS} connections, /s": median(seen["patch"]),
                "Redis, µs a PATCH": sum(patch) * 1000,
                "of it the busiest node, µs": max(patch) * 1000,
            }
        )
    bench.details["partitions"] = rows


def _by_node(rounds: list[list[float]]) -> list[float]:
    return [median(node) for node in zip(*rounds, strict=True)]


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
