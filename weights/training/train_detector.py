"""Train the face detector.

    python weights/training/train_detector.py --material ../shared/training --cache CACHE/detector

Goes on from the newest checkpoint in the cache, if there is one; with more ``--steps`` than before,
also after it had finished. Every ``--save-minutes`` the checkpoint is written and the averaged
network tried on pictures made of held-out portraits: found faces by size and rotation, false alarms
per picture. ``--minutes`` ends a run early, to be resumed. ``--init PACK`` trains a pack's detector
further.

The loss is that of SSD: cross entropy with the hardest negatives of the batch, smooth L1 on the
offsets. Background that the network takes for a face is cut out and pasted into later pictures.
Runs on a CPU or a GPU.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detector_data import (
    Array,
    Image,
    Painter,
    Portrait,
    Sample,
    assign,
    load_portraits,
    load_renders,
)
from detector_network import PRIORS, VARIANCES, Detector, load_detector, normalize
from face import Morphable
from numpy.typing import NDArray
from torch import Tensor, nn

from threedfa import ops

CHECKPOINT = "checkpoint.pt"
IOU_THRESHOLD = 0.3  # of non-maximum suppression
SIZES = ((320, 320), (320, 320), (320, 320), (320, 320), (256, 448), (640, 640))  # of the batches
PIXELS = 320 * 320  # a batch's pictures have --batch times so many pixels together
MOST_RENDERS = 3000  # of each part
EMPTY = 0.15  # part of the pictures without a face
NEGATIVES_PER_POSITIVE = 7
POOL, POOL_SIDE = 512, 96  # pictures of false alarms kept, and their side
SIZE_BINS = (9, 14, 20, 40, 80, 160, 320, 720)
TURN_BINS = (0, 15, 30, 50)
FALSE_ALARMS = 0.015  # per picture without a face, when the threshold is chosen


def pixel_priors(height: int, width: int) -> Array:
    """(P, 3) centre x, y and side of the priors, pixel centres at whole numbers.

    The library scales decoded boxes without a shift, so a prior at n pixels stands on the middle
    of pixel n, where the strided convolutions look.
    """
    priors = ops.prior_boxes(height, width, PRIORS) * (width, height, width, height)
    return priors[:, :3].astype(np.float32)


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU; on CPUs it gains nothing for a network of such thin layers."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


class Negatives:
    """Pictures of false alarms, in memory that the painters share with the trainer."""

    def __init__(self) -> None:
        self.pictures = torch.zeros((POOL, POOL_SIDE, POOL_SIDE, 3), dtype=torch.uint8)
        self.sides = torch.zeros((POOL, 2), dtype=torch.int32)  # height and width of each
        self.count = torch.zeros(1, dtype=torch.int64)  # ever added
        for tensor in self.state().values():
            tensor.share_memory_()

    def state(self) -> dict[str, Tensor]:
        return {"pictures": self.pictures, "sides": self.sides, "count": self.count}

    def add(self, picture: Image) -> None:
        slot = int(self.count) % POOL
        height, width = picture.shape[:2]
        self.pictures[slot, :height, :width] = torch.from_numpy(picture)
        self.sides[slot] = torch.tensor([height, width])
        self.count += 1

    def draw(self, rng: np.random.Generator) -> Image | None:
        known = min(int(self.count), POOL)
        if known == 0:
            return None
        slot = int(rng.integers(known))
        height, width = (int(v) for v in self.sides[slot])
        picture: Image = self.pictures[slot, :height, :width].numpy().copy()
        return picture


@dataclass(frozen=True)
class Batch:
    pictures: Tensor  # (N, H, W, 3) uint8
    offsets: Tensor  # (N, P, 4), divided by the variances
    labels: Tensor  # (N, P) int8
    weights: Tensor  # (N, P) of the priors with a face


class Batches(torch.utils.data.IterableDataset[Batch]):
    """Batches without end; each worker its own random numbers."""

    def __init__(
        self,
        portraits: list[Portrait],
        renders: list[Portrait],
        negatives: Negatives,
        batch: int,
        seed: int,
        start: int,
    ) -> None:
        self._portraits = portraits
        self._renders = renders
        self._negatives = negatives
        self._batch = batch
        self._seed = (seed, start)

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng((*self._seed, worker.id if worker else 0))
        painter = Painter(self._portraits, rng, lambda: self._negatives.draw(rng), self._renders)
        priors = {size: pixel_priors(*size) for size in set(SIZES)}
        while True:
            height, width = size = SIZES[int(rng.integers(len(SIZES)))]
            count = max(1, self._batch * PIXELS // (height * width))
            samples = [
                painter.sample(height, width, faces=rng.random() >= EMPTY) for _ in range(count)
            ]
            yield collate(samples, priors[size])


def collate(samples: list[Sample], priors: Array) -> Batch:
    """Samples of one size as a batch."""
    targets = [assign(priors, sample.squares, sample.sure) for sample in samples]
    variances = np.array([VARIANCES[0]] * 2 + [VARIANCES[1]] * 2, np.float32)
    return Batch(
        torch.from_numpy(np.stack([sample.image for sample in samples])),
        torch.from_numpy(np.stack([offsets for offsets, _, _ in targets]) / variances),
        torch.from_numpy(np.stack([labels for _, labels, _ in targets])),
        torch.from_numpy(np.stack([weights for _, _, weights in targets])),
    )


def detection_loss(offsets: Tensor, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Classification and box loss, each per face-bearing prior."""
    positive = batch.labels == 1
    weights = batch.weights[positive]
    weights = weights * (len(weights) / weights.sum().clamp(min=1e-6))
    count = positive.sum().clamp(min=1)
    wrong = nn.functional.binary_cross_entropy_with_logits(
        logits, positive.float(), reduction="none"
    )
    negatives = wrong[batch.labels == 0]
    hardest = min(len(negatives), max(NEGATIVES_PER_POSITIVE * int(count), 8 * len(batch.labels)))
    found = (weights * wrong[positive]).sum()
    classification = (found + negatives.topk(hardest).values.sum()) / count
    boxes = nn.functional.smooth_l1_loss(
        offsets[positive], batch.offsets[positive], reduction="none", beta=0.5
    )
    return classification, (weights[:, None] * boxes).sum() / count


def collect_negatives(batch: Batch, logits: Tensor, negatives: Negatives, most: int = 4) -> None:
    """Cut the worst false alarms out of a batch."""
    height, width = batch.pictures.shape[1:3]
    priors = pixel_priors(height, width)
    score = torch.where(batch.labels == 0, logits, -torch.inf).flatten()
    worst, where = score.topk(most)
    for value, index in zip(worst.tolist(), where.tolist(), strict=True):
        if value < 0:
            break
        picture, row = divmod(index, len(priors))
        x, y, side = priors[row]
        half = int(min(max(0.9 * side, 12), 3 * POOL_SIDE))
        low_x, low_y = max(int(x) - half, 0), max(int(y) - half, 0)
        patch = batch.pictures[picture, low_y : int(y) + half, low_x : int(x) + half].numpy()
        if min(patch.shape[:2]) < 12 or not _only_background(batch, picture, priors, row):
            continue
        if max(patch.shape[:2]) > POOL_SIDE:
            gain = POOL_SIDE / max(patch.shape[:2])
            patch = cv2.resize(patch, None, fx=gain, fy=gain, interpolation=cv2.INTER_AREA)
            patch = patch[:POOL_SIDE, :POOL_SIDE]
        negatives.add(patch)


def _only_background(batch: Batch, picture: int, priors: Array, row: int) -> bool:
    """Whether no face, certain or not, lies within the patch around a prior."""
    marked = priors[batch.labels[picture].numpy() != 0]
    reach = 0.9 * priors[row, 2] + 12 + marked[:, 2]
    return not bool((np.abs(marked[:, :2] - priors[row, :2]).max(1) < reach).any())


def average(target: nn.Module, source: nn.Module, keep: float) -> None:
    """Move the averaged network towards the trained one."""
    with torch.no_grad():
        for a, b in zip(target.state_dict().values(), source.state_dict().values(), strict=True):
            if a.dtype.is_floating_point:
                a.lerp_(b, 1 - keep)
            else:
                a.copy_(b)


# --- validation -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """Detections and the truth of one picture."""

    boxes: Array  # (D, 4)
    scores: Array  # (D,)
    sample: Sample


def validation_set(
    portraits: list[Portrait], renders: list[Portrait], count: int, seed: int = 7
) -> list[Sample]:
    """Pictures of held-out portraits and renders; a third of them without a face."""
    painter = Painter(portraits, np.random.default_rng(seed), renders=renders)
    sizes = ((480, 640), (384, 384), (720, 960))
    return [painter.sample(*sizes[i % 3], faces=i % 9 < 6) for i in range(count)]


@torch.no_grad()
def detect(network: nn.Module, sample: Sample, device: torch.device) -> Found:
    """All detections above a low score."""
    height, width = sample.image.shape[:2]
    pixels = torch.from_numpy(sample.image[None]).to(device)
    offsets, logits = network(normalize(pixels).contiguous(memory_format=torch.channels_last))
    scores = torch.sigmoid(logits[0]).cpu().numpy()
    chosen = np.flatnonzero(scores > 0.05)
    chosen = chosen[np.argsort(-scores[chosen])[:2000]]
    priors = ops.prior_boxes(height, width, PRIORS)[chosen]
    boxes = ops.decode_boxes(offsets[0].cpu().numpy()[chosen], priors, VARIANCES)
    boxes = boxes * np.array([width, height, width, height], np.float32)
    keep = ops.nms(boxes, scores[chosen], IOU_THRESHOLD)
    return Found(boxes[keep], scores[chosen][keep], sample)


def match(found: Found, threshold: float) -> tuple[NDArray[np.bool_], int]:
    """Which of the sure faces are found (IoU >= 0.5), and the number of false alarms.

    A detection that touches a face by at least a third of either's area is no false alarm.
    """
    boxes = found.boxes[found.scores > threshold]
    squares = found.sample.squares
    truth = np.hstack([squares[:, :2] - squares[:, 2:] / 2, squares[:, :2] + squares[:, 2:] / 2])
    overlap = _common(boxes, truth)
    area, true_area = _area(boxes)[:, None], _area(truth)[None]
    iou = overlap / (area + true_area - overlap)
    hit = (iou >= 0.5).any(0) if len(boxes) else np.zeros(len(truth), bool)
    near = (overlap / np.minimum(area, true_area) > 1 / 3).any(1)
    return hit[found.sample.sure], int((~near).sum())


def _common(a: Array, b: Array) -> Array:
    side = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    result: Array = np.clip(side, 0, None).prod(-1)
    return result


def _area(boxes: Array) -> Array:
    result: Array = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return result


def choose_threshold(results: list[Found], false_alarms: float = FALSE_ALARMS) -> float:
    """The lowest threshold from 0.3 with at most so many false alarms per face-free picture."""
    empty = [found for found in results if len(found.sample.squares) == 0]
    scores = np.sort(np.concatenate([found.scores for found in empty] or [np.zeros(0)]))[::-1]
    allowed = int(false_alarms * len(empty))
    return float(np.clip(scores[allowed] if len(scores) > allowed else 0.0, 0.3, 0.95))


def table(results: list[Found], threshold: float) -> str:
    """Recall by size and rotation, false alarms per picture with and without faces."""
    sizes, turns, hits = [], [], []
    alarms: dict[bool, list[int]] = {True: [], False: []}
    for found in results:
        hit, false = match(found, threshold)
        hits.append(hit)
        sizes.append(found.sample.squares[found.sample.sure, 2])
        turns.append(np.abs(found.sample.turns[found.sample.sure]))
        alarms[len(found.sample.squares) > 0].append(false)
    hit, size, turn = (np.concatenate(part) for part in (hits, sizes, turns))

    def row(values: Array, bins: tuple[int, ...]) -> str:
        cells = []
        for low, high in pairwise(bins):
            inside = (values >= low) & (values < high)
            part = f"{hit[inside].mean():.3f}" if inside.any() else "-"
            cells.append(f"{low}-{high}: {part} ({int(inside.sum())})")
        return "  ".join(cells)

    return "\n".join(
        [
            f"threshold {threshold:.2f}, recall {hit.mean() if len(hit) else 0:.4f} of {len(hit)}",
            f"  by size in pixels   {row(size, SIZE_BINS)}",
            f"  by rotation, deg    {row(turn, TURN_BINS)}",
            f"  false alarms per picture: {np.mean(alarms[False] or [0]):.4f} without faces "
            f"({len(alarms[False])}), {np.mean(alarms[True] or [0]):.4f} with faces",
        ]
    )


# --- training -------------------------------------------------------------------------------------


def learning_rate(step: int, steps: int, highest: float) -> float:
    """Warm-up over 200 steps, constant, cosine over the last 60 %."""
    part = max(0.0, (step / steps - 0.4) / 0.6)
    falling = 0.5 * (1 + math.cos(math.pi * min(part, 1.0)))
    return highest * min(1.0, (step + 1) / 200) * (0.01 + 0.99 * falling)


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint; what was there before stays until the new one is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    torch.save(content, unfinished)
    unfinished.replace(path)


def train(options: argparse.Namespace) -> None:
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(0)  # its threads do not survive the fork of the workers
    portraits = load_portraits(options.material, "train", options.limit)
    heldout = load_portraits(options.material, "heldout", options.limit)
    renders: dict[str, list[Portrait]] = {"train": [], "heldout": []}
    if options.renders:
        model = Morphable.load(options.model)
        for part in renders:
            renders[part] = load_renders(options.renders, model, part, MOST_RENDERS)
    validation = validation_set(heldout, renders["heldout"], options.validation)
    print(
        f"{len(portraits)} portraits and {len(renders['train'])} renders, "
        f"{len(heldout)} and {len(renders['heldout'])} held out",
        flush=True,
    )

    network = load_detector(options.init) if options.init else Detector()
    network = network.to(device, memory_format=torch.channels_last)
    averaged = Detector().to(device, memory_format=torch.channels_last)
    averaged.load_state_dict(network.state_dict())
    flat = [p for p in network.parameters() if p.ndim > 1]
    groups = [
        {"params": flat, "weight_decay": 1e-2},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=options.rate, betas=(0.9, 0.99))
    negatives = Negatives()
    step = 0
    path = options.cache / CHECKPOINT
    if path.is_file():
        content = torch.load(path, map_location=device, weights_only=True)
        network.load_state_dict(content["network"])
        averaged.load_state_dict(content["averaged"])
        optimizer.load_state_dict(content["optimizer"])
        for name, tensor in negatives.state().items():
            tensor.copy_(content["negatives"][name])
        step = int(content["step"])
        print(f"resuming at step {step} of {options.steps}", flush=True)

    def check_point() -> None:
        averaged.eval()
        results = [detect(averaged, sample, device) for sample in validation]
        threshold = choose_threshold(results)
        print(table(results, threshold), flush=True)
        content = {
            "network": network.state_dict(),
            "averaged": averaged.state_dict(),
            "optimizer": optimizer.state_dict(),
            "negatives": negatives.state(),
            "step": step,
            "threshold": threshold,
        }
        save(path, content)

    data = Batches(portraits, renders["train"], negatives, options.batch, options.seed, step)
    loader = torch.utils.data.DataLoader(
        data,
        batch_size=None,
        num_workers=options.workers,
        prefetch_factor=4 if options.workers else None,
    )
    begin = saved = time.monotonic()
    shown = np.zeros(2)
    done = 0
    batches = iter(loader)
    while step < options.steps:
        if options.minutes is not None and time.monotonic() - begin > 60 * options.minutes:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options.steps, options.rate)
        batch = next(batches)
        network.train(options.init is None)  # statistics of a network from a pack stay
        pixels = normalize(batch.pictures.to(device)).contiguous(memory_format=torch.channels_last)
        with autocast(device):
            offsets, logits = network(pixels)
        target = Batch(
            batch.pictures,
            batch.offsets.to(device),
            batch.labels.to(device),
            batch.weights.to(device),
        )
        classification, boxes = detection_loss(offsets.float(), logits.float(), target)
        optimizer.zero_grad(set_to_none=True)
        (classification + boxes).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        average(averaged, network, min(0.998, (step + 1) / (step + 20)))
        step += 1
        done += 1
        if step > 500 and step % 4 == 0:
            collect_negatives(batch, logits.detach().float().cpu(), negatives)
        shown += ([classification.item(), boxes.item()] - shown) / min(done, 100)
        if done in (5, 50) or step % 200 == 0:
            seconds = time.monotonic() - begin
            print(
                f"step {step}: {seconds:.0f} s, {done / seconds:.2f} steps/s, loss "
                f"{shown[0]:.3f} + {shown[1]:.3f}, {int(negatives.count)} false alarms collected",
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
    parser.add_argument("--cache", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--renders", type=Path, default=None, help="what renders.py made")
    parser.add_argument("--model", type=Path, default=Path("weights/default/model.safetensors"))
    parser.add_argument("--init", type=Path, help="pack whose detector to train further")
    parser.add_argument("--steps", type=int, default=20000, help="the whole training")
    parser.add_argument("--minutes", type=float, default=None, help="end this run after so long")
    parser.add_argument("--save-minutes", type=float, default=5)
    parser.add_argument("--batch", type=int, default=16, help="pictures of 320 x 320 in a batch")
    parser.add_argument("--rate", type=float, default=5e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--workers", type=int, default=1, help="processes that make pictures")
    parser.add_argument("--validation", type=int, default=360, help="pictures to validate on")
    parser.add_argument("--limit", type=int, default=None, help="read at most so many portraits")
    parser.add_argument("--device", default=None, help="cpu or cuda; default: what there is")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    if not (options.material / "labels.npz").is_file():
        raise SystemExit(f"no labels.npz in {options.material}; give another --material")
    train(options)


if __name__ == "__main__":
    main()
