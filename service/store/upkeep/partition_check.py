"""The check of one partition: its sessions, their serials, and its index.

`Check` reads the sessions, a block at a time, and compares the block's index sets with the terms computed from the documents;
then it gets the names of the partition's keys, and verifies the sets and sessions that the first pass could not reach. The
store is live meanwhile, so a difference is only a suspicion until one script has confirmed it (and repaired it, with `repair`).
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from service.configs.limits import Limits
from service.errors import StateIncomplete, Unauthorized
from service.redis_client import admin
from service.redis_client.client import RedisClient, checked
from service.redis_client.errors import WrongType
from service.redis_client.multiplexer import Command
from service.store import default_ttl, keys, script_calls
from service.store.keys import Partition, is_text, partition_number
from service.store.record import Project
from service.store.registration import UserRegistration
from service.store.upkeep.block import Block
from service.store.upkeep.covered_sets import CoveredSets
from service.store.upkeep.numbering import Numbered, Numbering, listed_sessions, renumber
from service.store.verify import (
    MAX_INTEGER,
    NUMBERS,
    Finding,
    expected_index,
    is_complete,
    is_number,
    readable,
    verify_session,
    verify_set,
    verify_type,
    verify_types,
)

#: Sets read in one round trip: a check must not block a live Redis.
SETS_BATCH = 50
#: Seconds before a difference is confirmed. A session is written before its user is registered, and a user is deleted before
#: their sessions.
CONFIRM_DELAY = 2.0

_FIELDS = ("configs", "terms", "user", "expires_at", *NUMBERS)


@dataclass
class Check:
    """A check of one partition of `partitions`. `progress` is called with the number of sessions or keys just read."""

    redis: RedisClient
    partition: Partition
    repair: bool = False
    progress: Callable[[int], object] = lambda _: None
    partitions: int | None = None
    _covered: CoveredSets = field(default_factory=CoveredSets)
    _unknown_users: dict[bytes, tuple[str, bytes]] = field(default_factory=dict)
    _numbering: Numbering = field(default_factory=Numbering)
    #: Sessions to verify again, when all keys of the wrong type are deleted.
    _postponed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: Findings of kinds that several steps can report.
    _reported: set[Finding] = field(default_factory=set)
    #: A key that the whole check depends on has the wrong type: it stops here.
    _is_blocked: bool = False
    #: A session got another serial, perhaps out of the order of creation.
    _is_renumbered: bool = False

    async def findings(self) -> AsyncIterator[Finding]:
        """Every difference in this partition alone, confirmed."""
        async for finding in self.listed_findings():
            yield finding
        async for names in admin.scan(self.redis, f"{self.partition.prefix}*", self.progress):
            parsed = [keys.split(name.decode(errors="surrogateescape")) for name in names]
            async for finding in self.verify_keys([(kind, rest) for _, kind, rest in parsed]):
                yield finding
        async for finding in self.finish():
            yield finding

    async def listed_findings(self) -> AsyncIterator[Finding]:
        """The differences that the listed sessions show."""
        async for finding in self._check_head():
            yield finding
        if self._is_blocked:
            return
        if self.repair:
            async for finding in renumber(self.redis, self.partition):
                if self._is_new(finding):
                    yield finding
        async for block in self._blocks():
            async for finding in self._check_block(block):
                yield finding
        async for finding in self._check_users():
            yield finding
        async for finding in self._check_expiring():
            yield finding
        async for finding in self._check_default():
            yield finding

    async def verify_keys(self, names: Sequence[tuple[str, str]]) -> AsyncIterator[Finding]:
        """Verify keys that the listed sessions do not lead to: unlisted sessions, unexpected sets, listed blocks without a set.

        `names` are keys of the partition, each as its kind and the rest of its name, which is UTF-8.
        """
        if self._is_blocked:
            return
        by_kind = defaultdict(list)
        for kind, rest in names:
            by_kind[kind].append(rest)
        async for finding in self._check_sessions(by_kind["session"]):
            yield finding
        async for finding in self._check_sets([name for name in by_kind["index"] if name not in self._covered]):
            yield finding
        async for finding in self._check_blocks_lists(by_kind["blocks"]):
            yield finding

    async def finish(self) -> AsyncIterator[Finding]:
        """The differences that can only be repaired when every session is listed."""
        if self.repair and not self._is_blocked:
            postponed, self._postponed = self._postponed, {}
            for session_id, terms in postponed.items():
                async for finding in self._verify(session_id, terms):
                    yield finding
            if self._is_renumbered:
                async for finding in renumber(self.redis, self.partition):
                    if self._is_new(finding):
                        yield finding
            async for finding in self._check_state():
                yield finding

    def _is_new(self, finding: Finding) -> bool:
        """Whether the finding was not reported yet; only a few kinds can occur twice."""
        if finding.kind not in ("type", "shared", "order"):
            return True
        is_new = finding not in self._reported
        self._reported.add(finding)
        return is_new

    async def _check_head(self) -> AsyncIterator[Finding]:
        """The keys that the whole check depends on."""
        for key in (self.partition.sessions, self.partition.expiring):
            for finding in await verify_type(self.redis, key, "zset", derived=True, repair=self.repair):
                self._is_blocked = not self.repair
                yield finding
        if not self._is_blocked:
            async for finding in self._check_state():
                yield finding

    async def _check_state(self) -> AsyncIterator[Finding]:
        kinds = await self._verify_state(repair=False)
        if "owner" in kinds:
            # A project is listed before its partitions' states are written, and its states go before its listing.
            await asyncio.sleep(CONFIRM_DELAY)
            if await self.redis.call("HGET", keys.PROJECTS, self.partition.slug) != self.partition.owner.project_id.encode():
                return
        if kinds:
            for kind in await self._verify_state(repair=self.repair):
                yield Finding(kind, str(self.partition.number))

    async def _verify_state(self, *, repair: bool) -> list[str]:
        partition = self.partition
        call = script_calls.verify_state(
            state=partition.state,
            sessions=partition.sessions,
            prefix=partition.prefix,
            owner=partition.owner,
            repair=int(repair),
        )
        return await call.run(self.redis, writes=repair)

    async def _blocks(self) -> AsyncIterator[Block]:
        """The sessions in the order of their serials, gathered into blocks."""
        block = Block(0)
        async for page in listed_sessions(self.redis, self.partition):
            commands: list[Command] = [("HMGET", self.partition.session(readable(name)), *_FIELDS) for name, _ in page]
            commands += [("ZSCORE", self.partition.expiring, name) for name, _ in page]
            replies = await self.redis.batch(commands)
            for (name, score), fields, expiring in zip(page, replies[: len(page)], replies[len(page) :], strict=True):
                number = self._block_number(score, block.number)
                if block.number != number:
                    yield block
                    block = Block(number)
                if is_text(name):
                    self._expect(block, name.decode(), score, *_readable([fields, expiring]))
                else:
                    block.broken_ids.append(name)
            self.progress(len(page))
        yield block

    def _block_number(self, score: bytes, default: int) -> int:
        number = float(score)
        return self.partition.block_of(int(number)) if abs(number) < float("inf") else default

    def _expect(self, block: Block, session_id: str, listed_serial: bytes, fields: Any, expiring: bytes | None) -> None:  # noqa: ANN401 - a reply
        configs, terms, user, expires_at, *numbers = fields or [None] * len(_FIELDS)
        if configs is None or numbers[0] != listed_serial or not is_complete(user, expires_at, numbers):
            # Members with this serial are orphans until the session is verified.
            block.suspects[session_id].update()
            return
        self._observe(block, session_id, numbers)
        if (expires_at and float(expires_at)) != (expiring and float(expiring)):
            block.suspects[session_id].update()
        block.ids[listed_serial] = session_id
        expected = expected_index(configs)
        if expected.problem or (expected.configs, expected.terms) != (configs, terms):
            block.suspects[session_id].update()
        for term in expected.index_terms:
            block.expected[term].add(listed_serial)
        if user is not None:
            block.expected[f"@user={user.decode()}"].add(listed_serial)
            block.users.setdefault(user, (session_id, listed_serial))

    def _observe(self, block: Block, session_id: str, numbers: Sequence[bytes]) -> None:
        """Check the partition and the serial of a session; neither ever changes."""
        serial, _, created_at, _ = map(int, numbers)
        finding = self._numbering.observe(Numbered(created_at, session_id, serial))
        if finding is not None:
            block.findings.append(finding)
        if self.partitions is not None and partition_number(session_id, self.partitions) != self.partition.number:
            block.findings.append(Finding("misplaced", session_id, self.partition.prefix))

    async def _check_block(self, block: Block) -> AsyncIterator[Finding]:
        async for finding in self._compare_sets(block):
            yield finding
        for finding in filter(self._is_new, block.findings):
            yield finding
        for name in block.broken_ids:
            yield Finding("ghost", readable(name))
            if self.repair:
                await self.redis.call("ZREM", self.partition.sessions, name, writes=True)
        for session_id, terms in block.suspects.items():
            async for finding in self._verify(session_id, terms):
                yield finding
        for term, serials in block.orphans.items():
            async for finding in self._verify_set(str(block.number), term, serials):
                yield finding
        await self._gather_unknown_users(block.users)

    async def _compare_sets(self, block: Block) -> AsyncIterator[Finding]:
        terms = list(block.expected)
        self._covered.add(block.number, terms)
        for first in range(0, len(terms), SETS_BATCH):
            batch = terms[first : first + SETS_BATCH]
            commands: list[Command] = []
            for term in batch:
                commands.append(("SMEMBERS", self.partition.index(block.number, term)))
                commands.append(("SISMEMBER", self.partition.blocks(term), block.number))
            replies = await self.redis.batch(commands)
            for term, members, is_listed in zip(batch, replies[::2], replies[1::2], strict=True):
                for key, reply in (
                    (self.partition.index(block.number, term), members),
                    (self.partition.blocks(term), is_listed),
                ):
                    if isinstance(reply, WrongType):
                        async for finding in self._verify_type(key):
                            yield finding
                if self.repair or not any(isinstance(reply, WrongType) for reply in (members, is_listed)):
                    block.compare(term, *_readable([members, is_listed]))

    async def _verify(self, session_id: str, suspects: Iterable[str] = ()) -> AsyncIterator[Finding]:
        """Verify a session; with a key of the wrong type among those of its index, that key, and the session later."""
        try:
            findings = await verify_session(self.redis, self.partition, session_id, suspects=suspects, repair=self.repair)
        except WrongType:
            findings = [finding async for finding in self._wrong_types(session_id, suspects)]
            self._postponed[session_id] = tuple(suspects)
        self._is_renumbered = self._is_renumbered or any(finding.kind in ("shared", "serial") for finding in findings)
        for finding in filter(self._is_new, findings):
            yield finding

    async def _wrong_types(self, session_id: str, suspects: Iterable[str]) -> AsyncIterator[Finding]:
        serial = await self.redis.call("HGET", self.partition.session(session_id), "serial")
        blocks = [self.partition.block_of(int(serial))] if is_number(serial, MAX_INTEGER) else []
        async for finding in verify_types(
            self.redis, self.partition, session_id, blocks, suspects=suspects, repair=self.repair
        ):
            yield finding

    async def _verify_type(self, key: str) -> AsyncIterator[Finding]:
        for finding in filter(self._is_new, await verify_type(self.redis, key, "set", derived=True, repair=self.repair)):
            yield finding

    async def _verify_set(self, block: str, term: str, serials: Sequence[bytes]) -> AsyncIterator[Finding]:
        for key in (self.partition.index(block, term), self.partition.blocks(term)):
            async for finding in self._verify_type(key):
                yield finding
        with suppress(WrongType):  # reported above
            for finding in await verify_set(self.redis, self.partition, block, term, serials, repair=self.repair):
                yield finding

    async def _gather_unknown_users(self, users: dict[bytes, tuple[str, bytes]]) -> None:
        for user, is_registered in zip(users, await self._are_registered(list(users)), strict=True):
            if not is_registered:
                self._unknown_users.setdefault(user, users[user])

    async def _are_registered(self, users: Sequence[bytes]) -> list[bool]:
        """Whether each of `users` (JSON strings) is registered; True for all if the set of users has the wrong type."""
        replies = await self.redis.batch(
            [("ZSCORE", keys.users_key(self.partition.slug), orjson.loads(user)) for user in users]
        )
        return [isinstance(reply, WrongType) or checked([reply])[0] is not None for reply in replies]

    async def _check_users(self) -> AsyncIterator[Finding]:
        if self._unknown_users:
            await asyncio.sleep(CONFIRM_DELAY)
        for user, (session_id, serial) in self._unknown_users.items():
            fields = await self.redis.call("HMGET", self.partition.session(session_id), "user", "serial")
            if fields == [user, serial] and not (await self._are_registered([user]))[0]:
                yield Finding("user", session_id)
                if self.repair:
                    slug, owner = self.partition.slug, self.partition.owner
                    registration = UserRegistration(self.redis, Project(slug, owner.project_id), Limits())
                    with suppress(WrongType, StateIncomplete, Unauthorized):  # The check of the record has reported it.
                        await registration.register(orjson.loads(user))

    async def _check_expiring(self) -> AsyncIterator[Finding]:
        """Sessions in `expiring` that are not listed."""
        cursor = b"0"
        while True:
            cursor, flat = await self.redis.call("ZSCAN", self.partition.expiring, cursor, "COUNT", admin.SCAN_BATCH)
            scores = checked(await self.redis.batch([("ZSCORE", self.partition.sessions, name) for name in flat[::2]]))
            for name, score in zip(flat[::2], scores, strict=True):
                if not is_text(name):
                    yield Finding("expiry", readable(name))
                    if self.repair:
                        await self.redis.call("ZREM", self.partition.expiring, name, writes=True)
                elif score is None:
                    async for finding in self._verify(name.decode()):
                        yield finding
            if cursor == b"0":
                return

    async def _check_default(self) -> AsyncIterator[Finding]:
        try:
            if await default_ttl.is_current(self.redis, self.partition):
                return
            # A change is published to the partitions after it was made.
            await asyncio.sleep(CONFIRM_DELAY)
            if not await default_ttl.is_current(self.redis, self.partition):
                yield Finding("default", str(self.partition.number))
                if self.repair:
                    await default_ttl.republish(self.redis, self.partition)
        except (WrongType, StateIncomplete, Unauthorized):
            return  # The check of the project, or of the state, has reported it.

    async def _check_sessions(self, ids: Sequence[str]) -> AsyncIterator[Finding]:
        scores = checked(await self.redis.batch([("ZSCORE", self.partition.sessions, name) for name in ids]))
        for session_id, score in zip(ids, scores, strict=True):
            if score is None:
                async for finding in self._verify(session_id):
                    yield finding

    async def _check_sets(self, names: Sequence[str]) -> AsyncIterator[Finding]:
        for name in names:
            number, _, term = name.partition(":")
            try:
                members = await self.redis.call("SMEMBERS", self.partition.index(number, term))
            except WrongType:
                members = []
            async for finding in self._verify_set(number, term, members):
                yield finding

    async def _check_blocks_lists(self, terms: Sequence[str]) -> AsyncIterator[Finding]:
        for first in range(0, len(terms), SETS_BATCH):
            batch = terms[first : first + SETS_BATCH]
            replies = await self.redis.batch([("SMEMBERS", self.partition.blocks(term)) for term in batch])
            for term, reply in zip(batch, replies, strict=True):
                if isinstance(reply, WrongType):
                    async for finding in self._verify_type(self.partition.blocks(term)):
                        yield finding
                    continue
                async for finding in self._check_listed_blocks(term, checked([reply])[0]):
                    yield finding

    async def _check_listed_blocks(self, term: str, blocks: Sequence[bytes]) -> AsyncIterator[Finding]:
        for block in [block for block in blocks if not is_text(block)]:
            yield Finding("listed", readable(block), term)
            if self.repair:
                await self.redis.call("SREM", self.partition.blocks(term), block, writes=True)
        names = [block.decode() for block in blocks if is_text(block)]
        existing = checked(await self.redis.batch([("EXISTS", self.partition.index(name, term)) for name in names]))
        for name in [name for name, exists in zip(names, existing, strict=True) if not exists]:
            async for finding in self._verify_set(name, term, ()):
                yield finding


def _readable(replies: Sequence[Any]) -> list[Any]:
    """Replies, with None for keys of the wrong type."""
    return [None if isinstance(reply, WrongType) else checked([reply])[0] for reply in replies]
