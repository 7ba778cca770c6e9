"""The benchmark without its servers: its data, its arithmetic, its registry of rows, its table, and its other Redis clients."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from scripts.benchmark import report
from scripts.benchmark.dataset import COMMONEST, FILTERS, HARDLY_EVER_MEET, NEVER_IN_DEV, THREE_TAGS, DataSet
from scripts.benchmark.rows import embedded, lists
from scripts.benchmark.run import Bench
from scripts.benchmark.servers.other_client import HMGet, OtherClient
from scripts.benchmark.statistics import Measurement, PageTimes, Result, SlowCommand, merge, slower_first_pages
from scripts.benchmark.targets import AGAINST, GROUPS, WHOLE_RUN, Group
from service.configs import containment
from service.configs.limits import Limits
from service.errors import StoreUnavailable
from service.process.redis_binaries import Server
from tests.support.filling import document_of

TOTAL = 20_000
ALL_GROUPS = (*GROUPS, WHOLE_RUN, AGAINST)
ROWS = [row for group in ALL_GROUPS for row in group.rows]
BY_NAME = {row.name: row for row in ROWS}


@pytest.fixture(scope="module")
def sessions() -> list[tuple[str, dict[str, Any]]]:
    return list(DataSet(TOTAL).sessions())


def matches(configs: object, sessions: list[tuple[str, dict[str, Any]]]) -> int:
    parsed = containment.Filter.parse(orjson.dumps(configs), Limits())
    assert parsed is not None
    return sum(parsed.matches(orjson.dumps(each)) for _, each in sessions)


def test_data_are_the_same_whoever_generates_which_part(sessions: list[tuple[str, dict[str, Any]]]) -> None:
    data = DataSet(TOTAL)
    assert [*data.sessions(0, 3000), *data.sessions(3000)] == sessions
    assert data.ids(10) == [session_id for session_id, _ in sessions[:10]]
    assert next(DataSet(TOTAL, seed=4).sessions()) != sessions[0]
    assert len({session_id for session_id, _ in sessions}) == TOTAL


def test_each_session_has_nine_keys_and_twelve_terms(sessions: list[tuple[str, dict[str, Any]]]) -> None:
    for _, configs in sessions[:100]:
        stored = document_of(configs)
        assert len(stored.members) == 9
        assert sum(member.terms.count(b"\t") + 1 for member in stored.members) == 12


def test_the_commonest_agent_has_a_third_and_many_are_rare(sessions: list[tuple[str, dict[str, Any]]]) -> None:
    agents = Counter(configs["agent"] for _, configs in sessions)
    assert agents.most_common(1)[0][0] == COMMONEST
    assert 0.32 < agents[COMMONEST] / TOTAL < 0.36
    assert len(agents) > 500


def test_each_filter_matches_as_many_sessions_as_its_name_says(sessions: list[tuple[str, dict[str, Any]]]) -> None:
    assert len(FILTERS) == 12
    counts = {each.name: matches(each.configs, sessions) for each in FILTERS}
    assert counts[HARDLY_EVER_MEET] == 4
    assert counts["value nobody has"] == 0
    assert counts["agent + env that never meet"] == 0
    assert 1 <= counts["rare agent"] <= 5
    assert counts["agent + env"] > TOTAL / 6
    assert counts["nested version"] > TOTAL / 40
    # These values never occur together, but each alone is common.
    assert matches({"agent": NEVER_IN_DEV}, sessions) > TOTAL / 50
    assert all(matches({"tags": [tag]}, sessions) > TOTAL / 50 for tag in THREE_TAGS)


def test_a_ratio_is_taken_round_by_round() -> None:
    # Ours is always twice as fast, though the host was ten times slower in the second round.
    measurement = Measurement.compared([200, 20, 220], [100, 10, 110], "/s")
    assert (measurement.value, measurement.values) == (2.0, (2.0, 2.0, 2.0))
    assert Result(BY_NAME["get/bare"], measurement).met is True


@pytest.mark.parametrize(
    ("name", "value", "met"),
    [("get/bare", 0.85, True), ("get/bare", 0.84, False), ("p99", 3.0, True), ("p99", 3.1, False), ("tree", 40.0, None)],
)
def test_a_bound_is_met_or_missed(name: str, value: float, met: bool | None) -> None:
    assert Result(BY_NAME[name], Measurement.figure([value])).met is met


def test_every_row_belongs_to_a_group_and_has_one_bound_at_most() -> None:
    assert len(BY_NAME) == len(ROWS)
    assert all(group.rows for group in ALL_GROUPS)
    assert len({group.name for group in ALL_GROUPS}) == len(ALL_GROUPS)
    assert not [row for row in ROWS if row.at_least is not None and row.at_most is not None]


RESULTS = [
    Result(BY_NAME["get/bare"], Measurement.compared([75.0, 85.0, 95.0], [100.0, 100.0, 100.0], "/s", "a note")),
    Result(BY_NAME["hold/run"], Measurement.figure([0.5, 12.345], 12.345)),
    Result(BY_NAME["idle"], Measurement.figure([4.4])),
]
PAGES = [
    PageTimes("rare agent", descending, page, 35, ours=(200.0, 300.0, 250.0), theirs=(2000.0, 3000.0, 2500.0))
    for descending in (False, True)
    for page in (1, 2)
]


def test_the_table_has_medians_spread_ratio_and_verdict() -> None:
    commands = [SlowCommand("GET", "find", 700, 0, is_script=True), SlowCommand("GET", "HMGET", 900, 0, is_script=False)]
    text = report.markdown(RESULTS, {"lists": PAGES}, commands, {"rounds": "3", "Python": "3.11"})
    assert "| 85.0 /s (75.0–95.0) | 100 /s (100–100) | **0.85 ×** (0.75–0.95) | ≥ 0.85 × | met |" in text
    assert "<br>a note" in text
    assert "| **12.3 ms** (0.50–12.3) | ≤ 3.00 ms | missed |" in text
    assert "| **4.40 MB** |  |  |" in text
    assert "| rare agent | 35 | 0.25 / 2.50 (**10.0 ×**) | page 2: 0.25 / 2.50 (**10.0 ×**) |" in text
    assert "| GET | any other command | 0.90 |" in text
    assert "Python 3.11." in text


def test_of_the_first_pages_the_order_counts_in_which_ours_compares_worse() -> None:
    def page(name: str, first: str, number: int, ours: float, theirs: float) -> PageTimes:
        return PageTimes(name, first == "newest", number, 4, ours=(ours,), theirs=(theirs,))

    pages = [
        page("two tags", "oldest", 1, 100, 800),
        page("two tags", "newest", 1, 100, 900),
        page("two tags", "newest", 10, 100, 100),
        page(HARDLY_EVER_MEET, "oldest", 1, 4000, 8000),
        page(HARDLY_EVER_MEET, "newest", 1, 5000, 7500),
    ]
    assert slower_first_pages(pages) == [pages[0], pages[4]]
    measured = lists.first_pages(pages, 1_000_000)
    assert {name: one.value for name, one in measured.items()} == {
        "listing/first": 1.5,
        "listing/first-median": 4.75,
        "listing/three-tags": 5.0,
    }
    assert measured["listing/first"].note == HARDLY_EVER_MEET
    assert measured.keys() <= BY_NAME.keys()


def test_each_embedded_server_has_the_rows_of_the_registry() -> None:
    programs = {name: Server(f"/{name}", "Redis", (7, 0)) for name in (embedded.BUNDLED, *embedded.OTHERS)}
    sizes = {name: 1000.0 - 100 * number for number, name in enumerate(programs)}
    rates = {kind: {name: [size] for name, size in sizes.items()} for kind in embedded.KINDS}
    measured = embedded.measurements(programs, rates, sizes)
    assert list(measured) == [row.name for group in GROUPS if group.name == "embedded" for row in group.rows]
    assert measured["embedded/memory/oldest"].value == 1000 / 800
    # Redis 6.2 is not installed on every Python.
    del programs["oldest"]
    assert embedded.measurements(programs, rates, sizes).keys() == {name for name in measured if not name.endswith("/oldest")}


async def test_another_redis_client_gets_the_hmgets_and_nothing_else(tmp_path: Path) -> None:
    class Echo(OtherClient):
        connected = False

        @asynccontextmanager
        async def connect(self, url: str) -> AsyncIterator[HMGet]:
            async def hmget(key: str, fields: list[str]) -> list[str]:
                return [url, key, *fields]

            self.connected = True
            try:
                yield hmget
            finally:
                self.connected = False

    url = f"unix://{tmp_path}/no-server"
    client = Echo.open(url, timeout=0.1)
    assert await client.call("HMGET", "key", "one", "two") == [url, "key", "one", "two"]
    with pytest.raises(StoreUnavailable):
        await client.call("HGET", "key", "one")
    assert client.connected
    await client.close()
    assert not client.connected


async def test_another_redis_client_that_cannot_connect_fails_every_hmget(tmp_path: Path) -> None:
    class Unreachable(OtherClient):
        def connect(self, url: str) -> AbstractAsyncContextManager[HMGet]:
            raise ConnectionRefusedError(url)

    client = Unreachable.open(f"unix://{tmp_path}/no-server", timeout=0.1)
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            await client.call("HMGET", "key", "one")
    await client.close()


def test_a_measurement_without_a_row_is_an_error() -> None:
    measurements = {"startup": Measurement.figure([100.0]), "shutdown": Measurement.figure([100.0])}
    group = Group("footprint", lambda _: measurements, (BY_NAME["startup"],))
    with pytest.raises(KeyError, match="shutdown"):
        group.results(cast("Bench", None))


def test_slow_calls_of_one_command_in_one_phase_are_merged() -> None:
    commands = [SlowCommand("GET", "find", 700, 1, is_script=True), SlowCommand("POST", "find", 100, 0, is_script=True)]
    merged = merge([*commands, SlowCommand("GET", "find", 500, 2, is_script=True)])
    assert merged == [replace(commands[0], over=3), commands[1]]
