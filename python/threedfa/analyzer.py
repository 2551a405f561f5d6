"""From an image to aligned faces in one call."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from .aligner import FaceAligner
from .detector import FaceDetector
from .face import Face
from .image import ColorOrder, load_image
from .model import MorphableModel
from .networks import Backend
from .pack import Pack


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
            pack's regressor says so, are not faces.

        Raises:
            ImageError: if the image cannot be read or used.
        """
        return self.analyze_batch([image], color=color)[0]

    __call__ = analyze

    def analyze_batch(
        self, images: Iterable[Any], *, color: ColorOrder = "rgb"
    ) -> list[list[Face]]:
        """:meth:`analyze` for several images; all their faces go through the regressor together."""
        loaded = [load_image(image, color=color) for image in images]
        return self.aligner.align_detected(
            loaded, [self.detector.detect(image) for image in loaded]
        )
