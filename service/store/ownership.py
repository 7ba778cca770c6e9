"""The owner of a partition: `project_id` and `partitions` (how many the store has) in its `state`.

A request's key is checked with its head, and its write may come half a minute later. Until then its project may be deleted, or
created again under the same name, and the store may be repartitioned. So every script that writes compares both fields first
(`lua/include/ownership.lua`), and a command that takes a partition from its writers changes a field first:

    `project delete`   project_id is `DELETED`; the state goes with the project
    `repartition`      partitions is `MOVING`, until every session is in its new partition
"""

from collections.abc import Sequence
from typing import Any

from service.errors import LayoutChanged, StateIncomplete, Unauthorized
from service.redis_client.client import RedisClient, checked
from service.redis_client.multiplexer import Command
from service.store.keys import Partition

#: A `project_id` and a number of `partitions` that match no request.
DELETED, MOVING = "deleted", 0

#: Commands a round trip.
BATCH = 500


async def record(redis: RedisClient, partitions: Sequence[Partition]) -> None:
    """Write the owner of each partition into its state."""
    await _run(redis, [("HSET", partition.state, *_fields(partition)) for partition in partitions], writes=True)


async def complete(redis: RedisClient, partitions: Sequence[Partition]) -> None:
    """Like `record`, for states without an owner; existing owners stay.

    Reads first: a server must start on a full store, which refuses writes.
    """
    pairs = [(partition.state, name, value) for partition in partitions for name, value in partition.owner._asdict().items()]
    stored = await _run(redis, [("HGET", state, name) for state, name, _ in pairs])
    missing = [pair for pair, value in zip(pairs, stored, strict=True) if value is None]
    await _run(redis, [("HSETNX", *pair) for pair in missing], writes=True)


async def confirm(redis: RedisClient, partition: Partition) -> None:
    """Compare the owner of a partition with the caller's, as the scripts that write do.

    Raises:
        Unauthorized: it belongs to another project.
        LayoutChanged: the store has another number of partitions, or a repartition is running.
        StateIncomplete: its state names no owner.
    """
    project_id, partitions = await redis.call("HMGET", partition.state, "project_id", "partitions")
    if project_id is None or partitions is None:
        raise StateIncomplete
    if project_id != partition.owner.project_id.encode():
        raise Unauthorized
    if partitions != b"%d" % partition.owner.partitions:
        raise LayoutChanged


def _fields(partition: Partition) -> tuple[str | int, ...]:
    return tuple(part for pair in partition.owner._asdict().items() for part in pair)


async def _run(redis: RedisClient, commands: Sequence[Command], *, writes: bool = False) -> list[Any]:
    replies: list[Any] = []
    for first in range(0, len(commands), BATCH):
        replies += checked(await redis.batch(commands[first : first + BATCH], writes=writes))
    return replies
