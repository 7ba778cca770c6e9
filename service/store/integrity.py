"""The truth of the index: what each session's configs should have left in the store, held against what is there.

`Check` walks the sessions, a block at a time, and compares the block's index sets with the terms computed from the documents;
then it scans the keys for sets and sessions that the walk cannot meet. The store is live meanwhile, so what looks wrong is only
a suspicion until one script has confirmed it (and mended it, where asked).
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import orjson

from service.configs.document import EMPTY, NULL, document, parse
from service.configs.lifetime import LAST_MOMENT
from service.configs.limits import Limits
from service.errors import BadRequest
from service.store import keys, nodes, scripts, session_ttl
from service.store.connection import Link, checked
from service.store.keys import Partition
from service.store.lane import Command

VERIFY_SESSION = scripts.load("verify_session")
VERIFY_SET = scripts.load("verify_set")
REGISTER_USER = scripts.load("register_user")

#: Sessions read, sets read a round trip: what a check may ask of a live Redis at once.
SESSIONS_BATCH, SETS_BATCH = 100, 50
#: How often a session that changes under the check is looked at again.
ATTEMPTS = 10
#: Seconds. A session is written before its user is registered, and a user's record goes before their sessions.
UNDER_WAY = 2.0

#: The fields without which a session cannot be read.
NUMBERS = ("serial", "revision", "created_at", "updated_at")

_SENTENCES = {
    "ghost": "session {id} is listed but has no hash",
    "unreadable": "session {id}: the configs cannot be read: {term}",
    "incomplete": "session {id}: the hash lacks a serial, revision or time, or has one or a user that cannot be read",
    "form": "session {id}: the configs were edited by hand",
    "terms": "session {id}: the terms field does not follow from the configs",
    "serial": "session {id}: it is not listed under its serial",
    "missing": "session {id} is missing from the index of {term}",
    "unlisted": "session {id}: its block is missing from the blocks of {term}",
    "stale": "session {id} is wrongly in the index of {term}",
    "orphan": "the index of {term} has {id}, which no session with that term has as its serial",
    "listed": "the blocks of {term} list block {id}, in which it does not occur",
    "user": "session {id}: its user is not registered",
    "lifetime": "session {id}: its expires_at is not what the list of expiring sessions says",
    "default": "partition {id}: its session_ttl is not what the project's configs say",
}
#: What no repair can bring back: only somebody who knows the configs can.
BEYOND_REPAIR = frozenset({"unreadable", "incomplete"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One confirmed difference. `id` is a session's id, or a serial or block where no session is to blame."""

    kind: str
    id: str
    term: str = ""

    def __str__(self) -> str:
        return _SENTENCES[self.kind].format(id=self.id, term=self.term)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a session's stored configs should lead to: their stored form, the terms field, and the terms one by one."""

    configs: bytes
    terms: bytes = EMPTY
    index_terms: tuple[str, ...] = ()
    problem: str = ""


def _complete(user: bytes | None, expires_at: bytes | None, numbers: Iterable[bytes | None]) -> bool:
    """Whether a session's `NUMBERS` are numbers; and so its expires_at, and its user a JSON string, if it has them."""
    try:
        known = user is None or isinstance(orjson.loads(user), str)
    except orjson.JSONDecodeError:
        known = False
    numbered = all(number is not None and number.isdigit() for number in numbers)
    return known and numbered and (expires_at is None or (expires_at.isdigit() and int(expires_at) <= LAST_MOMENT))


def judge(configs: bytes, limits: Limits) -> Judgement:
    """Compute what stored configs should look like and which terms they have."""
    if configs == NULL:
        return Judgement(NULL)
    # What is stored counts, even if the limits were larger when it was.
    unlimited = replace(limits, max_configs_bytes=2**62, max_keys=2**31, max_terms=2**31)
    try:
        values = parse(configs, max_nesting=limits.max_nesting)
    except BadRequest as error:
        return Judgement(configs, problem=error.message)
    if not isinstance(values, dict):
        return Judgement(configs, problem="not a JSON object")
    right = document(values, configs, unlimited)
    return Judgement(right.configs, right.terms, tuple(term for member in right.members for term in member.index_terms))


async def verify_session(
    link: Link,
    partition: Partition,
    session_id: str,
    limits: Limits,
    *,
    suspects: Iterable[str] = (),
    mend: bool = False,
) -> list[Finding]:
    """Hold one session against its configs, in one script; mend it where asked.

    `suspects` are terms whose sets may have the session wrongly, beside those in its `terms` field.
    """
    for _ in range(ATTEMPTS):
        fields = await link.call("HMGET", partition.session(session_id), "configs", "user", "expires_at", *NUMBERS)
        configs, user, expires_at, *numbers = fields
        if configs is not None and not _complete(user, expires_at, numbers):
            return [Finding("incomplete", session_id)]
        judged = judge(NULL if configs is None else configs, limits)
        reply = await VERIFY_SESSION.run(
            link,
            (partition.session(session_id), partition.sessions),
            (
                partition.prefix,
                partition.block_size,
                session_id,
                configs or b"",
                user or b"",
                judged.configs,
                judged.terms,
                int(mend),
                *suspects,
            ),
        )
        if reply[0] == b"changed":
            continue
        pairs = zip(reply[1::2], reply[2::2], strict=True)
        findings = [Finding(kind.decode(), session_id, term.decode()) for kind, term in pairs]
        return [Finding("unreadable", session_id, judged.problem), *findings] if judged.problem else findings
    return []  # A session that is written all the time is indexed all the time.


@dataclass(slots=True)
class _Block:
    """What one block's sets should hold."""

    number: int
    expected: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    ids: dict[bytes, str] = field(default_factory=dict)
    #: Sessions to look at closely, with the terms whose sets may have them wrongly.
    suspects: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    #: Members of its sets that are no session's serial.
    orphans: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True)
class Check:
    """A check of one partition. `progress` is called with the number of sessions and keys just looked at."""

    link: Link
    partition: Partition
    limits: Limits
    mend: bool = False
    progress: Callable[[int], object] = lambda _: None
    _covered: set[int] = field(default_factory=set)
    #: Users, each with a session of theirs: its id and serial.
    _users: dict[bytes, tuple[str, bytes]] = field(default_factory=dict)

    async def findings(self) -> AsyncIterator[Finding]:
        """Every difference there is, confirmed."""
        async for finding in check_all([self]):
            yield finding

    async def walk(self) -> AsyncIterator[Finding]:
        """The differences that the sessions lead to."""
        async for block in self._blocks():
            await self._compare_sets(block)
            for session_id, terms in block.suspects.items():
                for finding in await self._verify(session_id, terms):
                    yield finding
            for term, serials in block.orphans.items():
                for finding in await self._verify_set(block.number, term, serials):
                    yield finding
        async for finding in self._users_unknown():
            yield finding
        async for session_id in self._expiring_unlisted():
            for finding in await self._verify(session_id):
                yield finding
        async for finding in self._default_untold():
            yield finding

    async def _verify(self, session_id: str, suspects: Iterable[str] = ()) -> list[Finding]:
        return await verify_session(
            self.link, self.partition, session_id, self.limits, suspects=suspects, mend=self.mend
        )

    async def _blocks(self) -> AsyncIterator[_Block]:
        """The sessions in the order of their serials, gathered into blocks."""
        block: _Block | None = None
        after = "-inf"
        while listed := await self._listed(after):
            names = ("configs", "terms", "user", "expires_at", *NUMBERS)
            commands: list[Command] = [("HMGET", self.partition.session(name), *names) for name, _ in listed]
            commands += [("ZSCORE", self.partition.expiring, name) for name, _ in listed]
            replies = checked(await self.link.batch(commands))
            hashes, scores = replies[: len(listed)], replies[len(listed) :]
            for (session_id, serial), fields, score in zip(listed, hashes, scores, strict=True):
                number = self.partition.block_of(serial)
                if block is not None and block.number != number:
                    yield block
                    block = None
                block = block or _Block(number)
                self._expect(block, session_id, serial, fields, score)
            self.progress(len(listed))
            after = f"({listed[-1][1]}"
        if block is not None:
            yield block

    async def _listed(self, after: str) -> list[tuple[str, int]]:
        flat = await self.link.call(
            "ZRANGEBYSCORE", self.partition.sessions, after, "+inf", "WITHSCORES", "LIMIT", 0, SESSIONS_BATCH
        )
        return [(name.decode(), int(serial)) for name, serial in zip(flat[::2], flat[1::2], strict=True)]

    def _expect(
        self, block: _Block, session_id: str, serial: int, fields: Sequence[bytes | None], expiring: bytes | None
    ) -> None:
        configs, terms, user, expires_at, *numbers = fields
        own = b"%d" % serial
        if configs is None or numbers[0] != own or not _complete(user, expires_at, numbers):
            # Whatever has this serial is an orphan until the session is found right.
            block.suspects[session_id].update()
            return
        if (expires_at and float(expires_at)) != (expiring and float(expiring)):
            block.suspects[session_id].update()
        block.ids[own] = session_id
        judged = judge(configs, self.limits)
        if judged.problem or (judged.configs, judged.terms) != (configs, terms):
            block.suspects[session_id].update()
        for term in judged.index_terms:
            block.expected[term].add(own)
        if user is not None:
            block.expected[f"@user={user.decode()}"].add(own)
            self._users.setdefault(user, (session_id, own))

    async def _compare_sets(self, block: _Block) -> None:
        terms = list(block.expected)
        for first in range(0, len(terms), SETS_BATCH):
            some = terms[first : first + SETS_BATCH]
            commands: list[Command] = []
            for term in some:
                commands.append(("SMEMBERS", self.partition.index(block.number, term)))
                commands.append(("SISMEMBER", self.partition.blocks(term), block.number))
                self._covered.add(hash((str(block.number), term)))
            replies = checked(await self.link.batch(commands))
            for term, members, listed in zip(some, replies[::2], replies[1::2], strict=True):
                there, expected = set(members), block.expected[term]
                for serial in there ^ expected if listed else there | expected:
                    if serial in block.ids:
                        block.suspects[block.ids[serial]].add(term)
                    else:
                        block.orphans[term].append(serial)

    async def _users_unknown(self) -> AsyncIterator[Finding]:
        unknown = [user for user in self._users if not await self._is_known(user)]
        if unknown:
            await asyncio.sleep(UNDER_WAY)
        for user in unknown:
            session_id, serial = self._users[user]
            now = await self.link.call("HMGET", self.partition.session(session_id), "user", "serial")
            if now == [user, serial] and not await self._is_known(user):
                yield Finding("user", session_id)
                if self.mend:
                    await REGISTER_USER.run(self.link, (keys.users_key(self.partition.slug),), (orjson.loads(user),))

    async def _expiring_unlisted(self) -> AsyncIterator[str]:
        """Sessions that should expire and that the walk cannot meet."""
        cursor = b"0"
        while True:
            cursor, flat = await self.link.call("ZSCAN", self.partition.expiring, cursor, "COUNT", nodes.SCAN_BATCH)
            scores = checked(await self.link.batch([("ZSCORE", self.partition.sessions, name) for name in flat[::2]]))
            for name, score in zip(flat[::2], scores, strict=True):
                if score is None:
                    yield name.decode(errors="replace")
            if cursor == b"0":
                return

    async def _default_untold(self) -> AsyncIterator[Finding]:
        if await session_ttl.is_told(self.link, self.partition):
            return
        # A change is told to the partitions after it was made.
        await asyncio.sleep(UNDER_WAY)
        if not await session_ttl.is_told(self.link, self.partition):
            yield Finding("default", str(self.partition.number))
            if self.mend:
                await session_ttl.tell_again(self.link, self.partition)

    async def _is_known(self, user: bytes) -> bool:
        return await self.link.call("ZSCORE", keys.users_key(self.partition.slug), orjson.loads(user)) is not None

    async def look_at(self, found: Sequence[tuple[str, str]]) -> list[Finding]:
        """Look at what the walk over the sessions has not met: unlisted sessions, unexpected sets, listed empty blocks.

        `found` are keys of the partition, each as its kind and the rest of its name.
        """
        findings = []
        ids = [rest for kind, rest in found if kind == "session"]
        scores = checked(await self.link.batch([("ZSCORE", self.partition.sessions, name) for name in ids]))
        for session_id, score in zip(ids, scores, strict=True):
            if score is None:
                findings += await self._verify(session_id)
        for number, _, term in [rest.partition(":") for kind, rest in found if kind == "index"]:
            if hash((number, term)) not in self._covered:
                members = await self.link.call("SMEMBERS", self.partition.index(number, term))
                findings += await self._verify_set(number, term, members)
        for term in [rest for kind, rest in found if kind == "blocks"]:
            blocks = [block.decode(errors="replace") for block in await self.link.call("SMEMBERS", self.partition.blocks(term))]
            there = checked(await self.link.batch([("EXISTS", self.partition.index(block, term)) for block in blocks]))
            for block in [block for block, exists in zip(blocks, there, strict=True) if not exists]:
                findings += await self._verify_set(block, term, ())
        return findings

    async def _verify_set(self, block: int | str, term: str, serials: Sequence[bytes]) -> list[Finding]:
        findings = []
        for first in range(0, max(len(serials), 1), SETS_BATCH):
            reply = await VERIFY_SET.run(
                self.link,
                (self.partition.sessions,),
                (
                    self.partition.prefix,
                    self.partition.block_size,
                    block,
                    term,
                    int(self.mend),
                    *serials[first : first + SETS_BATCH],
                ),
            )
            for kind, serial in zip(reply[::2], reply[1::2], strict=True):
                orphan = Finding("orphan", serial.decode(errors="replace"), term)
                findings.append(orphan if kind == b"stale" else Finding("listed", str(block), term))
        return findings


async def check_all(checks: Sequence[Check]) -> AsyncIterator[Finding]:
    """Every difference in some partitions of one project, confirmed. The keys of Redis are scanned once for all of them."""
    for check in checks:
        async for finding in check.walk():
            yield finding
    by_prefix = {check.partition.prefix: check for check in checks}
    async for found in nodes.scan(checks[0].link, f"scc:{{{checks[0].partition.slug}.*}}:*"):
        parts: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for key in found:
            prefix, kind, rest = keys.split(key.decode())
            parts[prefix].append((kind, rest))
        for prefix, some in parts.items():
            if prefix in by_prefix:
                for finding in await by_prefix[prefix].look_at(some):
                    yield finding
        checks[0].progress(len(found))
