"""Operations of several steps, interrupted before each step: the store stays consistent, and a possible write is reported."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from service.configs.limits import Limits
from service.errors import StoreUnavailable, WriteUncertain
from service.redis_client.client import RedisClient
from service.redis_client.multiplexer import Command
from service.store.record import Session
from service.store.scripts import Call, Script, run_many
from service.store.sessions import Sessions
from service.store.upkeep.partition_check import Check
from service.store.users import Users
from tests.support.filling import PROJECT, TIMEOUT, add, document_of, keyspace, opened, own, session_id


async def create_for(user: str, users: Users, number: int = 9) -> tuple[Session, bool]:
    """Create session `number` as POST /session with its id as `use_uuid` does."""
    return await users.sessions.create_session(session_id(number), document_of({"a": 1}), user=user)


class BreakingClient(RedisClient):
    """A client whose connection breaks after `works` calls, as if Redis or the worker were killed."""

    works = 10**9  # calls until it breaks

    async def call(self, *command: str | bytes | int, **options: Any) -> Any:  # noqa: ANN401 - as `RedisClient.call`
        self._step()
        return await super().call(*command, **options)

    async def batch(self, commands: Sequence[Command], **options: Any) -> list[Any]:  # noqa: ANN401 - as `RedisClient.batch`
        self._step()
        return await super().batch(commands, **options)

    def _step(self) -> None:
        if self.works <= 0:
            raise StoreUnavailable
        self.works -= 1


@pytest.fixture
async def breaking(empty_redis: str) -> AsyncIterator[BreakingClient]:
    redis = BreakingClient.open(empty_redis, timeout=TIMEOUT)
    yield redis
    await redis.close()


async def create(sessions: Sessions) -> None:
    await create_for("alice", Users(sessions))


async def copy(sessions: Sessions) -> None:
    await sessions.copy_session(session_id(1), session_id(9))


async def delete_user(sessions: Sessions) -> None:
    await Users(sessions).delete("bob")


@pytest.mark.parametrize("steps", [create, copy, delete_user])
async def test_interrupted_operations_leave_a_correct_index_and_every_user_registered(
    breaking: BreakingClient, steps: Callable[[Sessions], Awaitable[None]]
) -> None:
    for works in range(100):
        # A new worker each time: it remembers no user.
        sessions = Sessions(breaking, PROJECT, Limits(), 1, 4)
        breaking.works = 10**9
        await breaking.call("FLUSHALL")
        await own(sessions)
        for number in range(1, 6):
            await add(sessions, number, {"a": number}, "bob")
        before = await stored_sessions(breaking)
        breaking.works = works
        error = None
        try:
            await steps(sessions)
        except StoreUnavailable as raised:
            error = raised
        breaking.works = 10**9
        check = Check(breaking, sessions.all_partitions[0])
        assert [str(finding) async for finding in check.findings()] == []
        # A 503 that does not say "uncertain" has written no session.
        changed = await stored_sessions(breaking) != before
        assert not changed or error is None or isinstance(error, WriteUncertain)
        if error is None:
            assert changed
            assert works > 1
            return
        # A repetition succeeds.
        await steps(sessions)
    pytest.fail("never succeeded")


async def stored_sessions(redis: RedisClient) -> dict[str, Any]:
    return {name: content for name, content in (await keyspace(redis)).items() if ":session:" in name}


async def test_a_create_of_an_existing_session_registers_no_user(breaking: BreakingClient) -> None:
    sessions = await opened(breaking, PROJECT, Limits(), 1, 4)
    await add(sessions, 9, {"a": 1}, "bob")
    before = await keyspace(breaking)
    session, created = await create_for("alice", Users(sessions))
    assert (session.user, created) == ("bob", False)
    assert await keyspace(breaking) == before


async def test_a_user_is_registered_once_for_any_number_of_sessions(breaking: BreakingClient) -> None:
    users = Users(await opened(breaking, PROJECT, Limits(), 1, 4))
    await create_for("alice", users)
    breaking.works = 0
    assert await users.sessions._expect_user("alice", session_id(2), may_exist=False) is None
    assert await users.sessions._expect_user("alice", session_id(2), may_exist=True) is None
    breaking.works = 100
    await users.delete("alice")
    breaking.works = 0
    with pytest.raises(StoreUnavailable):
        await users.sessions._expect_user("alice", session_id(2), may_exist=False)


async def test_scripts_flushed_in_the_middle_of_a_batch_run_once_each(breaking: BreakingClient) -> None:
    source = "return redis.call('INCR', KEYS[1])"
    script = Script("count", source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest(), ("counter",), ())
    complete = breaking.batch

    async def forgetting(commands: Sequence[Command], **options: Any) -> list[Any]:  # noqa: ANN401 - as `RedisClient.batch`
        """The scripts are dropped after the first two of the commands."""
        first = await complete(commands[:2], **options)
        await breaking.call("SCRIPT", "FLUSH")
        return first + await complete(commands[2:], **options)

    breaking.batch = forgetting  # type: ignore[method-assign]
    assert sorted(await run_many(breaking, [Call(script, ("counter",), (), int)] * 5)) == [1, 2, 3, 4, 5]
    assert await breaking.call("GET", "counter") == b"5"
