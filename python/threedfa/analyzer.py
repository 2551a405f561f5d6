"""From an image to aligned faces in one call."""

from __future__ import annotations

import copy
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from itertools import chain, islice
from typing import Any, TypeVar

from .aligner import FaceAligner
from .cpus import available_cpus
from .detector import FaceDetector
from .face import Face
from .image import ColorOrder, load_image, require_several
from .model import MorphableModel
from .networks import Backend
from .pack import Pack

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_GROUP = 4  # images whose faces go through the regressor together


class FaceAnalyzer:
    """Detector and aligner of one pack.

    One analyzer may be used from many threads at once. For the arguments and errors see
    :class:`FaceDetector`.

    Attributes:
        detector: the :class:`FaceDetector`.
        aligner: the :class:`FaceAligner`.
    """

    def __init__(
        self,
        pack: Pack | str | os.PathLike[str] = "default",
        *,
        backend: Backend = "onnxruntime",
        providers: Sequence[str] | None = None,
        num_threads: int | None = None,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        max_faces: int | None = None,
    ) -> None:
        pack = pack if isinstance(pack, Pack) else Pack.load(pack)
        self.detector = FaceDetector(
            pack,
            backend=backend,
            providers=providers,
            num_threads=num_threads,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_faces=max_faces,
        )
        self.aligner = FaceAligner(
            pack, backend=backend, providers=providers, num_threads=num_threads
        )
        # PyTorch has threads of its own for the whole process.
        self._workers = 1 if backend == "torch" else num_threads or available_cpus()

    @property
    def model(self) -> MorphableModel:
        """The pack's morphable model."""
        return self.aligner.model

    def analyze(self, image: Any, *, color: ColorOrder = "rgb") -> list[Face]:
        """Find and align the faces of one image.

        Args:
            image: (H, W, 3) uint8 or anything else that :func:`threedfa.image.load_image` takes.
            color: channel order of an array, ``"rgb"`` or ``"bgr"``.

        Returns:
            The faces, best score first; an empty list where there is none. Left out are detections
            that the regressor could see nothing of (specks, slivers at the border) or that, if the
            pack's regressor says so, are not faces; with ``max_faces`` the next best takes their
            place, looked for among four times as many.

        Raises:
            ImageError: if the image cannot be read or used.
        """
        return _analyze(self.detector, self.aligner, [image], color)[0]

    __call__ = analyze

    def analyze_batch(
        self, images: Iterable[Any], *, color: ColorOrder = "rgb"
    ) -> list[list[Face]]:
        """:meth:`analyze` for many images: as many at a time as the networks have threads, each on
        a thread of its own, which is faster than all threads for one image after the other.

        The faces of a few images go through the regressor together.

        Args:
            images: any number of what :meth:`analyze` takes. Of an iterator they are taken as they
                are needed: at most twelve for each thread are in memory.
            color: channel order of arrays, ``"rgb"`` or ``"bgr"``.

        Returns:
            The faces of each image.

        Raises:
            ImageError: if one of the images cannot be read or used.
            TypeError: for one image in place of several.
        """
        require_several(images)
        size = _GROUP
        if isinstance(images, Sized):
            size = min(size, max(1, len(images) // self._workers))
        source = iter(images)
        groups = iter(lambda: list(islice(source, size)), [])

        def work(analyzer: FaceAnalyzer, group: list[Any]) -> list[list[Face]]:
            return _analyze(analyzer.detector, analyzer.aligner, group, color)

        return list(chain.from_iterable(self.map(work, groups)))

    def map(
        self, work: Callable[[FaceAnalyzer, _Item], _Result], items: Iterable[_Item]
    ) -> Iterator[_Result]:
        """What ``work(analyzer, item)`` gives for each item, on as many threads as the networks
        have (with PyTorch, which has its own, on the calling one): for reading, analyzing and
        writing many pictures, say, each on one thread.

        Args:
            work: gets an analyzer as this one, whose networks keep to the thread they run on.
            items: taken as they are needed, at most three for each thread ahead.

        Returns:
            The results, in the order of the items. The threads end with it: close an iterator that
            is not read to its end.

        Raises:
            Whatever ``work`` or the items raise, in its place; what is not begun is then left.
        """
        alone = self._workers == 1 or (isinstance(items, Sized) and len(items) < 2)
        source = iter(items)
        if alone:
            return (work(self, item) for item in source)
        return _in_threads(partial(work, self._single), source, self._workers)

    @cached_property
    def _single(self) -> FaceAnalyzer:
        """This one with networks that leave the other threads alone."""
        other = copy.copy(self)
        other.detector = self.detector.single_threaded()
        other.aligner = self.aligner.single_threaded()
        other._workers = 1
        return other


def _analyze(
    detector: FaceDetector, aligner: FaceAligner, images: Iterable[Any], color: ColorOrder
) -> list[list[Face]]:
    loaded = [load_image(image, color=color) for image in images]
    found = [detector.candidates(image) for image in loaded]
    return aligner.align_detected(loaded, found, [detector.max_faces] * len(loaded))


def _in_threads(
    function: Callable[[_Item], _Result], items: Iterator[_Item], count: int
) -> Iterator[_Result]:
    """What ``map`` gives, computed by ``count`` threads, for which as many items again wait."""
    pool = ThreadPoolExecutor(count)
    try:
        pending: deque[Future[_Result]] = deque()
        while True:
            try:
                item = next(items)
            except Exception as error:  # first the results of the items before it
                failure = error
                break
            pending.append(pool.submit(function, item))
            if len(pending) > 2 * count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
        if not isinstance(failure, StopIteration):
            raise failure
    finally:
        pool.shutdown(cancel_futures=True)
