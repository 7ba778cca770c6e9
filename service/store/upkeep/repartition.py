"""Moves a store to another number of partitions, while no server runs.

A session's hash is the truth; everything else in a partition follows from its hashes and is built again. The manifest records
the phase of the move, so that it can be interrupted anywhere and resumed:

    close    the states are marked, so that no server that still runs can write; servers refuse to start
    move     one pass over all keys: what follows from the hashes is dropped, a hash whose partition changes is copied and
             then deleted, and the ids of every new partition are collected in its `order`, by created_at
    number   each new partition gives its sessions serials from 1, in the order of (created_at, id), and indexes them

A phase is recorded before it begins, and can be repeated from its beginning. `order` shrinks as sessions are numbered. Every
command and script stays in one partition. Revision, times and configs do not change, so ETags do not either.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import cycle, islice
from time import monotonic
from typing import Any, NamedTuple

from service.errors import ServiceError, StartupError, StoreUnavailable
from service.redis_client import admin
from service.redis_client.client import RedisClient
from service.redis_client.errors import ResponseError
from service.redis_client.multiplexer import Command
from service.store import default_ttl, keys, manifest, ownership, script_calls
from service.store.keys import DERIVED, Owner, Partition, all_partitions, is_text, partition_number, split
from service.store.manifest import Move
from service.store.scripts import run_many
from service.store.verify import readable

CLOSE, MOVE, NUMBERING = "close", "move", "number"

#: Sessions read, calls of `assign_serials.lua`, and other commands, all of them short, a round trip.
SESSIONS_BATCH, CALLS_BATCH, COMMANDS_BATCH = 100, 16, 500
#: Seconds until a write is on disk (`everysec`) and on the replicas of its node. A copy and its original may be on two nodes,
#: and either may lose its last writes.
SETTLE = 2.0

#: How often, and how many seconds apart, CLIENT LIST is read until no other client is connected.
CLIENT_CHECKS, CLIENT_CHECK_INTERVAL = 20, 0.05

#: Shows progress: called with a phase and its number of keys or sessions, it yields a function that takes how many are done.
Bar = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]

#: Writes hashes of sessions into a store that nobody else can write to; returns how many the store has more.
Add = Callable[[], Awaitable[int]]


def no_bar(phase: str, total: int) -> AbstractContextManager[Callable[[int], object]]:  # noqa: ARG001 - a Bar
    """Show nothing."""
    return nullcontext(lambda _: None)


@dataclass(frozen=True, slots=True)
class Moved:
    """The result of a move: how many sessions were listed before, and are now."""

    sessions_before: int
    sessions: int


async def repartition(
    redis: RedisClient, target: int, *, wait: float, bar: Bar = no_bar, add: Add | None = None
) -> Moved | None:
    """Move the store to `target` partitions, or resume a move to them; None if it has that many and there is nothing to `add`.

    `wait`: seconds after which no worker writes to a store that is being moved, 0 if no server can run. `add` writes hashes of
    further sessions while nobody else can write; the move numbers them among the others.

    Raises:
        StartupError: the store cannot be moved as it is; the message says what to do first.
        StoreUnavailable: the connection to Redis was lost; run it again.
    """
    layout = await manifest.read(redis)
    if layout.move is None and layout.partitions == target and add is None:
        return None
    if layout.move is not None and layout.move.target != target:
        raise StartupError(f"a repartition to {layout.move.target} is unfinished; run `repartition {layout.move.target}` first")
    await _refuse_others(redis)
    move = layout.move or Move(target, CLOSE)
    flat = await redis.call("HGETALL", keys.PROJECTS)
    ids = {slug.decode(): project_id.decode() for slug, project_id in zip(flat[::2], flat[1::2], strict=True)}
    work = _Work(redis, ids, layout.partitions, target, layout.block_size)
    if move.phase == CLOSE:
        await _close(work, move, wait)
    # All of them, so that this also completes a move which an earlier version began.
    await work.mark(max(layout.partitions, target))
    if move.phase == CLOSE:
        move = await _begin(work, add)
    if move.phase == MOVE:
        with bar(MOVE, await admin.key_count(redis)) as progress:
            await work.move(move.sessions, progress)
        move = Move(target, NUMBERING, move.sessions)
        await manifest.record_move(redis, move)
    await work.number(bar)
    await work.open_states(target)
    await work.publish_default_ttls()
    sessions = await work.count(target)
    await manifest.finish_move(redis, target)
    return Moved(move.sessions, sessions)


async def _close(work: "_Work", move: Move, wait: float) -> None:
    """Mark the states so that nobody else can write, and wait until no other client is connected."""
    await manifest.record_move(work.redis, move)
    try:
        await work.mark(work.before)
        await asyncio.sleep(wait)
        await _refuse_others(work.redis)
    except BaseException:
        # No session has moved yet, so the move can be cancelled.
        await work.open_states(work.before)
        await manifest.finish_move(work.redis, work.before)
        raise


async def _begin(work: "_Work", add: Add | None) -> Move:
    """Record how many sessions there are to move, those that `add` writes among them; returns the move."""
    move = Move(work.after, MOVE, await work.count(work.before))
    await manifest.record_move(work.redis, move)
    if add is not None:
        move = Move(work.after, MOVE, move.sessions + await add())
        await manifest.record_move(work.redis, move)
    return move


async def _refuse_others(redis: RedisClient) -> None:
    others: list[str] = []
    for attempt in range(CLIENT_CHECKS):
        # A client that has just disconnected may still be listed.
        await asyncio.sleep(CLIENT_CHECK_INTERVAL if attempt else 0)
        try:
            others = await admin.addresses_of_other_clients(redis)
        except (ResponseError, StoreUnavailable) as error:
            if isinstance(error, StoreUnavailable) and error.may_pass:
                raise
            raise StartupError(f"cannot check for other connected clients: {error}") from error
        if not others:
            return
    raise StartupError(f"a server or command of this service is connected to Redis from {others[0]}; stop it first")


class _ScannedSession(NamedTuple):
    """A session from the scan: the partition that its hash is in, and the one that its id belongs to."""

    source: Partition
    target: Partition
    id: str

    @property
    def source_key(self) -> str:
        """Key of the hash."""
        return self.source.session(self.id)

    @property
    def target_key(self) -> str:
        """Key that the hash should have."""
        return self.target.session(self.id)


@dataclass(frozen=True)
class _Work:
    """The work on all projects of a store, from `before` partitions to `after`."""

    redis: RedisClient
    #: The id of each project, by its slug.
    ids: Mapping[str, str]
    before: int
    after: int
    block_size: int
    #: Batches of copied sessions, each with the time (seconds, monotonic) from which the originals may be deleted.
    _copied: deque[tuple[float, list[_ScannedSession]]] = field(default_factory=deque)

    def partitions(self, first: int, last: int) -> list[Partition]:
        """Partitions `first` up to `last` of every project, with the owner that they have during a move."""
        return [partition for slug in self.ids for partition in self._of_project(slug, last)[first:]]

    def _of_project(self, slug: str, count: int, stored: int = ownership.MOVING) -> tuple[Partition, ...]:
        """The first `count` partitions of a project whose states have `stored` as their number."""
        return all_partitions(slug, Owner(self.ids[slug], stored), count, self.block_size)

    async def mark(self, count: int) -> None:
        """Mark the first `count` partitions, so that only this move can write to them."""
        await ownership.record(self.redis, self.partitions(0, count))

    async def open_states(self, partitions: int) -> None:
        """Unmark the states, so that servers with that many partitions can write."""
        of_all_projects = [partition for slug in self.ids for partition in self._of_project(slug, partitions, partitions)]
        await ownership.record(self.redis, of_all_projects)

    async def count(self, partitions: int) -> int:
        """How many sessions the first `partitions` partitions of every project list."""
        return await self._total([partition.sessions for partition in self.partitions(0, partitions)])

    async def move(self, listed: int, progress: Callable[[int], object]) -> None:
        """Drop everything of the old partitions but their states, relocate the hashes, and collect the ids.

        `listed`: how many sessions there should be.
        """
        await self._advance_states()
        previous, collected = 0, await self._pass(progress)
        # A scan that continued on another server after a failover may have missed keys.
        while collected not in (listed, previous):
            previous, collected = collected, await self._pass(progress)

    async def _pass(self, progress: Callable[[int], object]) -> int:
        """Scan all keys once; returns how many ids are collected by now."""
        partitions = {partition.prefix: partition for partition in self.partitions(0, max(self.before, self.after))}
        async for names in admin.scan(self.redis, "scc:{*}:*"):
            derived: list[Command] = []
            sessions = []
            for name in names:
                if not is_text(name):
                    raise StartupError(f"{readable(name)} is not a key of this service; delete it, and run this command again")
                prefix, kind, session_id = split(name.decode())
                partition = partitions.get(prefix)
                if partition is not None and kind == "session":
                    sessions.append(_ScannedSession(partition, self._target(partition.slug, session_id), session_id))
                elif partition is not None and kind in DERIVED:
                    derived.append(("UNLINK", name))
            await self._write(derived)
            for first in range(0, len(sessions), SESSIONS_BATCH):
                await self._relocate(sessions[first : first + SESSIONS_BATCH])
            await self._delete_settled()
            progress(len(names))
        await asyncio.sleep(SETTLE)
        await self._delete_settled()
        return await self._total([partition.order for partition in self.partitions(0, self.after)])

    async def number(self, bar: Bar) -> None:
        """Number and index the sessions whose ids were collected, and drop the states of partitions that no longer exist."""
        new_partitions = self.partitions(0, self.after)
        with bar(NUMBERING, await self._total([partition.order for partition in new_partitions])) as progress:
            # Read again after SETTLE: a node that lost its last writes in a failover continues from what it kept.
            while waiting := await self._not_numbered():
                while waiting:
                    turns = list(islice(cycle(waiting), CALLS_BATCH))
                    calls = [
                        script_calls.assign_serials(
                            order=one.order, sessions=one.sessions, state=one.state, partition=one.arguments
                        )
                        for one in turns
                    ]
                    counts = await run_many(self.redis, calls)
                    progress(sum(counts))
                    finished = {partition for partition, count in zip(turns, counts, strict=True) if not count}
                    waiting = [partition for partition in waiting if partition not in finished]
                await asyncio.sleep(SETTLE)
        await self._write([("UNLINK", partition.state) for partition in self.partitions(self.after, self.before)])

    async def publish_default_ttls(self) -> None:
        """Write every project's default ttl into its new partitions."""
        for slug in self.ids:
            revision, configs = await self.redis.call("HMGET", keys.project_key(slug), "configs_revision", "configs")
            if revision is not None:
                partitions = self._of_project(slug, self.after, self.after)
                await default_ttl.publish(self.redis, partitions, int(revision), default_ttl.default_ttl(configs))

    def _target(self, slug: str, session_id: str) -> Partition:
        return Partition(slug, partition_number(session_id, self.after), self.block_size)

    async def _advance_states(self) -> None:
        """Make every new partition begin with serial 1, and with a created_at after any that the old ones have assigned."""
        for slug in self.ids:
            states = [Partition(slug, number).state for number in range(max(self.before, self.after))]
            times = await self._read([("HGET", state, "created_at") for state in states])
            newest = max(map(_time, times))
            if newest:
                await self._write([("HSET", state, "serial", 0, "created_at", newest) for state in states[: self.after]])

    async def _relocate(self, sessions: Sequence[_ScannedSession]) -> None:
        """Copy the hashes whose partition changes, and add every id to the `order` of its new partition."""
        in_place = [session for session in sessions if session.source == session.target]
        misplaced = [session for session in sessions if session.source != session.target]
        times = await self._read([("HGET", session.target_key, "created_at") for session in in_place])
        created_at = dict(zip(in_place, times, strict=True)) | await self._copy(misplaced)
        members_by_order: dict[str, list[str | int]] = defaultdict(list)
        for session, text in created_at.items():
            members_by_order[session.target.order] += (_time(text), session.id)
        await self._write([("ZADD", order, *members) for order, members in members_by_order.items()])
        self._copied.append((monotonic() + SETTLE, misplaced))

    async def _copy(self, misplaced: Sequence[_ScannedSession]) -> dict[_ScannedSession, bytes | None]:
        """Copy hashes to their new keys, field by field; returns the created_at of each."""
        replies = await self._read(
            [("HGETALL", key) for session in misplaced for key in (session.source_key, session.target_key)]
        )
        copies: list[Command] = []
        created_at = {}
        for session, flat, existing in zip(misplaced, replies[::2], replies[1::2], strict=True):
            fields = _pairs(flat)
            if not fields:
                continue  # A scan may return a key twice; it was moved already.
            if not existing:
                copies.append(("HSET", session.target_key, *flat))
            elif _pairs(existing) != fields:
                raise StartupError(
                    f"{session.source_key} and {session.target_key} differ; delete the wrong one, and run this command again"
                )
            created_at[session] = fields.get(b"created_at")
        await self._write(copies)
        return created_at

    async def _delete_settled(self) -> None:
        """Delete the originals that were copied at least `SETTLE` seconds ago.

        Raises:
            StoreUnavailable: a copy was lost; the original stays.
        """
        while self._copied and self._copied[0][0] <= monotonic():
            _, settled = self._copied.popleft()
            if not all(await self._read([("EXISTS", session.target_key) for session in settled])):
                raise StoreUnavailable
            await self._write([("UNLINK", session.source_key) for session in settled])

    async def _not_numbered(self) -> list[Partition]:
        """The new partitions that have sessions without a serial."""
        new_partitions = self.partitions(0, self.after)
        counts = await self._read([("ZCARD", partition.order) for partition in new_partitions])
        return [partition for partition, count in zip(new_partitions, counts, strict=True) if count]

    async def _total(self, sets: Sequence[str]) -> int:
        return sum(await self._read([("ZCARD", key) for key in sets]))

    async def _read(self, commands: Sequence[Command], *, writes: bool = False) -> list[Any]:
        """Replies to `commands`, sent in bounded batches.

        Raises:
            StartupError: a key is not of the type that its name says.
        """
        replies: list[Any] = []
        for first in range(0, len(commands), COMMANDS_BATCH):
            batch = commands[first : first + COMMANDS_BATCH]
            for command, reply in zip(batch, await self.redis.batch(batch, writes=writes), strict=True):
                if isinstance(reply, ServiceError) and not isinstance(reply, ResponseError):
                    raise reply
                if isinstance(reply, Exception):
                    raise StartupError(f"{command[1]!r}: {reply}") from reply
                replies.append(reply)
        return replies

    async def _write(self, commands: Sequence[Command]) -> None:
        await self._read(commands, writes=True)


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _time(text: bytes | None) -> int:
    """A stored time; 0 if it is damaged."""
    return int(text) if text is not None and text.isdigit() else 0
