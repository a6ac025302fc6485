"""What a server says of itself to Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from executor.service.service import Service

#: seconds, from a resident model's to those of one that streams from a disk
BUCKETS: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class Monitor:
    """`responses` by path and status, `first_token_s` and `seconds` of requests that were served; the service's own
    counts are read when asked for."""

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Counts(service))
        self.responses = Counter("specsim_responses", "HTTP responses.", ("path", "status"), registry=self.registry)
        self.first_token_s = self._seconds("specsim_first_token_seconds", "From a request to its first token.")
        self.seconds = self._seconds("specsim_request_seconds", "From a request to its end.")

    def _seconds(self, name: str, what: str) -> Histogram:
        return Histogram(name, what, buckets=BUCKETS, registry=self.registry)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Counts(Collector):
    def __init__(self, service: Service) -> None:
        self.service = service

    def collect(self) -> Iterator[Metric]:
        service = self.service
        tokens = CounterMetricFamily("specsim_tokens", "Tokens of requests that have ended.", labels=["kind"])
        for kind in ("prompt", "reused", "output"):
            tokens.add_metric([kind], getattr(service.counts, kind))
        ends = CounterMetricFamily("specsim_requests", "Requests that have ended, and how.", labels=["end"])
        for reason, count in list(service.counts.ends.items()):
            ends.add_metric([reason], count)
        yield from (tokens, ends)
        yield GaugeMetricFamily("specsim_waiting", "Requests in line.", service.waiting)
        yield GaugeMetricFamily("specsim_in_flight", "Requests that have a place.", service.in_flight)
        yield GaugeMetricFamily("specsim_free_positions", "Of the caches, kept ones too.", service.free_positions)
        yield GaugeMetricFamily("specsim_kept_positions", "Of caches that are kept.", service.kept_positions)
