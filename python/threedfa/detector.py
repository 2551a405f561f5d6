"""Face detection."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from .detections import Detections
from .image import ColorOrder, load_image
from .networks import Backend, check_count, check_network, open_network, resizing
from .ops import prior_boxes
from .pack import DetectorSpec, Pack

_TRIAL_SIZE = (64, 96)  # height and width of the input with which a new network is tried


class FaceDetector:
    """Finds faces: an SSD-style network, its priors and non-maximum suppression.

    One detector may be used from many threads at once.

    Args:
        pack: a pack, its name, or its folder.
        backend: ``"onnxruntime"`` or ``"torch"``.
        providers: see :func:`threedfa.networks.open_network`.
        num_threads: of the network; None: as many as this process has CPUs.
        score_threshold: boxes at or below it are dropped, 0..1; None: the pack's.
        iou_threshold: of non-maximum suppression, 0..1; None: the pack's.
        max_faces: keep at most so many, the best; None: all.

    Raises:
        PackError: if the pack is missing, incomplete or altered, or its network gives anything but
            offsets and scores for the pack's priors.
        BackendError: if the backend or a provider is not available.
        ValueError: if a threshold or a number is out of range.
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
        self.spec: DetectorSpec = pack.detector
        self.score_threshold = self.spec.score_threshold
        self.iou_threshold = self.spec.iou_threshold
        self.max_faces: int | None = None
        self._adjust(score_threshold, iou_threshold, max_faces)
        self._network = open_network(
            pack.file_path(self.spec.file),
            backend=backend,
            providers=providers,
            num_threads=num_threads,
        )
        self._resize = resizing(self.spec)
        self._priors = lru_cache(maxsize=8)(
            lambda height, width: prior_boxes(height, width, self.spec.priors)
        )
        count = len(self._priors(*_TRIAL_SIZE))
        check_network(
            self._network,
            pack.file_path(self.spec.file),
            (1, len(self.spec.mean), *_TRIAL_SIZE),
            {"loc": (1, count, 4), "conf": (1, count, 2)},
        )

    def adjusted(
        self,
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        max_faces: int | None = None,
    ) -> FaceDetector:
        """A detector with the same network and other settings; None: those of this one.

        Raises:
            ValueError: if a threshold or a number is out of range.
        """
        other = copy.copy(self)
        other._adjust(score_threshold, iou_threshold, max_faces)
        return other

    def single_threaded(self) -> FaceDetector:
        """The same, with :meth:`threedfa.networks.Network.single_threaded`."""
        other = copy.copy(self)
        other._network = self._network.single_threaded()
        return other

    def _adjust(
        self, score_threshold: float | None, iou_threshold: float | None, max_faces: int | None
    ) -> None:
        self.score_threshold = _fraction("score_threshold", score_threshold, self.score_threshold)
        self.iou_threshold = _fraction("iou_threshold", iou_threshold, self.iou_threshold)
        check_count("max_faces", max_faces)
        self.max_faces = self.max_faces if max_faces is None else max_faces

    def detect(self, image: Any, *, color: ColorOrder = "rgb") -> Detections:
        """Find the faces of one image.

        Args:
            image: (H, W, 3) uint8 or anything else that :func:`threedfa.image.load_image` takes.
            color: channel order of an array, ``"rgb"`` or ``"bgr"``.

        Returns:
            Boxes and scores, best first; boxes that lie wholly outside the image are left out.

        Raises:
            ImageError: if the image cannot be read or used.
        """
        return self.candidates(load_image(image, color=color))[: self.max_faces]

    def candidates(self, image: NDArray[np.uint8]) -> Detections:
        """What :meth:`detect` finds in an image from :func:`threedfa.image.load_image`, without a
        limit to their number."""
        loc, conf = self._network.run(self.network_input(image))
        return self.from_output(loc, conf, image.shape[:2])

    def network_input(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the network is given for a loaded image: (1, C, H, W), resized and normalised."""
        _, height, width = self._working_size(*image.shape[:2])
        return self._resize(image, height, width)

    def from_output(
        self, loc: NDArray[np.float32], conf: NDArray[np.float32], size: tuple[int, int]
    ) -> Detections:
        """What :meth:`candidates` gives for an image of this height and width, from the network's
        output for it."""
        height, width = size
        scale, net_height, net_width = self._working_size(height, width)
        boxes, scores = _core.detect(
            loc[0],
            conf[0],
            self._priors(net_height, net_width),
            variances=self.spec.variances,
            score_threshold=self.score_threshold,
            scale_x=net_width / scale,
            scale_y=net_height / scale,
            iou_threshold=self.iou_threshold,
            nms_offset=self.spec.nms_offset,
            top_k=self.spec.top_k,
            keep_top_k=self.spec.keep_top_k,
        )
        # Plain loops: there are few boxes, and each call of NumPy takes as long as many of them.
        touching = [
            i
            for i, (x1, y1, x2, y2) in enumerate(boxes.tolist())
            if x2 > 0 and y2 > 0 and x1 < width and y1 < height
        ]
        if len(touching) < len(boxes):
            boxes, scores = boxes[touching], scores[touching]
        return Detections(boxes, scores)

    def _working_size(self, height: int, width: int) -> tuple[float, int, int]:
        """Scale, height and width of the network's input: large images are made smaller."""
        limit = self.spec.working_size
        scale = 1.0
        if height > limit.max_height:
            scale = limit.max_height / height
        if width * scale > limit.max_width:
            scale *= limit.max_width / (width * scale)
        return scale, max(1, int(scale * height)), max(1, int(scale * width))


def _fraction(name: str, value: float | None, default: float) -> float:
    value = default if value is None else float(value)
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected None or 0..1, got {value}")
    return value
