"""Acontext's Python SDK, unchanged, sync and async: every call, and every example of its page on session configs."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from acontext import AcontextAsyncClient, AcontextClient
from acontext.errors import APIError
from acontext.event import TextEvent
from acontext.resources.sessions import SessionsAPI

from tests.support.http import REASONS, Api

Sdk = AcontextClient | AcontextAsyncClient
T = TypeVar("T")


@pytest.fixture(params=["sync", "async"])
async def sdk(request: pytest.FixtureRequest, api: Api, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sdk]:
    """A client of a new project."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # httpx would use a proxy
    if request.param == "sync":
        with AcontextClient(base_url=api.server.base_url, api_key=api.key) as client:
            yield client
    else:
        async with AcontextAsyncClient(base_url=api.server.base_url, api_key=api.key) as client:
            yield client


async def done(result: T | Awaitable[T]) -> T:
    """What a call of either client returns."""
    return await result if inspect.isawaitable(result) else result


async def returns_nothing(result: object) -> bool:
    """Whether a call of either client returns None."""
    return (await result if inspect.isawaitable(result) else result) is None


async def ids(sdk: Sdk, **query: Any) -> list[str]:  # noqa: ANN401 - the SDK's parameters differ
    return [session.id for session in (await done(sdk.sessions.list(**query))).items]


# The examples of https://docs.acontext.io on session configs, in their order.


async def test_create_replace_patch_and_read_configs_as_the_page_shows(sdk: Sdk) -> None:
    session = await done(sdk.sessions.create(configs={"agent": "bot1", "temperature": 0.7, "old_key": "x"}))
    assert session.configs == {"agent": "bot1", "temperature": 0.7, "old_key": "x"}

    # update_configs replaces all configs: other keys are dropped; it returns nothing.
    replaced = {"agent": "bot1", "model": "gpt-4", "old_key": "y", "settings": {"a": 1, "b": None}}
    assert await returns_nothing(sdk.sessions.update_configs(session.id, configs=replaced))
    assert (await done(sdk.sessions.get_configs(session.id))).configs == replaced

    # patch_configs adds, replaces, deletes on None, keeps the rest, and returns all configs.
    changes = {"agent": "bot2", "temperature": 0.8, "old_key": None, "settings": {"a": 2}}
    merged = await done(sdk.sessions.patch_configs(session.id, configs=changes))
    assert merged == {"agent": "bot2", "model": "gpt-4", "settings": {"a": 2}, "temperature": 0.8}
    after = await done(sdk.sessions.get_configs(session.id))
    assert (after.id, after.configs) == (session.id, merged)


async def test_lists_are_filtered_by_configs_as_the_page_shows(sdk: Sdk) -> None:
    create = sdk.sessions.create
    configs = {"agent": "bot1", "env": "prod", "runtime": {"name": "r1", "version": "2.0"}}
    both = (await done(create(user="alice", configs=configs))).id
    one = (await done(create(user="bob", configs={"agent": "bot1", "env": "dev", "count": 1}))).id
    other = (await done(create(user="alice", configs={"Agent": "bot1", "agent": "bot2", "count": "1"}))).id
    null = (await done(create(user="alice"))).id

    # by one key, by several, by a nested object, by user and filter together
    assert await ids(sdk, filter_by_configs={"agent": "bot1"}) == [both, one]
    assert await ids(sdk, filter_by_configs={"agent": "bot1", "env": "prod"}) == [both]
    assert await ids(sdk, filter_by_configs={"runtime": {"name": "r1", "version": "2.0"}}) == [both]
    assert await ids(sdk, user="alice", filter_by_configs={"agent": "bot1"}) == [both]
    # a partial filter matches, at the top and below
    assert await ids(sdk, filter_by_configs={"env": "dev"}) == [one]
    assert await ids(sdk, filter_by_configs={"runtime": {"name": "r1"}}) == [both]
    # case and type count
    assert await ids(sdk, filter_by_configs={"Agent": "bot1"}) == [other]
    assert await ids(sdk, filter_by_configs={"agent": "Bot1"}) == []
    assert await ids(sdk, filter_by_configs={"count": 1}) == [one]
    assert await ids(sdk, filter_by_configs={"count": "1"}) == [other]
    # null configs are left out of filtered lists only
    assert await ids(sdk, filter_by_configs={"x": None}) == []
    assert await ids(sdk) == await ids(sdk, filter_by_configs={}) == [both, one, other, null]


async def test_a_filter_on_one_spelling_of_a_key_does_not_match_another(sdk: Sdk) -> None:
    await done(sdk.sessions.create(configs={"agent": "x"}))
    assert await ids(sdk, filter_by_configs={"Agent": "x"}) == []
    await done(sdk.sessions.create(configs={"count": "1"}))
    assert await ids(sdk, filter_by_configs={"count": 1}) == []


async def test_a_filter_of_a_thousand_cjk_characters_is_found(sdk: Sdk) -> None:
    text = "".join(chr(0x4E00 + number) for number in range(1000))
    await done(sdk.sessions.create(configs={"text": text[1:]}))
    wanted = (await done(sdk.sessions.create(configs={"text": text}))).id
    assert await ids(sdk, filter_by_configs={"text": text}) == [wanted]


# Every call, with every parameter.


async def test_create_takes_every_parameter(sdk: Sdk, api: Api) -> None:
    uuid = str(uuid4())
    session = await done(
        sdk.sessions.create(user="alice", disable_task_tracking=True, configs={"a": None, "b": [1, {"c": None}]}, use_uuid=uuid)
    )
    assert (session.id, session.project_id, session.disable_task_tracking) == (uuid, api.project.id, True)
    assert session.configs == {"a": None, "b": [1, {"c": None}]}
    assert session.user_id == (await done(sdk.users.list())).items[0].id
    # An id in use returns the existing session.
    assert await done(sdk.sessions.create(use_uuid=uuid.upper(), configs={"z": 1})) == session
    bare = await done(sdk.sessions.create())
    assert (bare.user_id, bare.disable_task_tracking, bare.configs) == (None, False, None)


async def test_list_takes_every_parameter(sdk: Sdk) -> None:
    made = [(await done(sdk.sessions.create(user="alice", configs={"n": number, "odd": number % 2}))).id for number in range(7)]
    await done(sdk.sessions.create(user="bob", configs={"odd": 1}))
    for time_desc, wanted in ((False, made[1::2]), (True, made[1::2][::-1])):
        query: dict[str, Any] = {"user": "alice", "limit": 2, "time_desc": time_desc, "filter_by_configs": {"odd": 1}}
        first = await done(sdk.sessions.list(**query))
        assert ([session.id for session in first.items], first.has_more) == (wanted[:2], True)
        second = await done(sdk.sessions.list(cursor=first.next_cursor, **query))
        assert ([session.id for session in second.items], second.has_more, second.next_cursor) == (wanted[2:], False, None)


async def test_delete_and_copy(sdk: Sdk) -> None:
    session = await done(sdk.sessions.create(user="alice", configs={"a": 1}))
    result = await done(sdk.sessions.copy(session.id))
    assert result.old_session_id == session.id != result.new_session_id
    assert await returns_nothing(sdk.sessions.delete(session.id))
    assert await ids(sdk, user="alice") == [result.new_session_id]
    assert (await done(sdk.sessions.get_configs(result.new_session_id))).configs == {"a": 1}


@pytest.mark.parametrize("name", ["alice", "alice@example.com", "a/b c+d", "%2F", "?#", "😀"])
async def test_users_are_listed_counted_and_deleted(sdk: Sdk, name: str) -> None:
    for user in (name, "bystander", name):
        await done(sdk.sessions.create(user=user))
    listed = await done(sdk.users.list())
    assert ([user.identifier for user in listed.items], listed.has_more) == ([name, "bystander"], False)
    page = await done(sdk.users.list(limit=1, time_desc=True))
    assert ([user.identifier for user in page.items], page.has_more) == (["bystander"], True)
    page = await done(sdk.users.list(limit=1, time_desc=True, cursor=page.next_cursor))
    assert ([user.identifier for user in page.items], page.has_more) == ([name], False)
    counts = (await done(sdk.users.get_resources(name))).counts
    assert (counts.sessions_count, counts.disks_count, counts.skills_count) == (2, 0, 0)
    assert await returns_nothing(sdk.users.delete(name))
    assert await returns_nothing(sdk.users.delete(name))
    assert [user.identifier for user in (await done(sdk.users.list())).items] == ["bystander"]
    assert await ids(sdk, user=name) == []


async def test_project_configs_are_merged(sdk: Sdk) -> None:
    assert (await done(sdk.project.get_configs())).model_dump(exclude_none=True) == {}
    merged = await done(sdk.project.update_configs({"task_success_criteria": "it works", "own": {"a": 1}}))
    assert merged.task_success_criteria == "it works"
    assert merged.model_extra == {"own": {"a": 1}}
    merged = await done(sdk.project.update_configs({"task_success_criteria": None}))
    assert merged == await done(sdk.project.get_configs())
    assert merged.model_dump(exclude_none=True) == {"own": {"a": 1}}


async def test_sessions_with_a_ttl_are_like_any_other(sdk: Sdk) -> None:
    assert (await done(sdk.project.update_configs({"session_ttl": 3600}))).model_extra == {"session_ttl": 3600}
    session = await done(sdk.sessions.create(user="alice", configs={"a": 1}))
    assert (await done(sdk.sessions.get_configs(session.id))).configs == {"a": 1}
    assert await ids(sdk, user="alice") == [session.id]
    assert await returns_nothing(sdk.sessions.update_configs(session.id, configs={"b": 1}))
    assert await returns_nothing(sdk.sessions.delete(session.id))


async def test_ping(sdk: Sdk) -> None:
    assert await done(sdk.ping()) == "pong"


async def test_refusals_reach_the_caller_with_status_and_message(sdk: Sdk) -> None:
    missing = str(uuid4())

    async def refused(call: Callable[..., object], *arguments: object, **named: object) -> tuple[int, str | None]:
        with pytest.raises(APIError) as error:
            await returns_nothing(call(*arguments, **named))
        assert error.value.code == error.value.status_code
        assert error.value.payload is not None
        assert error.value.payload["reason"] in REASONS
        return error.value.status_code, error.value.message

    not_found = (404, "session not found")
    assert await refused(sdk.sessions.get_configs, missing) == not_found
    assert await refused(sdk.sessions.delete, missing) == not_found
    assert await refused(sdk.sessions.copy, missing) == not_found
    assert await refused(sdk.sessions.update_configs, missing, configs={}) == not_found
    assert await refused(sdk.sessions.patch_configs, missing, configs={}) == not_found
    assert await refused(sdk.sessions.get_configs, "nope") == (400, "invalid session_id")
    assert await refused(sdk.sessions.create, use_uuid="nope") == (400, "invalid UUID format for use_uuid")
    assert await refused(sdk.sessions.list, limit=201) == (400, "limit must be a whole number from 1 to 200")
    assert await refused(sdk.sessions.list, cursor="x") == (400, "invalid cursor")
    assert await refused(sdk.users.get_resources, "nobody") == (404, "user not found")
    assert await refused(sdk.project.update_configs, {}) == (400, "empty body")


# The page's quick start: calls of this service work, and the errors of the others say that they are not served.

NOT_SERVED: list[tuple[str, str, dict[str, Any]]] = [
    ("store_message", "messages are", {"blob": {"role": "user", "content": "hi"}, "format": "openai"}),
    ("get_messages", "messages are", {}),
    ("patch_message_meta", "messages are", {"message_id": str(uuid4()), "meta": {"a": 1}}),
    ("add_event", "events are", {"event": TextEvent(text="x")}),
    ("get_events", "events are", {}),
    ("get_tasks", "tasks are", {}),
    ("get_session_summary", "tasks are", {}),
    ("flush", "flushing messages is", {}),
    ("get_token_counts", "token counts are", {}),
    ("messages_observing_status", "the observing status is", {}),
]


@pytest.mark.parametrize(("call", "start", "named"), NOT_SERVED, ids=[call for call, _, _ in NOT_SERVED])
async def test_a_call_that_is_not_part_of_this_service_says_so(sdk: Sdk, call: str, start: str, named: dict[str, Any]) -> None:
    session = await done(sdk.sessions.create(user="alice@acontext.io"))
    with pytest.raises(APIError) as error:
        await returns_nothing(getattr(sdk.sessions, call)(session.id, **named))
    assert error.value.status_code == error.value.code == 501
    assert str(error.value.message).startswith(f"{start} not part of this service")
    assert error.value.payload is not None
    assert error.value.payload["reason"] == "not_implemented"


async def test_the_other_parts_of_acontext_say_that_they_are_not_served(sdk: Sdk) -> None:
    for call, start in (
        (sdk.disks.list, "disks are"),
        (sdk.disks.create, "disks are"),
        (sdk.skills.list_catalog, "agent skills are"),
        (sdk.sandboxes.create, "sandboxes are"),
        (sdk.learning_spaces.list, "learning spaces are"),
    ):
        with pytest.raises(APIError, match=f"^501: {start} not part of this service"):
            await returns_nothing(call())


def test_every_call_on_sessions_is_served_or_says_that_it_is_not() -> None:
    calls = {name for name, _ in inspect.getmembers(SessionsAPI, inspect.isfunction) if not name.startswith("_")}
    ours = {"list", "create", "delete", "update_configs", "patch_configs", "get_configs", "copy"}
    assert (len(ours), len(calls)) == (7, 17)
    assert calls == ours | {call for call, _, _ in NOT_SERVED}


async def test_users_are_listed_completely_page_by_page(sdk: Sdk, api: Api) -> None:
    names = [f"u{number:03}" for number in range(203)]
    for name in names:
        api.new(user=name)
    first = await done(sdk.users.list())
    assert ([user.identifier for user in first.items], first.has_more) == (names[:200], True)
    rest = await done(sdk.users.list(cursor=first.next_cursor))
    assert ([user.identifier for user in rest.items], rest.has_more) == (names[200:], False)


@pytest.mark.parametrize("name", ["task_success_criteria", "task_failure_criteria"])
@pytest.mark.parametrize("bad", [5, True, {"a": 1}, ["x"], "x" * 2001])
async def test_criteria_that_the_sdk_could_not_read_are_refused(sdk: Sdk, name: str, bad: object) -> None:
    with pytest.raises(APIError, match=f"^400: {name} must be null or a string of at most 2000 bytes"):
        await done(sdk.project.update_configs({name: bad}))
    assert (await done(sdk.project.get_configs())).model_dump(exclude_none=True) == {}


async def test_a_wrong_key_is_401(api: Api) -> None:
    with AcontextClient(base_url=api.server.base_url, api_key="sk-ac-nope") as client, pytest.raises(APIError) as error:
        client.ping()
    assert (error.value.status_code, error.value.message) == (401, "Unauthorized")
