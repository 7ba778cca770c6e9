"""Rows of the large store: filtered lists beside Postgres, their growth, and memory."""

import asyncio
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial

import orjson

from scripts.benchmark import filling
from scripts.benchmark.dataset import FILTERS, DataSet, Filter
from scripts.benchmark.load.generators import Connection
from scripts.benchmark.run import REPEATS, Bench, list_request
from scripts.benchmark.servers import postgres_api as peer
from scripts.benchmark.servers.processes import DefaultRedis
from scripts.benchmark.statistics import Cell, Result, median, ratios
from scripts.lib.program import Failed

#: The page that is measured beside the first, or the last one of a shorter list.
DEEP_PAGE = 10
SMALLEST = 1000
_LIMIT = 20


@dataclass(frozen=True, slots=True)
class Page:
    """One page of one list, as each side is asked for it."""

    filter: Filter
    descending: bool
    number: int
    ours: bytes
    theirs: bytes

    @property
    def name(self) -> str:
        """The page in words."""
        return f"{self.filter.name}, {'newest' if self.descending else 'oldest'} first, page {self.number}"


def listing(bench: Bench) -> None:
    """The filters beside Postgres: first and tenth page, both orders."""
    ours, theirs = bench.connection(bench.large.origin), bench.connection(bench.large_peer.origin)
    counts = asyncio.run(_counts(bench))
    pages = list(_pages(ours, theirs))
    seconds = bench.options.list_seconds
    sides = {}
    for page in pages:
        sides[f"ours: {page.name}"] = partial(ours.p50, page.ours, seconds=seconds)
        sides[f"theirs: {page.name}"] = partial(theirs.p50, page.theirs, seconds=seconds)
    measured = bench.rounds("filtered lists", sides)
    cells = [
        Cell(
            page.filter.name,
            page.descending,
            page.number,
            counts[page.filter.name],
            tuple(measured[f"ours: {page.name}"]),
            tuple(measured[f"theirs: {page.name}"]),
        )
        for page in pages
    ]
    for page in pages:
        bench.quiet_hold(bench.large, page.name, ours, [page.ours] * REPEATS)
    bench.details["lists"] = cells
    by_ratio = sorted(cells, key=lambda cell: cell.ratio)
    values = [cell.ratio for cell in by_ratio]
    slowest = by_ratio[0]
    note = f"{slowest.filter}, {'newest' if slowest.descending else 'oldest'} first, page {slowest.page}"
    bench.add(Result.figure("listing/each", values, values[0], note))
    bench.add(Result.figure("listing/median", values, note=f"{len(cells)} rows"))
    _ordered(bench, [page for page in pages if page.number == 1], cells, theirs)


def _ordered(bench: Bench, pages: list[Page], cells: list[Cell], theirs: Connection) -> None:
    """The first pages again, beside a Postgres that has an index on the order too."""
    asyncio.run(_execute(bench, peer.ORDER_INDEX, "ANALYZE sessions"))
    bench.say("Postgres has the index on the order now")
    sides = {page.name: partial(theirs.p50, page.theirs, seconds=bench.options.list_seconds) for page in pages}
    measured = bench.rounds("lists with an index on the order", sides)
    ours = [cell.ours for cell in cells if cell.page == 1]
    values = sorted(median(measured[page.name]) / median(own) for page, own in zip(pages, ours, strict=True))
    bench.details["ordered"] = {page.name: measured[page.name] for page in pages}
    bench.add(Result.figure("listing/ordered", values, note=f"least {values[0]:.2f} ×"))


async def _counts(bench: Bench) -> dict[str, int]:
    connection = await filling.connect(bench.postgres, "large")
    try:
        sql = "SELECT count(*) FROM sessions WHERE configs @> $1"
        return {wanted.name: await connection.fetchval(sql, orjson.dumps(wanted.configs).decode()) for wanted in FILTERS}
    finally:
        await connection.close()


async def _execute(bench: Bench, *statements: str) -> None:
    connection = await filling.connect(bench.postgres, "large")
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


def _pages(ours: Connection, theirs: Connection) -> Iterable[Page]:
    """First and deep page of every list; both sides have to give as many sessions on each, and of a short list the same."""
    for wanted in FILTERS:
        for descending in (False, True):
            walks = [list(_walk(connection, wanted, descending)) for connection in (ours, theirs)]
            sizes = [[len(items) for _, items in walk] for walk in walks]
            complete = len(sizes[0]) < DEEP_PAGE
            sets = [{item for _, items in walk for item in items} for walk in walks]
            if sizes[0] != sizes[1] or (complete and sets[0] != sets[1]):
                raise Failed(f"the two sides do not find the same: {wanted.name}, {sizes}")
            for number in sorted({1, len(sizes[0])}):
                yield Page(wanted, descending, number, walks[0][number - 1][0], walks[1][number - 1][0])
    # A list of one page has no deep one.


def _walk(connection: Connection, wanted: Filter, descending: bool) -> Iterable[tuple[bytes, list[str]]]:
    """Request and ids of each page up to the deep one."""
    cursor = None
    for _ in range(DEEP_PAGE):
        request = list_request(wanted.configs, descending=descending, cursor=cursor)
        data = orjson.loads(connection.good(request).body)["data"]
        yield request, [item["id"] for item in data["items"]]
        cursor = data.get("next_cursor")
        if not cursor:
            return


def growth(bench: Bench) -> None:
    """First pages from stores of growing size, all of them asked in turn."""
    sizes = [SMALLEST]
    while sizes[-1] * 10 < bench.options.sessions:
        sizes.append(sizes[-1] * 10)
    stores = {size: bench.service(f"of-{size}", workers=1, data=DataSet(size)) for size in sizes}
    connections = {size: bench.connection(store.origin) for size, store in stores.items()}
    connections[bench.options.sessions] = bench.connection(bench.large.origin)
    lists = [(wanted, descending) for wanted in FILTERS for descending in (False, True)]
    sides = {}
    for wanted, descending in lists:
        request = list_request(wanted.configs, descending=descending)
        for size, connection in connections.items():
            sides[_key(wanted, descending, size)] = partial(connection.p50, request, seconds=bench.options.list_seconds / 2)
    measured = bench.rounds("lists of growing stores", sides)
    full = {
        (wanted.name, descending): _is_full(connections[SMALLEST], wanted, descending) for wanted, descending in lists
    }
    bench.details["growth"] = [
        {
            "filter": wanted.name,
            "descending": descending,
            "fills the page": full[wanted.name, descending],
            "p50": {size: measured[_key(wanted, descending, size)] for size in connections},
        }
        for wanted, descending in lists
    ]
    grown = {
        f"{wanted.name}, {'newest' if descending else 'oldest'} first": median(
            ratios(
                measured[_key(wanted, descending, bench.options.sessions)], measured[_key(wanted, descending, SMALLEST)]
            )
        )
        for wanted, descending in lists
        if full[wanted.name, descending]
    }
    worst = max(grown, key=lambda name: grown[name])
    bench.add(Result.figure("growth", sorted(grown.values()), grown[worst], worst))


def _key(wanted: Filter, descending: bool, size: int) -> str:
    return f"{wanted.name}, {descending}, {size}"


def _is_full(connection: Connection, wanted: Filter, descending: bool) -> bool:
    data = orjson.loads(connection.good(list_request(wanted.configs, descending=descending)).body)["data"]
    return bool(data["has_more"])


def memory(bench: Bench) -> None:
    """What a session takes in Redis, as the service starts it and on default settings."""
    bench.large  # noqa: B018 - loading it notes what it took
    used = bench.details["bytes of a session"]
    assert isinstance(used, float)  # noqa: S101 - for the type checker
    bench.add(Result.figure("memory/embedded", [used], note=f"{bench.all.total:,} sessions"))
    data = DataSet(min(bench.options.default_sessions, bench.options.sessions))
    with DefaultRedis(bench.home / "default-redis") as program:
        before = program.redis.memory()
        filling.fill_redis(program.redis.url, data, f"loading {data.total:,} on default settings")
        used = (program.redis.memory() - before) / data.total
    bench.add(Result.figure("memory/default", [used], note=f"{data.total:,} sessions"))


def as_json(cells: list[Cell]) -> list[dict[str, object]]:
    """Cells for results.json."""
    return [asdict(cell) | {"ratio": cell.ratio} for cell in cells]
