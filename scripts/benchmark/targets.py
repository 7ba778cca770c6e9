"""The registry: every row with its target and the function that measures it, in the order in which they run and are printed.

A target is a ratio, or a figure, of one run on one host. To add a row, add it here and let its group's function return a
measurement under its name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scripts.benchmark.rows import (
    backup,
    checkouts,
    costs,
    embedded,
    lists,
    metrics,
    overload,
    owner,
    pages,
    partitions,
    redis_clients,
    requests,
)
from scripts.benchmark.run import REPEATS, Bench
from scripts.benchmark.servers.other_client import CLIENTS
from scripts.benchmark.statistics import LONGEST_SCRIPT, Measurement, Result, Row

_KIB = 1024


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that are measured together; `programs` are those needed in addition to wrk and redis-server."""

    name: str
    measure: Callable[[Bench], Mapping[str, Measurement]]
    rows: tuple[Row, ...]
    programs: tuple[str, ...] = ()

    def results(self, bench: Bench) -> list[Result]:
        """Measure the rows.

        Raises:
            KeyError: a measurement belongs to no row.
        """
        rows = {row.name: row for row in self.rows}
        return [Result(rows[name], measurement) for name, measurement in self.measure(bench).items()]


_GET = "GET configs, 64 connections, 1 worker, key checked"
_PATCH = "PATCH of 2 keys in a 20-key document, 64 connections, 1 worker"
_POST = "POST with a 9-key nested document (12 terms), 64 connections, 1 worker"
_P99 = "p99 of GET while another client lists and patches at full speed, 2 workers"
_FIRST_PAGES = "filtered listing, first pages of the 12 filters, the slower order of each"
_PAGE = "page of 20, a filter that a third of the sessions match"


def _client_rows() -> tuple[Row, ...]:
    # One that comes within 10 % could replace ours, if it also tells whether a command was sent (scripts/README.md).
    what = "GET, 64 connections, 1 worker, our Redis client"
    return tuple(Row(f"client/{name}", what, f"{name} in its place", at_least=1.1) for name in CLIENTS)


def _embedded_rows() -> tuple[Row, ...]:
    kinds = {kind: f"{title}, 64 connections, 1 worker" for kind, title in embedded.KINDS.items()}
    kinds["memory"] = "memory of a session"
    return tuple(
        Row(f"embedded/{kind}/{other}", f"{what}, bundled Valkey", against)
        for other, against in embedded.OTHERS.items()
        for kind, what in kinds.items()
    )


def _partition_rows() -> tuple[Row, ...]:
    kinds = (("list", "full first page, p50", "ms"), ("patch", "PATCH of 2 keys, 2 workers", "/s"))
    at_most = {("list", 64): 2.0}
    return tuple(
        Row(
            f"partitions/{kind}/{count}",
            f"{what}, cluster of three masters, {count} partition{'' if count == 1 else 's'}",
            unit=unit,
            at_most=at_most.get((kind, count)),
        )
        for count in partitions.COUNTS
        for kind, what, unit in kinds
    )


def _backup_rows() -> tuple[Row, ...]:
    seconds = {"export": 90.0, "import": 180.0, "backup": 30.0}
    return tuple(
        row
        for name, at_most in seconds.items()
        for row in (
            Row(f"backup/{name}", f"{name} of all sessions, beside 1,000 GETs a second", unit="s", at_most=at_most),
            Row(f"backup/{name}-p99", f"p99 of these GETs during the {name}", "alone", at_most=2.0),
        )
    )


#: What `--only` selects from.
GROUPS = (
    Group(
        "get",
        requests.get,
        (
            Row("get/bare", _GET, "bare aiohttp", at_least=0.85),
            Row("get/redis", _GET, "redis-benchmark, the same HMGET"),
        ),
        programs=("redis-benchmark",),
    ),
    Group(
        "latency",
        requests.latency,
        (Row("latency", "GET, 1 connection, p50", "bare aiohttp's p50 + 2 × redis-benchmark's", at_most=1.0),),
        programs=("redis-benchmark",),
    ),
    Group(
        "webdis",
        requests.webdis,
        (Row("webdis", "GET, 2 workers, 64 connections", "webdis, 2 threads, the same blob", at_least=0.5),),
        programs=("webdis",),
    ),
    Group(
        "patch",
        requests.patch,
        (
            Row("patch/bare", _PATCH, "bare aiohttp", at_least=0.60),
            Row("patch/postgres", _PATCH, "Postgres, read-merge-write", at_least=3.0),
            Row("patch/postgres-atomic", _PATCH, "Postgres, atomic UPDATE", at_least=3.0),
        ),
        programs=("postgres",),
    ),
    Group(
        "owner",
        owner.owner,
        (Row("owner", f"{_PATCH}, in µs", "the same without the ownership check in its script", at_most=1.03),),
    ),
    Group(
        "metrics",
        metrics.metrics,
        (Row("metrics", f"{_GET}, in µs, with metrics", "without metrics", at_most=1.03),),
    ),
    Group(
        "post",
        requests.post,
        (
            Row("post/bare", _POST, "bare aiohttp", at_least=0.40),
            Row("post/postgres", _POST, "Postgres", at_least=2.0),
        ),
        programs=("postgres",),
    ),
    Group(
        "304",
        requests.not_modified,
        (Row("304", "GET with If-None-Match, 304, 64 connections, 1 worker", "GET", at_least=1.05),),
    ),
    Group(
        "page",
        pages.page,
        (
            Row("page/latency", f"{_PAGE}, 1 connection, p50", "GET's p50", at_most=2.0),
            Row("page/rate", f"{_PAGE}, 64 connections, 1 worker, pages a second", "GETs a second", at_least=0.22),
        ),
    ),
    Group("clients", redis_clients.redis_clients, _client_rows()),
    Group("embedded", embedded.embedded, _embedded_rows()),
    Group(
        "overload",
        overload.overload,
        (
            Row(
                "overload/list",
                "goodput of lists of 200, open loop at 4 × the peak rate, 1,000 connections, 1 worker",
                "the peak rate, 64 connections",
                at_least=0.8,
            ),
            Row("overload/p99", "p99 of the lists that were accepted", unit="ms"),
            Row(
                "overload/get",
                "goodput of GET, closed loop without back-off on 1,024 connections, 1 worker",
                "64 connections",
                at_least=0.8,
            ),
            Row(
                "overload/bare",
                "what is left of the goodput of GET on 1,024 connections, of that on 64, 1 worker",
                "what is left of bare aiohttp's",
                at_least=0.9,
            ),
        ),
    ),
    Group(
        "footprint",
        costs.footprint,
        (
            Row("startup", "start-up to the first answer, embedded Redis, 2 workers", unit="ms"),
            Row("idle", "idle memory of a worker (USS)", unit="MB"),
            Row("tree", "installed tree, dependencies included", unit="MB"),
        ),
    ),
    Group(
        "hold",
        costs.hold,
        (
            Row(
                "hold/patch",
                "longest script in a PATCH of 500 keys of a 250 KiB document",
                unit="ms",
                at_most=LONGEST_SCRIPT,
            ),
            Row("hold/same", "the same PATCH again, which changes no value", unit="ms"),
        ),
    ),
    Group(
        "listing",
        lists.listing,
        (
            Row("listing/each", "filtered listing, slowest of all rows", "Postgres", at_least=1.0),
            Row("listing/median", "filtered listing, median of all rows", "Postgres", at_least=10.0),
            Row("listing/first", f"{_FIRST_PAGES}, slowest", "Postgres", at_least=1.2),
            Row("listing/first-median", f"{_FIRST_PAGES}, median", "Postgres", at_least=8.0),
            Row("listing/three-tags", "three common tags that hardly ever meet, first page, p50", unit="ms", at_most=2.5),
            Row(
                "listing/ordered",
                "filtered listing, median of first pages",
                "Postgres with an index that Acontext lacks, (project_id, created_at, id)",
            ),
        ),
        programs=("postgres",),
    ),
    Group(
        "growth",
        lists.growth,
        (Row("growth", "p50 of a full first page, from 1 k sessions to all, worst filter", "1 k sessions", at_most=2.0),),
    ),
    Group(
        "memory",
        lists.memory,
        (
            Row("memory/embedded", "Redis memory per session, embedded settings", unit="B", at_most=1.0 * _KIB),
            Row("memory/default", "Redis memory per session, default settings", unit="B", at_most=1.6 * _KIB),
        ),
    ),
    Group(
        "p99",
        requests.p99,
        (
            Row("p99", f"{_P99}, 64 connections", "its p99 alone", at_most=3.0),
            Row("p99/few", f"{_P99}, 4 connections", "its p99 alone"),
        ),
    ),
    Group("backup", backup.backup, _backup_rows()),
    Group("partitions", partitions.partitions, _partition_rows()),
)

#: Measured at the end of every run.
WHOLE_RUN = Group(
    "longest script",
    costs.longest_script,
    (
        Row("hold/run", "longest script of the whole run", unit="ms", at_most=LONGEST_SCRIPT),
        Row(
            "hold/quiet",
            f"longest script of a list or a large write, the shortest of {REPEATS} runs",
            unit="ms",
            at_most=LONGEST_SCRIPT,
        ),
    ),
)

#: Measured instead of all others with `--against`.
AGAINST = Group(
    "against",
    checkouts.against,
    (
        Row("against/get", "GET configs, 64 connections, 1 worker", "the other checkout"),
        Row("against/latency", "GET, 1 connection, p50", "the other checkout"),
        Row("against/patch", _PATCH, "the other checkout"),
    ),
)
