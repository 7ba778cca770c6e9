"""The rows of the table with their targets: data, and nowhere else.

A target is a ratio, or a figure, of one run on one machine.
"""

from dataclasses import dataclass

KIB = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One row: what is measured, against what, and the bound that `value` has to keep; no bound makes it information."""

    name: str
    group: str
    label: str  # in the plot
    what: str
    against: str
    unit: str = "×"
    at_least: float | None = None
    at_most: float | None = None

    def met(self, value: float) -> bool | None:
        """Whether `value` keeps the bound, None where there is none."""
        if self.at_least is not None:
            return value >= self.at_least
        if self.at_most is not None:
            return value <= self.at_most
        return None


#: What `--only` takes, in the order in which it runs.
GROUPS = (
    *("get", "latency", "webdis", "patch", "owner", "post", "304", "overload", "footprint", "hold", "listing", "growth"),
    *("memory", "p99", "partitions"),
)

_GET = "GET configs, 64 connections, 1 worker, key checked"
_PATCH = "PATCH of 2 keys in a 20-key document, 64 connections, 1 worker"
_POST = "POST with a 9-key nested document (12 terms), 64 connections, 1 worker"
_P99 = "p99 of GET while another client lists and patches at full speed, 2 workers"

ROWS = (
    Row("get/bare", "get", "GET / bare aiohttp", _GET, "bare aiohttp", at_least=0.80),
    Row("get/redis", "get", "GET / redis-benchmark", _GET, "redis-benchmark, the same HMGET"),
    Row(
        "latency",
        "latency",
        "GET, 1 connection / bare + 2 × Redis",
        "GET, 1 connection, p50",
        "bare aiohttp's p50 + 2 × redis-benchmark's",
        at_most=1.0,
    ),
    Row(
        "webdis",
        "webdis",
        "GET, 2 workers / webdis",
        "GET, 2 workers, 64 connections",
        "webdis, 2 threads, the same blob",
        at_least=0.5,
    ),
    Row("patch/bare", "patch", "PATCH / bare aiohttp", _PATCH, "bare aiohttp", at_least=0.50),
    Row(
        "patch/postgres", "patch", "PATCH / Postgres, read-merge-write", _PATCH, "Postgres peer, read-merge-write", at_least=3.0
    ),
    Row(
        "patch/postgres-atomic",
        "patch",
        "PATCH / Postgres, atomic UPDATE",
        _PATCH,
        "Postgres peer, atomic UPDATE",
        at_least=3.0,
    ),
    Row(
        "owner",
        "owner",
        "PATCH / without its comparison",
        f"{_PATCH}, in µs",
        "the same, less what comparing whose keys they are adds to its script",
        at_most=1.03,
    ),
    Row("post/bare", "post", "POST / bare aiohttp", _POST, "bare aiohttp", at_least=0.35),
    Row("post/postgres", "post", "POST / Postgres", _POST, "Postgres peer", at_least=1.5),
    Row(
        "304",
        "304",
        "GET with If-None-Match / GET",
        "GET with If-None-Match, 304, 64 connections, 1 worker",
        "GET",
        at_least=1.0,
    ),
    Row(
        "overload/list",
        "overload",
        "lists at 4 × the peak / the peak",
        "goodput of lists of 200 that come at 4 × the peak and do not wait, 1,000 connections, 1 worker",
        "the peak, 64 connections",
        at_least=0.8,
    ),
    Row("overload/p99", "overload", "p99 of those that were accepted", "p99 of the lists that were accepted", "", unit="ms"),
    Row(
        "overload/get",
        "overload",
        "GET, 1,024 connections / 64",
        "goodput of GET on 1,024 connections that do not wait, 1 worker",
        "64 connections",
        at_least=0.8,
    ),
    Row("startup", "footprint", "start-up", "start-up to the first answer, embedded Redis, 2 workers", "", unit="ms"),
    Row("idle", "footprint", "idle memory", "idle memory of a worker (USS)", "", unit="MB"),
    Row("tree", "footprint", "installed tree", "installed tree, dependencies included", "", unit="MB"),
    Row(
        "hold/patch",
        "hold",
        "longest script, PATCH of 500 keys",
        "longest script in a PATCH of 500 keys of a 250 KiB document",
        "",
        unit="ms",
        at_most=3.0,
    ),
    Row("hold/same", "hold", "the same, nothing changes", "the same PATCH again, which changes no value", "", unit="ms"),
    Row(
        "listing/each",
        "listing",
        "filtered lists / Postgres, the slowest",
        "filtered listing, slowest of all rows",
        "Postgres peer",
        at_least=1.0,
    ),
    Row(
        "listing/median",
        "listing",
        "filtered lists / Postgres, median",
        "filtered listing, median of all rows",
        "Postgres peer",
        at_least=10.0,
    ),
    Row(
        "listing/ordered",
        "listing",
        "filtered lists / Postgres with one more index",
        "filtered listing, median of first pages",
        "Postgres peer with an index Acontext lacks, (project_id, created_at, id)",
    ),
    Row(
        "growth",
        "growth",
        "first page, all sessions / 1 k",
        "p50 of a full first page, from 1 k sessions to all, worst filter",
        "1 k sessions",
        at_most=2.0,
    ),
    Row(
        "memory/embedded",
        "memory",
        "memory per session, embedded",
        "Redis memory per session, embedded settings",
        "",
        unit="B",
        at_most=1.0 * KIB,
    ),
    Row(
        "memory/default",
        "memory",
        "memory per session, default settings",
        "Redis memory per session, default settings",
        "",
        unit="B",
        at_most=1.6 * KIB,
    ),
    Row("p99", "p99", "p99 of GET under other load / alone", f"{_P99}, 64 connections", "its p99 alone", at_most=3.0),
    Row("p99/few", "p99", "the same, 4 connections", f"{_P99}, 4 connections", "its p99 alone"),
    *(
        Row(
            f"partitions/{what}/{count}",
            "partitions",
            f"{label}, {count} partitions",
            f"{label}, cluster of three masters, {count} partition{'' if count == 1 else 's'}",
            "",
            unit=unit,
        )
        for what, label, unit in (("list", "full first page, p50", "ms"), ("patch", "PATCH of 2 keys, 2 workers", "/s"))
        for count in (1, 16, 64)
    ),
    Row("hold/run", "hold", "longest script of the run", "longest script of the whole run", "", unit="ms", at_most=3.0),
    Row(
        "hold/quiet",
        "hold",
        "longest script, scheduler aside",
        "longest script of a list or a large write, without what the scheduler takes (least of 7 times)",
        "",
        unit="ms",
        at_most=3.0,
    ),
)
BY_NAME = {row.name: row for row in ROWS}
