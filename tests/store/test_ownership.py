"""Every write checks the owner of its keys first: keys of another project, another layout or no owner stay unchanged."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from service.configs.limits import Limits
from service.configs.ttl import Ttl
from service.errors import LayoutChanged, ServiceError, StateIncomplete, StoreUnavailable, Unauthorized, WriteUncertain
from service.redis_client.client import RedisClient
from service.store import default_ttl, manifest, ownership, script_calls
from service.store.keys import PROJECTS, STORE, project_key, users_key
from service.store.project_configs import ProjectConfigs
from service.store.projects import Registry
from service.store.sessions import Sessions
from service.store.upkeep import repartition
from service.store.upkeep.check import StoreCheck
from service.store.users import Users
from service.store.verify import verify_session, verify_set
from tests.support.filling import PROJECT, add, document_of, keyspace, lapse, on_every_redis, opened, own, session_id, sweep_all

ONE, TWO, NEW = session_id(1), session_id(2), session_id(9)

Operation = Callable[[Sessions], Awaitable[Any]]


async def create_with_user(sessions: Sessions) -> None:
    await sessions.create_session(NEW, None, user="carol", may_exist=False)


def create(session: str) -> Operation:
    return lambda sessions: sessions.create_session(session, document_of({"b": 1}))


#: Operations that write to a partition.
ON_A_PARTITION: dict[str, Operation] = {
    "create": create(NEW),
    "create of an id in use": create(ONE),
    "create with a user": create_with_user,
    "copy": lambda sessions: sessions.copy_session(ONE, NEW),
    "replace": lambda sessions: sessions.replace(ONE, document_of({"b": 1})),
    "replace of none": lambda sessions: sessions.replace(NEW, document_of({"b": 1})),
    "patch": lambda sessions: sessions.patch(ONE, document_of({"b": 1})),
    "delete": lambda sessions: sessions.delete(ONE),
    "delete of many": lambda sessions: sessions.delete_many([ONE, NEW]),
    "delete of a user": lambda sessions: Users(sessions).delete("alice"),
    "sweep": lambda sessions: sweep_all(sessions),
    "change of the default TTL": lambda sessions: default_ttl.publish(sessions.redis, sessions.all_partitions, 5, Ttl(50)),
    "patch of the project": lambda sessions: ProjectConfigs(sessions).patch(document_of({"session_ttl": 50})),
}
#: Operations that write to the keys of the project.
ON_A_PROJECT: dict[str, Operation] = {
    "create with a user": create_with_user,
    "register": lambda sessions: sessions.registration.register("carol"),
    "register of an existing user": lambda sessions: sessions.registration.register("alice"),
    "expect": lambda sessions: sessions.registration.expect("carol"),
    "delete of a user": lambda sessions: Users(sessions).delete("nobody"),
    "patch of the project": lambda sessions: ProjectConfigs(sessions).patch(document_of({"b": 1})),
}


class Change(NamedTuple):
    """A change of the owner between the check of the API key and the write, and the error of that write."""

    field: str
    value: str | None
    error: type[ServiceError]


CHANGES = {
    "another project": Change("project_id", "5b1d8a4e-0000-4000-8000-000000000009", Unauthorized),
    "a project that is being deleted": Change("project_id", ownership.DELETED, Unauthorized),
    "another layout": Change("partitions", "7", LayoutChanged),
    "a store that is being moved": Change("partitions", str(ownership.MOVING), LayoutChanged),
    "no project": Change("project_id", None, StateIncomplete),
    "no layout": Change("partitions", None, StateIncomplete),
}


async def set_field(redis: RedisClient, key: str, field: str, value: str | None) -> None:
    await (redis.call("HDEL", key, field) if value is None else redis.call("HSET", key, field, value))


async def filled(redis: RedisClient) -> Sessions:
    """Two sessions of alice, of which the second has expired."""
    sessions = await opened(redis, PROJECT, Limits(), 1, 4)
    await add(sessions, 1, {"a": 1}, "alice")
    await add(sessions, 2, {"a": 1}, "alice")
    await lapse(sessions, TWO)
    return sessions


async def assert_refused(sessions: Sessions, operation: Operation, error: type[ServiceError]) -> None:
    """The operation fails with this error and changes nothing."""
    before = await keyspace(sessions.redis)
    with pytest.raises((error, WriteUncertain) if issubclass(error, StoreUnavailable) else error):
        await operation(sessions)
    assert await keyspace(sessions.redis) == before


@on_every_redis
@pytest.mark.parametrize("change", CHANGES)
async def test_a_write_to_a_partition_of_another_owner_is_refused_and_changes_nothing(redis: RedisClient, change: str) -> None:
    sessions = await filled(redis)
    field, value, error = CHANGES[change]
    await set_field(redis, sessions.all_partitions[0].state, field, value)
    for operation in ON_A_PARTITION.values():
        await assert_refused(sessions, operation, error)


@on_every_redis
async def test_a_write_to_a_partition_without_a_state_is_refused_and_changes_nothing(redis: RedisClient) -> None:
    sessions = await filled(redis)
    await redis.call("DEL", sessions.all_partitions[0].state)
    for operation in ON_A_PARTITION.values():
        await assert_refused(sessions, operation, StateIncomplete)


@on_every_redis
@pytest.mark.parametrize(("value", "error"), [("another", Unauthorized), (None, StateIncomplete)])
async def test_a_write_to_the_keys_of_another_project_is_refused_and_changes_nothing(
    redis: RedisClient, value: str | None, error: type[ServiceError]
) -> None:
    sessions = await filled(redis)
    await set_field(redis, project_key(PROJECT.slug), "id", value)
    for operation in ON_A_PROJECT.values():
        await assert_refused(sessions, operation, error)


async def test_a_withdrawal_removes_no_user_of_another_project(redis: RedisClient) -> None:
    sessions = await filled(redis)
    created_at = await sessions.registration.expect("carol")
    assert created_at is not None
    await set_field(redis, project_key(PROJECT.slug), "id", "another")
    before = await keyspace(redis)
    await sessions.registration.withdraw("carol", created_at)
    assert await keyspace(redis) == before


@pytest.mark.parametrize("change", CHANGES)
async def test_a_repair_does_not_change_a_partition_of_another_owner(redis: RedisClient, change: str) -> None:
    sessions = await filled(redis)
    partition = sessions.all_partitions[0]
    await redis.call("SADD", partition.index(0, "x=1"), 1)
    await redis.call("SREM", partition.index(0, "a=1"), 1)
    await set_field(redis, partition.state, *CHANGES[change][:2])
    before = await keyspace(redis)
    await verify_session(redis, partition, ONE, repair=True)
    await verify_set(redis, partition, "0", "x=1", [b"1"], repair=True)
    call = script_calls.renumber(
        session=partition.session(ONE), sessions=partition.sessions, partition=partition.arguments, session_id=ONE, old=1, new=8
    )
    assert not await call.run(redis)
    assert await keyspace(redis) == before


async def test_a_refused_create_leaves_no_user_behind(redis: RedisClient) -> None:
    sessions = await filled(redis)
    for change in CHANGES.values():
        await set_field(redis, sessions.all_partitions[0].state, change.field, change.value)
        with pytest.raises(change.error):
            await create_with_user(sessions)
        await own(sessions)
        assert await redis.call("ZSCORE", users_key(PROJECT.slug), "carol") is None


# Projects that are deleted and created again.


async def created(redis: RedisClient, slug: str = "acme") -> Sessions:
    project, _ = await Registry(redis, "a secret").create(slug)
    return Sessions(redis, project, Limits(), 1, 4)


@on_every_redis
async def test_requests_of_a_deleted_project_write_nothing_to_a_new_one_of_its_name(redis: RedisClient) -> None:
    registry, old = Registry(redis, "a secret"), await created(redis)
    await add(old, 1, {"a": 1}, "alice")
    await registry.api_keys.revoke(old.project)
    await registry.delete(old)
    # A copy has no source, and a sweep nothing to remove.
    reading = (ON_A_PARTITION["copy"], ON_A_PARTITION["sweep"])
    for operation in (*ON_A_PARTITION.values(), *ON_A_PROJECT.values()):
        if operation not in reading:
            await assert_refused(old, operation, StateIncomplete)
    new = await created(redis)
    assert new.project.id != old.project.id
    await add(new, 1, {"a": 2}, "alice")
    await add(new, 2, {"a": 2}, "alice")
    await lapse(new, TWO)
    for operation in (*ON_A_PARTITION.values(), *ON_A_PROJECT.values()):
        await assert_refused(old, operation, Unauthorized)


class Straggler(RedisClient):
    """A client that lets a request of an old worker write before each of its round trips."""

    write: Callable[[], Awaitable[None]] | None = None

    async def batch(self, commands: Any, *, writes: bool = False, near: Any = None) -> list[Any]:  # noqa: ANN401 - as `RedisClient.batch`
        if self.write is not None:
            await self.write()
        return await super().batch(commands, writes=writes, near=near)


@pytest.fixture
async def straggler(empty_redis: str) -> Any:  # noqa: ANN401 - a generator
    redis = Straggler.open(empty_redis, timeout=30.0)
    yield redis
    await redis.close()


async def test_nothing_remains_after_a_deletion_during_which_requests_still_write(
    redis: RedisClient, straggler: Straggler
) -> None:
    old = await created(redis)
    refusals: set[type[ServiceError]] = set()

    async def write() -> None:
        for step in (
            create_with_user,
            lambda sessions: sessions.registration.register("bob"),
            ON_A_PROJECT["patch of the project"],
        ):
            try:
                await step(old)
            except ServiceError as error:
                refusals.add(type(error))

    for number in range(10):
        await add(old, number, {"a": 1}, "alice")
    straggler.write = write
    await Registry(straggler, "a secret").api_keys.revoke(old.project)
    await Registry(straggler, "a secret").delete(old)
    await write()
    assert await keyspace(redis) == {}
    assert refusals <= {Unauthorized, StateIncomplete}


async def test_an_interrupted_deletion_can_be_repeated(redis: RedisClient) -> None:
    registry, sessions = Registry(redis, "a secret"), await created(redis)
    await add(sessions, 1, {"a": 1}, "alice")
    await ownership.record(redis, sessions.all_partitions)
    for key in ((), (project_key("acme"),), (project_key("acme"), users_key("acme"), sessions.all_partitions[0].state)):
        if key:
            await redis.call("DEL", *key)
    await registry.delete(sessions)
    assert [name for name in await keyspace(redis) if "token" not in name] == []


async def test_a_late_deletion_does_not_delete_a_new_project_of_the_same_name(redis: RedisClient) -> None:
    registry, old = Registry(redis, "a secret"), await created(redis)
    await registry.delete(old)
    new = await created(redis)
    await add(new, 1, {"a": 1})
    before = await keyspace(redis)
    with pytest.raises(ServiceError, match="acme"):
        await registry.delete(old)
    assert await keyspace(redis) == before


async def test_a_state_left_over_from_a_deleted_project_becomes_the_new_project_s(redis: RedisClient) -> None:
    await redis.call("HSET", "scc:{acme.0}:state", "project_id", "old", "partitions", 9, "serial", 4)
    await add(await created(redis), 1, {"a": 1})


# Stores of earlier versions.


async def test_states_of_an_earlier_version_get_an_owner_unless_they_have_one(redis: RedisClient) -> None:
    await redis.call("HSET", STORE, "partitions", 3)
    await redis.call("HSET", PROJECTS, *(part for number in range(700) for part in (f"p{number}", f"id {number}")))
    await redis.call("HSET", "scc:{p5.1}:state", "serial", 7, "created_at", 8)
    await redis.call("HSET", "scc:{p6.1}:state", "project_id", ownership.DELETED, "partitions", 3)
    await Registry(redis, "a secret").complete_states()
    for number in range(700):
        for partition in range(3):
            state = await redis.call("HMGET", f"scc:{{p{number}.{partition}}}:state", "project_id", "partitions")
            expected = ownership.DELETED if (number, partition) == (6, 1) else f"id {number}"
            assert state == [expected.encode(), b"3"]
    assert await redis.call("HGET", "scc:{p5.1}:state", "serial") == b"7"


# Repartitions.


async def stored(redis: RedisClient, partitions: int) -> Sessions:
    await redis.call("HSET", STORE, "layout", manifest.LAYOUT, "partitions", partitions, "block_size", 4)
    project, _ = await Registry(redis, "a secret").create("acme")
    return Sessions(redis, project, Limits(), partitions, 4)


@pytest.fixture
def late_worker(impatient_move: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - a fixture
    """A worker that connects to Redis only after a repartition has checked for other clients."""

    async def no_clients(_: RedisClient) -> None:
        pass

    monkeypatch.setattr(repartition, "_refuse_others", no_clients)


@pytest.mark.usefixtures("late_worker")
@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (3, 2)])
async def test_a_repartition_loses_no_write_that_a_server_acknowledges_during_it(
    redis: RedisClient, straggler: Straggler, before: int, after: int
) -> None:
    old = await stored(redis, before)
    for number in range(20):
        await add(old, number, {"a": 1}, "alice")
    written: dict[str, bytes] = {}
    refusals: set[type[ServiceError]] = set()
    turn = 0

    async def write() -> None:
        nonlocal turn
        turn += 1
        for number in (turn % 20, 100 + turn):
            configs = document_of({"turn": turn})
            try:
                if number < 100:
                    await old.replace(session_id(number), configs)
                else:
                    await old.create_session(session_id(number), configs)
                written[session_id(number)] = configs.configs
            except ServiceError as error:
                refusals.add(type(error))

    straggler.write = write
    await repartition.repartition(straggler, after, wait=0.0)
    await write()
    new = Sessions(redis, old.project, Limits(), after, 4)
    for name, configs in written.items():
        assert (await new.get(name)).configs == configs
    assert LayoutChanged in refusals
    assert refusals <= {LayoutChanged, StateIncomplete}
    located = StoreCheck(redis, [old.project], await manifest.read(redis))
    assert [str(finding) async for _, finding in located.findings()] == []
    for number in (1, 200):
        await new.create_session(session_id(number), document_of({"b": 1}))


@pytest.mark.usefixtures("late_worker")
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 4), (4, 2)])
async def test_an_acknowledged_default_ttl_is_in_every_partition_after_a_repartition(
    redis: RedisClient, straggler: Straggler, before: int, after: int
) -> None:
    old = await stored(redis, before)
    for number in range(8):
        await add(old, number, {"a": 1})
    acknowledged = 0
    turn = 0

    async def write() -> None:
        nonlocal acknowledged, turn
        turn += 1
        try:
            await ProjectConfigs(old).patch(document_of({"session_ttl": 1000 + turn}))
            acknowledged = 1000 + turn
        except ServiceError:
            pass

    await write()
    straggler.write = write
    await repartition.repartition(straggler, after, wait=0.0)
    await write()
    new = Sessions(redis, old.project, Limits(), after, 4)
    ttls = {await redis.call("HGET", partition.state, "session_ttl") for partition in new.all_partitions}
    assert ttls == {b"%d" % acknowledged}


@pytest.mark.usefixtures("impatient_move")
async def test_a_repartition_that_fails_lets_the_servers_write_again(
    redis: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = await stored(redis, 2)
    before = await keyspace(redis)

    async def refuse(_: RedisClient) -> None:
        layouts.append(await redis.call("HGET", sessions.all_partitions[1].state, "partitions"))
        if len(layouts) > 1:
            raise StoreUnavailable

    layouts: list[bytes] = []
    monkeypatch.setattr(repartition, "_refuse_others", refuse)
    with pytest.raises(StoreUnavailable):
        await repartition.repartition(redis, 3, wait=0.0)
    assert layouts == [b"2", b"0"]
    assert await keyspace(redis) == before
    await add(sessions, 1, {"a": 1})
