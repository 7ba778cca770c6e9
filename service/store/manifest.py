"""The manifest of the store, `scc:store`: its layout, which versions may use it, and whether a repartition is unfinished.

During a repartition it has `moving_to`, `moving_phase` and `moving_sessions` (see `service.store.upkeep.repartition`), and
nothing else may use the store.

`oldest_reader` and `oldest_writer` are the oldest versions that may read and write the store. A release that changes the layout
raises `LAYOUT`, and raises these two only where older releases would misread or damage its data. So it can run next
to them. Releases older than these fields compare `layout` alone.

A store that was restored from a backup has a `generation`, which no other restored store has. It is the first part of every
ETag: revisions continue from those of the backup, so an ETag from after the backup would otherwise name another state. That is
layout 2; older releases, which do not know it, may not use such a store.
"""

import time
from dataclasses import dataclass, fields
from typing import Self

from service.errors import LayoutChanged, StartupError, StoreEmpty, StoreUnavailable
from service.redis_client.client import RedisClient
from service.store import keys

#: The version of the arrangement of the keys that this release reads and writes.
LAYOUT = 2
#: The versions in a new manifest: the oldest that can read and write what this release writes.
VERSIONS = {"layout": "1", "oldest_reader": "1", "oldest_writer": "1"}
#: The versions in the manifest of a store that has a generation.
VERSIONS_RESTORED = {"layout": "2", "oldest_reader": "2", "oldest_writer": "2"}

NO_STORE = "this Redis holds no store"

_DAMAGED = "the manifest of this store, scc:store, is damaged; restore its fields partitions and block_size"

_MOVE = ("moving_to", "moving_phase", "moving_sessions")


@dataclass(frozen=True, slots=True)
class Move:
    """An unfinished move: the number of partitions, the phase, and how many sessions were listed before it."""

    target: int
    phase: str
    sessions: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """The part of the manifest that commands use."""

    partitions: int
    block_size: int
    move: Move | None


@dataclass(frozen=True, slots=True)
class _Access:
    """The fields that decide who may use the store, as they are stored; None where one is missing."""

    partitions: bytes | None
    moving_to: bytes | None
    layout: bytes | None
    oldest_reader: bytes | None
    oldest_writer: bytes | None
    generation: bytes | None

    @classmethod
    async def load(cls, redis: RedisClient) -> Self:
        return cls(*await redis.call("HMGET", keys.STORE, *(item.name for item in fields(cls))))

    @property
    def is_missing(self) -> bool:
        return self.partitions is None and self.layout is None

    def version_problem(self, *, writes: bool) -> str | None:
        """Why this release may not use the store; None if it may."""
        if self.oldest_reader is None or self.oldest_writer is None:
            if self.layout is None or (self.layout.isdigit() and int(self.layout) <= LAYOUT):
                return None
            return f"this store was created with layout {_text(self.layout)}, not {LAYOUT}"
        if not (self.oldest_reader.isdigit() and self.oldest_writer.isdigit()):
            return _DAMAGED
        if int(self.oldest_reader) > LAYOUT:
            return _too_old("read", self.oldest_reader)
        return _too_old("write to", self.oldest_writer) if writes and int(self.oldest_writer) > LAYOUT else None


def _too_old(verb: str, oldest: bytes) -> str:
    return f"only releases with layout {_text(oldest)} or newer may {verb} this store; this release has layout {LAYOUT}"


def _text(field: bytes | None) -> str:
    return "?" if field is None else field.decode(errors="replace")


async def read(redis: RedisClient, *, writes: bool = True) -> Layout:
    """The manifest. `writes`: the caller writes to the store.

    Raises:
        StartupError: there is none, it is damaged, or this release may not use the store.
    """
    record = await _Access.load(redis)
    _require_usable(record, writes=writes)
    block_size, target, phase, sessions = await redis.call("HMGET", keys.STORE, "block_size", *_MOVE)
    try:
        move = None if target is None else Move(int(target), phase.decode(), int(sessions))
        layout = Layout(int(record.partitions or b""), int(block_size), move)
    except (AttributeError, TypeError, ValueError):
        raise StartupError(_DAMAGED) from None
    if layout.partitions < 1 or layout.block_size < 1:
        raise StartupError(_DAMAGED)
    return layout


def _require_usable(record: _Access, *, writes: bool) -> None:
    if record.is_missing:
        raise StartupError(NO_STORE)
    problem = record.version_problem(writes=writes)
    if problem is not None:
        raise StartupError(problem)


async def record_move(redis: RedisClient, move: Move) -> None:
    """Record the phase of a move."""
    target, phase, sessions = _MOVE
    await redis.call("HSET", keys.STORE, target, move.target, phase, move.phase, sessions, move.sessions, writes=True)


async def finish_move(redis: RedisClient, partitions: int) -> None:
    """Record that the store has `partitions` partitions and that the move is finished."""
    await redis.call("HSET", keys.STORE, "partitions", partitions, writes=True)
    await redis.call("HDEL", keys.STORE, *_MOVE, writes=True)


async def exists(redis: RedisClient) -> bool:
    """Whether Redis holds a store."""
    return not (await _Access.load(redis)).is_missing


async def settled_partitions(redis: RedisClient, *, writes: bool = True, needs_record: bool = True) -> int:
    """How many partitions the store has, 1 if the manifest does not say. `writes`: the caller writes to the store.

    Without a manifest there is no store; pass `needs_record=False` to begin one.

    Raises:
        StartupError: there is no store, this release may not use it, or a repartition is unfinished.
    """
    record = await _Access.load(redis)
    if needs_record or not record.is_missing:
        _require_usable(record, writes=writes)
    if record.moving_to is not None:
        number = _text(record.moving_to)
        raise StartupError(f"a repartition to {number} is unfinished; run `repartition {number}` to complete it")
    if record.partitions is not None and not record.partitions.isdigit():
        raise StartupError(_DAMAGED)
    return int(record.partitions or 1)


async def raise_generation(redis: RedisClient) -> int:
    """Give the store a generation that no ETag has, after a restore; returns it.

    It is at least the time in microseconds: two stores that were restored from one backup do not share it.

    Raises:
        StartupError: there is no store, it is damaged, or this release may not write to it.
    """
    await read(redis)
    stored = await redis.call("HGET", keys.STORE, "generation")
    generation = max(_generation(stored) + 1, int(time.time() * 1_000_000))
    fields = VERSIONS_RESTORED | {"generation": str(generation)}
    await redis.call("HSET", keys.STORE, *(part for pair in fields.items() for part in pair), writes=True)
    return generation


def _generation(stored: bytes | None) -> int:
    """A stored generation; 0 if the store was never restored."""
    return int(stored) if stored is not None and stored.isdigit() else 0


async def confirm(redis: RedisClient, partitions: int) -> int:
    """Check that a server that was started with `partitions` may still use the store; returns its generation.

    Raises:
        StoreEmpty: there is no store.
        LayoutChanged: the store has another number of partitions, or a repartition is running.
        StoreUnavailable: a newer release has changed the layout.
    """
    record = await _Access.load(redis)
    if record.is_missing:
        raise StoreEmpty
    problem = record.version_problem(writes=True)
    if problem is not None:
        raise StoreUnavailable(problem, may_pass=False)
    if record.moving_to is not None:
        raise LayoutChanged("the store is being repartitioned; try again later")
    if record.partitions is not None and record.partitions != b"%d" % partitions:
        number = _text(record.partitions)
        raise LayoutChanged(f"the store has {number} partitions; this server was started with {partitions}")
    return _generation(record.generation)
