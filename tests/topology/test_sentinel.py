"""The server that Sentinels name is only used if its ROLE agrees; without an answer a call fails in time."""

import pytest

from service.errors import StoreUnavailable
from service.redis_client.client import RedisClient
from tests.support.topology_servers import HOST, Sentinels

SHORT = 0.5  # seconds


@pytest.mark.parametrize("writes", [False, True])
async def test_unreachable_sentinels_and_unknown_master_names_fail_a_call_in_time(sentinels: Sentinels, writes: bool) -> None:
    for url in (f"redis+sentinel://{HOST}:1,{HOST}:2/store", sentinels.url.replace("/store", "/other")):
        redis = RedisClient.open(url, timeout=SHORT)
        with pytest.raises(StoreUnavailable) as raised:
            await redis.call("SET", "a", "1", writes=writes)
        assert raised.type is StoreUnavailable
        await redis.close()


async def test_one_sentinel_that_answers_is_enough(sentinels: Sentinels) -> None:
    redis = RedisClient.open(sentinels.url.replace("//", f"//{HOST}:1,{HOST}:2,"), timeout=30)
    assert await redis.call("SET", "a", "1", writes=True) == b"OK"
    assert await redis.endpoint_of("a") == (HOST, sentinels.master().port)
    await redis.close()


async def test_a_demoted_master_is_neither_written_nor_read(sentinels: Sentinels) -> None:
    redis = RedisClient.open(sentinels.url, timeout=SHORT)
    master = sentinels.master()
    other = next(server for server in sentinels.servers if server is not master)
    assert await redis.call("SET", "a", "1", writes=True) == b"OK"
    # The Sentinels do not notice yet and still name it.
    master.ask("REPLICAOF", HOST, other.port)
    try:
        with pytest.raises(StoreUnavailable) as raised:
            await redis.call("SET", "a", "2", writes=True)
        assert raised.type is StoreUnavailable
        with pytest.raises(StoreUnavailable):
            await redis.call("GET", "a")
    finally:
        master.ask("REPLICAOF", "NO", "ONE")
    assert await redis.call("GET", "a") == b"1"
    assert await redis.call("SET", "a", "2", writes=True) == b"OK"
    await redis.close()
