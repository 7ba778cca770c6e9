"""A move to another number of partitions works on a store that nobody else works on, and sees to that."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from service.errors import StartupError, StoreUnavailable
from service.redis_client.client import RedisClient
from service.settings import Settings
from service.store import manifest
from service.store.api_keys import KEY_TTL, KeyRing
from service.store.keys import STORE
from service.store.manifest import Move
from service.store.projects import Registry
from service.store.upkeep import bootstrap, repartition
from service.store.upkeep.repartition import CLOSE, MOVE
from tests.support.filling import TIMEOUT, keyspace, on_every_redis
from tests.support.moves import COUNT, Keyspace, after_move, move

pytestmark = pytest.mark.usefixtures("impatient_move")


def during(monkeypatch: pytest.MonkeyPatch, seconds: float, happen: Callable[[], Awaitable[object]]) -> None:
    """Let something happen while the move sleeps `seconds`; nobody sleeps."""
    awake = asyncio.sleep

    async def sleep(delay: float) -> None:
        if delay == seconds:
            await happen()
        await awake(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)


@on_every_redis
async def test_where_somebody_is_connected_a_move_does_not_begin(
    redis: RedisClient, held: Keyspace, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = RedisClient.open(redis_url, timeout=TIMEOUT)
    await server.call("PING")
    with pytest.raises(StartupError, match=r"a server or command of this service is connected to Redis from .+; stop it first"):
        await move(redis, 2)
    assert await keyspace(redis) == held
    await server.close()
    monkeypatch.setattr(repartition, "CLIENT_CHECKS", 1000)
    await move(redis, 2)
    assert await keyspace(redis) == after_move(held, 2)


async def test_where_somebody_is_connected_a_move_is_not_finished_either(
    redis: RedisClient, held: Keyspace, redis_url: str
) -> None:
    await manifest.record_move(redis, Move(2, MOVE, COUNT))
    before = await keyspace(redis)
    other = RedisClient.open(redis_url, timeout=TIMEOUT)
    await other.call("PING")
    with pytest.raises(StartupError, match="a server or command of this service is connected"):
        await move(redis, 2)
    assert await keyspace(redis) == before != held
    await other.close()


async def test_clients_of_others_do_not_matter(redis: RedisClient, held: Keyspace, redis_url: str) -> None:
    await redis.call("SET", "of-others", "{acme.0}:session:x")
    other = RedisClient.open(redis_url, timeout=TIMEOUT)
    await other.call("CLIENT", "SETNAME", "another-service")
    await move(redis, 2)
    assert await redis.call("GET", "of-others") == b"{acme.0}:session:x"
    await redis.call("DEL", "of-others")
    assert await keyspace(redis) == after_move(held, 2)
    await other.close()


async def test_a_server_that_is_found_after_the_wait_stops_the_move_before_it_changed_anything(
    redis: RedisClient, held: Keyspace, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = RedisClient.open(redis_url, timeout=TIMEOUT)
    during(monkeypatch, 7.0, lambda: server.call("PING"))
    with pytest.raises(StartupError, match="a server or command of this service is connected"):
        await move(redis, 2, wait=7.0)
    assert await keyspace(redis) == held
    await server.close()


async def test_a_move_given_up_in_the_wait_has_changed_nothing(
    redis: RedisClient, held: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving = asyncio.create_task(move(redis, 2, wait=7.0))

    async def give_up() -> None:
        assert await redis.call("HGET", STORE, "moving_phase") == CLOSE.encode()
        moving.cancel()

    during(monkeypatch, 7.0, give_up)
    with pytest.raises(asyncio.CancelledError):
        await moving
    assert await keyspace(redis) == held


@on_every_redis
async def test_a_redis_that_does_not_tell_who_is_connected_is_told(redis: RedisClient, held: Keyspace, redis_url: str) -> None:
    rules = ("reset", "on", ">pass", "~*", "+@all", "-client", "+client|setname")
    await redis.call("ACL", "SETUSER", "blind", *rules)
    blind = RedisClient.open(redis_url.replace("unix://", "unix://blind:pass@"), timeout=TIMEOUT)
    with pytest.raises(StartupError, match="cannot check for other connected clients: the user in redis_url lacks permissions"):
        await move(blind, 2)
    await blind.close()
    await redis.call("ACL", "DELUSER", "blind")
    assert await keyspace(redis) == held


async def test_while_a_store_is_moved_no_server_starts_and_none_that_runs_works(
    redis: RedisClient, empty_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(redis_url=empty_redis, root_token="root", key_secret="a secret")
    await bootstrap._prepare(settings)
    registry = Registry(redis, "a secret")
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    ring = KeyRing(registry.api_keys, lambda project: project)
    assert (await ring.authenticate("Bearer sk-ac-root")).slug == "default"
    refusals = []
    # The connection of the start that was refused goes away a moment later.
    monkeypatch.setattr(repartition, "CLIENT_CHECKS", 100_000)

    async def look() -> None:
        nonlocal now
        assert (await ring.authenticate("Bearer sk-ac-root")).slug == "default"
        now += KEY_TTL + 0.1
        with pytest.raises(StoreUnavailable, match="the store is being repartitioned"):
            await ring.authenticate("Bearer sk-ac-root")
        with pytest.raises(StartupError, match="a repartition to 2 is unfinished; run `repartition 2` to complete it"):
            await bootstrap._prepare(settings)
        refusals.append(now)

    during(monkeypatch, 7.0, look)
    await move(redis, 2, wait=7.0)
    assert len(refusals) == 1
    # Afterwards it is the number of partitions that is held against a server: one that slept through the move is no exception.
    with pytest.raises(StoreUnavailable, match="the store has 2 partitions; this server was started with 1"):
        await ring.authenticate("Bearer sk-ac-root")
    with pytest.raises(StartupError, match="this store was created with partitions 2, not 1"):
        await bootstrap._prepare(settings)
    assert (await KeyRing(registry.api_keys, lambda project: project, 2).authenticate("Bearer sk-ac-root")).slug == "default"
