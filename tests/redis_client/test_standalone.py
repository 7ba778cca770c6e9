"""A server that is demoted: when its connections are replaced, and that none of them stays open. No server runs."""

from itertools import pairwise
from types import SimpleNamespace

import pytest

from service.redis_client import standalone
from service.redis_client.errors import Closed
from service.redis_client.standalone import Standalone
from service.redis_client.url import parse

TIMEOUT = 1.0  # seconds


def topology_of_one() -> Standalone:
    return Standalone(parse("unix:///nowhere"), timeout=TIMEOUT, min_replicas=0)


async def test_the_time_between_reconnects_doubles_up_to_half_a_timeout_and_starts_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    loop = SimpleNamespace(time=lambda: now)
    monkeypatch.setattr(standalone, "asyncio", SimpleNamespace(get_running_loop=lambda: loop))
    topology = topology_of_one()

    def intervals(count: int) -> list[float]:
        """Refuse as a replica every millisecond; return the seconds between reconnects."""
        nonlocal now
        replaced_at: list[float] = []
        while len(replaced_at) <= count:
            node = topology.route((), None)
            topology._replace(node)
            if topology.route((), None) is not node:
                replaced_at.append(now)
            now += 0.001
        return [later - earlier for earlier, later in pairwise(replaced_at)]

    expected = pytest.approx([0.05, 0.1, 0.2, 0.4, 0.5, 0.5], abs=0.0025)
    assert intervals(6) == expected
    now += TIMEOUT * standalone.RESET_AFTER_TIMEOUTS
    assert intervals(6) == expected
    await topology.close()


async def test_closing_closes_the_connections_to_a_replaced_server_too() -> None:
    topology = topology_of_one()
    replaced = topology.route((), None)
    topology._replace(replaced)
    current = topology.route((), None)
    assert current is not replaced
    await topology.close()
    for node in (replaced, current):
        with pytest.raises(Closed):
            await node.reads.send(b"x")
