"""What all routes share: the envelope (`tests.support.http.check_envelope`, on every response), request ids, routing."""

import http.client

import pytest

from tests.support.http import Api

ID = "0190d1f2-5a3b-4c6d-8e7f-001122334455"


@pytest.mark.parametrize(("path", "prefix", "key", "body"), [
    ("/health", "", "", {"code": 0, "msg": "ok"}),
    ("/ready", "", "", {"code": 0, "msg": "ok", "data": {"warnings": []}}),
    ("/ping", "/api/v1", "key", {"code": 0, "msg": "pong"}),
])  # fmt: skip
def test_health_and_ready_need_no_key_and_ping_does(
    api: Api, path: str, prefix: str, key: str, body: dict[str, object]
) -> None:
    response = api.send("GET", path, headers={} if key else {"Authorization": ""}, prefix=prefix)
    assert (response.status, response.body) == (200, body)


@pytest.mark.parametrize("request_id", ["a", "A-1_b.c", "trace/span=1+2@host:3", "x" * 128])
def test_a_safe_request_id_is_echoed(api: Api, request_id: str) -> None:
    assert api.send("GET", "/ping", headers={"X-Request-Id": request_id}).headers["X-Request-Id"] == request_id
    assert api.send("GET", f"/session/{ID}", headers={"X-Request-Id": request_id}).headers["X-Request-Id"] == request_id


@pytest.mark.parametrize("request_id", ["x" * 129, "key:sk-ac-x", "a b", "a\tb", 'a"b', "<script>", "ä", "a,b", "{}", "a;b"])
def test_an_unsafe_request_id_is_replaced(api: Api, request_id: str) -> None:
    connection = http.client.HTTPConnection(api.server.origin.removeprefix("http://"))
    connection.request("GET", "/health", headers={"X-Request-Id": request_id.encode()})
    generated = connection.getresponse().headers["X-Request-Id"]
    connection.close()
    assert generated not in ("", request_id)
    assert generated.isalnum()


def test_two_requests_have_different_ids(api: Api) -> None:
    assert len({api.send("GET", "/ping").headers["X-Request-Id"] for _ in range(10)}) == 10


@pytest.mark.parametrize(("prefix", "path"), [
    ("", "/docs/"), ("", "/nope"), ("", "/health/"), ("", "/api"), ("", "//api/v1/session"), ("", "/api/v2/session"),
    ("/api/v1", ""), ("/api/v1", "/"), ("/api/v1", "/sessions"), ("/api/v1", "/session/"), ("/api/v1", f"/session/{ID}/"),
    ("/api/v1", f"/session/{ID}/nope"), ("/api/v1", "/user/"), ("/api/v1", "/user//resources"), ("/api/v1", "/project"),
    ("/api/v1", "/user/a/b/resources"), ("/api/v1", "/../v1/session"),
])  # fmt: skip
def test_an_unknown_route_gets_404(api: Api, prefix: str, path: str) -> None:
    response = api.send("GET", path, prefix=prefix)
    assert (response.status, response.reason) == (404, "route_not_found")


@pytest.mark.parametrize(("path", "allowed"), [
    ("/ping", "GET, HEAD"),
    ("/session", "GET, HEAD, POST"),
    (f"/session/{ID}", "DELETE, GET, HEAD"),
    (f"/session/{ID}/configs", "GET, HEAD, PATCH, PUT"),
    (f"/session/{ID}/copy", "POST"),
    ("/user/ls", "DELETE, GET, HEAD"),  # DELETE: of the user whose identifier is "ls"
    ("/user/bob", "DELETE"),
    ("/user/bob/resources", "GET, HEAD"),
    ("/project/configs", "GET, HEAD, PATCH"),
])  # fmt: skip
def test_an_unsupported_method_gets_405_with_the_allowed_ones(api: Api, path: str, allowed: str) -> None:
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - set(allowed.split(", ")):
        response = api.send(method, path)
        assert (response.status, response.headers["Allow"]) == (405, allowed)
        assert method == "HEAD" or response.msg == f"method not allowed; this path allows {allowed}"


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_an_unsupported_method_on_health_gets_405_without_a_key(api: Api, path: str) -> None:
    response = api.send("POST", path, headers={"Authorization": ""}, prefix="")
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


def test_head_responds_like_get_without_a_body(api: Api) -> None:
    session_id = api.new({"agent": "bot1"}, user="alice")
    paths = ["/ping", "/session", f"/session/{session_id}", f"/session/{session_id}/configs", "/user/ls",
             "/user/alice/resources", "/project/configs", f"/session/{ID}", "/session/nope", "/session?limit=0"]  # fmt: skip
    for path in paths:
        head, get = api.send("HEAD", path), api.send("GET", path)
        assert head.status == get.status
        assert head.headers["Content-Length"] == str(len(get.raw))
        assert head.headers["ETag"] == get.headers["ETag"]


def test_the_connection_stays_open_after_an_error(api: Api) -> None:
    connection = http.client.HTTPConnection(api.server.origin.removeprefix("http://"))
    for path, status in (("/api/v1/session", 401), ("/nope", 404), ("/health", 200)):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.status == status
        assert not response.will_close
    connection.close()
