"""Users of a project: registered by their first session, listed in an order without ties, deleted with their sessions."""

import asyncio
from itertools import pairwise

import pytest

from service.configs.limits import Limits
from service.errors import BadRequest, ProjectFull, SessionNotFound, UserNotFound
from service.redis_client.client import RedisClient
from service.store.cursors import decode_user_cursor, encode_user_cursor
from service.store.keys import project_key, users_key
from service.store.record import Project
from service.store.registration import UserRegistration
from service.store.sessions import Sessions
from service.store.upkeep.partition_check import Check
from service.store.users import Users, check_identifier, user_id
from tests.support.filling import PROJECT, add, document_of, fill, keyspace, on_every_redis, opened, session_id


async def names(users: Users, *, descending: bool = False) -> list[str]:
    return [user.identifier for user in (await users.page(limit=1000, after=None, descending=descending))[0]]


async def test_a_user_is_listed_once_however_often_they_are_named(users: Users) -> None:
    for name in ("bob", "alice", "bob", "кот 😀", "bob"):
        await users.sessions.registration.register(name)
    before = await users.page(limit=1000, after=None, descending=False)
    await users.sessions.registration.register("bob")
    assert await users.page(limit=1000, after=None, descending=False) == before
    assert await names(users) == ["bob", "alice", "кот 😀"]
    assert await names(users, descending=True) == ["кот 😀", "alice", "bob"]


@on_every_redis
async def test_no_two_users_have_the_same_created_at_even_if_concurrent(users: Users) -> None:
    identifiers = [f"user{number}" for number in range(200)]
    await asyncio.gather(*(users.sessions.registration.register(name) for name in identifiers * 2))
    page, cursor = await users.page(limit=1000, after=None, descending=False)
    assert cursor is None
    assert sorted(user.identifier for user in page) == sorted(identifiers)
    ages = [user.created_at for user in page]
    assert all(first < second for first, second in pairwise(ages))


@on_every_redis
async def test_a_user_comes_after_all_others_even_when_the_clock_has_stepped_back(users: Users, redis: RedisClient) -> None:
    # As if the others had been created at a time that the clock has not reached yet.
    ahead = 4_000_000_000_000_000
    await redis.call("ZADD", users_key("acme"), ahead, "early")
    await users.sessions.registration.register("late")
    await users.sessions.registration.register("later")
    page, _ = await users.page(limit=1000, after=None, descending=False)
    assert [(user.identifier, user.created_at) for user in page] == [
        ("early", ahead), ("late", ahead + 1), ("later", ahead + 2),
    ]  # fmt: skip


@on_every_redis
async def test_a_session_comes_after_all_others_even_when_the_clock_has_stepped_back(sessions: Sessions) -> None:
    ahead = 4_000_000_000_000_000
    state = sessions.all_partitions[0].state
    await sessions.redis.call("HSET", state, "serial", 9_000_000_000, "created_at", ahead)
    created = await fill(sessions, [{"a": 1}, {"a": 2}])
    assert [(session.serial, session.created_at, session.updated_at) for session in created] == [
        (9_000_000_001, ahead + 1, ahead + 1), (9_000_000_002, ahead + 2, ahead + 2),
    ]  # fmt: skip
    # A write does not change its created_at.
    assert (await sessions.patch(created[0].id, document_of({"b": 1}))).updated_at == ahead + 1
    assert [each async for each in Check(sessions.redis, sessions.all_partitions[0]).findings()] == []
    assert (await keyspace(sessions.redis))[sessions.all_partitions[0].index(9_000_000_001 // 4, "b=1")] == {b"9000000001"}


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
async def test_pages_of_users_are_complete_and_in_order(users: Users, limit: int, descending: bool) -> None:
    identifiers = [f"user{number}" for number in range(7)]
    for name in identifiers:
        await users.sessions.registration.register(name)
    listed: list[str] = []
    after = None
    while True:
        page, cursor = await users.page(limit=limit, after=after, descending=descending)
        listed += [user.identifier for user in page]
        if cursor is None:
            break
        assert len(page) == limit
        after = decode_user_cursor(cursor)
    assert listed == (identifiers[::-1] if descending else identifiers)


@pytest.mark.parametrize("cursor", ["", "x", "u", "czE", "é", "dTE=\n", encode_user_cursor(10**16)])
def test_an_invalid_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(BadRequest, match="invalid cursor"):
        decode_user_cursor(cursor)


def test_a_decoded_cursor_has_the_time_that_was_encoded() -> None:
    assert decode_user_cursor(encode_user_cursor(1_700_000_000_123_456)) == 1_700_000_000_123_456


def test_a_user_s_id_is_unique_in_the_project() -> None:
    other = Project("other", "5b1d8a4e-0000-4000-8000-000000000002")
    ids = {user_id(project.id, name) for project in (PROJECT, other) for name in ("alice", "Alice", "bob")}
    assert len(ids) == 6
    assert user_id(PROJECT.id, "alice") in ids


@pytest.mark.parametrize("identifier", ["a\x00b", "\n", "a\x7f", "\x85", "x" * 257, "é" * 129])
def test_an_invalid_identifier_is_refused(identifier: str) -> None:
    with pytest.raises(BadRequest, match=r"^user "):
        check_identifier(identifier, Limits())


@pytest.mark.parametrize("identifier", ["alice", "x" * 256, "é" * 128, "a b", "😀", '"', "\u2028"])
def test_a_valid_identifier_is_accepted(identifier: str) -> None:
    check_identifier(identifier, Limits())


@pytest.mark.parametrize("partitions", [1, 3])
async def test_sessions_of_a_user_are_counted_in_all_blocks_and_partitions(redis: RedisClient, partitions: int) -> None:
    sessions = await opened(redis, PROJECT, Limits(), partitions, 4)
    users = Users(sessions)
    await users.sessions.registration.register("idle")
    for number in range(23):
        await add(sessions, number, {"a": 1}, "alice" if number % 3 else "bob")
    assert await users.count_sessions("alice") == 15
    assert await users.count_sessions("bob") == 8
    assert await users.count_sessions("idle") == 0
    with pytest.raises(UserNotFound):
        await users.count_sessions("nobody")


@on_every_redis
@pytest.mark.parametrize("partitions", [1, 3])
async def test_deleting_a_user_deletes_all_their_sessions_and_nothing_else(redis: RedisClient, partitions: int) -> None:
    sessions = await opened(redis, PROJECT, Limits(), partitions, 4)
    users = Users(sessions)
    # The identifier of one is a part of the other's, and in a config of a third.
    for number in range(250):
        await add(sessions, number, {"n": number}, "al")
    for number in range(250, 270):
        await add(sessions, number, {"@user": "al"}, "alice" if number % 2 else None)
    await users.delete("al")
    assert await names(users) == ["alice"]
    remaining = await keyspace(redis)
    kept = {name.rpartition(":")[2] for name in remaining if ":session:" in name}
    assert kept == {session_id(number) for number in range(250, 270)}
    assert not any('@user="al"' in name.removesuffix('"@user"="al"') for name in remaining)
    await users.delete("al")
    assert await keyspace(redis) == remaining


async def test_a_session_created_while_its_user_is_deleted_leaves_the_store_consistent(users: Users) -> None:
    sessions = users.sessions

    async def create(first: int) -> None:
        for number in range(first, first + 40):
            await add(sessions, number, {"a": number % 3}, "alice")

    async def delete() -> None:
        for _ in range(15):
            await users.delete("alice")

    await asyncio.gather(create(0), create(100), delete())
    # Whichever operation was last, a session exists only with its user, and the index is correct.
    if await sessions.redis.call("EXISTS", sessions.all_partitions[0].blocks('@user="alice"')):
        assert await names(users) == ["alice"]
    assert [each async for each in Check(sessions.redis, sessions.all_partitions[0]).findings()] == []
    await users.delete("alice")
    assert set(await keyspace(sessions.redis)) == {sessions.all_partitions[0].state, project_key(PROJECT.slug)}


async def test_a_user_who_got_a_session_while_being_deleted_is_registered_again(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = UserRegistration.remove

    async def create_and_remove(registration: UserRegistration, identifier: str) -> None:
        await add(users.sessions, 1, {"a": 1}, identifier)
        await remove(registration, identifier)

    monkeypatch.setattr(UserRegistration, "remove", create_and_remove)
    await users.delete("alice")
    assert await names(users) == ["alice"]
    assert await users.count_sessions("alice") == 1


async def test_a_deleted_user_counts_as_new(redis: RedisClient) -> None:
    sessions = await opened(redis, PROJECT, Limits(max_users=1), 1, 4)
    await add(sessions, 1, {"a": 1}, "alice")
    await Users(sessions).delete("alice")
    await add(sessions, 2, {"a": 1}, "bob")
    with pytest.raises(ProjectFull):
        await add(sessions, 3, {"a": 1}, "alice")
    assert await names(Users(sessions)) == ["bob"]


async def test_a_session_that_got_another_user_meanwhile_is_not_deleted_with_the_first(sessions: Sessions) -> None:
    await add(sessions, 1, {"a": 1}, "alice")
    await sessions.delete_many([session_id(1), session_id(2)], user="bob")
    assert (await sessions.get(session_id(1))).user == "alice"
    await sessions.delete_many([session_id(1), session_id(2)], user="alice")
    with pytest.raises(SessionNotFound):
        await sessions.get(session_id(1))


@pytest.mark.parametrize("descending", [False, True])
async def test_only_a_page_with_more_users_after_it_has_a_cursor(users: Users, descending: bool) -> None:
    for name in ("a", "b", "c", "d"):
        await users.sessions.registration.register(name)
    for limit, has_next in ((3, True), (4, False), (5, False)):
        listed, cursor = await users.page(limit=limit, after=None, descending=descending)
        assert (len(listed), cursor is not None) == (min(limit, 4), has_next)
