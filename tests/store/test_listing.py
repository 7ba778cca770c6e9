"""A listing equals a scan of all sessions by brute force: filters, users, orders, pages, changes between pages."""

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from service.configs.containment import Filter, contains, exact
from service.configs.limits import Limits
from service.errors import BadRequest
from service.redis_client.client import RedisClient
from service.store.cursors import decode_session_cursor, encode_session_cursor
from service.store.listing import Query, iter_matches, page
from service.store.record import Session
from service.store.sessions import Sessions
from tests.support import strategies
from tests.support.filling import PROJECT, TIMEOUT, add, document_of, fill, on_every_redis, opened, session_id
from tests.support.strategies import Spelled, part_of, spell

#: Generous, so that every filter drawn is let in.
LIMITS = Limits(max_filter_values=100_000)
USERS = (None, "alice@example.com", "bob")
LAYOUTS = [(1, 4), (3, 4), (1, 16), (3, 16), (1, 4096), (3, 4096)]

# Not shrunk: most of an example depends on one seed.
few = settings(
    max_examples=10,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class World:
    """Configs of sessions, many of them alike, and filters of which most match several; `random` decides the rest."""

    def __init__(self, kinds: list[dict[str, Any]], seed: int) -> None:
        self.random = random = Random(seed)
        self.configs = [spelled(random.choice(kinds), random) for _ in range(random.randint(1, 40))]
        # Half of the filters are parts of configs, the others are parts with small changes.
        self.filters = [spelled(part_of(random.choice(kinds), random, astray=astray), random) for astray in (0, 0, 0.2, 0.4)]


worlds = st.builds(World, st.lists(strategies.any_configs(), min_size=1, max_size=8), st.integers(0, 2**32))


def spelled(value: dict[str, Any], random: Random) -> Spelled:
    """`value` in a random spelling."""
    return Spelled(spell(value, random).encode(), value)


def with_store(url: str, partitions: int, block_size: int, use: Callable[[Sessions], Awaitable[None]]) -> None:
    """Run `use` on an empty store."""

    async def run() -> None:
        redis = RedisClient.open(url, timeout=TIMEOUT)
        try:
            await redis.call_on_masters("FLUSHALL", writes=True)
            await use(await opened(redis, PROJECT, LIMITS, partitions, block_size))
        finally:
            await redis.close()

    asyncio.run(run())


def expected(stored: dict[str, Session], query: Query, wanted: dict[str, Any], beyond: tuple[int, str] | None) -> list[str]:
    """By brute force: the ids that a query asks for, in order, after those up to `beyond`."""
    matches = [
        (session.created_at, session.id)
        for session in stored.values()
        if (query.user is None or session.user == query.user)
        and (not wanted or (session.configs != b"null" and contains(exact(session.configs), wanted)))
    ]
    matches.sort(reverse=query.descending)
    if beyond is not None:
        matches = [place for place in matches if (place < beyond if query.descending else place > beyond)]
    return [name for _, name in matches]


async def everything(sessions: Sessions, query: Query, limit: int = 7) -> list[str]:
    """The ids of all pages."""
    matches: list[str] = []
    while True:
        part = await page(sessions, query, limit)
        matches += [session.id for session in part.sessions]
        if part.cursor is None:
            return matches
        assert len(part.sessions) == limit
        after = decode_session_cursor(part.cursor, sessions.partitions)
        assert after != query.after, "the page made no progress"
        query = replace(query, after=after)


@on_every_redis
@pytest.mark.parametrize(("partitions", "block_size"), LAYOUTS)
def test_a_listing_equals_a_scan_of_all_sessions(redis_url: str, partitions: int, block_size: int) -> None:
    @few
    @given(worlds)
    def holds(world: World) -> None:
        async def use(sessions: Sessions) -> None:
            configs, filters, random = world.configs, world.filters, world.random
            stored = {
                session.id: session
                for number, spelled in enumerate(configs)
                for session in [await add(sessions, number, spelled.raw, random.choice(USERS))]
            }
            for spelled in filters:
                query = Query(
                    user=random.choice((*USERS, "nobody")),
                    filter=Filter.parse(spelled.raw, LIMITS),
                    descending=random.random() < 0.5,
                )
                right = expected(stored, query, spelled.value, None)
                assert await everything(sessions, query, random.randint(1, 9)) == right
                bulk = [session.id async for batch in iter_matches(sessions, query) for session in batch]
                assert sorted(bulk) == sorted(right)

        with_store(redis_url, partitions, block_size, use)

    holds()


@pytest.mark.parametrize(("partitions", "block_size"), LAYOUTS)
def test_changes_between_pages_neither_repeat_nor_hide_a_session(redis_url: str, partitions: int, block_size: int) -> None:
    @few
    @given(worlds)
    def holds(world: World) -> None:
        async def use(sessions: Sessions) -> None:
            configs, filters, random = world.configs, world.filters, world.random
            stored: dict[str, Session] = {}

            async def create() -> None:
                spelled, user = random.choice(configs), random.choice(USERS)
                session = await add(sessions, random.randrange(2**32), spelled.raw, user)
                stored[session.id] = session

            async def change() -> None:
                action = random.random()
                if action < 0.4 or not stored:
                    return await create()
                # A run of neighbours, so that whole blocks become empty.
                names = sorted(stored, key=lambda name: stored[name].created_at)
                first = random.randrange(len(names))
                for name in names[first : first + random.randint(1, 6)]:
                    # A cursor has one serial for each partition. With several partitions, a session that starts to match after
                    # a page has passed its created_at is listed late, so only one partition has replacements here.
                    if action < 0.8 or partitions > 1:
                        await sessions.delete(name)
                        del stored[name]
                    else:
                        await sessions.replace(name, document_of(random.choice(configs).raw))
                        stored[name] = await sessions.get(name)
                return None

            for _ in range(25):
                await create()
            for spelled in filters:
                query = Query(
                    user=random.choice((None, None, *USERS)),
                    filter=Filter.parse(spelled.raw, LIMITS),
                    descending=random.random() < 0.5,
                )
                last: tuple[int, str] | None = None
                for _ in range(100):
                    limit = random.randint(1, 6)
                    right = expected(stored, query, spelled.value, last)
                    part = await page(sessions, query, limit)
                    assert [session.id for session in part.sessions] == right[:limit]
                    assert (part.cursor is None) == (len(right) <= limit)
                    if part.cursor is None:
                        break
                    last = int(part.sessions[-1].created_at), part.sessions[-1].id
                    query = replace(query, after=decode_session_cursor(part.cursor, partitions))
                    await change()

        with_store(redis_url, partitions, block_size, use)

    holds()


@pytest.mark.parametrize("block_size", [4, 16])
@pytest.mark.parametrize("share", [1, 2, 4, 16])
async def test_the_first_and_the_last_session_of_a_block_are_listed(redis: RedisClient, block_size: int, share: int) -> None:
    """Each filter matches one session in `share`, at other positions of the blocks than the others."""
    sessions = await opened(redis, PROJECT, LIMITS, 1, block_size)
    last = 3 * block_size
    stored = await fill(sessions, [{"n": number, "at": number % share} for number in range(1, last + 1)])
    # Each session's number is its serial, so three blocks are complete from the first session to the last.
    assert await redis.call("ZSCORE", sessions.all_partitions[0].sessions, session_id(last)) == b"%d" % last
    for at in range(share):
        right = [session.id for number, session in enumerate(stored, 1) if number % share == at]
        query = Query(filter=Filter.parse(b'{"at":%d}' % at, LIMITS))
        for limit in (1, 2, 7, 100):
            assert await everything(sessions, query, limit) == right
            assert await everything(sessions, replace(query, descending=True), limit) == right[::-1]
    for number, session in enumerate(stored, 1):
        query = Query(filter=Filter.parse(b'{"n":%d}' % number, LIMITS))
        assert await everything(sessions, query) == [session.id]


@pytest.mark.parametrize("count", [3, 4, 5, 12, 13])
async def test_all_sessions_are_read_however_many_batches_they_take(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("service.store.listing.BATCH_MAX", 4)
    ids = [session.id for session in await fill(sessions, [{}] * count)]
    # An entry without a session takes a place in its batch.
    await sessions.redis.call("DEL", sessions.all_partitions[0].session(ids.pop(1)))
    assert [session.id async for batch in iter_matches(sessions, Query()) for session in batch] == ids
    for descending, ordered in ((False, ids), (True, ids[::-1])):
        assert await everything(sessions, Query(descending=descending), 100) == ordered


async def test_a_filter_that_the_index_cannot_narrow_is_answered_too(sessions: Sessions) -> None:
    hit = {"a": {"b": {}}, "n": 1}
    stored = await fill(sessions, [hit, {"a": {"b": 1}}, {"a": {}}, None, {"a": {"b": {"c": 1}}}, {}, {"a": [{"b": {}}]}] * 12)
    for wanted, places in ((b'{"a":{"b":{}}}', (0, 4)), (b'{"a":[{"b":{}}]}', (6,)), (b'{"a":{}}', (0, 1, 2, 4))):
        query = Query(filter=Filter.parse(wanted, LIMITS))
        assert query.required_terms == ()
        right = [session.id for at, session in enumerate(stored) if at % 7 in places]
        assert await everything(sessions, query) == right
        assert await everything(sessions, replace(query, descending=True)) == right[::-1]


async def test_more_required_terms_than_are_used_still_list_only_matches(sessions: Sessions) -> None:
    complete = {f"k{number}": number for number in range(12)}
    short = [{key: value for key, value in complete.items() if key != f"k{missing}"} for missing in range(12)]
    stored = await fill(sessions, [complete, *short, {**complete, "more": 1}, *short, {**complete, "k11": 11.5}])
    query = Query(filter=Filter.parse(document_of(complete).configs, LIMITS))
    assert len(query.required_terms) == 12
    assert await everything(sessions, query, 1) == [stored[0].id, stored[13].id]


async def test_more_required_terms_below_a_key_that_overflows_in_some_sessions_match_too(sessions: Sessions) -> None:
    part = {f"k{number}": number for number in range(12)}
    wide = {"a": {f"k{number}": number for number in range(80)}}
    stored = await fill(sessions, [{"a": part}, wide, {"a": {**part, "k3": 4}}, {"a": 1}, {"a": {**wide["a"], "k3": 4}}] * 3)
    query = Query(filter=Filter.parse(document_of({"a": part}).configs, LIMITS))
    assert all(demand.overflow == "a~" for demand in query.required_terms)
    assert await everything(sessions, query, 2) == [stored[at].id for at in (0, 1, 5, 6, 10, 11)]


async def test_a_session_without_configs_is_in_every_list_but_filtered_ones(sessions: Sessions) -> None:
    stored = await fill(sessions, [None, {}, None, {"a": 1}], "alice")
    assert await everything(sessions, Query()) == [session.id for session in stored]
    assert await everything(sessions, Query(user="alice")) == [session.id for session in stored]
    assert await everything(sessions, Query(filter=Filter.parse(b'{"a":1}', LIMITS))) == [stored[3].id]
    assert await everything(sessions, Query(filter=Filter.parse(b'{"a":{}}', LIMITS))) == []


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_partition_without_a_session_on_the_first_page_adds_no_newer_ones_later(
    redis: RedisClient, partitions: int
) -> None:
    sessions = await opened(redis, PROJECT, LIMITS, partitions, 4)
    old = [session.id for session in await fill(sessions, [{"a": 1}] * 9)]
    first = await page(sessions, Query(descending=True), 2)
    assert first.cursor is not None
    for number in range(100, 120):
        await add(sessions, number, {"a": 1})
    query = Query(descending=True, after=decode_session_cursor(first.cursor, partitions))
    assert [session.id for session in first.sessions] + await everything(sessions, query) == old[::-1]


async def test_a_session_deleted_and_recreated_is_listed_once_at_its_new_position(sessions: Sessions) -> None:
    stored = await fill(sessions, [{"a": 1}] * 6)
    await sessions.delete(stored[2].id)
    await add(sessions, 3, {"a": 1})
    names = [session.id for session in stored]
    right = [*names[:2], *names[3:], names[2]]
    assert await everything(sessions, Query(), 2) == right
    assert await everything(sessions, Query(filter=Filter.parse(b'{"a":1}', LIMITS)), 2) == right


def test_a_decoded_cursor_has_the_serials_that_were_encoded() -> None:
    for after in ((None,), (0,), (2**53,), (None, 5, None), (1, 2, 3)):
        assert decode_session_cursor(encode_session_cursor(after), len(after)) == after


#: A cursor with a serial of more digits than `int` accepts.
TOO_MANY_DIGITS = urlsafe_b64encode(b"s" + b"1" * 5000).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "a",
        "!!!!",
        "c",
        "dTU",
        pytest.param(TOO_MANY_DIGITS, id="5000 digits"),
        encode_session_cursor((2**53 + 1,)),
        encode_session_cursor((1, 2)),
        "czE=\n",
        "é",
    ],
)
def test_an_invalid_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(BadRequest, match="invalid cursor"):
        decode_session_cursor(cursor, 1)


def test_a_session_id_is_canonical_in_these_tests() -> None:
    assert session_id(1) == "00000000-0000-0000-0000-000000000001"
