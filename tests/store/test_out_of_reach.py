"""Keys out of a script's reach, as on a cluster that moves a slot: the write is refused whole, before anything is written."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from service.configs.limits import Limits
from service.errors import StoreUnavailable
from service.store import sweep
from service.store.connection import Link
from service.store.sessions import Sessions
from tests.store.filling import PROJECT, TIMEOUT, add, document_of, keyspace, lapse, session_id

ONE, TWO, THREE = map(session_id, (1, 2, 3))

#: What the narrow user of `within_reach` cannot see belongs to the term far=1.
WRITES: dict[str, Callable[[Sessions], Awaitable[object]]] = {
    "create": lambda sessions: add(sessions, 3, {"near": 1, "far": 1}),
    "replace, which brings the term": lambda sessions: sessions.replace(TWO, document_of({"near": 2, "far": 1})),
    "replace, which takes the term": lambda sessions: sessions.replace(ONE, document_of({"near": 2})),
    "patch, which brings the term": lambda sessions: sessions.patch(TWO, document_of({"far": 1})),
    "patch, which takes the term": lambda sessions: sessions.patch(ONE, document_of({"near": 2, "far": None})),
    "delete": lambda sessions: sessions.delete(ONE),
    "delete of many": lambda sessions: sessions.delete_many([ONE]),
}


@asynccontextmanager
async def within_reach(link: Link, url: str, *patterns: str) -> AsyncIterator[Link]:
    """A link that reaches the keys of `patterns` only: Redis answers its EXISTS as a cluster does for a key elsewhere."""
    await link.call("ACL", "SETUSER", "narrow", "reset", "on", ">pass", "+@all", *(f"~{pattern}" for pattern in patterns))
    narrow = Link.open(url.replace("unix://", "unix://narrow:pass@"), timeout=TIMEOUT)
    try:
        yield narrow
    finally:
        await narrow.close()
        await link.call("ACL", "DELUSER", "narrow")


@pytest.mark.parametrize("hidden", ["index:0:", "blocks:"])
@pytest.mark.parametrize("write", WRITES)
async def test_a_write_that_cannot_reach_all_of_its_keys_changes_nothing(
    sessions: Sessions, empty_redis: str, write: str, hidden: str
) -> None:
    await add(sessions, 1, {"near": 1, "far": 1})
    await add(sessions, 2, {"near": 1})
    partition = sessions.all_partitions[0]
    before = await keyspace(sessions.link)
    seen = [partition.prefix + name for name in ("session:*", "sessions", "state", "*:near=*")]
    other = {"index:0:": "blocks:*", "blocks:": "index:*"}[hidden]
    async with within_reach(sessions.link, empty_redis, *seen, partition.prefix + other) as narrow:
        blind = Sessions(narrow, PROJECT, Limits(), 1, 4)
        with pytest.raises(StoreUnavailable):
            await WRITES[write](blind)
    assert await keyspace(sessions.link) == before


#: Each needs the zset of lifetimes, which the narrow user cannot see.
LIFETIMES: dict[str, Callable[[Sessions], Awaitable[object]]] = {
    "create": lambda sessions: sessions.create(
        session_id(4), document_of({"near": 1}), user=None, disable_task_tracking=False, ttl=50
    ),
    "create, in the place of one that is over": lambda sessions: add(sessions, 3, {"near": 1}),
    "patch, which gives a lifetime": lambda sessions: sessions.patch(TWO, document_of({}), ttl=50),
    "patch, which takes it": lambda sessions: sessions.patch(ONE, document_of({}), ttl=0),
    "replace, which gives a lifetime": lambda sessions: sessions.replace(TWO, document_of({"near": 2}), ttl=50),
    "delete": lambda sessions: sessions.delete(ONE),
    "expire": lambda sessions: sweep.expire(sessions.link, sessions.all_partitions[0], [THREE]),
}


@pytest.mark.parametrize("write", LIFETIMES)
async def test_so_is_one_that_cannot_reach_the_ends_of_lifetimes(sessions: Sessions, empty_redis: str, write: str) -> None:
    for number in (1, 2, 3):
        await add(sessions, number, {"near": 1})
    await sessions.patch(ONE, document_of({}), ttl=1000)
    await lapse(sessions, THREE)
    partition = sessions.all_partitions[0]
    before = await keyspace(sessions.link)
    seen = [partition.prefix + name for name in ("session:*", "sessions", "state", "*:near=*")]
    async with within_reach(sessions.link, empty_redis, *seen) as narrow:
        blind = Sessions(narrow, PROJECT, Limits(), 1, 4)
        # What does not touch a lifetime does not need it.
        await blind.patch(ONE, document_of({"near": 2}))
        await blind.patch(ONE, document_of({"near": 1}))
        after = await keyspace(sessions.link)
        with pytest.raises(StoreUnavailable):
            await LIFETIMES[write](blind)
    assert await keyspace(sessions.link) == after
    assert {*after} == {*before}
