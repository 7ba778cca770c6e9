"""A repartition runs only while no other client of this service is connected."""

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


def during(monkeypatch: pytest.MonkeyPatch, seconds: float, event: Callable[[], Awaitable[object]]) -> None:
    """Run `event` when the repartition sleeps `seconds`; all sleeps end immediately."""
    real_sleep = asyncio.sleep

    async def sleep(delay: float) -> None:
        if delay == seconds:
            await event()
        await real_sleep(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)


@on_every_redis
async def test_a_repartition_does_not_start_while_a_client_is_connected(
    redis: RedisClient, original: Keyspace, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = RedisClient.open(redis_url, timeout=TIMEOUT)
    await server.call("PING")
    with pytest.raises(StartupError, match=r"a server or command of this service is connected to Redis from .+; stop it first"):
        await move(redis, 2)
    assert await keyspace(redis) == original
    await server.close()
    monkeypatch.setattr(repartition, "CLIENT_CHECKS", 1000)
    await move(redis, 2)
    assert await keyspace(redis) == after_move(original, 2)


async def test_a_repartition_does_not_resume_while_a_client_is_connected(
    redis: RedisClient, original: Keyspace, redis_url: str
) -> None:
    await manifest.record_move(redis, Move(2, MOVE, COUNT))
    before = await keyspace(redis)
    other = RedisClient.open(redis_url, timeout=TIMEOUT)
    await other.call("PING")
    with pytest.raises(StartupError, match="a server or command of this service is connected"):
        await move(redis, 2)
    assert await keyspace(redis) == before != original
    await other.close()


async def test_clients_of_other_services_do_not_stop_a_repartition(
    redis: RedisClient, original: Keyspace, redis_url: str
) -> None:
    await redis.call("SET", "of-others", "{acme.0}:session:x")
    other = RedisClient.open(redis_url, timeout=TIMEOUT)
    await other.call("CLIENT", "SETNAME", "another-service")
    await move(redis, 2)
    assert await redis.call("GET", "of-others") == b"{acme.0}:session:x"
    await redis.call("DEL", "of-others")
    assert await keyspace(redis) == after_move(original, 2)
    await other.close()


async def test_a_server_that_connects_during_the_wait_stops_a_repartition_without_changes(
    redis: RedisClient, original: Keyspace, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = RedisClient.open(redis_url, timeout=TIMEOUT)
    during(monkeypatch, 7.0, lambda: server.call("PING"))
    with pytest.raises(StartupError, match="a server or command of this service is connected"):
        await move(redis, 2, wait=7.0)
    assert await keyspace(redis) == original
    await server.close()


async def test_a_repartition_cancelled_during_the_wait_changes_nothing(
    redis: RedisClient, original: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving = asyncio.create_task(move(redis, 2, wait=7.0))

    async def cancel() -> None:
        assert await redis.call("HGET", STORE, "moving_phase") == CLOSE.encode()
        moving.cancel()

    during(monkeypatch, 7.0, cancel)
    with pytest.raises(asyncio.CancelledError):
        await moving
    assert await keyspace(redis) == original


@on_every_redis
async def test_a_repartition_is_refused_if_connected_clients_cannot_be_listed(
    redis: RedisClient, original: Keyspace, redis_url: str
) -> None:
    rules = ("reset", "on", ">pass", "~*", "+@all", "-client", "+client|setname")
    await redis.call("ACL", "SETUSER", "restricted", *rules)
    restricted = RedisClient.open(redis_url.replace("unix://", "unix://restricted:pass@"), timeout=TIMEOUT)
    with pytest.raises(StartupError, match="cannot check for other connected clients: the user in redis_url lacks permissions"):
        await move(restricted, 2)
    await restricted.close()
    await redis.call("ACL", "DELUSER", "restricted")
    assert await keyspace(redis) == original


async def test_servers_refuse_to_start_and_to_serve_during_a_repartition(
    redis: RedisClient, empty_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(redis_url=empty_redis, root_token="root", key_secret="a secret")
    await bootstrap._prepare(settings)
    registry = Registry(redis, "a secret")
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    ring = KeyRing(registry.api_keys, lambda project, _: project)
    assert (await ring.authenticate("Bearer sk-ac-root")).slug == "default"
    refusals = []
    # The connection of the refused start closes a moment later.
    monkeypatch.setattr(repartition, "CLIENT_CHECKS", 100_000)

    async def try_servers() -> None:
        nonlocal now
        assert (await ring.authenticate("Bearer sk-ac-root")).slug == "default"
        now += KEY_TTL + 0.1
        with pytest.raises(StoreUnavailable, match="the store is being repartitioned"):
            await ring.authenticate("Bearer sk-ac-root")
        with pytest.raises(StartupError, match="a repartition to 2 is unfinished; run `repartition 2` to complete it"):
            await bootstrap._prepare(settings)
        refusals.append(now)

    during(monkeypatch, 7.0, try_servers)
    await move(redis, 2, wait=7.0)
    assert len(refusals) == 1
    # Afterwards a server is refused for its number of partitions, even if it was suspended during the repartition.
    with pytest.raises(StoreUnavailable, match="the store has 2 partitions; this server was started with 1"):
        await ring.authenticate("Bearer sk-ac-root")
    with pytest.raises(StartupError, match="this store was created with partitions 2, not 1"):
        await bootstrap._prepare(settings)
    assert (await KeyRing(registry.api_keys, lambda project, _: project, 2).authenticate("Bearer sk-ac-root")).slug == "default"
