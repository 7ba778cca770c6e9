"""Two projects with the same users and, where possible, the same ids: no request of one reads or changes the other.

Whatever a client does with another project's ids, ETags, cursors, users and filters, the other project stays the same to the
last byte in Redis, and no response contains anything of it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from service.http.api.routes import ROUTES
from service.settings import API_PREFIX
from tests.support.http import Api, Response, user_path

USERS = ["alice", "bob/..", "*"]


@dataclass
class Side:
    """One project, and everything that another client could know of it."""

    api: Api
    redis: Any
    #: Part of every value in its configs, and of nothing else.
    mark: str = field(default_factory=lambda: f"mark-{uuid4()}")

    def configs(self, number: int) -> dict[str, object]:
        return {"agent": f"bot{number}", "same": 1, "mark": self.mark, "tags": [self.mark, "t"], "deep": {"mark": self.mark}}

    def fill(self) -> None:
        for number in range(6):
            self.api.new(self.configs(number), user=USERS[number % len(USERS)])
        self.api.call("PATCH", "/project/configs", {"mark": self.mark})

    def redis_contents(self) -> dict[bytes, bytes]:
        """All of its keys and values in Redis."""
        slug = self.api.project.slug
        keys = [*self.redis.scan_iter(f"scc:{{{slug}}}:*", 1000), *self.redis.scan_iter(f"scc:{{{slug}.*}}:*", 1000)]
        return {key: self.redis.dump(key) for key in keys}

    def api_contents(self) -> list[bytes]:
        """All of its data as the API returns it."""
        lists = ["/session?limit=200", "/session?limit=200&time_desc=true", "/user/ls", "/project/configs",
                 '/session?filter_by_configs={"same":1}', *(user_path(user) + "/resources" for user in USERS)]  # fmt: skip
        ids = [session["id"] for session in self.api.page(limit=200)["items"]]
        return [self.api.send("GET", path).raw for path in [*lists, *(f"/session/{session_id}" for session_id in ids)]]

    def references(self) -> dict[str, Any]:
        page, users = self.api.page(limit=2), self.api.call("GET", "/user/ls", query={"limit": 1}).data
        ids = [session["id"] for session in self.api.page(limit=200)["items"]]
        return {"ids": ids, "etags": [self.api.get(session_id).etag for session_id in ids[:4]],
                "cursor": page.get("next_cursor", ""), "user_cursor": users.get("next_cursor", ""),
                "user_ids": [user["id"] for user in users["items"]]}  # fmt: skip


Step = Callable[[Side, Mapping[str, Any], int], Response]


def call(method: str, path: str, *, body: Any = None, header: str = "", query: Any = None) -> Step:  # noqa: ANN401
    """A step that sends this request. Braces and functions are filled in with references to the other project."""

    def step(side: Side, references: Mapping[str, Any], number: int) -> Response:
        session_id = references["ids"][number % len(references["ids"])]
        filled = path.replace("{session_id}", session_id).replace("{identifier}", user_path(USERS[number % 3])[len("/user/") :])
        headers = {header: references["etags"][number % len(references["etags"])]} if header else {}
        sent = None if body is None else json.dumps(body(side, session_id, number) if callable(body) else body).encode()
        parameters = query(references) if callable(query) else query
        return side.api.send(method, filled, sent, headers, query=parameters)

    return step


def changed(side: Side, _: str, number: int) -> object:
    return {"configs": side.configs(number) | {"n": number}}


STEPS: dict[str, list[Step]] = {
    "GET /ping": [call("GET", "/ping")],
    "POST /session": [
        call("POST", "/session", body=lambda side, used, number: {"use_uuid": used, "configs": side.configs(number)}),
        call("POST", "/session", body=lambda side, _, number: {"user": USERS[number % 3], "configs": side.configs(number)}),
    ],
    "GET /session": [
        call("GET", "/session", query=lambda ref: {"cursor": ref["cursor"], "limit": 200}),
        call("GET", "/session", query=lambda ref: {"cursor": ref["cursor"], "time_desc": "true", "user": "alice"}),
        call("GET", "/session", query={"filter_by_configs": '{"same":1}', "limit": 200}),
        call("GET", "/session", query={"filter_by_configs": '{"deep":{}}', "user": "*"}),
    ],
    "GET /session/{session_id}": [call("GET", "/session/{session_id}", header="If-None-Match")],
    "DELETE /session/{session_id}": [
        call("DELETE", "/session/{session_id}"), call("DELETE", "/session/{session_id}", header="If-Match"),
    ],
    "GET /session/{session_id}/configs": [call("GET", "/session/{session_id}/configs", header="If-None-Match")],
    "PUT /session/{session_id}/configs": [
        call("PUT", "/session/{session_id}/configs", body=changed),
        call("PUT", "/session/{session_id}/configs", body=changed, header="If-Match"),
    ],
    "PATCH /session/{session_id}/configs": [
        call("PATCH", "/session/{session_id}/configs", body=changed),
        call("PATCH", "/session/{session_id}/configs", body={"configs": {"mark": None}}, header="If-Match"),
    ],
    "POST /session/{session_id}/copy": [call("POST", "/session/{session_id}/copy")],
    "GET /user/ls": [call("GET", "/user/ls", query=lambda ref: {"cursor": ref["user_cursor"]}), call("GET", "/user/ls")],
    "DELETE /user/{identifier}": [call("DELETE", "/user/{identifier}")],
    "GET /user/{identifier}/resources": [call("GET", "/user/{identifier}/resources")],
    "GET /project/configs": [call("GET", "/project/configs")],
    "PATCH /project/configs": [call("PATCH", "/project/configs", body=lambda side, _, number: {f"k{number}": side.mark})],
}  # fmt: skip


@pytest.fixture
def sides(api: Api, other: Api) -> Iterator[tuple[Side, Side]]:
    with Redis.from_url(api.server.redis_url) as redis:
        sides = Side(api, redis), Side(other, redis)
        for side in sides:
            side.fill()
        yield sides


def test_every_route_has_a_step() -> None:
    routes = [route for route in ROUTES if route.path.startswith(API_PREFIX)]
    assert set(STEPS) == {f"{route.method} {route.path.removeprefix(API_PREFIX)}" for route in routes}


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.sampled_from([step for each in STEPS.values() for step in each]), st.integers(0, 11)),
        min_size=5,
        max_size=25,
    )
)
def test_no_request_of_one_project_shows_or_changes_another(
    sides: tuple[Side, Side], steps: list[tuple[bool, Step, int]]
) -> None:
    for first, step, number in steps:
        acting, watched = sides if first else sides[::-1]
        if not watched.api.ids():
            watched.fill()
        references, in_redis, in_api = watched.references(), watched.redis_contents(), watched.api_contents()
        response = step(acting, references, number)
        assert watched.mark not in response.raw.decode()
        assert watched.api.project.id not in response.raw.decode()
        assert not any(user in response.raw.decode() for user in references["user_ids"])
        assert watched.redis_contents() == in_redis
        assert watched.api_contents() == in_api


def test_the_oracle_notices_a_change(sides: tuple[Side, Side]) -> None:
    side, _ = sides
    in_redis, in_api = side.redis_contents(), side.api_contents()
    assert (side.redis_contents(), side.api_contents()) == (in_redis, in_api)
    assert len(in_redis) > 20
    side.api.patch(side.api.ids()[0], {"n": 1})
    assert side.redis_contents() != in_redis
    assert side.api_contents() != in_api


def test_two_projects_can_use_the_same_id(sides: tuple[Side, Side]) -> None:
    first, second = sides
    taken = first.api.ids()[0]
    before = first.api.get(taken)
    theirs = second.api.create(use_uuid=taken, configs={"mine": 1})
    assert (theirs["id"], theirs["configs"]) == (taken, {"mine": 1})
    assert first.api.get(taken).raw == before.raw
    # The ETag of one is not that of the other, which was created at another time.
    assert second.api.put(taken, {}, 412, {"If-Match": before.etag}).msg
    second.api.delete(taken)
    assert first.api.get(taken).raw == before.raw
