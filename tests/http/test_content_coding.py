"""No body is decompressed, and a truncated body is never taken for a complete or a missing one."""

import gzip
import zlib

import pytest

from tests.support.http import JSON, Api
from tests.support.raw_http import answers_in, connect, conversation, head

CREATE = b'{"configs":{"a":1}}'
GZIP = gzip.compress(CREATE, mtime=0)
SENTENCE = "Content-Encoding must be identity: send the body uncompressed"


def targets(session_id: str) -> list[tuple[str, str]]:
    """Every route that takes a body."""
    path = f"/session/{session_id}/configs"
    return [("POST", "/session"), ("PUT", path), ("PATCH", path), ("PATCH", "/project/configs")]


def untouched(api: Api, session_id: str, before: bytes) -> bool:
    return (api.get(session_id).raw, api.ids(), api.call("GET", "/project/configs").data) == (before, [session_id], {})


@pytest.mark.parametrize(("coding", "body"), [
    ("gzip", GZIP), ("GZIP", GZIP), ("x-gzip", GZIP), ("deflate", zlib.compress(CREATE)), ("br", b"\x0b\x02\x80{}\x03"),
    ("zstd", b"\x28\xb5\x2f\xfd\x20\x02\x11\x00\x00{}"), ("compress", b"\x1f\x9d"), ("nonsense", CREATE), ("gzip", CREATE),
    ("gzip, gzip", gzip.compress(GZIP, mtime=0)), ("identity, gzip", GZIP), ("gzip, identity", GZIP), (", gzip", GZIP),
    ("*", CREATE),
    ("gzip;q=1", GZIP), ("aws-chunked", CREATE), ("\xe9", CREATE), ("gzip", GZIP[:11]), ("gzip", b""),
    ("gzip", gzip.compress(b" " * 10_000_000, mtime=0)),
])  # fmt: skip
def test_a_compressed_body_gets_415_with_the_accepted_encoding(api: Api, coding: str, body: bytes) -> None:
    session_id = api.new({"b": 1})
    before = api.get(session_id).raw
    for method, path in targets(session_id):
        response = api.send(method, path, body, {"Content-Type": JSON, "Content-Encoding": coding})
        assert (response.status, response.msg, response.headers["Accept-Encoding"]) == (415, SENTENCE, "identity")
    assert untouched(api, session_id, before)


def test_content_encodings_over_several_lines_are_one_list(api: Api) -> None:
    lines = ("Content-Encoding: identity", "Content-Encoding: gzip", f"Content-Length: {len(GZIP)}")
    (response,) = conversation(api, head(api, "POST /api/v1/session HTTP/1.1", *lines) + GZIP)
    assert (response.status, response.msg) == (415, SENTENCE)


@pytest.mark.parametrize("coding", ["identity", "Identity", "identity, identity", ", identity,", ",", " ", "\t,\t"])
def test_identity_and_empty_elements_mean_uncompressed(api: Api, coding: str) -> None:
    response = api.send("POST", "/session", CREATE, {"Content-Encoding": coding})
    assert (response.status, response.data["configs"]) == (201, {"a": 1})


@pytest.mark.parametrize(("line", "key", "status"), [
    ("POST /api/v1/session HTTP/1.1", "", 401), ("POST /api/v1/nope HTTP/1.1", "{key}", 404), ("GET /health HTTP/1.1", "", 200),
    ("GET /api/v1/ping HTTP/1.1", "{key}", 200), ("POST /api/v1/ping HTTP/1.1", "{key}", 405),
    ("POST /api/v1/session HTTP/1.1", "{key}", 415),
])  # fmt: skip
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_refused_body_is_skipped_without_decompression_whatever_the_response(
    api: Api, line: str, key: str, status: int, coding: str
) -> None:
    # If anything decompressed these bytes, the error would close the connection.
    headers = (
        "Host: x",
        f"Authorization: Bearer {key.format(key=api.key)}",
        f"Content-Encoding: {coding}",
        "Content-Length: 4000",
    )
    first = "\r\n".join([line, *headers, "", ""]).encode() + b"\xff\x00" * 2000
    responses = conversation(api, first + head(api, "GET /api/v1/ping HTTP/1.1"))
    assert [response.status for response in responses] == [status, 200]


LENGTH, CHUNKED = "Content-Length: 19", "Transfer-Encoding: chunked"
TRUNCATED = {
    "no byte": (LENGTH, b""),
    "its first byte": (LENGTH, CREATE[:1]),
    "all but its last byte": (LENGTH, CREATE[:-1]),
    "a complete document": ("Content-Length: 20", CREATE),
    "an empty document": ("Content-Length: 3", b"{}"),
    "blanks": ("Content-Length: 3", b"  "),
    "no chunk": (CHUNKED, b""),
    "the size of a chunk": (CHUNKED, b"13"),
    "the first line of a chunk": (CHUNKED, b"13\r\n"),
    "a part of a chunk": (CHUNKED, b"13\r\n" + CREATE[:-1]),
    "a chunk without its end": (CHUNKED, b"13\r\n" + CREATE),
    "complete chunks": (CHUNKED, b"13\r\n" + CREATE + b"\r\n"),
    "a part of the last chunk": (CHUNKED, b"13\r\n" + CREATE + b"\r\n0"),
    "the last chunk without its end": (CHUNKED, b"13\r\n" + CREATE + b"\r\n0\r\n"),
    "a part of the trailer": (CHUNKED, b"13\r\n" + CREATE + b"\r\n0\r\nX: y\r\n"),
    "a large body": ("Content-Length: 1000000", b'{"configs":{}}'.ljust(999_999)),
    "a large chunk": (CHUNKED, b"f4240\r\n" + b'{"configs":{}}'.ljust(999_999)),
}


@pytest.mark.parametrize(("framing", "sent"), TRUNCATED.values(), ids=TRUNCATED)
@pytest.mark.parametrize("coding", ["", "gzip"])
def test_a_truncated_body_is_refused_on_every_route(api: Api, framing: str, sent: bytes, coding: str) -> None:
    session_id = api.new({"b": 1})
    before = api.get(session_id).raw
    headers = [framing, *([f"Content-Encoding: {coding}"] if coding else [])]
    for method, path in targets(session_id):
        (response,) = conversation(api, head(api, f"{method} /api/v1{path} HTTP/1.1", *headers) + sent)
        assert response.status == (415 if coding else 400), response
    assert untouched(api, session_id, before)


@pytest.mark.parametrize("requests", [1, 40])
def test_a_truncated_body_behind_pipelined_requests_gets_400_too(api: Api, requests: int) -> None:
    whole = head(api, "GET /api/v1/ping HTTP/1.1") * requests
    responses = conversation(api, whole + head(api, "POST /api/v1/session HTTP/1.1", LENGTH) + CREATE[:-1])
    assert [response.status for response in responses] == [200] * requests + [400]
    assert api.ids() == []


def test_a_body_over_the_limit_gets_413_before_100_continue(api: Api) -> None:
    for length, expected in ((1024 * 1024 + 1, 413), (10**15, 413)):
        with connect(api) as connection:
            connection.sendall(head(api, "POST /api/v1/session HTTP/1.1", "Expect: 100-continue", f"Content-Length: {length}"))
            received = connection.recv(65536)
        assert received.startswith(b"HTTP/1.1 413")
        assert [response.status for response in answers_in(received)] == [expected]


def test_a_compressed_body_gets_415_before_100_continue(api: Api) -> None:
    with connect(api) as connection:
        lines = ("Expect: 100-continue", "Content-Length: 9", "Content-Encoding: gzip")
        connection.sendall(head(api, "POST /api/v1/session HTTP/1.1", *lines))
        assert connection.recv(65536).startswith(b"HTTP/1.1 415")
