"""What concerns Redis as a whole and no key: the number of keys (DBSIZE), the keys (SCAN), the clients (CLIENT LIST)."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable

from service.redis_client.client import NAME_PREFIX, PARTITIONS_LABEL, RedisClient

#: COUNT of a SCAN: the keys that one call may look at, so that it does not hold up a live Redis.
SCAN_BATCH = 500
#: Seconds between two looks at the size of the append-only file.
APPEND_CHECK_INTERVAL = 0.02


async def key_count(redis: RedisClient) -> int:
    """The number of keys on all masters, including those of other applications."""
    return sum(await redis.call_on_masters("DBSIZE"))


async def scan(
    redis: RedisClient, match: str, progress: Callable[[int], object] = lambda _: None
) -> AsyncIterator[list[bytes]]:
    """The keys that `match` the glob pattern, in batches.

    Every key that exists from start to end is returned at least once; a key may be returned twice.
    `progress` is called with the number of keys that SCAN has just passed, whether they match or not: `key_count` in total.
    """
    for master in await redis.masters():
        cursor, remaining = b"", await redis.call("DBSIZE", near=master)
        while cursor != b"0":
            cursor, batch = await redis.call("SCAN", cursor or 0, "MATCH", match, "COUNT", SCAN_BATCH, near=master)
            # SCAN does not say how many keys it has passed; it is about COUNT.
            passed = min(SCAN_BATCH, remaining)
            remaining -= passed
            yield batch
            progress(passed)
        progress(remaining)


async def addresses_of_other_clients(redis: RedisClient) -> list[str]:
    """The addresses from which servers and commands of this service are connected, without those of `redis` itself.

    Raises:
        redis.ResponseError: Redis refuses CLIENT LIST.
    """
    clients = await _clients(redis)
    return [client["addr"] for client in clients if client["name"] != redis.name]


async def partition_counts_of_servers(redis: RedisClient) -> set[int]:
    """The numbers of partitions that the connected servers of this service were started with.

    Raises:
        redis.ResponseError: Redis refuses CLIENT LIST.
    """
    labels = [client["name"].rpartition(":")[2] for client in await _clients(redis)]
    return {int(label[1:]) for label in labels if label[:1] == PARTITIONS_LABEL and label[1:].isdigit()}


async def _clients(redis: RedisClient) -> list[dict[str, str]]:
    """The connections of this service, each as the fields of its line in CLIENT LIST."""
    lines = [line for reply in await redis.call_on_masters("CLIENT", "LIST") for line in reply.decode().splitlines()]
    clients = [dict(pair.partition("=")[::2] for pair in line.split(" ")) for line in lines]
    return [client for client in clients if client["name"].startswith(NAME_PREFIX)]


async def wait_until_appended(redis: RedisClient) -> None:
    """Wait until a single Redis has written what it acknowledged so far to its append-only file; it may delay that."""
    before = await _append_status(redis)
    target = before["aof_current_size"] + before["aof_buffer_length"]
    while True:
        status = await _append_status(redis)
        # After a rewrite, the file starts with all of it.
        if status["aof_current_size"] >= target or status["aof_base_size"] != before["aof_base_size"]:
            return
        await asyncio.sleep(APPEND_CHECK_INTERVAL)


async def _append_status(redis: RedisClient) -> dict[str, int]:
    lines = (await redis.call("INFO", "persistence", near=0)).decode().splitlines()
    pairs = (line.partition(":")[::2] for line in lines if line.startswith("aof_"))
    return {name: int(value) for name, value in pairs if value.isdigit()}


def escape_glob(text: str) -> str:
    """`text` as a glob pattern of Redis that matches only itself."""
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)
