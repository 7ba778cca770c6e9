"""The default TTL of a project's sessions: `session_ttl` in the project's own configs.

One script creates a session, on the keys of one partition, and the project's record is not among them. So the `state` of every
partition contains the value too, with the revision of the configs that set it: of two concurrent changes, the later one wins in
both places. A change of the configs is acknowledged when every partition has it.
"""

from collections.abc import Sequence

import orjson

from service.configs.ttl import NO_EXPIRY, Ttl, parse_ttl
from service.errors import BadRequest
from service.redis_client.client import RedisClient, checked
from service.store import keys, script_calls
from service.store.keys import Partition
from service.store.scripts import run_many

NAME = "session_ttl"


def default_ttl(configs: bytes | None) -> Ttl:
    """The default TTL in a project's stored configs; `NO_EXPIRY` if there is none, or a manual edit made it invalid."""
    try:
        values = orjson.loads(configs or b"{}")
        return parse_ttl(values.get(NAME), NAME) if isinstance(values, dict) else NO_EXPIRY
    except (orjson.JSONDecodeError, BadRequest):
        return NO_EXPIRY


async def publish(redis: RedisClient, partitions: Sequence[Partition], revision: int, ttl: Ttl) -> None:
    """Copy the default TTL that the configs of `revision` contain to `partitions`."""
    calls = [
        script_calls.set_session_ttl(state=each.state, owner=each.owner, revision=revision, ttl=ttl.seconds or "")
        for each in partitions
    ]
    await run_many(redis, calls)


async def is_current(redis: RedisClient, partition: Partition) -> bool:
    """Whether `partition` has the TTL in the project's configs, and would accept a later one."""
    project = keys.project_key(partition.slug)
    (ttl, published), (configs, revision) = checked(
        await redis.batch(
            [
                ("HMGET", partition.state, NAME, "session_ttl_revision"),
                ("HMGET", project, "configs", "configs_revision"),
            ]
        )
    )
    is_readable = published is None or published.isdigit()
    is_current = is_readable and _revision(published) <= _revision(revision)
    return is_current and (ttl or b"0") == b"%d" % default_ttl(configs).seconds


def _revision(text: bytes | None) -> int:
    """A stored revision; 0 if there is none or it cannot be read."""
    return int(text) if text is not None and text.isdigit() else 0


async def republish(redis: RedisClient, partition: Partition) -> None:
    """Copy the TTL in the project's configs to `partition`, whatever revision the partition has."""
    project = keys.project_key(partition.slug)
    published = _revision(await redis.call("HGET", partition.state, "session_ttl_revision"))
    # In this order: a change in between is read here, and published again under its own, later revision.
    revision, configs = checked(
        await redis.batch([("HINCRBY", project, "configs_revision", 1), ("HGET", project, "configs")], writes=True)
    )
    if published >= revision:
        # The project's revision was lost: the next ones must be above those of the partitions.
        revision = await redis.call("HINCRBY", project, "configs_revision", published - revision + 1, writes=True)
    await publish(redis, [partition], revision, default_ttl(configs))
