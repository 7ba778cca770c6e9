"""Small ways to fill a store, and to see what Redis is asked for."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any
from uuid import UUID

import orjson
import pytest

from service.configs.document import Document
from service.configs.limits import Limits
from service.redis_client.client import RedisClient
from service.redis_client.multiplexer import Command
from service.redis_client.topology import Target, Topology
from service.store import keys, manifest, ownership, script_calls
from service.store.conditions import Conditions, ETags
from service.store.keys import BLOCK_SIZE, Partition, project_key
from service.store.record import Project, Session
from service.store.scripts import run_many
from service.store.sessions import Sessions
from service.store.upkeep import sweeper
from tests.support.redis_servers import EVERY_SERVER
from tests.support.server import PATIENCE

PROJECT = Project("acme", "5b1d8a4e-0000-4000-8000-000000000001")

#: Seconds that a command of the tests' `RedisClient` may take.
TIMEOUT = PATIENCE


#: Runs a test on each of them.
on_every_redis = pytest.mark.parametrize("redis_url", EVERY_SERVER, indirect=True)
#: Gives a test that starts its own the path of each.
with_every_server = pytest.mark.parametrize("server", EVERY_SERVER)


def session_id(number: int) -> str:
    """An id in its canonical form."""
    return str(UUID(int=number))


def document_of(configs: object, limits: Limits | None = None) -> Document:
    """The document of configs given as JSON text, or as a value."""
    raw = configs if isinstance(configs, bytes) else orjson.dumps(configs)
    return Document.build(orjson.loads(raw), raw, limits or Limits())


def only(*tags: str) -> Conditions:
    """If-Match with these ETags."""
    return Conditions(ETags(frozenset(tags)))


async def opened(
    redis: RedisClient, project: Project, limits: Limits, partitions: int = 1, block_size: int = BLOCK_SIZE
) -> Sessions:
    """The sessions of a project whose partitions and record say that they are its, as when it was created."""
    sessions = Sessions(redis, project, limits, partitions, block_size)
    await own(sessions)
    return sessions


async def own(sessions: Sessions) -> None:
    """Let partitions and record say that they are the project's."""
    await ownership.record(sessions.redis, sessions.all_partitions)
    await sessions.redis.call("HSET", project_key(sessions.project.slug), "id", sessions.project.id, writes=True)


async def give_record(redis: RedisClient) -> None:
    """The store's own record, without which a server neither looks up keys nor sweeps."""
    await redis.call("HSET", keys.STORE, "layout", manifest.LAYOUT, "partitions", 1)


async def add(sessions: Sessions, number: int, configs: object, user: str | None = None) -> Session:
    """Create session `number`, and register its user as a request does."""
    document = None if configs is None else document_of(configs)
    session, is_new = await sessions.create_session(session_id(number), document, user=user)
    assert is_new
    return session


async def fill(sessions: Sessions, all_configs: Sequence[object], user: str | None = None) -> list[Session]:
    """Create a session for each of `all_configs`, numbered from 1."""
    return [await add(sessions, number, configs, user) for number, configs in enumerate(all_configs, 1)]


_LAPSE = """
if redis.call("EXISTS", KEYS[1]) == 0 then return false end
local time = redis.call("TIME")
local moment = string.format("%.0f", time[1] * 1000000 + time[2] - 1)
redis.call("HSET", KEYS[1], "expires_at", moment)
redis.call("ZADD", KEYS[2], moment, ARGV[1])
return moment
"""


async def lapse(sessions: Sessions, name: str) -> int:
    """Let the lifetime of a session be over since just now, as if time had passed; returns when it ended, 0 if it is not there.

    Redis's clock cannot be moved; an end that lies before it has the same effect.
    """
    partition = sessions.partition(name)
    return int(await sessions.redis.call("EVAL", _LAPSE, 2, partition.session(name), partition.expiring, name) or 0)


async def sweep_all(sessions: Sessions) -> None:
    """Remove every expired session of the project, however many there are."""
    for partition in await sweeper.partitions_with_expired(sessions.redis, sessions.all_partitions):
        while await sweeper.expire(sessions.redis, partition, await sweeper.expired_ids(sessions.redis, partition)):
            pass


async def keyspace(redis: RedisClient) -> dict[str, Any]:
    """Every key with its content: dict for a hash, set for a set, dict member → score for a sorted set."""
    readers: Mapping[bytes, tuple[str, ...]] = {
        b"hash": ("HGETALL",),
        b"set": ("SMEMBERS",),
        b"zset": ("ZRANGE", "0", "-1", "WITHSCORES"),
    }
    contents: dict[str, Any] = {}
    names = [name for reply in await redis.call_on_masters("KEYS", "*") for name in reply]
    kinds = await redis.batch([("TYPE", name) for name in names])
    commands: list[Command] = [(readers[kind][0], name, *readers[kind][1:]) for name, kind in zip(names, kinds, strict=True)]
    for name, kind, reply in zip(names, kinds, await redis.batch(commands), strict=True):
        pairs = dict(zip(reply[::2], reply[1::2], strict=True)) if kind != b"set" else {}
        if kind == b"zset":
            contents[name.decode()] = {member: int(float(score)) for member, score in pairs.items()}
        else:
            contents[name.decode()] = set(reply) if kind == b"set" else pairs
    return contents


class CountingClient(RedisClient):
    """A `RedisClient` that records every command and its reply."""

    def __init__(self, topology: Topology, *, timeout: float) -> None:
        super().__init__(topology, timeout=timeout)
        self.seen: list[tuple[Command, Any]] = []

    async def call(self, *command: str | bytes | int, writes: bool = False, near: Target | None = None) -> Any:  # noqa: ANN401 - as `RedisClient.call`
        reply = await super().call(*command, writes=writes, near=near)
        self.seen.append((command, reply))
        return reply

    async def batch(self, commands: Sequence[Command], *, writes: bool = False, near: Target | None = None) -> list[Any]:
        replies = await super().batch(commands, writes=writes, near=near)
        self.seen += zip(commands, replies, strict=True)
        return replies


async def fill_with_disjoint_terms(partition: Partition, redis: RedisClient, blocks: int) -> None:
    """Fill a partition's index with serials that have either `a=1` or `b=1`, as if their sessions were lost."""
    await redis.call("ZADD", partition.sessions, blocks * BLOCK_SIZE - 1, "last", writes=True)
    for block, (offset, term) in product(range(blocks), enumerate(("a=1", "b=1"))):
        serials = range(block * BLOCK_SIZE + offset, (block + 1) * BLOCK_SIZE, 2)
        await redis.call("SADD", f"{partition.prefix}index:{block}:{term}", *serials, writes=True)
        await redis.call("SADD", f"{partition.prefix}blocks:{term}", block, writes=True)


async def pour(sessions: Sessions, all_configs: Sequence[object]) -> list[str]:
    """As `fill`, in few round trips; returns the ids."""
    calls = []
    for number, configs in enumerate(all_configs, 1):
        document, name = document_of(configs), session_id(number)
        partition = sessions.partition(name)
        calls.append(
            script_calls.create(
                session=partition.session(name),
                sessions=partition.sessions,
                state=partition.state,
                partition=partition.arguments,
                session_id=name,
                configs=document.configs,
                terms=document.terms,
                user="",
                disable_task_tracking=0,
                ttl=0,
                conditions="",
                max_sessions=0,
            )
        )
    for first in range(0, len(calls), 500):
        await run_many(sessions.redis, calls[first : first + 500])
    return [session_id(number) for number in range(1, len(calls) + 1)]
