"""Train the network that says whether a region shows a human face.

    python weights/training/train_presence.py --material ../shared/training \\
        --photos ../shared/training/photos --boxes CACHE/boxes.npz \\
        --detector CACHE/detector/detector.onnx --cache CACHE/presence

Faces are those of the photographs and portraits, with regions as the detector gives them.
Background is what the detector takes for a face in photographs without people, at several scales
and down to a low score, and pieces of all photographs where it sees nothing. Regions far off a face
are no faces either. The hardest background is shown most often. Goes on from the newest checkpoint
in the cache, if there is one.

The score is calibrated on held-out photographs as they are and damaged.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from augment import Jitter, misaligned, warp
from damage import cover_face, damage
from detector_data import BOX_SCALE, Array, Image, Scene, load_all_photographs, load_portraits
from detector_network import DIVISOR, MEAN, PRIORS, SCALE, VARIANCES
from numpy.typing import NDArray
from presence_network import ROI_SCALE, SIDE, Presence, calibrate, normalize
from torch import Tensor, nn
from train_detector import IOU_THRESHOLD, average, learning_rate, save

from threedfa import ops
from threedfa.networks import Network, open_network

CHECKPOINT = "presence.pt"
STORED = 128  # pixels of a stored crop
REACH = 2.2  # sides of the regressor's region that a stored crop shows
LOWEST_SCORE = 0.08  # of the detector's boxes that are learnt from
SCALES = (0.5, 1.0, 2.0)  # of the photographs, for the detector
FACES, BACKGROUND = 0.45, 0.42  # parts of the batches; the rest are regions far off a face
RANDOM_BOXES = 6  # of each photograph
THRESHOLDS = (0.3, 0.5, 0.7)


@dataclass
class Regions:
    """Crops around regions of interest.

    Attributes:
        crops: (N, 128, 128, 3) uint8 BGR, the region in the middle.
        sides: (N,) pixels of the face's box in its photograph.
    """

    crops: NDArray[np.uint8]
    sides: Array

    @staticmethod
    def of(parts: list[tuple[Image, float]]) -> Regions:
        crops = np.stack([crop for crop, _ in parts])
        return Regions(crops, np.array([side for _, side in parts], np.float32))


def detect(network: Network, image: Image) -> tuple[Array, Array]:
    """The detector's squares (K, 3) and scores for an image, down to a low score."""
    height, width = (-(-n // DIVISOR) * DIVISOR for n in image.shape[:2])
    padded = np.full((height, width, 3), MEAN, np.float32)
    padded[: image.shape[0], : image.shape[1]] = image
    loc, conf = network.run(((padded - MEAN) * SCALE).transpose(2, 0, 1)[None])
    scores = conf[0, :, 1]
    chosen = np.flatnonzero(scores > LOWEST_SCORE)
    chosen = chosen[np.argsort(-scores[chosen])[:1000]]
    priors = ops.prior_boxes(height, width, PRIORS)[chosen]
    boxes = ops.decode_boxes(loc[0][chosen], priors, VARIANCES)
    boxes = boxes * np.array([width, height, width, height], np.float32)
    kept = ops.nms(boxes, scores[chosen], IOU_THRESHOLD)
    boxes = boxes[kept]
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).clip(1e-3).prod(1))
    return np.column_stack([middles, sides]).astype(np.float32), scores[chosen][kept]


def cut(scene: Scene, square: Array) -> Image:
    """The crop around a box's region."""
    side = float(square[2]) * BOX_SCALE * REACH
    level = int(
        np.clip(np.floor(np.log2(max(side / STORED, 1e-6)) + 0.4), 0, len(scene.levels) - 1)
    )
    x, y = ((float(v) + 0.5) / 2**level - 0.5 for v in square[:2])
    gain = STORED / (side / 2**level)
    affine = np.array(
        [[gain, 0, (STORED - 1) / 2 - gain * x], [0, gain, (STORED - 1) / 2 - gain * y]]
    )
    return cv2.warpAffine(
        scene.levels[level], affine, (STORED, STORED), flags=cv2.INTER_LINEAR
    )  # black outside, as the library's crops are


def _away(squares: Array, others: Array) -> Array:
    """Those squares that touch none of the others."""
    apart = np.abs(squares[:, None, :2] - others[None, :, :2]).max(-1)
    return squares[~(apart < 0.6 * (others[None, :, 2] + squares[:, None, 2])).any(1)]


def gather(
    network: Network, people: list[Scene], negatives: list[Scene], rng: np.random.Generator
) -> tuple[Regions, Regions]:
    """Faces and background of photographs, as the detector sees them."""
    faces: list[tuple[Image, float]] = []
    background: list[tuple[Image, float]] = []
    begin = time.monotonic()
    for k, scene in enumerate(people + negatives):
        image = scene.levels[0]
        known, sure = scene.squares, scene.sure
        faces += [(cut(scene, square), float(square[2])) for square in known[sure]]
        found: list[Array] = []
        for scale in SCALES:
            if max(image.shape[:2]) * scale > 1300:
                continue
            resized = image
            if scale != 1:
                method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
                resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=method)
            squares, _ = detect(network, resized)
            found.append(squares / np.float32(scale))
        boxes = np.concatenate(found)
        sides = np.exp(rng.uniform(np.log(12), np.log(min(image.shape[:2])), RANDOM_BOXES))
        spots = rng.uniform(0.05, 0.95, (RANDOM_BOXES, 2)) * image.shape[1::-1]
        anywhere = np.column_stack([spots, sides]).astype(np.float32)
        if len(known) and len(boxes):
            apart = np.abs(boxes[:, None, :2] - known[None, :, :2]).max(-1)
            ratio = boxes[:, None, 2] / known[None, :, 2]
            same = (apart < 0.2 * known[None, :, 2]) & (ratio > 0.75) & (ratio < 1.35)
            mine = (same & sure[None]).any(1)
            faces += [(cut(scene, square), float(square[2])) for square in boxes[mine]]
        if k < len(people):  # what the detector sees there may be a face that nobody marked
            boxes = _away(anywhere, np.concatenate([known, boxes]))
        else:
            boxes = _away(np.concatenate([boxes, anywhere]), known)
        boxes = boxes[np.argsort(-boxes[:, 2])[:40]]
        background += [(cut(scene, square), float(square[2])) for square in boxes if square[2] > 6]
        if k % 500 == 0:
            print(
                f"{k} photographs: {len(faces)} faces, {len(background)} others, "
                f"{time.monotonic() - begin:.0f} s",
                flush=True,
            )
    return Regions.of(faces), Regions.of(background)


class Crops(torch.utils.data.IterableDataset[tuple[Tensor, Tensor, Tensor]]):
    """Batches without end: crops, whether a face, and which background (-1: none)."""

    def __init__(
        self,
        faces: Regions,
        portraits: Regions,
        background: Regions,
        hardness: Tensor,
        batch: int,
        seed: int,
    ) -> None:
        self._faces = faces
        self._portraits = portraits
        self._background = background
        self._hardness = hardness
        self._batch = batch
        self._seed = seed
        # Large faces are the fewest; all sizes are to be known.
        bins = np.digitize(faces.sides, (10, 16, 24, 40, 80))
        part = 1 / np.bincount(bins, minlength=6).clip(1)[bins]
        self._sizes = np.cumsum(part / part.sum())

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng((self._seed, worker.id if worker else 0))
        while True:
            made = [self._one(rng) for _ in range(self._batch)]
            yield (
                torch.from_numpy(np.stack([crop for crop, _, _ in made])),
                torch.tensor([face for _, face, _ in made]),
                torch.tensor([index for _, _, index in made]),
            )

    def _one(self, rng: np.random.Generator) -> tuple[Image, bool, int]:
        u = rng.random()
        index = -1
        face = u < FACES
        if FACES <= u < FACES + BACKGROUND:
            total = torch.cumsum(self._hardness + 0.05, 0).numpy()
            index = int(min(np.searchsorted(total, rng.random() * total[-1]), len(total) - 1))
            crop = self._background.crops[index]
        elif rng.random() < 0.3:
            crop = self._portraits.crops[int(rng.integers(len(self._portraits.crops)))]
        else:
            which = int(np.searchsorted(self._sizes, rng.random()))
            crop = self._faces.crops[min(which, len(self._sizes) - 1)]
        far = u >= FACES + BACKGROUND
        return augmented(crop, rng, far, self._texture), face, index

    def _texture(self, rng: np.random.Generator, height: int, width: int) -> Image:
        crops = self._background.crops
        piece = crops[int(rng.integers(len(crops)))]
        return cv2.resize(piece, (width, height), interpolation=cv2.INTER_LINEAR)


JITTER = Jitter(log_scale_sigma=0.1, shift_sigma=0.045, far_part=0.15, far_log_scale=0.0)


def augmented(crop: Image, rng: np.random.Generator, far: bool, texture: Any) -> Image:
    """A stored crop as the network may see it; ``far``: the region far off its middle."""
    region = STORED / REACH
    image = crop.copy()
    if rng.random() < 0.5:
        image = np.ascontiguousarray(image[:, ::-1])
    if rng.random() < 0.25:
        middle = (STORED - 1) / 2
        square = np.array([middle, middle, region / BOX_SCALE], np.float32)
        cover_face(image, square, 0.0, rng, lambda h, w: texture(rng, h, w))
    if rng.random() < 0.3:  # from far away
        side = int(np.exp(rng.uniform(np.log(STORED / 6), np.log(STORED / 1.5))))
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (STORED, STORED), interpolation=cv2.INTER_LINEAR)
    image, _ = damage(image, rng, 0.8 if rng.random() < 0.6 else 0.1, region * 0.7)
    move = misaligned(rng) if far else JITTER.draw(rng, True)
    out, _ = warp(image, region * ROI_SCALE, SIDE, move, cv2.BORDER_CONSTANT)
    return out


@torch.no_grad()
def scores(network: Presence, crops: NDArray[np.uint8]) -> Tensor:
    """Logits of stored crops as they are or, given (N, 64, 64, 3), of the network's own."""
    if crops.shape[1] != SIDE:
        region = STORED / REACH * ROI_SCALE
        crops = np.stack(
            [warp(crop, region, SIDE, (1, 0, 0, 0), cv2.BORDER_CONSTANT)[0] for crop in crops]
        )
    network.eval()
    parts = [
        network(normalize(torch.from_numpy(crops[i : i + 256]))) for i in range(0, len(crops), 256)
    ]
    return torch.cat(parts)


def table(faces: Tensor, background: Tensor, damaged: Tensor, sides: Array) -> str:
    """How many faces are refused and how much background is kept."""
    lines = []
    for threshold in THRESHOLDS:
        limit = float(np.log(threshold / (1 - threshold)))
        cells = []
        for low, high in ((6, 12), (12, 20), (20, 40), (40, 80), (80, 2000)):
            part = faces[torch.from_numpy((sides >= low) & (sides < high))]
            cells.append(f"{low}-{high}: {(part < limit).float().mean():.3f}")
        lines.append(
            f"  {threshold:.1f}: refused {(faces < limit).float().mean():.4f} of {len(faces)} "
            f"({'  '.join(cells)}), damaged {(damaged < limit).float().mean():.4f}; kept "
            f"{(background >= limit).float().mean():.4f} of {len(background)} others"
        )
    return "\n".join(lines)


def train(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(0)
    rng = np.random.default_rng(options.seed)
    detector = open_network(options.detector, num_threads=1)
    portraits = load_portraits(options.material, "train", options.limit)
    from_portraits = Regions.of([(cut(p, p.squares[0]), float(p.squares[0, 2])) for p in portraits])
    del portraits
    people, negatives = load_all_photographs(options.photos, options.boxes, "train")
    faces, background = gather(detector, people, negatives, rng)
    people, negatives = load_all_photographs(options.photos, options.boxes, "heldout")
    held_faces, held_background = gather(detector, people, negatives, rng)
    del people, negatives
    print(
        f"{len(faces.sides)} faces, {len(background.sides)} others; held out "
        f"{len(held_faces.sides)} and {len(held_background.sides)}",
        flush=True,
    )
    held_damaged = np.stack(
        [
            augmented(crop, rng, False, lambda r, h, w: np.zeros((h, w, 3), np.uint8))
            for crop in held_faces.crops[:1500]
        ]
    )
    network, averaged = Presence(), Presence()
    averaged.load_state_dict(network.state_dict())
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=0.02)
    hardness = torch.full((len(background.sides),), 0.5)
    hardness.share_memory_()
    path = options.cache / CHECKPOINT
    step = 0
    if path.is_file():
        content = torch.load(path, weights_only=True)
        network.load_state_dict(content["network"])
        averaged.load_state_dict(content["averaged"])
        optimizer.load_state_dict(content["optimizer"])
        step = int(content["step"])

    def check_point() -> None:
        of_faces = scores(averaged, held_faces.crops)
        of_background = scores(averaged, held_background.crops)
        of_damaged = scores(averaged, held_damaged)
        print(table(of_faces, of_background, of_damaged, held_faces.sides), flush=True)
        values = torch.cat([of_faces, of_background])
        truth = torch.cat([torch.ones(len(of_faces)), torch.zeros(len(of_background))])
        gain, shift = calibrate(values, truth, torch.ones(len(values)))
        save(
            path,
            {
                "network": network.state_dict(),
                "averaged": averaged.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "gain": gain,
                "shift": shift,
            },
        )

    data = Crops(faces, from_portraits, background, hardness, options.batch, options.seed + step)
    loader = iter(
        torch.utils.data.DataLoader(
            data,
            batch_size=None,
            num_workers=options.workers,
            prefetch_factor=8 if options.workers else None,
        )
    )
    begin = saved = time.monotonic()
    shown, done = 0.0, 0
    while step < options.steps:
        if options.minutes is not None and time.monotonic() - begin > 60 * options.minutes:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options.steps, options.rate)
        crops, face, index = next(loader)
        network.train()
        logits = network(normalize(crops))
        target = face.float() * 0.98 + 0.01
        loss = nn.functional.binary_cross_entropy_with_logits(logits, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        average(averaged, network, min(0.998, (step + 1) / (step + 20)))
        background_rows = index >= 0
        which = index[background_rows]
        seen = torch.sigmoid(logits.detach()[background_rows])
        hardness[which] += 0.5 * (seen - hardness[which])
        step += 1
        done += 1
        shown += (loss.item() - shown) / min(done, 200)
        if done in (5, 50) or step % 500 == 0:
            print(
                f"step {step}: {time.monotonic() - begin:.0f} s, loss {shown:.4f}, hardness "
                f"{hardness.mean():.3f}",
                flush=True,
            )
        if time.monotonic() - saved > 60 * options.save_minutes:
            check_point()
            saved = time.monotonic()
    check_point()
    print(f"{path}: step {step} of {options.steps}")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--material", type=Path, default=Path("../shared/training"))
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    parser.add_argument(
        "--boxes", type=Path, nargs="+", required=True, help="one for each --photos"
    )
    parser.add_argument("--detector", type=Path, required=True, help="its ONNX file")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--minutes", type=float, default=None, help="end this run after so long")
    parser.add_argument("--save-minutes", type=float, default=5)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--limit", type=int, default=None, help="read at most so many portraits")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    train(parse())
