"""Training examples: crops with labels, drawn from portraits and from renders.

All crops are ``CROP`` pixels a side with the landmarks' region, ``REGION`` pixels, in their middle.
Labels leave here in the frame of the regressor's parameters (``face.to_pack_frame``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from augment import Jitter, misaligned, occlude, photometric, warp
from face import CAMERA, INPUT_SIZE, Array, Indices, Morphable, to_pack_camera, to_pack_frame
from numpy.typing import NDArray
from renders import CROP, REGION, read_portrait, region_side

Image = NDArray[np.uint8]

RIGHT_EYE, LEFT_EYE = slice(36, 42), slice(42, 48)


@dataclass(frozen=True)
class Crops:
    """Pictures and labels.

    Attributes:
        shards: uint8 (n, CROP, CROP, 3) arrays, BGR; may be memory mapped.
        params: (N, 12 + S + E), camera in pixels of the crop, image frame.
        points: (N, 468, 2) the teacher's points where it labelled these pictures, else None.
    """

    shards: list[Image]
    params: Array
    points: Array | None

    def __len__(self) -> int:
        return len(self.params)

    def image(self, index: int) -> Image:
        for shard in self.shards:
            if index < len(shard):
                return shard[index]
            index -= len(shard)
        raise IndexError(index)


def portrait_crops(material: Path, labels: Path, model: Morphable, part: str) -> Crops:
    """Crops of the portraits of one part, ``train`` or ``heldout``."""
    table = np.load(labels)
    rows = np.flatnonzero(table[part])
    images = np.empty((len(rows), CROP, CROP, 3), np.uint8)
    params, points = table["params"][rows].copy(), table["points"][rows].copy()
    for i, row in enumerate(rows):
        portrait = read_portrait(material / str(table["image"][row]))
        camera = params[i, :CAMERA].reshape(3, 4)
        side, middle = region_side(camera, model.points68.of(model.vertices(params[i, CAMERA:])))
        gain = REGION / side
        offset = (CROP - 1) / 2 - gain * middle
        affine = np.array([[gain, 0, offset[0]], [0, gain, offset[1]]])
        if gain < 0.8:
            portrait = cv2.GaussianBlur(portrait, (0, 0), 0.4 / gain)
        images[i] = cv2.warpAffine(portrait, affine, (CROP, CROP), borderMode=cv2.BORDER_REPLICATE)
        camera *= gain
        camera[:2, 3] += offset
        points[i] = points[i] * gain + offset
    return Crops([images], params, points)


def render_crops(folder: Path, part: str) -> Crops:
    """All finished shards of a part.

    Raises:
        FileNotFoundError: if there is none.
    """
    params = sorted(folder.glob(f"{part}_*_params.npy"))
    if not params:
        raise FileNotFoundError(f"no renders {part}_*_params.npy in {folder}; run renders.py first")
    images = [p.with_name(p.name.replace("params", "images")) for p in params]
    return Crops(
        [np.load(path, mmap_mode="r") for path in images],
        np.concatenate([np.load(path) for path in params]),
        None,
    )


@dataclass(frozen=True)
class Batch:
    """What one training step needs; arrays in the regressor's frame.

    Attributes:
        images: uint8 (B, 120, 120, 3) BGR.
        params: (B, 12 + S + E).
        points: (B, 468, 2) the teacher's points, zero where ``taught`` is false.
        taught: (B,) whether ``points`` count.
        aligned: (B,) 1 for a well aligned face, else 0; then nothing else counts.
    """

    images: Image
    params: Array
    points: Array
    taught: NDArray[np.bool_]
    aligned: Array


PORTRAIT_PART = 0.3
MISALIGNED_PART = 0.06


@dataclass(frozen=True)
class Examples:
    """Draws training examples; example batch ``k`` depends on the seed and ``k`` alone."""

    model: Morphable
    mirror468: Indices
    portraits: Crops
    renders: Crops
    batch_size: int
    seed: int
    strength: float  # of the augmentation, 0..1
    gentle_batches: int  # the first ones are augmented lightly

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, number: int) -> Batch:
        rng = np.random.default_rng([self.seed, number])
        strength = self.strength if number >= self.gentle_batches else 0.3
        size, count = self.batch_size, self.model.param_count
        batch = Batch(
            images=np.empty((size, INPUT_SIZE, INPUT_SIZE, 3), np.uint8),
            params=np.empty((size, count), np.float32),
            points=np.zeros((size, 468, 2), np.float32),
            taught=np.zeros(size, bool),
            aligned=np.ones(size, np.float32),
        )
        for i in range(size):
            crops = self.portraits if rng.random() < PORTRAIT_PART else self.renders
            index = int(rng.integers(len(crops)))
            wide = crops is self.portraits
            move = Jitter().draw(rng, wide)
            if rng.random() < MISALIGNED_PART:
                batch.aligned[i] = 0
                move = misaligned(rng)
            image, params, points = self.place(crops, index, move, rng.random() < 0.6)
            if rng.random() < 0.5:
                image, params, points = self._mirror(image, params, points)
            if points is not None:
                batch.taught[i] = True
                batch.points[i] = to_pack_frame(points)
            if rng.random() < strength:
                other = self.portraits.image(int(rng.integers(len(self.portraits))))
                image = occlude(image, other, self._eyes(params), rng)
            batch.images[i] = photometric(image, rng, strength)
            camera = to_pack_camera(params[:CAMERA].reshape(3, 4))
            batch.params[i] = np.concatenate([camera.ravel(), params[CAMERA:]])
        return batch

    @staticmethod
    def place(
        crops: Crops, index: int, move: tuple[float, float, float, float], black: bool
    ) -> tuple[Image, Array, Array | None]:
        """One crop moved: picture, parameters and points in its pixels, image frame."""
        border = cv2.BORDER_CONSTANT if black else cv2.BORDER_REPLICATE
        image, affine = warp(crops.image(index), REGION, INPUT_SIZE, move, border)
        params = crops.params[index].copy()
        camera = params[:CAMERA].reshape(3, 4)  # a view
        camera[:2] = affine[:, :2] @ camera[:2]
        camera[:2, 3] += affine[:, 2]
        camera[2] *= np.sqrt(abs(np.linalg.det(affine[:, :2])))
        points = crops.points
        moved = None if points is None else points[index] @ affine[:, :2].T + affine[:, 2]
        return image, params, moved

    def _mirror(
        self, image: Image, params: Array, points: Array | None
    ) -> tuple[Image, Array, Array | None]:
        camera, coefficients = self.model.mirror(
            params[:CAMERA].reshape(3, 4), params[CAMERA:], INPUT_SIZE
        )
        if points is not None:
            points = points[self.mirror468]
            points[:, 0] = INPUT_SIZE - 1 - points[:, 0]
        flipped = np.ascontiguousarray(image[:, ::-1])
        return flipped, np.concatenate([camera.ravel(), coefficients]), points

    def _eyes(self, params: Array) -> Array:
        """(2, 2) centres of the mean face's eyes under this camera; good enough for glasses."""
        camera = params[:CAMERA].reshape(3, 4)
        middles = np.stack([self._mean68[part].mean(0) for part in (RIGHT_EYE, LEFT_EYE)])
        flat: Array = middles @ camera[:2, :3].T + camera[:2, 3]
        return flat

    @property
    def _mean68(self) -> Array:
        return self.model.points68.of(self.model.mean)
