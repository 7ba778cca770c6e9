"""Lists over many partitions are as correct as over one, and take as few round trips."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from random import Random
from typing import Any

import orjson
import pytest

from service.configs.budget import Budget
from service.configs.limits import Limits
from service.redis_client.client import RedisClient
from service.redis_client.multiplexer import Command
from service.redis_client.topology import Target, Topology
from service.store.cursors import decode_session_cursor
from service.store.keys import partition_number
from service.store.listing import SMALL_READ_BYTES, Query, page
from service.store.users import Users
from tests.store.test_listing import everything
from tests.store.test_listing_cost import parse
from tests.support.filling import (
    PROJECT,
    TIMEOUT,
    CountingClient,
    add,
    document_of,
    fill_with_disjoint_terms,
    opened,
    pour,
    session_id,
)

#: Iterations of the event loop without a new command after which a round trip starts.
QUIET = 20


class RoundsClient(CountingClient):
    """A client that holds commands back until no more arrive, and counts that as one round trip."""

    def __init__(self, topology: Topology, *, timeout: float) -> None:
        super().__init__(topology, timeout=timeout)
        self.rounds = 0
        self._round: asyncio.Task[None] | None = None
        self._asked = self._in_flight = 0

    async def call(self, *command: str | bytes | int, writes: bool = False, near: Target | None = None) -> Any:  # noqa: ANN401 - as `RedisClient.call`
        async with self._together():
            return await super().call(*command, writes=writes, near=near)

    async def batch(self, commands: Sequence[Command], *, writes: bool = False, near: Target | None = None) -> list[Any]:
        async with self._together():
            return await super().batch(commands, writes=writes, near=near)

    @asynccontextmanager
    async def _together(self) -> AsyncIterator[None]:
        self._asked += 1
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._wait())
        await self._round
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    async def _wait(self) -> None:
        self.rounds += 1
        asked, quiet = self._asked, 0
        while quiet < QUIET:
            await asyncio.sleep(0)
            quiet = quiet + 1 if asked == self._asked and not self._in_flight else 0
            asked = self._asked


@pytest.fixture
async def rounds(empty_redis: str) -> AsyncIterator[RoundsClient]:
    redis = RoundsClient.open(empty_redis, timeout=TIMEOUT)
    yield redis
    await redis.close()


@pytest.mark.parametrize(("partitions", "share"), [(1, 21), (16, 4), (64, 2)])
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("configs", [{}, {"a": 1}, {"a": 1, "b": "x"}], ids=["all", "one term", "two terms"])
async def test_a_page_takes_as_few_round_trips_from_many_partitions_as_from_one(
    rounds: RoundsClient, partitions: int, share: int, descending: bool, configs: object
) -> None:
    sessions = await opened(rounds, PROJECT, Limits(), partitions)
    names = await pour(sessions, [{"a": 1, "b": "x", "n": number} for number in range(1000)])
    query = Query(parse(configs).user, parse(configs).filter, descending)
    # From here on, Redis has the scripts in its cache.
    expected = await everything(sessions, query, 100)
    assert sorted(expected) == sorted(names)
    rounds.rounds, rounds.seen = 0, []
    first = await page(sessions, query, 20)
    assert [session.id for session in first.sessions] == expected[:20]
    # One; in descending order over several partitions, one more for the last serial of each. A partition that has more of the
    # page than its share is read once more.
    more = rounds.rounds - 1 - (descending and partitions > 1)
    assert more in ((0, 1) if partitions > 1 else (0,))
    read = sum(len(reply) - 4 for command, reply in rounds.seen if command[0] == "EVALSHA")
    assert share * partitions <= read <= share * partitions + 2 * share * more * partitions
    assert first.cursor is not None
    rounds.rounds = 0
    second = await page(
        sessions, Query(query.user, query.filter, descending, decode_session_cursor(first.cursor, partitions)), 20
    )
    assert [session.id for session in second.sessions] == expected[20:40]
    assert rounds.rounds in (1, 2)


async def test_a_partition_that_has_most_of_a_page_is_read_again(rounds: RoundsClient) -> None:
    sessions = await opened(rounds, PROJECT, Limits(), 8)
    ids = {number: partition_number(session_id(number), 8) for number in range(1, 2000)}
    crowd = [number for number, partition in ids.items() if partition == 3][:60]
    others = [number for number, partition in ids.items() if partition != 3][:20]
    created = [(await add(sessions, number, {"a": 1})).id for number in [*others[:10], *crowd, *others[10:]]]
    for configs in ({}, {"a": 1}):
        for limit in (1, 20, 50, 79, 80, 200):
            assert await everything(sessions, parse(configs), limit) == created
            backwards = Query(filter=parse(configs).filter, descending=True)
            assert await everything(sessions, backwards, limit) == created[::-1]


async def test_the_sessions_of_a_user_are_counted_in_all_partitions_concurrently(rounds: RoundsClient) -> None:
    sessions = await opened(rounds, PROJECT, Limits(), 64, 4)
    users = Users(sessions)
    numbers = count(1)
    for user, sessions_of in (("alice", 90), ("bob", 7)):
        for number, _ in zip(numbers, range(sessions_of), strict=False):
            await add(sessions, number, {"a": 1}, user)
    assert await users.count_sessions("bob") == 7  # from here on, Redis has the script in its cache
    for user, sessions_of in (("alice", 90), ("bob", 7)):
        rounds.rounds = 0
        assert await users.count_sessions(user) == sessions_of
        # Whether the user exists, and how many sessions they have in each partition, in one round trip.
        assert rounds.rounds == 1


@pytest.mark.parametrize("partitions", [16, 64])
@pytest.mark.parametrize("descending", [False, True])
async def test_the_pages_of_many_partitions_are_the_list_whatever_is_deleted_between_them(
    redis: RedisClient, partitions: int, descending: bool
) -> None:
    """Some partitions have runs of neighbours in the list, many have few or none; the filter refuses some candidates."""
    random = Random(partitions)
    sessions = await opened(redis, PROJECT, Limits(), partitions, 4)
    crowded = [number for number in range(1, 4000) if partition_number(session_id(number), partitions) in (1, 2)]
    numbers = [*range(4000, 4100), *crowded[:60], *range(4100, 4200)]
    created = [await add(sessions, number, {"a": [[random.randrange(3)]], "b": {}}) for number in numbers]
    for configs, kept in (({}, {0, 1, 2}), ({"b": {}}, {0, 1, 2}), ({"a": [[1]]}, {1}), ({"a": [[0]]}, {0})):
        query = Query(filter=parse(configs).filter, descending=descending)
        expected = [each for each in created if orjson.loads(each.configs)["a"][0][0] in kept]
        expected.sort(key=lambda each: (each.created_at, each.id), reverse=descending)
        while True:
            limit = random.choice((1, 2, 5, 20, 50))
            part = await page(sessions, query, limit)
            assert [each.parsed() for each in part.sessions] == expected[:limit]
            expected = expected[limit:]
            if part.cursor is None:
                break
            query = replace(query, after=decode_session_cursor(part.cursor, partitions))
            for each in random.sample(expected, min(len(expected), random.randrange(3))):
                await sessions.delete(each.id)
                expected.remove(each)
                created.remove(each)
        assert expected == []


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 50])
async def test_a_created_at_that_a_manual_edit_changed_neither_hides_nor_repeats_a_session(
    redis: RedisClient, limit: int, descending: bool
) -> None:
    sessions = await opened(redis, PROJECT, Limits(), 4, 4)
    created = [await add(sessions, number, {"a": 1}) for number in range(1, 41)]
    for each, moved_to in ((created[30], created[0]), (created[20], created[39]), (created[5], created[25])):
        key = sessions.partition(each.id).session(each.id)
        await redis.call("HSET", key, "created_at", moved_to.created_at, writes=True)
    query, listed = Query(filter=parse({"a": 1}).filter, descending=descending), list[str]()
    while True:
        part = await page(sessions, query, limit)
        listed += [each.id for each in part.sessions]
        if part.cursor is None:
            break
        query = replace(query, after=decode_session_cursor(part.cursor, 4))
    assert sorted(listed) == sorted(each.id for each in created)


async def test_while_one_partition_is_searched_the_sessions_of_the_others_do_not_fill_the_memory(empty_redis: str) -> None:
    redis = CountingClient.open(empty_redis, timeout=TIMEOUT)
    sessions = await opened(redis, PROJECT, Limits(), 8)
    searched, size = sessions.all_partitions[3], 50_000
    names = [session_id(number) for number in range(1, 500)]
    for name in [name for name in names if sessions.partition(name) != searched][:200]:
        await sessions.create_session(name, document_of({"a": 1, "b": 1, "pad": "x" * size}), user=None)
    await fill_with_disjoint_terms(searched, redis, blocks=60)
    redis.seen.clear()
    part = await page(sessions, parse({"a": 1, "b": 1}), 200, budget=Budget(candidates=500))
    replies = [reply for _, reply in redis.seen if isinstance(reply, list)]
    await redis.close()
    assert (part.sessions, part.cursor is None) == ([], False)
    assert len(replies) > 8  # The first of all partitions, then those of the one that is searched.
    # What one round trip reads, and one session of each partition beyond it.
    assert sum(len(session[0]) for reply in replies for session in reply[4:]) < SMALL_READ_BYTES + 2 * 8 * (size + 100)
