"""Threads that turn pictures into answers; faces of those that wait go through the regressor
together."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..aligner import FaceAligner
from ..analyzer import FaceAnalyzer, align_candidates
from ..detections import Detections
from ..detector import FaceDetector
from ..face import Analysis
from .metrics import Metrics

Image = NDArray[np.uint8]
T = TypeVar("T")

Source: TypeAlias = Callable[[], Image]
"""Gives a decoded picture."""

_GROUP: Final = 8  # pictures that one thread takes at once, so that the first does not wait long


@dataclass(frozen=True)
class Engine:
    """Detector and aligner of one pack, twice: for a picture that has the machine for itself, and,
    with networks that keep to one thread, for one of several pictures at a time, which is faster
    for all together."""

    alone: tuple[FaceDetector, FaceAligner]
    among_others: tuple[FaceDetector, FaceAligner]

    @classmethod
    def of(cls, analyzer: FaceAnalyzer) -> Engine:
        """Opens its networks a second time."""
        detector, aligner = analyzer.detector, analyzer.aligner
        return cls((detector, aligner), (detector.single_threaded(), aligner.single_threaded()))

    def adjusted(self, *, confidence_threshold: float | None, **settings: Any) -> Engine:
        """With other settings: see :meth:`threedfa.FaceAligner.adjusted` and
        :meth:`threedfa.FaceDetector.adjusted`.

        Raises:
            ValueError: if the pack has no use for the threshold.
        """

        def of(detector: FaceDetector, aligner: FaceAligner) -> tuple[FaceDetector, FaceAligner]:
            if confidence_threshold is not None:  # else faces of all go through it together
                aligner = aligner.adjusted(confidence_threshold=confidence_threshold)
            return detector.adjusted(**settings), aligner

        return Engine(of(*self.alone), of(*self.among_others))


@dataclass
class _Job:
    """One request. The future is for what ``finish`` makes of its pictures and of what was found in
    each, `Detections` or `Analysis`."""

    engine: Engine
    align: bool
    finish: Callable[[Sequence[Image], Sequence[Any]], Any]
    count: int  # of pictures
    found: dict[int, tuple[Image, Any]] = field(default_factory=dict)
    future: Future[Any] = field(default_factory=Future)
    start: float = field(default_factory=time.perf_counter)

    def fail(self, error: Exception) -> None:
        """Let the whole request fail."""
        with suppress(InvalidStateError):  # the client may be gone
            self.future.set_exception(error)


@dataclass(eq=False)
class _Picture:
    """One of a job's pictures. The job does not know it: a circle of the two would keep the pixels
    in memory until Python looks for circles."""

    job: _Job
    number: int
    source: Source
    image: Image = field(init=False)


_Found: TypeAlias = tuple[_Picture, Detections, FaceDetector]  # in the picture, and by whom


class Batcher:
    """Runs detectors and aligners in threads of its own, from `start` to `stop`.

    Each thread takes its share of the pictures that wait, decodes them and finds the faces in one
    after the other, aligns all of them in one run of the regressor, and makes the answers.

    Args:
        threads: how many.
        metrics: for times and numbers.
    """

    def __init__(self, threads: int, metrics: Metrics) -> None:
        self._metrics = metrics
        self._pictures: queue.Queue[_Picture | None] = queue.Queue()
        self._threads = [
            threading.Thread(target=self._run, name=f"threedfa-networks-{i}", daemon=True)
            for i in range(threads)
        ]
        self._busy = 0  # threads
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish what has been asked for; nothing more may be."""
        for _ in self._threads:
            self._pictures.put(None)
        for thread in self._threads:
            thread.join()

    @property
    def running(self) -> bool:
        """Whether there is somebody to work."""
        return all(thread.is_alive() for thread in self._threads)

    def detect(
        self,
        engine: Engine,
        sources: Sequence[Source],
        finish: Callable[[Sequence[Image], Sequence[Detections]], T],
    ) -> Future[T]:
        """What ``finish`` makes, in one of the threads, of pictures and the faces in each, as
        :meth:`threedfa.FaceDetector.detect` finds them."""
        return self._put(_Job(engine, False, finish, len(sources)), sources)

    def analyze(
        self,
        engine: Engine,
        sources: Sequence[Source],
        finish: Callable[[Sequence[Image], Sequence[Analysis]], T],
    ) -> Future[T]:
        """The same with what :meth:`threedfa.FaceAnalyzer.analyze` finds."""
        return self._put(_Job(engine, True, finish, len(sources)), sources)

    def _put(self, job: _Job, sources: Sequence[Source]) -> Future[Any]:
        for number, source in enumerate(sources):
            self._pictures.put(_Picture(job, number, source))
        return job.future

    def _run(self) -> None:
        while pictures := self._take():
            with self._lock:
                self._busy += 1
                alone = self._busy == 1 and len(pictures) == 1 and self._pictures.empty()
            self._serve(pictures, alone)
            del pictures  # while this thread waits for others
            with self._lock:
                self._busy -= 1

    def _take(self) -> list[_Picture]:
        """This thread's share of what waits, at least one; none when there will be no more."""
        picture = self._pictures.get()
        taken: list[_Picture] = []
        share = min(_GROUP, 1 + self._pictures.qsize() // len(self._threads))
        while picture is not None:
            taken.append(picture)
            self._metrics.observe("wait", time.perf_counter() - picture.job.start)
            if len(taken) == share:
                return taken
            try:
                picture = self._pictures.get_nowait()
            except queue.Empty:
                return taken
        if taken:
            self._pictures.put(None)  # it is for the next round
        return taken

    def _serve(self, pictures: Sequence[_Picture], alone: bool) -> None:
        found: dict[FaceAligner, list[_Found]] = {}
        for picture in pictures:
            job = picture.job
            if job.future.done():  # failed or given up
                continue
            detector, aligner = job.engine.alone if alone else job.engine.among_others
            try:
                with self._metrics.stage("decode"):
                    picture.image = picture.source()
                with self._metrics.stage("detect"):
                    detections = detector.candidates(picture.image)
            except Exception as error:  # belongs to this request, whatever it is
                job.fail(error)
                continue
            if job.align:
                found.setdefault(aligner, []).append((picture, detections, detector))
            else:
                self._deliver(picture, detections[: detector.max_faces])
        for aligner, each in found.items():
            self._align(aligner, each)

    def _align(self, aligner: FaceAligner, found: Sequence[_Found]) -> None:
        pictures, detections, detectors = zip(*found, strict=True)
        self._metrics.batch_faces.observe(sum(len(boxes[: by.max_faces]) for _, boxes, by in found))
        try:
            with self._metrics.stage("align"):
                results = align_candidates(
                    detectors, aligner, [picture.image for picture in pictures], detections
                )
        except Exception as error:
            if len(found) == 1:
                pictures[0].job.fail(error)
            else:  # only the one that is to blame fails
                for one in found:
                    self._align(aligner, [one])
            return
        for picture, result in zip(pictures, results, strict=True):
            self._deliver(picture, result)

    def _deliver(self, picture: _Picture, found: Detections | Analysis) -> None:
        self._metrics.pictures.inc()
        self._metrics.faces.inc(len(found if isinstance(found, Detections) else found.faces))
        job = picture.job
        if job.future.done():  # given up meanwhile
            return
        with self._lock:
            job.found[picture.number] = picture.image, found
            if len(job.found) < job.count:
                return
        images, results = zip(*(job.found[number] for number in range(job.count)), strict=True)
        try:
            with self._metrics.stage("encode"):
                answer = job.finish(images, results)
        except Exception as error:
            job.fail(error)
            return
        with suppress(InvalidStateError):
            job.future.set_result(answer)
