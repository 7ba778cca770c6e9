"""Acontext's calls that are not part of this service get 501 with one sentence, with a valid key, before the body is read."""

import re

import pytest

from tests.support.http import JSON, Api
from tests.support.raw_http import connect, head

ID = "0190d1f2-5a3b-4c6d-8e7f-001122334455"
SESSION = f"/session/{ID}"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
#: Path, and the start of its message.
CALLS = [
    *((f"{SESSION}/{path}", start) for path, start in (
        ("messages", "messages are"), ("messages/m1/meta", "messages are"), ("events", "events are"), ("task", "tasks are"),
        ("token_counts", "token counts are"), ("observing_status", "the observing status is"),
        ("flush", "flushing messages is"), ("asset/download", "assets are"), ("connect_to_space", "spaces are"),
        ("get_learning_status", "the learning status is"),
    )),
    ("/sessions/search", "session search is"), ("/project/encrypt", "encryption is"), ("/project/decrypt", "encryption is"),
    ("/disk", "disks are"), ("/disk/d1", "disks are"), ("/disk/d1/artifact/ls", "disks are"),
    ("/agent_skills", "agent skills are"), (f"/agent_skills/{ID}/download_to_sandbox", "agent skills are"),
    ("/sandbox", "sandboxes are"), ("/sandbox/logs", "sandboxes are"), (f"/sandbox/{ID}/exec", "sandboxes are"),
    ("/learning_spaces", "learning spaces are"), (f"/learning_spaces/{ID}/sessions/{ID}", "learning spaces are"),
    ("/space", "spaces are"), (f"/space/{ID}/block/{ID}/move", "spaces are"), ("/tool/name", "tools are"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "start"), CALLS)
def test_a_call_that_is_not_part_of_this_service_gets_501_with_advice(api: Api, path: str, start: str) -> None:
    pronoun = "them" if start.endswith("are") else "it"
    message = f"{start} not part of this service: it keeps sessions and their configs; call an Acontext server for {pronoun}"
    for method in METHODS:
        response = api.send(method, path, b"{}" if method in ("POST", "PUT", "PATCH") else None, {"Content-Type": JSON})
        assert response.status == 501
        assert method == "HEAD" or (response.msg, response.reason) == (message, "not_implemented")


@pytest.mark.parametrize(("path", "start"), CALLS)
def test_without_a_valid_key_it_gets_401(api: Api, path: str, start: str) -> None:
    del start
    for key in ("", "Bearer sk-ac-nope"):
        assert api.send("POST", path, b"{}", {"Authorization": key}).reason == "unauthorized"


@pytest.mark.parametrize("session", [ID, "nope", "%20", "existing"])
def test_the_session_is_not_looked_up(api: Api, session: str) -> None:
    session = api.new() if session == "existing" else session
    assert api.send("POST", f"/session/{session}/messages", b"{}", {"Content-Type": JSON}).status == 501


@pytest.mark.parametrize("path", [
    f"{SESSION}/messages/m1", f"{SESSION}/messages/m1/meta/x", f"{SESSION}/messages/", f"{SESSION}/message", f"{SESSION}/asset",
    f"{SESSION}/token_counts/x", "/session//messages", "/sessions", "/sessions/search/x", "/project/encrypt/x", "/disks",
    "/spaces", "/agent_skill", "/diskx", "/Disk", "/learning_space",
])  # fmt: skip
def test_paths_that_acontext_does_not_have_either_get_404(api: Api, path: str) -> None:
    for method in METHODS:
        response = api.send(method, path)
        assert response.status == 404
        assert method == "HEAD" or response.reason == "route_not_found"


def test_a_large_body_is_refused_before_100_continue(api: Api) -> None:
    with connect(api) as connection:
        connection.sendall(
            head(api, f"POST /api/v1{SESSION}/messages HTTP/1.1", "Content-Length: 900000000", "Expect: 100-continue")
        )
        assert re.match(rb"HTTP/1\.1 501 ", connection.recv(100))


@pytest.mark.parametrize(("kind", "body"), [("text/plain", b"x"), ("multipart/form-data; boundary=b", b"--b--"), (JSON, b"{")])
def test_no_body_is_read(api: Api, kind: str, body: bytes) -> None:
    assert api.send("POST", f"{SESSION}/messages", body, {"Content-Type": kind}).status == 501
