"""An import that is repeated: it completes what was interrupted, whatever expired or was deleted meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from random import Random

import orjson
import pytest

from service.configs.export_format import SessionLine, decode
from service.errors import BadRequest
from service.redis_client.client import RedisClient
from service.redis_client.multiplexer import Command
from service.store.upkeep.project_import import OnConflict
from tests.support.exports import count_of, edited, emptied, exported, filled, findings, imported, limited, take_small_steps
from tests.support.filling import TIMEOUT, add, keyspace, session_id, sweep_all
from tests.support.moves import FragileClient, Interrupted, after_move, restore


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    take_small_steps(monkeypatch)


class PrefixClient(FragileClient):
    """A client whose process is killed while its commands are sent: some of the first ones have reached Redis."""

    def _reached(self, commands: Sequence[Command]) -> Sequence[Command]:
        return commands if self.last else commands[: self.random.randrange(len(commands) + 1)]


@pytest.fixture
async def fragile(empty_redis: str) -> AsyncIterator[PrefixClient]:
    redis = PrefixClient.open(empty_redis, timeout=TIMEOUT)
    yield redis
    await redis.close()


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
async def test_an_import_killed_at_any_round_trip_is_finished_by_the_next_one(
    fragile: PrefixClient, before: int, after: int
) -> None:
    sessions = await filled(fragile, before)
    expected, lines = after_move(await keyspace(fragile), after), await exported(sessions)
    sessions = await emptied(fragile, after)
    start, random = await keyspace(fragile), Random(before)
    kill_point = 0
    while True:
        await restore(fragile.kill_at(-1, 0), start)
        fragile.kill_at(kill_point, kill_point)
        try:
            await imported(sessions, lines)
        except Interrupted:
            kill_point += 1
        else:
            break
        fragile.kill_at(random.randrange(kill_point + 10), kill_point)
        try:
            await imported(sessions, lines)
        except Interrupted:
            fragile.kill_at(-1, 0)
            # The project's configs are written before the partitions get their default TTL; the next import gives it to them.
            assert [each for each in await findings(sessions) if "its session_ttl is not" not in each] == []
        fragile.kill_at(-1, 0)
        counts = await imported(sessions, lines)
        assert counts.created + counts.present == count_of(lines)
        assert await keyspace(fragile) == expected, f"killed at round trip {kill_point}"
    assert kill_point > 10


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("on_conflict", ["fail", "skip", "replace"])
async def test_an_import_is_resumed_after_sessions_have_expired(
    redis: RedisClient, partitions: int, on_conflict: OnConflict
) -> None:
    """Those that were imported are gone, and later ones are not; those that were not are left out."""
    lines = with_expiry(await exported(await filled(redis, partitions)), await _now(redis) + 1_000_000)
    sessions = await emptied(redis, partitions)
    lapsed = [line.id for line in map(decode, lines) if isinstance(line, SessionLine) and line.expires_at is not None]
    rest = count_of(lines) - len(lapsed)
    assert len(lapsed) > 3
    await imported(sessions, lines[: len(lines) // 2])
    await asyncio.sleep(1.1)
    await sweep_all(sessions)
    before = sum([await redis.call("ZCARD", each.sessions) for each in sessions.all_partitions])
    counts = await imported(sessions, lines, on_conflict)
    assert (counts.created, counts.present, counts.expired, counts.older) == (rest - before, before, len(lapsed), 0)
    assert await findings(sessions) == []
    counts = await imported(sessions, lines, on_conflict, new_ids=True)
    assert (counts.created, counts.expired) == (rest, len(lapsed))


def with_expiry(lines: Sequence[bytes], expires_at: int) -> list[bytes]:
    """The lines of an export; every other session expires then, no other one does."""
    members = [orjson.loads(line) for line in lines]
    for number, each in enumerate(members):
        if each["type"] == "session":
            each["expires_at"] = expires_at if number % 2 else None
    return [orjson.dumps(each) for each in members]


async def _now(redis: RedisClient) -> int:
    seconds, microseconds = await redis.call("TIME", near=0)
    return int(seconds) * 1_000_000 + int(microseconds)


@pytest.mark.parametrize("on_conflict", ["fail", "skip", "replace"])
async def test_an_expired_session_changes_nothing(redis: RedisClient, on_conflict: OnConflict) -> None:
    """The project has a later state of some, which has not expired, and others under the ids of some."""
    sessions = await filled(redis, 2)
    lines = [edited(line, expires_at=5) for line in await exported(sessions) if b'"type":"session"' in line]
    await sessions.delete(session_id(0))
    await add(sessions, 0, {"again": 1})
    before = await keyspace(redis)
    counts = await imported(sessions, lines, on_conflict)
    assert (counts.expired, counts.present, counts.replaced, counts.created) == (len(lines), 0, 0, 0)
    assert await keyspace(redis) == before


@pytest.mark.parametrize("partitions", [1, 3])
async def test_an_import_is_resumed_after_a_client_has_deleted_sessions(redis: RedisClient, partitions: int) -> None:
    lines = await exported(await filled(redis, partitions))
    sessions = await emptied(redis, partitions)
    half = lines[: len(lines) - 6]
    await imported(sessions, half)
    ids = [line.id for line in map(decode, half) if isinstance(line, SessionLine)]
    newest = {sessions.partition(each): each for each in ids}
    deleted = [each for each in ids if each not in newest.values()][::2]
    await sessions.delete_many(deleted)
    with pytest.raises(BadRequest, match=r"or --on-conflict skip, which leaves it out$"):
        await imported(sessions, lines)
    counts = await imported(sessions, lines, "skip")
    assert (counts.older, counts.skipped, counts.present) == (len(deleted), 0, len(ids) - len(deleted))
    assert counts.created == count_of(lines) - len(ids)
    assert await findings(sessions) == []
    before = await keyspace(redis)
    assert (await imported(sessions, lines, "skip")).older == len(deleted)
    assert await keyspace(redis) == before


async def test_a_session_that_is_left_out_is_over_no_limit(redis: RedisClient) -> None:
    lines = [line for line in await exported(await filled(redis, 1)) if b'"type":"session"' in line]
    sessions = limited(await emptied(redis, 1), max_sessions=2)
    await imported(sessions, lines[1:3])
    assert (await imported(sessions, lines[:1], "skip")).older == 1
    with pytest.raises(BadRequest, match=r"was created before sessions that the project has"):
        await imported(sessions, lines[:1])
