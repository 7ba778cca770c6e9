"""Exports and imports of small stores."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace

import orjson
import pytest

from service.configs.export_format import decode
from service.configs.ttl import Ttl
from service.redis_client.client import RedisClient
from service.store.project_configs import ProjectConfigs
from service.store.sessions import Sessions
from service.store.upkeep import project_export, project_import
from service.store.upkeep.partition_check import Check
from service.store.upkeep.project_export import ProjectExport
from service.store.upkeep.project_import import Counts, Item, OnConflict, ProjectImport
from tests.support.filling import PROJECT, add, document_of, session_id
from tests.support.moves import BLOCK_SIZE, record
from tests.support.state_machine import LIMITS

USERS = (None, "alice", 'b"ob')


def take_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many round trips for few sessions."""
    monkeypatch.setattr(project_export, "SESSIONS_BATCH", 3)
    monkeypatch.setattr(project_export, "USERS_BATCH", 2)
    monkeypatch.setattr(project_import, "BATCH", 5)
    monkeypatch.setattr(project_import, "CALL_SESSIONS", 2)


def store(redis: RedisClient, partitions: int) -> Sessions:
    return Sessions(redis, PROJECT, LIMITS, partitions, BLOCK_SIZE)


async def exported(sessions: Sessions) -> list[bytes]:
    """The lines of an export."""
    work = ProjectExport(sessions)
    raw = b"".join([lines async for lines in work.lines()])
    assert work.damaged == []
    return raw.splitlines(keepends=True)


def count_of(lines: Sequence[bytes]) -> int:
    """The number of sessions."""
    return sum(b'"type":"session"' in line for line in lines)


def edited(line: bytes, **members: object) -> bytes:
    """A line with other members."""
    return orjson.dumps(orjson.loads(line) | members)


async def items(lines: Iterable[bytes]) -> AsyncIterator[Item]:
    for number, line in enumerate(lines, 1):
        yield Item(f"line {number}", decode(line))


async def imported(
    sessions: Sessions, lines: Sequence[bytes], on_conflict: OnConflict = "fail", *, new_ids: bool = False
) -> Counts:
    return await ProjectImport(sessions, on_conflict, new_ids).run(items(lines))


async def emptied(redis: RedisClient, partitions: int) -> Sessions:
    """An empty store with the same project; its sessions."""
    await redis.call_on_masters("FLUSHALL", writes=True)
    await record(redis, partitions, BLOCK_SIZE, (PROJECT.slug,))
    return store(redis, partitions)


async def findings(sessions: Sessions) -> list[str]:
    checks = [Check(sessions.redis, partition) for partition in sessions.all_partitions]
    return [str(finding) for check in checks async for finding in check.findings()]


async def filled(redis: RedisClient, partitions: int, count: int = 20) -> Sessions:
    """Make a store of sessions of all kinds, of which several are deleted again."""
    await record(redis, partitions, BLOCK_SIZE, (PROJECT.slug,))
    sessions = store(redis, partitions)
    for number in range(count):
        configs = None if number % 7 == 3 else {"a": number % 2, "own": number, "c": {"d": [number % 3]}}
        await add(sessions, number, configs, USERS[number % 3])
    for number in range(0, count, 5):
        await sessions.patch(session_id(number), document_of({"a": 5, "own": None}))
    for number in range(2, count, 6):
        await sessions.delete(session_id(number))
    for number in range(3, count, 4):
        await sessions.patch(session_id(number), document_of({}), ttl=Ttl(1000 * number))
    await ProjectConfigs(sessions).patch(document_of({"session_ttl": 86400, "other": 1}))
    return sessions


def limited(sessions: Sessions, **limits: int) -> Sessions:
    return Sessions(sessions.redis, PROJECT, replace(LIMITS, **limits), sessions.partitions, BLOCK_SIZE)
