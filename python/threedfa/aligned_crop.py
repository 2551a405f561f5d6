"""Pictures of one face in a standard frame."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from . import _core
from .image import MAX_SIDE, check_side
from .landmark_sets import in_front
from .ops import rasterize

# Eyes, nose tip and corners of the mouth in a picture of 112 pixels, those at the image's left
# first: the template of SphereFace (Liu et al. 2017) moved by 8 pixels, as ArcFace (Deng et al.
# 2019) and most recognition networks since are trained with.
TEMPLATE: Final = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
TEMPLATE_SIZE: Final = 112

_MARGIN: Final = 0.04  # of the picture around a frontalised head
_GRAZING: Final = 0.3  # cosine to the viewer below which the picture shows nothing of the skin


def similarity(source: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
    """The turn, uniform scale and shift that brings points nearest to others, by least squares.

    Source: Umeyama 1991, "Least-squares estimation of transformation parameters between two point
    patterns", equations 39 to 43.

    Args:
        source: (N, 2).
        target: (N, 2).

    Returns:
        (2, 3): ``target ≈ matrix[:, :2] · source + matrix[:, 2]``.

    Raises:
        ValueError: if the source points are all in one place.
    """
    from_mean, to_mean = source.mean(axis=0, dtype=np.float64), target.mean(axis=0)
    spread = float(((source - from_mean) ** 2).sum(axis=1).mean())
    if not spread > 0:
        raise ValueError(f"expected points that are not all in one place, got {source.tolist()}")
    covariance = (target - to_mean).T @ (source - from_mean) / len(source)
    left, values, right = np.linalg.svd(covariance)
    # No mirror image, even if that came nearer.
    signs = np.array([1, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    linear = (values @ signs / spread) * (left * signs) @ right
    matrix: NDArray[np.float64] = np.column_stack([linear, to_mean - linear @ from_mean])
    return matrix


def crop_matrix(five: NDArray[np.float32], size: int = TEMPLATE_SIZE) -> NDArray[np.float64]:
    """The transform (2, 3) from an image to the aligned crop of ``size`` pixels.

    Args:
        five: (5, 2) or (5, 3) the landmarks ``"five"`` in pixels.
        size: side of the crop; the template grows with it.

    Raises:
        TypeError: a size that is not whole.
        ValueError: a size out of range, or points that are all in one place.
    """
    size = check_side("size", size)
    return similarity(five[:, :2], np.array(TEMPLATE) * (size / TEMPLATE_SIZE))


def aligned_crop(
    pixels: NDArray[np.uint8], five: NDArray[np.float32], size: int
) -> NDArray[np.uint8]:
    """Cut a face out so that its five points come to lie on the template; black beyond the image.

    Args:
        pixels: (H, W, 3).
        five: (5, 2) or (5, 3) the landmarks ``"five"`` in pixels.
        size: side of the crop.

    Returns:
        uint8 (size, size, 3), sampled bilinearly.

    Raises:
        TypeError, ValueError: as `crop_matrix`.
    """
    matrix = crop_matrix(five, size)
    crop: NDArray[np.uint8] = cv2.warpAffine(pixels, matrix, (size, size)).astype(
        np.uint8, copy=False
    )
    return crop


def frontalized(
    pixels: NDArray[np.uint8],
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
    head: NDArray[np.float32],
    facing: NDArray[np.float32],
    *,
    size: int,
    mirror: bool,
) -> NDArray[np.uint8]:
    """Draw a head from the front with the colours that an image shows of it.

    What the image does not show (turned away, behind the nose, beyond the border) is taken from the
    other side of the face, as in Hassner et al. 2015, "Effective face frontalization in
    unconstrained images", or, where that is not shown either, from what lies in front of it.

    Args:
        pixels: (H, W, 3).
        vertices: (V, 3) in the image.
        triangles: (T, 3).
        head: (V, 3) the same in object space, any unit.
        facing: (V,) cosine of the angle between each vertex's normal and the direction to the
            viewer.
        size: side of the picture.
        mirror: whether to fill from the other side.

    Returns:
        uint8 (size, size, 3): the whole mesh in the middle, its plane of symmetry on the middle
        column, black around it.

    Raises:
        TypeError: a size that is not whole.
        ValueError: a size out of range, or a head without extent.
    """
    size = check_side("size", size)
    middle = (head[:, 1].max() + head[:, 1].min()) / 2
    reach = max(float(np.abs(head[:, 0]).max()), float(head[:, 1].max() - middle))
    if not reach > 0:
        raise ValueError("expected a head with some extent, got one that is a point")
    scale = (1 - 2 * _MARGIN) * size / 2 / reach
    # Where the image has several pixels for one of the result, several are drawn and averaged.
    shrinking = float(np.ptp(vertices[:, :2], axis=0).max() / (2 * reach * scale))
    finer = int(np.clip(np.ceil(shrinking), 1, max(1, min(4, MAX_SIDE // size))))
    side = size * finer
    drawn = np.array([1, -1, 1], np.float32) * (head - np.array([0, middle, 0], np.float32))
    drawn = drawn * np.float32(scale * finer) + np.array([1, 1, 0], np.float32) * (side - 1) / 2

    raster = rasterize(
        drawn, triangles, side, side, attributes=np.concatenate([vertices, facing[:, None]], axis=1)
    )
    assert raster.image is not None
    covered = raster.triangle >= 0
    seen, cosine = raster.image[covered][:, :3], raster.image[covered][:, 3]
    colors = np.zeros((side, side, 3), np.float32)
    colors[covered] = _core.sample_bilinear(pixels, seen[:, :2])
    if mirror:
        height, width = pixels.shape[:2]
        inside = ((seen[:, :2] >= 0) & (seen[:, :2] <= (width - 1, height - 1))).all(axis=1)
        shown = np.zeros((side, side), np.float32)
        shown[covered] = inside & (cosine > _GRAZING) & in_front(seen, vertices, triangles)
        colors = _filled(colors, covered, shown)
    if finer > 1:
        # The mean of finer x finer pixels.
        colors = colors.reshape(size, finer, size, finer, 3).mean(axis=(1, 3))
    picture: NDArray[np.uint8] = np.rint(colors).clip(0, 255).astype(np.uint8)
    return picture


def _filled(
    colors: NDArray[np.float32], covered: NDArray[np.bool_], shown: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Colours (S, S, 3) where they are not shown (0, else 1) from the other half of the picture."""
    # Trust falls to 0 towards what is not shown, so that there is no seam.
    radius = max(1, len(colors) // 32)
    trust = np.clip(2 * cv2.blur(shown, (2 * radius + 1, 2 * radius + 1)) - 1, 0, 1) * shown
    other = (1 - trust) * trust[:, ::-1] * covered
    total = (trust + other)[:, :, None]
    mixed = trust[:, :, None] * colors + other[:, :, None] * colors[:, ::-1]
    filled: NDArray[np.float32] = np.where(total > 0, mixed / np.maximum(total, 1e-6), colors)
    return filled.astype(np.float32)
