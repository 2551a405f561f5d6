"""Counters and timers for Prometheus."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

# prometheus_client counts in files of this folder if it is set when the library is first imported.
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@contextmanager
def counted_together() -> Iterator[None]:
    """The processes that are started meanwhile count as one."""
    with tempfile.TemporaryDirectory(prefix="threedfa-metrics-") as folder:
        os.environ[_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[_FOLDER]


class Metrics:
    """What a server counts; with several workers, what all of them have counted."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "threedfa_requests", "Answers", ["route", "status"], registry=self.registry
        )
        self.in_progress = Gauge(
            "threedfa_requests_in_progress",
            "Requests without an answer",
            multiprocess_mode="livesum",
            registry=self.registry,
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
        self.queue = Gauge(
            "threedfa_queue_requests",
            "Requests in the queue",
            multiprocess_mode="livesum",
            registry=self.registry,
        )

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
        if _FOLDER not in os.environ:
            return generate_latest(self.registry)
        folder = Path(os.environ[_FOLDER])
        for process in {int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_live*")}:
            if not _lives(process):  # it was started anew under another number
                with suppress(FileNotFoundError):  # another worker does the same
                    mark_process_dead(process)  # type: ignore[no-untyped-call]
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
