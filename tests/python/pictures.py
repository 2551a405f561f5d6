"""Pictures for the toy pack, as files, and compared."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]
Picture = npt.NDArray[np.uint8]


def picture(*cells: tuple[int, int], size: tuple[int, int] = (160, 200)) -> Picture:
    """Dark noise with a bright square of 32 pixels, a face of the toy pack, at each left, top."""
    image = np.random.default_rng(len(cells)).integers(0, 60, (*size, 3), dtype=np.uint8)
    for left, top in cells:
        image[top : top + 32, left : left + 32] = np.linspace(200, 250, 32)[:, None]
    return image


def png(image: Picture) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def psnr(a: Array, b: Array) -> float:
    """How alike two pictures are, in decibels."""
    difference = a.astype(np.float64) - b
    return float(10 * np.log10(255**2 / np.maximum((difference**2).mean(), 1e-9)))
