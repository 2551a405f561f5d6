"""Pictures of results: overlays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from . import _core
from .face import Face, require_faces
from .image import ColorOrder, load_image
from .ops import Raster, rasterize

Mode = Literal["landmarks", "dense", "box", "pose", "mesh", "wireframe", "depth", "pncc"]

_Image = NDArray[np.uint8]

_MESH_ALPHA = 0.6  # the predecessor's; the picture shines through the lit mesh
_POINT_COLOR = (64, 255, 96)
_LINE_COLOR = (255, 255, 255)
_BOX_COLOR = (64, 160, 255)
_POSE_COLOR = (40, 255, 0)
_SUBPIXEL_BITS = 4  # OpenCV draws at 1/16 pixel
_FAR = 1 << 20  # pixels; wider than pictures are, and OpenCV walks all rows of a thick line
_MAX_LINE_WIDTH = 100  # of a face of 15000 pixels

# First and last point of each line of the 68-point scheme of 300-W, and whether it closes.
_CONTOURS = (
    (0, 16, False),
    (17, 21, False),
    (22, 26, False),
    (27, 30, False),
    (31, 35, False),
    (36, 41, True),
    (42, 47, True),
    (48, 59, True),
    (60, 67, True),
)


def render(
    image: Any,
    faces: Sequence[Face],
    mode: Mode,
    *,
    alpha: float | None = None,
    landmark_set: str = "ibug68",
    color: ColorOrder = "rgb",
) -> NDArray[np.uint8]:
    """Draw faces over their image.

    Args:
        image: (H, W, 3) uint8 or anything else that :func:`threedfa.image.load_image` takes.
        faces: of this image; later ones are drawn over earlier ones.
        mode: ``"landmarks"`` the 68 points and their lines; ``"dense"`` vertices that face the
            viewer; ``"box"`` box and score; ``"pose"`` a box in the head's direction and its
            angles; ``"mesh"`` the lit mesh (Phong 1975, lights as in 3DDFA_V2); ``"wireframe"`` its
            edges; ``"depth"`` z from black (far) to white (near), each face on its own;
            ``"pncc"`` projected normalised coordinate code (Zhu et al. 2016).
        alpha: opacity 0..1 of what is drawn; None: 0.6 for ``"mesh"``, 1 for the rest.
        landmark_set: what ``"landmarks"`` draws; other sets than the 68 have no lines.
        color: channel order of ``image`` if it is an array, ``"rgb"`` or ``"bgr"``.

    Returns:
        RGB (H, W, 3) uint8, a new array.

    Raises:
        ImageError: if the image cannot be read or used.
        PackError: if the pack's model lacks the landmark set.
        TypeError: for one face that is not in a list.
        ValueError: for an unknown mode, an alpha outside 0..1, or a landmark set that is not known;
            sets are looked up in the models of the faces, so for none of them there is no error.
    """
    require_faces(faces)
    if not isinstance(mode, str) or mode not in _PAINTERS:
        raise ValueError(f"mode: expected one of {', '.join(get_args(Mode))}, got {mode!r}")
    if alpha is None:
        alpha = _MESH_ALPHA if mode == "mesh" else 1.0
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected None or 0..1, got {alpha}")
    background = load_image(image, color=color)
    canvas = background.copy()
    for face in faces:
        if mode == "landmarks" and landmark_set != "ibug68":
            points = face.landmarks_in(landmark_set)
            _paint_points(canvas, points, _line_width(face.landmarks))
        else:
            _PAINTERS[mode](canvas, face)
    if alpha == 1:
        return canvas
    return cv2.addWeighted(background, 1 - alpha, canvas, alpha, 0).astype(np.uint8, copy=False)


def vertex_colors(image: NDArray[np.uint8], vertices: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour of the pixel nearest to each vertex, uint8 (V, 3); border pixels beyond the image."""
    height, width = image.shape[:2]
    nearest = np.rint(vertices[:, :2]).clip(0, (width - 1, height - 1)).astype(np.int64)
    colors: NDArray[np.uint8] = image[nearest[:, 1], nearest[:, 0]]
    return colors


def paint_mesh(
    canvas: NDArray[np.uint8],
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
    colors: NDArray[np.float32],
) -> None:
    """Draw a mesh with interpolated vertex colours, (V, 3) or grey (V,), 0..1, into ``canvas``."""
    _core.paint_mesh(canvas, vertices, triangles, colors)


def rasterize_window(
    canvas: NDArray[np.uint8],
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
) -> tuple[int, int, Raster]:
    """Draw a mesh into buffers of its own rectangle of the canvas; left, top, and the buffers."""
    height, width = canvas.shape[:2]
    low = np.clip(np.floor(vertices[:, :2].min(axis=0)), 0, (width - 1, height - 1)).astype(int)
    high = np.clip(np.ceil(vertices[:, :2].max(axis=0)) + 1, low + 1, (width, height)).astype(int)
    left, top = low.tolist()
    # Shifting coordinates by whole pixels towards zero is exact.
    shifted = vertices - np.array([left, top, 0], np.float32)
    return left, top, rasterize(shifted, triangles, *(high - low)[::-1].tolist())


def paint_lit(
    canvas: NDArray[np.uint8],
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
    normals: NDArray[np.float32],
) -> None:
    """Draw a mesh lit from the front into ``canvas``; normals as those of a `Face`."""
    paint_mesh(canvas, vertices, triangles, _core.shade(vertices, normals))


def paint_depth(
    canvas: NDArray[np.uint8], vertices: NDArray[np.float32], triangles: NDArray[np.int32]
) -> None:
    """Draw a mesh's z into ``canvas``, its farthest vertex black and its nearest white."""
    z = vertices[:, 2]
    low, high = z.min(), z.max()
    depth = (z - low) / (high - low) if high > low else np.ones_like(z)
    paint_mesh(canvas, vertices, triangles, depth)


def _paint_lit(canvas: _Image, face: Face) -> None:
    paint_lit(canvas, face.vertices, face.triangles, face.normals)


def _paint_depth(canvas: _Image, face: Face) -> None:
    paint_depth(canvas, face.vertices, face.triangles)


def _paint_pncc(canvas: _Image, face: Face) -> None:
    paint_mesh(canvas, face.vertices, face.triangles, face.model.ncc)


def _line_width(landmarks: NDArray[np.float32]) -> int:
    """About 1/150 of the face, so that overlays look alike at every size."""
    size = float(np.ptp(landmarks[:, :2], axis=0).max())
    return max(1, round(min(size / 150, _MAX_LINE_WIDTH)))


def _fixed_point(points: NDArray[np.floating[Any]]) -> NDArray[np.int32]:
    """Pixels to OpenCV's fixed point; points far outside any picture are pulled in."""
    scaled = points.astype(np.float64).clip(-_FAR, _FAR) * (1 << _SUBPIXEL_BITS)
    fixed: NDArray[np.int32] = np.rint(scaled).astype(np.int32)
    return fixed


def _paint_lines(
    canvas: _Image,
    lines: Sequence[NDArray[np.floating[Any]]],
    color: tuple[int, int, int],
    width: int,
    *,
    closed: bool = False,
) -> None:
    cv2.polylines(
        canvas,
        [_fixed_point(line) for line in lines],
        closed,
        color,
        width,
        cv2.LINE_AA,
        _SUBPIXEL_BITS,
    )


def paint_landmarks(canvas: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> None:
    """Draw the 68 points, (68, 2) or (68, 3), and their lines into the RGB image ``canvas``."""
    points = landmarks[:, :2]
    width = _line_width(points)
    for first, last, closed in _CONTOURS:
        _paint_lines(canvas, [points[first : last + 1]], _LINE_COLOR, width, closed=closed)
    _paint_points(canvas, points, width)


def _paint_points(canvas: _Image, points: NDArray[np.float32], width: int) -> None:
    """Dots for (L, 2) or (L, 3) points, three times as wide as lines of this width, but apart."""
    extent = np.ptp(points[:, :2].astype(np.float64), axis=0)
    spread = float(np.sqrt(extent.prod() / len(points)))
    radius = int(min(1.5 * width, max(1, 0.2 * spread))) << _SUBPIXEL_BITS
    for x, y in _fixed_point(points[:, :2]).tolist():
        cv2.circle(canvas, (x, y), radius, _POINT_COLOR, -1, cv2.LINE_AA, _SUBPIXEL_BITS)


def _paint_landmarks(canvas: _Image, face: Face) -> None:
    paint_landmarks(canvas, face.landmarks)


def _paint_dense(canvas: _Image, face: Face) -> None:
    height, width = canvas.shape[:2]
    points = face.vertices[face.normals[:, 2] > 0, :2]
    # At most one point on six pixels, or the face would be a blot.
    area = float(np.ptp(points.astype(np.float64), axis=0).prod()) if len(points) else 0.0
    points = np.rint(points[:: max(1, round(6 * len(points) / max(area, 1.0)))])
    inside = ((points >= 0) & (points < (width, height))).all(axis=1)
    x, y = points[inside].astype(np.int64).T
    canvas[y, x] = _POINT_COLOR


def _paint_text(canvas: _Image, text: str, x: float, y: float, face: Face) -> None:
    scale = max(0.4, 0.25 * _line_width(face.landmarks) + 0.25)
    # A dark copy beneath keeps the letters readable on any background.
    for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        origin = _fixed_point(np.array([x, y])) >> _SUBPIXEL_BITS
        cv2.putText(
            canvas,
            text,
            origin.tolist(),
            cv2.FONT_HERSHEY_SIMPLEX,
            scale,
            color,
            width,
            cv2.LINE_AA,
        )


def _paint_box(canvas: _Image, face: Face) -> None:
    x1, y1, x2, y2 = face.bbox
    corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])
    _paint_lines(canvas, [corners], _BOX_COLOR, _line_width(face.landmarks) + 1, closed=True)
    _paint_text(canvas, f"{face.score:.2f}", float(x1), max(float(y1) - 6, 14), face)


def pose_box(
    landmarks: NDArray[np.float32], rotation: NDArray[np.floating[Any]]
) -> NDArray[np.float32]:
    """Corners of a box that points where the head looks, (8, 2) pixels: four behind, four in front.

    Its size follows the landmarks' extent; the rear side is centred on the outline and the brows.
    ``rotation`` is that of :class:`threedfa.face.Pose`.
    """
    rear = float(np.hypot(*[np.ptp(landmarks[:, :2], axis=0).max()] * 2)) / 3
    front = float(int(rear * 4 / 3))
    square = np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)], np.float32)
    corners = np.concatenate(
        [
            np.column_stack([square * rear, np.zeros(4)]),
            np.column_stack([square * front, np.full(4, front)]),
        ]
    )
    points = (corners @ rotation.T)[:, :2] * (1, -1)
    centered: NDArray[np.float32] = (
        points - points[:4].mean(axis=0) + landmarks[:27, :2].mean(axis=0)
    ).astype(np.float32)
    return centered


def paint_pose_box(canvas: NDArray[np.uint8], corners: NDArray[np.float32], width: int) -> None:
    """Draw the box of `pose_box` into ``canvas``, its lines ``width`` pixels wide."""
    _paint_lines(canvas, [corners[:4], corners[4:]], _POSE_COLOR, width, closed=True)
    _paint_lines(canvas, [corners[[i, i + 4]] for i in range(4)], _POSE_COLOR, width)


def _paint_pose(canvas: _Image, face: Face) -> None:
    corners = pose_box(face.landmarks, face.pose.rotation)
    paint_pose_box(canvas, corners, _line_width(face.landmarks) + 1)
    pose = face.pose
    text = f"yaw {pose.yaw:.0f}  pitch {pose.pitch:.0f}  roll {pose.roll:.0f}"
    _paint_text(canvas, text, float(corners[:, 0].min()), float(corners[:, 1].max()) + 18, face)


def _paint_wireframe(canvas: _Image, face: Face) -> None:
    # Lines come out of the z-buffer, so hidden edges stay hidden: a pixel belongs to an edge where
    # its distance to it, barycentric weight times the triangle's height over that edge, is small.
    corners = face.vertices[face.triangles][:, :, :2].astype(np.float64)
    edges = corners[:, [2, 0, 1]] - corners[:, [1, 2, 0]]  # opposite to each corner
    double_area = np.abs(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0])
    heights = double_area[:, None] / np.maximum(np.linalg.norm(edges, axis=2), 1e-6)
    # One pixel wide, less where triangles are so small that the lines would run together.
    half_width = np.minimum(0.5, 0.15 * heights.min(axis=1))

    left, top, raster = rasterize_window(canvas, face.vertices, face.triangles)
    covered = raster.triangle >= 0
    triangle = raster.triangle[covered]
    distance = (raster.barycentric[covered] * heights[triangle]).min(axis=1)
    line = half_width[triangle]
    opacity = ((line - distance) / np.maximum(2 * line, 1e-6) + 0.5).clip(0, 1)[:, None]
    window = canvas[top : top + covered.shape[0], left : left + covered.shape[1]]
    window[covered] = np.rint(window[covered] * (1 - opacity) + _LINE_COLOR * opacity)


_PAINTERS: dict[str, Callable[[_Image, Face], None]] = {
    "landmarks": _paint_landmarks,
    "dense": _paint_dense,
    "box": _paint_box,
    "pose": _paint_pose,
    "mesh": _paint_lit,
    "wireframe": _paint_wireframe,
    "depth": _paint_depth,
    "pncc": _paint_pncc,
}
