"""What a move to another number of partitions should leave, computed from what was there; and links that fail on the way."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import orjson

from service.configs.limits import Limits
from service.redis_client.client import RedisClient
from service.redis_client.multiplexer import Command
from service.redis_client.topology import Target, Topology
from service.store.keys import PROJECTS, STORE, Partition, partition_number, project_key
from service.store.manifest import LAYOUT
from service.store.record import Project
from service.store.sessions import Sessions
from service.store.upkeep import repartition
from tests.support.filling import PROJECT, TIMEOUT, add, keyspace, opened, own, session_id
from tests.support.model import index_from_documents

Keyspace = Mapping[str, Any]

#: Of the stores that are moved, and of how many sessions `small_store` is.
BLOCK_SIZE, COUNT = 4, 12

_OF_A_PARTITION = re.compile(r"scc:\{([a-z0-9-]+)\.\d+\}:(.*)", re.DOTALL)


async def record(redis: RedisClient, partitions: int, block_size: int, slugs: Sequence[str]) -> None:
    """Make the store's own record, and that of its projects."""
    await redis.call("HSET", STORE, "layout", LAYOUT, "partitions", partitions, "block_size", block_size)
    projects = [Project(slug, PROJECT.id if slug == PROJECT.slug else f"id of {slug}") for slug in slugs]
    await redis.call("HSET", PROJECTS, *(part for project in projects for part in (project.slug, project.id)))
    for project in projects:
        await own(Sessions(redis, project, Limits(), partitions, block_size))


async def small_store(redis: RedisClient) -> Keyspace:
    """Make a store of one partition; what it holds."""
    await record(redis, 1, BLOCK_SIZE, (PROJECT.slug,))
    sessions = await opened(redis, PROJECT, Limits(), 1, BLOCK_SIZE)
    for number in range(COUNT):
        await add(sessions, number, {"a": number % 2, "own": number}, "alice")
    return await keyspace(redis)


async def move(redis: RedisClient, partitions: int, wait: float = 0.0) -> None:
    """Move the store."""
    await repartition.repartition(redis, partitions, wait=wait)


def home(number: int, partitions: int) -> str:
    """Key of session `number` in a store of `partitions`."""
    name = session_id(number)
    return Partition(PROJECT.slug, partition_number(name, partitions)).session(name)


#: A session of the small store that two partitions do not put into the first.
STRAY = next(number for number in range(COUNT) if partition_number(session_id(number), 2))


def after_move(before: Keyspace, partitions: int) -> dict[str, Any]:
    """Every key that should be there after a move of the store `before`, and what it should hold."""
    block_size = int(before[STORE][b"block_size"])
    right = {name: held for name, held in before.items() if not _OF_A_PARTITION.match(name)}
    right[STORE] = {**before[STORE], b"partitions": b"%d" % partitions}
    right |= _states(before, partitions)
    sessions: dict[str, list[tuple[int, str, dict[bytes, bytes]]]] = defaultdict(list)
    newest: dict[str, int] = defaultdict(int)
    for name, held in before.items():
        match = _OF_A_PARTITION.match(name)
        if match is not None and match[2].startswith("session:"):
            sessions[match[1]].append((int(held[b"created_at"]), match[2].removeprefix("session:"), held))
        elif match is not None and match[2] == "state":
            newest[match[1]] = max(newest[match[1]], int(held.get(b"created_at", 0)))
    for slug, last in newest.items():
        serials = [0] * partitions
        for _, name, held in sorted(sessions[slug], key=lambda each: each[:2]):
            partition = Partition(slug, partition_number(name, partitions), block_size)
            serials[partition.number] += 1
            right[partition.session(name)] = {**held, b"serial": b"%d" % serials[partition.number]}
            right.setdefault(partition.sessions, {})[name.encode()] = serials[partition.number]
            if b"expires_at" in held:
                right.setdefault(partition.expiring, {})[name.encode()] = int(held[b"expires_at"])
        for number, serial in enumerate(serials):
            partition = Partition(slug, number, block_size)
            if last:
                right[partition.state] |= {b"serial": b"%d" % serial, b"created_at": b"%d" % last}
            right |= index_from_documents(right, partition)
    return right


def _states(before: Keyspace, partitions: int) -> dict[str, Any]:
    """The states of all partitions, with their owners and what they should know of their project's default lifetime."""
    states: dict[str, Any] = {}
    for slug, project_id in ((slug.decode(), project_id) for slug, project_id in before[PROJECTS].items()):
        project = before.get(project_key(slug), {})
        state = {b"project_id": project_id, b"partitions": b"%d" % partitions}
        if b"configs_revision" in project:
            ttl = orjson.loads(project[b"configs"]).get("session_ttl", 0)
            state |= {b"session_ttl_revision": project[b"configs_revision"]} | ({b"session_ttl": b"%d" % ttl} if ttl else {})
        states |= {Partition(slug, number).state: dict(state) for number in range(partitions)}
    return states


async def restore(redis: RedisClient, held: Keyspace) -> None:
    """Make the keyspace what `tests.support.filling.keyspace` said it was."""
    commands: list[Command] = [("FLUSHALL",)]
    for name, content in held.items():
        if isinstance(content, set):
            commands.append(("SADD", name, *content))
        elif all(isinstance(value, int) for value in content.values()):
            commands.append(("ZADD", name, *(part for member, score in content.items() for part in (score, member))))
        else:
            commands.append(("HSET", name, *(part for pair in content.items() for part in pair)))
    await redis.batch(commands)


class Interrupted(Exception):
    """The process was killed."""


class FragileClient(RedisClient):
    """A link whose process is killed at round trip `last`: some of its commands have reached Redis, others have not.

    Any of them, as when they go to several nodes.
    """

    def __init__(self, topology: Topology, *, timeout: float = TIMEOUT) -> None:
        super().__init__(topology, timeout=timeout)
        self.last = -1
        self.random = Random(0)

    def kill_at(self, last: int, seed: int) -> "FragileClient":
        self.last, self.random = last, Random(seed)
        return self

    async def call(self, *command: str | bytes | int, writes: bool = False, near: Target | None = None) -> Any:  # noqa: ANN401 - as `RedisClient.call`
        reached = self._reached([command])
        reply = await super().call(*command, writes=writes, near=near) if reached else None
        if self.last == 0:
            raise Interrupted
        self.last -= 1
        return reply

    async def batch(self, commands: Sequence[Command], *, writes: bool = False, near: Target | None = None) -> list[Any]:
        replies = await super().batch(self._reached(commands), writes=writes, near=near)
        if commands and self.last == 0:
            raise Interrupted
        self.last -= bool(commands)
        return replies

    def _reached(self, commands: Sequence[Command]) -> Sequence[Command]:
        return [command for command in commands if self.last or self.random.random() < 0.5]
