"""Face alignment: from a box to the parameters of the face model."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from .detections import Detections, RefusedFace
from .errors import PackError
from .face import Analysis, Face
from .image import ColorOrder, load_image
from .model import MorphableModel
from .networks import Backend, Network, check_fraction, check_network, cropping, open_network
from .orientation import boxes_in_image, boxes_in_turned, fit_in_image, turned
from .pack import Pack, PresenceSpec, RegressorSpec

_Number = TypeVar("_Number", np.float32, np.float64)

_MAX_BATCH = 64  # faces in one run of the network; bounds its memory
_MOST_LOOKS = 4  # boxes looked at for each face wanted: some are refused, but not without end
_FARTHEST = 1 << 23  # pixels from the origin; a crop's corners may lie so far outside
_SAME_FACE = 0.2  # mean distance of two faces' landmarks, in sides of the square of their area


class FaceAligner:
    """Fits the face model to faces: crops, a parameter regressor, reconstruction.

    One aligner may be used from many threads at once.

    Args:
        pack: a pack, its name, or its folder.
        backend: ``"onnxruntime"`` or ``"torch"``.
        providers: see :func:`threedfa.networks.open_network`.
        num_threads: of the networks; None: as many as this process has CPUs.
        confidence_threshold: what is less surely a face is refused by :class:`FaceAnalyzer`, 0..1;
            None: the pack's.

    Attributes:
        confidence_threshold: None for a pack that does not tell faces from what is none.

    Raises:
        PackError: if the pack is missing, incomplete or altered, or its parts do not fit together.
        BackendError: if the backend or a provider is not available.
        ValueError: if the threshold is out of range, or the pack has no use for one.
    """

    def __init__(
        self,
        pack: Pack | str | os.PathLike[str] = "default",
        *,
        backend: Backend = "onnxruntime",
        providers: Sequence[str] | None = None,
        num_threads: int | None = None,
        confidence_threshold: float | None = None,
    ) -> None:
        pack = pack if isinstance(pack, Pack) else Pack.load(pack)
        self.spec: RegressorSpec = pack.regressor
        self.confidence_threshold = pack.confidence_threshold
        self._adjust(confidence_threshold)
        self.model = MorphableModel.from_pack(pack)
        split = self.spec.param_split
        found = (len(self.model.shape_basis), len(self.model.expression_basis))
        if (split.shape, split.expression) != found:
            raise PackError(
                f"pack {pack.name}: expected a model with {split.shape} shape and "
                f"{split.expression} expression modes, as the regressor's parameters, "
                f"got {found[0]} and {found[1]}; import the pack again"
            )
        self._crop = cropping(self.spec)
        self._param_mean = np.array(self.spec.param_mean, np.float32)
        self._param_std = np.array(self.spec.param_std, np.float32)
        self._network = open_network(
            pack.file_path(self.spec.file),
            backend=backend,
            providers=providers,
            num_threads=num_threads,
        )
        size = self.spec.input_size
        outputs: dict[str, tuple[int, ...]] = {"parameters": (2, split.total)}
        if self.spec.confidence_threshold is not None:
            outputs["confidence"] = (2, 1)
        check_network(  # with two faces: the number must be free
            self._network, pack.file_path(self.spec.file), (2, 3, size, size), outputs
        )
        self._presence: _Presence | None = None
        if pack.presence is not None:
            path = pack.file_path(pack.presence.file)
            network = open_network(
                path, backend=backend, providers=providers, num_threads=num_threads
            )
            size, channels = pack.presence.input_size, len(pack.presence.mean)
            check_network(network, path, (2, channels, size, size), {"presence": (2, 1)})
            self._presence = _Presence(pack.presence, network)

    def adjusted(self, *, confidence_threshold: float | None = None) -> FaceAligner:
        """An aligner with the same networks and another threshold; None: that of this one.

        Raises:
            ValueError: if the threshold is out of range, or the pack has no use for one.
        """
        other = copy.copy(self)
        other._adjust(confidence_threshold)
        return other

    def _adjust(self, confidence_threshold: float | None) -> None:
        if confidence_threshold is None:
            return
        if self.confidence_threshold is None:
            raise ValueError(
                "confidence_threshold: expected None, as this pack has nothing that tells faces "
                f"from what is none, got {confidence_threshold}; use score_threshold"
            )
        self.confidence_threshold = check_fraction("confidence_threshold", confidence_threshold)

    def align(
        self, image: Any, boxes: Detections | ArrayLike, *, color: ColorOrder = "rgb"
    ) -> list[Face]:
        """Align the faces in the given boxes.

        Args:
            image: (H, W, 3) uint8 or anything else that :func:`threedfa.image.load_image` takes.
            boxes: :class:`Detections`, or (N, 4) x1 y1 x2 y2 in pixels, or (N, 5) with a score.
            color: channel order of an array, ``"rgb"`` or ``"bgr"``.

        Returns:
            One face for each box, in their order.

        Raises:
            ImageError: if the image cannot be read or used.
            TypeError: boxes that are not real numbers.
            ValueError: boxes of a wrong shape, empty, not finite, or wholly outside the image.
        """
        return self._align([load_image(image, color=color)], [as_detections(boxes)])[0]

    def align_from_landmarks(
        self, image: Any, landmarks_list: Iterable[ArrayLike], *, color: ColorOrder = "rgb"
    ) -> list[Face]:
        """Align faces again from landmarks found before, in this picture or the previous frame.

        One pass of the regressor, also for a pack whose regressor may take two.

        Args:
            image: (H, W, 3) uint8 or anything else that :func:`threedfa.image.load_image` takes.
            landmarks_list: for each face (L, 2) or (L, 3) points in pixels, L ≥ 2.
            color: channel order of an array, ``"rgb"`` or ``"bgr"``.

        Returns:
            One face for each set of landmarks, in their order. Its ``bbox`` is the
            landmarks' bounding rectangle, its score 1.

        Raises:
            ImageError: if the image cannot be read or used.
            TypeError: landmarks that are not real numbers.
            ValueError: landmarks of a wrong shape, not finite, all in one place, or wholly outside
                the image.
        """
        points = [_as_points(landmarks) for landmarks in landmarks_list]
        rois = [self._roi_from_landmarks(p) for p in points]
        boxes = [np.concatenate([p[:, :2].min(axis=0), p[:, :2].max(axis=0)]) for p in points]
        detections = Detections(
            np.reshape(np.array(boxes, np.float32), (-1, 4)), np.ones(len(boxes), np.float32)
        )
        return self._fit(
            [load_image(image, color=color)], [detections], [np.reshape(rois, (-1, 4))], passes=1
        )[0]

    def _align(
        self, images: Sequence[NDArray[np.uint8]], detections: Sequence[Detections]
    ) -> list[list[Face]]:
        """Faces of several loaded images, in as few runs of the network as possible."""
        views = _views(images, detections)
        rois = [_stacked([self._roi_from_box(box) for box in v.detections.xyxy]) for v in views]
        fitted = self._fit(
            [view.image for view in views],
            [view.detections for view in views],
            rois,
            self.spec.passes,
        )
        faces: list[dict[int, Face]] = [{} for _ in images]
        for view, found in zip(views, fitted, strict=True):
            size = images[view.number].shape[:2]
            boxes = detections[view.number].xyxy
            for row, face in zip(view.rows, found, strict=True):
                face = self._turned_back(face, view.turns, size)
                faces[view.number][row] = replace(face, bbox=boxes[row].copy())
        return [[found[row] for row in sorted(found)] for found in faces]

    def align_detected(
        self,
        images: Sequence[NDArray[np.uint8]],
        detections: Sequence[Detections],
        max_faces: Sequence[int | None],
    ) -> list[Analysis]:
        """The faces among what a detector found, of several images at once, and what was refused.

        Left out is what the regressor could see nothing of (specks, boxes of millions of pixels,
        and slivers at the border whose region, being a square below the box's middle, may lie
        outside the image), and what turns out to be the same face as a better detection. Refused is
        what the pack does not take for a face.

        Args:
            images: RGB (H, W, 3) uint8 each.
            detections: of each image, best first.
            max_faces: of each image, looked for among four times as many boxes; None: all.

        Returns:
            For each image its faces, in the order of their boxes, and what was refused.
        """
        views = _views(images, detections)
        results = self._align_views(
            [view.image for view in views],
            [view.detections for view in views],
            [max_faces[view.number] for view in views],
        )
        if not any(view.turns for view in views):
            return results
        merged = [Analysis([], []) for _ in images]
        for view, (faces, refused) in zip(views, results, strict=True):
            size = images[view.number].shape[:2]
            merged[view.number].faces.extend(self._turned_back(f, view.turns, size) for f in faces)
            merged[view.number].refused.extend(
                replace(each, bbox=boxes_in_image(each.bbox[None], view.turns, size)[0])
                for each in refused
            )
        for (faces, refused), most in zip(merged, max_faces, strict=True):
            faces.sort(key=lambda face: -face.score)
            refused.sort(key=lambda each: -each.score)
            if most is not None:
                del faces[most:]
        return merged

    def _align_views(
        self,
        images: Sequence[NDArray[np.uint8]],
        detections: Sequence[Detections],
        max_faces: Sequence[int | None],
    ) -> list[Analysis]:
        """:meth:`align_detected` for upright faces."""
        seen = [
            self._seen(image, found if most is None else found[: _MOST_LOOKS * most])
            for image, found, most in zip(images, detections, max_faces, strict=True)
        ]
        results = [Analysis([], []) for _ in images]
        least = self.confidence_threshold or 0.0
        while True:
            # Where a face is refused, there is room for the next one.
            rooms = [
                None if most is None else most - len(result.faces)
                for most, result in zip(max_faces, results, strict=True)
            ]
            boxes = [found[:room] for (found, _), room in zip(seen, rooms, strict=True)]
            if not any(map(len, boxes)):
                return results
            rois = [regions[:room] for (_, regions), room in zip(seen, rooms, strict=True)]
            seen = [
                (found[len(taken) :], regions[len(taken) :])
                for (found, regions), taken in zip(seen, boxes, strict=True)
            ]
            sure: list[list[float]] | None = None
            if self._presence is not None:
                sure = self._presence.of(images, rois)
                for i, (found, values) in enumerate(zip(boxes, sure, strict=True)):
                    kept = [j for j, value in enumerate(values) if value >= least]
                    if len(kept) == len(values):
                        continue
                    results[i].refused.extend(
                        RefusedFace(found.xyxy[j].copy(), float(found.confidence[j]), value)
                        for j, value in enumerate(values)
                        if not value >= least
                    )
                    boxes[i], rois[i] = found[np.array(kept, np.intp)], rois[i][kept]
                    sure[i] = [values[j] for j in kept]
            fitted = self._fit(images, boxes, rois, self.spec.passes, sure)
            for (faces, refused), new in zip(results, fitted, strict=True):
                for face in new:
                    if face.confidence is not None and face.confidence < least:
                        refused.append(RefusedFace(face.bbox, face.score, face.confidence))
                    elif not _is_among(face, faces):
                        faces.append(face)

    def _turned_back(self, face: Face, turns: int, size: tuple[int, int]) -> Face:
        """A face of an image of this height and width, found in it turned by some quarters."""
        if turns == 0:
            return face
        roi, camera, landmarks = fit_in_image(
            face.roi, face.params[:12], face.landmarks, turns, size, self.spec.input_size
        )
        return replace(
            face,
            bbox=boxes_in_image(face.bbox[None], turns, size)[0],
            roi=roi,
            params=np.concatenate([camera, face.params[12:]]),
            landmarks=landmarks,
        )

    def _seen(
        self, image: NDArray[np.uint8], detections: Detections
    ) -> tuple[Detections, NDArray[np.float64]]:
        """Those detections whose region has pixels of the image, and their regions."""
        places, rois = [], []
        for place, box in enumerate(detections.xyxy):
            try:
                roi = self._roi_from_box(box)
            except ValueError:  # a box without area
                continue
            if _has_pixels(image, roi):
                places.append(place)
                rois.append(roi)
        if len(places) < len(detections):
            detections = detections[np.array(places, np.intp)]
        return detections, _stacked(rois)

    def single_threaded(self) -> FaceAligner:
        """The same, with :meth:`threedfa.networks.Network.single_threaded`."""
        other = copy.copy(self)
        other._network = self._network.single_threaded()
        if self._presence is not None:
            other._presence = self._presence.single_threaded()
        return other

    def _roi_from_box(self, box: NDArray[np.float32]) -> NDArray[np.float64]:
        rule = self.spec.roi
        return _core.roi_from_box(
            box, scale=rule.box_scale, shift_y=rule.box_shift_y, integer_side=rule.integer_side
        )

    def _roi_from_landmarks(self, points: NDArray[Any]) -> NDArray[np.float64]:
        return _core.roi_from_landmarks(points, scale=self.spec.roi.landmark_scale)

    def _fit(
        self,
        images: Sequence[NDArray[np.uint8]],
        detections: Sequence[Detections],
        rois: Sequence[NDArray[np.float64]],
        passes: int,
        sure: Sequence[Sequence[float]] | None = None,
    ) -> list[list[Face]]:
        """Faces of upright regions. ``sure``: what is known of their confidence already."""
        if not images:
            return []
        if sure is None and self._presence is not None:
            sure = self._presence.of(images, rois)
        params, landmarks, confidences = self._look(images, rois)
        for _ in range(1, passes):
            points = iter(landmarks)
            nearer = [
                _stacked([self._nearer(image, roi, next(points)) for roi in regions])
                for image, regions in zip(images, rois, strict=True)
            ]
            moved = [self._moved(*pair) for pair in zip(rois, nearer, strict=True)]
            again = np.flatnonzero(np.concatenate(moved))
            if len(again) == 0:
                break
            rois = [
                np.where(far[:, None], new, old)
                for far, new, old in zip(moved, nearer, rois, strict=True)
            ]
            params[again], landmarks[again], found = self._look(
                images, [regions[far] for regions, far in zip(rois, moved, strict=True)]
            )
            for place, confidence in zip(again, found, strict=True):
                confidences[place] = confidence
        if sure is not None:
            confidences = list(chain.from_iterable(sure))
        faces = (
            Face(
                bbox=box.copy(),
                score=score,
                roi=roi,
                params=face_params,
                landmarks=points,
                model=self.model,
                confidence=confidence,
            )
            for (box, score), roi, face_params, points, confidence in zip(
                chain.from_iterable(detections),
                chain.from_iterable(rois),
                params,
                landmarks,
                confidences,
                strict=True,
            )
        )
        return [[next(faces) for _ in range(len(found))] for found in detections]

    def _nearer(
        self, image: NDArray[np.uint8], roi: NDArray[np.float64], landmarks: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """The region of landmarks that were found in ``roi``; ``roi`` itself where they cannot be
        those of a face in it."""
        try:
            nearer = self._roi_from_landmarks(landmarks)
        except ValueError:  # all in one place, or not finite
            return roi
        change = (nearer[2] - nearer[0]) / (roi[2] - roi[0])
        return nearer if 1 / 4 < change < 4 and _has_pixels(image, nearer) else roi

    def _moved(self, rois: NDArray[np.float64], nearer: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(N,) whether a corner moved by more than the pack tolerates."""
        sides = nearer[:, 2] - nearer[:, 0]
        moved: NDArray[np.bool_] = (
            np.abs(nearer - rois).max(axis=1) > self.spec.roi_tolerance * sides
        )
        return moved

    def _look(
        self, images: Sequence[NDArray[np.uint8]], rois: Sequence[NDArray[np.float64]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], list[float | None]]:
        """Parameters (N, P), landmarks (N, 68, 3) and confidences of all regions of all images."""
        crops = [self._crop(image, regions) for image, regions in zip(images, rois, strict=True)]
        params, confidences = self._regress(_joined(crops))
        landmarks = self.model.project_many(params, _joined(rois), dense=False)
        return params, landmarks, confidences

    def _regress(
        self, crops: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], list[float | None]]:
        """(N, 3, S, S) crops to (N, P) parameters and N confidences."""
        if len(crops) == 0:
            return np.empty((0, self.spec.param_split.total), np.float32), []
        outputs = [
            self._network.run(crops[start : start + _MAX_BATCH])
            for start in range(0, len(crops), _MAX_BATCH)
        ]
        params = _joined([output[0] for output in outputs]) * self._param_std + self._param_mean
        if self.spec.confidence_threshold is None:
            return params, [None] * len(crops)
        logits = chain.from_iterable(output[1][:, 0].tolist() for output in outputs)
        return params, [0.5 + 0.5 * math.tanh(logit / 2) for logit in logits]


class _Presence:
    """The network that tells whether a region shows a face."""

    def __init__(self, spec: PresenceSpec, network: Network) -> None:
        self._spec, self._network = spec, network
        self._crop = cropping(spec)

    def single_threaded(self) -> _Presence:
        return _Presence(self._spec, self._network.single_threaded())

    def of(
        self, images: Sequence[NDArray[np.uint8]], rois: Sequence[NDArray[np.float64]]
    ) -> list[list[float]]:
        """For each image 0..1 for each of its regions, in as few runs as possible."""
        crops = _joined(
            [
                self._crop(image, _stacked([self._grown(image, roi) for roi in regions]))
                for image, regions in zip(images, rois, strict=True)
            ]
        )
        values: list[float] = []
        for start in range(0, len(crops), _MAX_BATCH):
            values += self._network.run(crops[start : start + _MAX_BATCH])[0][:, 0].tolist()
        found = iter(values)
        return [[next(found) for _ in regions] for regions in rois]

    def _grown(self, image: NDArray[np.uint8], roi: NDArray[np.float64]) -> NDArray[np.float64]:
        """The square about the middle of ``roi``; ``roi`` itself where that cannot be seen."""
        middle, half = (roi[:2] + roi[2:]) / 2, (roi[2:] - roi[:2]) / 2 * self._spec.roi_scale
        grown: NDArray[np.float64] = np.concatenate([middle - half, middle + half])
        return grown if _has_pixels(image, grown) else roi


@dataclass(frozen=True)
class _View:
    """An image, turned so that some of what was found in it is upright.

    Attributes:
        number: of the image.
        turns: counter-clockwise, by quarters.
        image: the turned one.
        detections: in the turned image.
        rows: theirs among all detections of the image.
    """

    number: int
    turns: int
    image: NDArray[np.uint8]
    detections: Detections
    rows: Sequence[int]


def _views(images: Sequence[NDArray[np.uint8]], detections: Sequence[Detections]) -> list[_View]:
    """One of each image, and one more for each way in which faces in it are turned."""
    views = []
    for number, (image, found) in enumerate(zip(images, detections, strict=True)):
        if not found.quarter_turns.any():
            views.append(_View(number, 0, image, found, range(len(found))))
            continue
        for turns in np.unique(found.quarter_turns).tolist():
            rows = np.flatnonzero(found.quarter_turns == turns)
            boxes = boxes_in_turned(found.xyxy[rows], turns, image.shape[:2])
            upright = Detections(boxes, found.confidence[rows])
            views.append(_View(number, turns, turned(image, turns), upright, rows.tolist()))
    return views


def _is_among(face: Face, faces: Sequence[Face]) -> bool:
    """Whether the landmarks of one of the faces are those of this one."""
    if not faces:
        return False
    points = face.landmarks[:, :2]
    side = math.sqrt(float(np.prod(np.ptp(points, axis=0), dtype=np.float64)))
    others = np.stack([other.landmarks[:, :2] for other in faces])
    distances = np.linalg.norm(others - points, axis=2).mean(axis=1)
    return bool((distances < _SAME_FACE * side).any())


def _has_pixels(image: NDArray[np.uint8], roi: NDArray[np.float64]) -> bool:
    """Whether a region, its corners rounded as for a crop, has pixels of the image, and is not so
    large that no crop can be made of it."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = map(round, roi.tolist())  # half to even
    if max(-x1, -y1, x2, y2) > _FARTHEST:
        return False
    return bool(max(x1, 0) < min(x2, width) and max(y1, 0) < min(y2, height))


def _stacked(rois: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(N, 4), also for none."""
    return np.array(rois, np.float64).reshape(-1, 4)


def _joined(arrays: Sequence[NDArray[_Number]]) -> NDArray[_Number]:
    """One after the other, without a copy where there is only one."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def as_detections(boxes: Detections | ArrayLike) -> Detections:
    """Boxes as the caller has them, checked, as :class:`Detections` (score 1 where none is given).

    Raises:
        TypeError: boxes that are not real numbers.
        ValueError: boxes of a wrong shape, not finite, or without area; scores outside 0..1.
    """
    if isinstance(boxes, Detections):
        return _with_scores_in_range(boxes)
    array = np.asarray(boxes)
    if array.shape[:1] == (0,):
        return Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32))
    if array.dtype.kind not in "fiu":
        raise TypeError(f"boxes: expected an array of real numbers, got {array.dtype}")
    if array.ndim != 2 or array.shape[1] not in (4, 5):
        raise ValueError(f"boxes: expected shape (N, 4) or (N, 5), got {array.shape}")
    with np.errstate(over="ignore"):  # found in the next line
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError("boxes: expected finite values that fit float32, got nan or inf")
    empty = (array[:, 2:4] <= array[:, :2]).any(axis=1)
    if empty.any():
        raise ValueError(
            f"boxes: expected x2 > x1 and y2 > y1, got {array[empty.argmax()].tolist()}"
        )
    scores = array[:, 4] if array.shape[1] == 5 else np.ones(len(array), np.float32)
    return _with_scores_in_range(Detections(array[:, :4], scores))


def _as_points(landmarks: ArrayLike) -> NDArray[Any]:
    points = np.asarray(landmarks)
    if points.dtype.kind not in "fiu":
        raise TypeError(f"landmarks: expected an array of real numbers, got {points.dtype}")
    if points.ndim != 2 or len(points) < 2 or points.shape[1] not in (2, 3):
        hint = ""
        if points.ndim == 2 and len(points) in (2, 3):
            hint = "; for coordinates first pass landmarks.T"
        elif points.shape in ((2,), (3,)):
            hint = "; put the points of a single face into a list"
        raise ValueError(
            f"landmarks: expected shape (L, 2) or (L, 3) with L of at least 2, got {points.shape}"
            + hint
        )
    return points


def _with_scores_in_range(boxes: Detections) -> Detections:
    wrong = ~((boxes.confidence >= 0) & (boxes.confidence <= 1))
    if wrong.any():
        raise ValueError(f"scores: expected 0..1, got {float(boxes.confidence[wrong][0])}")
    return boxes
