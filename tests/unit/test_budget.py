"""The budget of a list: containment charges its comparisons before it makes them."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.configs import containment
from service.configs.budget import UNLIMITED, Budget, OutOfBudget
from service.configs.containment import Filter, contains, exact
from service.configs.limits import Limits
from tests.support.strategies import Spelled, cases


def test_the_first_candidate_is_granted_whatever_its_size() -> None:
    budget = Budget(candidates=2, max_bytes=10)
    budget.take_candidate(1000)
    with pytest.raises(OutOfBudget):
        budget.take_candidate(1)


def test_candidates_are_granted_until_their_number_or_their_bytes_are_used_up() -> None:
    for budget in (Budget(candidates=3), Budget(max_bytes=30)):
        for _ in range(3):
            budget.take_candidate(10)
        with pytest.raises(OutOfBudget):
            budget.take_candidate(10)


def test_a_search_of_the_index_counts_as_candidates_and_may_be_the_last() -> None:
    budget = Budget(candidates=100)
    budget.take_lookup(60)
    assert budget.candidates == 40
    budget.take_lookup(60)
    assert budget.candidates == 0
    budget.take_candidate(0)
    with pytest.raises(OutOfBudget):
        budget.take_candidate(0)


def test_comparisons_are_charged_completely_or_not_at_all() -> None:
    budget = Budget(comparisons=10)
    with pytest.raises(OutOfBudget):
        budget.take_comparisons(11)
    budget.take_comparisons(10)
    with pytest.raises(OutOfBudget):
        budget.take_comparisons(1)


def cost(config: str, wanted: str) -> int:
    """The comparisons that a filter takes for a config."""
    budget = Budget()
    contains(exact(config.encode()), exact(wanted.encode()), budget)
    return UNLIMITED - budget._comparisons


@pytest.mark.parametrize(("config", "wanted", "right"), [
    ('{"a":1}', '{"a":1}', 0),
    ('{"a":{"b":{"c":1}}}', '{"a":{"b":{"c":1}}}', 0),
    ('{"a":[1,2,3]}', '{"a":[]}', 0),
    ('{"a":[1,2,3]}', '{"a":[1]}', 3),
    # The scalars of a config's array are hashed once, however many are wanted.
    ('{"a":[1,2,3]}', '{"a":[1,2,3,"x",null,true]}', 3),
    # An object costs its members; the first of the three contains it.
    ('{"a":[{"x":1},{"x":2},{"x":3}]}', '{"a":[{"x":1}]}', 3 * 2),
    ('{"a":[{"x":1},{"x":2},{"x":3}]}', '{"a":[{"x":{"y":1,"z":2}}]}', 3 * 4),
    # Nested arrays are charged separately when they are compared: here one comparison each.
    ('{"a":[[0],[0],[1]]}', '{"a":[[1]]}', 3 + 3),
    # Equal elements count once, however they are spelled.
    ('{"a":[[0],[0],[1]]}', '{"a":[[1],[1.0],[1e0],[1,1]]}', 3 + 3),
    ('{"a":[{"x":1,"y":[1,2]}]}', '{"a":[{"x":1,"y":[1,2]},{"y":[2,1,2],"x":1.0}]}', 3 + 2),
    ('{"a":"x"}', '{"a":[1]}', 0),
])  # fmt: skip
def test_each_array_costs_its_elements_times_the_wanted_ones(config: str, wanted: str, right: int) -> None:
    assert cost(config, wanted) == right


@given(cases(), st.integers(0, 30))
def test_a_budget_may_refuse_but_never_changes_the_result(case: tuple[Spelled, Spelled], comparisons: int) -> None:
    config, wanted = case
    verdict = contains(exact(config.raw), exact(wanted.raw))
    needed = cost(config.raw.decode(), wanted.raw.decode())
    budget = Budget(comparisons=comparisons)
    if needed <= comparisons:
        assert contains(exact(config.raw), exact(wanted.raw), budget) is verdict
    else:
        with pytest.raises(OutOfBudget):
            contains(exact(config.raw), exact(wanted.raw), budget)


def watch_steps(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the values that are compared, wherever they are nested."""
    steps: Counter[str] = Counter()
    for name in ("_contains", "_object_contains", "_array_contains"):
        decide = getattr(containment, name)

        def counted(config: Any, wanted: Any, budget: Budget, decide: Any = decide, name: str = name) -> bool:  # noqa: ANN401 - JSON is any value
            steps[name] += 1
            return bool(decide(config, wanted, budget))

        monkeypatch.setattr(containment, name, counted)
        for kind, (held_by, function) in containment._KINDS.items():
            if function is decide:
                monkeypatch.setitem(containment._KINDS, kind, (held_by, counted))
    return steps


SEVERAL = b",".join(b"[%d]" % number for number in range(1, 63))
ATTACKS = {
    "arrays in an array": (b"[0]", b"[1]", SEVERAL),
    "fat objects": (b'{"a":1,"b":1,"c":1,"d":1}', b'{"a":1,"b":1,"c":1,"d":2}', b'{"a":1,"b":1,"c":1,"d":3},{"e":1},{"d":4}'),
    "arrays in objects in an array": (b'{"a":[[0]]}', b'{"a":[[1]]}', b",".join(b'{"a":[[%d]]}' % n for n in range(2, 30))),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_more_is_compared_than_was_charged_to_the_budget(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    common, last, wanted = ATTACKS[attack]
    config = b'{\n"a":[%b]\n}' % b",".join([common] * 2000 + [last])
    steps = watch_steps(monkeypatch)
    containment_filter = Filter.parse(b'{"a":[%b]}' % wanted, Limits())
    assert containment_filter is not None
    budget = Budget(comparisons=10_000)
    with pytest.raises(OutOfBudget):
        containment_filter.matches(config, budget)
    assert steps.total() <= 10_000 + 10
    unlimited = Budget()
    steps.clear()
    containment_filter.matches(config, unlimited)
    assert 0 < steps.total() <= UNLIMITED - unlimited._comparisons + 10


def test_a_damaged_document_does_not_match_and_an_expensive_one_is_not_damaged() -> None:
    containment_filter = Filter.parse(b'{"a":[1]}', Limits())
    assert containment_filter is not None
    assert containment_filter.matches(b'{\n"a":[1,\n}', Budget(comparisons=0)) is False
    for configs in (b'{\n"a":[1]\n}', b'{"a":[1]}'):
        with pytest.raises(OutOfBudget):
            containment_filter.matches(configs, Budget(comparisons=0))
        assert containment_filter.matches(configs, Budget(comparisons=1)) is True
