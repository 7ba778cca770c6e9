"""PATCH merges line by line: after any changes, configs and terms are those of a document built from the same members."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.configs.document import Document, parse
from service.configs.limits import Limits
from service.configs.ttl import Ttl
from service.redis_client.client import RedisClient
from service.store import script_calls
from service.store.sessions import Sessions
from service.store.verify import verify_session
from tests.support.filling import PROJECT, add, document_of, fill, keyspace, on_every_redis, opened, session_id

ONE = session_id(1)
LIMITS = Limits()

#: Raw JSON: keys with and without escapes, and values of which several have equal terms or equal lengths.
KEYS = ['"a"', '"b"', '"a-b_1"', '"q\\"q"', '"\\\\"', '""', '"é"', '"{"', '"' + "long" * 40 + '"']
VALUES = [
    "1",
    "1.0",
    "2",
    "10e-1",
    '"x"',
    '"y"',
    '",\\n"',
    "true",
    "null ",
    "{}",
    "[]",
    '["t1","t2"]',
    '["t2","t1"]',
    '{"n":{"m":1}}',
]
WIDE = "[" + ",".join(map(str, range(70))) + "]"
Members = dict[str, str]

changes_of_a_patch = st.dictionaries(st.sampled_from(KEYS), st.sampled_from([*VALUES, WIDE, "null"]), max_size=len(KEYS))


def built(members: Members) -> Document:
    raw = ("{" + ",".join(f"{key}:{value}" for key, value in members.items()) + "}").encode()
    return Document.build(parse(raw, max_nesting=LIMITS.max_nesting), raw, LIMITS)


def merged(members: Members, changes: Members) -> Members:
    """The members after a PATCH: a changed one keeps its position, a null removes it, a new one comes last."""
    return {key: value for key, value in (members | changes).items() if changes.get(key, "").strip() != "null"}


async def index_of(redis: RedisClient) -> dict[str, object]:
    """The sets of the index."""
    return {name: value for name, value in (await keyspace(redis)).items() if "session" not in name and "state" not in name}


@on_every_redis
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=changes_of_a_patch, patches=st.lists(changes_of_a_patch, min_size=1, max_size=6))
async def test_a_session_is_as_if_it_had_been_written_whole(redis_url: str, first: Members, patches: list[Members]) -> None:
    redis = RedisClient.open(redis_url, timeout=60.0)
    try:
        await redis.call("FLUSHALL", writes=True)
        sessions = await opened(redis, PROJECT, LIMITS, 1, 4)
        await sessions.create_session(ONE, built(first))
        members = first
        for number, changes in enumerate(patches):
            members = merged(members, changes)
            written = await sessions.patch(ONE, built(changes))
            assert written.revision == 2 + number
            assert written.configs == built(members).configs
            stored = await redis.call("HMGET", sessions.all_partitions[0].session(ONE), "configs", "terms")
            assert stored == [built(members).configs, built(members).terms]
        index = await index_of(redis)
        await redis.call("FLUSHALL", writes=True)
        await (await opened(redis, PROJECT, LIMITS, 1, 4)).create_session(ONE, built(members))
        assert await index_of(redis) == index
    finally:
        await redis.close()


@on_every_redis
@pytest.mark.parametrize("changes", [{}, {"a": 1}, {"b": "x", "a": 1}, {"gone": None}])
async def test_a_patch_that_changes_no_value_raises_revision_and_updated_at_and_nothing_else(
    sessions: Sessions, changes: dict[str, object]
) -> None:
    (before,) = await fill(sessions, [{"a": 1, "b": "x", "c": [1, 2]}])
    stored = await keyspace(sessions.redis)
    written = await sessions.patch(ONE, document_of(changes))
    assert (written.revision, written.created_at, written.configs) == (2, before.created_at, before.configs)
    assert written.updated_at >= before.updated_at
    after = await keyspace(sessions.redis)
    key = sessions.all_partitions[0].session(ONE)
    assert after[key] == stored[key] | {b"revision": b"2", b"updated_at": b"%d" % written.updated_at}
    assert {**after, key: 0} == {**stored, key: 0}


@on_every_redis
async def test_a_patch_that_changes_no_value_can_change_the_ttl(sessions: Sessions) -> None:
    await fill(sessions, [{"a": 1}])
    await sessions.patch(ONE, document_of({"a": 1}), ttl=Ttl(50))
    session = await sessions.get(ONE)
    assert session.expires_at == session.updated_at + 50_000_000
    expiring = (await keyspace(sessions.redis))[sessions.all_partitions[0].expiring]
    assert expiring == {ONE.encode(): session.expires_at}


@on_every_redis
async def test_a_value_with_the_same_terms_is_stored_in_its_new_spelling(sessions: Sessions) -> None:
    await sessions.create_session(ONE, built({'"a"': "1", '"b"': '["x","y"]', '"c"': WIDE}))
    other = WIDE.replace("69", "68")
    for changes in ({'"a"': "1.0"}, {'"a"': "1"}, {'"b"': '["y","x"]'}, {'"c"': other}, {'"a"': "1e0", '"c"': WIDE}):
        written = await sessions.patch(ONE, built(changes))
        for key, value in changes.items():
            assert f"\n{key}:{value}".encode() in written.configs
        assert (await sessions.get(ONE)).configs == written.configs


@on_every_redis
@pytest.mark.parametrize("configs", ["", "x" * 10_000])
async def test_put_and_delete_find_a_session_whatever_its_configs_are(sessions: Sessions, configs: str) -> None:
    key = sessions.all_partitions[0].session(ONE)
    await add(sessions, 1, {"a": 1})
    await sessions.redis.call("HSET", key, "configs", configs, writes=True)
    assert (await sessions.replace(ONE, document_of({"a": 2}))).revision == 2
    assert (await sessions.get(ONE)).configs == b'{\n"a":2\n}'
    await sessions.redis.call("HSET", key, "configs", configs, writes=True)
    await sessions.delete(ONE)
    assert key not in await keyspace(sessions.redis)


@on_every_redis
@pytest.mark.parametrize("terms", ['{\n"a":=1}', '{\n"a":=1', '{\n"a":=1,\n}', "{\n}", "x", ""])
async def test_terms_that_a_manual_edit_broke_stop_no_write_and_no_repair(sessions: Sessions, terms: str) -> None:
    partition = sessions.all_partitions[0]
    for number in (2, 3):
        created = await add(sessions, number, {"a": 1})
        await sessions.redis.call("HSET", partition.session(created.id), "terms", terms, writes=True)
    await sessions.delete(session_id(2))
    await sessions.replace(session_id(3), document_of({"b": 2}))
    created = await add(sessions, 4, {"a": 1})
    await sessions.redis.call("HSET", partition.session(created.id), "terms", terms, writes=True)
    await verify_session(sessions.redis, partition, created.id, repair=True)
    assert (await sessions.patch(created.id, document_of({"b": 2}))).configs == b'{\n"a":1,\n"b":2\n}'
    expiring = await add(sessions, 5, {"a": 1})
    await sessions.redis.call("HSET", partition.session(expiring.id), "terms", terms, "expires_at", 1, writes=True)
    call = script_calls.expire(
        session=partition.session(expiring.id), sessions=partition.sessions, partition=partition.arguments,
        session_id=expiring.id,
    )  # fmt: skip
    assert await call.run(sessions.redis) == "expired"


@on_every_redis
async def test_an_empty_object_with_a_line_break_is_patched(sessions: Sessions) -> None:
    await add(sessions, 1, {})
    await sessions.redis.call("HSET", sessions.all_partitions[0].session(ONE), "configs", "{\n}", writes=True)
    assert (await sessions.patch(ONE, document_of({"a": 1}))).configs == b'{\n"a":1\n}'
    assert (await sessions.patch(ONE, document_of({"b": 2}))).configs == b'{\n"a":1,\n"b":2\n}'
