"""Images to train the face detector on: photographs and portraits, moved, mixed and damaged.

    python weights/training/detector_data.py --material ../shared/training \\
        --photos ../shared/training/photos --boxes CACHE/boxes.npz --out sheet.jpg

draws a sheet of such images with their boxes. Everything is made on the fly. Photographs with
people have boxes on which several teachers agree; what they disagree on is neither face nor
background. Photographs without people are background, the hardest of them shown most often.
Portraits of people who do not exist are pasted, turned, over all of these.

Box convention: the square around the 68 landmarks, centred on their bounding rectangle, with
``BOX_PER_RECTANGLE`` times its longer side; the landmarks are those of the 300-W convention. So a
box and the landmarks' own region of interest (centre of the rectangle, ``REGION_SCALE`` times its
longer side) differ by a constant factor only, however the head is turned: ``BOX_SCALE``, no shift.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from augment import tone
from damage import cover_face, damage
from face import REGION_SCALE
from numpy.typing import NDArray
from renders import read_portrait

Image = NDArray[np.uint8]
Array = NDArray[np.float32]

BOX_PER_RECTANGLE = 1.1
BOX_SCALE = REGION_SCALE / BOX_PER_RECTANGLE  # side of the regressor's region / side of the box
SMALLEST = 7.0  # pixels, side of a box; smaller faces are neither face nor background
LARGEST_SOURCE = 320.0  # portraits with larger boxes are made smaller when read
MOST_ENLARGED = 2.0  # of photographs


@dataclass(frozen=True)
class Scene:
    """One image and the faces in it: an image pyramid, each level half of the one before.

    Attributes:
        levels: the pyramid.
        squares: (K, 3) centre x, y and side of the boxes in pixels of the first level.
        sure: (K,) False for what is neither to be found nor to be taken for background.
    """

    levels: tuple[Image, ...]
    squares: Array
    sure: NDArray[np.bool_]


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


def load_portraits(material: Path, part: str, limit: int | None = None) -> list[Scene]:
    """The portraits of ``part``, "train" or "heldout", on which two detectors agree.

    Args:
        material: the folder with ``labels.npz``.
        part: which portraits.
        limit: at most so many.
    """
    with np.load(material / "labels.npz") as file:
        table = {name: file[name] for name in ("image", "landmarks468", "yunet", "faces_found")}
        chosen = file["heldout"] if part == "heldout" else file["keep"] & ~file["heldout"]
    to_68 = np.load(material / "canonical_468_to_ict.npz")["w68"].astype(np.float32)
    portraits: list[Scene] = []
    for i in np.flatnonzero(chosen & (table["faces_found"] == 1)):
        square = box_square((to_68 @ table["landmarks468"][i, :, :2]).astype(np.float32))
        if not detectors_agree(square, table["yunet"][i]):
            continue
        image = read_portrait(material / str(table["image"][i]))
        shrink = min(1.0, LARGEST_SOURCE / float(square[2]))
        if shrink < 1:
            image = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
            square = (square + [0.5, 0.5, 0]) * shrink - [0.5, 0.5, 0]
        portraits.append(Scene(_pyramid(image), square[None].astype(np.float32), np.ones(1, bool)))
        if limit is not None and len(portraits) == limit:
            break
    return portraits


def load_photographs(folder: Path, boxes: Path, part: str) -> tuple[list[Scene], list[Scene]]:
    """The photographs of ``part``, "train" or "heldout": those with people, those without.

    Args:
        folder: with ``manifest.csv``; see ``material/README.md``.
        boxes: ``label_boxes.py``'s file about them.
        part: which photographs.
    """
    with np.load(boxes) as file:
        names, which = file["names"].tolist(), file["image_index"]
        squares, sure = file["squares"], file["sure"]
    rows = {name: np.flatnonzero(which == i) for i, name in enumerate(names)}
    people: list[Scene] = []
    negatives: list[Scene] = []
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if (row["heldout"] == "1") != (part == "heldout") or row["file"] not in rows:
                continue
            image = cv2.imread(str(folder / row["file"]), cv2.IMREAD_COLOR)
            found = rows[row["file"]]
            scene = Scene(_pyramid(image), squares[found], sure[found])
            if row["file"].startswith("people/"):
                people.append(scene)
            else:
                negatives.append(scene)
    return people, negatives


def _pyramid(image: Image) -> tuple[Image, ...]:
    levels = [image]
    while min(levels[-1].shape[:2]) >= 32:
        height, width = levels[-1].shape[:2]
        even = levels[-1][: height // 2 * 2, : width // 2 * 2]
        half = cv2.resize(even, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        levels.append(half)
    return tuple(levels)


@dataclass(frozen=True)
class Sample:
    """A finished image.

    Attributes:
        image: uint8 (H, W, 3) BGR.
        squares: (K, 3) centre x, y and side of the faces' boxes, pixel centres at whole numbers.
        sure: (K,) False for faces that are neither to be found nor to be taken for background.
        negative: index of the photograph without people that this shows and nothing else; -1.
    """

    image: Image
    squares: Array
    sure: NDArray[np.bool_]
    negative: int


class Sampler:
    """Makes samples.

    Args:
        people: photographs with people.
        negatives: photographs without.
        portraits: pasted over both, and shown by themselves.
        rng: decides everything.
        hardness: (len(negatives),) how high the network's highest score on each was, shared with
            the trainer; the higher, the more often it is shown.
    """

    def __init__(
        self,
        people: list[Scene],
        negatives: list[Scene],
        portraits: list[Scene],
        rng: np.random.Generator,
        hardness: torch.Tensor,
    ) -> None:
        self._people = people
        self._negatives = negatives
        self._portraits = portraits
        self._rng = rng
        self._hardness = hardness
        self._crowding = np.sqrt([max(1, int(scene.sure.sum())) for scene in people])
        self._crowding = np.cumsum(self._crowding / self._crowding.sum())

    def sample(self, height: int, width: int) -> Sample:
        """One image."""
        rng = self._rng
        u = rng.random()
        shown = -1
        if u < 0.52:
            scene = self._people[int(np.searchsorted(self._crowding, rng.random()))]
        elif u < 0.64:
            scene = self._portraits[int(rng.integers(len(self._portraits)))]
        else:
            shown = self._hard_negative()
            scene = self._negatives[shown]
        image, squares, turn = self._place(scene, height, width)
        sure = scene.sure
        turns = np.full(len(squares), turn)
        if rng.random() < 0.3:
            image, squares, sure, turns = self._paste(image, squares, sure, turns)
            shown = -1
        for square, known, angle in zip(squares, sure, turns, strict=True):
            if known and square[2] > 10 and rng.random() < 0.22:
                cover_face(image, square, angle, rng, self._texture)
        smallest = float(squares[sure, 2].min(initial=60)) if len(squares) else 40.0
        strength = 1.0 if rng.random() < 0.55 else 0.1
        image, limit = damage(image, rng, strength, max(smallest, 10))
        visible = _visible(squares, height, width)
        sure = sure & (squares[:, 2] >= max(SMALLEST, limit)) & (visible > 0.5)
        there = visible > 0.1
        return Sample(image, squares[there], sure[there], shown)

    def _hard_negative(self) -> int:
        weights = self._hardness.numpy() + 0.1
        total = np.cumsum(weights)
        return int(min(np.searchsorted(total, self._rng.random() * total[-1]), len(total) - 1))

    # --- geometry ---------------------------------------------------------------------------------

    def _turn(self) -> float:
        u = self._rng.random()
        if u < 0.5:
            return float(self._rng.normal(0, 8))
        return float(self._rng.uniform(-60, 60) if u < 0.85 else self._rng.uniform(-180, 180))

    def _place(self, scene: Scene, height: int, width: int) -> tuple[Image, Array, float]:
        """A scene in an image of a given size, a random one of its faces at a random size."""
        rng = self._rng
        source = np.array(scene.levels[0].shape[1::-1], np.float32)
        shorter = min(height, width)
        turn = self._turn()
        known = np.flatnonzero(scene.sure)
        if len(known):
            face = scene.squares[known[rng.integers(len(known))]]
            low, high = np.log(8.5), np.log(1.15 * shorter)
            largest = rng.uniform(low, high)
            if rng.random() < 0.5:  # small ones are the most numerous
                largest = rng.uniform(low, np.log(0.25 * shorter))
            gain = float(np.exp(largest)) / float(face[2])
            anchor = face[:2]
            spot = rng.uniform(0.08, 0.92, 2) * (width, height)
        else:
            gain = float(shorter / source.min() * np.exp(rng.uniform(np.log(0.4), np.log(2.5))))
            anchor = source * rng.uniform(0.3, 0.7, 2)
            spot = rng.uniform(0.3, 0.7, 2) * (width, height)
        if rng.random() < 0.8:  # not much more ground than scene
            gain = max(gain, 0.7 * shorter / float(source.min()))
        gain = float(np.clip(gain, 0.05, MOST_ENLARGED))
        mirror = -1.0 if rng.random() < 0.5 else 1.0
        cos, sin = gain * np.cos(np.deg2rad(turn)), gain * np.sin(np.deg2rad(turn))
        linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([mirror, 1.0])
        # As much of the scene in sight as there is room for.
        reach = np.abs(linear) @ source / 2
        middle = spot + linear @ (source / 2 - anchor)
        low, high = (
            np.minimum(reach, [width - reach[0], height - reach[1]]),
            np.maximum(reach, [width - reach[0], height - reach[1]]),
        )
        free = rng.random() < 0.3
        moved = middle if free else np.clip(middle, low, high)
        affine = np.column_stack([linear, moved - linear @ (source / 2)])
        image = self._ground(height, width)
        self._draw(image, scene, affine, gain, np.ones(1))
        squares = _moved(scene.squares, affine, gain)
        return image, squares, turn

    def _ground(self, height: int, width: int) -> Image:
        """What lies around a scene: a colour or a part of a photograph without people."""
        rng = self._rng
        if rng.random() < 0.4:
            return np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
        return self._texture(height, width)

    def _texture(self, height: int, width: int) -> Image:
        rng = self._rng
        source = self._negatives[int(rng.integers(len(self._negatives)))].levels[0]
        size = np.array(source.shape[:2])
        part = np.maximum((size * rng.uniform(0.3, 1.0)).astype(int), 4)
        y, x = (int(rng.integers(0, n)) for n in size - np.minimum(part, size) + 1)
        piece = source[y : y + part[0], x : x + part[1]]
        method = cv2.INTER_AREA if len(piece) > height else cv2.INTER_LINEAR
        return cv2.resize(piece, (width, height), interpolation=method)

    def _draw(self, image: Image, scene: Scene, affine: Array, gain: float, outline: Array) -> None:
        """A scene under an affine map, in place.

        ``outline``: corners (N, 2) in the scene of the part to be drawn; all of it where there are
        fewer than three.
        """
        rng = self._rng
        source = scene.levels[0].shape
        if len(outline) < 3:
            x, y = source[1] - 1, source[0] - 1
            outline = np.array([[0, 0], [x, 0], [x, y], [0, y]], np.float32)
        corners = outline @ affine[:, :2].T + affine[:, 2]
        low = np.maximum(np.floor(corners.min(0)), 0).astype(int)
        high = np.minimum(np.ceil(corners.max(0)) + 1, image.shape[1::-1]).astype(int)
        if (high - low < 2).any():
            return
        # One level too fine gives the aliasing of a cheap resize.
        fine = 0.0 if rng.random() < 0.2 else 0.6
        level = int(np.clip(np.floor(np.log2(1 / gain) + fine), 0, len(scene.levels) - 1))
        scaled = affine.copy()
        scaled[:, :2] *= 2**level
        scaled[:, 2] += affine[:, :2] @ np.full(2, (2**level - 1) / 2) - low
        size = tuple(int(v) for v in high - low)
        flags = cv2.INTER_CUBIC if gain > 1.3 and rng.random() < 0.5 else cv2.INTER_LINEAR
        patch = cv2.warpAffine(
            scene.levels[level], scaled, size, flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        mask = np.zeros(patch.shape[:2], np.float32)
        fixed = np.rint((corners - low) * 16).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 1.0, cv2.LINE_AA, shift=4)
        if len(outline) > 4:
            mask = cv2.GaussianBlur(mask, (0, 0), 0.5 + float(rng.uniform(0, 0.06)) * max(size) / 4)
        if rng.random() < 0.3:
            patch = tone(patch, rng, 0.7)
        region = image[low[1] : high[1], low[0] : high[0]]
        region[:] = cv2.blendLinear(patch, np.ascontiguousarray(region), mask, 1 - mask)

    def _paste(
        self, image: Image, squares: Array, sure: NDArray[np.bool_], turns: Array
    ) -> tuple[Image, Array, NDArray[np.bool_], Array]:
        """Portraits over an image, beside the faces that it has."""
        rng = self._rng
        height, width = image.shape[:2]
        for _ in range(int(rng.integers(1, 6))):
            portrait = self._portraits[int(rng.integers(len(self._portraits)))]
            square = portrait.squares[0]
            side = float(np.exp(rng.uniform(np.log(8), np.log(0.5 * min(height, width)))))
            gain = side / float(square[2])
            turn = self._turn()
            cos, sin = gain * np.cos(np.deg2rad(turn)), gain * np.sin(np.deg2rad(turn))
            mirror = -1.0 if rng.random() < 0.5 else 1.0
            linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([mirror, 1.0])
            placed = np.array([*rng.uniform(0, 1, 2) * (width, height), side], np.float32)
            if any(_near(placed, other) for other in squares):
                continue
            affine = np.column_stack([linear, placed[:2] - linear @ square[:2]])
            self._draw(image, portrait, affine, gain, self._outline(portrait))
            squares = np.vstack([squares, placed])
            sure, turns = np.append(sure, True), np.append(turns, turn)
        return image, squares.astype(np.float32), sure, turns

    def _outline(self, portrait: Scene) -> Array:
        """The part of a portrait to be pasted: nearly all, or an oval around the head."""
        rng = self._rng
        x, y, side = (float(v) for v in portrait.squares[0])
        height, width = portrait.levels[0].shape[:2]
        if rng.random() < 0.5:
            low = np.maximum(
                [x - side * rng.uniform(0.6, 1.1), y - side * rng.uniform(0.8, 1.2)], 0
            )
            high = np.minimum(
                [x + side * rng.uniform(0.6, 1.1), y + side * rng.uniform(0.55, 1.2)],
                [width - 1, height - 1],
            )
            return np.array([low, [high[0], low[1]], high, [low[0], high[1]]], np.float32)
        angle = np.linspace(0, 2 * np.pi, 33)[:-1]
        radius = side * np.array([rng.uniform(0.5, 0.75), rng.uniform(0.62, 0.85)])
        oval = np.column_stack([np.cos(angle), np.sin(angle)]) * radius + [x, y]
        oval[:, 1] -= side * rng.uniform(0.08, 0.16)
        return np.clip(oval, 0, [width - 1, height - 1]).astype(np.float32)


def _moved(squares: Array, affine: Array, gain: float) -> Array:
    centers = squares[:, :2] @ affine[:, :2].T + affine[:, 2]
    return np.column_stack([centers, squares[:, 2] * gain]).astype(np.float32)


def _near(a: Array, b: Array) -> bool:
    """Whether a pasted portrait would touch another face."""
    return bool(np.abs(a[:2] - b[:2]).max() < 0.9 * a[2] + 0.6 * b[2])


def _visible(squares: Array, height: int, width: int) -> Array:
    """Part of each square that lies within the image."""
    half = squares[:, 2:] / 2
    low = np.clip(squares[:, :2] - half, 0, [width, height])
    high = np.clip(squares[:, :2] + half, 0, [width, height])
    result: Array = (high - low).prod(1) / np.maximum(squares[:, 2], 1e-6) ** 2
    return result


def draw(sample: Sample) -> Image:
    """The image with its boxes: green, or red where a face is not to be learnt."""
    image = sample.image.copy()
    for (x, y, side), sure in zip(sample.squares, sample.sure, strict=True):
        low, high = ((round(float(v)) for v in (x + d, y + d)) for d in (-side / 2, side / 2))
        cv2.rectangle(image, tuple(low), tuple(high), (0, 255, 0) if sure else (0, 0, 255), 1)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--material", type=Path, default=Path("../shared/training"))
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    parser.add_argument(
        "--boxes", type=Path, nargs="+", required=True, help="one for each --photos"
    )
    parser.add_argument("--out", type=Path, required=True, help="sheet of samples, .jpg or .png")
    parser.add_argument("--size", type=int, default=320, help="pixels of a sample")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=None, help="read at most so many portraits")
    options = parser.parse_args()
    portraits = load_portraits(options.material, "train", options.limit)
    people, negatives = load_all_photographs(options.photos, options.boxes, "train")
    hardness = torch.zeros(len(negatives))
    sampler = Sampler(people, negatives, portraits, np.random.default_rng(options.seed), hardness)
    rows = [
        np.hstack([draw(sampler.sample(options.size, options.size)) for _ in range(options.rows)])
        for _ in range(options.rows)
    ]
    cv2.imwrite(str(options.out), np.vstack(rows))
    print(f"{options.out}: {options.rows**2} samples")


def load_all_photographs(
    folders: list[Path], boxes: list[Path], part: str
) -> tuple[list[Scene], list[Scene]]:
    """:func:`load_photographs` of several folders, together."""
    people: list[Scene] = []
    negatives: list[Scene] = []
    for folder, file in zip(folders, boxes, strict=True):
        more_people, more_negatives = load_photographs(folder, file, part)
        people += more_people
        negatives += more_negatives
    return people, negatives


if __name__ == "__main__":
    main()
