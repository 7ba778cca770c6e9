"""What a caller holds is freed when it returns, without the garbage collector, whatever Redis replied.

A worker's garbage collector runs seldom. An error that is held by one of the frames that it passed through keeps all of them in
memory until then: the pages of 60 lists that found a script forgotten, for example.
"""

import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from service.errors import ServiceError
from service.redis_client.client import RedisClient, checked
from service.store.scripts import Call, Script, run_many
from tests.support.fake_redis import fake_redis

SCRIPT = Script("one", "return 1", "sha of one", ("key",), ())
Request = Callable[[RedisClient], Awaitable[object]]


class Page:
    """Something large that a caller holds."""


@pytest.fixture
def no_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def run_script(redis: RedisClient) -> object:
    return await Call(SCRIPT, ["a"], [], int).run(redis)


async def run_scripts(redis: RedisClient) -> object:
    return await run_many(redis, [Call(SCRIPT, [key], [], int) for key in ("a", "b")])


async def get(redis: RedisClient) -> object:
    return await redis.call("GET", "a")


async def get_two(redis: RedisClient) -> object:
    return checked(await redis.batch([("GET", "a"), ("GET", "b")]))


@pytest.mark.usefixtures("no_garbage_collector")
@pytest.mark.parametrize("request_of", [run_script, run_scripts, get, get_two])
@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(b"-NOSCRIPT No matching script\r\n", b":1\r\n", id="forgotten script"),
        pytest.param(b"-NOSCRIPT No matching script\r\n", b"-OOM full\r\n", id="forgotten script, then full"),
        pytest.param(None, b":1\r\n", id="lost connection, retried"),
        pytest.param(None, None, id="lost connection"),
        pytest.param(b"-WRONGTYPE not a string\r\n", b"-WRONGTYPE not a string\r\n", id="error"),
        pytest.param(b"-LOADING busy\r\n", b":1\r\n", id="loading, retried"),
        pytest.param(b"-OOM full\r\n", b"-OOM full\r\n", id="full"),
    ],
)
async def test_a_caller_frees_what_it_holds(
    tmp_path: Path, request_of: Request, first: bytes | None, then: bytes | None
) -> None:
    replies = iter([first])
    held: list[weakref.ref[Page]] = []

    async def caller(redis: RedisClient) -> None:
        page = Page()
        held.append(weakref.ref(page))
        with suppress(ServiceError, RedisError):
            await request_of(redis)

    async with fake_redis(tmp_path, lambda _: next(replies, then)) as url:
        redis = RedisClient.open(url, timeout=1.0)
        try:
            await caller(redis)
        finally:
            await redis.close()
    assert [page() for page in held] == [None]
