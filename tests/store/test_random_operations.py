"""Random operations on a real Redis, compared with a model: documents, index and times are correct after each of them."""

import pytest

from service.redis_client.client import RedisClient
from tests.support.filling import TIMEOUT, on_every_redis
from tests.support.state_machine import StoreMachine, run_random_operations


@on_every_redis
@pytest.mark.parametrize(("partitions", "block_size"), [(1, 4), (3, 16), (1, 4096)])
def test_random_operations_leave_the_store_as_the_model(redis_url: str, partitions: int, block_size: int) -> None:
    def machine() -> StoreMachine:
        return StoreMachine(lambda: RedisClient.open(redis_url, timeout=TIMEOUT), partitions, block_size)

    run_random_operations(machine, examples=10, steps=60)
