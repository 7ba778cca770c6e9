"""Loading many sessions: ours by the store's CREATE script, many calls a round trip, from two processes; Postgres by COPY."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from typing import NoReturn

import asyncpg
import orjson
from tqdm import tqdm

from scripts.benchmark.dataset import CHUNK, DataSet
from scripts.benchmark.servers import postgres_api as peer
from scripts.benchmark.servers.processes import Postgres
from service.configs.document import document
from service.configs.limits import Limits
from service.store import ownership
from service.store.connection import Link
from service.store.keys import Owner, Partition, all_partitions, partition_number
from service.store.projects import Registry
from service.store.sessions import CREATE

PROCESSES = 2
_CALLS = 250  # a round trip
_TIMEOUT = 60.0  # seconds
_PROJECT = "default"
_LIMITS = Limits()
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

Call = tuple[list[str], list[str | bytes | int]]


def fill_redis(url: str, data: DataSet, label: str, partitions: int = 1) -> None:
    """Create all sessions of `data` in project `default` of the store at `url`, which has so many partitions."""
    owner = asyncio.run(_owned(url, partitions))
    context = get_context("spawn")
    with (
        tqdm(total=data.total, desc=label, unit=" sessions", leave=False) as progress,
        ProcessPoolExecutor(PROCESSES, mp_context=context, initializer=_stand_back) as pool,
    ):
        chunks = [pool.submit(_fill_chunk, url, data, first, owner) for first in range(0, data.total, CHUNK)]
        try:
            for chunk in as_completed(chunks):
                progress.update(chunk.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _stand_back() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's business
    os.nice(10)  # Redis and its SLOWLOG come first


async def _owned(url: str, partitions: int) -> Owner:
    """Let the partitions be the project's, which no server may have created; returns their owner."""
    link = Link.open(url, timeout=_TIMEOUT)
    try:
        owner = Owner((await Registry(link, "").ensure(_PROJECT)).id, partitions)
        await ownership.record(link, all_partitions(_PROJECT, owner, partitions))
        return owner
    finally:
        await link.close()


def _fill_chunk(url: str, data: DataSet, first: int, owner: Owner) -> int:
    last = min(first + CHUNK, data.total)
    partitions = all_partitions(_PROJECT, owner, owner.partitions)
    calls = [
        _create_call(partitions[partition_number(session_id, owner.partitions)], session_id, orjson.dumps(configs))
        for session_id, configs in data.sessions(first, last)
    ]
    asyncio.run(_send(url, calls))
    return len(calls)


def _create_call(partition: Partition, session_id: str, raw: bytes) -> Call:
    stored = document(orjson.loads(raw), raw, _LIMITS)
    # By the names in the script's header, so that another order there changes nothing here.
    keys = {"session": partition.session(session_id), "sessions": partition.sessions, "state": partition.state}
    arguments: dict[str, str | bytes | int] = {
        **dict(zip(("prefix", "block_size", *Owner._fields), partition.arguments, strict=True)),
        "id": session_id,
        "configs": stored.configs,
        "terms": stored.terms,
        "user": "",
        "disable_task_tracking": 0,
        "ttl": 0,
        "conditions": "",
        "max_sessions": 0,
    }
    return [keys[name] for name in CREATE.keys], [arguments[name] for name in CREATE.arguments]


async def _send(url: str, calls: list[Call]) -> None:
    link = Link.open(url, timeout=_TIMEOUT)
    try:
        for first in range(0, len(calls), _CALLS):
            await CREATE.run_many(link, calls[first : first + _CALLS])
    finally:
        await link.close()


async def make_database(postgres: Postgres, name: str, data: DataSet | None, label: str = "") -> None:
    """Make a database with the peer's table and indexes, holding the sessions of `data`."""
    admin = await connect(postgres, "postgres")
    await admin.execute(f"CREATE DATABASE {name}")
    await admin.close()
    connection = await connect(postgres, name)
    try:
        await connection.execute(peer.SCHEMA)
        if data is not None:
            with tqdm(total=data.total, desc=label, unit=" sessions", leave=False) as progress:
                columns = ["id", "project_id", "configs", "created_at", "updated_at"]
                await connection.copy_to_table("sessions", source=_copied(data, progress), columns=columns, format="text")
                progress.set_description(f"{label}, indexes")
                for index in peer.INDEXES:
                    await connection.execute(index)
        else:
            for index in peer.INDEXES:
                await connection.execute(index)
        await connection.execute("VACUUM ANALYZE sessions")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def connect(postgres: Postgres, database: str) -> "asyncpg.Connection":
    """A connection to one database."""
    return await asyncpg.connect(host=postgres.directory, user=peer.USER, database=database)


async def _copied(data: DataSet, progress: "tqdm[NoReturn]") -> AsyncIterator[bytes]:
    # COPY's text format; nothing in this data needs an escape.
    project = str(peer.PROJECT).encode()
    for first in range(0, data.total, CHUNK):
        rows = []
        for offset, (session_id, configs) in enumerate(data.sessions(first, min(first + CHUNK, data.total))):
            at = (_EPOCH + timedelta(microseconds=first + offset)).isoformat().encode()
            rows.append(b"%b\t%b\t%b\t%b\t%b\n" % (session_id.encode(), project, orjson.dumps(configs), at, at))
        yield b"".join(rows)
        progress.update(len(rows))
