"""A client of the API that checks every answer's envelope, and an operator who makes projects in the server's Redis."""

import asyncio
import http.client
import itertools
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlencode

from service.errors import reasons
from service.redis_client.client import RedisClient
from service.settings import Settings
from service.store.projects import Registry
from service.store.record import Project
from service.store.sessions import Sessions
from service.store.upkeep.partition_check import Check
from service.store.verify import Finding
from tests.support.openapi import description
from tests.support.server import PATIENCE, Server, Serving

#: Connections of one client: enough that they hardly all lead to one worker.
CONNECTIONS = 4

#: The words that an error can give as its reason.
REASONS = {word for words in reasons().values() for word in words}

_PREFIX = "/api/v1"
_PLAIN_MESSAGES = {"", "ok", "pong"}
_REQUEST_ID = re.compile(r"[0-9a-f]{32}")

JSON = "application/json"


@dataclass(frozen=True)
class Response:
    """An answer whose outline has been checked."""

    status: int
    headers: Message
    raw: bytes

    @cached_property
    def body(self) -> Any:  # noqa: ANN401 - JSON is any value
        return json.loads(self.raw)

    @property
    def data(self) -> Any:  # noqa: ANN401 - JSON is any value
        return self.body["data"]

    @property
    def msg(self) -> str:
        return str(self.body["msg"])

    @property
    def reason(self) -> str:
        """The word that distinguishes an error from others of its status."""
        return str(self.body["reason"])

    @property
    def etag(self) -> str:
        return str(self.headers["ETag"])

    @property
    def raw_configs(self) -> bytes:
        """The configs as they came over the wire."""
        text = self.raw.decode().partition('"configs":')[2]
        return text[: json.JSONDecoder().raw_decode(text)[1]].encode()


def check_envelope(answer: Response, *, request_id: str = "", has_body: bool = True) -> None:
    """What holds for every answer."""
    actual = answer.headers["X-Request-Id"]
    assert actual == request_id if request_id else _REQUEST_ID.fullmatch(actual)
    if answer.status == http.HTTPStatus.NOT_MODIFIED:
        assert answer.raw == b""
        return
    assert answer.headers["Content-Type"] == JSON
    if not has_body:
        assert answer.raw == b""
        return
    body = answer.body
    assert list(body)[:2] == ["code", "msg"]
    if answer.status < http.HTTPStatus.BAD_REQUEST:
        assert set(body) <= {"code", "msg", "data"}
        assert body["code"] == 0
        assert body["msg"] in _PLAIN_MESSAGES
        return
    assert set(body) <= {"code", "msg", "reason", "error"}
    assert body["reason"] in REASONS
    assert body["code"] == answer.status
    assert body["msg"] == body["msg"].strip() != ""
    assert body.get("error", "detail") != ""
    said = f"{body['msg']} {body.get('error', '')}"
    assert not re.search(r"Traceback|\.py\b|redis|lua|orjson|msgspec|aiohttp|scc:", said, re.IGNORECASE), said


class Api:
    """One project, seen over HTTP. Paths are sent as they are, so a test decides how they are encoded."""

    def __init__(self, server: Server, key: str, project: Project) -> None:
        self.server, self.key, self.project = server, key, project
        host = server.origin.removeprefix("http://")
        self._all = [http.client.HTTPConnection(host, timeout=PATIENCE) for _ in range(CONNECTIONS)]
        self._connections = itertools.cycle(self._all)

    def close(self) -> None:
        for connection in self._all:
            connection.close()

    def send(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        query: Mapping[str, object] | None = None,
        prefix: str = _PREFIX,
    ) -> Response:
        """Send exactly this, with the project's key; an iterable body goes in chunks. The answer may be any."""
        wanted = {"Authorization": f"Bearer {self.key}"} | dict(headers or {})
        # An empty value leaves a header out.
        wanted = {name: value for name, value in wanted.items() if value}
        target = prefix + path + (f"?{urlencode(query)}" if query else "")
        connection = next(self._connections)
        connection.request(method, target, body, wanted, encode_chunked=not isinstance(body, bytes | None))
        response = connection.getresponse()
        answer = Response(response.status, response.msg, response.read())
        check_envelope(answer, request_id=wanted.get("X-Request-Id", ""), has_body=method != "HEAD")
        description(self.server.origin).check(method, target, answer.status, answer.headers, answer.raw)
        return answer

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
    ) -> Response:
        """Send `body` as JSON (bytes go as they are) and expect `status`."""
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        kind = {} if raw is None else {"Content-Type": JSON}
        answer = self.send(method, path, raw, kind | dict(headers or {}), query=query)
        assert answer.status == status, answer.raw
        return answer

    def create(self, **members: object) -> dict[str, Any]:
        """POST /session."""
        session: dict[str, Any] = self.call("POST", "/session", members, 201).data
        return session

    def new(self, configs: object = None, user: str | None = None) -> str:
        """The id of a new session."""
        members = {"configs": configs, "user": user}
        return str(self.create(**{name: value for name, value in members.items() if value is not None})["id"])

    def get(self, session_id: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        return self.call("GET", f"/session/{session_id}", status=status, headers=headers)

    def put(self, session_id: str, configs: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        return self.call("PUT", f"/session/{session_id}/configs", {"configs": configs}, status, headers)

    def patch(self, session_id: str, configs: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        return self.call("PATCH", f"/session/{session_id}/configs", {"configs": configs}, status, headers)

    def delete(self, session_id: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        return self.call("DELETE", f"/session/{session_id}", status=status, headers=headers)

    def page(self, **query: object) -> Any:  # noqa: ANN401 - JSON is any value
        """One page of GET /session."""
        return self.call("GET", "/session", query=query).data

    def refusal(self, **query: object) -> str:
        """The sentence with which GET /session refuses a query with 400."""
        return self.call("GET", "/session", status=400, query=query).msg

    def ids(self, **query: object) -> list[str]:
        """The ids of all sessions that a query lists, page by page."""
        ids: list[str] = []
        while True:
            page = self.page(**query)
            ids += [session["id"] for session in page["items"]]
            if not page["has_more"]:
                return ids
            query["cursor"] = page["next_cursor"]

    def matching(self, wanted: object, **query: object) -> list[str]:
        """The ids of the sessions whose configs contain `wanted`."""
        return self.ids(filter_by_configs=json.dumps(wanted), **query)


def api_on(serving: Serving) -> Api:
    """The default project on a server that knows the key sk-ac-root-of-the-tests."""
    return Api(serving.server("sk-ac-root-of-the-tests"), "sk-ac-root-of-the-tests", Project("default", ""))


def user_path(identifier: str) -> str:
    """The path of a user, encoded as SDKs do it, and the dots too, which some clients take for directories."""
    return "/user/" + quote(identifier, safe="").replace(".", "%2E")


class Operator:
    """Works on the server's Redis, as the command line does."""

    def __init__(self, server: Server) -> None:
        # A loop of its own making leaves alone the one that asynchronous tests run in.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.server = server
        self._redis = RedisClient.open(server.redis_url, timeout=PATIENCE)
        self.registry = Registry(self._redis, (server.data_dir / "key-secret").read_text(encoding="utf-8").strip())

    def close(self) -> None:
        self._runner.run(self._redis.close())
        self._runner.close()

    def new_project(self, slug: str = "") -> Api:
        project, key = self._runner.run(self.registry.create(slug or f"test-{secrets.token_hex(8)}"))
        return Api(self.server, key, project)

    def with_new_key(self, api: Api) -> Api:
        """The same project, with another key."""
        return Api(self.server, self._runner.run(self.registry.api_keys.add(api.project)), api.project)

    def delete(self, project: Project) -> None:
        """Delete a project without waiting until the workers have forgotten its keys."""
        settings = Settings()
        self._runner.run(self.registry.api_keys.revoke(project))
        self._runner.run(self.registry.delete(Sessions(self._redis, project, settings, settings.partitions)))

    def revoke_keys(self, project: Project) -> None:
        self._runner.run(self.registry.api_keys.revoke(project))

    def keys(self, project: Project) -> list[str]:
        """Every key of a project."""
        pattern = f"scc:{{{project.slug}[.}}]*"
        return [key.decode() for key in self._runner.run(self._redis.call("KEYS", pattern))]

    def findings(self, project: Project) -> list[Finding]:
        """What `check` finds wrong with the index of a project."""
        return self._runner.run(self._findings(project))

    async def _findings(self, project: Project) -> list[Finding]:
        settings = Settings()
        sessions = Sessions(self._redis, project, settings, settings.partitions)
        return [finding for partition in sessions.all_partitions async for finding in Check(self._redis, partition).findings()]
