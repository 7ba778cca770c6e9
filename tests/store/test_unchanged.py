"""Which reads get 304 before the configs are read: those that would get it after the whole session was read, and no other."""

from itertools import product

import pytest

from service.configs.limits import Limits
from service.configs.ttl import UNSPECIFIED, Ttl
from service.errors import PreconditionFailed, SessionNotFound, Unreadable
from service.redis_client.client import RedisClient
from service.store.conditions import UNCONDITIONAL, Conditions, ETags
from service.store.sessions import Sessions
from tests.support.filling import PROJECT, add, document_of, lapse, on_every_redis, own, session_id

ONE = session_id(1)

#: What a manual edit may leave in the fields of which an ETag is made, None for no such field.
EDITS = [("revision", None), ("revision", "x"), ("created_at", None), ("created_at", "-1"), ("expires_at", "x")]


async def after_the_whole_read(sessions: Sessions, conditions: Conditions) -> str | None:
    """The ETag of the 304 for which the session was read whole; None for another response."""
    try:
        session = await sessions.get(ONE, conditions)
    except (SessionNotFound, PreconditionFailed, Unreadable):
        return None
    return session.etag if conditions.excludes(session.etag) else None


async def check(redis: RedisClient, current: str) -> set[str | None]:
    """Compare both reads under all conditions, by a `Sessions` that has seen no expiry first; returns the answers."""
    named = [
        None,
        ETags(any=True),
        ETags(),
        ETags(frozenset({current})),
        ETags(frozenset({"1-1"})),
        ETags(frozenset({current, "1-1"})),
    ]
    answers = set()
    for conditions in (Conditions(*pair) for pair in product(named, named)):
        sessions = Sessions(redis, PROJECT, Limits())
        for _ in range(2):
            answer = await sessions.unchanged(ONE, conditions)
            assert answer == await after_the_whole_read(sessions, conditions), conditions
            answers.add(answer)
    return answers


@on_every_redis
@pytest.mark.parametrize("ttl", [UNSPECIFIED, Ttl(1000)], ids=["no expiry", "an expiry"])
async def test_a_read_gets_304_by_its_state_alone_as_by_the_whole_session(redis: RedisClient, ttl: Ttl) -> None:
    sessions = Sessions(redis, PROJECT, Limits())
    await own(sessions)
    assert await check(redis, "1-1") == {None}
    session, _ = await sessions.create_session(ONE, document_of({"a": 1}), ttl=ttl)
    assert await check(redis, session.etag) == {None, session.etag}
    written = await sessions.patch(ONE, document_of({"a": 2}))
    assert await sessions.unchanged(ONE, Conditions(None, ETags(frozenset({session.etag})))) is None
    assert await check(redis, written.etag) == {None, written.etag}
    if ttl is not UNSPECIFIED:
        await lapse(sessions, ONE)
        assert await check(redis, written.etag) == {None}
    await sessions.delete_many([ONE])
    assert await check(redis, written.etag) == {None}


@pytest.mark.parametrize(("field", "value"), EDITS)
async def test_a_state_that_a_manual_edit_broke_gets_no_304(redis: RedisClient, field: str, value: str | None) -> None:
    sessions = Sessions(redis, PROJECT, Limits())
    await own(sessions)
    session = await add(sessions, 1, {"a": 1})
    key = sessions.partition(ONE).session(ONE)
    await (redis.call("HDEL", key, field) if value is None else redis.call("HSET", key, field, value))
    assert await check(redis, session.etag) == {None}
    with pytest.raises(Unreadable):
        await sessions.get(ONE)


async def test_the_configs_are_read_only_if_the_client_has_another_state(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = await sessions.create_session(ONE, document_of({"a": 1}))
    fields: list[str] = []
    call = sessions.redis.call

    async def recorded(*command: str, **options: bool) -> object:
        fields.extend(command[2:])
        return await call(*command, **options)

    monkeypatch.setattr(sessions.redis, "call", recorded)
    assert await sessions.unchanged(ONE, Conditions(None, ETags(any=True))) == session.etag
    assert fields == ["revision", "created_at", "expires_at"]
    assert await sessions.get(ONE, UNCONDITIONAL) == session
    assert "configs" in fields
