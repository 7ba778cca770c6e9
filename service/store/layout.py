"""The store's own record, `scc:store`: how it is laid out, and whether it is being moved to another number of partitions.

While it is, `moving_to`, `moving_phase` and `moving_sessions` stand there, see `service.store.repartition`; nothing else works
on the store then.
"""

from dataclasses import dataclass

from service.errors import StartupError, StoreUnavailable
from service.store import keys
from service.store.connection import Link

#: The arrangement of the keys; a store of another one is refused.
LAYOUT = 1

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


async def read(link: Link) -> Layout:
    """The record.

    Raises:
        StartupError: there is none, or it is damaged, or of another layout.
    """
    found, partitions, block_size, target, phase, sessions = await link.call(
        "HMGET", keys.STORE, "layout", "partitions", "block_size", *_MOVE
    )
    if partitions is None:
        raise StartupError("this Redis holds no store")
    if found != b"%d" % LAYOUT:
        raise StartupError(f"this store was made with layout {(found or b'?').decode(errors='replace')}, not {LAYOUT}")
    try:
        move = None if target is None else Move(int(target), phase.decode(), int(sessions))
        read = Layout(int(partitions), int(block_size), move)
    except (AttributeError, TypeError, ValueError):
        raise StartupError(_DAMAGED) from None
    if read.partitions < 1 or read.block_size < 1:
        raise StartupError(_DAMAGED)
    return read


async def note(link: Link, move: Move) -> None:
    """Record how far a move is."""
    target, phase, sessions = _MOVE
    await link.call(
        "HSET", keys.STORE, target, move.target, phase, move.phase, sessions, move.sessions, writes=True
    )


async def end(link: Link, partitions: int) -> None:
    """Record that the store has `partitions` and is not being moved."""
    await link.call("HSET", keys.STORE, "partitions", partitions, writes=True)
    await link.call("HDEL", keys.STORE, *_MOVE, writes=True)


async def partitions_at_rest(link: Link) -> int:
    """How many partitions the store has, 1 where it does not say.

    Raises:
        StartupError: it is being moved to another number of them.
    """
    partitions, target = await link.call("HMGET", keys.STORE, "partitions", "moving_to")
    if target is not None:
        number = target.decode(errors="replace")
        raise StartupError(f"this store is being moved to {number} partitions; `repartition {number}` finishes that")
    if partitions is not None and not partitions.isdigit():
        raise StartupError(_DAMAGED)
    return int(partitions or 1)


async def confirm(link: Link, partitions: int) -> None:
    """Make sure that a server that was started with `partitions` still may work on the store.

    Raises:
        StoreUnavailable: it may not.
    """
    found, target = await link.call("HMGET", keys.STORE, "partitions", "moving_to")
    if target is not None:
        raise StoreUnavailable("the sessions are being moved to another number of partitions")
    if found is not None and found != b"%d" % partitions:
        number = found.decode(errors="replace")
        raise StoreUnavailable(f"the store has {number} partitions now, this server was started with {partitions}")
