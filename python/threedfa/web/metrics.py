"""Counters and timers for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """What one server process counts.

    Args:
        queued: says how many requests wait or are worked on.
    """

    def __init__(self, queued: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "threedfa_requests", "Answers", ["route", "status"], registry=self.registry
        )
        self.in_progress = Gauge(
            "threedfa_requests_in_progress", "Requests without an answer", registry=self.registry
        )
        self.errors = Counter(
            "threedfa_errors", "Answers of 400 and more", ["status"], registry=self.registry
        )
        self.pictures = Counter("threedfa_pictures", "Pictures seen", registry=self.registry)
        self.faces = Counter("threedfa_faces", "Faces found", registry=self.registry)
        self.batch_faces = Histogram(
            "threedfa_batch_faces",
            "Detections that went through the regressor together",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self.registry,
        )
        self._stages = Histogram(
            "threedfa_stage_seconds",
            "Time that a stage takes: upload, decode, wait, detect, align, encode, request",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        queue = Gauge("threedfa_queue_requests", "Requests in the queue", registry=self.registry)
        queue.set_function(queued)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block, whatever becomes of it."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.observe(name, time.perf_counter() - start)

    def observe(self, stage: str, seconds: float) -> None:
        """Note the time that a stage took."""
        self._stages.labels(stage).observe(seconds)

    def exposition(self) -> bytes:
        """All of them as text."""
        return generate_latest(self.registry)
