"""Each limit on both sides; a refused write changes nothing."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.support.http import JSON, Api, api_on
from tests.support.server import Serving

CONFIGS_BYTES, BODY_BYTES, NESTING, KEYS, TERMS = 256 * 1024, 1024 * 1024, 64, 1024, 512


@pytest.fixture(scope="module")
def roomy(serve: Callable[..., Serving]) -> Iterator[Api]:
    """A server that allows as many index terms as keys; with fewer, the limit on keys is never reached."""
    api = api_on(serve("--workers", "1", "--max-terms", str(KEYS)))
    yield api
    api.close()


METHODS = pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])


def write(api: Api, method: str, session_id: str, configs: bytes, status: int) -> str:
    """Write raw configs: create, replace or merge. Returns the message of the response."""
    body = b'{"configs":%b}' % configs
    path = f"/session/{session_id}/configs"
    if method == "POST":
        path, status = "/session", 201 if status == 200 else status
    return api.call(method, path, body, status).msg


def stored_size(configs: dict[str, Any]) -> int:
    """Bytes of the stored form of configs whose values are strings without escapes."""
    return len("{\n" + ",\n".join(f'"{key}":"{value}"' for key, value in configs.items()) + "\n}")


def check_limit(api: Api, method: str, largest: bytes, too_large: bytes, status: int, message: str) -> None:
    """Check that `largest` can be written and `too_large` cannot, and that the latter changes neither session nor index."""
    start = {"start": str(uuid4())}
    session_id = api.new(start)
    before, count = api.get(session_id).raw, len(api.ids())
    assert write(api, method, session_id, too_large, status) == message
    assert api.get(session_id).raw == before
    assert api.matching(start) == [session_id]
    assert len(api.ids()) == count
    if method == "PATCH":
        api.put(session_id, {})
    assert write(api, method, session_id, largest, 200) == ""


@METHODS
def test_configs_of_256_kib_fit_and_one_byte_more_does_not(api: Api, method: str) -> None:
    room = CONFIGS_BYTES - stored_size({"k": ""})
    most, over = (b'{"k":"%b"}' % (b"x" * size) for size in (room, room + 1))
    check_limit(api, method, most, over, 413, "configs are larger than 262144 bytes")


def test_the_size_counts_after_the_merge(api: Api) -> None:
    half = "x" * (CONFIGS_BYTES // 2 - 100)
    session_id = api.new({"a": half})
    api.patch(session_id, {"b": half})
    before = api.get(session_id).raw
    assert api.patch(session_id, {"c": "x" * 400}, 413).msg == "configs are larger than 262144 bytes"
    assert api.get(session_id).raw == before
    assert api.matching({"c": "x" * 400}) == []
    # What the same patch removes makes room.
    assert list(api.patch(session_id, {"c": "x" * 400, "a": None}).data["configs"]) == ["b", "c"]


def test_white_space_between_tokens_counts_only_against_the_body(api: Api) -> None:
    session_id = api.new()
    write(api, "PUT", session_id, b"{" + b"\n" * (CONFIGS_BYTES + 1) + b'"a":1}', 200)
    assert api.get(session_id).data["configs"] == {"a": 1}


@METHODS
def test_64_levels_fit_and_65_do_not(api: Api, method: str) -> None:
    for opening, closing in ((b'{"a":', b"}"), (b"[", b"]")):
        depth = NESTING if opening != b"[" else NESTING - 1
        texts = [opening * levels + b"1" + closing * levels for levels in (depth, depth + 1)]
        most, over = texts if opening != b"[" else [b'{"a":%b}' % text for text in texts]
        check_limit(api, method, most, over, 400, f"the JSON is nested deeper than {NESTING} levels")


@pytest.mark.parametrize("body", [
    b"[" * 500_000, b'{"configs":' + b"[" * 500_000, b"[" * 500_000 + b"]" * 500_000, b'{"configs":' * 90_000,
    b'{"configs":{"a":' + b"[{}," * 200_000, b'{"configs":{},"other":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"configs":' + b"[" * 100_000 + b"]" * 100_000 + b',"configs":{}}',
])  # fmt: skip
def test_deep_nesting_anywhere_in_a_body_gets_400(api: Api, body: bytes) -> None:
    session_id = api.new({"a": 1})
    for method, path in (("POST", "/session"), ("PUT", f"/session/{session_id}/configs"), ("PATCH", "/project/configs")):
        assert api.call(method, path, body, 400).msg.startswith("the JSON is nested deeper than")


def test_brackets_in_strings_do_not_count_as_nesting(api: Api) -> None:
    text = "[{" * 1000 + '\\"' + "]["
    assert api.create(configs={text: text})["configs"] == {text: text}


@METHODS
def test_1024_keys_fit_and_1025_do_not(roomy: Api, method: str) -> None:
    most, over = (b"{" + b",".join(b'"k%d":null' % n for n in range(count)) + b"}" for count in (KEYS, KEYS + 1))
    if method == "PATCH":  # nulls would delete
        most, over = most.replace(b"null", b"1"), over.replace(b"null", b"1")
    check_limit(roomy, method, most, over, 413, "configs have more than 1024 top-level keys")


def test_the_number_of_keys_counts_after_the_merge(roomy: Api) -> None:
    session_id = roomy.new({f"k{number}": number for number in range(KEYS)})
    before = roomy.get(session_id).raw
    assert roomy.patch(session_id, {"one": 1}, 413).msg == "configs have more than 1024 top-level keys"
    assert roomy.get(session_id).raw == before
    assert len(roomy.patch(session_id, {"one": 1, "k0": None}).data["configs"]) == KEYS


@METHODS
def test_512_index_terms_fit_and_513_do_not(api: Api, method: str) -> None:
    full = [b'"k%d":%b' % (key, str(list(range(64))).encode()) for key in range(TERMS // 64)]
    most = b"{" + b",".join(full) + b"}"
    over = b"{" + b",".join([*full, b'"one":1']) + b"}"
    check_limit(api, method, most, over, 413, "configs have more than 512 index terms")


def test_a_container_of_more_than_64_terms_counts_as_one(api: Api) -> None:
    configs = {f"k{key}": list(range(65)) for key in range(70)}
    session_id = api.new(configs)
    assert api.matching({"k69": [64], "k0": [0]}) == [session_id]


def test_the_number_of_terms_counts_after_the_merge(api: Api) -> None:
    session_id = api.new({f"k{key}": list(range(64)) for key in range(TERMS // 64)})
    before = api.get(session_id).raw
    assert api.patch(session_id, {"one": 1}, 413).msg == "configs have more than 512 index terms"
    assert api.get(session_id).raw == before
    api.patch(session_id, {"one": 1, "k0": list(range(63))})
    assert api.matching({"one": 1}) == [session_id]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_1_mib_fits_and_one_byte_more_does_not(api: Api, chunked: bool) -> None:
    session_id = api.new({"a": 1})
    before = api.get(session_id).raw
    for path, method in ((f"/session/{session_id}/configs", "PUT"), ("/session", "POST"), ("/project/configs", "PATCH")):
        for size, statuses in ((BODY_BYTES + 1, {413}), (BODY_BYTES, {200, 201})):
            body = b'{"configs":{"b":1}}'.ljust(size)
            sent = chunks(body) if chunked else body
            response = api.send(method, path, sent, {"Content-Type": JSON})
            assert response.status in statuses
            if size > BODY_BYTES:
                assert response.msg == "the body is larger than 1048576 bytes"
                assert api.get(session_id).raw == before or method != "PUT"


def chunks(body: bytes, size: int = 60_000) -> Iterator[bytes]:
    """Pieces of `body`, which makes http.client send it chunked."""
    return (body[at : at + size] for at in range(0, len(body), size))


def test_a_chunked_body_is_read_like_any_other(api: Api) -> None:
    response = api.send("POST", "/session", (bytes([byte]) for byte in b'{"configs":{"a":[1,{"b":"\xc3\xa9"}]}}'))
    assert response.data["configs"] == {"a": [1, {"b": "é"}]}


def test_a_chunked_body_far_over_the_limit_gets_413(api: Api) -> None:
    response = api.send("POST", "/session", itertools.repeat(b" " * 65536, 100))
    assert (response.status, response.reason) == (413, "body_too_large")
    assert api.ids() == []


def test_large_responses_are_complete(api: Api) -> None:
    configs = {"k": "x" * 250_000}
    for _ in range(12):
        api.new(configs)
    assert [session["configs"] for session in api.page()["items"]] == [configs] * 12
