"""Face detection, at one scale or at several."""

from __future__ import annotations

import copy
import math
import numbers
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from . import _core
from .cpus import available_cpus
from .detections import Detections
from .image import ColorOrder, load_image
from .networks import (
    Backend,
    check_count,
    check_fraction,
    check_network,
    open_network,
    resizing,
)
from .ops import nms, prior_boxes
from .orientation import QUARTER_TURNS, boxes_in_image, turned
from .pack import DetectorSpec, Pack

DetectionSize: TypeAlias = int | Literal["auto", "full"]
Orientations: TypeAlias = Literal["upright", "any"]

SMALLEST_DETECTION: Final = 32
LARGEST_DETECTION: Final = 16384
"""Bounds of a ``detection_size`` in pixels; the detector sees at most 16384 x 16384 of them."""

_TRIAL_SIZE = (64, 96)  # height and width of the input with which a new network is tried
_AUTO_PIXELS = 1 << 24  # that "auto" looks at, at most
_MUCH_SMALLER = 0.5  # where the first pass sees an image at less of its size, "auto" uses tiles
_LEVEL_RATIO = 3  # at most, between the scales of two levels
_OVERLAP = 1 / 4  # of tiles, in their sides: at the next coarser level 1/12, which it finds surely
_MARGIN = 1 / 16  # of an overlap, in which a tile's inner border may have cut a face
_LARGE = 0.5  # in shorter sides of the image: such a face asks for a pass at half the size
_CLOSE = 1 / 3  # what that pass finds is larger than this
_LEAST_SIDE = 32  # pixels, of an image for that pass
_PART_WITHIN = 0.75  # of a box's area inside a larger one
_PART_LARGER = 2  # times the area
_PART_BETTER = 0.1  # of a score that makes a box inside a larger one no face of its own


class _Tile(NamedTuple):
    """A part of an image, pixels: columns x1 to x2 and rows y1 to y2, the latter not included."""

    x1: int
    y1: int
    x2: int
    y2: int


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
        detection_size: how large the image is to the detector. ``"auto"``: as the pack says; where
            that is less than half the image's size, also in tiles at its own size, of at most
            16.8 million pixels. A number: its longer side in pixels, 32..16384, in tiles where it
            is larger than a tile. ``"full"``: its own size, likewise. Time grows with the pixels;
            memory does not. Very large faces are looked for at half the size as well.
        orientations: ``"upright"``; or ``"any"``: where nothing is found, the image turned by one,
            two and three quarters is searched, too.

    Raises:
        PackError: if the pack is missing, incomplete or altered, or its network gives anything but
            offsets and scores for the pack's priors.
        BackendError: if the backend or a provider is not available.
        ValueError: if a threshold, a number or another setting is out of range.
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
        detection_size: DetectionSize = "auto",
        orientations: Orientations = "upright",
    ) -> None:
        pack = pack if isinstance(pack, Pack) else Pack.load(pack)
        self.spec: DetectorSpec = pack.detector
        self.score_threshold = self.spec.score_threshold
        self.iou_threshold = self.spec.iou_threshold
        self.max_faces: int | None = None
        self._adjust(score_threshold, iou_threshold, max_faces, detection_size, orientations)
        # PyTorch has threads of its own for the whole process.
        self._workers = 1 if backend == "torch" else num_threads or available_cpus()
        self._network = open_network(
            pack.file_path(self.spec.file),
            backend=backend,
            providers=providers,
            num_threads=num_threads,
        )
        self._single_network = lru_cache(maxsize=1)(self._network.single_threaded)
        self._resize = resizing(self.spec)
        self._priors = lru_cache(maxsize=8)(
            lambda height, width: prior_boxes(height, width, self.spec.priors)
        )
        trial_size = self._padded(_TRIAL_SIZE)
        count = len(self._priors(*trial_size))
        check_network(
            self._network,
            pack.file_path(self.spec.file),
            (1, len(self.spec.mean), *trial_size),
            {"loc": (1, count, 4), "conf": (1, count, 2)},
        )

    def adjusted(
        self,
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        max_faces: int | None = None,
        detection_size: DetectionSize | None = None,
        orientations: Orientations | None = None,
    ) -> FaceDetector:
        """A detector with the same network and other settings; None: those of this one.

        Raises:
            ValueError: if a threshold, a number or another setting is out of range.
        """
        other = copy.copy(self)
        other._adjust(
            score_threshold,
            iou_threshold,
            max_faces,
            self.detection_size if detection_size is None else detection_size,
            self.orientations if orientations is None else orientations,
        )
        return other

    def single_threaded(self) -> FaceDetector:
        """The same, with :meth:`threedfa.networks.Network.single_threaded`."""
        other = copy.copy(self)
        other._network = self._single_network()
        other._workers = 1
        return other

    def _adjust(
        self,
        score_threshold: float | None,
        iou_threshold: float | None,
        max_faces: int | None,
        detection_size: DetectionSize,
        orientations: Orientations,
    ) -> None:
        self.detection_size = _checked_size(detection_size)
        if orientations not in get_args(Orientations):
            raise ValueError(f"orientations: expected 'upright' or 'any', got {orientations!r}")
        self.orientations: Orientations = orientations
        if score_threshold is not None:
            self.score_threshold = check_fraction("score_threshold", score_threshold)
        if iou_threshold is not None:
            self.iou_threshold = check_fraction("iou_threshold", iou_threshold)
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
        found = self._search(image)
        if len(found) == 0 and self.orientations == "any":
            return self.turned_candidates(image)
        return found

    def turned_candidates(self, image: NDArray[np.uint8]) -> Detections:
        """:meth:`candidates` that are turned by one, two or three quarters, whatever the setting
        ``orientations``."""
        size = image.shape[:2]
        boxes, scores, quarters = [], [], []
        for turns in QUARTER_TURNS:
            found = self._search(turned(image, turns))
            boxes.append(boxes_in_image(found.xyxy, turns, size))
            scores.append(found.confidence)
            quarters.append(np.full(len(found), turns))
        return self._suppress(
            Detections(np.concatenate(boxes), np.concatenate(scores), np.concatenate(quarters))
        )

    def single_pass(self, image: NDArray[np.uint8]) -> Detections:
        """What one run of the network finds in a loaded image, upright and at the size that the
        pack asks for: the detector as upstream has it."""
        loc, conf = self._network.run(self.network_input(image))
        return self.from_output(loc, conf, image.shape[:2])

    def network_input(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the network is given for a loaded image in a :meth:`single_pass`: (1, C, H, W),
        resized, normalised and filled up."""
        return self._input(image, self._pack_scale(image))

    def from_output(
        self, loc: NDArray[np.float32], conf: NDArray[np.float32], size: tuple[int, int]
    ) -> Detections:
        """What :meth:`single_pass` gives for an image of this height and width, from the network's
        output for it."""
        return self._decode(loc, conf, size, _working_scale(self.spec, *size))

    def _search(self, image: NDArray[np.uint8]) -> Detections:
        """The upright faces of an image, at all scales that the settings ask for."""
        height, width = image.shape[:2]
        scales = self._scales(height, width)
        found = self._pass(image, scales[0])
        parts = [found]
        shorter = min(height, width)
        sides = (found.xyxy[:, 2:] - found.xyxy[:, :2]).max(axis=1, initial=0)
        half = scales[0] / 2
        if shorter * half >= _LEAST_SIDE and not 0 < sides.max(initial=0) <= _LARGE * shorter:
            close = self._pass(image, half)
            sides = (close.xyxy[:, 2:] - close.xyxy[:, :2]).max(axis=1, initial=0)
            parts.append(close[sides > _CLOSE * shorter])
        for scale in scales[1:]:
            parts += self._pass_in_tiles(image, scale)
        if len(parts) == 1:  # the usual case
            return without_parts(found)
        return self._suppress(
            Detections(
                np.concatenate([part.xyxy for part in parts]),
                np.concatenate([part.confidence for part in parts]),
            )
        )

    def _scales(self, height: int, width: int) -> list[float]:
        """Of the first pass, which sees the whole image, and of the levels in tiles after it."""
        pixels = height * width
        if self.detection_size == "auto":
            whole = _working_scale(self.spec, height, width)
            finest = min(1.0, math.sqrt(_AUTO_PIXELS / pixels))
            if whole >= _MUCH_SMALLER:
                return [whole]
        else:
            size = self.detection_size
            finest = 1.0 if size == "full" else size / max(height, width)
            tile = self._tile_side() ** 2
            if finest**2 * pixels <= 2 * tile:
                return [finest]
            whole = math.sqrt(tile / pixels)
        ratio = finest / whole
        if ratio <= 1:
            return [whole]
        count = math.ceil(math.log(ratio, _LEVEL_RATIO))
        return [whole, *(whole * ratio ** (i / count) for i in range(1, count + 1))]

    def _tile_side(self) -> int:
        """Of tiles as the network sees them: as many pixels as the pack's working size has."""
        limit = self.spec.working_size
        return max(_LEAST_SIDE, math.isqrt(limit.max_height * limit.max_width))

    def _pass(self, image: NDArray[np.uint8], scale: float) -> Detections:
        """One run on the whole image."""
        size = image.shape[:2]
        loc, conf = self._network.run(self._input(image, scale))
        return self._decode(loc, conf, size, scale)

    def _pass_in_tiles(self, image: NDArray[np.uint8], scale: float) -> list[Detections]:
        """One run for each tile, as many at a time as there are threads.

        Only faces that are smaller than the overlap count: each lies whole in some tile, so that
        what touches an inner border can be left out. Larger ones are for the coarser levels.
        """
        height, width = image.shape[:2]
        side = self._tile_side() / scale
        tiles = [
            _Tile(x1, y1, x2, y2)
            for y1, y2 in _spans(height, side)
            for x1, x2 in _spans(width, side)
        ]
        margin = side * _OVERLAP * _MARGIN
        largest = side * _OVERLAP - 2 * margin
        network = self._network if self._workers == 1 else self._single_network()

        def work(tile: _Tile) -> Detections:
            part = image[tile.y1 : tile.y2, tile.x1 : tile.x2]
            size = part.shape[:2]
            loc, conf = network.run(self._input(part, scale))
            found = self._decode(loc, conf, size, scale)
            if len(found) == 0:
                return found
            boxes = found.xyxy
            kept = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) <= largest
            if tile.x1 > 0:
                kept &= boxes[:, 0] > margin
            if tile.y1 > 0:
                kept &= boxes[:, 1] > margin
            if tile.x2 < width:
                kept &= boxes[:, 2] < size[1] - margin
            if tile.y2 < height:
                kept &= boxes[:, 3] < size[0] - margin
            corner = np.array([tile.x1, tile.y1, tile.x1, tile.y1], np.float32)
            return Detections(boxes[kept] + corner, found.confidence[kept])

        if self._workers == 1 or len(tiles) == 1:
            return [work(tile) for tile in tiles]
        with ThreadPoolExecutor(self._workers) as pool:
            return list(pool.map(work, tiles))

    def _decode(
        self,
        loc: NDArray[np.float32],
        conf: NDArray[np.float32],
        size: tuple[int, int],
        scale: float,
    ) -> Detections:
        """Boxes and scores of one run on an image of this height and width, seen at a scale."""
        height, width = size
        net_height, net_width = self._padded(self._input_size(size, scale))
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

    def _suppress(self, found: Detections) -> Detections:
        """One box a face: the suppression of all passes together, best first."""
        if len(found) == 0:
            return found
        backwards = found[::-1]  # of equal scores the later is the better to nms
        kept = nms(
            backwards.xyxy,
            backwards.confidence,
            self.iou_threshold,
            offset=self.spec.nms_offset,
        )
        return without_parts(backwards[kept])

    def _input(self, image: NDArray[np.uint8], scale: float) -> NDArray[np.float32]:
        """The network's input for an image seen at a scale."""
        size = self._input_size(image.shape[:2], scale)
        resized = self._resize(image, *size)
        padded = self._padded(size)
        if padded == size:
            return resized
        filled = np.empty((*resized.shape[:2], *padded), np.float32)
        filled[..., : size[0], : size[1]] = resized
        filled[..., size[0] :, :] = 0
        filled[..., : size[0], size[1] :] = 0
        return filled

    def _padded(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the input filled up to multiples of the pack's divisor."""
        divisor = self.spec.size_divisor
        return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor

    @staticmethod
    def _input_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
        """Height and width of the network's input for an image of this size."""
        return max(1, int(scale * size[0])), max(1, int(scale * size[1]))

    def _pack_scale(self, image: NDArray[np.uint8]) -> float:
        return _working_scale(self.spec, *image.shape[:2])


def without_parts(found: Detections) -> Detections:
    """Detections without boxes of ears, necks or mouths: those of which three quarters lie inside
    a box of twice the area or more whose score is better by 0.1 or more.

    Args:
        found: best first.
    """
    count = len(found)
    if count < 2:
        return found
    x1, y1, x2, y2 = found.xyxy.T
    areas = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
    scores = found.confidence
    kept = np.ones(count, bool)
    for i in range(1, count):  # only better ones before it
        better = kept[:i] & (scores[:i] >= scores[i] + np.float32(_PART_BETTER))
        better &= areas[:i] >= _PART_LARGER * areas[i]
        if not better.any():
            continue
        shared = np.maximum(np.minimum(x2[:i], x2[i]) - np.maximum(x1[:i], x1[i]), 0)
        shared *= np.maximum(np.minimum(y2[:i], y2[i]) - np.maximum(y1[:i], y1[i]), 0)
        kept[i] = not (better & (shared >= _PART_WITHIN * areas[i])).any()
    return found if kept.all() else found[kept]


def _working_scale(spec: DetectorSpec, height: int, width: int) -> float:
    """Of the pack's input: large images are made smaller and, where it says so, small ones
    larger."""
    limit = spec.working_size
    scale = 1.0
    if height > limit.max_height:
        scale = limit.max_height / height
    if width * scale > limit.max_width:
        scale *= limit.max_width / (width * scale)
    if limit.enlarge_to is not None and scale == 1.0:
        largest = min(2.0, limit.max_height / height, limit.max_width / width)
        scale = max(1.0, min(limit.enlarge_to / max(height, width), largest))
    return scale


def _spans(length: int, side: float) -> list[tuple[int, int]]:
    """Starts and ends of tiles that cover a length, evenly, overlapping by a quarter or more."""
    tile = min(length, math.ceil(side))
    if tile == length:
        return [(0, length)]
    count = math.ceil((length - side * _OVERLAP) / (tile - side * _OVERLAP))
    starts = [i * (length - tile) // (count - 1) for i in range(count)]
    return [(start, start + tile) for start in starts]


def _checked_size(size: DetectionSize) -> DetectionSize:
    if isinstance(size, str):
        if size in ("auto", "full"):
            return size
    elif isinstance(size, numbers.Integral):
        number = int(size)  # True is 1
        if SMALLEST_DETECTION <= number <= LARGEST_DETECTION:
            return number
    raise ValueError(
        f"detection_size: expected 'auto', 'full' or a longer side of {SMALLEST_DETECTION}.."
        f"{LARGEST_DETECTION} pixels, got {size!r}"
    )
