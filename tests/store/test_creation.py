"""Creates that compete for one id: the losers leave no user behind, and the winner's user is listed even after a crash."""

import asyncio
from collections.abc import Sequence

import pytest

from service.configs.limits import Limits
from service.redis_client.client import RedisClient
from service.store.keys import expected_users_key, users_key
from service.store.users import Users
from tests.support.filling import PROJECT, document_of, on_every_redis, opened, session_id

pytestmark = on_every_redis


async def store_of(redis: RedisClient) -> Users:
    """The users of the project as one worker sees them: no two of these remember the same users."""
    return Users(await opened(redis, PROJECT, Limits(), 3, 4))


async def create(users: Users, number: int, user: str) -> tuple[str | None, bool]:
    """Create session `number` with its id as `use_uuid`; returns the user of the session that has the id, and if it is new."""
    session, is_new = await users.sessions.create_session(session_id(number), document_of({"a": 1}), user=user)
    return session.user, is_new


async def listed(users: Users) -> set[str]:
    return {user.identifier for user in (await users.page(limit=1000, after=None, descending=False))[0]}


async def undecided(redis: RedisClient) -> list[bytes]:
    """The fields of the hash of creates that are not decided."""
    return list(await redis.call("HGETALL", expected_users_key(PROJECT.slug)))


@pytest.mark.parametrize("rivals", [("a", "b"), ("a", "b", "b"), ("a", "a", "b", "b", "c")])
async def test_creates_that_race_for_one_id_leave_no_user_without_a_session(redis: RedisClient, rivals: Sequence[str]) -> None:
    winners = set()
    for number in range(60):
        racing = [create(await store_of(redis), number, f"{user}{number}") for user in rivals]
        results = await asyncio.gather(*racing)
        assert [created for _, created in results].count(True) == 1
        winners |= {user for user, _ in results}
    assert len(winners) == 60
    assert await listed(await store_of(redis)) == winners
    assert await undecided(redis) == []


async def lose(users: Users, user: str, rival: str) -> int:
    """The first half of a create of session 1 by a new `user`, whom `rival` overtakes before the second half."""
    expected = await users.sessions.registration.expect(user)
    assert expected is not None
    await create(await store_of(users.sessions.redis), 1, rival)
    return expected


async def test_a_losing_create_keeps_its_user_while_another_create_of_that_user_is_in_progress(redis: RedisClient) -> None:
    loser, other = await store_of(redis), await store_of(redis)
    expected = await lose(loser, "b", "a")
    undecided_create = await other.sessions.registration.expect("b")
    assert expected == undecided_create
    await loser.sessions.registration.withdraw("b", expected)
    # The other create may crash right after it has created its session: its user must be listed already.
    assert await listed(other) == {"a", "b"}
    await other.sessions.registration.withdraw("b", undecided_create)
    assert await listed(other) == {"a"}
    assert await undecided(redis) == []


async def test_a_losing_create_keeps_a_user_who_got_another_session(redis: RedisClient) -> None:
    loser = await store_of(redis)
    expected = await lose(loser, "b", "a")
    assert await create(await store_of(redis), 2, "b") == ("b", True)
    await loser.sessions.registration.withdraw("b", expected)
    assert await listed(loser) == {"a", "b"}


async def test_a_losing_create_keeps_a_user_who_had_a_session_before(redis: RedisClient) -> None:
    await create(await store_of(redis), 2, "b")
    loser = await store_of(redis)
    assert await loser.sessions.registration.expect("b") is None
    await create(await store_of(redis), 1, "a")
    assert await listed(await store_of(redis)) == {"a", "b"}


async def test_a_losing_create_keeps_a_user_who_was_deleted_and_registered_again(redis: RedisClient) -> None:
    loser, other = await store_of(redis), await store_of(redis)
    expected = await lose(loser, "b", "a")
    await other.delete("b")
    anew = await other.sessions.registration.expect("b")
    assert anew != expected
    await loser.sessions.registration.withdraw("b", expected)
    assert await listed(other) == {"a", "b"}


async def test_a_crashed_create_leaves_its_user_listed_whichever_create_loses_later(redis: RedisClient) -> None:
    # It may have created its session, so the user must stay until they are deleted.
    crashed = await store_of(redis)
    assert await crashed.sessions.registration.expect("b") is not None
    loser = await store_of(redis)
    expected = await lose(loser, "b", "a")
    await loser.sessions.registration.withdraw("b", expected)
    assert await listed(loser) == {"a", "b"}
    await loser.delete("b")
    assert await listed(loser) == {"a"}
    assert await undecided(redis) == []


async def test_withdrawing_a_user_does_not_change_the_order_of_the_others(redis: RedisClient) -> None:
    for number, user in enumerate("wxyz"):
        await create(await store_of(redis), number + 10, user)
    before = await redis.call("ZRANGE", users_key(PROJECT.slug), 0, -1, "WITHSCORES")
    loser = await store_of(redis)
    expected = await loser.sessions.registration.expect("b")
    assert expected is not None
    await loser.sessions.registration.withdraw("b", expected)
    await loser.sessions.registration.withdraw("b", expected)
    assert await redis.call("ZRANGE", users_key(PROJECT.slug), 0, -1, "WITHSCORES") == before
