"""From an image to aligned faces in one call."""

from __future__ import annotations

import copy
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from itertools import chain, islice
from typing import Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from .aligner import FaceAligner
from .cpus import available_cpus
from .detections import Detections
from .detector import DetectionSize, FaceDetector, Orientations
from .face import Analysis, Face
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
    :class:`FaceDetector` and, for ``confidence_threshold``, :class:`FaceAligner`.

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
        confidence_threshold: float | None = None,
        iou_threshold: float | None = None,
        max_faces: int | None = None,
        detection_size: DetectionSize = "auto",
        orientations: Orientations = "upright",
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
            detection_size=detection_size,
            orientations=orientations,
        )
        self.aligner = FaceAligner(
            pack,
            backend=backend,
            providers=providers,
            num_threads=num_threads,
            confidence_threshold=confidence_threshold,
        )
        # PyTorch has threads of its own for the whole process.
        self._workers = 1 if backend == "torch" else num_threads or available_cpus()

    @property
    def model(self) -> MorphableModel:
        """The pack's morphable model."""
        return self.aligner.model

    @overload
    def analyze(
        self, image: Any, *, color: ColorOrder = "rgb", return_refused: Literal[False] = False
    ) -> list[Face]: ...
    @overload
    def analyze(
        self, image: Any, *, color: ColorOrder = "rgb", return_refused: Literal[True]
    ) -> Analysis: ...
    def analyze(
        self, image: Any, *, color: ColorOrder = "rgb", return_refused: bool = False
    ) -> list[Face] | Analysis:
        """Find and align the faces of one image.

        Args:
            image: (H, W, 3) uint8 or anything else that :func:`threedfa.image.load_image` takes.
            color: channel order of an array, ``"rgb"`` or ``"bgr"``.
            return_refused: whether to give what was refused, too.

        Returns:
            The faces, best score first; an empty list where there is none. Left out are detections
            that the regressor could see nothing of (specks, slivers at the border) or that, if the
            pack says so, are not faces: whose confidence is less than the threshold. With
            ``max_faces`` the next best takes their place, looked for among four times as many.
            With ``return_refused`` an :class:`threedfa.Analysis`: ``faces``, and as ``refused`` a
            :class:`threedfa.RefusedFace`, box, score and confidence, for each that is not a face.

        Raises:
            ImageError: if the image cannot be read or used.
        """
        found = _analyze(self.detector, self.aligner, [image], color)[0]
        return found if return_refused else found.faces

    __call__ = analyze

    @overload
    def analyze_batch(
        self,
        images: Iterable[Any],
        *,
        color: ColorOrder = "rgb",
        return_refused: Literal[False] = False,
    ) -> list[list[Face]]: ...
    @overload
    def analyze_batch(
        self, images: Iterable[Any], *, color: ColorOrder = "rgb", return_refused: Literal[True]
    ) -> list[Analysis]: ...
    def analyze_batch(
        self, images: Iterable[Any], *, color: ColorOrder = "rgb", return_refused: bool = False
    ) -> list[list[Face]] | list[Analysis]:
        """:meth:`analyze` for many images: as many at a time as the networks have threads, each on
        a thread of its own, which is faster than all threads for one image after the other.

        The faces of a few images go through the regressor together.

        Args:
            images: any number of what :meth:`analyze` takes. Of an iterator they are taken as they
                are needed: at most twelve for each thread are in memory.
            color: channel order of arrays, ``"rgb"`` or ``"bgr"``.
            return_refused: as for :meth:`analyze`.

        Returns:
            The faces of each image, or a :class:`threedfa.Analysis` of each.

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

        def work(analyzer: FaceAnalyzer, group: list[Any]) -> list[Analysis]:
            return _analyze(analyzer.detector, analyzer.aligner, group, color)

        found = list(chain.from_iterable(self.map(work, groups)))
        return found if return_refused else [each.faces for each in found]

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


def align_candidates(
    detectors: Sequence[FaceDetector],
    aligner: FaceAligner,
    images: Sequence[NDArray[np.uint8]],
    candidates: Sequence[Detections],
) -> list[Analysis]:
    """What :meth:`FaceAnalyzer.analyze` gives for loaded images, from what each one's detector has
    found in it: where nothing of that is a face, turned ones are looked for if asked for."""
    most = [detector.max_faces for detector in detectors]
    results = aligner.align_detected(images, candidates, most)
    for i, (detector, found) in enumerate(zip(detectors, candidates, strict=True)):
        if results[i].faces or detector.orientations == "upright":
            continue
        if len(found) == 0 or found.quarter_turns.any():  # then they have been looked for
            continue
        other = detector.turned_candidates(images[i])
        faces, refused = aligner.align_detected([images[i]], [other], [detector.max_faces])[0]
        results[i] = Analysis(faces, results[i].refused + refused)
    return results


def _analyze(
    detector: FaceDetector, aligner: FaceAligner, images: Iterable[Any], color: ColorOrder
) -> list[Analysis]:
    loaded = [load_image(image, color=color) for image in images]
    found = [detector.candidates(image) for image in loaded]
    return align_candidates([detector] * len(loaded), aligner, loaded, found)


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
