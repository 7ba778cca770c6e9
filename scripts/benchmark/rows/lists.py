"""Rows of the large store: filtered lists against Postgres, their growth with the store, and memory."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import median

import orjson

from scripts.benchmark import filling
from scripts.benchmark.dataset import FILTERS, HARDLY_EVER_MEET, DataSet, Filter
from scripts.benchmark.load.connection import Connection
from scripts.benchmark.load.requests import list_request
from scripts.benchmark.run import REPEATS, Bench
from scripts.benchmark.servers.postgres import ORDER_INDEX
from scripts.benchmark.servers.redis import RedisServer
from scripts.benchmark.statistics import Measurement, PageTimes, ratios, slower_first_pages
from scripts.lib.program import Failed

#: Measured as well as the first page; of a shorter list the last page.
_DEEP_PAGE = 10
_SMALLEST = 1000  # sessions


@dataclass(frozen=True, slots=True)
class FilteredList:
    """A filter in one order."""

    filter: Filter
    descending: bool

    @property
    def name(self) -> str:
        """Filter and order in words."""
        return f"{self.filter.name}, {'newest' if self.descending else 'oldest'} first"

    def request(self, cursor: str | None = None) -> bytes:
        """The request for one page."""
        return list_request(self.filter.configs, descending=self.descending, cursor=cursor)


_LISTS = [FilteredList(one, descending) for one, descending in product(FILTERS, (False, True))]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list: its request to either side, which differ in the cursor."""

    list: FilteredList
    number: int
    ours: bytes
    theirs: bytes

    @property
    def name(self) -> str:
        """The page in words."""
        return f"{self.list.name}, page {self.number}"


def listing(bench: Bench) -> dict[str, Measurement]:
    """Each filter against Postgres: first and tenth page, both orders."""
    ours, theirs = bench.connection(bench.large_store.address), bench.connection(bench.large_postgres_api.address)
    pages = list(_pages(ours, theirs))
    times = _measure_pages(bench, pages, ours, theirs)
    for page in pages:
        bench.measure_script_time(bench.large_store, page.name, ours, [page.ours] * REPEATS)
    bench.details["lists"] = list(times.values())
    slowest = min(times, key=lambda name: times[name].ratio)
    values = sorted(one.ratio for one in times.values())
    return {
        "listing/each": Measurement.figure(values, values[0], slowest),
        "listing/median": Measurement.figure(values, note=f"{len(values)} rows"),
        **first_pages(times.values(), bench.large_data.total),
        "listing/ordered": _listing_ordered(bench, theirs, [page for page in pages if page.number == 1], times),
    }


def first_pages(times: Iterable[PageTimes], total: int) -> dict[str, Measurement]:
    """First pages alone, of each filter in the order in which ours compares worse; `total` sessions are in the store."""
    pages = sorted(slower_first_pages(times), key=lambda page: page.ratio)
    values = [page.ratio for page in pages]
    (three_tags,) = (page for page in pages if page.filter == HARDLY_EVER_MEET)
    milliseconds = [micros / 1000 for micros in three_tags.ours]
    return {
        "listing/first": Measurement.figure(values, values[0], pages[0].filter),
        "listing/first-median": Measurement.figure(values),
        "listing/three-tags": Measurement.figure(milliseconds, note=f"{total:,} sessions, {three_tags.matches} matches"),
    }


def _measure_pages(bench: Bench, pages: list[Page], ours: Connection, theirs: Connection) -> dict[str, PageTimes]:
    counts = asyncio.run(_count_matches(bench))
    seconds = bench.options.list_seconds
    sides = {}
    for page in pages:
        sides[f"ours: {page.name}"] = partial(ours.median_latency, page.ours, seconds=seconds)
        sides[f"theirs: {page.name}"] = partial(theirs.median_latency, page.theirs, seconds=seconds)
    latencies = bench.alternate("filtered lists", sides)
    return {
        page.name: PageTimes(
            page.list.filter.name,
            page.list.descending,
            page.number,
            counts[page.list.filter.name],
            tuple(latencies[f"ours: {page.name}"]),
            tuple(latencies[f"theirs: {page.name}"]),
        )
        for page in pages
    }


def _listing_ordered(bench: Bench, theirs: Connection, pages: list[Page], times: dict[str, PageTimes]) -> Measurement:
    """The first pages again, against a Postgres that also has an index on the order."""
    asyncio.run(bench.postgres.execute("large", ORDER_INDEX, "ANALYZE sessions"))
    sides = {page.name: partial(theirs.median_latency, page.theirs, seconds=bench.options.list_seconds) for page in pages}
    latencies = bench.alternate("lists with an index on the order", sides)
    bench.details["ordered"] = latencies
    values = sorted(median(latencies[page.name]) / median(times[page.name].ours) for page in pages)
    return Measurement.figure(values, note=f"least {values[0]:.2f} ×")


async def _count_matches(bench: Bench) -> dict[str, int]:
    connection = await bench.postgres.connect("large")
    try:
        sql = "SELECT count(*) FROM sessions WHERE configs @> $1"
        return {one.name: await connection.fetchval(sql, orjson.dumps(one.configs).decode()) for one in FILTERS}
    finally:
        await connection.close()


def _pages(ours: Connection, theirs: Connection) -> Iterable[Page]:
    """First and deep page of every list; of a list with one page only that.

    Raises:
        Failed: the two sides gave different numbers of sessions a page, or of a short list different sessions.
    """
    for each in _LISTS:
        our_pages, their_pages = (list(_walk(connection, each)) for connection in (ours, theirs))
        sizes = [[len(ids) for _, ids in pages] for pages in (our_pages, their_pages)]
        is_short = len(our_pages) < _DEEP_PAGE
        sessions = [{session_id for _, ids in pages for session_id in ids} for pages in (our_pages, their_pages)]
        if sizes[0] != sizes[1] or (is_short and sessions[0] != sessions[1]):
            raise Failed(f"the service and Postgres gave different lists: {each.name}, sizes of pages {sizes}")
        for number in sorted({1, len(our_pages)}):
            yield Page(each, number, our_pages[number - 1][0], their_pages[number - 1][0])


def _walk(connection: Connection, each: FilteredList) -> Iterable[tuple[bytes, list[str]]]:
    """Request and ids of each page up to the deep one."""
    cursor = None
    for _ in range(_DEEP_PAGE):
        request = each.request(cursor)
        data = orjson.loads(connection.send_ok(request).body)["data"]
        yield request, [item["id"] for item in data["items"]]
        cursor = data.get("next_cursor")
        if not cursor:
            return


def growth(bench: Bench) -> dict[str, Measurement]:
    """First pages from stores of growing size, all of them in turn."""
    sizes = [_SMALLEST]
    while sizes[-1] * 10 < bench.options.sessions:
        sizes.append(sizes[-1] * 10)
    stores = {size: bench.service(f"of-{size}", workers=1, data=DataSet(size)) for size in sizes}
    stores[bench.options.sessions] = bench.large_store
    connections = {size: bench.connection(store.address) for size, store in stores.items()}
    seconds = bench.options.list_seconds / 2
    sides = {
        f"{each.name}, {size}": partial(connection.median_latency, each.request(), seconds=seconds)
        for each in _LISTS
        for size, connection in connections.items()
    }
    latencies = bench.alternate("lists of growing stores", sides)
    full_lists = [each for each in _LISTS if _fills_page(connections[_SMALLEST], each)]
    p50 = {each.name: {size: latencies[f"{each.name}, {size}"] for size in connections} for each in _LISTS}
    bench.details["growth"] = [
        {
            "filter": each.filter.name,
            "descending": each.descending,
            "fills the page": each in full_lists,
            "p50": p50[each.name],
        }
        for each in _LISTS
    ]
    growths = {
        each.name: median(ratios(p50[each.name][bench.options.sessions], p50[each.name][_SMALLEST])) for each in full_lists
    }
    worst = max(growths, key=lambda name: growths[name])
    return {"growth": Measurement.figure(sorted(growths.values()), growths[worst], worst)}


def _fills_page(connection: Connection, each: FilteredList) -> bool:
    return bool(orjson.loads(connection.send_ok(each.request()).body)["data"]["has_more"])


def memory(bench: Bench) -> dict[str, Measurement]:
    """Redis memory of a session, with the settings of the embedded Redis and with default settings."""
    bench.large_store  # noqa: B018 - loading it notes what its sessions take
    embedded = bench.details["bytes of a session"]
    assert isinstance(embedded, float)  # noqa: S101 - for the type checker
    data = DataSet(min(bench.options.default_sessions, bench.options.sessions))
    with RedisServer(bench.home / "default-redis") as server:
        before = server.probe.memory()
        filling.fill_redis(server.probe.url, data, f"loading {data.total:,} sessions on default settings")
        default = (server.probe.memory() - before) / data.total
    return {
        "memory/embedded": Measurement.figure([embedded], note=f"{bench.large_data.total:,} sessions"),
        "memory/default": Measurement.figure([default], note=f"{data.total:,} sessions"),
    }
