"""What is asked of Redis as a whole and not of a key: how many keys it has, which they are, and who is connected."""

import re
from collections.abc import AsyncIterator, Callable

from service.redis_client.client import NAME_PREFIX, PARTITIONS_LABEL, RedisClient

#: Keys looked at a call: what a scan may ask of a live Redis at once.
SCAN_BATCH = 500


async def key_count(redis: RedisClient) -> int:
    """How many keys there are, whosever they are."""
    return sum(await redis.call_on_masters("DBSIZE"))


async def scan(
    redis: RedisClient, match: str, progress: Callable[[int], object] = lambda _: None
) -> AsyncIterator[list[bytes]]:
    """The keys that `match`, some at a time: all that are there from beginning to end, some of them twice.

    `progress` is called with the number of keys just passed, whether they match or not: `key_count` in all.
    """
    for master in await redis.masters():
        cursor, ahead = b"", await redis.call("DBSIZE", near=master)
        while cursor != b"0":
            cursor, names = await redis.call("SCAN", cursor or 0, "MATCH", match, "COUNT", SCAN_BATCH, near=master)
            # SCAN does not tell how many keys it has passed; it is about as many as it was asked to.
            passed = min(SCAN_BATCH, ahead)
            ahead -= passed
            yield names
            progress(passed)
        progress(ahead)


async def others_connected(redis: RedisClient) -> list[str]:
    """Addresses from which servers and commands of this service are connected, those of `redis` left out.

    Raises:
        redis.ResponseError: Redis does not tell.
    """
    clients = await _clients(redis)
    return [client["addr"] for client in clients if client["name"] != redis.name]


async def partitions_of_servers(redis: RedisClient) -> set[int]:
    """The numbers of partitions that the connected servers of this service were started with.

    Raises:
        redis.ResponseError: Redis does not tell.
    """
    labels = [client["name"].rpartition(":")[2] for client in await _clients(redis)]
    return {int(label[1:]) for label in labels if label[:1] == PARTITIONS_LABEL and label[1:].isdigit()}


async def _clients(redis: RedisClient) -> list[dict[str, str]]:
    """The connections of this service, as CLIENT LIST describes them."""
    lines = [line for listed in await redis.call_on_masters("CLIENT", "LIST") for line in listed.decode().splitlines()]
    clients = [dict(pair.partition("=")[::2] for pair in line.split(" ")) for line in lines]
    return [client for client in clients if client["name"].startswith(NAME_PREFIX)]


def escaped(text: str) -> str:
    """`text` as a pattern that matches nothing else."""
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)
