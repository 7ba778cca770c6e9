"""What a worker counts, and where in its slot of shared memory: plain integers, written without a lock.

A `Layout` assigns the words of a slot. The workers write by it through `Counters`, the admin server reads by it. Durations are
in microseconds. No count is by project, session, user or key: their number has no bound.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

from service.errors import reasons
from service.http.server.admission import NO_ROUTE
from service.process.slots import CONNECTIONS, FIRST_COUNTER, IN_FLIGHT, Words
from service.redis_client.multiplexer import Command

#: Upper bounds of buckets: microseconds of a request and of a call of Redis, sessions of a list.
REQUEST_BOUNDS = (
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000
)  # fmt: skip
CALL_BOUNDS = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000)
LIST_BOUNDS = (0, 1, 10, 20, 50, 100, 200, 500, 1_000, 2_500, 5_000, 10_000)

HTTP_OK = 200
#: Every other status of a response.
OTHER_STATUSES = tuple(sorted({201, 302, 304, *reasons()}))
#: Every reason of an error response.
REASONS = tuple(sorted({reason for words in reasons().values() for reason in words}))
#: Stands for a method that no route has, and for scripts and commands that are not counted by name.
OTHER = "other"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", OTHER)
#: Commands that are counted beside the scripts. A batch counts as one call, of its first command.
COMMANDS = ("HMGET", "HGET")

_OFFSETS = {status: offset for offset, status in enumerate(OTHER_STATUSES)}
_REQUEST_SUM, _CALL_SUM = len(REQUEST_BOUNDS) + 1, len(CALL_BOUNDS) + 1


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
        #: By the SHA-1 of a script or a command's name: the label, and the times of its calls.
        self.calls = {key: (label, self._histogram(CALL_BOUNDS)) for key, label in _calls(scripts)}

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


def _calls(scripts: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    yield from scripts
    for name in COMMANDS:
        yield name, name.lower()
    yield OTHER, OTHER


class Counters:
    """One worker's slot. `Meter` of its Redis client.

    `request` and `called`, which every request needs, do by themselves what `Histogram.observe` does.
    """

    __slots__ = ("_calls", "_layout", "_no_route", "_other_calls", "_requests", "_words")

    def __init__(self, layout: Layout, words: Words) -> None:
        self._layout = layout
        self._words = words
        self._requests = layout.requests
        self._no_route = layout.requests[OTHER, NO_ROUTE]
        self._calls: dict[str | bytes | int, int] = {key: histogram.start for key, (_, histogram) in layout.calls.items()}
        self._other_calls = self._calls[OTHER]

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request has its response, after so many seconds."""
        micros, words = int(seconds * 1_000_000), self._words
        ok, other, statuses = self._requests.get((method, route), self._no_route)
        if status == HTTP_OK:
            start = ok[0]
        else:
            start = other[0]
            words[statuses + _OFFSETS[status]] += 1
        words[start + bisect_left(REQUEST_BOUNDS, micros)] += 1
        words[start + _REQUEST_SUM] += micros

    def called(self, command: Command, seconds: float) -> None:
        """Redis has answered a command, or failed to, after so many seconds."""
        micros, words = int(seconds * 1_000_000), self._words
        name = command[0]
        start = self._calls.get(command[1] if name == "EVALSHA" else name, self._other_calls)
        words[start + bisect_left(CALL_BOUNDS, micros)] += 1
        words[start + _CALL_SUM] += micros

    def refused(self, reason: str) -> None:
        """A response was an error with this reason."""
        self._words[self._layout.reasons[reason]] += 1

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
