"""A check of a whole store: it reports any damage correctly, never fails on it, and repairs what can be repaired."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.configs.containment import Filter
from service.configs.limits import Limits
from service.configs.ttl import Ttl
from service.redis_client.client import RedisClient
from service.redis_client.errors import WrongType
from service.redis_client.multiplexer import Command
from service.store import manifest
from service.store.keys import PROJECTS, STORE
from service.store.listing import Query, page
from service.store.manifest import LAYOUT
from service.store.projects import Registry
from service.store.sessions import Sessions
from service.store.upkeep import partition_check
from service.store.upkeep.check import StoreCheck
from service.store.upkeep.numbering import Numbered, misnumbered
from service.store.verify import Finding
from tests.support.filling import TIMEOUT, CountingClient, add, document_of, keyspace, on_every_redis, session_id
from tests.support.model import index_from_documents, index_in

BLOCK_SIZE, COUNT = 4, 9
ONE, TWO = session_id(1), session_id(2)
P = "scc:{acme.0}:"


@pytest.fixture(autouse=True)
def no_confirm_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_check, "CONFIRM_DELAY", 0)


async def small_store(redis: RedisClient, partitions: int = 1) -> Sessions:
    """A store with two projects, of which one has sessions, users, an expiry and an API key."""
    await redis.call("HSET", STORE, "layout", LAYOUT, "partitions", partitions, "block_size", BLOCK_SIZE)
    registry = Registry(redis, "secret")
    await registry.create("other")
    project, _ = await registry.create("acme")
    sessions = Sessions(redis, project, Limits(), partitions, BLOCK_SIZE)
    for number in range(1, COUNT + 1):
        await add(sessions, number, {"a": 1, "own": number, "c": {"d": [number % 3]}}, "alice" if number % 2 else None)
    await sessions.replace(ONE, document_of({"a": 1, "own": 1}), ttl=Ttl(10_000))
    return sessions


async def check(redis: RedisClient, *, repair: bool = False, only: str = "") -> list[tuple[str, Finding]]:
    registry, stored = Registry(redis, "secret"), await manifest.read(redis)
    projects = [await registry.get(only)] if only else await registry.all()
    reported = [each async for each in StoreCheck(redis, projects, stored, not only, repair).findings()]
    assert all(str(finding) for _, finding in reported)
    return reported


async def kinds(redis: RedisClient, *, repair: bool = False, only: str = "") -> set[str]:
    return {finding.kind for _, finding in await check(redis, repair=repair, only=only)}


#: Each kind of damage: the commands that cause it, the kinds of findings, and those that remain after a repair.
DAMAGE: dict[str, tuple[list[Command], set[str], set[str]]] = {
    "state lost": ([("DEL", P + "state")], {"state"}, set()),
    "state behind": ([("HSET", P + "state", "serial", 3)], {"state"}, set()),
    "created_at behind": ([("HSET", P + "state", "created_at", 3)], {"state"}, set()),
    "state not a number": ([("HSET", P + "state", "serial", "x", "created_at", "1e3")], {"state"}, set()),
    "state of another project": ([("HSET", P + "state", "project_id", "x")], {"owner"}, set()),
    "state of a project that is being deleted": ([("HSET", P + "state", "project_id", "deleted")], {"owner"}, set()),
    "state of another layout": ([("HSET", P + "state", "partitions", 7)], {"owner"}, set()),
    "state of a repartition": ([("HSET", P + "state", "partitions", 0)], {"owner"}, set()),
    "state without an owner": ([("HDEL", P + "state", "project_id", "partitions")], {"owner"}, set()),
    "state without an owner, and behind": ([("DEL", P + "state")], {"owner", "state"}, set()),
    "state of the wrong type": ([("SET", P + "state", "x")], {"state"}, set()),
    "session_ttl_revision not a number": ([("HSET", P + "state", "session_ttl_revision", "x")], {"default"}, set()),
    "session_ttl_revision ahead": ([("HSET", P + "state", "session_ttl_revision", 7)], {"default"}, set()),
    "index of the wrong type": ([("SET", P + "index:0:a=1", "x")], {"type"}, set()),
    "unused index of the wrong type": ([("SET", P + "index:7:a=1", "x")], {"type"}, set()),
    "blocks of the wrong type": ([("SET", P + "blocks:a=1", "x")], {"type"}, set()),
    "unused blocks of the wrong type": ([("SET", P + "blocks:z=1", "x")], {"type"}, set()),
    "sessions of the wrong type": ([("DEL", P + "sessions"), ("RPUSH", P + "sessions", "x")], {"type"}, set()),
    "expiring of the wrong type": ([("SET", P + "expiring", "x")], {"type"}, set()),
    "users of the wrong type": ([("SET", "scc:{acme}:users", "x")], {"type"}, set()),
    "tokens of the wrong type": ([("SET", "scc:{acme}:tokens", "x")], {"type"}, set()),
    "project of the wrong type": ([("SET", "scc:{acme}:project", "x")], {"type"}, {"type"}),
    "a session of the wrong type": ([("SET", P + "session:" + TWO, "x")], {"type", "orphan"}, {"type"}),
    "an unlisted session of the wrong type": ([("SET", P + "session:x", "x")], {"type"}, {"type"}),
    "rate of the wrong type": ([("SADD", "scc:rate:ab", "x")], {"type"}, set()),
    "a token of the wrong type": ([("SET", "scc:token:ab", "x")], {"type"}, {"type"}),
    "names that are not UTF-8": (
        [("SADD", b"scc:{acme.0}:index:0:\xff", 1), ("ZADD", P + "sessions", 5, b"\xfe"),
         ("ZADD", P + "expiring", 5, b"\xfe"), ("SADD", P + "blocks:a=1", b"\xff")],
        {"name", "ghost", "expiry", "listed"}, set(),
    ),
    "a session whose name is not UTF-8": ([("HSET", b"scc:{acme.0}:session:\xff", "a", 1)], {"name"}, {"name"}),
    "an unlisted project": ([("HDEL", PROJECTS, "acme")], {"project", "orphaned token"}, set()),
    "keys of no project": ([("SADD", "scc:{x.0}:index:0:a=1", 1)], {"keys"}, {"keys"}),
    "a project without a record": ([("DEL", "scc:{acme}:project")], {"record"}, set()),
    "a damaged record": (
        [("HSET", "scc:{acme}:project", "created_at", "x", "configs_revision", "y")], {"record"}, set(),
    ),
    "another id in a record": ([("HSET", "scc:{acme}:project", "id", "x")], {"record"}, {"record"}),
    "configs of a project": ([("HSET", "scc:{acme}:project", "configs", "{oops")], {"record"}, {"record"}),
    "unknown keys": (
        [("SET", "scc:foo", 1), ("SET", P + "foo", 1), ("SET", "scc:{acme}:foo", 1), ("SET", "scc:{acme.00}:state", 1),
         ("SET", P + "state:x", 1)],
        {"unknown"}, {"unknown"},
    ),
    "a partition beyond the last": (
        [("SADD", "scc:{acme.7}:index:0:a=1", 1), ("HSET", "scc:{acme.7}:state", "serial", 1)], {"derived"}, set(),
    ),
    "a session in a partition beyond the last": (
        [("HSET", "scc:{acme.7}:session:" + ONE, "configs", "{}")], {"misplaced"}, {"misplaced"},
    ),
    "a leftover order of a repartition": ([("ZADD", P + "order", 1, ONE)], {"derived"}, set()),
    "a score that is not a serial": ([("ZADD", P + "sessions", "1.5", TWO)], {"serial", "orphan"}, set()),
    "an infinite score": ([("ZADD", P + "sessions", "+inf", TWO)], {"serial", "orphan"}, set()),
    "a serial of another session": ([("HSET", P + "session:" + TWO, "serial", 1), ("ZADD", P + "sessions", 1, TWO)],
                                    {"shared"}, set()),
    "an unlisted session with another's serial": (
        [("ZREM", P + "sessions", TWO), ("HSET", P + "session:" + TWO, "serial", 1)], {"shared"}, set(),
    ),
    "a session created before the one ahead of it": (
        [("HSET", P + "session:" + session_id(5), "created_at", 5)], {"order"}, set(),
    ),
}  # fmt: skip


@on_every_redis
@pytest.mark.parametrize("listed", [True, False])
async def test_a_misplaced_session_moves_to_the_partition_of_its_id(redis: RedisClient, *, listed: bool) -> None:
    sessions = await small_store(redis, 3)
    home = sessions.partition(TWO)
    other = next(partition for partition in sessions.all_partitions if partition != home)
    before = await sessions.get(TWO)
    await redis.call("RENAME", home.session(TWO), other.session(TWO))
    if listed:
        await redis.call("ZADD", other.sessions, before.serial, TWO)
    assert "misplaced" in await kinds(redis)
    await check(redis, repair=True)
    assert await check(redis) == []
    after = await sessions.get(TWO)
    assert after == before._replace(serial=after.serial)
    listing = await page(sessions, Query(filter=Filter.parse(b'{"own":2}', sessions.limits)), 10)
    assert [session.id for session in listing.sessions] == [TWO]


@on_every_redis
async def test_a_misplaced_session_is_not_moved_over_an_existing_key(redis: RedisClient) -> None:
    sessions = await small_store(redis, 3)
    other = next(partition for partition in sessions.all_partitions if partition != sessions.partition(TWO))
    await redis.call("HSET", other.session(TWO), "configs", "{}")
    before = await keyspace(redis)
    assert [(finding.kind, finding.repairable) for _, finding in await check(redis, repair=True)][-1] == ("misplaced", False)
    assert await keyspace(redis) == before
    assert await kinds(redis) >= {"misplaced"}


@on_every_redis
@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_is_reported_and_repaired_where_possible(redis: RedisClient, damage: str) -> None:
    await small_store(redis)
    assert await check(redis) == []
    commands, expected, remaining = DAMAGE[damage]
    for command in commands:
        if command[0] == "SET":
            await redis.call("DEL", command[1])
        await redis.call(*command)
    reported = await check(redis)
    assert expected <= {finding.kind for _, finding in reported}
    assert len(set(reported)) == len(reported)
    repaired = await check(redis, repair=True)
    assert {finding.kind for _, finding in repaired if not finding.repairable} >= remaining
    after_repair = await check(redis)
    assert {finding.kind for _, finding in after_repair} == remaining
    assert not any(finding.repairable for _, finding in after_repair)


@on_every_redis
async def test_sessions_that_share_serials_after_a_lost_state_are_all_listed_after_a_repair(redis: RedisClient) -> None:
    sessions = await small_store(redis)
    await redis.call("HDEL", P + "state", "serial", "created_at")
    for number in range(21, 33):
        await add(sessions, number, {"a": 1, "own": number})
    before = {name: content for name, content in (await keyspace(redis)).items() if ":session:" in name}
    assert {"state", "shared"} & await kinds(redis)
    await check(redis, repair=True)
    assert await check(redis) == []
    after = await keyspace(redis)
    for name, fields in before.items():
        assert {**after[name], b"serial": b""} == {**fields, b"serial": b""}
    partition = sessions.all_partitions[0]
    assert index_in(after, partition) == index_from_documents(after, partition)
    every = [session_id(number) for number in (*range(1, COUNT + 1), *range(21, 33))]
    for query in (Query(), Query(filter=Filter({"a": 1}, {"a": 1}))):
        assert [each.id for each in (await page(sessions, query, 50)).sessions] == every
    await add(sessions, 40, {"a": 1})
    assert await check(redis) == []


def test_only_sessions_from_the_first_that_is_out_of_order_get_new_serials() -> None:
    numbered = [Numbered(10, "a", 1), Numbered(20, "b", 2), Numbered(30, "c", 3)]
    assert misnumbered(numbered) == []
    assert misnumbered([*numbered, Numbered(40, "d", 1), Numbered(50, "e", 4)]) == [Numbered(40, "d", 1), Numbered(50, "e", 4)]
    assert misnumbered([*numbered, Numbered(25, "d", 9)]) == [Numbered(30, "c", 3)]


async def test_the_limits_of_a_server_do_not_affect_the_expected_index(redis: RedisClient) -> None:
    sessions = await small_store(redis)
    deep: object = 1
    for _ in range(250):
        deep = [deep]
    wide = {f"k{number}": number for number in range(3000)}
    generous = Limits(max_nesting=256, max_keys=10_000, max_terms=10_000)
    for number, configs in ((50, {"deep": deep}), (51, wide)):
        await sessions.create_session(session_id(number), document_of(configs, generous))
    assert await check(redis) == []
    for levels in (300, 511, 600, 5000, 100_000):
        await redis.call("HSET", P + "session:" + TWO, "configs", '{"a":' + "[" * levels + "]" * levels + "}")
        assert await kinds(redis) <= {"form", "missing", "unlisted", "stale", "terms", "unreadable"}


async def test_a_list_over_a_key_of_the_wrong_type_works_after_a_repair(redis: RedisClient) -> None:
    sessions = await small_store(redis)
    query = Query(filter=Filter({"a": 1}, {"a": 1}))
    # The blocks of a term are read once a block lacks one of the filter's terms.
    other = Query(filter=Filter({"a": 1, "z": 1}, {"a": 1, "z": 1}))
    for key, failing in (("index:0:a=1", query), ("blocks:a=1", other), ("sessions", query)):
        await redis.call("DEL", P + key)
        await redis.call("SET", P + key, "x")
        with pytest.raises(WrongType):
            await page(sessions, failing, 50)
        await check(redis, repair=True)
        assert len((await page(sessions, query, 50)).sessions) == COUNT
    await redis.call("DEL", P + "session:" + TWO)
    await redis.call("SET", P + "session:" + TWO, "x")
    assert len((await page(sessions, query, 50)).sessions) == COUNT - 1


@pytest.mark.parametrize("serial", ["0", "1", "99", "x", ""])
async def test_one_repair_is_enough_for_a_serial_that_a_manual_edit_changed(redis: RedisClient, serial: str) -> None:
    await small_store(redis)
    await redis.call("HSET", P + "session:" + TWO, "serial", serial)
    await check(redis, repair=True)
    assert [finding for _, finding in await check(redis) if finding.repairable] == []


async def test_keys_are_scanned_once_for_any_number_of_projects_with_progress_over_all_of_them(empty_redis: str) -> None:
    redis = CountingClient.open(empty_redis, timeout=TIMEOUT)
    await small_store(redis)
    for number in range(5):
        await Registry(redis, "secret").create(f"p{number}")
    await redis.batch([("SET", f"foreign:{number}", 1) for number in range(3000)])
    total, redis.seen = await redis.call("DBSIZE"), []
    progress: list[int] = []
    projects = await Registry(redis, "secret").all()
    async for _ in StoreCheck(redis, projects, await manifest.read(redis), progress=progress.append).findings():
        raise AssertionError("nothing is wrong")
    scans = [command for command, _ in redis.seen if command[0] == "SCAN"]
    assert len([command for command in scans if command[1] == 0]) == 1
    assert all("scc:*" in command for command in scans)
    assert sum(progress) == total + COUNT
    assert len(progress) > 5
    await redis.close()


async def test_a_check_of_one_project_ignores_the_others(redis: RedisClient) -> None:
    await small_store(redis)
    await redis.call("SET", "scc:{other}:users", "x")
    await redis.call("SET", "scc:foo", "x")
    assert await check(redis, only="acme") == []
    assert await kinds(redis, only="other") == {"type"}


# --------------------------------------------------------------------------------------------- random damage


def damaged_value(random: Random) -> str:
    return random.choice(["", "x", "-1", "1.5", "1e400", "99", "0", '{"a":2}', "null", "{oops", "9" * 30, '"bob"'])


async def damage_one(redis: RedisClient, random: Random) -> None:
    """Delete, retype, rename or alter a random key, field or member."""
    names = sorted(name for name in await redis.call("KEYS", "scc:{*") if b"moved" not in name)
    name = random.choice(names)
    kind = (await redis.call("TYPE", name)).decode()
    action = random.randrange(5)
    if action == 0:
        await redis.call("DEL", name)
    elif action == 1:
        await redis.call("DEL", name)
        others: list[Command] = [("SET", name, "x"), ("RPUSH", name, "x"), ("ZADD", name, 1, "x"), ("HSET", name, "x", 1)]
        await redis.call(*random.choice(others))
    elif action == 2:
        await redis.call("RENAME", name, name + random.choice([b"x", b"\xff", b":y"]))
    elif kind == "hash":
        field = random.choice(sorted(await redis.call("HKEYS", name)))
        await redis.call(*random.choice([("HDEL", name, field), ("HSET", name, field, damaged_value(random))]))
    elif kind == "zset":
        member = random.choice(await redis.call("ZRANGE", name, 0, -1))
        score = random.choice(["1", "2", "1.5", "-inf", "+inf", "99", "1e300"])
        await redis.call(
            *random.choice([("ZREM", name, member), ("ZADD", name, score, member), ("ZADD", name, score, b"\xff")])
        )
    elif kind == "set":
        member = random.choice(sorted(await redis.call("SMEMBERS", name)))
        added = random.choice([damaged_value(random), b"\xff"])
        await redis.call(*random.choice([("SREM", name, member), ("SADD", name, added)]))


def on_small_store(url: str, use: Callable[[RedisClient], Awaitable[None]]) -> None:
    async def run() -> None:
        redis = RedisClient.open(url, timeout=TIMEOUT)
        await redis.call("FLUSHALL")
        await small_store(redis, 2)
        await use(redis)
        await redis.close()

    asyncio.run(run())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), times=st.integers(1, 3))
def test_no_damage_makes_a_check_fail_and_a_repair_leaves_only_what_is_not_repairable(
    redis_url: str, seed: int, times: int
) -> None:
    async def use(redis: RedisClient) -> None:
        random = Random(seed)
        for _ in range(times):
            await damage_one(redis, random)
        damaged = await _dump(redis)
        configs = await _configs(redis)
        first = await check(redis)
        assert await _dump(redis) == damaged
        await check(redis, repair=True)
        assert [each for each in await check(redis) if each[1].repairable] == []
        # A repair changes the layout of configs at most, not their content.
        assert {name: without_whitespace(text) for name, text in (await _configs(redis)).items()} == {
            name: without_whitespace(text) for name, text in configs.items()
        }
        # A repair changes nothing unless a check has reported damage.
        assert first or await _dump(redis) == damaged

    on_small_store(redis_url, use)


def without_whitespace(configs: bytes) -> bytes:
    return configs.replace(b"\n", b"").replace(b" ", b"")


async def _configs(redis: RedisClient) -> dict[bytes, bytes]:
    configs = {}
    for name in await redis.call("KEYS", "scc:{*}:session:*"):
        if await redis.call("TYPE", name) == b"hash" and await redis.call("HGET", name, "configs") is not None:
            configs[name] = await redis.call("HGET", name, "configs")
    return configs


async def _dump(redis: RedisClient) -> dict[bytes, Any]:
    reads: dict[bytes, Sequence[str]] = {
        b"hash": ("HGETALL",), b"set": ("SMEMBERS",), b"zset": ("ZRANGE", "0", "-1", "WITHSCORES"),
        b"string": ("GET",), b"list": ("LRANGE", "0", "-1"),
    }  # fmt: skip
    contents = {}
    for name in await redis.call("KEYS", "*"):
        first, *rest = reads[await redis.call("TYPE", name)]
        reply = await redis.call(first, name, *rest)
        contents[name] = sorted(reply) if first == "SMEMBERS" else reply
    return contents
