"""An import among the sessions that a project has, while no server runs: a repartition to the same number of partitions.

While nobody else can write, the sessions are written as hashes alone. The move then collects all hashes of the store, numbers
them in the order of creation, and indexes them. If it is interrupted, `repartition` completes it with what was written so far,
and a further import adds the rest.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from service.errors import StoreUnavailable
from service.redis_client.client import checked
from service.store import manifest, ownership, script_calls
from service.store.keys import Owner
from service.store.scripts import Call, run_many
from service.store.upkeep import repartition
from service.store.upkeep.project_import import Counts, Item, PreparedSession, ProjectImport
from service.store.upkeep.repartition import Bar, no_bar

#: The fields of a session that a client sees and that a write may change.
_CONTENT = ("configs", "user", "expires_at", "disable_task_tracking")


@dataclass
class RenumberingImport(ProjectImport):
    """As `ProjectImport`, but sessions are only written as hashes; `renumber` does all of it."""

    async def renumber(self, items: AsyncIterator[Item], *, wait: float, bar: Bar = no_bar) -> Counts:
        """Import all items and number the store again; arguments as those of `repartition`.

        Raises:
            BadRequest, and any Exception of `items`: as `ProjectImport.run`; what was imported before is numbered.
            StartupError: a server is running, or another repartition is unfinished.
            StoreUnavailable: Redis is unavailable; run it again.
        """
        problem: Exception | None = None
        # Read before the store is closed: a wrong file or address changes nothing.
        first = await anext(items, None)

        async def add() -> int:
            nonlocal problem
            try:
                await self.run(_all(first, items))
            except StoreUnavailable:
                raise
            except Exception as error:
                # Whatever it is, the move continues: a store that stays closed could not be used.
                problem = error
            return self.counts.created

        redis, partitions = self.sessions.redis, self.sessions.partitions
        if (await manifest.read(redis)).move is not None:
            await repartition.repartition(redis, partitions, wait=wait, bar=bar)
        await repartition.repartition(redis, partitions, wait=wait, bar=bar, add=add)
        if problem is not None:
            raise problem
        return self.counts

    async def _write(self, batch: Sequence[PreparedSession]) -> None:
        """Write the hashes of the sessions that the project does not have, or that are to be replaced."""
        redis = self.sessions.redis
        flat = checked(await redis.batch([("HGETALL", each.partition.session(each.id)) for each in batch]))
        results, calls = [], {}
        for position, (session, fields) in enumerate(zip(batch, flat, strict=True)):
            stored = dict(zip(fields[::2], fields[1::2], strict=True))
            status, revision = self._resolve(session.stored, {} if self._is_past(stored.get(b"expires_at")) else stored)
            results.append((session, status))
            if status == "conflict":
                break
            if status in ("created", "replaced"):
                content = session.stored | {"revision": b"%d" % revision}
                calls[position] = self._adopt(session, content, replace=bool(stored))
        written = dict(zip(calls, await run_many(redis, list(calls.values())), strict=True))
        self._count([result for position, result in enumerate(results) if written.get(position, True)])
        # The file has the id twice, or the first attempt of a call was executed: now the project has it.
        if again := [batch[position] for position, is_written in written.items() if not is_written]:
            await self._write(again)

    def _adopt(self, session: PreparedSession, fields: Mapping[str, bytes], *, replace: bool) -> Call[bool]:
        return script_calls.adopt_session(
            session=session.partition.session(session.id),
            state=session.partition.state,
            owner=Owner(self.sessions.project.id, ownership.MOVING),
            replace=int(replace),
            fields=[part for name, value in fields.items() for part in (name.encode(), value)],
        )

    def _is_past(self, time: bytes | None) -> bool:
        return time is not None and time.isdigit() and int(time) <= self._now

    def _resolve(self, session: Mapping[str, bytes], stored: Mapping[bytes, bytes]) -> tuple[str, int]:
        """What to do with a session, as `import_sessions.lua` decides it, and the revision that it gets."""
        revision = int(session["revision"])
        if self._is_past(session.get("expires_at")):
            return "expired", revision
        if b"configs" not in stored:
            return "created", revision
        stored_revision = int(stored[b"revision"]) if stored.get(b"revision", b"").isdigit() else 0
        is_same = stored.get(b"created_at") == session["created_at"]
        is_equal = all(stored.get(name.encode()) == session.get(name) for name in _CONTENT)
        if is_same and stored_revision >= revision and (self.on_conflict != "replace" or is_equal):
            return "present", stored_revision
        if self.on_conflict != "replace":
            return ("conflict" if self.on_conflict == "fail" else "skipped"), stored_revision
        # No revision of a session repeats, or its ETag would.
        return "replaced", max(revision, stored_revision + 1) if is_same else revision

    async def _publish_default_ttl(self, revision: int, configs: bytes) -> None:
        """The move publishes it."""

    async def _finish(self) -> None:
        """Let the move know the last created_at; it is the same for all partitions afterwards."""
        redis, states = self.sessions.redis, [partition.state for partition in self.sessions.all_partitions]
        times = checked(await redis.batch([("HGET", state, "created_at") for state in states]))
        if self._not_before > max((int(time) for time in times if time is not None), default=0):
            await redis.call("HSET", states[0], "created_at", self._not_before, writes=True)


async def _all(first: Item | None, others: AsyncIterator[Item]) -> AsyncIterator[Item]:
    if first is not None:
        yield first
    async for item in others:
        yield item
