"""Verifies one session, or one set of the index, against the stored configs.

What the index must contain follows from the stored configs and from constants alone: never from a server's limits, which may
have been different when the configs were written. The store is live, so each comparison is one script; it can also repair.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

import orjson

from service.configs.document import EMPTY, NULL, Document, parse
from service.configs.limits import Limits
from service.configs.ttl import LAST_MOMENT
from service.errors import BadRequest
from service.redis_client.client import RedisClient
from service.redis_client.errors import WrongType
from service.store import script_calls
from service.store.keys import Partition

#: Serials that one call of `verify_set.lua` compares.
SERIALS_BATCH = 50
#: How often a session that changes during its verification is read again.
ATTEMPTS = 10
#: Levels of stored JSON that are parsed. A server stores at most 256; deeper JSON was written manually, and Python's stack
#: allows about a thousand.
MAX_STORED_NESTING = 512
#: Largest serial and revision: Lua's numbers are exact up to it.
MAX_INTEGER = 2**53

_UNLIMITED = Limits(max_configs_bytes=2**62, max_keys=2**31, max_terms=2**31)

#: The fields without which a session cannot be read, and the largest value of each.
NUMBERS = {"serial": MAX_INTEGER, "revision": MAX_INTEGER, "created_at": LAST_MOMENT, "updated_at": LAST_MOMENT}

MESSAGES = {
    # A session and its index.
    "ghost": "session {id} is listed but has no hash",
    "unreadable": "session {id}: the configs cannot be read: {term}",
    "incomplete": "session {id}: the hash lacks a serial, revision or time, or has one or a user that cannot be read",
    "form": "session {id}: the configs were edited manually",
    "terms": "session {id}: the terms field does not follow from the configs",
    "serial": "session {id}: it is not listed under its serial",
    "shared": "session {id}: another session has the same serial",
    "order": "session {id}: its serial is not in the order of creation",
    "misplaced": "session {id} is in the wrong partition: {term}",
    "missing": "session {id} is missing from the index of {term}",
    "unlisted": "session {id}: its block is missing from the blocks of {term}",
    "stale": "session {id} is wrongly in the index of {term}",
    "orphan": "the index of {term} has serial {id}, but no session with that term has it",
    "listed": "the blocks of {term} list block {id}, in which it does not occur",
    "user": "session {id}: its user is not registered",
    "expiry": "session {id}: its expires_at is not what the list of expiring sessions says",
    # A partition.
    "default": "partition {id}: its session_ttl is not what the project's configs say",
    "owner": "partition {id}: its state does not name its project and the number of partitions",
    "state": "partition {id}: its state is behind its sessions, or is not readable",
    # A key.
    "type": "key {id} has the wrong type: {term}",
    "name": "key {id} is not UTF-8",
    "unknown": "key {id} is not one that this service uses",
    "derived": "key {id} is left over: nothing reads it",
    # A project and its API keys.
    "project": "the project is not listed in scc:projects",
    "keys": "{id} and other keys belong to no project",
    "record": "the project's record is incomplete or damaged: {term}",
    "token": "API key {id}: its record and its project's set of API keys do not match",
    "orphaned token": "API key {id}: its record names no project",
}
#: Findings that no repair can fix: only the operator knows what was there.
BEYOND_REPAIR = frozenset({"unreadable", "incomplete", "unknown", "keys", "orphaned token"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One confirmed difference.

    `id` is a session's id or, where no session is concerned, a serial, block, partition or Redis key. `repairable` is whether
    `--repair` can remove the difference without losing user data.
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
    """What a session's stored configs require: their stored form, the terms field, and the terms one by one."""

    configs: bytes
    terms: bytes = EMPTY
    index_terms: tuple[str, ...] = ()
    problem: str = ""


def readable(name: bytes) -> str:
    """A name from Redis as printable text, whatever its bytes are."""
    return name.decode(errors="backslashreplace")


def is_number(text: bytes | None, maximum: int) -> bool:
    """Whether a stored field is an integer from 0 to `maximum`, in digits."""
    return text is not None and text.isdigit() and len(text) <= len(str(maximum)) and int(text) <= maximum


def is_complete(user: bytes | None, expires_at: bytes | None, numbers: Iterable[bytes | None]) -> bool:
    """Whether a session's `NUMBERS` are valid, and so are its expires_at and its user (a JSON string), if it has them."""
    try:
        has_user = user is None or isinstance(orjson.loads(user), str)
    except orjson.JSONDecodeError:
        has_user = False
    numbered = all(is_number(number, maximum) for number, maximum in zip(numbers, NUMBERS.values(), strict=True))
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
    expected = Document.build(values, configs, _UNLIMITED)
    return ExpectedIndex(
        expected.configs, expected.terms, tuple(term for member in expected.members for term in member.index_terms)
    )


async def verify_session(
    redis: RedisClient, partition: Partition, session_id: str, *, suspects: Iterable[str] = (), repair: bool = False
) -> list[Finding]:
    """Compare one session with its configs, in one script; optionally repair it.

    `suspects` are terms whose sets may contain the session wrongly, in addition to those in its `terms` field.

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
        call = script_calls.verify_session(
            session=partition.session(session_id),
            sessions=partition.sessions,
            state=partition.state,
            partition=partition.arguments,
            session_id=session_id,
            read_configs=configs or b"",
            read_user=user or b"",
            configs=expected.configs,
            terms=expected.terms,
            repair=int(repair),
            suspects=tuple(suspects),
        )
        comparison = await call.run(redis, writes=repair)
        if comparison.has_changed:
            continue
        findings = [Finding(kind, session_id, readable(term)) for kind, term in comparison.findings]
        return [Finding("unreadable", session_id, expected.problem), *findings] if expected.problem else findings
    return []  # A session that keeps changing is indexed by each of its writes.


async def verify_set(
    redis: RedisClient, partition: Partition, block: str, term: str, serials: Sequence[bytes], *, repair: bool = False
) -> list[Finding]:
    """Compare members of the set of `block` and `term` with the sessions that have these serials; optionally repair them.

    Raises:
        WrongType: one of its keys has the wrong type.
    """
    findings = []
    for first in range(0, max(len(serials), 1), SERIALS_BATCH):
        call = script_calls.verify_set(
            sessions=partition.sessions,
            partition=partition.arguments,
            block=block,
            term=term,
            repair=int(repair),
            serials=serials[first : first + SERIALS_BATCH],
        )
        for kind, serial in await call.run(redis, writes=repair):
            orphan = Finding("orphan", readable(serial), term)
            findings.append(orphan if kind == "stale" else Finding("listed", block, term))
    return findings


async def verify_type(
    redis: RedisClient, key: str, expected: str, *, derived: bool = False, repair: bool = False
) -> list[Finding]:
    """Check that `key`, if it exists, has the type `expected`.

    `repair` deletes a key of another type if it is `derived`, which means that its contents follow from other keys.
    """
    call = script_calls.verify_type(key=key, expected=expected, repair=int(derived and repair))
    actual = await call.run(redis, writes=derived and repair)
    return [Finding("type", key, f"{actual}, not {expected}", repairable=derived)] if actual else []


async def verify_types(
    redis: RedisClient,
    partition: Partition,
    session_id: str,
    blocks: Iterable[int],
    *,
    suspects: Iterable[str] = (),
    repair: bool = False,
) -> AsyncIterator[Finding]:
    """Index keys in `blocks`, of a session's terms and of `suspects`, that are not sets; `repair` deletes them."""
    configs, user = await redis.call("HMGET", partition.session(session_id), "configs", "user")
    terms = {*suspects, *expected_index(configs or NULL).index_terms}
    if user is not None:
        terms.add(f"@user={readable(user)}")
    for term in sorted(terms):
        for key in (partition.blocks(term), *(partition.index(block, term) for block in sorted(blocks))):
            for finding in await verify_type(redis, key, "set", derived=True, repair=repair):
                yield finding
