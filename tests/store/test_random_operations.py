"""Random operations on a real Redis, beside a model: documents, index and times are as they must be after each of them."""

import pytest

from service.redis_client.client import RedisClient
from tests.support.filling import TIMEOUT, on_every_redis
from tests.support.machine import try_out


@on_every_redis
@pytest.mark.parametrize(("partitions", "block_size"), [(1, 4), (3, 16), (1, 4096)])
def test_after_any_operations_the_store_is_what_the_model_says(redis_url: str, partitions: int, block_size: int) -> None:
    try_out(
        lambda: RedisClient.open(redis_url, timeout=TIMEOUT),
        partitions=partitions,
        block_size=block_size,
        examples=10,
        steps=60,
    )
