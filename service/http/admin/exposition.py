"""The metrics: the sums over all workers' slots, in the formats of Prometheus.

prometheus_client encodes them. Its own counters are not used: for several processes they write to files behind a lock.
"""

import platform
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from service import __version__
from service.http.admin.redis_state import RedisState
from service.http.server.counters import HTTP_OK, OTHER_STATUSES, Histogram, Layout
from service.process.slots import CONNECTIONS, IN_FLIGHT, RESTARTS, Slots

_MICROSECONDS, _ONE = 1_000_000, 1


class Exposition:
    """Encodes what is in the slots of all workers."""

    def __init__(self, layout: Layout, slots: Slots) -> None:
        self._layout = layout
        self._slots = slots

    def encode(self, redis: RedisState, accept: str) -> tuple[bytes, str]:
        """The metrics now, and their media type, chosen by an Accept header."""
        registry = CollectorRegistry()
        registry.register(_Snapshot(self._layout, self._slots, redis))
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type


class _Snapshot(Collector):
    """The metrics at one moment."""

    def __init__(self, layout: Layout, slots: Slots, redis: RedisState) -> None:
        self._layout = layout
        self._words = [sum(words) for words in zip(*slots, strict=True)]
        self._redis = redis

    def describe(self) -> list[Metric]:
        """No names: nothing else is in the registry."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        yield from self._http()
        yield from self._of_redis()
        layout, words = self._layout, self._words
        yield self._histogram("scc_list_candidates", "Sessions examined for a page of a list.", layout.candidates)
        yield self._histogram("scc_list_matches", "Sessions on a page of a list.", layout.matches)
        uncertain = words[layout.reasons["write_uncertain"]]
        yield CounterMetricFamily("scc_write_uncertain", "Writes that may or may not have happened.", uncertain)
        yield CounterMetricFamily("scc_expired_sessions", "Expired sessions that were removed.", words[layout.expired])
        yield CounterMetricFamily("scc_worker_restarts", "Workers that exited or hung, and were replaced.", words[RESTARTS])
        build = GaugeMetricFamily("scc_build_info", "The release; the value is always 1.", labels=["version", "python"])
        build.add_metric([__version__, platform.python_version()], 1)
        yield build

    def _http(self) -> Iterator[Metric]:
        words = self._words
        requests = CounterMetricFamily("scc_http_requests", "Requests with a response.", labels=["route", "method", "status"])
        seconds = HistogramMetricFamily(
            "scc_http_request_seconds", "Time from a request to its response.", labels=["route", "method"]
        )
        for (method, route), place in self._layout.requests.items():
            statuses = dict(zip(OTHER_STATUSES, words[place.statuses :], strict=False))
            statuses[HTTP_OK] = sum(self._counts(place.ok))
            for status, count in statuses.items():
                if count:
                    requests.add_metric([route, method, str(status)], count)
            self._add(seconds, [route, method], place.ok, place.other)
        yield requests
        yield seconds
        yield GaugeMetricFamily("scc_http_in_flight", "Requests without a response yet.", words[IN_FLIGHT])
        yield GaugeMetricFamily("scc_http_connections", "Open connections.", words[CONNECTIONS])
        refused = CounterMetricFamily("scc_http_refused", "Error responses, by their reason.", labels=["reason"])
        for reason, word in self._layout.reasons.items():
            refused.add_metric([reason], words[word])
        yield refused

    def _of_redis(self) -> Iterator[Metric]:
        calls = HistogramMetricFamily(
            "scc_redis_call_seconds", "Time from a call of a Lua script, or a batch of calls, to its reply.", labels=["script"]
        )
        for label, histogram in self._layout.calls.values():
            self._add(calls, [label], histogram)
        yield calls
        yield CounterMetricFamily(
            "scc_redis_retries", "Commands that were sent to Redis again.", self._words[self._layout.retries]
        )
        yield GaugeMetricFamily(
            "scc_redis_up", "Whether all Redis masters answer and writes are accepted.", int(self._redis.is_up)
        )
        if self._redis.memory is not None:
            yield GaugeMetricFamily("scc_embedded_redis_memory_bytes", "Memory of the embedded Redis.", self._redis.memory)
        if self._redis.aof is not None:
            yield GaugeMetricFamily("scc_embedded_redis_aof_bytes", "Size of the embedded Redis's file.", self._redis.aof)

    def _histogram(self, name: str, documentation: str, histogram: Histogram) -> HistogramMetricFamily:
        family = HistogramMetricFamily(name, documentation, labels=[])
        self._add(family, [], histogram, unit=_ONE, even_if_empty=True)
        return family

    def _counts(self, histogram: Histogram) -> list[int]:
        """The counts of its buckets."""
        return self._words[histogram.start : histogram.end - 1]

    def _add(
        self,
        family: HistogramMetricFamily,
        labels: list[str],
        *histograms: Histogram,
        unit: int = _MICROSECONDS,
        even_if_empty: bool = False,
    ) -> None:
        """Add the sum of histograms with the same bounds, in 1/`unit`, unless nothing was observed."""
        counts = [sum(bucket) for bucket in zip(*map(self._counts, histograms), strict=True)]
        if not any(counts) and not even_if_empty:
            return
        total = sum(self._words[histogram.end - 1] for histogram in histograms)
        bounds = [*(repr(bound / unit) for bound in histograms[0].bounds), "+Inf"]
        family.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total / unit)
