"""The kernels, on NumPy arrays.

Every array is checked: a wrong dtype is a ``TypeError``; a wrong shape, a value that is not finite
or an index out of range is a ``ValueError``. Both say what was expected and what came. Arrays
of real numbers are taken in any precision and used as float32. The kernels release the GIL
and change none of their arguments but ``out``, which must not share memory with the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from .priors import PriorConfig

__all__ = ["Raster", "decode_boxes", "nms", "prior_boxes", "rasterize", "vertex_normals"]


@dataclass(frozen=True, eq=False)
class Raster:
    """What :func:`rasterize` draws.

    Attributes:
        depth: float32 (H, W), z at each pixel, ``-inf`` where nothing is drawn.
        triangle: int32 (H, W), the triangle seen at each pixel, -1 where there is none.
        barycentric: float32 (H, W, 3), weights of that triangle's corners, 0 where there is none.
        image: float32 (H, W, C), attributes interpolated over the background; None without
            attributes.
    """

    depth: NDArray[np.float32]
    triangle: NDArray[np.int32]
    barycentric: NDArray[np.float32]
    image: NDArray[np.float32] | None


def nms(
    boxes: ArrayLike, scores: ArrayLike, iou_threshold: float, *, offset: float = 0
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression.

    Boxes are visited by falling score (equal scores by falling index, as a reversed stable sort
    gives them); each box that still stands removes the later ones whose intersection over union
    with it is at least ``iou_threshold``.

    Args:
        boxes: (N, 4) x1 y1 x2 y2.
        scores: (N,).
        iou_threshold: 0..1.
        offset: added to each side before areas are computed, 0 or more: 0 for continuous
            coordinates, 1 for the "+1 pixel" areas of Fast R-CNN.

    Returns:
        Indices of the kept boxes, best first.

    Raises:
        TypeError: an array that is not of real numbers.
        ValueError: wrong shapes, values that are not finite, a threshold outside 0..1, a negative
            offset.
    """
    return _core.nms(boxes, scores, iou_threshold, offset=offset)


def prior_boxes(height: int, width: int, config: PriorConfig) -> NDArray[np.float32]:
    """Prior boxes of an SSD-style detector (Liu et al. 2016) for one image size.

    Args:
        height: of the network's input, pixels, ≥ 1.
        width: likewise.
        config: steps, sizes and densities, e.g. ``PriorConfig.faceboxes()``.

    Returns:
        (P, 4) cx cy w h relative to the image, in order of levels, rows, cells, sizes, rows of
        centres within the cell, centres.

    Raises:
        ValueError: a size below 1 or a configuration that is not valid.
    """
    return _core.prior_boxes(height, width, config.as_tuples())


def decode_boxes(
    loc: ArrayLike, priors: ArrayLike, variances: tuple[float, float] = (0.1, 0.2)
) -> NDArray[np.float32]:
    """Decode a detector's offsets (SSD, Liu et al. 2016, section 2.2).

    Args:
        loc: (P, 4) network output.
        priors: (P, 4) cx cy w h, relative.
        variances: of centre and size.

    Returns:
        (P, 4) x1 y1 x2 y2, relative to the image.

    Raises:
        TypeError: an array that is not of real numbers.
        ValueError: wrong shapes, values that are not finite, or boxes that are not.
    """
    return _core.decode_boxes(loc, priors, variances)


def vertex_normals(vertices: ArrayLike, triangles: ArrayLike) -> NDArray[np.float32]:
    """Area-weighted unit vertex normals.

    Normals point to the side from which the triangles run counter-clockwise in the vertices' own
    right-handed axes. (Image space has y down and is left-handed: negate them there.)

    Args:
        vertices: (V, 3).
        triangles: (T, 3), integers in 0..V-1.

    Returns:
        (V, 3); zero for a vertex with no area around it.

    Raises:
        TypeError: wrong dtypes.
        ValueError: wrong shapes, values that are not finite, an index out of range.
    """
    return _core.vertex_normals(vertices, triangles)


def rasterize(
    vertices: ArrayLike,
    triangles: ArrayLike,
    height: int,
    width: int,
    *,
    attributes: ArrayLike | None = None,
    background: ArrayLike | None = None,
    out: Raster | None = None,
) -> Raster:
    """Draw triangles with a z-buffer.

    Pixel centres lie at whole numbers. Each pixel whose centre is covered is drawn, centres on an
    edge by the top-left rule, so a pixel on a shared edge is drawn exactly once. Both sides of a
    triangle are drawn; the largest z wins, the earlier triangle where z is equal. Parts outside are
    clipped; triangles without area are skipped.

    Args:
        vertices: (V, 3), x right and y down in pixels, z towards the viewer.
        triangles: (T, 3), integers in 0..V-1.
        height: of the result, 1..65535; at most 2^30 pixels in all.
        width: likewise.
        attributes: (V, C), interpolated over the triangles.
        background: (height, width, C), what ``image`` shows where nothing is drawn; black if not
            given.
        out: an earlier result of the same size and number of attributes, whose arrays are drawn
            into again and returned.

    Raises:
        TypeError: wrong dtypes.
        ValueError: wrong shapes, values that are not finite, an index out of range, a background
            without attributes.
    """
    buffers = None if out is None else (out.depth, out.triangle, out.barycentric, out.image)
    return Raster(
        *_core.rasterize(
            vertices,
            triangles,
            height,
            width,
            attributes=attributes,
            background=background,
            out=buffers,
        )
    )
