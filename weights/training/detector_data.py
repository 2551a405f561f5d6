"""Pictures to train the face detector on: portraits pasted at all sizes over face-free backgrounds.

    python weights/training/detector_data.py --material ../shared/training --out sheet.jpg

draws a sheet of such pictures with their boxes. Everything is made on the fly from the portraits
of nobody: their faces are pasted turned, mirrored, relit, partly covered; backgrounds are pieces of
the portraits without the face, and patterns. With the regressor's renders (``--renders``) part of
the faces are those, for the sake of profiles.

Box convention: the square around the 68 landmarks, centred on their bounding rectangle, with
``BOX_PER_RECTANGLE`` times its longer side; the landmarks are those of the 300-W convention. So a
box and the landmarks' own region of interest (centre of the rectangle, ``REGION_SCALE`` times its
longer side) differ by a constant factor only, however the head is turned: ``BOX_SCALE``, no shift.

A portrait is used where two detectors agree: YuNet's box with the square around MediaPipe's points.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from augment import motion_blur, side_light, tone
from crops import render_crops
from face import REGION_SCALE, Morphable
from numpy.typing import NDArray
from renders import read_portrait

Image = NDArray[np.uint8]
Array = NDArray[np.float32]

BOX_PER_RECTANGLE = 1.1
BOX_SCALE = REGION_SCALE / BOX_PER_RECTANGLE  # side of the regressor's region / side of the box
SMALLEST = 9.0  # pixels, side of a box; smaller faces are neither face nor background
LARGEST_SOURCE = 320.0  # portraits with larger boxes are made smaller when read
EYES = (slice(36, 42), slice(42, 48))  # of the 68
RENDERED = 0.3  # part of the pasted faces that are renders, where there are any


@dataclass(frozen=True)
class Portrait:
    """One picture with one face: an image pyramid, each level half of the one before."""

    levels: tuple[Image, ...]
    landmarks: Array  # (68, 2) pixels of the first level

    @property
    def square(self) -> Array:
        """Centre x, y and side of the box, unturned."""
        return box_square(self.landmarks)


def box_square(landmarks: Array) -> Array:
    """Centre x, centre y and side of the box of 68 landmarks (68, 2), by the box convention."""
    low, high = landmarks.min(0), landmarks.max(0)
    side = BOX_PER_RECTANGLE * (high - low).max()
    return np.array([*(low + high) / 2, side], np.float32)


def detectors_agree(square: Array, yunet: Array) -> bool:
    """Whether YuNet's box (x, y, width, height, ...) lies where the landmarks' square says.

    YuNet's boxes reach higher (to the hair) than the square. The bounds hold for 98 of 100
    portraits.
    """
    side = (yunet[2] + yunet[3]) / 2 / square[2]
    right, down = (yunet[:2] + yunet[2:4] / 2 - square[:2]) / square[2]
    return bool(0.8 < side < 1.25 and abs(right) < 0.15 and -0.3 < down < 0.08)


def load_portraits(material: Path, part: str, limit: int | None = None) -> list[Portrait]:
    """The portraits of ``part``, "train" or "heldout", on which two detectors agree.

    Args:
        material: the folder with ``labels.npz``.
        part: which pictures.
        limit: at most so many.
    """
    with np.load(material / "labels.npz") as file:
        table = {name: file[name] for name in ("image", "landmarks468", "yunet", "faces_found")}
        chosen = file["heldout"] if part == "heldout" else file["keep"] & ~file["heldout"]
    to_68 = np.load(material / "canonical_468_to_ict.npz")["w68"].astype(np.float32)
    portraits: list[Portrait] = []
    for i in np.flatnonzero(chosen & (table["faces_found"] == 1)):
        landmarks = (to_68 @ table["landmarks468"][i, :, :2]).astype(np.float32)
        square = box_square(landmarks)
        if not detectors_agree(square, table["yunet"][i]):
            continue
        image = read_portrait(material / str(table["image"][i]))
        shrink = min(1.0, LARGEST_SOURCE / float(square[2]))
        if shrink < 1:
            image = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
            landmarks = (landmarks + 0.5) * shrink - 0.5
        portraits.append(Portrait(_pyramid(image), landmarks))
        if limit is not None and len(portraits) == limit:
            break
    return portraits


def load_renders(folder: Path, model: Morphable, part: str, count: int) -> list[Portrait]:
    """So many of the regressor's renders, evenly taken, as portraits.

    Args:
        folder: what ``renders.py`` made.
        model: the face model they were made with.
        part: "train" or "heldout".
        count: at most so many; 120 kB of memory each.
    """
    crops = render_crops(folder, part)
    portraits = []
    for i in range(0, len(crops), -(-len(crops) // count)):
        landmarks = model.landmarks(crops.params[i])
        portraits.append(Portrait(_pyramid(np.array(crops.image(i))), landmarks))
    return portraits


def _pyramid(image: Image) -> tuple[Image, ...]:
    levels = [image]
    while min(levels[-1].shape[:2]) >= 32:
        height, width = levels[-1].shape[:2]
        even = levels[-1][: height // 2 * 2, : width // 2 * 2]
        half = cv2.resize(even, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        levels.append(half)
    return tuple(levels)


@dataclass
class Canvas:
    """A picture under construction and what it shows.

    ``owner`` says whose pixel it is: 0 background, k + 1 face k. ``sure`` is False for faces that
    are neither to be learnt nor to be taken for background.
    """

    image: Image
    owner: NDArray[np.int16]
    squares: list[Array] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Sample:
    """A finished picture.

    Attributes:
        image: uint8 (H, W, 3) BGR.
        squares: (K, 3) centre x, y and side of the faces' boxes, pixel centres at whole numbers.
        turns: (K,) in-plane rotation in degrees.
        sure: (K,) False for faces that are neither to be found nor to be taken for background.
    """

    image: Image
    squares: Array
    turns: Array
    sure: NDArray[np.bool_]


class Painter:
    """Makes samples.

    Args:
        portraits: where faces and pieces of background come from.
        rng: decides everything.
        negatives: pictures of things that the network took for a face, read at every use.
        renders: faces from other sides, never a source of background.
    """

    def __init__(
        self,
        portraits: list[Portrait],
        rng: np.random.Generator,
        negatives: Callable[[], Image | None] = lambda: None,
        renders: Sequence[Portrait] = (),
    ) -> None:
        self._portraits = portraits
        self._renders = renders
        self._rng = rng
        self._negatives = negatives

    def sample(self, height: int, width: int, faces: bool = True) -> Sample:
        """One picture; ``faces``: with or, for certain, without."""
        rng = self._rng
        canvas = Canvas(self.background(height, width), np.zeros((height, width), np.int16))
        if rng.random() < 0.5:
            self._paste_negatives(canvas)
        if faces:
            for side in self._sides(min(height, width)):
                self._paste_face(canvas, side)
            self._cover(canvas)
        seen = [self._seen(canvas, k) for k in range(len(canvas.squares))]
        image, lost = self._develop(canvas.image, canvas.squares)
        squares = np.array(canvas.squares, np.float32).reshape(-1, 3)
        sure = (np.array(seen) > 0.55) & (squares[:, 2] >= max(SMALLEST, SMALLEST * lost))
        return Sample(image, squares, np.array(canvas.turns, np.float32), sure.astype(bool))

    # --- faces ------------------------------------------------------------------------------------

    def _sides(self, shorter: int) -> list[float]:
        rng = self._rng
        if rng.random() < 0.4:  # one large face, as in a portrait
            sides = [float(shorter * np.exp(rng.uniform(np.log(0.2), np.log(1.05))))]
            return sides + self._small_sides(shorter / 6, rng.integers(0, 3))
        return self._small_sides(shorter / 2, rng.integers(1, 14))

    def _small_sides(self, largest: float, count: int | np.integer) -> list[float]:
        low, high = np.log(SMALLEST * 0.8), np.log(max(largest, 2 * SMALLEST))
        return sorted(np.exp(self._rng.uniform(low, high, int(count))).tolist(), reverse=True)

    def _paste_face(self, canvas: Canvas, side: float) -> None:
        rng = self._rng
        if self._renders and rng.random() < RENDERED:
            portrait = self._renders[int(rng.integers(len(self._renders)))]
        else:
            portrait = self._portrait()
        height, width = canvas.image.shape[:2]
        turn = rng.normal(0, 10) if rng.random() < 0.5 else rng.uniform(-48, 48)
        turn = float(np.clip(turn, -48, 48))
        gain = side / portrait.square[2]
        mirror = -1.0 if rng.random() < 0.5 else 1.0
        cos, sin = gain * np.cos(np.deg2rad(turn)), gain * np.sin(np.deg2rad(turn))
        linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([mirror, 1.0])
        landmarks = portrait.landmarks @ linear.T.astype(np.float32)
        square = box_square(landmarks)
        for _ in range(8):
            center = rng.uniform(-0.1, 1.1, 2) * (width, height)
            inside = np.abs(center / (width, height) - 0.5) <= 0.5
            placed = np.array([*center, square[2]], np.float32)
            if inside.all() and not any(_overlap(placed, s) > 0.1 for s in canvas.squares):
                break
        else:
            return
        offset = placed[:2] - square[:2]
        affine = np.column_stack([linear, offset])
        patch, x, y = self._warp(canvas, portrait, affine, gain)
        if patch.size == 0:
            return
        mask = self._mask(portrait, affine, gain, patch.shape[:2], (x, y))
        if rng.random() < 0.5:
            patch = tone(patch, rng, 0.8)
        if side > 24 and rng.random() < 0.07:
            patch = self._sunglasses(patch, landmarks + offset - (x, y))
        region = (slice(y, y + patch.shape[0]), slice(x, x + patch.shape[1]))
        under = np.ascontiguousarray(canvas.image[region])
        canvas.image[region] = cv2.blendLinear(patch, under, mask, 1 - mask)
        canvas.squares.append(placed)
        canvas.turns.append(turn)
        canvas.owner[region][mask > 0.5] = len(canvas.squares)

    def _warp(
        self, canvas: Canvas, portrait: Portrait, affine: Array, gain: float
    ) -> tuple[Image, int, int]:
        """The portrait under an affine map, and where its part inside the canvas begins."""
        height, width = portrait.levels[0].shape[:2]
        ends = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float32) - 0.5
        moved = ends @ affine[:, :2].T + affine[:, 2]
        low = np.maximum(np.floor(moved.min(0)), 0).astype(int)
        high = np.minimum(np.ceil(moved.max(0)) + 1, canvas.image.shape[1::-1]).astype(int)
        if (high - low < 2).any():
            return np.zeros((0, 0, 3), np.uint8), 0, 0
        # One level too fine gives the aliasing of a cheap resize.
        rough = self._rng.random() < 0.25
        level = int(np.clip(np.floor(np.log2(1 / gain) + (0.0 if rough else 0.6)), 0, 9))
        level = min(level, len(portrait.levels) - 1)
        scaled = affine.copy()
        scaled[:, :2] *= 2**level
        scaled[:, 2] += affine[:, :2] @ np.full(2, (2**level - 1) / 2) - low
        flags = cv2.INTER_CUBIC if gain > 1.5 and self._rng.random() < 0.5 else cv2.INTER_LINEAR
        patch = cv2.warpAffine(
            portrait.levels[level],
            scaled,
            tuple(int(v) for v in high - low),
            flags=flags,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return patch, int(low[0]), int(low[1])

    def _mask(
        self,
        portrait: Portrait,
        affine: Array,
        gain: float,
        shape: tuple[int, ...],
        corner: tuple[int, int],
    ) -> Array:
        """How much of the portrait shows, 0..1: all of it, or an oval around the head."""
        rng = self._rng
        mask = np.zeros(shape, np.float32)
        if rng.random() < 0.6:
            height, width = portrait.levels[0].shape[:2]
            cut = rng.random() < 0.3  # closer around the face
            square = portrait.square
            low = np.maximum(square[:2] - square[2] * rng.uniform(0.55, 1.2, 2), 0) if cut else 0
            high = np.array([width, height], np.float32)
            if cut:
                high = np.minimum(square[:2] + square[2] * rng.uniform(0.5, 1.2, 2), high)
            (x0, y0), (x1, y1) = np.broadcast_to(low, 2), high
            corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32) - 0.5
        else:
            square = portrait.square
            angle = np.linspace(0, 2 * np.pi, 33)[:-1]
            radius = square[2] * np.array([rng.uniform(0.5, 0.75), rng.uniform(0.62, 0.85)])
            up = square[2] * rng.uniform(0.08, 0.16)
            corners = np.column_stack([np.cos(angle), np.sin(angle)]) * radius + square[:2]
            corners[:, 1] -= up
        moved = corners @ affine[:, :2].T + affine[:, 2] - corner
        cv2.fillPoly(mask, [np.rint(moved * 16).astype(np.int32)], 1.0, cv2.LINE_AA, shift=4)
        soft = gain * portrait.square[2] * rng.uniform(0, 0.05)
        if soft > 0.4 and rng.random() < 0.6:
            mask = cv2.GaussianBlur(mask, (0, 0), soft)
        return mask

    def _sunglasses(self, patch: Image, landmarks: Array) -> Image:
        rng = self._rng
        eyes = np.array([landmarks[part].mean(0) for part in EYES])
        across = eyes[1] - eyes[0]
        distance = float(np.hypot(*across))
        if distance < 8:
            return patch
        color = tuple(float(c) for c in rng.integers(0, 90, 3))
        half = (max(int(distance * rng.uniform(0.3, 0.45)), 1), max(int(distance * 0.28), 1))
        angle = float(np.rad2deg(np.arctan2(across[1], across[0])))
        for eye in eyes:
            center = (round(float(eye[0])), round(float(eye[1])))
            cv2.ellipse(patch, center, half, angle, 0, 360, color, -1, cv2.LINE_AA)
        ends = [tuple(int(v) for v in np.rint(eye)) for eye in eyes]
        cv2.line(patch, ends[0], ends[1], color, max(1, int(distance / 20)), cv2.LINE_AA)
        return patch

    def _cover(self, canvas: Canvas) -> None:
        """Things in front of some of the faces."""
        rng = self._rng
        for square in canvas.squares:
            if rng.random() > 0.2 or square[2] < 12:
                continue
            side = float(square[2])
            size = side * rng.uniform(0.25, 0.9, 2)
            direction = rng.uniform(0, 2 * np.pi)
            reach = side * rng.uniform(0.45, 0.75)
            middle = square[:2] + reach * np.array([np.cos(direction), np.sin(direction)])
            low = np.maximum(np.rint(middle - size / 2), 0).astype(int)
            high = np.minimum(np.rint(middle + size / 2), canvas.image.shape[1::-1]).astype(int)
            if (high - low < 2).any():
                continue
            width, height = (int(v) for v in high - low)
            if rng.random() < 0.6:
                thing = self.piece(height, width)
            else:
                thing = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
            mask = np.ones((height, width), np.uint8)
            if rng.random() < 0.5:
                mask[:] = 0
                cv2.ellipse(
                    mask, (width // 2, height // 2), (width // 2, height // 2), 0, 0, 360, 1, -1
                )
            region = (slice(low[1], high[1]), slice(low[0], high[0]))
            canvas.image[region][mask > 0] = thing[mask > 0]
            canvas.owner[region][mask > 0] = 0

    @staticmethod
    def _seen(canvas: Canvas, index: int) -> float:
        """The part of a face's box that shows the face."""
        x, y, side = canvas.squares[index]
        low = np.rint([x - side / 2, y - side / 2]).astype(int)
        high = np.rint([x + side / 2, y + side / 2]).astype(int) + 1
        area = int(np.prod(high - low))
        low = np.maximum(low, 0)
        part = canvas.owner[low[1] : max(high[1], 0), low[0] : max(high[0], 0)]
        return float((part == index + 1).sum()) / area

    # --- backgrounds ------------------------------------------------------------------------------

    def _portrait(self) -> Portrait:
        return self._portraits[int(self._rng.integers(len(self._portraits)))]

    def background(self, height: int, width: int) -> Image:
        """A picture without a face."""
        rng = self._rng
        u = rng.random()
        if u < 0.3:
            return self.piece(height, width)
        if u < 0.5:
            return self._pattern(height, width)
        image = self.piece(height, width) if rng.random() < 0.7 else self._pattern(height, width)
        for _ in range(int(rng.integers(3, 22))):
            w = int(width * np.exp(rng.uniform(np.log(0.06), np.log(0.7))))
            h = int(height * np.exp(rng.uniform(np.log(0.06), np.log(0.7))))
            x, y = int(rng.integers(-w // 2, width - 2)), int(rng.integers(-h // 2, height - 2))
            x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
            if x1 - x0 < 2 or y1 - y0 < 2:
                continue
            make = (self.piece, self.piece, self._scrambled, self._pattern)[rng.integers(4)]
            image[y0:y1, x0:x1] = make(y1 - y0, x1 - x0)
        return image

    def piece(self, height: int, width: int) -> Image:
        """A piece of a portrait beside the face: background, clothes, hair, hands."""
        rng = self._rng
        for _ in range(12):
            portrait = self._portrait()
            image = portrait.levels[0]
            full = np.array(image.shape[1::-1])
            size = np.minimum(full * np.exp(rng.uniform(np.log(0.08), np.log(0.6), 2)), full - 1)
            if rng.random() < 0.7:  # about the aspect that is wanted
                size[:] = np.minimum(
                    size.mean() * np.array([width, height]) / max(width, height), full - 1
                )
            size = np.maximum(size, 6).astype(int)
            low = (rng.uniform(0, 1, 2) * (full - size)).astype(int)
            x, y, side = portrait.square
            # The box plus forehead and chin; ears and hair may show.
            left, top = x - 0.5 * side, y - 0.72 * side
            right, bottom = x + 0.5 * side, y + 0.52 * side
            beside = (
                low[0] >= right
                or low[1] >= bottom
                or low[0] + size[0] <= left
                or low[1] + size[1] <= top
            )
            if beside:
                break
        else:
            return self._pattern(height, width)
        out = image[low[1] : low[1] + size[1], low[0] : low[0] + size[0]]
        out = np.rot90(out, int(rng.integers(4))) if rng.random() < 0.25 else out
        out = out[:, ::-1] if rng.random() < 0.5 else out
        method = cv2.INTER_AREA if out.shape[0] > height else cv2.INTER_LINEAR
        out = cv2.resize(np.ascontiguousarray(out), (width, height), interpolation=method)
        return tone(out, rng, 0.8) if rng.random() < 0.3 else out

    def _scrambled(self, height: int, width: int) -> Image:
        """Skin and hair without a face: a portrait's middle cut into tiles and shuffled."""
        rng = self._rng
        portrait = self._portrait()
        x, y, side = portrait.square
        image = portrait.levels[0]
        x0, y0 = max(int(x - 0.6 * side), 0), max(int(y - 0.6 * side), 0)
        face = image[y0 : int(y + 0.6 * side), x0 : int(x + 0.6 * side)]
        tiles = int(rng.integers(3, 7))
        face = cv2.resize(face, (16 * tiles, 16 * tiles), interpolation=cv2.INTER_AREA)
        grid = face.reshape(tiles, 16, tiles, 16, 3).swapaxes(1, 2).reshape(-1, 16, 16, 3)
        grid = grid[rng.permutation(len(grid))]
        grid = np.stack([np.rot90(tile, int(rng.integers(1, 4))) for tile in grid])
        grid = grid.reshape(tiles, tiles, 16, 16, 3).swapaxes(1, 2).reshape(face.shape)
        return cv2.resize(np.ascontiguousarray(grid), (width, height))

    def _pattern(self, height: int, width: int) -> Image:
        """Gradients, noise of many sizes, stripes, shapes, lines of text."""
        rng = self._rng
        size = (max(1, width // 2), max(1, height // 2))  # half as fine is fine enough
        ends = rng.uniform(0, 255, (2, 3)).astype(np.float32)
        angle = rng.uniform(0, 2 * np.pi)
        across = np.linspace(-np.cos(angle), np.cos(angle), size[0], dtype=np.float32)
        down = np.linspace(-np.sin(angle), np.sin(angle), size[1], dtype=np.float32)
        ramp = (across[None] + down[:, None]) * np.float32(0.35) + np.float32(0.5)
        if rng.random() < 0.3:
            ramp = np.float32(0.5) + np.float32(0.5) * np.sin(ramp * np.float32(rng.uniform(5, 90)))
        image = ends[0] + ramp[..., None] * (ends[1] - ends[0])
        if rng.random() < 0.6:
            for octave in range(int(rng.integers(1, 5))):
                cells = 3 * 2 ** int(octave + rng.integers(0, 3))
                noise = rng.standard_normal((cells, cells, 3), np.float32)
                if rng.random() < 0.5:
                    noise[:] = noise[..., :1]
                image += cv2.resize(noise, size) * np.float32(rng.uniform(5, 60))
        image = cv2.resize(np.clip(image, 0, 255).astype(np.uint8), (width, height))
        for _ in range(int(rng.integers(0, 25)) if rng.random() < 0.6 else 0):
            self._shape(image)
        return image

    def _shape(self, image: Image) -> None:
        rng = self._rng
        height, width = image.shape[:2]
        color = tuple(float(c) for c in rng.integers(0, 256, 3))
        x, y = int(rng.integers(width)), int(rng.integers(height))
        size = max(2, int(max(height, width) * np.exp(rng.uniform(np.log(0.01), np.log(0.25)))))
        filled = -1 if rng.random() < 0.6 else int(rng.integers(1, max(2, size // 4) + 1))
        kind = rng.integers(5)
        if kind == 0:
            cv2.circle(image, (x, y), size, color, filled, cv2.LINE_AA)
        elif kind == 1:
            other = int(size * rng.uniform(0.3, 2))
            cv2.rectangle(image, (x, y), (x + size, y + other), color, filled)
        elif kind == 2:
            axes = (size, max(1, int(size * rng.uniform(0.3, 1))))
            turn = float(rng.uniform(0, 180))
            cv2.ellipse(image, (x, y), axes, turn, 0, 360, color, filled, cv2.LINE_AA)
        elif kind == 3:
            end = (int(x + rng.normal(0, 2 * size)), int(y + rng.normal(0, 2 * size)))
            cv2.line(image, (x, y), end, color, int(rng.integers(1, 8)), cv2.LINE_AA)
        else:
            letters = "".join(chr(c) for c in rng.integers(33, 127, int(rng.integers(2, 12))))
            font, scale = int(rng.integers(8)), float(rng.uniform(0.3, 2.5))
            weight = int(rng.integers(1, 5))
            cv2.putText(image, letters, (x - size, y), font, scale, color, weight, cv2.LINE_AA)

    def _paste_negatives(self, canvas: Canvas) -> None:
        rng = self._rng
        for _ in range(int(rng.integers(1, 7))):
            thing = self._negatives()
            if thing is None:
                return
            gain = float(np.exp(rng.normal(0, 0.25)))
            turned = np.rot90(thing, int(rng.integers(4))) if rng.random() < 0.2 else thing
            turned = turned[:, ::-1] if rng.random() < 0.5 else turned
            thing = cv2.resize(np.ascontiguousarray(turned), None, fx=gain, fy=gain)
            height, width = thing.shape[:2]
            if height >= canvas.image.shape[0] or width >= canvas.image.shape[1]:
                continue
            y = int(rng.integers(canvas.image.shape[0] - height))
            x = int(rng.integers(canvas.image.shape[1] - width))
            canvas.image[y : y + height, x : x + width] = thing

    # --- the camera -------------------------------------------------------------------------------

    def _develop(self, image: Image, squares: list[Array]) -> tuple[Image, float]:
        """Resolution, blur, tone, colour, light, noise and JPEG; and the resolution lost, >= 1."""
        rng = self._rng
        height, width = image.shape[:2]
        smallest = min((float(s[2]) for s in squares), default=40.0)
        lost = 1.0
        if rng.random() < 0.2:
            lost = float(rng.uniform(1.2, max(1.3, min(4.0, smallest / SMALLEST))))
            small = (max(2, int(width / lost)), max(2, int(height / lost)))
            back = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[rng.integers(3)]
            image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
            image = cv2.resize(image, (width, height), interpolation=back)
        if rng.random() < 0.12:
            sigma = float(rng.uniform(0.4, np.clip(smallest / 16, 0.6, 2.5)))
            image = cv2.GaussianBlur(image, (0, 0), sigma)
        if smallest > 30 and rng.random() < 0.06:
            image = motion_blur(image, rng)
        if rng.random() < 0.85:
            image = tone(image, rng, 1.0)
        u = rng.random()
        if u < 0.3:
            grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
            keep = 0.0 if u < 0.15 else float(rng.uniform(0.3, 1.5))
            image = cv2.addWeighted(image, keep, grey, 1 - keep, 0)
        if rng.random() < 0.12 and height == width:
            image = side_light(image, rng)
        if rng.random() < 0.2:
            noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(2, 14))
            image = np.clip(image + noise, 0, 255).astype(np.uint8)
        if rng.random() < 0.35:
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(18, 92))]
            image = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR)
        return image, lost


def _overlap(a: Array, b: Array) -> float:
    """Common area of two squares / area of the smaller one."""
    half = (a[2] + b[2]) / 2
    side = np.clip(half - np.abs(a[:2] - b[:2]), 0, min(a[2], b[2]))
    return float(side[0] * side[1] / min(a[2], b[2]) ** 2)


def assign(
    priors: Array, squares: Array, sure: NDArray[np.bool_]
) -> tuple[Array, NDArray[np.int8], Array]:
    """What the network is to say at each prior.

    A prior answers for a face that is less than 0.65 octaves away in size and whose middle is
    within a quarter of the face's side; the nearest prior always answers. Priors not quite as near
    are left alone, and so are those near a face that is not ``sure``.

    Args:
        priors: (P, 3) centre x, y and side in pixels.
        squares: (K, 3) the faces, likewise.
        sure: (K,).

    Returns:
        (P, 4) offsets (centre / prior side, log size), not yet divided by the variances; (P,)
        1 face, 0 background, -1 neither; and (P,) how much a prior with a face counts: large faces
        have many priors, small ones few.
    """
    offsets = np.zeros((len(priors), 4), np.float32)
    labels = np.zeros(len(priors), np.int8)
    weights = np.zeros(len(priors), np.float32)
    if len(squares) == 0:
        return offsets, labels, weights
    apart = np.abs(priors[:, None, :2] - squares[None, :, :2]).max(-1) / squares[:, 2]
    octaves = np.abs(np.log2(priors[:, 2:3] / squares[:, 2]))
    near = (apart < 0.55) & (octaves < 1.1)
    labels[near.any(1)] = -1
    cost = apart + 0.4 * octaves
    answers = (apart < 0.25) & (octaves < 0.65)
    answers[cost.argmin(0), np.arange(len(squares))] = True
    cost = np.where(answers & sure, cost, np.inf)
    face = cost.argmin(1)
    positive = np.isfinite(cost.min(1))
    labels[positive] = 1
    weights[positive] = np.bincount(face[positive])[face[positive]] ** -0.5
    matched = squares[face[positive]]
    own = priors[positive]
    offsets[positive, :2] = (matched[:, :2] - own[:, :2]) / own[:, 2:3]
    offsets[positive, 2:] = np.log(matched[:, 2:3] / own[:, 2:3])
    return offsets, labels, weights


def draw(sample: Sample) -> Image:
    """The picture with its boxes: green, or red where a face is not to be learnt."""
    image = sample.image.copy()
    for (x, y, side), sure in zip(sample.squares, sample.sure, strict=True):
        low, high = ((round(float(v)) for v in (x + d, y + d)) for d in (-side / 2, side / 2))
        cv2.rectangle(image, tuple(low), tuple(high), (0, 255, 0) if sure else (0, 0, 255), 1)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--material", type=Path, default=Path("../shared/training"))
    parser.add_argument("--renders", type=Path, default=None, help="what renders.py made")
    parser.add_argument("--model", type=Path, default=Path("weights/default/model.safetensors"))
    parser.add_argument("--out", type=Path, required=True, help="sheet of samples, .jpg or .png")
    parser.add_argument("--size", type=int, default=320, help="pixels of a sample")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=None, help="read at most so many portraits")
    options = parser.parse_args()
    if not (options.material / "labels.npz").is_file():
        raise SystemExit(f"no labels.npz in {options.material}; give another --material")
    portraits = load_portraits(options.material, "train", options.limit)
    renders = []
    if options.renders:
        renders = load_renders(options.renders, Morphable.load(options.model), "train", 100)
    painter = Painter(portraits, np.random.default_rng(options.seed), renders=renders)
    rows = [
        np.hstack([draw(painter.sample(options.size, options.size)) for _ in range(options.rows)])
        for _ in range(options.rows)
    ]
    cv2.imwrite(str(options.out), np.vstack(rows))
    print(f"{options.out}: {options.rows**2} samples from {len(portraits)} portraits")


if __name__ == "__main__":
    main()
