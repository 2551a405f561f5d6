"""What happens to a crop before the network sees it in training.

Geometry (region jitter, rotation, mirror) is done by :class:`Jitter` together with the labels;
everything else here changes pixels only. Pictures are uint8 (H, W, 3) BGR; ``rng`` decides all.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Jitter:
    """How far a region strays from the landmarks' own region.

    Mostly as little as a second pass or our own detector's boxes do; for a part of the pictures
    as far as other detectors' boxes, which give regions about 1.2 times the landmarks'.
    """

    log_scale_sigma: float = 0.09
    shift_sigma: float = 0.035  # of the region's side
    far_part: float = 0.25
    far_log_scale: float = -0.2
    far_log_scale_sigma: float = 0.15
    far_shift_sigma: float = 0.055
    tilt_sigma: float = 8.0  # degrees
    wide_tilt: float = 50.0  # degrees, the range for a part of the pictures
    wide_tilt_part: float = 0.3

    def draw(self, rng: np.random.Generator, wide: bool) -> tuple[float, float, float, float]:
        """Scale, shift x, shift y (of the side), angle (radians)."""
        far = rng.random() < self.far_part
        sigma, shift_sigma = self.log_scale_sigma, self.shift_sigma
        if far:
            sigma, shift_sigma = self.far_log_scale_sigma, self.far_shift_sigma
        log_scale = far * self.far_log_scale + np.clip(rng.normal(), -2.2, 2.2) * sigma
        shift = np.clip(rng.normal(size=2), -2.5, 2.5) * shift_sigma
        if wide and rng.random() < self.wide_tilt_part:
            angle = rng.uniform(-self.wide_tilt, self.wide_tilt)
        else:
            angle = rng.normal() * self.tilt_sigma
        return float(np.exp(log_scale)), float(shift[0]), float(shift[1]), float(np.deg2rad(angle))


def misaligned(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A region that no tracker should accept, as :meth:`Jitter.draw` gives it."""
    kind = rng.integers(4)
    scale, shift, angle = np.exp(rng.normal(-0.1, 0.2)), rng.normal(0, 0.05, 2), rng.normal(0, 0.2)
    if kind == 0:
        direction = rng.uniform(0, 2 * np.pi)
        shift = rng.uniform(0.45, 0.9) * np.array([np.cos(direction), np.sin(direction)])
    elif kind == 1:
        scale = rng.uniform(0.3, 0.48)
    elif kind == 2:
        scale = rng.uniform(2.0, 4.0)
    else:
        angle = np.pi + rng.normal(0, 0.5)
    return float(scale), float(shift[0]), float(shift[1]), float(angle)


def warp(
    image: Image, region: float, side: int, move: tuple[float, float, float, float], border: int
) -> tuple[Image, Array]:
    """Cut ``side`` x ``side`` pixels around a crop's middle.

    Args:
        image: a square crop with the face's region in its middle.
        region: the region's side in pixels of the crop.
        side: of the result.
        move: scale, shift and angle.
        border: OpenCV border mode.

    Returns:
        The picture and the (2, 3) affine map from crop to result, pixel centres at whole numbers.
    """
    scale, shift_x, shift_y, angle = move
    gain = side / region * scale
    cos, sin = gain * np.cos(angle), gain * np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]])
    middle = (image.shape[0] - 1) / 2
    offset = (side - 1) / 2 + side * np.array([shift_x, shift_y]) - linear @ [middle, middle]
    affine = np.column_stack([linear, offset])
    if gain < 0.8:
        image = cv2.GaussianBlur(image, (0, 0), 0.45 / gain)
    out = cv2.warpAffine(image, affine, (side, side), flags=cv2.INTER_LINEAR, borderMode=border)
    return out, affine.astype(np.float32)


def photometric(image: Image, rng: np.random.Generator, strength: float = 1.0) -> Image:
    """Resolution, blur, tone, colour, light, noise and JPEG, as photographs have them."""
    side = image.shape[0]

    def chance(p: float) -> bool:
        return bool(rng.random() < p * strength)

    if chance(0.3):
        small = int(rng.integers(side // 5, side * 2 // 3))
        back = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[rng.integers(3)]
        image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (side, side), interpolation=back)
    if chance(0.12):
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.8))
    if chance(0.08):
        image = motion_blur(image, rng)
    image = tone(image, rng, strength)
    u = rng.random() / max(strength, 1e-6)
    if u < 0.35:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        keep = 0.0 if u < 0.13 else rng.uniform(0.3, 1.5)
        image = cv2.addWeighted(image, keep, grey, 1 - keep, 0)
    if chance(0.2):
        image = side_light(image, rng)
    if chance(0.2):
        noise = rng.standard_normal(image.shape, np.float32) * rng.uniform(2, 13)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if chance(0.2):
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 75))]
        image = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR)
    return image


def occlude(image: Image, other: Image, eyes: Array, rng: np.random.Generator) -> Image:
    """Things in front of a face: patches of another picture, plain shapes, glasses.

    Args:
        image: changed copy is returned.
        other: a picture to cut patches from, any size from 60 pixels.
        eyes: (2, 2) centres of the eyes in pixels.
        rng: random numbers.
    """
    image = image.copy()
    side = image.shape[0]
    if rng.random() < 0.2:
        for _ in range(rng.integers(1, 3)):
            _patch(image, other, rng)
    if rng.random() < 0.08:  # a dark, pale or coloured bar or disc: microphone, cup, sign
        color = tuple(float(c) for c in rng.integers(0, 255, 3))
        x, y = (int(v) for v in rng.integers(0, side, 2))
        if rng.random() < 0.5:
            cv2.circle(image, (x, y), int(rng.integers(5, 22)), color, -1, cv2.LINE_AA)
        else:
            end = (int(x + rng.integers(-60, 60)), int(y + rng.integers(-60, 60)))
            cv2.line(image, (x, y), end, color, int(rng.integers(2, 16)), cv2.LINE_AA)
    if rng.random() < 0.1:
        _glasses(image, eyes, rng)
    return image


def _patch(image: Image, other: Image, rng: np.random.Generator) -> None:
    side = image.shape[0]
    w, h = (int(v) for v in rng.integers(14, 56, 2))
    x, y = int(rng.integers(-8, side - 8)), int(rng.integers(-8, side - 8))
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, side), min(y + h, side)
    w, h = x1 - x0, y1 - y0
    if w < 2 or h < 2 or w >= other.shape[1] or h >= other.shape[0]:
        return
    u, v = int(rng.integers(other.shape[1] - w)), int(rng.integers(other.shape[0] - h))
    patch = other[v : v + h, u : u + w]
    if rng.random() < 0.5:
        image[y0:y1, x0:x1] = patch
        return
    mask = np.zeros((h, w, 1), np.uint8)
    cv2.ellipse(mask, (w // 2, h // 2), (w // 2, h // 2), 0, 0, 360, 1, -1)
    image[y0:y1, x0:x1] = np.where(mask > 0, patch, image[y0:y1, x0:x1])


def _glasses(image: Image, eyes: Array, rng: np.random.Generator) -> None:
    across = eyes[1] - eyes[0]
    distance = float(np.hypot(*across))
    if distance < 8:
        return  # seen from the side: the frame would not look like one
    angle = float(np.rad2deg(np.arctan2(across[1], across[0])))
    half = (int(distance * rng.uniform(0.3, 0.42)), int(distance * rng.uniform(0.22, 0.36)))
    color = tuple(float(c) for c in rng.integers(0, 110, 3))
    centers = [tuple(int(v) for v in np.rint(eye + 0.04 * distance)) for eye in eyes]
    lenses = image.copy()
    for center in centers:
        cv2.ellipse(lenses, center, half, angle, 0, 360, color, -1, cv2.LINE_AA)
    tint = rng.uniform(0.75, 1.0) if rng.random() < 0.35 else rng.uniform(0, 0.25)
    cv2.addWeighted(lenses, tint, image, 1 - tint, 0, dst=image)
    width = int(rng.integers(1, 4))
    for center in centers:
        cv2.ellipse(image, center, half, angle, 0, 360, color, width, cv2.LINE_AA)
    unit = across / distance
    a, b = eyes[0] + unit * half[0], eyes[1] - unit * half[0]
    ends = [tuple(int(v) for v in np.rint(p)) for p in (a, b)]
    cv2.line(image, ends[0], ends[1], color, width, cv2.LINE_AA)


def motion_blur(image: Image, rng: np.random.Generator) -> Image:
    size = int(rng.integers(3, 8))
    kernel = np.zeros((size, size), np.float32)
    kernel[size // 2] = 1
    middle = size / 2 - 0.5
    turn = cv2.getRotationMatrix2D((middle, middle), rng.uniform(0, 180), 1)
    kernel = cv2.warpAffine(kernel, turn, (size, size))
    return cv2.filter2D(image, -1, kernel / max(float(kernel.sum()), 0.1))


def tone(image: Image, rng: np.random.Generator, strength: float) -> Image:
    curve = (np.arange(256, dtype=np.float32) / 255) ** np.exp(rng.normal(0, 0.3 * strength))
    contrast = np.exp(rng.normal(0, 0.22 * strength))
    curve = (curve - 0.5) * contrast + 0.5 + rng.normal(0, 0.1 * strength)
    gains = np.exp(rng.normal(0, 0.12 * strength, 3)) if rng.random() < 0.6 else np.ones(3)
    table = np.clip(curve[:, None] * gains * 255, 0, 255).astype(np.uint8)
    return cv2.LUT(image, table.reshape(256, 1, 3))


def side_light(image: Image, rng: np.random.Generator) -> Image:
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.8)
    ramp = np.linspace(-1, 1, image.shape[0], dtype=np.float32)
    light = 1 + depth * (ramp[None] * np.cos(angle) + ramp[:, None] * np.sin(angle))
    return np.clip(image * light[..., None], 0, 255).astype(np.uint8)
