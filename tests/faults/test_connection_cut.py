"""Network faults between the workers and Redis: no wrong answer, no hang, and no write executed twice."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from service.configs.limits import Limits
from service.errors import NotFound, StoreUnavailable, WriteUncertain
from service.redis_client.client import RedisClient
from service.store import listing
from service.store.listing import Query
from service.store.sessions import Sessions
from service.store.users import Users
from tests.support.filling import PROJECT, TIMEOUT, add, document_of, fill, opened, session_id
from tests.support.proxy import Proxy, proxy
from tests.support.server import Start
from tests.support.workload import KEY, LENIENT, TOKEN, Workload, check_after_fault, workload_over_http

#: Seconds that a command may take if the fault lasts longer.
COMMAND_TIMEOUT = 0.5
BRIEF = ("--command-timeout", str(COMMAND_TIMEOUT))
#: Bytes; longer than any reply in these tests.
LONGEST_REPLY = 1200


@asynccontextmanager
async def sessions_behind(redis_url: str) -> AsyncIterator[tuple[Sessions, Proxy]]:
    """Sessions in an empty store behind a proxy."""
    async with proxy(redis_url.removeprefix("unix://")) as between:
        redis = RedisClient.open(between.url, timeout=TIMEOUT)
        yield await opened(redis, PROJECT, Limits(), 1, 4), between
        await redis.close()


async def test_a_read_whose_reply_is_cut_anywhere_is_retried(empty_redis: str) -> None:
    async with sessions_behind(empty_redis) as (sessions, between):
        created = await fill(sessions, [{"a": 1, "b": [1.0, number]} for number in range(5)])
        cuts = 0
        for at in range(0, LONGEST_REPLY, 7):
            before = between.connections
            between.passing = at
            assert await sessions.get(session_id(3)) == created[2]
            assert [each.parsed() for each in (await listing.page(sessions, Query(), 3)).sessions] == created[:3]
            between.passing = None
            cuts += between.connections - before
        assert cuts > LONGEST_REPLY / 7 / 2


@pytest.mark.parametrize("name", ["create", "patch", "delete"])
async def test_a_write_whose_reply_is_cut_anywhere_is_executed_once_and_reported_uncertain(empty_redis: str, name: str) -> None:
    writes: dict[str, Callable[[int], Awaitable[object]]] = {
        "create": lambda number: add(sessions, number, {"a": 1}),
        "patch": lambda number: sessions.patch(session_id(number), document_of({"b": {"c": [number]}, "a": None})),
        "delete": lambda number: sessions.delete(session_id(number)),
    }
    async with sessions_behind(empty_redis) as (sessions, between):
        outcomes = set()
        # The first reply is not cut: from then on Redis has the script in its cache.
        for number, cut in enumerate((None, *range(0, 160, 4))):
            if name != "create":
                await add(sessions, number, {"a": 1})
            between.passing = cut
            try:
                await writes[name](number)
                outcomes.add("done")
            except WriteUncertain:
                outcomes.add("uncertain")
            between.passing = None
            # The write reached Redis, so it was executed exactly once.
            assert await revision_of(sessions, number) == {"create": 1, "patch": 2, "delete": None}[name]
        assert outcomes == {"done", "uncertain"}


async def revision_of(sessions: Sessions, number: int) -> int | None:
    try:
        return (await sessions.get(session_id(number))).revision
    except NotFound:
        return None


async def test_a_write_that_could_not_be_sent_is_sent_after_a_reconnect(empty_redis: str) -> None:
    async with sessions_behind(empty_redis) as (sessions, between):
        await add(sessions, 1, {"a": 1})
        await between.refuse()
        write = asyncio.create_task(sessions.patch(session_id(1), document_of({"a": 2})))
        await asyncio.sleep(0.1)
        assert not write.done()
        await between.listen()
        assert (await write).revision == 2


@asynccontextmanager
async def workload_behind(start: Start, redis_url: str, *flags: str) -> AsyncIterator[tuple[Workload, Proxy]]:
    """A workload on a server whose Redis is behind a proxy. It continues after the block, and then the store is checked."""
    async with proxy(redis_url.removeprefix("unix://")) as between:
        serving = await asyncio.to_thread(start, *flags, SCC_ROOT_TOKEN=TOKEN, SCC_REDIS_URL=between.url)
        async with workload_over_http(serving.origin, KEY, clients=10) as clients:
            await clients.wait_for("acknowledged", 100)
            yield clients, between
            await clients.wait_for("acknowledged", 100)
        assert await check_after_fault(clients, serving) == 0
        assert await asyncio.to_thread(serving.stop) == 0


async def test_cut_replies_and_reset_connections_fail_no_read(start: Start, empty_redis: str) -> None:
    async with workload_behind(start, empty_redis, *LENIENT) as (clients, between):
        for cut in range(60):
            between.passing = cut * 5
            await clients.wait_for("acknowledged", 3)
            if cut % 3 == 0:
                await between.reset()
        between.passing = None
    assert (clients.stats.refused, clients.stats.reads_refused) == (0, 0)
    assert clients.stats.uncertain > 0


async def test_a_network_that_drops_everything_causes_timeouts_in_time(start: Start, empty_redis: str) -> None:
    async with workload_behind(start, empty_redis, *BRIEF) as (clients, between):
        between.is_hole = True
        await clients.wait_for("uncertain", 5)
        await clients.wait_for("refused", 5)
        await clients.wait_for("reads_refused", 5)
        between.is_hole = False


async def test_a_slow_network_works_within_the_timeout(start: Start, empty_redis: str) -> None:
    async with workload_behind(start, empty_redis, "--command-timeout", "1.0") as (clients, between):
        between.delay = 0.1
        await clients.wait_for("acknowledged", 20)
        assert clients.stats.unavailable == 0
        between.delay = 2.0
        await clients.wait_for("uncertain", 5)
        between.delay = 0.0


@pytest.mark.parametrize(
    "answer",
    [b"-LOADING Redis is loading the dataset in memory\r\n", b"what is this\r\n"],
    ids=["loading", "not Redis"],
)
async def test_a_redis_that_loads_or_answers_nonsense_causes_refusals_until_it_recovers(
    start: Start, empty_redis: str, answer: bytes
) -> None:
    async with workload_behind(start, empty_redis, *BRIEF) as (clients, between):
        between.answer = answer
        await between.reset()
        await clients.wait_for("refused", 10)
        await clients.wait_for("reads_refused", 5)
        between.answer = b""
        await between.reset()


async def test_refused_reads_are_a_503(empty_redis: str) -> None:
    async with sessions_behind(empty_redis) as (sessions, between):
        await fill(sessions, [{"a": 1}] * 3, "alice")
        between.answer = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
        reads: list[Callable[[], Awaitable[object]]] = [
            lambda: listing.page(sessions, Query(), 2),
            lambda: Users(sessions).count_sessions("alice"),
        ]
        for read in reads:
            with pytest.raises(StoreUnavailable):
                await read()
