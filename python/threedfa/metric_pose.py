"""The head's place in space: perspective-n-point on the dense vertices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import PackError
from .image import check_size
from .pack import CENTIMETRES

Convention = Literal["opencv", "opengl"]

_MAX_POINTS: Final = 2000  # evenly taken from all; more change nothing
_CRITERIA: Final = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 100, 1e-12)
_OPENGL_AXES: Final = (1.0, -1.0, -1.0, 1.0)  # of OpenCV's: y up instead of down, z back


@dataclass(frozen=True, eq=False)
class MetricPose:
    """Where a head is in front of a camera.

    Attributes:
        camera_matrix: float64 (3, 3) the intrinsics that were used, pixels.
        reprojection_error: root mean square distance in pixels between vertices in the image (every
            so many of them, those that the pose was found from) and the placed head seen through
            the camera. A weak-perspective fit of a head that is near leaves some pixels of it.
    """

    camera_matrix: NDArray[np.float64]
    reprojection_error: float
    _opencv: NDArray[np.float64]

    def transform(self, convention: Convention = "opencv") -> NDArray[np.float64]:
        """The rigid transform (4, 4) from the head to the camera, ``camera = transform · head``.

        Both spaces are in centimetres. The head's is the pack's object space: +X to the image's
        right for a frontal face, +Y up, +Z towards the viewer.

        Args:
            convention: the camera's axes. ``"opencv"``: x right, y down, z away from the camera;
                ``"opengl"`` (also Blender's, three.js's): x right, y up, z out of the picture.

        Raises:
            ValueError: for another convention.
        """
        if convention not in get_args(Convention):
            raise ValueError(
                f"convention: expected one of {', '.join(get_args(Convention))}, got {convention!r}"
            )
        if convention == "opengl":
            return np.array(_OPENGL_AXES)[:, None] * self._opencv
        return self._opencv.copy()


def size_in_centimetres(unit: float | None) -> float:
    """A model's ``centimetres_per_unit``, or a PackError where it has none."""
    if unit is None:
        raise PackError(
            "metric pose needs a pack whose pack.json gives morphable_model.unit as one of "
            f"{', '.join(CENTIMETRES)}; this pack's unit is none of them"
        )
    return unit


def intrinsics(
    image_size: tuple[int, int] | None,
    camera_matrix: ArrayLike | None,
    field_of_view: float | None,
) -> NDArray[np.float64]:
    """A camera matrix (3, 3), checked, or made for an ideal camera from its field of view.

    Raises:
        TypeError: a camera matrix of no real numbers, or an image size of no whole ones.
        ValueError: neither or both given, or one that no camera has.
    """
    if (camera_matrix is None) == (field_of_view is None):
        raise ValueError("expected either camera_matrix or field_of_view, got both or neither")
    if camera_matrix is not None:
        return _checked_matrix(np.asarray(camera_matrix))
    assert field_of_view is not None
    if not 0 < field_of_view < 180:
        raise ValueError(f"field_of_view: expected degrees between 0 and 180, got {field_of_view}")
    if image_size is None:
        raise ValueError("image_size: expected (height, width) to go with field_of_view, got None")
    height, width = check_size(image_size)
    focal = width / 2 / np.tan(np.radians(field_of_view) / 2)
    # Pixel centres lie at whole numbers, so the middle of the picture is at (width - 1) / 2.
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])


def _checked_matrix(matrix: NDArray[Any]) -> NDArray[np.float64]:
    if matrix.dtype.kind not in "fiu":
        raise TypeError(f"camera_matrix: expected real numbers, got {matrix.dtype}")
    if matrix.shape != (3, 3):
        raise ValueError(f"camera_matrix: expected shape (3, 3), got {matrix.shape}")
    checked: NDArray[np.float64] = matrix.astype(np.float64)
    fixed = checked.copy()
    fixed[[0, 1, 0, 1], [0, 1, 2, 2]] = 0
    if (
        not np.isfinite(checked).all()
        or (fixed != np.diag([0, 0, 1])).any()
        or checked[0, 0] <= 0
        or checked[1, 1] <= 0
    ):
        raise ValueError(
            "camera_matrix: expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with positive focal "
            f"lengths, got {checked.tolist()}"
        )
    return checked


def place(
    head: NDArray[np.floating[Any]],
    pixels: NDArray[np.floating[Any]],
    camera_matrix: NDArray[np.float64],
) -> MetricPose:
    """Find the rigid transform under which a head of known shape is seen where it is seen.

    Starts from the scaled orthographic projection that fits best (the start of POSIT, DeMenthon and
    Davis 1995), then Levenberg-Marquardt on the reprojection error of evenly taken points.

    Args:
        head: (V, 3) centimetres, object space.
        pixels: (V, 2) where they are in the image.
        camera_matrix: (3, 3), as `intrinsics` gives it; no lens distortion.

    Raises:
        ValueError: if the points are too few or too degenerate to tell the pose.
    """
    step = max(1, len(head) // _MAX_POINTS)
    points = np.ascontiguousarray(head[::step], np.float64)
    seen = np.ascontiguousarray(pixels[::step], np.float64)
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = _scaled_orthographic(points, seen, camera_matrix)
    rotation, translation = cv2.solvePnPRefineLM(
        points,
        seen,
        camera_matrix,
        None,
        cv2.Rodrigues(transform[:3, :3])[0],
        transform[:3, 3:].copy(),
        criteria=_CRITERIA,
    )
    transform[:3, :3] = cv2.Rodrigues(rotation)[0]
    transform[:3, 3] = translation.ravel()
    in_camera = points @ transform[:3, :3].T + transform[:3, 3]
    if not np.isfinite(transform).all() or in_camera[:, 2].min() <= 0:
        raise ValueError(
            "expected a face that the camera can see in front of itself, got vertices that fit no "
            "pose; check camera_matrix or field_of_view"
        )
    projected = in_camera @ camera_matrix.T
    misses = projected[:, :2] / projected[:, 2:] - seen
    error_px = float(np.sqrt((misses**2).sum(axis=1).mean()))
    return MetricPose(camera_matrix, error_px, transform)


def _scaled_orthographic(
    points: NDArray[np.float64], seen: NDArray[np.float64], camera_matrix: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotation (3, 3) and translation (3,) of a head whose depth is small to its distance."""
    rays = (seen - camera_matrix[:2, 2]) / np.diag(camera_matrix)[:2]
    affine = np.linalg.lstsq(np.column_stack([points, np.ones(len(points))]), rays, rcond=None)[0]
    left, lengths, right = np.linalg.svd(affine[:3].T, full_matrices=False)
    if not lengths[1] > 1e-6 * lengths[0]:
        raise ValueError("expected a face that is no line or point, got one without extent")
    rows = left @ right
    rotation = np.vstack([rows, np.cross(rows[0], rows[1])])
    distance = 1 / lengths.mean()
    return rotation, np.append(affine[3] * distance, distance)
