"""One thread runs the networks; faces of all requests that wait go through together."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..aligner import FaceAligner
from ..detections import Detections
from ..detector import FaceDetector
from ..face import Face
from .metrics import Metrics

Image = NDArray[np.uint8]

_BATCH_PICTURES: Final = 16  # in one batch, so that the first does not wait for too many


@dataclass(frozen=True)
class Detectors:
    """The same detector twice: with all threads for a single picture, and with one for each of
    many pictures, which is faster for all together."""

    all_threads: FaceDetector
    one_thread: FaceDetector

    @classmethod
    def of(cls, detector: FaceDetector) -> Detectors:
        """Opens the network a second time."""
        return cls(detector, detector.single_threaded())

    def adjusted(
        self, score_threshold: float | None, iou_threshold: float | None, max_faces: int
    ) -> Detectors:
        """See :meth:`threedfa.FaceDetector.adjusted`."""
        return Detectors(
            *(
                detector.adjusted(
                    score_threshold=score_threshold,
                    iou_threshold=iou_threshold,
                    max_faces=max_faces,
                )
                for detector in (self.all_threads, self.one_thread)
            )
        )


@dataclass
class _Job:
    """The pictures of one request; the future is for their `Detections` or their faces."""

    detectors: Detectors
    aligner: FaceAligner | None
    images: Sequence[Image]
    future: Future[Any] = field(default_factory=Future)
    found: list[Detections] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)


class Batcher:
    """Runs detectors and aligners in threads of its own, from `start` to `stop`.

    Args:
        threads: pictures that are searched for faces at a time.
    """

    def __init__(self, threads: int) -> None:
        self.metrics = Metrics(self._waiting)
        self._threads = threads
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

    def detect(self, detectors: Detectors, images: Sequence[Image]) -> Future[list[Detections]]:
        """Faces of each image, as :meth:`threedfa.FaceDetector.detect` finds them."""
        return self._put(_Job(detectors, None, images))

    def analyze(
        self, detectors: Detectors, aligner: FaceAligner, images: Sequence[Image]
    ) -> Future[list[list[Face]]]:
        """Faces of each image, as :meth:`threedfa.FaceAnalyzer.analyze` finds them."""
        return self._put(_Job(detectors, aligner, images))

    def _put(self, job: _Job) -> Future[Any]:
        self._jobs.put(job)
        return job.future

    def _waiting(self) -> int:
        return self._jobs.qsize()

    def _run(self) -> None:
        more = True
        with ThreadPoolExecutor(self._threads, "threedfa-detector") as pool:
            while more:
                jobs, more = self._collect()
                detected = self._detect(pool, jobs)
                for aligner in dict.fromkeys(job.aligner for job in detected):
                    if aligner is not None:
                        self._align(aligner, [job for job in detected if job.aligner is aligner])

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

    def _detect(self, pool: ThreadPoolExecutor, jobs: Sequence[_Job]) -> list[_Job]:
        """Find the faces of all jobs; those that did not fail."""
        single = sum(len(job.images) for job in jobs) == 1
        with self.metrics.stage("detect"):
            running = [
                pool.map(
                    job.detectors.all_threads.detect_loaded
                    if single
                    else job.detectors.one_thread.detect_loaded,
                    job.images,
                )
                for job in jobs
            ]
            detected = []
            for job, found in zip(jobs, running, strict=True):
                try:
                    job.found = list(found)
                except Exception as error:  # belongs to this request, whatever it is
                    job.future.set_exception(error)
                else:
                    detected.append(job)
        for job in detected:
            if job.aligner is None:
                self._finish(job, job.found)
        return detected

    def _align(self, aligner: FaceAligner, jobs: Sequence[_Job]) -> None:
        images = [image for job in jobs for image in job.images]
        found = [detections for job in jobs for detections in job.found]
        self.metrics.batch_faces.observe(sum(map(len, found)))
        try:
            with self.metrics.stage("align"):
                faces = iter(aligner.align_detected(images, found))
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
            for job in jobs if len(jobs) > 1 else ():  # only the one that is to blame fails
                self._align(aligner, [job])
            return
        for job in jobs:
            self._finish(job, [next(faces) for _ in job.images])

    def _finish(self, job: _Job, results: Sequence[Detections] | list[list[Face]]) -> None:
        self.metrics.pictures.inc(len(results))
        self.metrics.faces.inc(sum(map(len, results)))
        job.future.set_result(results)
