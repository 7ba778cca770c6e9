"""Random operations on fakeredis: a fast run of the state machine, which proves nothing about Redis."""

import fakeredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fake_client import FakeClient
from tests.support.state_machine import IDS, StoreMachine, run_random_operations


@pytest.mark.parametrize(("partitions", "block_size"), [(1, 4), (3, 16)])
def test_random_operations_leave_a_fake_store_as_the_model(partitions: int, block_size: int) -> None:
    server = fakeredis.FakeServer()
    run_random_operations(lambda: StoreMachine(lambda: FakeClient(server), partitions, block_size), examples=10, steps=20)


@settings(max_examples=1, database=None)
@given(configs=st.just({"a": 1}))
def test_the_machine_detects_a_session_that_changes_without_the_model(configs: dict[str, int]) -> None:
    server = fakeredis.FakeServer()
    machine = StoreMachine(lambda: FakeClient(server), 1, 4)
    machine.start([configs])
    machine.create_small(index=0, user=None, tracking=False, ttl=None, configs=configs, seed=0)
    machine.store_is_what_the_model_says()
    key = machine.sessions.partition(IDS[0]).session(IDS[0])
    machine.do(machine.redis.call("HSET", key, "configs", '{\n"a":2\n}', writes=True))
    with pytest.raises(AssertionError, match="actual and expected"):
        machine.store_is_what_the_model_says()
    machine.teardown()
