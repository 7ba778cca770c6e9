"""`import --from`: a project is copied from a server of this API, over HTTP."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.http import Api, Operator
from tests.support.server import Server, run_command

CONFIGS = b'{"configs":{"n":%d,"exact":[1.50, 1e2,"\\u00e9"],"large":12345678901234567890}}'


def copied(server: Server, source: str, key: str, target: Api, *words: str) -> str:
    """Import from `source`; the output."""
    result = run_command(
        "import", "--from", source, "--project", target.project.slug, "--redis-url", server.redis_url, *words, SCC_API_KEY=key
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def sessions_of(api: Api) -> list[tuple[bytes, str, str, str]]:
    """Configs, created_at, updated_at and expiry of each session, in the order of the list."""
    sessions = [api.get(name) for name in api.ids()]
    return [
        (one.raw_configs.replace(b"\n", b""), one.etag, one.data["updated_at"], str(one.data["expires_at"])) for one in sessions
    ]


def test_a_project_is_copied_with_its_etags(server: Server, operator: Operator, api: Api) -> None:
    for number in range(250):
        name = api.new(user=f"user {number % 220} / é" if number % 10 else None)
        api.call("PUT", f"/session/{name}/configs", CONFIGS % number, headers={"Content-Type": "application/json"})
    api.create(disable_task_tracking=True, ttl=10_000)
    api.call("PATCH", "/project/configs", {"session_ttl": 5000})
    target = operator.new_project()
    try:
        assert copied(server, server.origin, api.key, target) == "imported 251 sessions and 198 users\n"
        assert target.ids() == api.ids()
        assert sessions_of(target) == sessions_of(api)
        assert target.get(target.ids()[-1]).data["disable_task_tracking"] is True
        assert target.call("GET", "/project/configs").data == {"session_ttl": 5000}
        users = [[user["identifier"] for user in each.call("GET", "/user/ls").data["items"]] for each in (target, api)]
        assert users[0] == users[1]
        assert (
            copied(server, server.base_url, api.key, target) == "imported 0 sessions (251 already in the project) and 0 users\n"
        )
    finally:
        target.close()


class _Acontext(BaseHTTPRequestHandler):
    """Answers as Acontext's server does: no revision, no expiry, other fields, pages of two sessions."""

    ROWS = tuple(
        {
            "id": f"00000000-0000-4000-8000-00000000000{number}", "project_id": "p", "user_id": "u1" if number % 2 else None,
            "space_id": None, "disable_task_tracking": False, "configs": {"n": number} if number else None,
            "created_at": f"2025-01-02T03:04:05.00000{number}+02:00", "updated_at": "2025-01-02T03:04:06Z", "token_count": 7,
        }
        for number in range(5)
    )  # fmt: skip
    USERS = ({"id": "u1", "project_id": "p", "identifier": "alice", "created_at": "2025-01-02T00:00:00Z", "updated_at": "x"},)
    #: Acontext adds a state of the server to the configs of every project.
    CONFIGS: Any = {"encryption_enabled": False}  # noqa: RUF012 - JSON

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path, query = parts.path.removeprefix("/api/v1"), parse_qs(parts.query)
        first = int(query.get("cursor", ["0"])[0])
        page: Any = {
            "items": self.ROWS[first : first + 2],
            "has_more": first + 2 < len(self.ROWS),
            "next_cursor": f"{first + 2}",
        }
        data = {"/session": page, "/user/ls": {"items": self.USERS, "has_more": False}, "/project/configs": self.CONFIGS}[path]
        body = json.dumps({"code": 0, "data": data, "msg": "ok"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def acontext(**members: object) -> Iterator[str]:
    """URL of a server that answers as Acontext's; `members` replace those of its class."""
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Acontext,), members)) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def test_acontexts_sessions_begin_with_revision_1(server: Server, operator: Operator) -> None:
    target = operator.new_project()
    try:
        with acontext() as url:
            assert copied(server, url, "sk-ac-any", target) == "imported 5 sessions and 1 users\n"
        assert target.ids() == [row["id"] for row in _Acontext.ROWS]
        sessions = [target.get(name).data for name in target.ids()]
        assert [session["configs"] for session in sessions] == [row["configs"] for row in _Acontext.ROWS]
        assert [session["created_at"] for session in sessions] == [f"2025-01-02T01:04:05.00000{each}Z" for each in range(5)]
        assert {session["revision"] for session in sessions} == {1}
        assert target.ids(user="alice") == target.ids()[1::2]
        assert target.call("GET", "/project/configs").data == {}
    finally:
        target.close()


def test_acontexts_server_state_is_no_config(server: Server, operator: Operator) -> None:
    """It neither becomes one, nor is it in conflict with those of the project."""
    target = operator.new_project()
    try:
        with acontext(CONFIGS={"a": 1.50, "encryption_enabled": True}) as url:
            copied(server, url, "sk-ac-any", target)
        assert target.call("GET", "/project/configs").data == {"a": 1.5}
        for configs in ({"a": 1.50, "encryption_enabled": False}, {"a": 1.50}):
            with acontext(CONFIGS=configs) as url:
                copied(server, url, "sk-ac-any", target)
        with acontext() as url:
            copied(server, url, "sk-ac-any", target, "--on-conflict", "skip")
        assert target.call("GET", "/project/configs").data == {"a": 1.5}
    finally:
        target.close()


@pytest.mark.parametrize(
    ("where", "member", "value"),
    [
        ("session", "created_at", "0001-01-01T00:00:00Z"),
        ("session", "created_at", "0001-01-01T00:00:00+14:00"),
        ("session", "created_at", "1969-12-31T23:59:59.999999Z"),
        ("session", "created_at", "2025-01-02T03:04:05"),
        ("session", "updated_at", "1900-01-01T00:00:00Z"),
        ("session", "updated_at", "2025-01-02T03:04:05"),
        ("session", "expires_at", "1900-01-01T00:00:00Z"),
        ("session", "expires_at", "2999-01-02T03:04:05"),
        ("session", "revision", 0),
        ("session", "revision", -1),
        ("session", "revision", 2**52 + 1),
        ("session", "revision", 2**53 + 1),
        ("session", "revision", 2**200),
        ("session", "revision", 1.5),
        ("session", "id", "x\n"),
        ("session", "configs", [1]),
        ("user", "created_at", "0001-01-01T00:00:00Z"),
        ("user", "created_at", "2025-01-02T03:04:05"),
        ("user", "identifier", "\n"),
        ("project", "", [1]),
    ],
)
def test_what_a_file_may_not_have_a_server_may_not_have_either(
    server: Server, operator: Operator, where: str, member: str, value: object
) -> None:
    rows = tuple(row | {member: value} if number == 2 else row for number, row in enumerate(_Acontext.ROWS))
    users = tuple(user | {member: value} for user in _Acontext.USERS)
    replaced: Any = {"session": {"ROWS": rows}, "user": {"USERS": users}, "project": {"CONFIGS": value}}[where]
    target = operator.new_project()
    try:
        with acontext(**replaced) as url:
            result = run_command(
                "import", "--from", url, "--project", target.project.slug, "--redis-url", server.redis_url,
                SCC_API_KEY="sk-ac-any",
            )  # fmt: skip
        assert result.returncode == 1, result
        assert result.stderr.count("\n") == 1
        assert "Traceback" not in result.stderr
        assert len(target.ids()) == (2 if where == "session" else 0)
    finally:
        target.close()


def test_a_key_that_the_server_refuses_is_one_sentence(server: Server, api: Api) -> None:
    words = ("import", "--from", server.origin, "--project", api.project.slug, "--redis-url", server.redis_url)
    result = run_command(*words, SCC_API_KEY="sk-ac-unknown")
    assert result.returncode != 0
    assert result.stderr == "Unauthorized\n"
    result = run_command(*words, "file", SCC_API_KEY="sk-ac-unknown")
    assert result.returncode == 2
    assert result.stderr.endswith("Error: give a file, or a server with --from, and not both\n")
