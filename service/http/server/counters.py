"""What a worker counts, and where in its slot of shared memory: plain integers, written without a lock.

A `Layout` assigns the words of a slot. The workers write by it through `Counters`, the admin server reads by it. Durations are
in microseconds. No count is by project, session, user or key: their number has no bound.
"""

from bisect import bisect_left
from collections.abc import Iterable
from time import monotonic
from typing import NamedTuple

from aiohttp import web

from service.errors import reasons
from service.http.server.admission import NO_ROUTE, Ticket
from service.http.server.failure import CLIENT_GONE
from service.http.server.response import Response
from service.process.slots import CONNECTIONS, FIRST_COUNTER, IN_FLIGHT, Words

#: Upper bounds of buckets: microseconds of a request and of a script, sessions of a list.
REQUEST_BOUNDS = (
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000
)  # fmt: skip
CALL_BOUNDS = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000)
LIST_BOUNDS = (0, 1, 10, 20, 50, 100, 200, 500, 1_000, 2_500, 5_000, 10_000)

HTTP_OK = 200
#: Every other status of a response.
OTHER_STATUSES = tuple(sorted({201, 302, 304, *reasons()}))
#: Every reason of an error response.
REASONS = tuple(sorted({CLIENT_GONE, *(reason for words in reasons().values() for reason in words)}))
#: Stands for a method that no route has.
OTHER = "other"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", OTHER)

_OFFSETS = {status: offset for offset, status in enumerate(OTHER_STATUSES)}
_REQUEST_SUM = len(REQUEST_BOUNDS) + 1


class Histogram(NamedTuple):
    """A histogram in a slot: a word for each bucket, one for what is above all bounds, one for the sum."""

    start: int
    bounds: tuple[int, ...]

    @property
    def end(self) -> int:
        """The word after it."""
        return self.start + len(self.bounds) + 2

    def observe(self, words: Words, value: int) -> None:
        """Count one value."""
        words[self.start + bisect_left(self.bounds, value)] += 1
        words[self.start + len(self.bounds) + 1] += value


class RequestWords(NamedTuple):
    """The words of a route and method: times of responses with status 200, those of all others, the others' statuses.

    So a request costs two words, and a third only if its status is another one; each sum of them only grows.
    """

    ok: Histogram
    other: Histogram
    statuses: int


class Layout:
    """Which word of a slot is what, for the routes (method and path) and scripts (SHA-1 and name) of this release."""

    def __init__(self, routes: Iterable[tuple[str, str]], scripts: Iterable[tuple[str, str]]) -> None:
        self.retries, self.expired, reasons_start = range(FIRST_COUNTER, FIRST_COUNTER + 3)
        self.reasons = {reason: reasons_start + offset for offset, reason in enumerate(REASONS)}
        self.candidates = Histogram(reasons_start + len(REASONS), LIST_BOUNDS)
        self.matches = Histogram(self.candidates.end, LIST_BOUNDS)
        self.words = self.matches.end
        #: By method and route; those of METHODS without a route included.
        self.requests = {key: self._request_words() for key in _with_head(routes)}
        #: By the SHA-1 of a script: its name, and the times of its calls.
        self.calls = {sha: (name, self._histogram(CALL_BOUNDS)) for sha, name in scripts}

    def _request_words(self) -> RequestWords:
        ok, other = self._histogram(REQUEST_BOUNDS), self._histogram(REQUEST_BOUNDS)
        self.words += len(OTHER_STATUSES)
        return RequestWords(ok, other, other.end)

    def _histogram(self, bounds: tuple[int, ...]) -> Histogram:
        histogram = Histogram(self.words, bounds)
        self.words = histogram.end
        return histogram


def _with_head(routes: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    for method, path in routes:
        yield method, path
        if method == "GET":
            yield "HEAD", path
    for method in METHODS:
        yield method, NO_ROUTE


class Counters:
    """One worker's slot. `Observer` of its requests, and `Meter` of its Redis client."""

    __slots__ = ("_layout", "_no_route", "_requests", "_words")

    def __init__(self, layout: Layout, words: Words) -> None:
        self._layout = layout
        self._words = words
        self._requests = layout.requests
        self._no_route = layout.requests[OTHER, NO_ROUTE]

    def finish(self, request: web.BaseRequest, request_id: str, ticket: Ticket, response: Response, started: float) -> None:  # noqa: ARG002 - as RequestLog's
        """The request that began at `started` (monotonic) has its response."""
        micros = int((monotonic() - started) * 1_000_000)
        words, status = self._words, response.status
        ok, other, statuses = self._requests.get((request.method, ticket.route), self._no_route)
        if status == HTTP_OK:
            start = ok[0]
        else:
            start = other[0]
            words[statuses + _OFFSETS[status]] += 1
            if response.reason:
                words[self._layout.reasons[response.reason]] += 1
        # As Histogram.observe does it, which would be a call more for every request.
        words[start + bisect_left(REQUEST_BOUNDS, micros)] += 1
        words[start + _REQUEST_SUM] += micros

    def refuse(self, request_id: str, peer: str, response: Response) -> None:  # noqa: ARG002 - as RequestLog's
        """Input is answered with an error without having become a request."""
        self._words[self._layout.reasons[response.reason]] += 1

    def called(self, sha: str, seconds: float) -> None:
        """Redis has answered a call of a script, or a batch of calls, or failed to, after so many seconds."""
        _, histogram = self._layout.calls[sha]
        histogram.observe(self._words, int(seconds * 1_000_000))

    def retried(self, count: int) -> None:
        """So many commands are sent to Redis again."""
        self._words[self._layout.retries] += count

    def listed(self, candidates: int, matches: int) -> None:
        """A page of a list with so many matches is complete, for which so many sessions were examined."""
        self._layout.candidates.observe(self._words, candidates)
        self._layout.matches.observe(self._words, matches)

    def expired(self, count: int) -> None:
        """The sweep has removed so many sessions."""
        self._words[self._layout.expired] += count

    def update(self, in_flight: int, connections: int) -> None:
        """How many requests and connections the worker has now."""
        self._words[IN_FLIGHT], self._words[CONNECTIONS] = in_flight, connections
