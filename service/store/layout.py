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
        StartupError: there is none, or it is of another layout.
    """
    found, partitions, block_size, target, phase, sessions = await link.call(
        "HMGET", keys.STORE, "layout", "partitions", "block_size", *_MOVE
    )
    if partitions is None:
        raise StartupError("this Redis holds no store")
    if int(found) != LAYOUT:
        raise StartupError(f"this store was made with layout {int(found)}, not {LAYOUT}")
    move = None if target is None else Move(int(target), phase.decode(), int(sessions))
    return Layout(int(partitions), int(block_size), move)


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
        number = target.decode()
        raise StartupError(f"this store is being moved to {number} partitions; `repartition {number}` finishes that")
    return int(partitions or 1)


async def confirm(link: Link, partitions: int) -> None:
    """Make sure that a server that was started with `partitions` still may work on the store.

    Raises:
        StoreUnavailable: it may not.
    """
    found, target = await link.call("HMGET", keys.STORE, "partitions", "moving_to")
    if target is not None:
        raise StoreUnavailable("the sessions are being moved to another number of partitions")
    if found is not None and int(found) != partitions:
        raise StoreUnavailable(f"the store has {int(found)} partitions now, this server was started with {partitions}")
