"""Moving a store to another number of partitions, while no server runs.

A session's hash is what is true; all else in a partition follows from its hashes and is made anew. The store's own record says
how far a move is, so that it can be interrupted anywhere and begun again:

    close    the states are marked, so that no write of a server that still runs is done; servers refuse to start
    move     one pass over all keys: what follows from the hashes is dropped, a hash that belongs elsewhere is copied there and
             then deleted, and the ids of every new partition are gathered in its `order`, by created_at
    number   each new partition gives its sessions serials from 1, in the order of (created_at, id), and indexes them

A phase is recorded before it begins, and can be done again from its beginning. `order` shrinks as sessions are numbered. Every
command and script stays in one partition. Revision, times and configs stay what they are, so an ETag does too.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
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
from service.store import default_ttl, keys, manifest, ownership, scripts
from service.store.keys import DERIVED, Owner, Partition, all_partitions, is_text, partition_number, split
from service.store.manifest import Move
from service.store.verify import readable

NUMBER = scripts.load("number")

CLOSE, MOVE, NUMBERING = "close", "move", "number"

#: Sessions read, calls of `number.lua`, and other commands, all of them short, a round trip.
SESSIONS_BATCH, CALLS_BATCH, COMMANDS_BATCH = 100, 16, 500
#: Seconds until what was written is on the disk (`everysec`) and at the replicas of its node. A copy and what it was made from
#: may be on two nodes, of which each may lose the last moment on its own.
SETTLE = 2.0

#: How often, and after how many seconds each, it is looked whether all others have gone.
LOOKS, LOOK_AGAIN = 20, 0.05

#: Shows progress: called with a phase and how many keys or sessions it has, it gives what is called with how many are done.
Bar = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]


def no_bar(phase: str, total: int) -> AbstractContextManager[Callable[[int], object]]:  # noqa: ARG001 - a Bar
    """Show nothing."""
    return nullcontext(lambda _: None)


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move has done: how many sessions were listed before, and are now."""

    sessions_before: int
    sessions: int


async def repartition(redis: RedisClient, target: int, *, wait: float, bar: Bar = no_bar) -> Moved | None:
    """Move the store to `target` partitions, or finish a move to them; None where it has as many.

    `wait` is the seconds after which no worker works on a store that is being moved, 0 where there can be none.

    Raises:
        StartupError: the store cannot be moved as it is; what must be done first is told.
        StoreUnavailable: Redis was lost; begin again when it is back.
    """
    held = await manifest.read(redis)
    if held.move is None and held.partitions == target:
        return None
    if held.move is not None and held.move.target != target:
        raise StartupError(f"this store is being moved to {held.move.target} partitions; finish that first")
    await _refuse_others(redis)
    move = held.move or Move(target, CLOSE)
    flat = await redis.call("HGETALL", keys.PROJECTS)
    ids = {slug.decode(): project_id.decode() for slug, project_id in zip(flat[::2], flat[1::2], strict=True)}
    work = _Work(redis, ids, held.partitions, target, held.block_size)
    if move.phase == CLOSE:
        await _close(work, move, wait)
    # All of them, so that a move which an earlier version began is finished as well.
    await work.mark(max(held.partitions, target))
    if move.phase == CLOSE:
        move = Move(target, MOVE, await work.count(work.before))
        await manifest.record_move(redis, move)
    if move.phase == MOVE:
        with bar(MOVE, await admin.key_count(redis)) as progress:
            await work.move(move.sessions, progress)
        move = Move(target, NUMBERING, move.sessions)
        await manifest.record_move(redis, move)
    await work.number(bar)
    await work.open_states(target)
    await work.tell()
    sessions = await work.count(target)
    await manifest.finish_move(redis, target)
    return Moved(move.sessions, sessions)


async def _close(work: "_Work", move: Move, wait: float) -> None:
    """Let nobody write any more, and wait until nobody works on the store."""
    await manifest.record_move(work.redis, move)
    try:
        await work.mark(work.before)
        await asyncio.sleep(wait)
        await _refuse_others(work.redis)
    except BaseException:
        # No session is moved as yet, so there is nothing to finish either.
        await work.open_states(work.before)
        await manifest.finish_move(work.redis, work.before)
        raise


async def _refuse_others(redis: RedisClient) -> None:
    others: list[str] = []
    for look in range(LOOKS):
        # Who has just ended may still be listed.
        await asyncio.sleep(LOOK_AGAIN if look else 0)
        try:
            others = await admin.addresses_of_other_clients(redis)
        except (ResponseError, StoreUnavailable) as error:
            if isinstance(error, StoreUnavailable) and error.may_pass:
                raise
            raise StartupError(f"Redis does not tell who is connected: {error}") from error
        if not others:
            return
    raise StartupError(f"a server or command of this service is connected to Redis from {others[0]}; end it first")


class _Found(NamedTuple):
    """A session that a scan has found: the partition that its hash is in, and the one that it belongs to."""

    here: Partition
    home: Partition
    id: str

    @property
    def old(self) -> str:
        """Key of the hash."""
        return self.here.session(self.id)

    @property
    def new(self) -> str:
        """Key that the hash should have."""
        return self.home.session(self.id)


@dataclass(frozen=True)
class _Work:
    """The work on all projects of a store, from `before` partitions to `after`."""

    redis: RedisClient
    #: The id of each project, by its slug.
    ids: Mapping[str, str]
    before: int
    after: int
    block_size: int
    #: What was copied, each batch with the time (seconds, monotonic) from which the originals may go.
    _copied: deque[tuple[float, list[_Found]]] = field(default_factory=deque)

    def partitions(self, first: int, last: int) -> list[Partition]:
        """Partitions `first` up to `last` of every project, as they are while they are moved."""
        return [partition for slug in self.ids for partition in self._of_project(slug, last)[first:]]

    def _of_project(self, slug: str, count: int, stored: int = ownership.MOVING) -> tuple[Partition, ...]:
        """The first `count` partitions of a project whose states have `stored` as their number."""
        return all_partitions(slug, Owner(self.ids[slug], stored), count, self.block_size)

    async def mark(self, count: int) -> None:
        """Let nobody but this move write to the first `count` partitions."""
        await ownership.record(self.redis, self.partitions(0, count))

    async def open_states(self, partitions: int) -> None:
        """Let servers that are started with so many partitions write."""
        every = [each for slug in self.ids for each in self._of_project(slug, partitions, partitions)]
        await ownership.record(self.redis, every)

    async def count(self, partitions: int) -> int:
        """How many sessions are listed in as many partitions."""
        return await self._total([partition.sessions for partition in self.partitions(0, partitions)])

    async def move(self, listed: int, progress: Callable[[int], object]) -> None:
        """Leave nothing of the old partitions but their states; bring every hash where it belongs, and gather the ids.

        `listed` is how many sessions there should be.
        """
        await self._advance_states()
        last, gathered = 0, await self._pass(progress)
        # From a scan that went on at another server, in place of one that failed, some keys may be missing.
        while gathered not in (listed, last):
            last, gathered = gathered, await self._pass(progress)

    async def _pass(self, progress: Callable[[int], object]) -> int:
        """Go through all keys once; returns how many ids are gathered by now."""
        known = {partition.prefix: partition for partition in self.partitions(0, max(self.before, self.after))}
        async for names in admin.scan(self.redis, "scc:{*}:*"):
            derived: list[Command] = []
            sessions = []
            for name in names:
                if not is_text(name):
                    raise StartupError(f"{readable(name)} is no key of this service; delete it, and run this again")
                prefix, kind, session_id = split(name.decode())
                here = known.get(prefix)
                if here is not None and kind == "session":
                    sessions.append(_Found(here, self._target(here.slug, session_id), session_id))
                elif here is not None and kind in DERIVED:
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
        """Number and index the sessions whose ids were gathered, and drop the states of partitions that are no more."""
        gathered = self.partitions(0, self.after)
        with bar(NUMBERING, await self._total([partition.order for partition in gathered])) as progress:
            # Looked at again when all is settled: a node that fell back behind what it had answered goes on from there.
            while waiting := await self._not_numbered():
                while waiting:
                    turns = list(islice(cycle(waiting), CALLS_BATCH))
                    calls = [((one.order, one.sessions, one.state), one.arguments) for one in turns]
                    counts = await NUMBER.run_many(self.redis, calls)
                    progress(sum(counts))
                    done = {one for one, count in zip(turns, counts, strict=True) if not count}
                    waiting = [one for one in waiting if one not in done]
                await asyncio.sleep(SETTLE)
        await self._write([("UNLINK", partition.state) for partition in self.partitions(self.after, self.before)])

    async def tell(self) -> None:
        """Let every new partition know the default lifetime of its project's sessions."""
        for slug in self.ids:
            revision, configs = await self.redis.call("HMGET", keys.project_key(slug), "configs_revision", "configs")
            if revision is not None:
                partitions = self._of_project(slug, self.after, self.after)
                await default_ttl.publish(self.redis, partitions, int(revision), default_ttl.default_ttl(configs))

    def _target(self, slug: str, session_id: str) -> Partition:
        return Partition(slug, partition_number(session_id, self.after), self.block_size)

    async def _advance_states(self) -> None:
        """Let no new partition give a session a created_at that any old one has given, and each begin with serial 1."""
        for slug in self.ids:
            states = [Partition(slug, number).state for number in range(max(self.before, self.after))]
            given = await self._read([("HGET", state, "created_at") for state in states])
            newest = max(map(_time, given))
            if newest:
                await self._write([("HSET", state, "serial", 0, "created_at", newest) for state in states[: self.after]])

    async def _relocate(self, sessions: Sequence[_Found]) -> None:
        """Copy those hashes that belong elsewhere there, and put the id of each into `order` where it belongs."""
        at_home = [session for session in sessions if session.here == session.home]
        strays = [session for session in sessions if session.here != session.home]
        times = await self._read([("HGET", session.new, "created_at") for session in at_home])
        created_at = dict(zip(at_home, times, strict=True)) | await self._copy(strays)
        gathered: dict[str, list[str | int]] = defaultdict(list)
        for session, text in created_at.items():
            gathered[session.home.order] += (_time(text), session.id)
        await self._write([("ZADD", order, *members) for order, members in gathered.items()])
        self._copied.append((monotonic() + SETTLE, strays))

    async def _copy(self, strays: Sequence[_Found]) -> dict[_Found, bytes | None]:
        """Copy hashes where they belong, field by field as they are; returns the created_at of each that is there."""
        replies = await self._read([("HGETALL", key) for session in strays for key in (session.old, session.new)])
        copies: list[Command] = []
        created_at = {}
        for session, flat, there in zip(strays, replies[::2], replies[1::2], strict=True):
            fields = _pairs(flat)
            if not fields:
                continue  # A scan may name a key twice; it is gone since.
            if not there:
                copies.append(("HSET", session.new, *flat))
            elif _pairs(there) != fields:
                raise StartupError(f"{session.old} and {session.new} differ; delete the wrong one, and run this again")
            created_at[session] = fields.get(b"created_at")
        await self._write(copies)
        return created_at

    async def _delete_settled(self) -> None:
        """Delete what was copied long enough ago.

        Raises:
            StoreUnavailable: a copy is gone again; the original stays.
        """
        while self._copied and self._copied[0][0] <= monotonic():
            _, settled = self._copied.popleft()
            if not all(await self._read([("EXISTS", session.new) for session in settled])):
                raise StoreUnavailable
            await self._write([("UNLINK", session.old) for session in settled])

    async def _not_numbered(self) -> list[Partition]:
        """The new partitions that have sessions without a serial."""
        gathered = self.partitions(0, self.after)
        counts = await self._read([("ZCARD", partition.order) for partition in gathered])
        return [partition for partition, count in zip(gathered, counts, strict=True) if count]

    async def _total(self, sets: Sequence[str]) -> int:
        return sum(await self._read([("ZCARD", key) for key in sets]))

    async def _read(self, commands: Sequence[Command], *, writes: bool = False) -> list[Any]:
        """Replies to `commands`, sent in bounded batches.

        Raises:
            StartupError: a key is not of the type that its name says.
        """
        replies: list[Any] = []
        for first in range(0, len(commands), COMMANDS_BATCH):
            some = commands[first : first + COMMANDS_BATCH]
            for command, reply in zip(some, await self.redis.batch(some, writes=writes), strict=True):
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
    """A time as it is stored; what a hand has damaged is none."""
    return int(text) if text is not None and text.isdigit() else 0
