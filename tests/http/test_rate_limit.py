"""The rate limit of an API key: shared by all workers, in the headers of every response, separate from other keys."""

import re
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from tests.support.http import Api, Operator, Response
from tests.support.server import Serving, request

#: One request every 100 seconds: the quota does not refill while a test runs.
RATE, BURST = 0.01, 12


@pytest.fixture(scope="module")
def limited(serve: Callable[..., Serving]) -> Iterator[Operator]:
    """A server with a low rate limit."""
    serving = serve("--workers", "2", "--rate-limit", str(RATE), "--rate-burst", str(BURST))
    operator = Operator(serving.server("sk-ac-root-of-the-tests"))
    yield operator
    operator.close()


@pytest.fixture
def project(limited: Operator) -> Iterator[Api]:
    """A new project on that server, whose key has not been used."""
    project = limited.new_project()
    yield project
    project.close()


def quota(response: Response) -> tuple[int, int]:
    """From the headers: requests left, and seconds until the whole burst is available again."""
    assert response.headers["RateLimit-Policy"] == f'"key";q={BURST};w={round(BURST / RATE)}'
    match = re.fullmatch(r'"key";r=(\d+);t=(\d+)', response.headers["RateLimit"])
    assert match is not None
    return int(match[1]), int(match[2])


def test_a_key_over_its_burst_gets_429_on_every_worker(project: Api) -> None:
    # The requests use several connections, so both workers; failed requests count too.
    paths = ["/ping", "/session", "/session/nope", "/nope", "/user/x/resources"]
    for number in range(BURST):
        response = project.send("GET", paths[number % len(paths)])
        assert response.status in (200, 400, 404)
        remaining, reset_after = quota(response)
        assert remaining == BURST - 1 - number
        assert 100 * number < reset_after <= 100 * (number + 1)
    for path in paths:
        response = project.send("GET", path)
        assert (response.status, response.reason) == (429, "rate_limited")
        assert quota(response)[0] == 0
        assert 0 < int(response.headers["Retry-After"]) <= 100


def test_a_request_over_the_rate_limit_writes_nothing(project: Api) -> None:
    for _ in range(BURST):
        project.new({"a": 1})
    assert project.send("POST", "/session", b"{}").status == 429
    assert project.send("POST", "/session", b"{").status == 429
    with Redis.from_url(project.server.redis_url) as redis:
        assert redis.zcard(f"scc:{{{project.project.slug}.0}}:sessions") == BURST


def test_other_keys_and_paths_without_a_key_are_not_limited(project: Api, limited: Operator) -> None:
    for _ in range(BURST + 3):
        last = project.send("GET", "/ping")
    assert last.status == 429
    other = limited.new_project()
    assert quota(other.send("GET", "/ping"))[0] == BURST - 1
    other.close()
    for _ in range(BURST + 3):
        refused = project.send("GET", "/ping", headers={"Authorization": "Bearer sk-ac-nope"})
        assert (refused.status, refused.headers["RateLimit"]) == (401, None)
        assert request("GET", f"{project.server.origin}/health")[0] == 200


def test_without_a_rate_limit_there_are_no_headers_and_no_counters(api: Api) -> None:
    for _ in range(50):
        response = api.send("GET", "/ping")
        assert (response.status, response.headers["RateLimit"], response.headers["RateLimit-Policy"]) == (200, None, None)
    with Redis.from_url(api.server.redis_url) as redis:
        assert list(redis.scan_iter("scc:rate:*")) == []
