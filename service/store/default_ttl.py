"""The default lifetime of a project's sessions: `session_ttl` in the project's own configs.

A session is created by one script on the keys of one partition, and the project's record is none of those. So every partition's
`state` has the value too, with the revision of the configs that say so: of two changes at once the later one stays, here as
there. A change of the configs is answered when every partition knows of it.
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
    """Let `partitions` know the default lifetime that the configs of `revision` ask for."""
    calls = [
        script_calls.set_session_ttl(state=each.state, owner=each.owner, revision=revision, ttl=ttl.seconds or "")
        for each in partitions
    ]
    await run_many(redis, calls)


async def is_current(redis: RedisClient, partition: Partition) -> bool:
    """Whether `partition` knows what the project's configs ask for, and would learn of a change of them."""
    project = keys.project_key(partition.slug)
    (ttl, known), (configs, revision) = checked(
        await redis.batch(
            [
                ("HMGET", partition.state, NAME, "session_ttl_revision"),
                ("HMGET", project, "configs", "configs_revision"),
            ]
        )
    )
    is_readable = known is None or known.isdigit()
    is_current = is_readable and _revision(known) <= _revision(revision)
    return is_current and (ttl or b"0") == b"%d" % default_ttl(configs).seconds


def _revision(text: bytes | None) -> int:
    """A revision as it is stored, 0 where there is none or it cannot be read."""
    return int(text) if text is not None and text.isdigit() else 0


async def republish(redis: RedisClient, partition: Partition) -> None:
    """Let `partition` know what the project's configs ask for, whatever it knows."""
    project = keys.project_key(partition.slug)
    known = _revision(await redis.call("HGET", partition.state, "session_ttl_revision"))
    # In this order: a change that comes between is read, and told again under its own, later revision.
    revision, configs = checked(
        await redis.batch([("HINCRBY", project, "configs_revision", 1), ("HGET", project, "configs")], writes=True)
    )
    if known >= revision:
        # A revision that was lost: the next ones must be above what partitions know.
        revision = await redis.call("HINCRBY", project, "configs_revision", known - revision + 1, writes=True)
    await publish(redis, [partition], revision, default_ttl(configs))
