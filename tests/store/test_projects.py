"""Projects and their API keys: which key opens which project, what is never stored, and what a deletion removes."""

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from service.configs.limits import Limits
from service.errors import BadRequest, NotFound, OutputError, StartupError, TooLarge, Unauthorized, Unreadable
from service.redis_client.client import RedisClient
from service.settings import Settings
from service.store import api_keys
from service.store import keys as redis_keys
from service.store.api_keys import KEY_TTL, KeyRing
from service.store.project_configs import ProjectConfigs
from service.store.projects import Registry
from service.store.upkeep import bootstrap
from service.store.users import Users
from tests.support.filling import add, document_of, give_record, keyspace, lapse, opened, session_id


@pytest.fixture
def registry(redis: RedisClient) -> Registry:
    return Registry(redis, "a secret")


@pytest.fixture
def settings(empty_redis: str) -> Settings:
    return Settings(redis_url=empty_redis, root_token="root", key_secret="a secret")


async def test_a_new_project_is_accessible_with_its_key(registry: Registry) -> None:
    project, key = await registry.create("acme")
    other, other_key = await registry.create("other-1")
    assert await registry.api_keys.load(key) == project
    assert await registry.api_keys.load(other_key) == other
    assert await registry.api_keys.load(key + "x") is None
    assert await Registry(registry.redis, "another secret").api_keys.load(key) is None
    assert await registry.all() == [project, other]
    assert await registry.get("acme") == project


async def test_no_api_key_is_stored_in_redis(registry: Registry, settings: Settings) -> None:
    project, first = await registry.create("acme")
    await bootstrap._prepare(settings)
    keys = [first, await registry.api_keys.add(project), await registry.api_keys.rotate(project, lambda _: None), "sk-ac-root"]
    stored = repr(await keyspace(registry.redis))
    for secret in (*keys, *(key.removeprefix("sk-ac-") for key in keys if key != "sk-ac-root"), "a secret"):
        assert secret not in stored
    assert await registry.api_keys.load("sk-ac-root") == await registry.get("default")


async def test_after_a_rotation_only_the_new_key_is_valid(registry: Registry) -> None:
    project, first = await registry.create("acme")
    second = await registry.api_keys.add(project)
    other, other_key = await registry.create("other")
    third = await registry.api_keys.rotate(project, lambda _: None)
    assert [await registry.api_keys.load(key) for key in (first, second, third, other_key)] == [None, None, project, other]
    stored = await keyspace(registry.redis)
    assert len([name for name in stored if name.startswith("scc:token:")]) == 2
    assert len(stored["scc:{acme}:tokens"]) == 1


async def test_adding_a_key_again_restores_its_place_in_the_set_of_its_project(registry: Registry) -> None:
    project, key = await registry.create("acme")
    before = await keyspace(registry.redis)
    await registry.redis.call("DEL", redis_keys.tokens_key("acme"))
    assert await registry.api_keys.add(project, key) == key
    assert await keyspace(registry.redis) == before


async def test_a_new_key_that_cannot_be_shown_is_revoked_and_the_others_stay(registry: Registry) -> None:
    project, first = await registry.create("acme")
    unseen: list[str] = []

    def show(key: str) -> None:
        unseen.append(key)
        raise OutputError("full")

    with pytest.raises(OutputError):
        await registry.api_keys.rotate(project, show)
    assert [await registry.api_keys.load(key) for key in (first, *unseen)] == [project, None]
    assert len(await registry.redis.call("SMEMBERS", redis_keys.tokens_key("acme"))) == 1


@pytest.mark.parametrize("slug", ["", "A", "a_b", "-a", "a-", "a b", "é", "a.b", "a{b}", "x" * 64, "a\n"])
async def test_an_invalid_name_is_refused(registry: Registry, slug: str) -> None:
    with pytest.raises(BadRequest, match="a project's name is 1 to 63 of a-z, 0-9 and -"):
        await registry.create(slug)
    assert await keyspace(registry.redis) == {}


async def test_a_taken_name_is_refused_and_the_project_is_unchanged(registry: Registry) -> None:
    await registry.create("acme")
    before = await keyspace(registry.redis)
    with pytest.raises(BadRequest, match="there is a project acme already"):
        await registry.create("acme")
    assert await keyspace(registry.redis) == before


async def test_a_missing_project_is_not_found(registry: Registry) -> None:
    with pytest.raises(NotFound, match="there is no project acme"):
        await registry.get("acme")


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_deleted_project_leaves_nothing(registry: Registry, partitions: int) -> None:
    await registry.create("acme-2")
    untouched = await keyspace(registry.redis)
    project, _ = await registry.create("acme")
    await registry.api_keys.add(project)
    sessions = await opened(registry.redis, project, Limits(), partitions, 4)
    for number in range(230):
        await add(sessions, number, {"n": number} if number % 5 else None, "alice" if number % 2 else None)
        if number % 7 == 0:
            await lapse(sessions, session_id(number))
    await ProjectConfigs(sessions).patch(document_of({"a": 1, "session_ttl": 50}))
    await registry.api_keys.revoke(project)
    await sessions.registration.expect("undecided")
    await registry.delete(sessions)
    assert await keyspace(registry.redis) == untouched


async def test_two_projects_are_isolated_from_each_other(registry: Registry) -> None:
    stores = [await opened(registry.redis, (await registry.create(slug))[0], Limits(), 1, 4) for slug in ("a", "a-b")]
    for place, sessions in enumerate(stores):
        await add(sessions, 1, {"place": place}, "alice")
    await Users(stores[0]).delete("alice")
    assert (await stores[1].get((await add(stores[1], 2, {}, None)).id)).configs == b"{}"
    assert await Users(stores[1]).count_sessions("alice") == 1
    with pytest.raises(NotFound):
        await Users(stores[0]).count_sessions("alice")


async def test_a_key_ring_looks_a_cached_key_up_once(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    project, key = await registry.create("acme")
    await give_record(registry.redis)
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    ring = KeyRing(registry.api_keys, lambda project, _: project)
    assert await ring.authenticate(f"Bearer {key}") == project
    assert await ring.authenticate(f"bearer {key}") == project
    await registry.api_keys.revoke(project)
    now += KEY_TTL - 0.1
    assert await ring.authenticate(f"Bearer {key}") == project
    now += 0.2
    with pytest.raises(Unauthorized):
        await ring.authenticate(f"Bearer {key}")
    # A refusal is not cached: the key may be created later.
    await registry.api_keys.add(project, key)
    assert await ring.authenticate(f"Bearer {key}") == project


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic sk-ac-x", "sk-ac-x", "Bearer x", "Bearer sk-ac-" + "x" * 300]
)
async def test_an_invalid_key_is_unauthorized(registry: Registry, header: str) -> None:
    with pytest.raises(Unauthorized):
        await KeyRing(registry.api_keys, lambda project, _: project).authenticate(header)


async def test_a_key_ring_that_is_full_is_cleared(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "KEYS_REMEMBERED", 2)
    project, _ = await registry.create("acme")
    await give_record(registry.redis)
    ring = KeyRing(registry.api_keys, lambda project, _: project)
    for key in [await registry.api_keys.add(project) for _ in range(5)]:
        assert await ring.authenticate(f"Bearer {key}") == project
        assert len(ring._cache) <= 2


async def test_the_configs_of_a_project_are_merged_like_those_of_a_session(registry: Registry) -> None:
    project, _ = await registry.create("acme")
    configs = ProjectConfigs(await opened(registry.redis, project, Limits(max_configs_bytes=60, max_keys=3)))
    assert await configs.get() == b"{}"
    assert await configs.patch(document_of(b'{"a": 1.0, "b":[]}')) == b'{\n"a":1.0,\n"b":[]\n}'
    assert await configs.patch(document_of({"a": None, "c": 2})) == b'{\n"b":[],\n"c":2\n}'
    for refused in ({"d": 1, "e": 2}, {"d": "x" * 60}):
        with pytest.raises(TooLarge):
            await configs.patch(document_of(refused))
    assert await configs.get() == b'{\n"b":[],\n"c":2\n}'
    assert await configs.patch(document_of({"b": None, "c": None})) == b"{}"
    # A lowered limit refuses only growth.
    stricter = ProjectConfigs(await opened(registry.redis, project, Limits(max_configs_bytes=10, max_keys=1)))
    await configs.patch(document_of({"a": 1, "b": 2}))
    assert await stricter.patch(document_of({"a": 3})) == b'{\n"a":3,\n"b":2\n}'
    with pytest.raises(TooLarge):
        await stricter.patch(document_of({"c": 3}))
    await registry.redis.call("HSET", "scc:{acme}:project", "configs", "{oops")
    with pytest.raises(Unreadable):
        await configs.patch(document_of({"a": 1}))


async def test_a_store_is_prepared_once_and_stays_so(registry: Registry, settings: Settings) -> None:
    await bootstrap._prepare(settings)
    before = await keyspace(registry.redis)
    await bootstrap._prepare(settings)
    assert await keyspace(registry.redis) == before
    assert before["scc:store"][b"partitions"] == b"1"
    assert before["scc:store"][b"block_size"] == b"4096"


async def test_a_new_root_token_replaces_the_old_one_on_request_and_leaves_other_keys(
    registry: Registry, settings: Settings
) -> None:
    await bootstrap._prepare(settings)
    project = await registry.get("default")
    other = await registry.api_keys.add(project)
    before = await keyspace(registry.redis)
    with pytest.raises(StartupError, match=r"^this store has another root key;.* --replace-root-key$"):
        await bootstrap._prepare(replace(settings, root_token="new"))
    assert await keyspace(registry.redis) == before
    await bootstrap._prepare(replace(settings, root_token="new", replace_root_key=True))
    assert [await registry.api_keys.load(key) for key in ("sk-ac-root", "sk-ac-new", other)] == [None, project, project]


async def test_an_unrecorded_root_key_of_an_earlier_version_is_kept(registry: Registry, settings: Settings) -> None:
    await bootstrap._prepare(settings)
    await registry.redis.call("HDEL", redis_keys.STORE, "root_key_check")
    with pytest.raises(StartupError, match=r"^this store has another root key"):
        await bootstrap._prepare(replace(settings, root_token="new"))
    await bootstrap._prepare(settings)
    assert await registry.api_keys.load("sk-ac-root") == await registry.get("default")


async def test_of_two_first_servers_with_different_root_tokens_one_starts(registry: Registry, settings: Settings) -> None:
    starts = [bootstrap._prepare(replace(settings, root_token=token)) for token in ("one", "two")]
    outcomes = await asyncio.gather(*starts, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if outcome] == [StartupError]
    opened = [await registry.api_keys.load(key) for key in ("sk-ac-one", "sk-ac-two")]
    assert [project is None for project in opened] == [outcome is not None for outcome in outcomes]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"partitions": 3}, "this store was created with partitions 1, not 3"),
        ({"key_secret": "other"}, "key_secret is not the secret with which the keys in this store were hashed"),
    ],
)
async def test_a_store_made_with_other_settings_is_refused_and_left_alone(
    redis: RedisClient, settings: Settings, other: dict[str, Any], message: str
) -> None:
    await bootstrap._prepare(settings)
    before = await keyspace(redis)
    with pytest.raises(StartupError) as caught:
        await bootstrap._prepare(replace(settings, **other))
    assert str(caught.value).startswith(message)
    assert await keyspace(redis) == before


@pytest.mark.parametrize(("field", "here"), [("layout", "2"), ("block_size", "4096")])
async def test_a_store_of_another_layout_is_refused(redis: RedisClient, settings: Settings, field: str, here: str) -> None:
    await redis.call("HSET", "scc:store", field, "7")
    with pytest.raises(StartupError, match=f"^this store was created with {field} 7, not {here}$"):
        await bootstrap._prepare(settings)


def test_an_unreachable_redis_is_reported_in_one_sentence(settings: Settings) -> None:
    with pytest.raises(StartupError, match=r"^the socket in redis_url does not exist$"):
        bootstrap.prepare(replace(settings, redis_url="unix:///nowhere/redis.sock", start_timeout=0.0))
    with pytest.raises(StartupError, match=r"^setting redis_url must begin with redis://, rediss:// or unix://"):
        bootstrap.prepare(replace(settings, redis_url="nowhere"))


def test_the_digest_of_a_key_depends_on_the_secret() -> None:
    digests = {api_keys.digest(key, secret) for key in ("sk-ac-a", "sk-ac-b") for secret in ("s", "t")}
    assert len(digests) == 4
    assert all(len(each) == 64 for each in digests)


async def test_the_cache_time_of_a_key_starts_before_its_look_up(
    registry: Registry, redis: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await registry.api_keys.add(await registry.ensure("acme"))
    await give_record(redis)
    now = 0.0
    monkeypatch.setattr("service.store.api_keys.time", SimpleNamespace(monotonic=lambda: now))
    ring = KeyRing(registry.api_keys, lambda project, _: project)
    ask = redis.call

    async def slow(*command: str | bytes | int, **options: Any) -> Any:  # noqa: ANN401 - as `RedisClient.call`
        nonlocal now
        now += 1.0
        return await ask(*command, **options)

    monkeypatch.setattr(redis, "call", slow)
    await ring.authenticate(f"Bearer {key}")
    asked, now = now, KEY_TTL - 0.1
    await ring.authenticate(f"Bearer {key}")
    assert now == KEY_TTL - 0.1, "it was asked for anew"
    now = KEY_TTL
    await ring.authenticate(f"Bearer {key}")
    assert now == KEY_TTL + asked
