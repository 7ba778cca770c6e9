"""The manifest of a store: which versions may use the store, and how a running server reacts to a change of it."""

import pytest

from service.commands import _store
from service.errors import StartupError, StoreEmpty, StoreUnavailable, Unauthorized
from service.redis_client.client import RedisClient
from service.settings import Settings
from service.store import keys, manifest
from service.store.api_keys import ApiKeys, KeyRing
from service.store.upkeep import bootstrap
from service.store.upkeep.sweeper import Sweeper
from tests.support.filling import keyspace

#: Versions in the manifest, and whether this release may read and write such a store.
RECORDS = [
    ({"layout": "1"}, True, True),  # a release that wrote no version numbers
    ({"layout": "2"}, True, True),
    ({"layout": "3"}, False, False),
    ({"layout": "1", "oldest_reader": "1", "oldest_writer": "1"}, True, True),
    # A later version: this release can run next to it, can only read its store, or cannot read it.
    ({"layout": "2", "oldest_reader": "2", "oldest_writer": "2"}, True, True),
    ({"layout": "3", "oldest_reader": "1", "oldest_writer": "1"}, True, True),
    ({"layout": "3", "oldest_reader": "1", "oldest_writer": "3"}, True, False),
    ({"layout": "1", "oldest_reader": "3", "oldest_writer": "3"}, False, False),
    ({"layout": "1", "oldest_reader": "oops", "oldest_writer": "1"}, False, False),
]
records = pytest.mark.parametrize(("versions", "reads", "writes"), RECORDS, ids=[" ".join(row[0].values()) for row in RECORDS])


@pytest.fixture
def settings(empty_redis: str) -> Settings:
    return Settings(redis_url=empty_redis, root_token="root", key_secret="a secret")


async def prepare(redis: RedisClient, settings: Settings, versions: dict[str, str]) -> None:
    await bootstrap._prepare(settings)
    await redis.call("HDEL", keys.STORE, *manifest.VERSIONS)
    for name, value in versions.items():
        await redis.call("HSET", keys.STORE, name, value)


async def is_accepted(settings: Settings, *, writes: bool) -> bool:
    """Whether a command of this release works on the store."""
    try:
        async with _store.registry(settings, writes=writes) as registry:
            await registry.all()
    except StartupError as error:
        assert "layout" in str(error) or "damaged" in str(error)  # noqa: PT017 - any other error fails the test
        return False
    return True


@records
async def test_a_command_runs_only_if_the_manifest_allows_its_version_to_read_or_write(
    redis: RedisClient, settings: Settings, versions: dict[str, str], reads: bool, writes: bool
) -> None:
    await prepare(redis, settings, versions)
    before = await keyspace(redis)
    assert [await is_accepted(settings, writes=each) for each in (False, True)] == [reads, writes]
    assert await keyspace(redis) == before


@records
async def test_a_server_starts_and_keeps_running_only_if_it_may_write(
    redis: RedisClient, settings: Settings, versions: dict[str, str], reads: bool, writes: bool
) -> None:
    assert reads or not writes
    await prepare(redis, settings, versions)
    before = await keyspace(redis)
    if writes:
        await bootstrap._prepare(settings)
        await manifest.confirm(redis, 1)
        # Fields that a newer release has written are kept.
        assert (await keyspace(redis))[keys.STORE].items() >= before[keys.STORE].items()
        return
    with pytest.raises(StartupError, match=r"layout|damaged"):
        await bootstrap._prepare(settings)
    with pytest.raises(StoreUnavailable, match=r"layout|damaged"):
        await manifest.confirm(redis, 1)
    assert await keyspace(redis) == before


async def test_a_new_manifest_names_the_oldest_versions(redis: RedisClient, settings: Settings) -> None:
    await bootstrap._prepare(settings)
    assert await redis.call("HMGET", keys.STORE, "layout", "oldest_reader", "oldest_writer") == [b"1", b"1", b"1"]


async def test_an_emptied_store_does_not_reject_any_api_key(redis: RedisClient, settings: Settings) -> None:
    await bootstrap._prepare(settings)
    ring = KeyRing(ApiKeys(redis, settings.key_secret), lambda project, _: project)
    with pytest.raises(Unauthorized):
        await ring.authenticate("Bearer sk-ac-nobody")
    await redis.call_on_masters("FLUSHALL")
    for key in ("sk-ac-root", "sk-ac-nobody"):
        with pytest.raises(StoreEmpty):
            await ring.authenticate(f"Bearer {key}")
    with pytest.raises(Unauthorized):
        await ring.authenticate("Bearer no-key-of-ours")


async def test_commands_fail_in_a_redis_without_a_store(redis: RedisClient, settings: Settings) -> None:
    for writes in (False, True):
        with pytest.raises(StartupError, match=r"^this Redis holds no store$"):
            async with _store.registry(settings, writes=writes):
                pass
    with pytest.raises(StartupError, match=r"^this Redis holds no store$"):
        await manifest.read(redis)
    assert await keyspace(redis) == {}


@pytest.mark.parametrize("lost", [(), ("block_size",), ("partitions",)])
async def test_only_a_whole_store_gets_a_generation(redis: RedisClient, settings: Settings, lost: tuple[str, ...]) -> None:
    if lost:
        await bootstrap._prepare(settings)
        await redis.call("HDEL", keys.STORE, *lost)
    before = await keyspace(redis)
    with pytest.raises(StartupError, match="damaged" if lost else "holds no store"):
        await manifest.raise_generation(redis)
    assert await keyspace(redis) == before


async def test_the_sweep_writes_nothing_if_its_server_may_not_write(
    redis: RedisClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.store.upkeep.sweeper.INTERVAL", 0.0)
    monkeypatch.setattr("service.store.upkeep.sweeper.SPREAD", 0.0)
    sweeper = Sweeper(redis, 1)
    leases: list[object] = []

    async def lease(*condition: str) -> bool:
        leases.append(condition)
        return False

    monkeypatch.setattr(sweeper, "_take_lease", lease)
    confirm, confirmations = manifest.confirm, 0

    async def counted(*arguments: object) -> None:
        nonlocal confirmations
        confirmations += 1
        if confirmations == 3:
            raise KeyboardInterrupt  # ends the endless loop
        await confirm(*arguments)  # type: ignore[arg-type]  # passes its arguments on

    monkeypatch.setattr(manifest, "confirm", counted)
    with pytest.raises(KeyboardInterrupt):
        await sweeper.run()
    assert leases == []
    assert [record.getMessage() for record in caplog.records] == [
        "the sweep of expired sessions failed and will be retried: "
        "Redis no longer has a store: it was emptied, or restarted without its file; "
        "restore its data, or restart the servers to create a new store"
    ]
