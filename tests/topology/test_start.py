"""The checks at startup cover every master of a cluster, and the master that Sentinels name."""

import asyncio

import pytest

from service.errors import StartupError
from service.redis_client.client import RedisClient
from service.settings import Settings
from service.store import keys
from service.store.upkeep import bootstrap
from tests.support.topology_servers import HOST, Cluster, Sentinels


def settings_for(url: str) -> Settings:
    return Settings(redis_url=url, root_token="root", key_secret="secret", start_timeout=0.0, command_timeout=5.0)


async def test_one_key_per_master_gives_a_key_on_every_master(cluster: Cluster, redis: RedisClient) -> None:
    names = await redis.one_key_per_master(keys.preflight_prefix)
    owners = [await redis.endpoint_of(name) for name in names]
    assert sorted(owners) == sorted((HOST, master.port) for master in cluster.masters())  # type: ignore[type-var]  # hosts


async def test_a_permission_that_is_missing_on_one_master_only_is_named(cluster: Cluster) -> None:
    one, *others = cluster.masters()
    for server in cluster.servers:
        server.ask("ACL", "SETUSER", "scc", "reset", "on", "nopass", "~scc:*", "+@all")
    url = cluster.url.replace("://", "://scc:x@")
    await asyncio.to_thread(bootstrap.prepare, settings_for(url))
    assert [master.ask("KEYS", "scc:preflight:*") for master in (one, *others)] == [[], [], []]
    one.ask("ACL", "SETUSER", "scc", "-smismember")
    with pytest.raises(StartupError, match=r"^the user in redis_url lacks permissions in Redis: SMISMEMBER in scripts$"):
        await asyncio.to_thread(bootstrap.prepare, settings_for(url))
    for server in cluster.servers:
        server.ask("ACL", "DELUSER", "scc")


async def test_a_redis_url_of_a_cluster_node_is_refused_with_the_right_scheme(cluster: Cluster) -> None:
    (master, *_) = cluster.masters()
    with pytest.raises(StartupError, match=r"^redis_url points to a node of a Redis Cluster; write redis\+cluster://"):
        await asyncio.to_thread(bootstrap.prepare, settings_for(f"redis://{HOST}:{master.port}"))


async def test_an_unknown_master_name_is_reported(sentinels: Sentinels) -> None:
    await asyncio.to_thread(bootstrap.prepare, settings_for(sentinels.url))
    with pytest.raises(StartupError, match=r"^the Sentinels in redis_url know no master of the name in redis_url$"):
        await asyncio.to_thread(bootstrap.prepare, settings_for(f"{sentinels.url}x"))
