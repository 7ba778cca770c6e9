"""Rows of partitions: what a list and a write cost on a cluster, and how the work spreads over its nodes."""

from collections.abc import Mapping
from contextlib import ExitStack
from statistics import median
from uuid import UUID

from scripts.benchmark import filling
from scripts.benchmark.dataset import COMMONEST, RARE, DataSet
from scripts.benchmark.load.connection import Connection
from scripts.benchmark.load.requests import create_request, get_request, list_request, patch_request
from scripts.benchmark.run import CONNECTIONS, REQUESTS, Bench
from scripts.benchmark.servers.redis import RedisCluster, RedisProbe
from scripts.benchmark.servers.service import Service
from scripts.benchmark.statistics import Measurement

COUNTS = (1, 16, 64)
#: Sessions at most: three stores are filled.
_SESSIONS = 100_000
_PATCHED_SESSIONS = 500
_LISTS = 20  # to count the sessions that a list reads
_FULL_PAGE, _FEW_MATCHES = list_request({"agent": COMMONEST}), list_request({"agent": RARE})
_KINDS = ("page", "few", "get", "patch")


class PartitionedService:
    """The service on a separate cluster with `count` partitions; it records the cost of each measurement on the nodes."""

    def __init__(self, bench: Bench, stack: ExitStack, data: DataSet, count: int) -> None:
        self.bench, self.count = bench, count
        cluster = stack.enter_context(RedisCluster(bench.home / f"cluster-{count}"))
        settings = {"SCC_REDIS_URL": cluster.url, "SCC_PARTITIONS": str(count), "SCC_KEY_SECRET": "benchmark"}
        service = stack.enter_context(Service(bench.home / f"partitions-{count}", workers=2, settings=settings))
        self.nodes = cluster.nodes
        filling.fill_redis(cluster.url, data, f"loading {data.total:,} sessions into {count} partitions", count)
        self.address = service.address
        self.connection = bench.connection(self.address)
        self.gets = bench.write_requests(f"partition-gets-{count}", [get_request(each) for each in data.ids(REQUESTS)])
        self.patches = bench.write_requests(f"partition-patches-{count}", _create_and_patch(self.connection))
        #: Milliseconds of each node's processor for a full page and for a PATCH, a list of nodes a round.
        self.page_cpu: list[list[float]] = []
        self.patch_cpu: list[list[float]] = []

    def page(self) -> float:
        """Median latency of a full first page in microseconds."""
        cpu, calls = _cpu_seconds(self.nodes), self._calls("evalsha")
        latency = self.connection.median_latency(_FULL_PAGE, seconds=10 * self.bench.options.list_seconds)
        # A page calls a script once for every partition, sometimes once more.
        self.page_cpu.append(_cpu_since(cpu, self.nodes, (self._calls("evalsha") - calls) // self.count))
        return latency

    def few(self) -> float:
        """Median latency of a list with few matches in microseconds."""
        return self.connection.median_latency(_FEW_MATCHES, seconds=10 * self.bench.options.list_seconds)

    def get(self) -> float:
        """GETs a second."""
        return self.bench.wrk(self.address, self.gets).rate

    def patch(self) -> float:
        """PATCHes a second."""
        cpu, calls = _cpu_seconds(self.nodes), self._calls("evalsha")
        rate = self.bench.wrk(self.address, self.patches).rate
        self.patch_cpu.append(_cpu_since(cpu, self.nodes, self._calls("evalsha") - calls))
        return rate

    def sessions_read(self) -> float:
        """How many sessions are read for a full first page."""
        self.connection.send_ok(_FULL_PAGE)
        calls = self._calls("hmget")
        for _ in range(_LISTS):
            self.connection.send_ok(_FULL_PAGE)
        return (self._calls("hmget") - calls) / _LISTS

    def _calls(self, command: str) -> int:
        return sum(node.command_stat(command) for node in self.nodes)


def partitions(bench: Bench) -> dict[str, Measurement]:
    """Lists, GET and PATCH with each number of partitions, in turn."""
    data = DataSet(min(_SESSIONS, bench.options.sessions))
    with ExitStack() as stack:
        services = [PartitionedService(bench, stack, data, count) for count in COUNTS]
        read = {service.count: service.sessions_read() for service in services}
        sides = {f"{kind} {service.count}": getattr(service, kind) for kind in _KINDS for service in services}
        figures = bench.alternate("partitions", sides)
    measurements: dict[str, Measurement] = {}
    details = []
    for service in services:
        by_kind = {kind: figures[f"{kind} {service.count}"] for kind in _KINDS}
        measurements |= _measurements(service, by_kind, read[service.count])
        details.append(_detail(service, by_kind, read[service.count]))
    bench.details["partitions"] = details
    return measurements


def _measurements(service: PartitionedService, figures: Mapping[str, list[float]], read: float) -> dict[str, Measurement]:
    page, patch = _median_by_node(service.page_cpu), _median_by_node(service.patch_cpu)
    page_note = f"{read:.0f} sessions read; Redis {sum(page):.2f} ms, {max(page):.2f} on the busiest node"
    patch_note = f"Redis {sum(patch) * 1000:.0f} µs a PATCH, {max(patch) / sum(patch):.0%} of it on the busiest node"
    pages = [micros / 1000 for micros in figures["page"]]
    return {
        f"partitions/list/{service.count}": Measurement.figure(pages, note=page_note),
        f"partitions/patch/{service.count}": Measurement.figure(figures["patch"], note=patch_note),
    }


def _detail(service: PartitionedService, figures: Mapping[str, list[float]], read: float) -> dict[str, str | float]:
    page, patch = _median_by_node(service.page_cpu), _median_by_node(service.patch_cpu)
    return {
        "store": f"{service.count} partition{'' if service.count == 1 else 's'}",
        "full page, ms": median(figures["page"]) / 1000,
        "few matches, ms": median(figures["few"]) / 1000,
        "sessions read a full page": read,
        "Redis, ms a full page": sum(page),
        "of it the busiest node": max(page),
        f"GET, {CONNECTIONS} connections, /s": median(figures["get"]),
        f"PATCH, {CONNECTIONS} connections, /s": median(figures["patch"]),
        "Redis, µs a PATCH": sum(patch) * 1000,
        "of it the busiest node, µs": max(patch) * 1000,
    }


def _median_by_node(rounds: list[list[float]]) -> list[float]:
    return [median(node) for node in zip(*rounds, strict=True)]


def _cpu_seconds(nodes: list[RedisProbe]) -> list[float]:
    return [node.cpu_seconds() for node in nodes]


def _cpu_since(before: list[float], nodes: list[RedisProbe], requests: int) -> list[float]:
    """Milliseconds of each node's processor since `before` for each of so many requests."""
    return [(now - earlier) * 1000 / requests for earlier, now in zip(before, _cpu_seconds(nodes), strict=True)]


def _create_and_patch(connection: Connection) -> list[bytes]:
    """Create sessions of twenty keys; returns PATCHes of two keys, each of which changes something."""
    patches = []
    for number in range(_PATCHED_SESSIONS):
        session_id = str(UUID(int=(1 << 90) + number, version=4))
        configs = {f"setting_{key:02}": f"value {number}" for key in range(20)}
        connection.send_ok(create_request(configs, session_id=session_id))
        patches += [patch_request(session_id, {"setting_03": turn, "setting_11": f"text {turn}"}) for turn in (0, 1)]
    return patches
