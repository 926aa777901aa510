"""What Prometheus reads of a server."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Upper ends: half a millisecond is what a small network takes, 30 s when requests are given up."""

SAMPLES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server: a registry of its own, so that several live in a process."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            *("convdsl_requests", "Requests for inference answered, by HTTP status"),
            ("model", "status"),
            registry=registry,
        )
        self.latency = Histogram(
            *("convdsl_request_seconds", "From a request's head to its answer"),
            ("model",),
            buckets=SECONDS,
            registry=registry,
        )
        self.queue = Gauge(
            *("convdsl_waiting_requests", "Requests that wait or run"),
            ("model",),
            registry=registry,
        )
        self.batches = Histogram(
            *("convdsl_batch_samples", "Samples that ran together"),
            ("model",),
            buckets=SAMPLES,
            registry=registry,
        )
        self.running = Histogram(
            *("convdsl_run_seconds", "What a batch took to run"),
            ("model",),
            buckets=SECONDS,
            registry=registry,
        )
        self.bodies = Gauge(
            "convdsl_body_bytes", "Bytes of bodies that are held", registry=registry
        )
        ProcessCollector(registry=registry)

    def answered(self, model: str, status: int, seconds: float) -> None:
        self.requests.labels(model, str(status)).inc()
        self.latency.labels(model).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)


@dataclass(frozen=True, slots=True)
class Watch:
    """What a batcher tells of one network."""

    queue: Gauge
    batches: Histogram
    running: Histogram

    @staticmethod
    def of(metrics: Metrics, model: str) -> Watch:
        return Watch(
            metrics.queue.labels(model),
            metrics.batches.labels(model),
            metrics.running.labels(model),
        )

    def waiting(self, requests: int) -> None:
        self.queue.set(requests)

    def ran(self, samples: int, seconds: float) -> None:
        self.batches.observe(samples)
        self.running.observe(seconds)
