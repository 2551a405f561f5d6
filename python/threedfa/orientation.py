"""Quarter turns: of images, and back again of what was found in a turned one.

An image that is turned counter-clockwise by ``turns`` quarters shows upright what is turned
clockwise by as many in the image itself. Pixels map to pixels, so nothing is lost on the way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

QUARTER_TURNS = (1, 2, 3)
"""Those that are not upright."""


def turned(image: NDArray[np.uint8], turns: int) -> NDArray[np.uint8]:
    """The image (H, W, 3), turned counter-clockwise by a number of quarters."""
    return np.ascontiguousarray(np.rot90(image, turns))


def boxes_in_turned(
    boxes: NDArray[np.float32], turns: int, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Where boxes (N, 4) of an image of this height and width lie in the turned image."""
    height, width = size
    for _ in range(turns):
        x1, y1, x2, y2 = boxes.T
        boxes = np.stack([y1, width - x2, y2, width - x1], axis=1)
        height, width = width, height
    return boxes


def boxes_in_image(
    boxes: NDArray[np.float32], turns: int, size: tuple[int, int]
) -> NDArray[np.float32]:
    """The inverse of :func:`boxes_in_turned`; ``size`` is that of the image as it is."""
    return boxes_in_turned(boxes, -turns % 4, size if turns % 2 == 0 else size[::-1])


def fit_in_image(
    roi: NDArray[np.float64],
    camera: NDArray[np.float32],
    landmarks: NDArray[np.float32],
    turns: int,
    size: tuple[int, int],
    input_size: int,
) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
    """What the regressor found in a turned image, as it is in the image itself.

    The turn goes into the camera: projecting with the results gives the landmarks that are
    returned, and the head's roll grows by 90 degrees a quarter.

    Args:
        roi: (4,) the square that the regressor saw, in the turned image.
        camera: (12,) the first parameters.
        landmarks: (L, 3) in the turned image.
        turns: quarters by which the image was turned, counter-clockwise.
        size: height and width of the image itself.
        input_size: side of the regressor's input, pixels.

    Returns:
        roi, camera and landmarks in the image itself.
    """
    scale = (roi[2] - roi[0]) / input_size  # image pixels per input pixel
    rows = camera.reshape(3, 4).astype(np.float64)
    points = landmarks.copy()
    height, width = size
    for step in range(turns, 0, -1):  # back by one quarter
        before = width if step % 2 else height  # width of the image before that quarter
        points[:, 0], points[:, 1] = before - 1 - points[:, 1], points[:, 0].copy()
        x1, y1, x2, y2 = roi
        roi = np.array([before - y2, x1, before - y1, x2], np.float64)
        # Centres of pixels are whole numbers, edges of regions too: half a pixel of the image at
        # either end, hence the 1 / scale. The camera's own pixels count from 1, with y up.
        rows = np.stack([rows[1], -rows[0], rows[2]])
        rows[0, 3] += 1 - 1 / scale
        rows[1, 3] += input_size + 1
    return roi, rows.astype(np.float32).ravel(), points
