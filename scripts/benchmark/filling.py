"""Loading many sessions: into our store by its own script, many calls a round trip from two processes; into Postgres by COPY.

The functions `create_call` and `patch_call` are the only ones in the benchmark that call the store's scripts.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from typing import NoReturn

import orjson
from tqdm import tqdm

from scripts.benchmark.dataset import CHUNK, Configs, DataSet
from scripts.benchmark.servers.postgres import INDEXES, PROJECT, SCHEMA, Postgres
from service.configs.document import Document
from service.configs.limits import Limits
from service.redis_client.client import RedisClient
from service.store import ownership, script_calls
from service.store.keys import Owner, Partition, all_partitions, partition_number
from service.store.projects import Registry
from service.store.script_calls import StatusReply
from service.store.scripts import Call, run_many

_PROCESSES = 2
_CALLS = 250  # a round trip
_TIMEOUT = 60.0  # seconds
_PROJECT = "default"
_LIMITS = Limits()
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def create_call(partition: Partition, session_id: str, configs: Configs) -> Call[StatusReply]:
    """A call that creates a session."""
    raw = orjson.dumps(configs)
    parsed = Document.build(configs, raw, _LIMITS)
    return script_calls.create(
        session=partition.session(session_id),
        sessions=partition.sessions,
        state=partition.state,
        partition=partition.arguments,
        session_id=session_id,
        configs=parsed.configs,
        terms=parsed.terms,
        user="",
        disable_task_tracking=0,
        ttl=0,
        conditions="",
        max_sessions=0,
    )


def patch_call(partition: Partition, session_id: str, changes: Configs) -> Call[StatusReply]:
    """A call that merges `changes` into a session's configs."""
    return script_calls.patch(
        session=partition.session(session_id),
        partition=partition.arguments,
        conditions="",
        ttl="",
        max_bytes=_LIMITS.max_configs_bytes,
        max_keys=_LIMITS.max_keys,
        max_terms=_LIMITS.max_terms,
        members=[
            part
            for member in Document.build(changes, orjson.dumps(changes), _LIMITS).members
            for part in (member.key, member.value, member.terms)
        ],
    )


def fill_redis(url: str, data: DataSet, label: str, partitions: int = 1) -> None:
    """Create all sessions of `data` in project `default` of the store at `url`, which has `partitions` partitions."""
    owner = asyncio.run(_create_project(url, partitions))
    context = get_context("spawn")
    with (
        tqdm(total=data.total, desc=label, unit=" sessions", leave=False) as progress,
        ProcessPoolExecutor(_PROCESSES, mp_context=context, initializer=_initialize_process) as pool,
    ):
        chunks = [pool.submit(_fill_chunk, url, data, first, owner) for first in range(0, data.total, CHUNK)]
        try:
            for chunk in as_completed(chunks):
                progress.update(chunk.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _initialize_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    os.nice(10)  # so that Redis keeps the processor, and SLOWLOG shows no waiting


async def _create_project(url: str, partitions: int) -> Owner:
    """Create the project if no server has done so, and record it as the owner of its partitions."""
    redis = RedisClient.open(url, timeout=_TIMEOUT)
    try:
        owner = Owner((await Registry(redis, "").ensure(_PROJECT)).id, partitions)
        await ownership.record(redis, all_partitions(_PROJECT, owner, partitions))
        return owner
    finally:
        await redis.close()


def _fill_chunk(url: str, data: DataSet, first: int, owner: Owner) -> int:
    last = min(first + CHUNK, data.total)
    partitions = all_partitions(_PROJECT, owner, owner.partitions)
    calls = [
        create_call(partitions[partition_number(session_id, owner.partitions)], session_id, configs)
        for session_id, configs in data.sessions(first, last)
    ]
    asyncio.run(_run_calls(url, calls))
    return len(calls)


async def _run_calls(url: str, calls: list[Call[StatusReply]]) -> None:
    redis = RedisClient.open(url, timeout=_TIMEOUT)
    try:
        for first in range(0, len(calls), _CALLS):
            await run_many(redis, calls[first : first + _CALLS])
    finally:
        await redis.close()


async def fill_postgres(postgres: Postgres, database: str, data: DataSet, label: str) -> None:
    """Create a database with Acontext's table and indexes and the sessions of `data`."""
    await postgres.execute("postgres", f"CREATE DATABASE {database}")
    connection = await postgres.connect(database)
    try:
        await connection.execute(SCHEMA)
        with tqdm(total=data.total, desc=label, unit=" sessions", leave=False) as progress:
            columns = ["id", "project_id", "configs", "created_at", "updated_at"]
            await connection.copy_to_table("sessions", source=_copy_lines(data, progress), columns=columns, format="text")
            progress.set_description(f"{label}, indexes")
            for index in INDEXES:
                await connection.execute(index)
        await connection.execute("VACUUM ANALYZE sessions")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def _copy_lines(data: DataSet, progress: "tqdm[NoReturn]") -> AsyncIterator[bytes]:
    # The text format of COPY. Nothing in this data needs an escape.
    project = str(PROJECT).encode()
    for first in range(0, data.total, CHUNK):
        lines = []
        for offset, (session_id, configs) in enumerate(data.sessions(first, min(first + CHUNK, data.total))):
            created_at = (_EPOCH + timedelta(microseconds=first + offset)).isoformat().encode()
            values = (session_id.encode(), project, orjson.dumps(configs), created_at, created_at)
            lines.append(b"\t".join(values) + b"\n")
        yield b"".join(lines)
        progress.update(len(lines))
