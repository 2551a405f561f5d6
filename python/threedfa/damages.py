"""Damages that photographs suffer, for measuring detectors (:mod:`threedfa.detector_evaluation`).

Every length is in pixels of the image as it is given, so a damage is harder for small faces. What
is drawn at random depends on the image's name and the damage's name only: the same image is damaged
alike in every run, for every detector.

They are made with other parameters and other code than augmentation uses in training, which should
stay so: a detector trained on exactly these would tell nothing of others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
Boxes: TypeAlias = NDArray[np.float32]

CUT: Final = 0.3  # of the face's side that lies outside after `cut`
SMALL: Final = 24  # pixels, side of the largest face after `face-24`
FILLED: Final = 720  # pixels, longest side of the image that one face fills
LEAST_FILLING: Final = 40  # pixels; smaller faces are too coarse to fill an image
_VISIBLE: Final = 0.5  # of a box that must be left of a face, or it is ignored

_SKIN = ((236, 188, 160), (205, 150, 118), (160, 108, 78), (105, 68, 48))  # RGB
_MASKS = ((140, 190, 220), (235, 235, 235), (35, 35, 40))


@dataclass(frozen=True)
class Damaged:
    """A damaged image and where its faces are now.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        boxes: float32 (N, 4) xyxy, those of all faces given.
        ignored: bool (N,), faces of which the damage left less than half, besides those that were
            ignored before.
    """

    image: Image
    boxes: Boxes
    ignored: NDArray[np.bool_]


_Function: TypeAlias = Callable[[Image, Boxes, np.random.Generator], "Damaged | Image | None"]


def apply_damage(
    name: str,
    image: Image,
    boxes: Boxes,
    ignored: NDArray[np.bool_] | None = None,
    *,
    image_name: str = "",
) -> Damaged | None:
    """Damage one image.

    Args:
        name: one of `DAMAGES`.
        image: uint8 (H, W, 3) RGB; it is not changed.
        boxes: float32 (N, 4) xyxy of the faces, centre of the first pixel (0, 0).
        ignored: bool (N,), faces that do not count; None: all count.
        image_name: what random numbers are drawn from.

    Returns:
        None where the damage needs a face that the image does not have.

    Raises:
        ValueError: for an unknown name, or boxes of another shape.
    """
    if name not in DAMAGES:
        raise ValueError(f"unknown damage {name!r}: expected one of {', '.join(DAMAGES)}")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes: expected (N, 4), got {boxes.shape}")
    ignored = np.zeros(len(boxes), np.bool_) if ignored is None else ignored
    digest = hashlib.sha256(f"{name}\0{image_name}".encode("utf-8", "surrogateescape")).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    function = DAMAGES[name]
    # The damages that choose one face choose among those that count.
    given = boxes[~ignored] if name in _ONE_FACE else boxes
    if name in _ON_FACES and not len(given):
        return None
    if name in _ONE_FACE:
        sizes = _sizes(boxes) * ~ignored
        order = np.argsort(-sizes, kind="stable")
        result = function(image, boxes[order], rng)
        if isinstance(result, Damaged):
            back = np.argsort(order)
            result = Damaged(result.image, result.boxes[back], result.ignored[back])
    else:
        result = function(image, boxes, rng)
    if result is None:
        return None
    if not isinstance(result, Damaged):
        return Damaged(result, boxes, ignored)
    return Damaged(result.image, result.boxes, result.ignored | ignored)


def _noise(image: Image, boxes: Boxes, rng: np.random.Generator, *, sigma: float) -> Image:
    return _to_bytes(image + sigma * rng.standard_normal(image.shape, np.float32))


def _gaussian_blur(image: Image, boxes: Boxes, rng: np.random.Generator, *, sigma: float) -> Image:
    return cv2.GaussianBlur(image, (0, 0), sigma).astype(np.uint8, copy=False)


def _motion_blur(image: Image, boxes: Boxes, rng: np.random.Generator, *, length: int) -> Image:
    angle = rng.uniform(0, np.pi)
    half = np.array([np.cos(angle), np.sin(angle)]) * (length - 1) / 2
    middle = length // 2
    kernel = np.zeros((length, length), np.uint8)
    ends = [tuple(np.rint((middle + sign * half) * 256).astype(int).tolist()) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 255, 1, cv2.LINE_AA, 8)
    weights = kernel.astype(np.float32) / kernel.sum()
    return cv2.filter2D(image, -1, weights).astype(np.uint8, copy=False)


def _jpeg(image: Image, boxes: Boxes, rng: np.random.Generator, *, quality: int) -> Image:
    # OpenCV's codec takes BGR; chroma is what JPEG loses first, so the order matters.
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(decoded[..., ::-1])


def _resample(image: Image, boxes: Boxes, rng: np.random.Generator, *, factor: int) -> Image:
    height, width = image.shape[:2]
    small = max(1, round(width / factor)), max(1, round(height / factor))
    coarse = _resized(image, *small, cv2.INTER_AREA)
    return _resized(coarse, width, height, cv2.INTER_LINEAR)


def _pixelate(image: Image, boxes: Boxes, rng: np.random.Generator, *, block: int) -> Image:
    height, width = image.shape[:2]
    rows, columns = -(-height // block), -(-width // block)
    border = (0, rows * block - height, 0, columns * block - width)
    whole = cv2.copyMakeBorder(image, *border, cv2.BORDER_REPLICATE)
    coarse = _resized(np.asarray(whole, np.uint8), columns, rows, cv2.INTER_AREA)
    blocks = coarse.repeat(block, axis=0).repeat(block, axis=1)
    return np.ascontiguousarray(blocks[:height, :width])


def _scan_lines(image: Image, boxes: Boxes, rng: np.random.Generator) -> Image:
    result = image.copy()
    result[1::2] //= 2
    return result


def _interlace(image: Image, boxes: Boxes, rng: np.random.Generator, *, shift: int) -> Image:
    """The odd lines show another moment, in which everything has moved to the right."""
    result = image.copy()
    columns = np.maximum(np.arange(image.shape[1]) - shift, 0)
    result[1::2] = image[1::2, columns]
    return result


def _salt_and_pepper(
    image: Image, boxes: Boxes, rng: np.random.Generator, *, share: float
) -> Image:
    result = image.copy()
    draw = rng.random(image.shape[:2], np.float32)
    result[draw < share / 2] = 0
    result[draw > 1 - share / 2] = 255
    return result


def _levels(
    image: Image,
    boxes: Boxes,
    rng: np.random.Generator,
    *,
    gain: float | tuple[float, float, float],
    pivot: float = 0,
) -> Image:
    return _to_bytes((image - np.float32(pivot)) * np.array(gain, np.float32) + np.float32(pivot))


def _grey(image: Image, boxes: Boxes, rng: np.random.Generator) -> Image:
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.uint8)


def _mask(image: Image, boxes: Boxes, rng: np.random.Generator) -> Image:
    """A mask with bare edges over the lower half of each face: from the middle of its box down."""
    result = image.copy()
    outline = np.array(
        [[-0.46, 0], [0, -0.05], [0.46, 0], [0.42, 0.3], [0.22, 0.52], [-0.22, 0.52], [-0.42, 0.3]]
    )
    for middle, size in _faces(boxes):
        _polygon(result, middle + outline * size, _MASKS[rng.integers(len(_MASKS))])
    return result


def _eye_bar(image: Image, boxes: Boxes, rng: np.random.Generator) -> Image:
    """A black bar, as newspapers print it, high enough for the eyes of boxes from brows to chin and
    of boxes that take in the forehead."""
    result = image.copy()
    bar = np.array([[-0.55, -0.36], [0.55, -0.36], [0.55, -0.04], [-0.55, -0.04]])
    for middle, size in _faces(boxes):
        _polygon(result, middle + bar * size, (0, 0, 0))
    return result


def _hand(image: Image, boxes: Boxes, rng: np.random.Generator) -> Image:
    """Four skin-coloured fingers over each face, from below and aside up to its middle."""
    result = image.copy()
    for middle, size in _faces(boxes):
        skin = np.array(_SKIN[rng.integers(len(_SKIN))])
        angle = rng.uniform(np.radians(20), np.radians(160))  # where the hand comes from, y down
        along = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-along[1], along[0]])
        for finger, reach in enumerate((0.12, -0.02, 0.0, 0.1)):
            start = middle + size * (across * 0.15 * (finger - 1.5) + along * reach)
            end = start + along * size
            thick = 0.13 * size
            _stroke(result, start, end, thick * 1.15, skin * 0.7)
            _stroke(result, start, end, thick, skin)
    return result


def _roll(image: Image, boxes: Boxes, rng: np.random.Generator, *, degrees: int) -> Damaged:
    """Image and faces turned clockwise on a canvas that holds all of it, grey outside. By 90 and
    180 degrees boxes turn as rectangles, otherwise they become squares of the same area."""
    height, width = image.shape[:2]
    turn = np.radians(degrees)
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[cos, -sin], [sin, cos]])
    middle = np.array([width - 1, height - 1]) / 2
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = boxes[:, 2:] - boxes[:, :2]
    if degrees % 90 == 0:
        turned = np.ascontiguousarray(np.rot90(image, -degrees // 90))
        sides = sides[:, ::-1] if degrees % 180 else sides
    else:
        sides = np.repeat(_sizes(boxes)[:, None], 2, axis=1)
        size = np.ceil(np.abs(matrix) @ (width, height)).astype(int)
        shift = (size - 1) / 2 - matrix @ middle
        turned = cv2.warpAffine(
            image,
            np.column_stack([matrix, shift]),
            (int(size[0]), int(size[1])),
            flags=cv2.INTER_LINEAR,
            borderValue=(128, 128, 128),
        ).astype(np.uint8, copy=False)
    after = np.array([turned.shape[1] - 1, turned.shape[0] - 1]) / 2
    centres = (centres - middle) @ matrix.T + after
    moved = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).astype(np.float32)
    return Damaged(turned, moved, np.zeros(len(boxes), np.bool_))


def _cut(image: Image, boxes: Boxes, rng: np.random.Generator) -> Damaged | None:
    """The image cropped so that a part of the first face is outside; its box is not clipped."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = boxes[0].tolist()
    out_x, out_y = CUT * (x2 - x1), CUT * (y2 - y1)
    crops = {  # left, top, right and bottom of the part that stays
        "left": (_edge(x1 + out_x), 0, width, height),
        "top": (0, _edge(y1 + out_y), width, height),
        "right": (0, 0, _edge(x2 - out_x), height),
        "bottom": (0, 0, width, _edge(y2 - out_y)),
    }
    for side in rng.permutation(list(crops)):
        left, top, right, bottom = (max(0, edge) for edge in crops[side])
        part = image[top:bottom, left:right]
        if part.shape[1] >= x2 - x1 and part.shape[0] >= y2 - y1:  # leaves some surroundings
            return _cropped(part, boxes - np.array([left, top, left, top], np.float32))
    return None


def _fill(image: Image, boxes: Boxes, rng: np.random.Generator) -> Damaged | None:
    """The first face's box alone, enlarged (or made smaller) to an image of 720 pixels."""
    height, width = image.shape[:2]
    left, top, right, bottom = (max(0, _edge(value)) for value in boxes[0].tolist())
    right, bottom = min(right, width), min(bottom, height)
    if min(right - left, bottom - top) < LEAST_FILLING:
        return None
    part = image[top:bottom, left:right]
    scale = FILLED / max(part.shape[:2])
    moved = boxes - np.array([left, top, left, top], np.float32)
    return _cropped(*_scaled(part, moved, scale))


def _shrink(image: Image, boxes: Boxes, rng: np.random.Generator) -> Damaged | None:
    """The image made smaller until its first face has 24 pixels; None if it has no more now."""
    scale = SMALL / _sizes(boxes)[0]
    if scale >= 1:
        return None
    return Damaged(*_scaled(image, boxes, float(scale)), np.zeros(len(boxes), np.bool_))


def _scaled(image: Image, boxes: Boxes, scale: float) -> tuple[Image, Boxes]:
    height, width = image.shape[:2]
    new = max(1, round(width * scale)), max(1, round(height * scale))
    factors = new[0] / width, new[1] / height
    moved: Boxes = ((boxes + 0.5) * (factors * 2) - 0.5).astype(np.float32)
    return _resized(image, *new, cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC), moved


def _cropped(image: Image, boxes: Boxes) -> Damaged:
    """Faces of which less than half lies in the image are ignored."""
    height, width = image.shape[:2]
    low = np.maximum(boxes[:, :2], -0.5)
    high = np.minimum(boxes[:, 2:], np.array([width, height]) - 0.5)
    left = np.clip(high - low, 0, None).prod(1)
    return Damaged(
        np.ascontiguousarray(image), boxes, left < _VISIBLE * _sizes(boxes).astype(np.float64) ** 2
    )


def _edge(coordinate: float) -> int:
    """The first pixel behind an edge: pixel i covers i - 0.5 to i + 0.5."""
    return round(coordinate + 0.5)


def _resized(image: Image, width: int, height: int, interpolation: int) -> Image:
    resized = cv2.resize(image, (width, height), interpolation=interpolation)
    return resized.astype(np.uint8, copy=False)


def _to_bytes(values: NDArray[np.floating]) -> Image:
    levels: Image = np.rint(values).clip(0, 255).astype(np.uint8)
    return levels


def _sizes(boxes: Boxes) -> Boxes:
    """(N,) square roots of the areas."""
    sizes: Boxes = np.sqrt(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1))
    return sizes


def _faces(boxes: Boxes) -> list[tuple[NDArray[np.float64], float]]:
    """Middle (2,) and side of each."""
    middles = (boxes[:, :2] + boxes[:, 2:]).astype(np.float64) / 2
    return [(middle, float(size)) for middle, size in zip(middles, _sizes(boxes), strict=True)]


def _polygon(image: Image, points: NDArray[np.float64], colour: tuple[int, int, int]) -> None:
    cv2.fillPoly(image, [np.rint(points * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)


def _stroke(
    image: Image,
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    thickness: float,
    colour: NDArray[np.float64],
) -> None:
    ends = [tuple(np.rint(point * 16).astype(int).tolist()) for point in (start, end)]
    level = tuple(colour.tolist())
    cv2.line(image, ends[0], ends[1], level, max(1, round(thickness)), cv2.LINE_AA, 4)


DAMAGES: Final[dict[str, _Function]] = {
    "noise-30": partial(_noise, sigma=30),
    "gaussian-blur-4": partial(_gaussian_blur, sigma=4),
    "motion-blur-15": partial(_motion_blur, length=15),
    "jpeg-10": partial(_jpeg, quality=10),
    "resample-4": partial(_resample, factor=4),
    "scan-lines": _scan_lines,
    "interlace-8": partial(_interlace, shift=8),
    "salt-and-pepper-3": partial(_salt_and_pepper, share=0.03),
    "pixelate-8": partial(_pixelate, block=8),
    "contrast-0.25": partial(_levels, gain=0.25, pivot=127.5),
    "dark-0.1": partial(_levels, gain=0.1),
    "overexposed-2.5": partial(_levels, gain=2.5),
    "red-cast": partial(_levels, gain=(1, 0.4, 0.4)),
    "green-cast": partial(_levels, gain=(0.4, 1, 0.4)),
    "blue-cast": partial(_levels, gain=(0.4, 0.4, 1)),
    "grey": _grey,
    "mask": _mask,
    "eye-bar": _eye_bar,
    "hand": _hand,
    "roll-15": partial(_roll, degrees=15),
    "roll-30": partial(_roll, degrees=30),
    "roll-45": partial(_roll, degrees=45),
    "roll-60": partial(_roll, degrees=60),
    "roll-90": partial(_roll, degrees=90),
    "roll-180": partial(_roll, degrees=180),
    "cut": _cut,
    "filling": _fill,
    "face-24": _shrink,
}
"""What `apply_damage` knows, by name."""

_ONE_FACE = frozenset({"cut", "filling", "face-24"})
_ON_FACES = _ONE_FACE | {"mask", "eye-bar", "hand"}
