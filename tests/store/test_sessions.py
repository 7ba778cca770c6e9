"""Sessions one by one: limits at their edges, conditions, copies, and what one session leaves in the index of others."""

import asyncio

import pytest

from service.configs.containment import Filter
from service.configs.limits import Limits
from service.configs.ttl import Ttl
from service.errors import ConfigsTooLarge, NotFound, PreconditionFailed, TooLarge, Unreadable
from service.redis_client.client import RedisClient
from service.store.conditions import Conditions, ETags
from service.store.listing import Query, page
from service.store.sessions import Sessions
from service.store.upkeep.partition_check import Check
from tests.support.filling import (
    PROJECT,
    add,
    document_of,
    fill,
    keyspace,
    lapse,
    on_every_redis,
    only,
    opened,
    session_id,
)

ONE, TWO, THREE = map(session_id, (1, 2, 3))


@on_every_redis
async def test_a_block_stays_listed_for_a_term_as_long_as_one_session_in_it_has_the_term(sessions: Sessions) -> None:
    partition = sessions.all_partitions[0]
    await fill(sessions, [{"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 2, "c": 1}, {"b": 1}])

    async def listed() -> dict[str, set[bytes]]:
        stored = await keyspace(sessions.redis)
        return {name.removeprefix(partition.blocks("")): stored[name] for name in sorted(stored) if ":blocks:" in name}

    assert await listed() == {term: {b"0"} for term in ("a=1", "b=1", "b=2", "c=1")}
    await sessions.patch(TWO, document_of({"a": None, "b": 3, "c": None}))
    assert await listed() == {term: {b"0"} for term in ("a=1", "b=1", "b=3", "c=1")}
    await sessions.replace(ONE, document_of({"c": 2}))
    assert await listed() == {term: {b"0"} for term in ("b=1", "b=3", "c=2")}
    await sessions.delete(THREE)
    assert await listed() == {term: {b"0"} for term in ("b=3", "c=2")}


@on_every_redis
@pytest.mark.parametrize("last", [1, 2], ids=["the set is gone", "the set has another session"])
async def test_a_write_adds_its_new_terms_even_if_an_old_one_is_missing_from_the_index(sessions: Sessions, last: int) -> None:
    await fill(sessions, [{"a": 1, "b": 1}] * last)
    await sessions.redis.call("SREM", sessions.all_partitions[0].index(0, "a=1"), last)
    await sessions.patch(session_id(last), document_of({"a": 2}))
    listed = await page(sessions, Query(filter=Filter.parse(b'{"a":2}', Limits())), 10)
    assert [session.id for session in listed.sessions] == [session_id(last)]


@on_every_redis
@pytest.mark.parametrize("count", [1, 63, 64, 65, 129, 1500])
async def test_any_number_of_terms_is_added_and_removed(sessions: Sessions, count: int) -> None:
    kept = await add(sessions, 1, {"k0": 0, "k70": 70})
    both = await keyspace(sessions.redis)
    many = {f"k{number}": number for number in range(count)}
    await add(sessions, 2, {})
    sets = {f"scc:{{acme.0}}:index:0:k{number}={number}" for number in many.values()}
    state = sessions.all_partitions[0].state
    for change in (sessions.replace(TWO, document_of(many, Limits(max_keys=5000, max_terms=5000))),):
        await change
        stored = await keyspace(sessions.redis)
        assert sets <= set(stored)
        assert all(b"2" in stored[name] for name in sets)
        await sessions.delete(TWO)
        after = await keyspace(sessions.redis)
        assert {**after, state: 0} == {**both, state: 0}
    assert (await sessions.get(kept.id)).configs == kept.configs


async def test_a_session_over_a_lowered_limit_on_terms_is_read_listed_and_deleted(sessions: Sessions) -> None:
    before = await keyspace(sessions.redis)
    ample = Limits(max_terms=5000)
    many = {f"k{number}": number for number in range(1000)}
    await Sessions(sessions.redis, PROJECT, ample, 1, 4).create_session(ONE, document_of(many, ample))
    now = Sessions(sessions.redis, PROJECT, Limits(), 1, 4)
    stored = await now.get(ONE)
    query = Query(filter=Filter.parse(b'{"k999":999}', Limits()))
    assert [session.id for session in (await page(now, query, 10)).sessions] == [ONE]
    with pytest.raises(ConfigsTooLarge, match="more than 512 index terms"):
        await now.patch(ONE, document_of({"one": 1}))
    assert await now.get(ONE) == stored
    await now.patch(ONE, document_of({"k0": None}))
    await now.delete(ONE)
    assert {**await keyspace(sessions.redis), now.all_partitions[0].state: 0} == {**before, now.all_partitions[0].state: 0}


async def test_a_check_accepts_a_member_that_gets_its_first_terms_later(sessions: Sessions) -> None:
    await fill(sessions, [{"a": {"b": {}}, "c": 1, "d": [[]]}])
    await sessions.patch(ONE, document_of({"a": {"b": 1}}))
    await sessions.patch(ONE, document_of({"d": [2]}))
    check = Check(sessions.redis, sessions.all_partitions[0])
    assert [str(finding) async for finding in check.findings()] == []
    # Adding and removing a term leaves nothing behind.
    await sessions.patch(ONE, document_of({"a": {"b": {}}, "c": [[]], "d": None}))
    assert [str(finding) async for finding in check.findings()] == []
    assert [name for name in await keyspace(sessions.redis) if ":index:" in name] == []


@pytest.mark.parametrize(
    ("limits", "fits", "too_much", "message"),
    [
        (Limits(max_keys=3), {"c": 1}, {"c": 1, "d": 1}, "more than 3 top-level keys"),
        (Limits(max_terms=3), {"c": 1}, {"c": [1, 2]}, "more than 3 index terms"),
        (Limits(max_configs_bytes=23), {"c": 1}, {"c": 11}, "larger than 23 bytes"),
    ],
)
async def test_a_patch_may_reach_a_limit_but_not_exceed_it(
    redis: RedisClient, limits: Limits, fits: dict[str, object], too_much: dict[str, object], message: str
) -> None:
    sessions = await opened(redis, PROJECT, limits, 1, 4)
    await fill(sessions, [{"a": 1, "b": 1}])
    before = await keyspace(redis)
    with pytest.raises(TooLarge, match=message):
        await sessions.patch(ONE, document_of(too_much))
    assert await keyspace(redis) == before
    assert (await sessions.patch(ONE, document_of(fits))).configs == b'{\n"a":1,\n"b":1,\n"c":1\n}'
    # Removed terms make room for new ones.
    assert (await sessions.patch(ONE, document_of({"a": None, "d": 1}))).configs == b'{\n"b":1,\n"c":1,\n"d":1\n}'
    with pytest.raises(TooLarge, match=message):
        await sessions.patch(ONE, document_of({"b": None, **{f"k{number}": 1 for number in range(3)}}))


OVER = {"a": "x" * 20, "b": [1, 2, 3], "c": 1}


@pytest.mark.parametrize(
    "limits", [Limits(max_configs_bytes=30), Limits(max_keys=2), Limits(max_terms=3)], ids=["bytes", "keys", "terms"]
)
async def test_a_patch_may_keep_or_shrink_configs_over_a_lowered_limit(redis: RedisClient, limits: Limits) -> None:
    await fill(await opened(redis, PROJECT, Limits(), 1, 4), [OVER])
    sessions = Sessions(redis, PROJECT, limits, 1, 4)
    for same in ({}, {"c": 1}, {"c": 2}, {"a": "y" * 20}, {"b": [4, 5, 6]}):
        await sessions.patch(ONE, document_of(same), ttl=Ttl(60))
    assert (await sessions.get(ONE)).revision == 6
    before = await keyspace(redis)
    with pytest.raises(TooLarge):
        await sessions.patch(ONE, document_of({"d": [1, 2]}))
    assert await keyspace(redis) == before
    await sessions.patch(ONE, document_of({"a": "y", "b": [4, 5]}))
    await sessions.patch(ONE, document_of({"b": None}))
    check = Check(redis, sessions.all_partitions[0])
    assert [str(finding) async for finding in check.findings()] == []


async def test_configs_over_the_limit_are_refused_without_a_call_to_redis(redis: RedisClient) -> None:
    sessions = await opened(redis, PROJECT, Limits(max_configs_bytes=20), 1, 4)
    with pytest.raises(TooLarge):
        await sessions.create_session(ONE, document_of({"a": "x" * 20}))
    await fill(sessions, [{"a": 1}])
    with pytest.raises(TooLarge):
        await sessions.replace(ONE, document_of({"a": "x" * 20}))
    assert (await sessions.get(ONE)).revision == 1


async def test_a_condition_matches_only_the_exact_etag(sessions: Sessions) -> None:
    (created,) = await fill(sessions, [{"a": 1}])
    etag = created.etag
    for wrong in (f"{etag}1", f"1{etag}", etag[:-1], etag.upper() + "x", f"{created.created_at}", f"{created.created_at}-0"):
        for write in (
            sessions.patch(ONE, document_of({"a": 2}), conditions=only(wrong)),
            sessions.replace(ONE, document_of({"a": 2}), conditions=only(wrong)),
            sessions.delete(ONE, conditions=only(wrong)),
        ):
            with pytest.raises(PreconditionFailed):
                await write
    assert (await sessions.get(ONE)) == created
    second = await sessions.patch(ONE, document_of({"a": 2}), conditions=only("1-1", etag))
    with pytest.raises(PreconditionFailed):
        await sessions.replace(ONE, document_of({"a": 3}), conditions=only(etag))
    third = await sessions.replace(ONE, document_of({"a": 3}), conditions=only(second.etag))
    await sessions.delete(ONE, conditions=only(third.etag))
    for write in (
        sessions.patch(ONE, document_of({}), conditions=Conditions(ETags(any=True))),
        sessions.delete(ONE, conditions=only(third.etag)),
    ):
        with pytest.raises(PreconditionFailed):
            await write


ANY = ETags(any=True)


@on_every_redis
async def test_both_conditions_of_a_write_are_checked_and_a_refused_one_changes_nothing(sessions: Sessions) -> None:
    (created,) = await fill(sessions, [{"a": 1}])
    same, wrong = ETags(frozenset({created.etag, "1-1"})), ETags(frozenset({"1-1"}))
    before = await keyspace(sessions.redis)
    for conditions, header in (
        (Conditions(wrong), "If-Match"), (Conditions(ETags()), "If-Match"), (Conditions(None, same), "If-None-Match"),
        (Conditions(None, ANY), "If-None-Match"), (Conditions(same, same), "If-None-Match"),
        (Conditions(ANY, ANY), "If-None-Match"), (Conditions(wrong, same), "If-Match"), (Conditions(wrong, wrong), "If-Match"),
    ):  # fmt: skip
        for write in (
            sessions.patch(ONE, document_of({"a": 2}), conditions=conditions),
            sessions.replace(ONE, document_of({"a": 2}), conditions=conditions),
            sessions.delete(ONE, conditions=conditions),
            sessions.copy_session(ONE, TWO, conditions),
        ):
            with pytest.raises(PreconditionFailed, match=f"^{header} does not hold"):
                await write
    assert await keyspace(sessions.redis) == before
    for conditions in (Conditions(same, wrong), Conditions(ANY, ETags()), Conditions(None, wrong)):
        await sessions.copy_session(ONE, TWO, conditions)
        await sessions.delete(TWO, conditions=Conditions(ANY, wrong))


@on_every_redis
async def test_without_a_session_if_match_fails_and_if_none_match_holds(sessions: Sessions) -> None:
    for conditions, error in (
        (Conditions(ANY), PreconditionFailed), (Conditions(ETags()), PreconditionFailed),
        (Conditions(ANY, ANY), PreconditionFailed), (Conditions(None, ANY), NotFound), (Conditions(None, ETags()), NotFound),
    ):  # fmt: skip
        for asked in (
            sessions.get(ONE, conditions),
            sessions.patch(ONE, document_of({"a": 2}), conditions=conditions),
            sessions.replace(ONE, document_of({"a": 2}), conditions=conditions),
            sessions.delete(ONE, conditions=conditions),
            sessions.copy_session(ONE, TWO, conditions),
        ):
            with pytest.raises(error):
                await asked


@on_every_redis
async def test_create_with_if_none_match_fails_if_the_id_exists(sessions: Sessions) -> None:
    async def create() -> tuple[bool, bytes]:
        session, is_new = await sessions.create_session(ONE, document_of({"a": 1}), conditions=Conditions(None, ANY))
        return is_new, session.configs

    assert await create() == (True, document_of({"a": 1}).configs)
    before = await keyspace(sessions.redis)
    with pytest.raises(PreconditionFailed, match=r"^If-None-Match does not hold"):
        await create()
    assert await keyspace(sessions.redis) == before
    # An expired one does not count.
    await lapse(sessions, ONE)
    assert (await create())[0]


async def test_a_recreated_session_has_another_etag(sessions: Sessions) -> None:
    first = await add(sessions, 1, {"a": 1})
    await sessions.delete(ONE)
    second = await add(sessions, 1, {"a": 1})
    assert first.etag != second.etag
    assert second.serial == first.serial + 1
    assert second.created_at > first.created_at


@on_every_redis
async def test_one_of_many_creations_of_one_id_wins_and_the_others_see_it(sessions: Sessions) -> None:
    created = await asyncio.gather(
        *(
            sessions.create_session(ONE, document_of({"n": number}), user=f"u{number}", disable_task_tracking=bool(number % 2))
            for number in range(30)
        )
    )
    assert [new for _, new in created].count(True) == 1
    assert len({session for session, _ in created}) == 1
    winner = created[0][0]
    stored = await keyspace(sessions.redis)
    assert stored[sessions.all_partitions[0].sessions] == {ONE.encode(): 1}
    assert {name.rpartition(":")[2] for name in stored if ":index:" in name} == {
        winner.configs.decode().split("\n")[1].replace('"', "").replace(":", "="),
        f'@user="{winner.user}"',
    }


@on_every_redis
async def test_concurrent_merges_lose_nothing(sessions: Sessions) -> None:
    await fill(sessions, [{"kept": [1.0]}])

    async def merge(client: int) -> None:
        for turn in range(20):
            await sessions.patch(ONE, document_of({f"c{client}": turn, f"gone{client}": None if turn % 2 else turn}))

    await asyncio.gather(*(merge(client) for client in range(16)))
    stored = await sessions.get(ONE)
    assert stored.revision == 1 + 16 * 20
    lines = stored.configs.decode().strip("{}\n").split(",\n")
    assert lines[0] == '"kept":[1.0]'
    assert sorted(lines[1:]) == sorted(f'"c{client}":19' for client in range(16))


async def test_a_copy_equals_its_source_but_for_its_position_and_is_independent(sessions: Sessions) -> None:
    source, _ = await sessions.create_session(ONE, document_of(b'{"a":1.0,"b":[]}'), user="alice", disable_task_tracking=True)
    await sessions.patch(ONE, document_of({"c": 1}))
    copied = await sessions.copy_session(ONE, TWO)
    assert copied.configs == b'{\n"a":1.0,\n"b":[],\n"c":1\n}'
    assert (copied.user, copied.disable_task_tracking, copied.revision) == ("alice", True, 1)
    assert copied.created_at > source.created_at
    await sessions.replace(ONE, document_of({}))
    assert await sessions.get(TWO) == copied
    with pytest.raises(NotFound):
        await sessions.copy_session(THREE, session_id(4))


async def test_an_incomplete_hash_is_not_a_session(sessions: Sessions) -> None:
    key = sessions.all_partitions[0].session(ONE)
    await sessions.redis.call("HSET", key, "revision", 3)
    with pytest.raises(NotFound):
        await sessions.get(ONE)
    with pytest.raises((Unreadable, NotFound)):
        await sessions.create_session(ONE, document_of({}))
    assert (await keyspace(sessions.redis))[key] == {b"revision": b"3"}
