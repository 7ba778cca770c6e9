"""Lists that could block a worker for everybody: the cost of each is bounded, counted in steps, not in seconds."""

import asyncio
import json
import socket
import struct
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from redis import Redis

from service.redis_client.client import RedisClient
from service.settings import Settings
from service.store.sessions import Sessions
from tests.support.filling import pour
from tests.support.http import Api, Operator
from tests.support.raw_http import connect, conversation, head
from tests.support.server import PATIENCE

LIMITS = Settings()
#: An array of arrays that nearly fills a session.
LONG = [[0]] * 50_000 + [[1]]
#: More sessions than a page may examine.
MANY = LIMITS.max_list_candidates + 500


def test_equal_elements_of_a_filter_are_compared_once_and_a_page_ends_at_the_comparison_limit(api: Api) -> None:
    names = [api.new({"a": LONG}) for _ in range(3)]
    query = {"filter_by_configs": json.dumps({"a": [[1]] * 62}), "limit": 20}
    page = api.page(**query)
    # One session takes 100,000 comparisons, two exceed the limit.
    assert [session["id"] for session in page["items"]] == names[:1]
    assert page["has_more"]
    assert api.ids(**query) == names


def test_a_session_that_alone_exceeds_the_comparison_limit_gets_422_with_advice(api: Api) -> None:
    api.new({"a": LONG})
    # All different, with terms that the session has: the index cannot exclude the session.
    different = [[1, []], [1, {}], [1, [], {}], [1, [[]]], [1, [{}]]]
    response = api.call("GET", "/session", status=422, query={"filter_by_configs": json.dumps({"a": different})})
    assert response.msg.startswith("comparing filter_by_configs with the arrays of a session takes too many steps; use fewer")
    # The comparison is refused, not the filter.
    assert api.ids(filter_by_configs=json.dumps({"a": different, "b": 1})) == []


@pytest.fixture(scope="module")
def crowd(operator: Operator) -> Iterator[Api]:
    """A project with many small sessions. Read only."""
    api = operator.new_project()

    async def fill() -> None:
        redis = RedisClient.open(api.server.redis_url, timeout=PATIENCE)
        try:
            await pour(Sessions(redis, api.project, LIMITS, LIMITS.partitions), [{"n": 1}] * MANY)
        finally:
            await redis.close()

    asyncio.run(fill())
    yield api
    api.close()


NOBODY = quote('{"nobody":{}}')


def reads(redis: Redis) -> int:
    """How many sessions have been read since Redis started."""
    return int(redis.info("commandstats").get("cmdstat_hmget", {"calls": 0})["calls"])


@pytest.mark.parametrize("time_desc", ["false", "true"])
def test_a_list_without_an_index_examines_a_limited_number_of_sessions_per_page(crowd: Api, time_desc: str) -> None:
    with Redis.from_url(crowd.server.redis_url) as redis:
        before = reads(redis)
        first = crowd.page(filter_by_configs='{"nobody":{}}', time_desc=time_desc)
        assert (first["items"], first["has_more"]) == ([], True)
        assert reads(redis) - before <= LIMITS.max_list_candidates + 256
    second = crowd.page(filter_by_configs='{"nobody":{}}', time_desc=time_desc, cursor=first["next_cursor"])
    assert (second["items"], second["has_more"]) == ([], False)


def disconnect(connection: socket.socket, *, reset: bool) -> None:
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("reset", [True, False])
def test_a_list_stops_when_its_client_disconnects(crowd: Api, reset: bool) -> None:
    clients = 40
    with Redis.from_url(crowd.server.redis_url) as redis:
        before = reads(redis)
        connections = [connect(crowd) for _ in range(clients)]
        for connection in connections:
            connection.sendall(head(crowd, f"GET /api/v1/session?filter_by_configs={NOBODY} HTTP/1.1"))
        for connection in connections:
            disconnect(connection, reset=reset)
        last = -1
        while last != (last := reads(redis)):
            time.sleep(0.3)
        # Without disconnects they would read 400,000.
        assert last - before < clients * LIMITS.max_list_candidates / 2
    assert crowd.page(limit=1)["has_more"]


def test_a_client_that_closes_its_sending_side_gets_its_list(api: Api) -> None:
    names = [api.new({"n": number}) for number in range(3)]
    for query in ("", "?filter_by_configs=" + quote('{"nobody":{}}')):
        (response,) = conversation(api, head(api, f"GET /api/v1/session{query} HTTP/1.1"))
        assert response.status == 200
        assert [session["id"] for session in response.data["items"]] == ([] if query else names)


def test_a_page_of_large_sessions_has_a_size_limit_and_the_next_page_continues(api: Api) -> None:
    names = [api.new({"big": "x" * 250_000}) for _ in range(20)]
    page = api.page(limit=200)
    assert page["has_more"]
    assert 0 < sum(len(session["configs"]["big"]) for session in page["items"]) <= LIMITS.max_page_bytes
    assert len(page["items"]) == LIMITS.max_page_bytes // 250_012
    assert api.ids(limit=200) == names
    assert api.ids(limit=200, time_desc="true") == names[::-1]
