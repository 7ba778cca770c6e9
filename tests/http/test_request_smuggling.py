"""Ambiguous requests, targets that try to leave the API, and random bytes.

Each connection gets the expected responses in the envelope, never a 5xx. No request is smuggled behind a refused one. Requests
on new connections are served afterwards, and nothing is logged (`conftest`).
"""

import random
from collections.abc import Iterator

import pytest

from tests.support.http import Api
from tests.support.raw_http import answers_in, connect, conversation, head

POST = "POST /api/v1/session HTTP/1.1"
PING = "GET /api/v1/ping HTTP/1.1"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture(autouse=True)
def _served(api: Api) -> Iterator[None]:
    """Whatever a test sent, the server still serves."""
    yield
    for _ in range(4):
        assert [response.status for response in conversation(api, head(api, PING))] == [200]


# Two parsers could disagree where the body ends, or which headers there are: the bytes behind it would be a request to one.
AMBIGUOUS = {
    "both framings": (POST, ["Content-Length: 5", CHUNKED], b"0\r\n\r\n"),
    "both framings, in reverse order": (POST, [CHUNKED, "Content-Length: 5"], b"0\r\n\r\n"),
    "two lengths": (POST, ["Content-Length: 2", "Content-Length: 0"], b"{}"),
    "two equal lengths": (POST, ["Content-Length: 2", "Content-Length: 2"], b"{}"),
    "a list of lengths": (POST, ["Content-Length: 2, 2"], b"{}"),
    "a signed length": (POST, ["Content-Length: +2"], b"{}"),
    "a negative length": (POST, ["Content-Length: -0"], b"{}"),
    "a hexadecimal length": (POST, ["Content-Length: 0x2"], b"{}"),
    "a length with a space": (POST, ["Content-Length: 2 2"], b"{}"),
    "a length with an exponent": (POST, ["Content-Length: 2e0"], b"{}"),
    "no length": (POST, ["Content-Length: "], b"{}"),
    "a length that wraps around": (POST, ["Content-Length: 18446744073709551618"], b"{}"),
    "a length in other digits": (POST, ["Content-Length: \xd9\xa2"], b"{}"),
    "a space before the colon of a length": (POST, ["Content-Length : 2"], b"{}"),
    "a space before the colon of a coding": (POST, ["Transfer-Encoding : chunked"], b"0\r\n\r\n"),
    "an unknown coding": (POST, ["Transfer-Encoding: xchunked"], b"0\r\n\r\n"),
    "chunked is not the last coding": (POST, ["Transfer-Encoding: chunked, identity"], b"0\r\n\r\n"),
    "two codings": (POST, [CHUNKED, "Transfer-Encoding: identity"], b"0\r\n\r\n"),
    "twice chunked": (POST, [CHUNKED, CHUNKED], b"0\r\n\r\n"),
    "a control character before the coding": (POST, ["Transfer-Encoding: \x0bchunked"], b"0\r\n\r\n"),
    "a folded coding": (POST, ["Transfer-Encoding:\r\n chunked"], b"0\r\n\r\n"),
    "no coding": (POST, ["Transfer-Encoding: "], b"0\r\n\r\n"),
    "a quoted coding": (POST, ['Transfer-Encoding: "chunked"'], b"0\r\n\r\n"),
    "a coding in HTTP/1.0": ("POST /api/v1/session HTTP/1.0", [CHUNKED], b"0\r\n\r\n"),
    "an underscore for a hyphen": (POST, ["Transfer_Encoding: chunked"], b"0\r\n\r\n"),
    "a hexadecimal prefix of a chunk": (POST, [CHUNKED], b"0x2\r\n{}\r\n0\r\n\r\n"),
    "a signed chunk": (POST, [CHUNKED], b"+2\r\n{}\r\n0\r\n\r\n"),
    "a chunk with an underscore": (POST, [CHUNKED], b"2_0\r\n{}\r\n0\r\n\r\n"),
    "a chunk with a space": (POST, [CHUNKED], b"2 \r\n{}\r\n0\r\n\r\n"),
    "a chunk whose size wraps around": (POST, [CHUNKED], b"10000000000000002\r\n{}\r\n0\r\n\r\n"),
    "a chunk longer than it says": (POST, [CHUNKED], b"2\r\n{}}\r\n0\r\n\r\n"),
    "bare line feeds between chunks": (POST, [CHUNKED], b"2\n{}\n0\n\n"),
    "a bare line feed in a chunk's extension": (POST, [CHUNKED], b"2;a=b\nxx\r\n{}\r\n0\r\n\r\n"),
    "a length in the trailer": (POST, [CHUNKED], b"2\r\n{}\r\n0\r\nContent-Length: 50\r\n\r\n"),
    "a folded header": (PING, ["X: a\r\n b"], b""),
    "a bare line feed behind a header": (PING, ["X: a\nY: b"], b""),
    "a bare carriage return": (PING, ["X: a\rY: b"], b""),
    "two hosts": (PING, ["Host: y"], b""),
    "no colon": (PING, ["nonsense"], b""),
    "a tab for a space": ("GET\t/api/v1/ping\tHTTP/1.1", [], b""),
    "a method in lower case": ("get /api/v1/ping HTTP/1.1", [], b""),
    "a space behind the version": (PING + " ", [], b""),
    "an unknown version": ("GET /api/v1/ping HTTP/1.2", [], b""),
    "a preface of HTTP/2": ("PRI * HTTP/2.0", [], b"SM\r\n\r\n"),
    "an authority without CONNECT": ("GET x:443 HTTP/1.1", [], b""),
    "an asterisk without OPTIONS": ("GET * HTTP/1.1", [], b""),
    "a host with a bracket": ("GET http://[::1/api/v1/ping HTTP/1.1", [], b""),
    "a port that is not a number": ("GET http://x:abc/ HTTP/1.1", [], b""),
    "a port that is too large": ("GET http://x:99999/api/v1/ping HTTP/1.1", [], b""),
    "backslashes": ("GET \\api\\v1\\ping HTTP/1.1", [], b""),
    "raw UTF-8 in the target": ("GET /api/v1/user/\xc3\xa9/resources HTTP/1.1", [], b""),
    "a method of a megabyte": ("G" * 1_000_000 + " / HTTP/1.1", [], b""),
}


@pytest.mark.parametrize(("line", "headers", "body"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_ambiguous_request_gets_400_and_closes_the_connection(api: Api, line: str, headers: list[str], body: bytes) -> None:
    smuggled = head(api, "POST /api/v1/session HTTP/1.1", "Content-Length: 2") + b"{}"
    responses = conversation(api, head(api, line, *headers) + body + smuggled)
    assert [response.status for response in responses] == [400]
    assert all(response.headers["Connection"] == "close" for response in responses)
    assert api.ids() == []


NO_BODY: list[str] = []

# Odd but unambiguous: two requests, two responses.
CLEAR = {
    "a length with a zero before it": (POST, ["Content-Length: 02"], b"{}", 201),
    "chunked in upper case": (POST, ["Transfer-Encoding: CHUNKED"], b"2\r\n{}\r\n0\r\n\r\n", 201),
    "an extension of a chunk": (POST, [CHUNKED], b"2;a=b\r\n{}\r\n0\r\n\r\n", 201),
    "a long extension": (POST, [CHUNKED], b"2;" + b"a" * 20_000 + b"\r\n{}\r\n0\r\n\r\n", 201),
    "a trailer": (POST, [CHUNKED], b"2\r\n{}\r\n0\r\nX: y\r\n\r\n", 201),
    "a body in UTF-16": (POST, ["Content-Length: 6"], "{}".encode("utf-16"), 400),
    "an unexpected body": (PING, ["Content-Length: 9"], b"GET / HTT", 200),
    "an absolute target": ("GET http://elsewhere/api/v1/ping HTTP/1.1", NO_BODY, b"", 200),
    "an absolute target without a path": ("GET http://x HTTP/1.1", NO_BODY, b"", 404),
    "a fragment": ("GET /api/v1/ping#x HTTP/1.1", NO_BODY, b"", 404),
    "a NUL in a user": ("GET /api/v1/user/a%00b/resources HTTP/1.1", NO_BODY, b"", 404),
    "a NUL for a session": ("GET /api/v1/session/%00 HTTP/1.1", NO_BODY, b"", 400),
    "dots": ("GET /api/v1/../../health HTTP/1.1", NO_BODY, b"", 404),
    "encoded dots": ("GET /api/v1/%2e%2e/%2E%2E/health HTTP/1.1", NO_BODY, b"", 404),
    "two slashes": ("GET //api/v1/ping HTTP/1.1", NO_BODY, b"", 404),
    "two slashes and a host": ("GET //elsewhere/api/v1/ping HTTP/1.1", NO_BODY, b"", 404),
    "an encoded slash": ("GET /api%2Fv1/ping HTTP/1.1", NO_BODY, b"", 404),
    "an overlong slash": ("GET /api/v1/user/%c0%af/resources HTTP/1.1", NO_BODY, b"", 400),
    "an overlong letter": ("GET /%c1%a1pi/v1/ping HTTP/1.1", NO_BODY, b"", 404),
    "a surrogate": ("GET /api/v1/user/%ed%a0%80/resources HTTP/1.1", NO_BODY, b"", 400),
    "half of an escape": ("GET /api/v1/user/%/resources HTTP/1.1", NO_BODY, b"", 404),
    "an invalid escape": ("GET /api/v1/user/%zz/resources HTTP/1.1", NO_BODY, b"", 404),
    "a parameter of a segment": ("GET /api/v1/ping;x=y HTTP/1.1", NO_BODY, b"", 404),
    "a method that no route supports": ("PROPFIND /api/v1/session HTTP/1.1", NO_BODY, b"", 405),
    "two keys": (PING, ["Authorization: Bearer sk-ac-other"], b"", 400),
    "a range": (PING, ["Range: bytes=0-1"], b"", 200),
    "128 headers": (PING, [f"X-{number}: y" for number in range(126)], b"", 200),
    "a header of 8,000 bytes": (PING, ["X: " + "y" * 8000], b"", 200),
    "Content-Encoding without a body": (PING, ["Content-Encoding: gzip"], b"", 200),
    "a request id that is not UTF-8": (PING, ["X-Request-Id: \xed\xa0\x80"], b"", 200),
    "a media type that is not UTF-8": (POST, ["Content-Type: \xff\xfe", "Content-Length: 2"], b"{}", 415),
    "an expectation that is not UTF-8": (POST, ["Expect: \xff", "Content-Length: 2"], b"{}", 417),
}


@pytest.mark.parametrize(("line", "headers", "body", "status"), CLEAR.values(), ids=CLEAR)
def test_an_odd_but_unambiguous_request_is_answered_and_so_is_the_next(
    api: Api, line: str, headers: list[str], body: bytes, status: int
) -> None:
    responses = conversation(api, head(api, line, *headers) + body + head(api, PING))
    assert [response.status for response in responses] == [status, 200]


@pytest.mark.parametrize(("headers", "statuses"), [
    (["Connection: Upgrade", "Upgrade: websocket"], [200]),
    (["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA"], [200]),
    (["Connection: close"], [400]), (["Proxy-Connection: keep-alive", "Connection: close, x"], [400]),
])  # fmt: skip
def test_bytes_after_an_upgrade_or_close_are_not_served_as_a_request(api: Api, headers: list[str], statuses: list[int]) -> None:
    sent = head(api, PING, *headers) + head(api, POST, "Content-Length: 2") + b"{}"
    assert [response.status for response in conversation(api, sent)] == statuses
    # The server closes the connection even though this client keeps its own side open.
    with connect(api) as connection:
        connection.settimeout(10)
        connection.sendall(sent)
        responses = answers_in(b"".join(iter(lambda: connection.recv(65536), b"")))
    assert [(each.status, each.headers["Connection"]) for each in responses] == [(status, "close") for status in statuses]
    assert api.ids() == []


def test_a_key_in_a_trailer_does_not_authenticate(api: Api) -> None:
    start = f"{POST}\r\nHost: x\r\n{CHUNKED}\r\n\r\n2\r\n{{}}\r\n0\r\nAuthorization: Bearer {api.key}\r\n\r\n"
    assert [response.status for response in conversation(api, start.encode())] == [401]
    assert api.ids() == []


@pytest.mark.parametrize("path", ["/api%2Fv1/ping", "/%61pi/v1/ping", "/api/v1/../v1/ping", "/api/v1/nope", "/api/v1%2Fping"])
def test_no_spelling_of_a_path_bypasses_authentication(api: Api, path: str) -> None:
    (response,) = conversation(api, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert response.status == 401


def test_a_head_in_utf_16_gets_400(api: Api) -> None:
    (response,) = conversation(api, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n".encode("utf-16"))
    assert response.status == 400


SEEDS = (
    lambda api: head(api, POST, "Content-Length: 32") + b'{"configs":{"a":[1,{"b":null}]}}',
    lambda api: head(api, POST, CHUNKED) + b'13\r\n{"configs":{"a":1}}\r\n0\r\n\r\n',
    lambda api: head(api, 'GET /api/v1/session?limit=3&filter_by_configs={"a":1}&user=a%20b HTTP/1.1', "X-Request-Id: a"),
    lambda api: head(api, "PATCH /api/v1/project/configs HTTP/1.1", "Content-Length: 7", "If-Match: *") + b'{"a":1}',
    lambda api: head(api, "GET /api/v1/user/a%2Fb/resources HTTP/1.1", "Connection: keep-alive") + head(api, PING),
)
INTERESTING = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\x00",
    b" ",
    b":",
    b"\t",
    b"%",
    b"%00",
    b'"',
    b"{",
    b"[" * 100,
    b"\xff",
    b"\xc3",
    b"/",
    b"9" * 30,
    b"chunked",
    b"Content-Length: 3\r\n",
    b"0",
    b"..",
    b"?",
    b"&",
    b"=",
    b",",
    b";",
    b"-",
    b"\xed\xa0",
]


def mutate(source: random.Random, sent: bytes) -> bytes:
    """`sent` with a few of its bytes removed, doubled, moved or replaced."""
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(sent) + 1)
        end = min(len(sent), at + source.choice([0, 1, 1, 2, 8]))
        replacement = source.choice([b"", sent[at:end] * 2, source.choice(INTERESTING), bytes([source.randrange(256)])])
        sent = sent[:at] + replacement + sent[end:]
    return sent


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_requests_with_bytes_changed_at_random_are_answered_or_refused(api: Api, seed: int) -> None:
    source = random.Random(seed)
    statuses = set()
    for _ in range(120):
        sent = mutate(source, SEEDS[seed](api))
        for response in conversation(api, sent):
            assert 200 <= response.status < 500, (sent, response)
            statuses.add(response.status)
    assert {400} < statuses
