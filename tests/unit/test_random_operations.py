"""The machine of `tests/support/machine.py` on fakeredis: fast, and no claim about Redis."""

import fakeredis
import pytest

from tests.support.fake_client import FakeClient
from tests.support.machine import try_out


@pytest.mark.parametrize(("partitions", "block_size"), [(1, 4), (3, 16)])
def test_after_any_operations_a_fake_store_is_what_the_model_says(partitions: int, block_size: int) -> None:
    server = fakeredis.FakeServer()
    try_out(
        lambda: FakeClient(server),
        partitions=partitions, block_size=block_size, examples=10, steps=20,
    )  # fmt: skip
