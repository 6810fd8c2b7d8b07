"""Prometheus metrics: a bounded set of series, by connection and outcome, never by recipient or key."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

registry = CollectorRegistry()

attempts = Counter("unionhub_attempts", "Tries by connection and outcome", ["connection", "outcome"], registry=registry)
attempt_seconds = Histogram(
    "unionhub_attempt_seconds",
    "Duration of one try",
    ["connection"],
    buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 30),
    registry=registry,
)
inbound = Counter(
    "unionhub_inbound_requests", "Inbound requests by connection and answer", ["connection", "status"], registry=registry
)
events = Counter("unionhub_events", "Events stored by type", ["type"], registry=registry)
deliveries = Gauge("unionhub_deliveries", "Deliveries by destination and state", ["destination", "state"], registry=registry)
runs = Counter("unionhub_runs", "Runs by kind and result", ["kind", "result"], registry=registry)


@lru_cache(maxsize=4096)
def _children(connection: str, outcome: str) -> tuple[Counter, Histogram]:
    return attempts.labels(connection, outcome), attempt_seconds.labels(connection)


def observe_attempt(connection: str, outcome: str, seconds: float) -> None:
    counter, histogram = _children(connection, outcome)
    counter.inc()
    histogram.observe(seconds)


@lru_cache(maxsize=1024)
def _event_counter(event_type: str) -> Counter:
    return events.labels(event_type)


def count_event(event_type: str) -> None:
    _event_counter(event_type).inc()


def render() -> tuple[bytes, str]:
    """The exposition text and its content type."""
    return generate_latest(registry), CONTENT_TYPE_LATEST
