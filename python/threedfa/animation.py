"""Faces of a sequence of pictures in the files of other face trackers, one picture after another.

All files appear whole or not at all.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .blendshapes import ARKIT_NAMES
from .face import Face
from .files import atomic_write
from .metric_pose import size_in_centimetres

Frame: TypeAlias = tuple["str | os.PathLike[str]", tuple[int, int], Sequence[Face]]
"""The name of a picture, its (height, width) in pixels, and its faces."""

OPENFACE_FIELD_OF_VIEW: Final = math.degrees(2 * math.atan(640 / 2 / 500))
"""Degrees across the picture: OpenFace's for a camera that it does not know and a 4:3 picture."""

# Live Link Face's own header, whose first two names its importer in the Unreal Engine
# (LiveLinkFaceImporterFactory.cpp) insists on: 52 blend shapes and 9 angles, 61 values.
LIVELINK_ANGLES: Final = tuple(
    f"{part}{angle}"
    for part in ("Head", "LeftEye", "RightEye")
    for angle in ("Yaw", "Pitch", "Roll")
)
LIVELINK_COLUMNS: Final = (
    "Timecode",
    "BlendShapeCount",
    *(name[0].upper() + name[1:] for name in ARKIT_NAMES),
    *LIVELINK_ANGLES,
)
_LIVELINK_RATE: Final = 60  # frames a second that its importer reads time codes with

# OpenFace's columns without gaze and action units; RecorderCSV.cpp and the page "Output Format" of
# its wiki.
OPENFACE_COLUMNS: Final = (
    *("frame", "face_id", "timestamp", "confidence", "success"),
    *("pose_Tx", "pose_Ty", "pose_Tz", "pose_Rx", "pose_Ry", "pose_Rz"),
    *(f"{axis}_{number}" for axis in "xyXYZ" for number in range(68)),
)


def timecode(seconds: float) -> str:
    """A time as Live Link Face writes it: ``HH:MM:SS:FF.mmm``, 60 frames FF a second, mmm
    thousandths of a frame.

    Raises:
        ValueError: for a time below 0 or from 100 hours on.
    """
    if not 0 <= seconds < 100 * 3600:
        raise ValueError(f"seconds: expected 0 to 100 hours, got {seconds}")
    frames, thousandths = divmod(round(seconds * _LIVELINK_RATE * 1000), 1000)
    whole, frame = divmod(frames, _LIVELINK_RATE)
    clock = f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{clock}:{frame:02}.{thousandths:03}"


def write_livelink(
    path: str | os.PathLike[str], frames: Sequence[Frame], *, frame_rate: float = 30
) -> None:
    """Write one person's blend shapes in each picture as a CSV file of Live Link Face.

    The first row is that of the largest face. Each later row is of the face whose box overlaps most
    (intersection over union) with the box of the row before, or, where none overlaps, again of the
    largest face.

    Blend shapes that the pack cannot show, and the eyes' angles, which it does not know, are 0.
    The head's angles are those of ``face.pose`` in radians. A picture without a face has no row.

    Args:
        path: of the new file.
        frames: pictures, one ``1 / frame_rate`` after the other.
        frame_rate: pictures a second.

    Raises:
        PackError: if the pack does not name its expressions as ARKit does.
        ValueError: for a frame rate that is not positive.
        ExportError: if the file cannot be written.
    """
    rows = []
    for seconds, face in zip(_times(frames, frame_rate), _one_person(frames), strict=True):
        if face is None:
            continue
        shapes, pose = face.blendshapes, face.pose
        angles = np.radians([pose.yaw, pose.pitch, pose.roll])
        values = [*(shapes.get(name, 0.0) for name in ARKIT_NAMES), *angles, *[0.0] * 6]
        rows.append([timecode(seconds), str(len(values)), *(f"{v:.8f}" for v in values)])
    _write(path, LIVELINK_COLUMNS, rows)


def _one_person(frames: Sequence[Frame]) -> Iterator[Face | None]:
    """For each picture the face of the person that is followed; None where it has no face."""
    before = np.zeros(4)
    for _, _, faces in frames:
        face = max(faces, key=lambda f: (_overlap(f.bbox, before), _area(f.bbox)), default=None)
        before = before if face is None else face.bbox.astype(np.float64)
        yield face


def _overlap(box: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> float:
    """Intersection over union of two boxes, x1 y1 x2 y2."""
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    shared = _area(np.concatenate([low, np.maximum(low, high)]))
    return shared / (_area(box) + _area(other) - shared) if shared > 0 else 0.0


def _area(box: NDArray[np.floating[Any]]) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def write_openface(
    path: str | os.PathLike[str],
    frames: Sequence[Frame],
    *,
    frame_rate: float = 30,
    field_of_view: float = OPENFACE_FIELD_OF_VIEW,
) -> None:
    """Write pose and landmarks of all faces as a CSV file with OpenFace's columns.

    ``frame`` counts from 1; ``face_id`` is the face's place in its picture, not tracked from one
    to the next; ``confidence`` is the detector's score. ``pose_T`` and ``X_ Y_ Z_`` are in
    millimetres in the camera's axes (x right, y down, z away from it), ``pose_R`` in radians:
    ``rotation = Rx · Ry · Rz`` from a frontal face. ``x_`` and ``y_`` are in pixels. A picture
    without a face has no row.

    Args:
        path: of the new file.
        frames: pictures, one ``1 / frame_rate`` after the other.
        frame_rate: pictures a second.
        field_of_view: of the camera across the picture, degrees.

    Raises:
        PackError: if the pack's model has no unit of length.
        ValueError: for a frame rate or a field of view that cannot be.
        ExportError: if the file cannot be written.
    """
    rows = []
    times = _times(frames, frame_rate)
    for number, (seconds, (_, size, faces)) in enumerate(zip(times, frames, strict=True), start=1):
        for identity, face in enumerate(faces):
            pose = face.metric_pose(field_of_view=field_of_view, image_size=size)
            transform = pose.transform("opencv")
            head = face.model.reconstruct(face.shape_coeffs, face.expression_coeffs)
            size_cm = size_in_centimetres(face.model.centimetres_per_unit)
            points = face.model.landmark_sets["ibug68"].of(head) * size_cm
            in_camera = 10 * (points @ transform[:3, :3].T + transform[:3, 3])
            values = [
                *(10 * transform[:3, 3]),
                *_openface_angles(transform[:3, :3]),
                *face.landmarks[:, :2].T.ravel(),
                *in_camera.T.ravel(),
            ]
            start = [str(number), str(identity), f"{seconds:.3f}", f"{face.score:.3f}", "1"]
            rows.append([*start, *(f"{value:.6f}" for value in values)])
    _write(path, OPENFACE_COLUMNS, rows)


def _openface_angles(rotation: NDArray[np.float64]) -> tuple[float, float, float]:
    """Rx, Ry, Rz from a rotation of object space to the camera, both axes as in "opencv"."""
    turned = rotation * (1, -1, -1)  # OpenFace's head has y down and z away from the viewer, too
    return (
        math.atan2(-turned[1, 2], turned[2, 2]),
        math.asin(np.clip(turned[0, 2], -1, 1)),
        math.atan2(-turned[0, 1], turned[0, 0]),
    )


def check_frame_rate(frame_rate: float) -> None:
    """Raise a ValueError unless it is a positive number."""
    if not (0 < frame_rate < math.inf and math.isfinite(1 / frame_rate)):
        raise ValueError(f"frame_rate: expected a positive number, got {frame_rate}")


def _times(frames: Sequence[Frame], frame_rate: float) -> list[float]:
    check_frame_rate(frame_rate)
    return [number / frame_rate for number in range(len(frames))]


def _write(
    path: str | os.PathLike[str], columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerows([columns, *rows])
    with atomic_write(path) as file:
        file.write(stream.getvalue().encode())
