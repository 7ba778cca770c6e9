"""Many clients write one session through the server and its workers: no write is lost, and none is applied in part."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from tests.support.http import Api, Operator

CLIENTS, PATCHES = 64, 50
RACERS, ROUNDS = 16, 40
COUNTERS, INCREMENTS = 16, 8


class Client:
    """Requests to one project, as many at a time as there are callers."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def call(self, method: str, path: str, body: object = None, if_match: str = "") -> tuple[int, Any, str]:
        """Status, data and ETag of an answer."""
        headers = {"If-Match": if_match} if if_match else {}
        async with self._http.request(method, f"/api/v1{path}", json=body, headers=headers) as response:
            answer = await response.json()
            return response.status, answer.get("data"), response.headers.get("ETag", "")


@pytest.fixture
async def client(api: Api) -> AsyncIterator[Client]:
    """A client with a connection for each caller."""
    async with aiohttp.ClientSession(
        api.server.origin,
        headers={"Authorization": f"Bearer {api.key}"},
        connector=aiohttp.TCPConnector(limit=CLIENTS),
    ) as http:
        yield Client(http)


async def check(operator: Operator, api: Api) -> None:
    """Check that the index is correct."""
    # In a thread, because the operator has its own event loop.
    assert await asyncio.to_thread(operator.findings, api.project) == []


async def test_concurrent_patches_of_one_session_are_all_applied(api: Api, client: Client, operator: Operator) -> None:
    session_id = api.new({"untouched": {"n": 1.0}})

    async def patch_own_keys(number: int) -> None:
        for count in range(PATCHES):
            # Two keys are set, and one is set every second time.
            odd = count if count % 2 else None
            changes = {f"last-{number}": count, f"tag-{number}": f"{number}.{count}", f"odd-{number}": odd}
            status, data, _ = await client.call("PATCH", f"/session/{session_id}/configs", {"configs": changes})
            assert status == 200
            wanted = {key: value for key, value in changes.items() if value is not None}
            assert wanted.items() <= data["configs"].items()

    await asyncio.gather(*(patch_own_keys(number) for number in range(CLIENTS)))
    session = api.get(session_id).data
    assert session["revision"] == 1 + CLIENTS * PATCHES
    last = PATCHES - 1
    assert session["configs"] == {"untouched": {"n": 1.0}} | {
        key: value
        for number in range(CLIENTS)
        for key, value in ((f"last-{number}", last), (f"tag-{number}", f"{number}.{last}"), (f"odd-{number}", last))
    }
    for number in (0, CLIENTS - 1):
        assert api.matching({f"last-{number}": last, f"odd-{number}": last}) == [session_id]
        assert api.matching({f"last-{number}": last - 1}) == []
    await check(operator, api)


def whole(configs: dict[str, Any] | None) -> bool:
    """Whether configs come from one writer: its mark is in every part."""
    return configs is not None and len({str(configs["a"]), str(configs["b"]["mark"]), str(configs["c"][0])}) == 1


def marked(mark: int) -> dict[str, object]:
    return {"a": mark, "b": {"mark": mark, "none": None}, "c": [mark]}


async def test_concurrent_writes_of_all_kinds_leave_a_complete_session_or_none(
    api: Api, client: Client, operator: Operator
) -> None:
    session_id = str(uuid4())
    path = f"/session/{session_id}"

    async def create(mark: int) -> set[int]:
        body = {"use_uuid": session_id, "user": f"user{mark % 3}", "configs": marked(mark)}
        status, data, _ = await client.call("POST", "/session", body)
        assert whole(data["configs"])
        return {status} - {200, 201}

    async def replace(mark: int) -> set[int]:
        return {(await client.call("PUT", f"{path}/configs", {"configs": marked(mark)}))[0]} - {200, 404}

    async def patch(mark: int) -> set[int]:
        status, data, _ = await client.call("PATCH", f"{path}/configs", {"configs": marked(mark)})
        assert status == 404 or whole(data["configs"])
        return {status} - {200, 404}

    async def delete(_: int) -> set[int]:
        return {(await client.call("DELETE", path))[0]} - {200, 404}

    async def delete_user(mark: int) -> set[int]:
        return {(await client.call("DELETE", f"/user/user{mark % 3}"))[0]} - {200}

    async def read(_: int) -> set[int]:
        status, data, _etag = await client.call("GET", path)
        assert status == 404 or whole(data["configs"])
        return {status} - {200, 404}

    async def find(mark: int) -> set[int]:
        status, data, _ = await client.call("GET", f'/session?filter_by_configs={{"a":{mark - 1}}}')
        assert all(whole(session["configs"]) and session["configs"]["a"] == mark - 1 for session in data["items"])
        return {status} - {200}

    kinds: list[Callable[[int], Awaitable[set[int]]]] = [
        create, create, create, replace, replace, patch, patch, delete, delete_user, read, find,
    ]  # fmt: skip

    async def race(number: int) -> None:
        chance = Random(number)
        for step in range(ROUNDS):
            assert await chance.choice(kinds)(number * ROUNDS + step) == set()

    for _ in range(3):
        await asyncio.gather(*(race(number) for number in range(RACERS)))
        await check(operator, api)
        listed = api.ids()
        assert listed in ([], [session_id])
        if listed:
            session = api.get(session_id).data
            assert whole(session["configs"])
            assert api.matching(session["configs"]) == [session_id]
    api.send("DELETE", path)
    assert api.ids() == api.matching({"b": {"none": None}}) == []
    await check(operator, api)


async def test_concurrent_creates_with_one_id_create_one_session(api: Api, client: Client, operator: Operator) -> None:
    session_id = str(uuid4())
    bodies = [{"use_uuid": session_id, "configs": {"by": number}} for number in range(CLIENTS)]
    answers = await asyncio.gather(*(client.call("POST", "/session", body) for body in bodies))
    assert sorted(status for status, *_ in answers) == [200] * (CLIENTS - 1) + [201]
    assert len({(data["configs"]["by"], data["revision"], etag) for _, data, etag in answers}) == 1
    assert api.ids() == [session_id]
    await check(operator, api)


async def test_if_match_loops_lose_no_increment(api: Api, client: Client) -> None:
    session_id = api.new({"n": 0})
    path = f"/session/{session_id}"
    refused = 0

    async def increment(method: str) -> None:
        nonlocal refused
        for _ in range(INCREMENTS):
            while True:
                _, session, etag = await client.call("GET", path)
                body = {"configs": {"n": session["configs"]["n"] + 1}}
                status, *_ = await client.call(method, f"{path}/configs", body, etag)
                if status == 200:
                    break
                assert status == 412
                refused += 1

    await asyncio.gather(*(increment("PUT" if number % 2 else "PATCH") for number in range(COUNTERS)))
    session = api.get(session_id).data
    assert session["configs"] == {"n": COUNTERS * INCREMENTS}
    assert session["revision"] == 1 + COUNTERS * INCREMENTS
    # The clients have competed: otherwise this test proves nothing.
    assert refused > 0


async def test_concurrent_copies_of_one_session_leave_a_correct_index(api: Api, client: Client, operator: Operator) -> None:
    source = api.new({"kind": "source", "tags": ["a", "b"]}, user="alice")

    async def copy_and_change(number: int) -> None:
        _, data, _ = await client.call("POST", f"/session/{source}/copy")
        new = data["new_session_id"]
        await client.call("PATCH", f"/session/{new}/configs", {"configs": {"kind": "copy", "n": number}})
        if number % 4 == 0:
            await client.call("DELETE", f"/session/{new}")

    await asyncio.gather(*(copy_and_change(number) for number in range(CLIENTS)))
    assert len(api.matching({"kind": "copy", "tags": ["a"]}, user="alice", limit=200)) == CLIENTS * 3 // 4
    assert api.matching({"kind": "source"}) == [source]
    await check(operator, api)
    _, page, _ = await client.call("GET", "/user/alice/resources")
    assert page["counts"]["sessions_count"] == 1 + CLIENTS * 3 // 4
