"""The benchmark's pure parts: its data, its arithmetic, its table and its plot."""

from collections import Counter
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import orjson
import pytest

from scripts.benchmark import plot, report
from scripts.benchmark.dataset import COMMONEST, FILTERS, LONELY, TOGETHER, DataSet
from scripts.benchmark.statistics import Cell, Hold, Result, merged
from scripts.benchmark.targets import BY_NAME, GROUPS, ROWS
from service.configs import containment
from service.configs.limits import Limits
from tests.support.filling import document_of

TOTAL = 20_000


@pytest.fixture(scope="module")
def sessions() -> list[tuple[str, dict[str, Any]]]:
    return list(DataSet(TOTAL).sessions())


def matches(configs: object, sessions: list[tuple[str, dict[str, Any]]]) -> int:
    wanted = containment.Filter.parse(orjson.dumps(configs), Limits())
    assert wanted is not None
    return sum(wanted.matches(orjson.dumps(one)) for _, one in sessions)


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


def test_filters_find_what_they_are_there_for(sessions: list[tuple[str, dict[str, Any]]]) -> None:
    assert len(FILTERS) == 12
    found = {one.name: matches(one.configs, sessions) for one in FILTERS}
    assert found["three tags"] == 4
    assert found["value nobody has"] == 0
    assert found["agent + env that never meet"] == 0
    assert 1 <= found["rare agent"] <= 5
    assert found["agent + env"] > TOTAL / 6
    assert found["nested version"] > TOTAL / 40
    # Each of what never meets is common by itself.
    assert matches({"agent": LONELY}, sessions) > TOTAL / 50
    assert all(matches({"tags": [tag]}, sessions) > TOTAL / 50 for tag in TOGETHER)


def test_a_ratio_is_taken_round_by_round() -> None:
    # Ours is always twice as fast, though the machine was ten times slower in the second round.
    result = Result.compared("get/bare", [200, 20, 220], [100, 10, 110], "/s")
    assert (result.value, result.values, result.met) == (2.0, (2.0, 2.0, 2.0), True)


@pytest.mark.parametrize(
    ("name", "value", "met"),
    [("get/bare", 0.80, True), ("get/bare", 0.79, False), ("p99", 3.0, True), ("p99", 3.1, False), ("tree", 40.0, None)],
)
def test_a_bound_is_met_or_missed(name: str, value: float, met: bool | None) -> None:
    assert Result.figure(name, [value]).met is met


def test_every_row_belongs_to_a_group_and_has_one_bound_at_most() -> None:
    assert len(BY_NAME) == len(ROWS)
    assert {row.group for row in ROWS} == set(GROUPS)
    assert not [row for row in ROWS if row.at_least is not None and row.at_most is not None]


RESULTS = [
    Result.compared("get/bare", [70.0, 80.0, 90.0], [100.0, 100.0, 100.0], "/s", "a note"),
    Result.figure("hold/run", [0.5, 12.345], 12.345),
    Result.figure("idle", [4.4]),
]
CELLS = [
    Cell("rare agent", descending, page, 35, ours=(200.0, 300.0, 250.0), theirs=(2000.0, 3000.0, 2500.0))
    for descending in (False, True)
    for page in (1, 2)
]


def test_the_table_has_medians_spread_ratio_and_verdict() -> None:
    holds = [Hold("GET", "find", 700, 0, is_script=True), Hold("GET", "HMGET", 900, 0, is_script=False)]
    text = report.markdown(RESULTS, {"lists": CELLS}, holds, {"rounds": "3", "Python": "3.11"})
    assert "| 80.0 /s (70.0–90.0) | 100 /s (100–100) | **0.80 ×** (0.70–0.90) | ≥ 0.80 × | met |" in text
    assert "<br>a note" in text
    assert "| **12.3 ms** (0.50–12.3) | ≤ 3.00 ms | missed |" in text
    assert "| **4.40 MB** |  |  |" in text
    assert "| rare agent | 35 | 0.25 / 2.50 (**10.0 ×**) | page 2: 0.25 / 2.50 (**10.0 ×**) |" in text
    assert "| GET | any other command | 0.90 |" in text
    assert "Python 3.11." in text


def test_the_plot_is_well_formed() -> None:
    drawn = plot.svg(RESULTS, CELLS)
    texts = [element.text for element in ElementTree.fromstring(drawn).iter() if element.text]  # noqa: S314 - our own
    assert any("rare agent" in text for text in texts)
    # What has no target has no bar.
    assert not any("idle" in text for text in texts)


def test_holds_of_one_command_in_one_phase_are_one() -> None:
    holds = [Hold("GET", "find", 700, 1, is_script=True), Hold("POST", "find", 100, 0, is_script=True)]
    assert merged([*holds, Hold("GET", "find", 500, 2, is_script=True)]) == [replace(holds[0], over=3), holds[1]]
