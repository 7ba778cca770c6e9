"""One session, or one set of the index, against what the stored configs require.

What the index must hold follows from the stored configs and from constants alone: never from a server's limits, which may have
been different when the configs were written. The store is live, so each comparison is one script; it also repairs, where asked.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

import orjson

from service.configs.document import EMPTY, NULL, document, parse
from service.configs.limits import Limits
from service.configs.ttl import LAST_MOMENT
from service.errors import BadRequest
from service.redis_client.client import RedisClient
from service.redis_client.errors import WrongType
from service.store import scripts
from service.store.keys import Partition

VERIFY_SESSION = scripts.load("verify_session")
VERIFY_SET = scripts.load("verify_set")
VERIFY_TYPE = scripts.load("verify_type")

#: Serials that one call of `verify_set.lua` looks at.
SERIALS_BATCH = 50
#: How often a session that changes during its verification is read again.
ATTEMPTS = 10
#: Levels of stored JSON that are parsed. A server stores 256 at most; what is deeper was written by hand, and Python's stack
#: ends near a thousand.
MAX_STORED_NESTING = 512
#: Largest serial and revision: Lua's numbers are exact up to there.
MAX_INTEGER = 2**53

_UNLIMITED = Limits(max_configs_bytes=2**62, max_keys=2**31, max_terms=2**31)

#: The fields without which a session cannot be read, and the largest value of each.
NUMBERS = {"serial": MAX_INTEGER, "revision": MAX_INTEGER, "created_at": LAST_MOMENT, "updated_at": LAST_MOMENT}

MESSAGES = {
    # A session and its index.
    "ghost": "session {id} is listed but has no hash",
    "unreadable": "session {id}: the configs cannot be read: {term}",
    "incomplete": "session {id}: the hash lacks a serial, revision or time, or has one or a user that cannot be read",
    "form": "session {id}: the configs were edited by hand",
    "terms": "session {id}: the terms field does not follow from the configs",
    "serial": "session {id}: it is not listed under its serial",
    "shared": "session {id}: another session has the same serial",
    "order": "session {id}: its serial is not in the order of creation",
    "misplaced": "session {id} is in a partition to which its id does not lead: {term}",
    "missing": "session {id} is missing from the index of {term}",
    "unlisted": "session {id}: its block is missing from the blocks of {term}",
    "stale": "session {id} is wrongly in the index of {term}",
    "orphan": "the index of {term} has {id}, which no session with that term has as its serial",
    "listed": "the blocks of {term} list block {id}, in which it does not occur",
    "user": "session {id}: its user is not registered",
    "lifetime": "session {id}: its expires_at is not what the list of expiring sessions says",
    # A partition.
    "default": "partition {id}: its session_ttl is not what the project's configs say",
    "owner": "partition {id}: its state does not name its project and the number of partitions",
    "state": "partition {id}: its state is behind its sessions, or is not readable",
    # A key.
    "type": "key {id} has the wrong type: {term}",
    "name": "key {id} is not UTF-8",
    "unknown": "key {id} is none that this service uses",
    "derived": "key {id} is left over: nothing reads it",
    # A project and its API keys.
    "project": "the project is not listed in scc:projects",
    "keys": "{id} and other keys belong to no project",
    "record": "the project's record is incomplete or damaged: {term}",
    "token": "API key {id}: its record and its project's set of API keys do not match",
    "orphaned token": "API key {id}: its record names no project",
}
#: What no repair can bring back: it takes somebody who knows what was there.
BEYOND_REPAIR = frozenset({"unreadable", "incomplete", "unknown", "keys", "orphaned token"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One confirmed difference.

    `id` is a session's id, or a serial, block, partition or key where no session is to blame. `repairable` is whether
    `--repair` removes the difference without losing what a user wrote.
    """

    kind: str
    id: str
    term: str = ""
    repairable: bool = True

    def __post_init__(self) -> None:
        """Some kinds are never repairable."""
        if self.kind in BEYOND_REPAIR:
            object.__setattr__(self, "repairable", False)

    def __str__(self) -> str:
        return MESSAGES[self.kind].format(id=self.id, term=self.term)


@dataclass(frozen=True, slots=True)
class ExpectedIndex:
    """What a session's stored configs should lead to: their stored form, the terms field, and the terms one by one."""

    configs: bytes
    terms: bytes = EMPTY
    index_terms: tuple[str, ...] = ()
    problem: str = ""


def readable(name: bytes) -> str:
    """A name from Redis as text that can be printed, whatever its bytes are."""
    return name.decode(errors="backslashreplace")


def is_number(text: bytes | None, maximum: int) -> bool:
    """Whether a stored field is an integer from 0 to `maximum`, in digits."""
    return text is not None and text.isdigit() and len(text) <= len(str(maximum)) and int(text) <= maximum


def is_complete(user: bytes | None, expires_at: bytes | None, numbers: Iterable[bytes | None]) -> bool:
    """Whether a session's `NUMBERS` are such; and so its expires_at, and its user a JSON string, if it has them."""
    try:
        has_user = user is None or isinstance(orjson.loads(user), str)
    except orjson.JSONDecodeError:
        has_user = False
    numbered = all(is_number(number, most) for number, most in zip(numbers, NUMBERS.values(), strict=True))
    return has_user and numbered and (expires_at is None or is_number(expires_at, LAST_MOMENT))


def expected_index(configs: bytes) -> ExpectedIndex:
    """Compute what stored configs should look like and which terms they have."""
    if configs == NULL:
        return ExpectedIndex(NULL)
    try:
        values = parse(configs, max_nesting=MAX_STORED_NESTING)
    except BadRequest as error:
        return ExpectedIndex(configs, problem=error.message)
    if not isinstance(values, dict):
        return ExpectedIndex(configs, problem="not a JSON object")
    expected = document(values, configs, _UNLIMITED)
    return ExpectedIndex(
        expected.configs, expected.terms, tuple(term for member in expected.members for term in member.index_terms)
    )


async def verify_session(
    redis: RedisClient, partition: Partition, session_id: str, *, suspects: Iterable[str] = (), repair: bool = False
) -> list[Finding]:
    """Compare one session with its configs, in one script; repair it where asked.

    `suspects` are terms whose sets may have the session wrongly, in addition to those in its `terms` field.

    Raises:
        WrongType: a key of the index has the wrong type.
    """
    for _ in range(ATTEMPTS):
        try:
            fields = await redis.call("HMGET", partition.session(session_id), "configs", "user", "expires_at", *NUMBERS)
        except WrongType:
            return await verify_type(redis, partition.session(session_id), "hash")
        configs, user, expires_at, *numbers = fields
        if configs is not None and not is_complete(user, expires_at, numbers):
            return [Finding("incomplete", session_id)]
        expected = expected_index(NULL if configs is None else configs)
        reply = await VERIFY_SESSION.run(
            redis,
            (partition.session(session_id), partition.sessions, partition.state),
            (
                *partition.arguments,
                session_id,
                configs or b"",
                user or b"",
                expected.configs,
                expected.terms,
                int(repair),
                *suspects,
            ),
            writes=repair,
        )
        if reply[0] == b"changed":
            continue
        pairs = zip(reply[1::2], reply[2::2], strict=True)
        findings = [Finding(kind.decode(), session_id, readable(term)) for kind, term in pairs]
        return [Finding("unreadable", session_id, expected.problem), *findings] if expected.problem else findings
    return []  # A session that is written all the time is indexed all the time.


async def verify_set(
    redis: RedisClient, partition: Partition, block: str, term: str, serials: Sequence[bytes], *, repair: bool = False
) -> list[Finding]:
    """Compare some members of the set of `block` and `term` with the sessions that have them as serials; repair where asked.

    Raises:
        WrongType: a key that it takes has the wrong type.
    """
    findings = []
    for first in range(0, max(len(serials), 1), SERIALS_BATCH):
        reply = await VERIFY_SET.run(
            redis,
            (partition.sessions,),
            (*partition.arguments, block, term, int(repair), *serials[first : first + SERIALS_BATCH]),
            writes=repair,
        )
        for kind, serial in zip(reply[::2], reply[1::2], strict=True):
            orphan = Finding("orphan", readable(serial), term)
            findings.append(orphan if kind == b"stale" else Finding("listed", block, term))
    return findings


async def verify_type(
    redis: RedisClient, key: str, expected: str, *, derived: bool = False, repair: bool = False
) -> list[Finding]:
    """Whether `key` is of the type `expected`, if it exists.

    One of another type is deleted with `repair`, if it is `derived`: what belongs there follows from other keys.
    """
    actual = await VERIFY_TYPE.run(redis, (key,), (expected, int(derived and repair)), writes=derived and repair)
    return [Finding("type", key, f"{actual.decode()}, not {expected}", repairable=derived)] if actual else []


async def verify_types(
    redis: RedisClient,
    partition: Partition,
    session_id: str,
    blocks: Iterable[int],
    *,
    suspects: Iterable[str] = (),
    repair: bool = False,
) -> AsyncIterator[Finding]:
    """The keys of the index in `blocks`, of a session's terms and of `suspects`, that are no sets; `repair` deletes them."""
    configs, user = await redis.call("HMGET", partition.session(session_id), "configs", "user")
    terms = {*suspects, *expected_index(configs or NULL).index_terms}
    if user is not None:
        terms.add(f"@user={readable(user)}")
    for term in sorted(terms):
        for key in (partition.blocks(term), *(partition.index(block, term) for block in sorted(blocks))):
            for finding in await verify_type(redis, key, "set", derived=True, repair=repair):
                yield finding
