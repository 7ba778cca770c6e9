"""Damage by manual edits in redis-cli: a check reports it, changes nothing unless asked, and repairs it on request."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import product

import pytest

from service.errors import NotFound, Unreadable
from service.redis_client.client import RedisClient
from service.store.keys import users_key
from service.store.listing import Query, page
from service.store.sessions import Sessions
from service.store.upkeep import partition_check
from service.store.upkeep.partition_check import Check
from service.store.users import Users
from service.store.verify import BEYOND_REPAIR
from tests.support.filling import PROJECT, add, document_of, fill, keyspace, on_every_redis, session_id
from tests.support.model import index_from_documents, index_in

#: Sessions 1 to 6 in blocks of four serials: 1 to 3, then 4 to 6. All have a=1; each has a term of its own and a user.
COUNT = 6


async def findings(sessions: Sessions, *, repair: bool = False) -> list[str]:
    """Findings of a check of every partition, in the form `kind id term`."""
    lines = []
    for partition in sessions.all_partitions:
        async for finding in Check(sessions.redis, partition, repair).findings():
            assert str(finding)
            lines.append(" ".join(part for part in (finding.kind, finding.id, finding.term) if part))
    return sorted(lines)


@pytest.fixture(autouse=True)
def no_confirm_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_check, "CONFIRM_DELAY", 0)


@pytest.fixture
async def filled(sessions: Sessions) -> Sessions:
    await fill(sessions, [{"a": 1, "own": number, "c": {"d": [number]}} for number in range(1, COUNT + 1)], "alice")
    assert await findings(sessions) == []
    return sessions


ONE, TWO, FIVE = session_id(1), session_id(2), session_id(5)
Damage = Callable[[RedisClient], Awaitable[object]]


def session(name: str) -> str:
    return f"scc:{{acme.0}}:session:{name}"


def index(block: int, term: str) -> str:
    return f"scc:{{acme.0}}:index:{block}:{term}"


def blocks(term: str) -> str:
    return f"scc:{{acme.0}}:blocks:{term}"


LISTED = "scc:{acme.0}:sessions"
EXPIRING = "scc:{acme.0}:expiring"

#: Each kind of damage: the commands that cause it, and the findings of a check.
DAMAGE: dict[str, tuple[list[tuple[str | int, ...]], list[str]]] = {
    "configs on one line": (
        [("HSET", session(TWO), "configs", '{"a":1,"own":2,"c":{"d":[2]}}')],
        [f"form {TWO}"],
    ),
    "configs changed on one line": (
        [("HSET", session(TWO), "configs", '{ "a": 2, "new": true }')],
        [f"form {TWO}", f"missing {TWO} a=2", f"missing {TWO} new=true", f"stale {TWO} a=1", f"stale {TWO} c.d[]=2",
         f"stale {TWO} own=2", f"terms {TWO}", f"unlisted {TWO} a=2", f"unlisted {TWO} new=true"],
    ),
    "configs changed line by line": (
        [("HSET", session(TWO), "configs", '{\n"a":1,\n"own":1,\n"c":{"d":[2]}\n}')],
        [f"missing {TWO} own=1", f"stale {TWO} own=2", f"terms {TWO}"],
    ),
    "configs made null": (
        [("HSET", session(TWO), "configs", "null")],
        [f"stale {TWO} a=1", f"stale {TWO} c.d[]=2", f"stale {TWO} own=2", f"terms {TWO}"],
    ),
    "a value broken over lines": (
        [("HSET", session(TWO), "configs", '{\n"a":1,\n"own":2,\n"c":{"d":[\n2]}\n}')],
        [f"form {TWO}"],
    ),
    "an index set deleted": (
        [("DEL", index(0, "a=1"))],
        ["listed 0 a=1"] + [f"missing {session_id(number)} a=1" for number in (1, 2, 3)],
    ),
    "the index set of one session deleted": (
        [("DEL", index(0, "own=2"))],
        ["listed 0 own=2", f"missing {TWO} own=2"],
    ),
    "a member removed": (
        [("SREM", index(1, "a=1"), 5)],
        [f"missing {FIVE} a=1"],
    ),
    "a member of no session added": (
        [("SADD", index(0, "a=1"), 77)],
        ["orphan 77 a=1"],
    ),
    "a session's member in another block": (
        [("SADD", index(1, "a=1"), 2), ("SADD", index(7, "a=1"), 2, 3), ("SADD", blocks("a=1"), 7)],
        ["orphan 2 a=1", "orphan 2 a=1", "orphan 3 a=1"],
    ),
    "members that are not serials": (
        [("SADD", index(0, "a=1"), "x", "1.5", "-3", "001")],
        [f"orphan {text} a=1" for text in ("x", "1.5", "-3", "001")],
    ),
    "blocks that are not numbers": (
        [("SADD", blocks("a=1"), "x", "-1", "00"), ("SADD", index(12, "a=1"), "1")],
        ["listed -1 a=1", "listed 00 a=1", "listed x a=1", "orphan 1 a=1"],
    ),
    "a member of another session added": (
        [("SADD", index(0, "own=2"), 1)],
        [f"stale {ONE} own=2"],
    ),
    "a set of a session for a term that no session has": (
        [("SADD", index(0, "x=1"), 1), ("SADD", blocks("x=1"), 0)],
        ["orphan 1 x=1"],
    ),
    "an unlisted set for a term that no session has": (
        [("SADD", index(0, "x=1"), 1)],
        ["orphan 1 x=1"],
    ),
    "a set in a block without sessions": (
        [("SADD", index(900, "a=1"), 3601, 3602), ("SADD", blocks("a=1"), 900)],
        ["orphan 3601 a=1", "orphan 3602 a=1"],
    ),
    "a listed block without a set": (
        [("SADD", blocks("a=1"), 900)],
        ["listed 900 a=1"],
    ),
    "a block not listed": (
        [("SREM", blocks("a=1"), 1)],
        [f"unlisted {session_id(number)} a=1" for number in (4, 5, 6)],
    ),
    "the blocks of a term deleted": (
        [("DEL", blocks("own=5"))],
        [f"unlisted {FIVE} own=5"],
    ),
    "a session not listed": (
        [("ZREM", LISTED, TWO)],
        ["orphan 2 " + term for term in ('@user="alice"', "a=1", "c.d[]=2", "own=2")] + [f"serial {TWO}"],
    ),
    "a session listed under an unused serial": (
        [("ZADD", LISTED, 99, TWO)],
        ["orphan 2 " + term for term in ('@user="alice"', "a=1", "c.d[]=2", "own=2")] + [f"serial {TWO}"],
    ),
    "a hash deleted": (
        [("DEL", session(TWO))],
        [f"ghost {TWO}"] + ["orphan 2 " + term for term in ('@user="alice"', "a=1", "c.d[]=2", "own=2")],
    ),
    "an id listed that was never created": (
        [("ZADD", LISTED, 50, session_id(50))],
        [f"ghost {session_id(50)}"],
    ),
    "the terms field removed": (
        [("HDEL", session(TWO), "terms")],
        [f"terms {TWO}"],
    ),
    "the terms field changed": (
        [("HSET", session(TWO), "terms", '{\n"a":a=7\n}')],
        [f"terms {TWO}"],
    ),
    "the registration of the user deleted": (
        [("ZREM", users_key("acme"), "alice")],
        [f"user {ONE}"],
    ),
    "an expiry in the hash only": (
        [("HSET", session(TWO), "expires_at", "4000000000000000"), ("HSET", session(FIVE), "expires_at", "5")],
        [f"expiry {TWO}", f"expiry {FIVE}"],
    ),
    "different expiries in the hash and the list": (
        [("HSET", session(TWO), "expires_at", "4000000000000000"), ("ZADD", EXPIRING, "4000000000000001", TWO)],
        [f"expiry {TWO}"],
    ),
    "an expiry in the list only": (
        [("ZADD", EXPIRING, 5, TWO), ("ZADD", EXPIRING, 4_000_000_000_000_000, FIVE)],
        [f"expiry {TWO}", f"expiry {FIVE}"],
    ),
    "an expiry of no session": (
        [("ZADD", EXPIRING, 5, session_id(50), 5, "x")],
        [f"expiry {session_id(50)}", "expiry x"],
    ),
    "the hash of a session with an expiry deleted": (
        [("ZADD", EXPIRING, 5, TWO), ("DEL", session(TWO))],
        [f"ghost {TWO}", f"expiry {TWO}"]
        + ["orphan 2 " + term for term in ('@user="alice"', "a=1", "c.d[]=2", "own=2")],
    ),
    "the user of a session changed": (
        [("HSET", session(TWO), "user", '"bob"')],
        [f'missing {TWO} @user="bob"', f'stale {TWO} @user="alice"', f'unlisted {TWO} @user="bob"', f"user {TWO}"],
    ),
}  # fmt: skip


@on_every_redis
@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_check_names_damage_without_changes_and_repairs_it_on_request(filled: Sessions, damage: str) -> None:
    commands, expected = DAMAGE[damage]
    before = await keyspace(filled.redis)
    for command in commands:
        await filled.redis.call(*command)
    damaged = await keyspace(filled.redis)
    assert damaged != before
    assert await findings(filled) == sorted(expected)
    assert await keyspace(filled.redis) == damaged

    assert await findings(filled, repair=True) != []
    assert await findings(filled) == []
    repaired = await keyspace(filled.redis)
    partition = filled.all_partitions[0]
    assert index_in(repaired, partition) == index_from_documents(repaired, partition)
    for name in [name for name in repaired if ":session:" in name]:
        assert repaired[LISTED][name.rpartition(":")[2].encode()] == int(repaired[name][b"serial"])
    if not any(word in damage for word in ("configs", "value", "hash", "user of")):
        repaired[users_key("acme")] = before[users_key("acme")]  # a user who is registered again has a later created_at
        assert repaired == before


UNREADABLE = {
    "not JSON": ("{oops", "the JSON cannot be parsed"),
    "not an object": ("[1]", "not a JSON object"),
    "an invalid member": ('{\n"a":1,\n"b":}\n}', "the JSON cannot be parsed"),
    "empty": ("", "the JSON cannot be parsed"),
    "too deep": ('{"a":' + "[" * 600 + "]" * 600 + "}", "the JSON is nested deeper than 512 levels"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_configs_that_cannot_be_read_are_reported_and_not_lost(filled: Sessions, kind: str) -> None:
    configs, problem = UNREADABLE[kind]
    await filled.redis.call("HSET", session(TWO), "configs", configs)
    stale = [f"stale {TWO} {term}" for term in ("a=1", "c.d[]=2", "own=2")]
    unreadable = f"unreadable {TWO} {problem}"
    assert await findings(filled) == sorted([unreadable, f"terms {TWO}", *stale])
    assert unreadable in await findings(filled, repair=True)
    # A second repair reports only this, and the operator can still read the text.
    assert await findings(filled, repair=True) == [unreadable]
    assert {line.split()[0] for line in await findings(filled)} <= BEYOND_REPAIR
    assert await filled.redis.call("HGET", session(TWO), "configs") == configs.encode()


@pytest.mark.parametrize("kind", [kind for kind in UNREADABLE if kind != "empty"])
async def test_a_patch_of_unreadable_configs_is_refused_and_a_put_replaces_them(filled: Sessions, kind: str) -> None:
    configs, _ = UNREADABLE[kind]
    await filled.redis.call("HSET", session(TWO), "configs", configs)
    if kind == "an invalid member":
        # Each member is on a line of its own, so a PATCH of the invalid one repairs it.
        patched = await filled.patch(TWO, document_of({"b": 2}))
        assert patched.configs == b'{\n"a":1,\n"b":2\n}'
    else:
        with pytest.raises(Unreadable):
            await filled.patch(TWO, document_of({"b": 2}))
        assert await filled.redis.call("HGET", session(TWO), "configs") == configs.encode()
        await filled.replace(TWO, document_of({"b": 2}))
    assert [line for line in await findings(filled, repair=True) if line.startswith("unreadable")] == []
    assert await findings(filled) == []


@pytest.mark.parametrize(
    ("edited", "merged"),
    [
        ('{"a":1, "own":2, "mine":{"x": [1, 2]}}', b'{\n"a":1,\n"own":7,\n"mine":{"x": [1, 2]}\n}'),
        ('{\n  "a": 1,\n  "own": 2\n}', b'{\n"a":1,\n"own":7\n}'),
        ('{\n"own":2,\n"mine":{\n"x":1},\n"b":[\n"y"]\n}', b'{\n"own":7,\n"mine":{"x":1},\n"b":["y"]\n}'),
        ('{\n"mine":{\n"x":1},\n"own":2\n}', b'{\n"mine":{"x":1},\n"own":7\n}'),
        ('{\n"own":2,\n"mine":\n1\n}', b'{\n"own":7,\n"mine":1\n}'),
        ("{ }", b'{\n"own":7\n}'),
        ("null", b'{\n"own":7\n}'),
        ('{"\\u006fwn":3,"\\u0062":1}', b'{\n"own":7,\n"b":1\n}'),
    ],
)
async def test_a_patch_merges_into_configs_edited_manually(filled: Sessions, edited: str, merged: bytes) -> None:
    await filled.redis.call("HSET", session(TWO), "configs", edited)
    patched = await filled.patch(TWO, document_of({"own": 7}))
    assert patched.configs == merged
    assert (await filled.get(TWO)).configs == merged
    await findings(filled, repair=True)
    assert await findings(filled) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *product(("serial", "revision", "created_at", "updated_at"), (None, "", "x")),
        *product(("expires_at",), ("", "x", "1.5")),
        ("revision", "-1"),
        ("user", "alice"),
        ("user", "5"),
    ],
)
async def test_a_hash_damaged_beyond_its_configs_is_reported_and_affects_no_other_session(
    filled: Sessions, field: str, value: str | None
) -> None:
    await filled.redis.call(*(("HDEL", session(TWO), field) if value is None else ("HSET", session(TWO), field, value)))
    for repair in (False, True, True):
        assert f"incomplete {TWO}" in await findings(filled, repair=repair)
    others = [session_id(number) for number in range(1, COUNT + 1) if number != 2]
    if value != "-1":
        with pytest.raises(Unreadable):
            await filled.get(TWO)
        with pytest.raises(Unreadable):
            await filled.copy_session(TWO, session_id(9))
        assert [each.id for each in (await page(filled, Query(user="alice"), 50)).sessions] == others
        assert [each.id for each in (await page(filled, Query(), 50)).sessions] == others
        before = await keyspace(filled.redis)
        if field != "user":
            for write in (filled.replace(TWO, document_of({"b": 2})), filled.patch(TWO, document_of({"b": 2}))):
                with pytest.raises(Unreadable):
                    await write
            assert await keyspace(filled.redis) == before
        if field not in ("user", "updated_at", "expires_at"):
            with pytest.raises(Unreadable):
                await filled.delete(TWO)
            assert await keyspace(filled.redis) == before
    assert b'"own":2' in await filled.redis.call("HGET", session(TWO), "configs")
    assert [line for line in await findings(filled, repair=True) if "incomplete" not in line] == []


async def test_a_session_deleted_during_its_check_is_not_reported(filled: Sessions) -> None:
    check = Check(filled.redis, filled.all_partitions[0])
    is_deleted = False
    async for _ in check.findings():
        raise AssertionError("nothing is wrong")
    reported = []
    async for block in check._blocks():
        if not is_deleted:
            await filled.delete(ONE)
            is_deleted = True
        reported += [finding async for finding in check._check_block(block)]
    assert is_deleted
    assert reported == []


async def test_a_user_who_is_about_to_be_registered_is_not_reported(filled: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    await filled.create_session(session_id(7), document_of({}), user="bob")
    await filled.registration.remove("bob")

    async def register(seconds: float) -> None:
        assert seconds == partition_check.CONFIRM_DELAY
        await filled.registration.register("bob")

    monkeypatch.setattr(asyncio, "sleep", register)
    assert await findings(filled) == []


async def test_a_user_deleted_during_a_check_is_neither_reported_nor_restored(filled: Sessions) -> None:
    await add(filled, 7, {"a": 1}, "bob")
    users = Users(filled)
    partition = filled.all_partitions[0]
    checked = 0

    def progress(count: int) -> None:
        nonlocal checked
        checked += count

    check = Check(filled.redis, partition, repair=True, progress=progress)
    async for block in check._blocks():
        await check._gather_unknown_users(block.users)
    await users.delete("alice")
    assert [str(finding) async for finding in check._check_users()] == []
    names = [user.identifier for user in (await users.page(limit=1000, after=None, descending=False))[0]]
    assert names == ["bob"]
    with pytest.raises(NotFound):
        await users.count_sessions("alice")
    assert checked == COUNT + 1
    assert PROJECT.slug == "acme"
