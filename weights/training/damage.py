"""What cameras, files and screens do to a whole image: damage for training detectors.

Images are uint8 (H, W, 3) BGR; ``rng`` decides all. :func:`damage` says how much resolution was
lost, so that faces that nobody could see any more are not asked for.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from augment import motion_blur, side_light, tone
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Rng = np.random.Generator


def damage(image: Image, rng: Rng, strength: float, smallest: float) -> tuple[Image, float]:
    """A part of the damages below, in the order in which they happen to a photograph.

    Args:
        image: the image; it is not changed.
        strength: 0..1, how likely each damage is.
        smallest: side in pixels of the smallest face; blur is bounded by it.

    Returns:
        The image and the side in pixels below which no face can be recognised any more.
    """
    limit = 0.0

    def chance(probability: float) -> bool:
        return bool(rng.random() < probability * strength)

    if chance(0.12):
        image, lost = _resample(image, rng, smallest)
        limit = max(limit, 7 * lost)
    if chance(0.12):
        sigma = float(np.exp(rng.uniform(np.log(0.5), np.log(np.clip(smallest / 6, 0.6, 5)))))
        image = cv2.GaussianBlur(image, (0, 0), sigma)
        limit = max(limit, 6 * sigma)
    if chance(0.07):
        image = motion_blur(image, rng)
        limit = max(limit, 12)
    if rng.random() < 0.7:
        image = tone(image, rng, 0.9)
    if chance(0.3):
        image = _exposure(image, rng)
    if chance(0.22):
        image = _color(image, rng)
    if chance(0.06):
        image = _side_light(image, rng)
    if chance(0.22):
        sigma = float(rng.uniform(3, 45))
        noise = rng.standard_normal(image.shape, np.float32)
        if rng.random() < 0.3:
            noise[:] = noise[..., :1]
        image = np.clip(image + noise * np.float32(sigma), 0, 255).astype(np.uint8)
        limit = max(limit, sigma / 2.5)
    if chance(0.06):
        image = _salt_and_pepper(image, rng)
        limit = max(limit, 12)
    if chance(0.14):
        image = _lines(image, rng)
        limit = max(limit, 12)
    if chance(0.03):
        levels = int(rng.integers(4, 24))
        image = (image // (256 // levels) * (256 // levels)).astype(np.uint8)
    if chance(0.35):
        quality = int(rng.integers(4, 92))
        image = _jpeg(image, quality)
        limit = max(limit, 12 if quality < 15 else 0)
    return image, limit


def _resample(image: Image, rng: Rng, smallest: float) -> tuple[Image, float]:
    """Down and up again, also by whole blocks."""
    factor = float(np.exp(rng.uniform(np.log(1.2), np.log(np.clip(smallest / 7, 1.3, 8)))))
    height, width = image.shape[:2]
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    back = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[rng.integers(3)]
    return cv2.resize(small, (width, height), interpolation=back), factor


def _exposure(image: Image, rng: Rng) -> Image:
    """Too dark, too bright, flat or steep."""
    values = np.arange(256, dtype=np.float32)
    kind = rng.integers(4)
    if kind == 0:
        values *= np.exp(rng.uniform(np.log(0.05), np.log(0.5)))
    elif kind == 1:
        values *= np.exp(rng.uniform(np.log(1.3), np.log(3.5)))
    elif kind == 2:
        middle = rng.uniform(60, 190)
        values = (values - 127.5) * np.float32(rng.uniform(0.12, 0.6)) + np.float32(middle)
    else:
        values = 255 * (values / 255) ** np.float32(np.exp(rng.uniform(-1.1, 1.1)))
    return cv2.LUT(image, np.clip(values, 0, 255).astype(np.uint8))


def _color(image: Image, rng: Rng) -> Image:
    """Grey, pale or garish, a cast, channels exchanged."""
    kind = rng.integers(5)
    if kind <= 1:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        keep = 0.0 if kind == 0 else float(rng.uniform(0.2, 1.8))
        return cv2.addWeighted(image, keep, grey, 1 - keep, 0)
    if kind <= 3:
        gains = np.exp(rng.normal(0, 0.45, 3))
        table = np.clip(np.arange(256)[:, None] * gains, 0, 255).astype(np.uint8)
        return cv2.LUT(image, table.reshape(256, 1, 3))
    return np.ascontiguousarray(image[..., rng.permutation(3)])


def _side_light(image: Image, rng: Rng) -> Image:
    side = max(image.shape[:2])
    square = side_light(np.full((side, side, 3), 128, np.uint8), rng)[: image.shape[0]]
    gain = square[:, : image.shape[1]].astype(np.float32) / 128
    return np.clip(image * gain, 0, 255).astype(np.uint8)


def _salt_and_pepper(image: Image, rng: Rng) -> Image:
    draw = rng.random(image.shape[:2], np.float32)
    part = np.float32(rng.uniform(0.002, 0.05))
    image = image.copy()
    image[draw < part] = 255
    image[draw > 1 - part] = 0
    return image


def _lines(image: Image, rng: Rng) -> Image:
    """Scan lines: rows (or columns) darker, missing, or from another moment (interlacing)."""
    image = image.copy()
    rows = image if rng.random() < 0.8 else image.swapaxes(0, 1)
    period = int(rng.integers(2, 7)) if rng.random() < 0.5 else 2
    part = slice(int(rng.integers(period)), None, period)
    kind = rng.integers(3)
    if kind == 0:
        rows[part] = (rows[part] * np.float32(rng.uniform(0.2, 0.85))).astype(np.uint8)
    elif kind == 1:
        rows[part] = np.roll(rows[part], int(rng.integers(1, 7)), 1)
    else:
        gain, shift = rng.uniform(0.5, 1.0), rng.integers(0, 120)
        rows[part] = np.clip(rows[part] * gain + shift, 0, 255).astype(np.uint8)
    return image


def _jpeg(image: Image, quality: int) -> Image:
    code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(code, cv2.IMREAD_COLOR)


# --- things in front of a face --------------------------------------------------------------------


def cover_face(
    image: Image,
    square: NDArray[np.float32],
    turn: float,
    rng: Rng,
    texture: Callable[[int, int], Image],
) -> None:
    """Put a mask, a bar, a hand, glasses, a hat, a scarf, hair or a thing before a face, in place.

    Args:
        image: the image, changed.
        square: centre x, y and side of the face's box in pixels.
        turn: degrees by which the face is turned in the image plane.
        rng: random numbers.
        texture: gives a piece of any image of a height and a width.
    """
    x, y, side = (float(v) for v in square)
    patch_side = int(min(2.2 * side, 2 * max(image.shape)))
    mask = np.zeros((patch_side, patch_side), np.uint8)
    middle = patch_side / 2
    unit = side  # box sides; drawn upright around the middle, then turned

    def at(u: float, v: float) -> tuple[int, int]:
        return round(middle + u * unit), round(middle + v * unit)

    kind = int(rng.integers(8))
    if kind <= 1:  # a mask over the lower half
        top, low = rng.uniform(-0.08, 0.16), rng.uniform(0.44, 0.62)
        half = rng.uniform(0.34, 0.52)
        corners = [
            at(-half, top),
            at(0, top - rng.uniform(0, 0.12)),
            at(half, top),
            at(half * rng.uniform(0.5, 0.9), low),
            at(-half * rng.uniform(0.5, 0.9), low),
        ]
        cv2.fillPoly(mask, [np.array(corners, np.int32)], 255, cv2.LINE_AA)
    elif kind == 2:  # a bar, sunglasses or goggles over the eyes
        height = rng.uniform(0.08, 0.2)
        eyes = rng.uniform(-0.3, -0.15)
        if rng.random() < 0.5:
            cv2.rectangle(mask, at(-0.5, eyes - height / 2), at(0.5, eyes + height), 255, -1)
        else:
            for u in (-0.22, 0.22):
                axes = (max(1, round(0.19 * unit)), max(1, round(height * unit)))
                cv2.ellipse(mask, at(u, eyes), axes, 0, 0, 360, 255, -1, cv2.LINE_AA)
            cv2.line(mask, at(-0.45, eyes), at(0.45, eyes), 255, max(1, round(unit / 25)))
    elif kind == 3:  # a hat, a helmet, a hood: what is above the brows
        brim = rng.uniform(-0.45, -0.22)
        axes = (max(1, round(rng.uniform(0.5, 0.75) * unit)), max(1, round(0.55 * unit)))
        cv2.ellipse(mask, at(0, brim), axes, 0, 180, 360, 255, -1, cv2.LINE_AA)
        if rng.random() < 0.5:
            cv2.rectangle(mask, at(-0.75, brim - 0.05), at(0.75, brim + 0.04), 255, -1)
    elif kind == 4:  # fingers
        start = rng.uniform(-0.5, 0.5)
        width = rng.uniform(0.08, 0.13)
        for finger in range(int(rng.integers(2, 5))):
            u = start + finger * width * 1.15
            end = at(u + rng.normal(0, 0.05), rng.uniform(-0.3, 0.25))
            cv2.line(mask, at(u, 0.9), end, 255, max(1, round(width * unit)), cv2.LINE_AA)
    elif kind == 5:  # a cup, a microphone, a phone
        u, v = rng.uniform(-0.4, 0.4), rng.uniform(0.05, 0.5)
        half = rng.uniform(0.1, 0.3, 2)
        if rng.random() < 0.5:
            axes = (max(1, round(half[0] * unit)), max(1, round(half[1] * unit)))
            cv2.ellipse(mask, at(u, v), axes, 0, 0, 360, 255, -1, cv2.LINE_AA)
        else:
            cv2.rectangle(mask, at(u - half[0], v - half[1]), at(u + half[0], v + 0.5), 255, -1)
    elif kind == 6:  # hair or a scarf along one side
        u = rng.uniform(0.15, 0.4) * (1 if rng.random() < 0.5 else -1)
        cv2.line(
            mask,
            at(u, -0.7),
            at(u * rng.uniform(1, 2), 0.8),
            255,
            max(1, round(rng.uniform(0.1, 0.3) * unit)),
            cv2.LINE_AA,
        )
    else:  # anything from one side
        angle = rng.uniform(0, 2 * np.pi)
        u, v = 0.65 * np.cos(angle), 0.65 * np.sin(angle)
        axes = (
            max(1, round(rng.uniform(0.2, 0.5) * unit)),
            max(1, round(rng.uniform(0.2, 0.5) * unit)),
        )
        cv2.ellipse(mask, at(u, v), axes, float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
    if kind == 4:
        color = np.array([rng.uniform(40, 170), rng.uniform(60, 190), rng.uniform(90, 240)])
        thing = np.full((patch_side, patch_side, 3), color, np.uint8)
    elif rng.random() < 0.5:
        thing = texture(patch_side, patch_side)
    else:
        pale = rng.random() < 0.4
        color = rng.uniform(150, 255, 3) if pale else rng.uniform(0, 255, 3)
        ramp = np.linspace(rng.uniform(0.6, 1), rng.uniform(0.6, 1), patch_side)[:, None, None]
        thing = np.broadcast_to(color * ramp, (patch_side, patch_side, 3)).astype(np.uint8)
    rotation = cv2.getRotationMatrix2D((middle, middle), -turn, 1.0)
    mask = cv2.warpAffine(mask, rotation, (patch_side, patch_side))
    left, top = round(x - middle), round(y - middle)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + patch_side, image.shape[1]), min(top + patch_side, image.shape[0])
    if x1 <= x0 or y1 <= y0:
        return
    part = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    alpha = mask[part].astype(np.float32) / 255
    under = np.ascontiguousarray(image[y0:y1, x0:x1])
    over = np.ascontiguousarray(thing[part])
    image[y0:y1, x0:x1] = cv2.blendLinear(over, under, alpha, 1 - alpha)
