"""Repartitions that the state of the store does not allow: their errors, and that they change nothing."""

import pytest

from service.configs.limits import Limits
from service.errors import StartupError
from service.redis_client.client import RedisClient
from service.store import manifest
from service.store.keys import STORE
from service.store.manifest import Move
from service.store.sessions import Sessions
from service.store.upkeep.partition_check import Check
from service.store.upkeep.repartition import CLOSE, MOVE, NUMBERING
from tests.support.filling import PROJECT, keyspace, session_id
from tests.support.moves import BLOCK_SIZE, COUNT, STRAY, Keyspace, after_move, home, move

pytestmark = pytest.mark.usefixtures("impatient_move")


async def test_a_repartition_is_refused_while_another_is_unfinished(redis: RedisClient, original: Keyspace) -> None:
    for phase in (CLOSE, MOVE, NUMBERING):
        await manifest.record_move(redis, Move(3, phase))
        before = await keyspace(redis)
        for partitions in (1, 2):
            with pytest.raises(StartupError, match="a repartition to 3 is unfinished; run `repartition 3` first"):
                await move(redis, partitions)
        assert await keyspace(redis) == before
        assert {name: before[name] for name in original if name != STORE} == {
            name: original[name] for name in original if name != STORE
        }


async def test_a_repartition_of_an_empty_redis_creates_nothing(redis: RedisClient) -> None:
    with pytest.raises(StartupError, match="this Redis holds no store"):
        await move(redis, 2)
    assert await keyspace(redis) == {}


async def test_a_store_of_another_layout_is_left_alone(redis: RedisClient, original: Keyspace) -> None:
    await redis.call("HSET", STORE, "layout", 9)
    with pytest.raises(StartupError, match=f"this store was created with layout 9, not {manifest.LAYOUT}"):
        await move(redis, 2)
    assert await keyspace(redis) == {**original, STORE: {**original[STORE], b"layout": b"9"}}


async def test_two_different_copies_of_a_session_stop_a_repartition(redis: RedisClient, original: Keyspace) -> None:
    old, new = home(STRAY, 1), home(STRAY, 2)
    await redis.call("HSET", new, "configs", "{}", "created_at", 1)
    with pytest.raises(StartupError) as caught:
        await move(redis, 2)
    assert str(caught.value) == f"{old} and {new} differ; delete the wrong one, and run this command again"
    assert await redis.call("HGETALL", old) != []
    assert await redis.call("HGETALL", new) != []
    await redis.call("DEL", new)
    await move(redis, 2)
    assert await keyspace(redis) == after_move(original, 2)


@pytest.mark.parametrize("target", [2, 3])
async def test_the_error_names_a_key_that_is_not_a_hash(redis: RedisClient, original: Keyspace, target: int) -> None:
    await redis.call("SET", home(99, 1), "x")
    with pytest.raises(StartupError, match=f"'{home(99, 1)}': WRONGTYPE".replace("{", r"\{")):
        await move(redis, target)
    await redis.call("DEL", home(99, 1))
    await move(redis, target)
    assert await keyspace(redis) == after_move(original, target)


@pytest.mark.usefixtures("original")
async def test_a_damaged_session_is_moved_unchanged(redis: RedisClient) -> None:
    await redis.call("HSET", home(5, 1), "created_at", "x", "configs", "{oops")
    await redis.call("HDEL", home(7, 1), "created_at", "terms", "serial")
    await redis.call("HSET", home(9, 1), "expires_at", "soon")
    damaged = {number: (await keyspace(redis))[home(number, 1)] for number in (5, 7, 9)}
    await move(redis, 2)
    for number, fields in damaged.items():
        assert {**fields, b"serial": b"1"} == {**(await keyspace(redis))[home(number, 2)], b"serial": b"1"}
    moved = Sessions(redis, PROJECT, Limits(), 2, BLOCK_SIZE)
    checks = [Check(redis, partition) for partition in moved.all_partitions]
    kinds = {(finding.kind, finding.id) for check in checks async for finding in check.findings()}
    assert {("incomplete", session_id(number)) for number in damaged} <= kinds
    assert {name for _, name in kinds} <= {*map(session_id, damaged), *map(str, range(COUNT))}
    others = [each for each in range(COUNT) if each not in damaged]
    assert [(await moved.get(session_id(each))).id for each in others] == [session_id(each) for each in others]


async def test_unknown_keys_and_keys_of_no_project_are_kept(redis: RedisClient, original: Keyspace) -> None:
    unknown = {
        "scc:{acme.0}:changes": {b"1"}, "scc:{acme.9}:session:x": {b"1"}, "scc:{nobody.0}:index:0:a=1": {b"1"},
        "scc:{acme}:later": {b"1"}, "scc:{acme.0}": {b"1"},
    }  # fmt: skip
    await redis.batch([("SADD", name, 1) for name in unknown])
    await move(redis, 2)
    assert await keyspace(redis) == {**after_move(original, 2), **unknown}
