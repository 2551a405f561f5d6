"""One thread runs the networks; faces of all requests that wait go through together."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..analyzer import FaceAnalyzer
from ..detections import Detections
from ..detector import FaceDetector
from ..face import Face
from .metrics import Metrics

Image = NDArray[np.uint8]

_BATCH_PICTURES: Final = 16  # in one batch, so that the first does not wait for too many


@dataclass
class _Job:
    """The pictures of one request; the future is for their `Detections` or their faces."""

    analyzer: FaceAnalyzer
    detector: FaceDetector
    images: Sequence[Image]
    align: bool
    future: Future[Any] = field(default_factory=Future)
    found: list[Detections] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)


class Batcher:
    """Runs detectors and aligners in a thread of its own, from `start` to `stop`."""

    def __init__(self) -> None:
        self.metrics = Metrics(self._waiting)
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="threedfa-networks", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what has been asked for; nothing more may be."""
        self._jobs.put(None)
        self._thread.join()

    @property
    def running(self) -> bool:
        """Whether there is somebody to work."""
        return self._thread.is_alive()

    def detect(
        self, analyzer: FaceAnalyzer, detector: FaceDetector, images: Sequence[Image]
    ) -> Future[list[Detections]]:
        """Faces of each image, as ``detector.detect`` finds them."""
        return self._put(_Job(analyzer, detector, images, align=False))

    def analyze(
        self, analyzer: FaceAnalyzer, detector: FaceDetector, images: Sequence[Image]
    ) -> Future[list[list[Face]]]:
        """Faces of each image, as ``analyzer.analyze`` with this detector finds them."""
        return self._put(_Job(analyzer, detector, images, align=True))

    def _put(self, job: _Job) -> Future[Any]:
        self._jobs.put(job)
        return job.future

    def _waiting(self) -> int:
        return self._jobs.qsize()

    def _run(self) -> None:
        more = True
        while more:
            jobs, more = self._collect()
            detected = [job for job in jobs if self._detect(job)]
            for analyzer in dict.fromkeys(job.analyzer for job in detected):
                self._align(analyzer, [job for job in detected if job.analyzer is analyzer])

    def _collect(self) -> tuple[list[_Job], bool]:
        """What waits, at least one job; and whether there will be more."""
        job = self._jobs.get()
        jobs: list[_Job] = []
        pictures = 0
        while job is not None:
            # Requests that nobody waits for any more are left out.
            if job.future.set_running_or_notify_cancel():
                self.metrics.observe("wait", time.perf_counter() - job.start)
                jobs.append(job)
                pictures += len(job.images)
            if pictures >= _BATCH_PICTURES:
                return jobs, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _detect(self, job: _Job) -> bool:
        """Find a job's faces; whether they are still to be aligned."""
        try:
            with self.metrics.stage("detect"):
                job.found = [job.detector.detect(image) for image in job.images]
        except Exception as error:  # belongs to this request, whatever it is
            job.future.set_exception(error)
            return False
        if not job.align:
            self._finish(job, job.found)
        return job.align

    def _align(self, analyzer: FaceAnalyzer, jobs: Sequence[_Job]) -> None:
        try:
            with self.metrics.stage("align"):
                images = [image for job in jobs for image in job.images]
                found = [detections for job in jobs for detections in job.found]
                self.metrics.batch_faces.observe(sum(map(len, found)))
                faces = iter(analyzer.aligner.align_detected(images, found))
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
            for job in jobs if len(jobs) > 1 else ():  # only the one that is to blame fails
                self._align(analyzer, [job])
            return
        for job in jobs:
            self._finish(job, [next(faces) for _ in job.images])

    def _finish(self, job: _Job, results: Sequence[Detections] | list[list[Face]]) -> None:
        self.metrics.pictures.inc(len(results))
        self.metrics.faces.inc(sum(map(len, results)))
        job.future.set_result(results)
