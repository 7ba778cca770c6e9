"""The store's own record, `scc:store`: how it is laid out, which versions may use it, and whether it is being moved.

While it is moved to another number of partitions, `moving_to`, `moving_phase` and `moving_sessions` stand there, see
`service.store.upkeep.repartition`; nothing else works on the store then.

`oldest_reader` and `oldest_writer` are the oldest versions that may read and write the store. A release that changes the layout
raises `LAYOUT`, and raises these two only where older releases would misread or damage its data: so it can be rolled out beside
them. Releases from before these numbers compare `layout` alone.
"""

from dataclasses import dataclass, fields
from typing import Self

from service.errors import LayoutChanged, StartupError, StoreEmpty, StoreUnavailable
from service.redis_client.client import RedisClient
from service.store import keys

#: The version of the arrangement of the keys that this release reads and writes.
LAYOUT = 1
#: What a new record says of versions: this one, and the oldest that can read and write what this release writes.
VERSIONS = {"layout": str(LAYOUT), "oldest_reader": "1", "oldest_writer": "1"}

NO_STORE = "this Redis holds no store"

_DAMAGED = "the record of this store, scc:store, is damaged; restore its numbers of partitions and of serials a block"

_MOVE = ("moving_to", "moving_phase", "moving_sessions")


@dataclass(frozen=True, slots=True)
class Move:
    """A move that was begun and is not finished: where to, how far, and how many sessions were listed before it."""

    target: int
    phase: str
    sessions: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """What commands need to know of the record."""

    partitions: int
    block_size: int
    move: Move | None


@dataclass(frozen=True, slots=True)
class _Record:
    """The fields of the record that say who may use the store, as they are stored; None where one is missing."""

    partitions: bytes | None
    moving_to: bytes | None
    layout: bytes | None
    oldest_reader: bytes | None
    oldest_writer: bytes | None

    @classmethod
    async def load(cls, redis: RedisClient) -> Self:
        return cls(*await redis.call("HMGET", keys.STORE, *(item.name for item in fields(cls))))

    @property
    def is_missing(self) -> bool:
        return self.partitions is None and self.layout is None

    def version_problem(self, *, writes: bool) -> str | None:
        """Why this release may not use the store, None where it may."""
        if self.oldest_reader is None or self.oldest_writer is None:
            if self.layout in (None, b"%d" % LAYOUT):
                return None
            return f"this store was made with layout {_text(self.layout)}, not {LAYOUT}"
        if not (self.oldest_reader.isdigit() and self.oldest_writer.isdigit()):
            return _DAMAGED
        if int(self.oldest_reader) > LAYOUT:
            return _too_old("read", self.oldest_reader)
        return _too_old("write to", self.oldest_writer) if writes and int(self.oldest_writer) > LAYOUT else None


def _too_old(verb: str, oldest: bytes) -> str:
    return f"only releases of layout {_text(oldest)} or newer may {verb} this store, and this release is of layout {LAYOUT}"


def _text(field: bytes | None) -> str:
    return "?" if field is None else field.decode(errors="replace")


async def read(redis: RedisClient, *, writes: bool = True) -> Layout:
    """The record, for what `writes` to the store or only reads it.

    Raises:
        StartupError: there is none, or it is damaged, or this release may not use the store.
    """
    record = await _Record.load(redis)
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


def _require_usable(record: _Record, *, writes: bool) -> None:
    if record.is_missing:
        raise StartupError(NO_STORE)
    problem = record.version_problem(writes=writes)
    if problem is not None:
        raise StartupError(problem)


async def record_move(redis: RedisClient, move: Move) -> None:
    """Record how far a move is."""
    target, phase, sessions = _MOVE
    await redis.call("HSET", keys.STORE, target, move.target, phase, move.phase, sessions, move.sessions, writes=True)


async def finish_move(redis: RedisClient, partitions: int) -> None:
    """Record that the store has `partitions` and is not being moved."""
    await redis.call("HSET", keys.STORE, "partitions", partitions, writes=True)
    await redis.call("HDEL", keys.STORE, *_MOVE, writes=True)


async def exists(redis: RedisClient) -> bool:
    """Whether Redis holds a store."""
    return not (await _Record.load(redis)).is_missing


async def settled_partitions(redis: RedisClient, *, writes: bool = True, needs_record: bool = True) -> int:
    """How many partitions the store has, 1 where it does not say; for what `writes` to the store or only reads it.

    Without a record there is no store, unless the caller is about to begin one and `needs_record` is false.

    Raises:
        StartupError: there is no store, this release may not use it, or it is being moved to another number of partitions.
    """
    record = await _Record.load(redis)
    if needs_record or not record.is_missing:
        _require_usable(record, writes=writes)
    if record.moving_to is not None:
        number = _text(record.moving_to)
        raise StartupError(f"this store is being moved to {number} partitions; `repartition {number}` finishes that")
    if record.partitions is not None and not record.partitions.isdigit():
        raise StartupError(_DAMAGED)
    return int(record.partitions or 1)


async def confirm(redis: RedisClient, partitions: int) -> None:
    """Make sure that a server that was started with `partitions` still may work on the store.

    Raises:
        StoreEmpty: there is no store any more.
        LayoutChanged, StoreUnavailable: it may not.
    """
    record = await _Record.load(redis)
    if record.is_missing:
        raise StoreEmpty
    problem = record.version_problem(writes=True)
    if problem is not None:
        raise StoreUnavailable(problem, may_pass=False)
    if record.moving_to is not None:
        raise LayoutChanged("the sessions are being moved to another number of partitions")
    if record.partitions is not None and record.partitions != b"%d" % partitions:
        number = _text(record.partitions)
        raise LayoutChanged(f"the store has {number} partitions now, this server was started with {partitions}")
