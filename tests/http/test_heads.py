"""The limits on the head of a request, over raw sockets: 414 for its line, 431 for its headers; within them it is served."""

import json
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from tests.support.http import Api, api_on
from tests.support.raw_http import answers_in, connect, conversation, head
from tests.support.server import PATIENCE, Serving

LINE, HEAD, FIELD, FIELDS = 64 * 1024, 32 * 1024, 8190, 128
PING = "GET /api/v1/ping HTTP/1.1"
TOO_LONG = "the request line is longer than 65536 bytes; send a shorter filter_by_configs"
LARGE = "the request headers are larger than 32768 bytes"
LONG = "a request header is longer than 8190 bytes"
MANY = "the request has more than 128 headers"


def target(size: int) -> str:
    """A target of `size` bytes, with a filter of one string."""
    start, end = "/api/v1/session?filter_by_configs=%7B%22a%22%3A%22", "%22%7D"
    return start + "x" * (size - len(start) - len(end)) + end


def fields(total: int, each: int = 1000) -> list[str]:
    """Header lines of about `total` bytes, counted as the service does, with those that `head` adds."""
    lines = [f"X-{number}: ".ljust(each, "y") for number in range(total // (each + 2) + 1)]
    return lines[: total // (each + 2)]


@pytest.fixture(params=["one packet", "many packets"])
def ask(request: pytest.FixtureRequest, api: Api) -> Callable[[bytes], tuple[int, str, str | None]]:
    """Sends a request, and returns status, message and Connection of the one response."""

    def whole(sent: bytes) -> tuple[int, str, str | None]:
        (response,) = conversation(api, sent)
        return response.status, response.msg, response.headers["Connection"]

    def parts(sent: bytes) -> tuple[int, str, str | None]:
        received = b""
        with connect(api) as connection:
            for at in range(0, len(sent), 7000):
                connection.sendall(sent[at : at + 7000])
                time.sleep(0.002)
            connection.settimeout(PATIENCE)
            while part := connection.recv(65536):
                received += part
                # After a response that keeps the connection open, no end of file follows.
                if b"Connection: close" not in received and received.endswith(b"}"):
                    break
        (response,) = answers_in(received)
        return response.status, response.msg, response.headers["Connection"]

    return whole if request.param == "one packet" else parts


Ask = Callable[[bytes], tuple[int, str, str | None]]


@pytest.mark.parametrize("size", [8190, 9000, 20_000, LINE - 1, LINE])
def test_a_request_line_of_64_kib_is_served(api: Api, ask: Ask, size: int) -> None:
    api.new({"a": 1})
    assert ask(head(api, f"GET {target(size)} HTTP/1.1"))[:2] == (200, "")


@pytest.mark.parametrize("size", [LINE + 1, LINE + 8190, 200_000, 1_000_000])
def test_a_longer_request_line_gets_414_naming_filter_and_limit(api: Api, ask: Ask, size: int) -> None:
    assert ask(head(api, f"GET {target(size)} HTTP/1.1")) == (414, TOO_LONG, "close")
    assert ask(head(api, f"PUT /{'y' * size} HTTP/1.1")) == (414, TOO_LONG, "close")


@pytest.mark.parametrize("line", [PING, f"GET {target(60_000)} HTTP/1.1"])
@pytest.mark.parametrize(("headers", "message"), [
    (["X: " + "y" * (FIELD + 1)], LONG), (["X" * (FIELD + 1) + ": y"], LONG), (["X: " + "y" * 1_000_000], LONG),
    (["X" * 1_000_000 + ": y"], LONG), (["Authorization: " + "y" * 9000], LONG),
    ([f"X-{number}: y" for number in range(FIELDS)], MANY), ([f"X-{number}: y" for number in range(50_000)], MANY),
    (fields(HEAD + 1000), LARGE), (fields(100_000), LARGE), (fields(HEAD + 8000, 8000), LARGE), (fields(900_000, 8000), LARGE),
])  # fmt: skip
def test_headers_that_are_too_large_or_too_many_get_431_naming_the_limit(
    api: Api, ask: Ask, line: str, headers: list[str], message: str
) -> None:
    status, msg, connection = ask(head(api, line, *headers))
    assert (status, connection) == (431, "close")
    # Packets decide which limit is exceeded first.
    assert msg == message or (len("".join(headers)) > HEAD and msg in (LARGE, MANY))


@pytest.mark.parametrize("headers", [
    ["X: " + "y" * (FIELD - 1)], [f"X-{number}: y" for number in range(FIELDS - 2)], fields(HEAD - 1500),
    fields(HEAD - 9000, 8000),
])  # fmt: skip
def test_headers_within_the_limits_are_served(api: Api, ask: Ask, headers: list[str]) -> None:
    assert ask(head(api, PING, *headers))[:2] == (200, "pong")


@pytest.mark.parametrize("sent", [
    b"GET /" + b"y" * (LINE - 10), b"GET / HTTP/1.1\r\nX: " + b"y" * 1000, b"GET / HTTP/1.1\r\n" + b"X: yyyyyyyy\r\n" * 100,
])  # fmt: skip
def test_the_server_waits_for_the_rest_of_a_head_within_the_limits(api: Api, sent: bytes) -> None:
    with connect(api) as connection:
        connection.sendall(sent)
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_an_incomplete_head_over_the_limits_gets_431(api: Api) -> None:
    sent = b"GET /" + b"y" * (LINE - 100) + b" HTTP/1.1\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"y" * 8000) for n in range(20))
    with connect(api) as connection:
        for at in range(0, len(sent), 16_000):
            connection.sendall(sent[at : at + 16_000])
            time.sleep(0.01)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert [(response.status, response.msg) for response in answers_in(received)] == [(431, LARGE)]


@pytest.mark.parametrize(("line", "headers", "status"), [
    (f"GET {target(LINE + 1)} HTTP/1.1", [], 414), (PING, fields(100_000), 431), ("FOO / HTTP/1.1", [], 400),
])  # fmt: skip
def test_requests_before_a_refused_head_are_served_and_those_behind_it_are_not(
    api: Api, line: str, headers: list[str], status: int
) -> None:
    create = head(api, "POST /api/v1/session HTTP/1.1", "Content-Length: 2") + b"{}"
    with connect(api) as connection:
        connection.sendall(create)
        time.sleep(0.2)
        connection.sendall(head(api, line, *headers) + create * 3)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert [response.status for response in answers_in(received)] == [201, status]
    assert len(api.ids()) == 1


def test_a_refused_client_that_keeps_sending_can_still_read_its_response(api: Api) -> None:
    with connect(api) as connection:
        connection.sendall(b"GET /" + b"y" * 70_000)
        for _ in range(50):
            connection.sendall(b"y" * 50_000)
            time.sleep(0.002)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert [(response.status, response.msg) for response in answers_in(received)] == [(414, TOO_LONG)]


@pytest.fixture(scope="module")
def small(serve: Callable[..., Serving]) -> Iterator[Api]:
    """A server with the smallest limits on heads."""
    api = api_on(serve("--workers", "1", "--max-line-bytes", "8192", "--max-head-bytes", "8192"))
    yield api
    api.close()


def test_the_limits_can_be_configured(small: Api) -> None:
    (response,) = conversation(small, head(small, f"GET {target(8193)} HTTP/1.1"))
    assert (response.status, response.msg) == (414, TOO_LONG.replace("65536", "8192"))
    (response,) = conversation(small, head(small, PING, "X: " + "y" * 9000))
    assert response.status == 431
    (response,) = conversation(small, head(small, PING, *fields(10_000)))
    assert (response.status, response.msg) == (431, LARGE.replace("32768", "8192"))
    (response,) = conversation(small, head(small, PING, *fields(7000)))
    assert response.status == 200


def test_a_filter_of_a_thousand_cjk_characters_works(api: Api) -> None:
    text = "".join(chr(0x4E00 + number) for number in range(1000))
    api.new({"text": text[1:]})
    session_id = api.new({"text": text})
    for subset in (json.dumps({"text": text}), json.dumps({"text": text}, ensure_ascii=False)):
        assert len(quote(subset)) > 8000
        assert api.ids(filter_by_configs=subset) == [session_id]
