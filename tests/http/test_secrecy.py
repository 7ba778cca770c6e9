"""Neither API keys nor configs are logged, with the access log on and every kind of failure."""

import json
import re
import signal
from collections import Counter
from collections.abc import Iterator
from os import kill
from pathlib import Path
from urllib.parse import quote

import pytest
from redis import Redis

from tests.support.http import Api, api_on
from tests.support.raw_http import conversation, exchange, head
from tests.support.server import Serving, request

#: Part of values, keys, filters and invalid bodies.
VALUE = "value-that-nobody-may-read"


#: `session-configs` with two bugs: counting a user's sessions fails with the user in the message, and a filter with the key
#: "defect" cannot be parsed.
PROGRAM = """
import sys
from service import cli
from service.configs.containment import Filter
from service.store.users import Users

parse = Filter.parse

def parse_or_fail(raw, limits):
    if b"defect" in raw:
        raise LookupError
    return parse(raw, limits)

async def count_sessions(self, identifier):
    raise LookupError(f"no {identifier}")

Filter.parse = parse_or_fail
Users.count_sessions = count_sessions
sys.exit(cli.main())
"""


@pytest.fixture(params=["text", "json"])
def logging(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Serving, Api]]:
    flags = ["--workers", "1", "--access-log", "--command-timeout", "0.2", "--client-timeout", "0.2"]
    flags += ["--log-format", request.param]
    serving = Serving(tmp_path / "data", *flags, program=("-c", PROGRAM), SCC_ROOT_TOKEN="root-of-the-tests").wait_ready()
    api = api_on(serving)
    yield serving, api
    api.close()
    serving.stop()


def requests_in(serving: Serving) -> list[dict[str, str]]:
    """The log's lines of requests, in either format."""
    lines = [line for line in serving.errors.splitlines() if "request_id" in line and "status" in line]
    if lines[0].startswith("{"):
        return [{name: str(value) for name, value in json.loads(line).items()} for line in lines]
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines]


def test_no_key_and_no_config_is_ever_logged(logging: tuple[Serving, Api]) -> None:
    serving, api = logging
    redis_pid = serving.redis_processes()[0]
    session_id = api.new({VALUE: VALUE, "deep": {VALUE: [VALUE]}}, user="alice")
    path = f"/session/{session_id}/configs"
    filtered = json.dumps({VALUE: VALUE})

    def send_everything() -> set[int]:
        text = VALUE.encode()
        sent: list[tuple[str, str, bytes | None, dict[str, str]]] = [
            ("GET", path, None, {}), ("GET", path, None, {"If-None-Match": VALUE}),
            ("GET", f"/session?cursor={VALUE}", None, {}),
            ("PUT", path, b'{"configs":{"%b":"%b"}}' % (text, text), {}), ("PATCH", path, b'{"configs":{"a":"%b"}}' % text, {}),
            ("PATCH", path, b'{"configs":{"%b":' % text, {}), ("PUT", path, b'{"configs":"%b"}' % text, {}),
            ("POST", "/session", b'{"use_uuid":"%b"}' % text, {}), ("POST", "/session", b'{"user":{"%b":1}}' % text, {}),
            ("POST", "/session", b'{"configs":{"%b":"%b"}}' % (text, b"x" * 300_000), {}),
            ("POST", "/session", b'{"configs":{"a":"%b\xff"}}' % text, {"Content-Encoding": "gzip"}),
            ("POST", "/session", text, {"Content-Type": f"text/{VALUE}"}), ("DELETE", path, None, {"If-Match": VALUE}),
            ("PATCH", "/project/configs", b'{"%b":"%b"}' % (text, text), {}), ("GET", "/nope", text, {}),
            ("GET", "/ping", None, {"Authorization": f"Bearer {api.key}x"}), ("GET", "/ping", None, {"Authorization": api.key}),
        ]  # fmt: skip
        statuses = {api.send(*request).status for request in sent}
        statuses.add(api.send("GET", "/session", query={"filter_by_configs": filtered}).status)
        statuses.add(api.send("GET", "/session", query={"filter_by_configs": filtered[:-1]}).status)
        for raw in (
            head(api, "GET /api/v1/ping HTTP/1.1", f"X-Request-Id: {api.key}"),
            head(api, "GET /api/v1/ping HTTP/1.1", f"X: {VALUE}\x00", f"Authorization : Bearer {api.key}"),
            head(api, f"GET /api/v1/session?filter_by_configs={filtered} x HTTP/1.1"),
            head(api, "POST /api/v1/session HTTP/1.1", "Content-Length: 900") + filtered.encode(),
            head(api, "POST /api/v1/session HTTP/1.1", "Transfer-Encoding: chunked") + b"zz\r\n" + filtered.encode(),
            head(api, "POST /api/v1/session HTTP/1.1", "Content-Length: 0", "Transfer-Encoding: chunked") + filtered.encode(),
        ):
            statuses |= {response.status for response in conversation(api, raw)}
        return statuses

    assert send_everything() >= {200, 400, 401, 404, 413, 415}
    kill(redis_pid, signal.SIGSTOP)
    try:
        assert 503 in send_everything()
    finally:
        kill(redis_pid, signal.SIGCONT)
    # A key of the wrong type in place of the session; and a bug, whose traceback has everything about the request.
    with Redis.from_url(api.server.redis_url) as redis:
        redis.set(f"scc:{{default.0}}:session:{session_id}", VALUE)
    for method, body in (("GET", None), ("PATCH", {"configs": {VALUE: VALUE}})):
        assert request(method, f"{serving.base_url}{path}", api.key, body)[0] == 503
        status, response = request("GET", f"{serving.base_url}/user/alice/resources", api.key)
        assert (status, response["reason"]) == (500, "internal")
    assert serving.stop() == 0
    logged = serving.output + serving.errors
    assert serving.errors.count("Traceback") == 2
    # Exactly one line per request.
    lines = requests_in(serving)
    gets = [line for line in lines if (line.get("method"), line.get("session"), line["status"]) == ("GET", session_id, "200")]
    assert [(line["route"], line["project"], line["revision"]) for line in gets] == [
        ("/api/v1/session/{session_id}/configs", "default", "1")
    ]
    assert [word for word in (api.key, "root-of-the-tests", VALUE) if word in logged] == []


def test_the_log_line_of_a_bug_has_the_path_without_the_query(logging: tuple[Serving, Api]) -> None:
    serving, api = logging
    wanted = quote(json.dumps({"defect": VALUE}))
    assert request("GET", f"{serving.base_url}/session?filter_by_configs={wanted}", api.key)[0] == 500
    assert serving.stop() == 0
    assert "Traceback" in serving.errors
    assert re.search(r"request [0-9a-f]{32}: GET /api/v1/session failed[\n\"]", serving.errors)
    assert VALUE not in serving.errors


def test_a_key_in_a_path_is_masked_in_the_access_log_and_in_tracebacks(logging: tuple[Serving, Api]) -> None:
    serving, api = logging
    encoded = "".join(f"%{byte:02x}" for byte in api.key.encode())
    for key in (api.key, encoded, encoded.replace("%", "%25"), api.key.replace("-", "%2D")):
        api.send("GET", f"/{key}/session")
        api.send("GET", f"/session/{key}")
    assert request("GET", f"{serving.base_url}/user/{api.key}/resources", api.key)[0] == 500
    assert serving.stop() == 0
    assert "Traceback" in serving.errors
    assert "LookupError: no sk-ac-***" in serving.errors
    lines = [line for line in requests_in(serving) if line["route"] != "/openapi.json"]
    assert Counter((line["route"], line["status"]) for line in lines) == {
        ("none", "404"): 4,
        ("/api/v1/session/{session_id}", "400"): 4,
        ("/api/v1/user/{identifier}/resources", "500"): 1,
    }
    assert "alice" not in serving.errors
    assert [word for word in ("root-of-the-tests", "root%2Dof", encoded[-30:]) if word in serving.errors] == []


def test_refused_input_is_logged_with_its_peer_and_without_its_bytes(
    logging: tuple[Serving, Api],
) -> None:
    serving, api = logging
    refused = {
        400: head(api, "GET /api/v1/ping HTTP/1.1", f"X: {VALUE}\x00", f"Authorization : Bearer {api.key}"),
        414: head(api, f"GET /api/v1/session?x={VALUE * 4000} HTTP/1.1"),
        431: head(api, "GET /api/v1/ping HTTP/1.1", f"X: {VALUE * 400}"),
        408: f"GET /{VALUE} HTTP/1.1\r\nAuthorization: Bearer {api.key}\r\n".encode(),
    }
    for status, raw in refused.items():
        assert exchange(api, raw).status == status
    assert serving.stop() == 0
    lines = [line for line in requests_in(serving) if "peer" in line]
    assert [int(line["status"]) for line in lines] == list(refused)
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", line["peer"]) for line in lines)
    assert not any({"method", "route"} & set(line) for line in lines)
    assert [word for word in ("root-of-the-tests", VALUE, "X:") if word in serving.errors] == []
