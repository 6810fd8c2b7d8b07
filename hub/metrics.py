"""Prometheus metrics: a bounded set of series, by connection and outcome, never by recipient or key.

What is counted on every try is kept in plain numbers of the event loop's thread and told at a scrape: the
library's own counters take a lock each time, at a tenth of a whole delivery.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

#: Upper bounds of the buckets of a try's duration, in seconds.
BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0)


class _Attempts:
    """Tries by connection and outcome, and how long they took."""

    def __init__(self) -> None:
        self.outcomes: Tally[tuple[str, str]] = Tally()
        self.types: Tally[str] = Tally()
        #: Per connection: tries per bucket (the last is beyond all bounds), then the sum of seconds.
        self.durations: dict[str, list[float]] = {}

    def collect(self) -> Iterator[Metric]:
        attempts = CounterMetricFamily(
            "unionhub_attempts", "Tries by connection and outcome", labels=["connection", "outcome"]
        )
        for (connection, outcome), tries in self.outcomes.items():
            attempts.add_metric([connection, outcome], tries)
        yield attempts
        seconds = HistogramMetricFamily("unionhub_attempt_seconds", "Duration of one try", labels=["connection"])
        for connection, (*counts, total) in self.durations.items():
            below, buckets = 0.0, []
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
                below += count
                buckets.append((bound, below))
            seconds.add_metric([connection], buckets, total)
        yield seconds
        events = CounterMetricFamily("unionhub_events", "Events stored by type", labels=["type"])
        for event_type, stored in self.types.items():
            events.add_metric([event_type], stored)
        yield events


registry = CollectorRegistry()
_attempts = _Attempts()
registry.register(_attempts)

inbound = Counter(
    "unionhub_inbound_requests",
    "Inbound requests by connection and answer",
    ["connection", "status"],
    registry=registry,
)
deliveries = Gauge(
    "unionhub_deliveries", "Deliveries by destination and state", ["destination", "state"], registry=registry
)
runs = Counter("unionhub_runs", "Runs by kind and result", ["kind", "result"], registry=registry)
pruned = Counter("unionhub_pruned_rows", "Rows of history that were kept long enough", ["table"], registry=registry)
oldest_day = Gauge(
    "unionhub_history_oldest_seconds", "Age of the oldest day of history that is kept", registry=registry
)
oldest_snapshot = Gauge(
    "unionhub_snapshot_age_seconds",
    "Age of the oldest open snapshot: meanwhile nothing that was deleted gives its place back",
    registry=registry,
)


def observe_attempt(connection: str, outcome: str, seconds: float) -> None:
    """Counts one try; called on the event loop only."""
    _attempts.outcomes[connection, outcome] += 1
    durations = _attempts.durations.get(connection)
    if durations is None:
        durations = _attempts.durations[connection] = [0.0] * (len(BUCKETS) + 2)
    durations[bisect_left(BUCKETS, seconds)] += 1
    durations[-1] += seconds


def count_event(event_type: str) -> None:
    _attempts.types[event_type] += 1


def render() -> tuple[bytes, str]:
    """The exposition text and its content type."""
    return generate_latest(registry), CONTENT_TYPE_LATEST
