"""Train the face detector.

    python weights/training/train_detector.py --material ../shared/training \\
        --photos ../shared/training/photos --boxes CACHE/boxes.npz --cache CACHE/detector

First the front learns to give what YuNet's front gives (``--front-steps``), then the whole network
learns from labelled images. Goes on from the newest checkpoint in the cache, if there is one; with
more ``--steps`` than before, also after it had finished. Every ``--save-minutes`` the checkpoint is
written and the averaged network tried on held-out photographs. ``--minutes`` ends a run early, to
be resumed.

Cells are assigned to faces as in YOLOX (Ge et al. 2021, SimOTA); the score's loss is the quality
focal loss (Li et al. 2020), whose target is the square root of the box's IoU; the box's is that of
GIoU (Rezatofighi et al. 2019). Photographs without people are shown the more often the higher the
network's highest score on them was. Runs on a CPU or a GPU.
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
from detector_data import Array, Sample, Sampler, Scene, load_all_photographs, load_portraits
from detector_network import (
    DIVISOR,
    PRIORS,
    VARIANCES,
    Detector,
    YuNetFront,
    begin_from_yunet,
    load_detector,
    measure_norms,
    normalize,
)
from numpy.typing import NDArray
from torch import Tensor, nn

from threedfa import ops

CHECKPOINT = "checkpoint.pt"
IOU_THRESHOLD = 0.4  # of non-maximum suppression
SIZES = ((320, 320), (320, 320), (320, 320), (256, 384), (384, 256), (512, 512))  # of the batches
PIXELS = 320 * 320  # a batch's images have --batch times so many pixels together
MOST_FACES = 60  # of an image that are learnt from
SIZE_BINS = (8, 12, 20, 40, 80, 160, 720)
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
FALSE_ALARMS = 0.02  # per photograph without people, when the threshold is chosen


@dataclass(frozen=True)
class Cells:
    """The network's cells for one size of image."""

    centers: Tensor  # (P, 2) pixels
    strides: Tensor  # (P, 1)

    @staticmethod
    def of(height: int, width: int) -> Cells:
        """A prior at n pixels stands on the middle of pixel n, where the convolutions look: the
        library scales decoded boxes without a shift."""
        priors = ops.prior_boxes(height, width, PRIORS) * np.array([width, height, width, height])
        table = torch.from_numpy(priors.astype(np.float32))
        return Cells(table[:, :2].contiguous(), table[:, 2:3].contiguous())

    def boxes(self, offsets: Tensor) -> Tensor:
        """Offsets (..., P, 4) to x1, y1, x2, y2."""
        centers = self.centers + offsets[..., :2] * self.strides
        half = self.strides * offsets[..., 2:].clamp(-4, 6).exp() / 2
        return torch.cat([centers - half, centers + half], -1)


def square_boxes(squares: Tensor) -> Tensor:
    """(K, 3) centre and side to x1, y1, x2, y2."""
    half = squares[:, 2:] / 2
    return torch.cat([squares[:, :2] - half, squares[:, :2] + half], 1)


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and GIoU of boxes, broadcast against each other."""
    shared = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    both = shared.clamp(0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - both
    iou = both / union.clamp(min=1e-6)
    return iou, iou - 1 + union / hull.prod(-1).clamp(min=1e-6)


@torch.no_grad()
def assign(
    boxes: Tensor, logits: Tensor, squares: Tensor, sure: Tensor, cells: Cells
) -> tuple[Tensor, Tensor, Tensor]:
    """Which cells answer for which face of one image (SimOTA).

    Returns:
        The cells, their faces (indices of ``squares``), and (P,) whether a cell counts at all.
    """
    counts = torch.ones(len(logits), dtype=torch.bool)
    apart = (cells.centers[:, None] - squares[None, :, :2]).abs().amax(-1)
    inside = apart < squares[:, 2] / 2
    unsure = ~sure
    if unsure.any():
        near = apart[:, unsure] < squares[unsure, 2] * 0.6 + cells.strides / 2
        counts &= ~near.any(1)
    chosen = torch.nonzero(sure)[:MOST_FACES, 0]
    if len(chosen) == 0:
        nothing = torch.zeros(0, dtype=torch.long)
        return nothing, nothing, counts
    apart, inside = apart[:, chosen], inside[:, chosen]
    central = apart < 2.5 * cells.strides
    candidates = torch.nonzero((inside | central).any(1))[:, 0]
    good = (inside & central)[candidates]
    iou, _ = overlaps(boxes[candidates][:, None], square_boxes(squares[chosen])[None])
    score = nn.functional.softplus(-logits[candidates])[:, None]
    cost = score - 3 * torch.log(iou + 1e-6) + 1e5 * ~good
    k = iou.topk(min(10, len(candidates)), 0).values.sum(0).int().clamp(min=1)
    taken = torch.zeros_like(cost, dtype=torch.bool)
    order = cost.argsort(0)
    rank = torch.empty_like(order)
    rank.scatter_(0, order, torch.arange(len(cost))[:, None].expand_as(order).contiguous())
    taken = rank < k
    several = taken.sum(1) > 1
    best = cost.argmin(1)
    taken[several] = False
    taken[several, best[several]] = True
    where = torch.nonzero(taken.any(1))[:, 0]
    return candidates[where], chosen[taken[where].float().argmax(1)], counts


def detection_loss(
    offsets: Tensor, logits: Tensor, batch: Batch, cells: Cells
) -> tuple[Tensor, Tensor]:
    """Score and box loss, per cell that answers for a face."""
    boxes = cells.boxes(offsets)
    target = torch.zeros_like(logits)
    counts = torch.ones_like(logits, dtype=torch.bool)
    box_losses, total = [], 0
    for i, (squares, sure) in enumerate(zip(batch.squares, batch.sure, strict=True)):
        if len(squares) == 0:
            continue
        where, faces, counted = assign(boxes[i].detach(), logits[i].detach(), squares, sure, cells)
        counts[i] = counted
        if len(where) == 0:
            continue
        counts[i, where] = True
        truth = square_boxes(squares[faces])
        iou, giou = overlaps(boxes[i, where], truth)
        target[i, where] = iou.detach().sqrt()
        box_losses.append((1 - giou).sum())
        total += len(where)
    score = torch.sigmoid(logits.detach())
    loss = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    loss = loss * (target - score).abs().square() * counts
    norm = max(total, len(logits))
    zero = offsets.sum() * 0
    return loss.sum() / norm * 4, (torch.stack(box_losses).sum() if box_losses else zero) / norm


# --- data -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    images: Tensor  # (N, H, W, 3) uint8
    squares: list[Tensor]  # of each image (K, 3)
    sure: list[Tensor]  # (K,)
    negatives: list[int]  # indices of photographs without people, -1: others


def collate(samples: list[Sample]) -> Batch:
    """Samples of one size as a batch."""
    return Batch(
        torch.from_numpy(np.stack([sample.image for sample in samples])),
        [torch.from_numpy(sample.squares) for sample in samples],
        [torch.from_numpy(sample.sure) for sample in samples],
        [sample.negative for sample in samples],
    )


class Batches(torch.utils.data.IterableDataset[Batch]):
    """Batches without end; each worker its own random numbers."""

    def __init__(
        self,
        scenes: tuple[list[Scene], list[Scene], list[Scene]],
        hardness: Tensor,
        batch: int,
        seed: int,
        start: int,
    ) -> None:
        self._scenes = scenes
        self._hardness = hardness
        self._batch = batch
        self._seed = (seed, start)

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng((*self._seed, worker.id if worker else 0))
        sampler = Sampler(*self._scenes, rng, self._hardness)
        while True:
            height, width = SIZES[int(rng.integers(len(SIZES)))]
            count = max(1, self._batch * PIXELS // (height * width))
            yield collate([sampler.sample(height, width) for _ in range(count)])


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
    """Detections and the truth of one image."""

    boxes: Array  # (D, 4)
    scores: Array  # (D,)
    scene: Scene


@torch.no_grad()
def detect(network: nn.Module, scene: Scene, device: torch.device) -> Found:
    """All detections above a low score."""
    image = scene.levels[0]
    height, width = (-(-n // DIVISOR) * DIVISOR for n in image.shape[:2])
    padded = np.full((1, height, width, 3), 127, np.uint8)
    padded[0, : image.shape[0], : image.shape[1]] = image
    pixels = normalize(torch.from_numpy(padded).to(device))
    offsets, logits = network(pixels.contiguous(memory_format=torch.channels_last))
    scores = torch.sigmoid(logits[0]).cpu().numpy()
    chosen = np.flatnonzero(scores > 0.15)
    chosen = chosen[np.argsort(-scores[chosen])[:2000]]
    priors = ops.prior_boxes(height, width, PRIORS)[chosen]
    boxes = ops.decode_boxes(offsets[0].cpu().numpy()[chosen], priors, VARIANCES)
    boxes = boxes * np.array([width, height, width, height], np.float32)
    keep = ops.nms(boxes, scores[chosen], IOU_THRESHOLD)
    return Found(boxes[keep], scores[chosen][keep], scene)


def match(found: Found, threshold: float) -> tuple[NDArray[np.bool_], int]:
    """Which of the sure faces are found, and the number of boxes at no face, sure or not.

    A face is found where a box's middle lies within 0.45 of its side and the box's side between
    half and double; a box is at a face where its middle lies within 0.75 of the side.
    """
    boxes = found.boxes[found.scores > threshold]
    squares = found.scene.squares
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1))
    apart = np.abs(middles[:, None] - squares[None, :, :2]).max(-1) / squares[None, :, 2]
    ratio = sides[:, None] / squares[None, :, 2]
    hit = ((apart < 0.45) & (ratio > 0.5) & (ratio < 2)).any(0)
    stray = ~(apart < 0.75).any(1) if len(squares) else np.ones(len(boxes), bool)
    return hit[found.scene.sure], int(stray.sum())


def choose_threshold(results: list[Found], false_alarms: float = FALSE_ALARMS) -> float:
    """The lowest threshold from 0.3 with at most so many boxes per photograph without people."""
    empty = [found for found in results if not len(found.scene.squares)]
    scores = np.sort(np.concatenate([found.scores for found in empty] or [np.zeros(0)]))[::-1]
    allowed = int(false_alarms * len(empty))
    return float(np.clip(scores[allowed] if len(scores) > allowed else 0.0, 0.3, 0.95))


def table(results: list[Found]) -> str:
    """Recall by size and boxes at no face, at several thresholds."""
    lines = []
    sizes = np.concatenate([found.scene.squares[found.scene.sure, 2] for found in results])
    empty = sum(not len(found.scene.squares) for found in results)
    for threshold in THRESHOLDS:
        matched = [match(found, threshold) for found in results]
        hit = np.concatenate([hits for hits, _ in matched])
        cells = []
        for low, high in pairwise(SIZE_BINS):
            inside = (sizes >= low) & (sizes < high)
            cells.append(f"{low}-{high}: {hit[inside].mean() if inside.any() else 0:.3f}")
        strays = [stray for _, stray in matched]
        without = sum(
            stray
            for stray, found in zip(strays, results, strict=True)
            if not len(found.scene.squares)
        )
        lines.append(
            f"  {threshold:.1f}: {hit.mean() if len(hit) else 0:.4f} of {len(hit)}; "
            f"{'  '.join(cells)}; boxes at no face {without} on {empty} without people, "
            f"{sum(strays) - without} on {len(results) - empty} others"
        )
    return "\n".join(lines)


# --- training -------------------------------------------------------------------------------------


def learning_rate(step: int, steps: int, highest: float) -> float:
    """Warm-up over 200 steps, constant, cosine over the last 80 %."""
    part = max(0.0, (step / steps - 0.2) / 0.8)
    falling = 0.5 * (1 + math.cos(math.pi * min(part, 1.0)))
    return highest * min(1.0, (step + 1) / 200) * (0.01 + 0.99 * falling)


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint; what was there before stays until the new one is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    torch.save(content, unfinished)
    unfinished.replace(path)


def train_front(
    network: Detector, teacher: YuNetFront, batches: Iterator[Batch], steps: int, rate: float
) -> None:
    """Let the front's two maps be what the teacher's are, then set the norms behind it."""
    device = next(network.parameters()).device
    teacher = teacher.to(device, memory_format=torch.channels_last)
    front = nn.ModuleList(network.front())
    optimizer = torch.optim.AdamW(front.parameters(), lr=rate, weight_decay=1e-4)
    begin, shown = time.monotonic(), np.zeros(2)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * (1 - step / steps + 0.01)
        images = next(batches).images.to(device)
        pixels = normalize(images).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            wanted = teacher(images)
            if step == 0:
                _begin_front(network, pixels, wanted[0])
        front.train()
        losses = []
        for given, target in zip(network.features(pixels), wanted, strict=True):
            spread = target.var((0, 2, 3), keepdim=True)
            losses.append(((given - target).square() / (spread + 0.1 * spread.mean())).mean())
        optimizer.zero_grad(set_to_none=True)
        (0.5 * losses[0] + losses[1]).backward()
        optimizer.step()
        shown += (np.array([loss.item() for loss in losses]) - shown) / min(step + 1, 50)
        if step in (5, 50) or (step + 1) % 100 == 0:
            seconds = time.monotonic() - begin
            print(
                f"front step {step + 1}: {seconds:.0f} s, loss {shown[0]:.3f} + {shown[1]:.3f}",
                flush=True,
            )
    with torch.no_grad():
        features = teacher(next(batches).images.to(device))[1]
        network.eval()
        measure_norms(network.behind_front(), lambda: network.rows(features))


@torch.no_grad()
def _begin_front(network: Detector, pixels: Tensor, first: Tensor) -> None:
    """Let the stem give what the teacher's map has on average, and set the units' norms."""
    network.eval()
    variance, mean = torch.var_mean(first, (0, 2, 3))
    values = network.stem.conv(pixels)
    measured, middle = torch.var_mean(values, (0, 2, 3))
    norm = network.stem.norm
    norm.running_mean.copy_(middle)
    norm.running_var.copy_(measured)
    norm.weight.copy_(variance.sqrt())
    norm.bias.copy_(mean)
    measure_norms([network.fine, network.coarse], lambda: network.features(pixels))


def train(options: argparse.Namespace) -> None:
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(0)  # its threads do not survive the fork of the workers
    portraits = load_portraits(options.material, "train", options.limit)
    people, negatives = load_all_photographs(options.photos, options.boxes, "train")
    held_people, held_negatives = load_all_photographs(options.photos, options.boxes, "heldout")
    print(
        f"{len(portraits)} portraits, {len(people)} photographs with and {len(negatives)} without "
        f"people; {len(held_people)} and {len(held_negatives)} held out",
        flush=True,
    )
    network = Detector()
    hardness = torch.full((len(negatives),), 0.2)
    hardness.share_memory_()
    step = 0
    path = options.cache / CHECKPOINT
    content: dict[str, Any] | None = None
    if path.is_file():
        content = torch.load(path, map_location=device, weights_only=True)
        step = int(content["step"])

    def batches_from(start: int) -> Iterator[Batch]:
        data = Batches((people, negatives, portraits), hardness, options.batch, options.seed, start)
        return iter(
            torch.utils.data.DataLoader(
                data,
                batch_size=None,
                num_workers=options.workers,
                prefetch_factor=4 if options.workers else None,
            )
        )

    batches = batches_from(step)
    if content is None and options.init:
        network = load_detector(options.init, normalize(next(batches).images))
    elif content is None and options.yunet:
        teacher = begin_from_yunet(network, options.yunet)
        network = network.to(device, memory_format=torch.channels_last)
        train_front(network, teacher, batches, options.front_steps, 4 * options.rate)
    network = network.to(device, memory_format=torch.channels_last)
    averaged = Detector().to(device, memory_format=torch.channels_last)
    averaged.load_state_dict(network.state_dict())
    fresh = [*network.stem.parameters(), *network.heads.parameters()]
    known = {id(p) for p in fresh}
    others = [p for p in network.parameters() if id(p) not in known]
    optimizer = torch.optim.AdamW(
        [{"params": fresh, "part": 1.0}, {"params": others, "part": 0.5}],
        lr=options.rate,
        weight_decay=1e-3,
    )
    if content is not None:
        network.load_state_dict(content["network"])
        averaged.load_state_dict(content["averaged"])
        optimizer.load_state_dict(content["optimizer"])
        if len(content["hardness"]) == len(hardness):
            hardness.copy_(content["hardness"])
        print(f"resuming at step {step} of {options.steps}", flush=True)
    cells = {size: Cells.of(*size) for size in set(SIZES)}

    def check_point() -> None:
        averaged.eval()
        held = held_people + held_negatives
        results = [detect(averaged, scene, device) for scene in held]
        print(table(results), flush=True)
        save(
            path,
            {
                "network": network.state_dict(),
                "averaged": averaged.state_dict(),
                "optimizer": optimizer.state_dict(),
                "hardness": hardness.clone(),
                "step": step,
                "threshold": choose_threshold(results),
            },
        )

    begin = saved = time.monotonic()
    shown = np.zeros(2)
    done = 0
    while step < options.steps:
        if options.minutes is not None and time.monotonic() - begin > 60 * options.minutes:
            break
        for group in optimizer.param_groups:
            group["lr"] = group["part"] * learning_rate(step, options.steps, options.rate)
        batch = next(batches)
        network.train()
        pixels = normalize(batch.images.to(device)).contiguous(memory_format=torch.channels_last)
        offsets, logits = network(pixels)
        offsets, logits = offsets.float().cpu(), logits.float().cpu()
        classification, boxes = detection_loss(
            offsets, logits, batch, cells[(batch.images.shape[1], batch.images.shape[2])]
        )
        optimizer.zero_grad(set_to_none=True)
        (classification + 2 * boxes).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        average(averaged, network, min(0.998, (step + 1) / (step + 20)))
        highest = torch.sigmoid(logits.detach().amax(1))
        for i, negative in enumerate(batch.negatives):
            if negative >= 0:
                hardness[negative] += 0.5 * (highest[i] - hardness[negative])
        step += 1
        done += 1
        shown += ([classification.item(), boxes.item()] - shown) / min(done, 200)
        if done in (5, 50) or step % 200 == 0:
            seconds = time.monotonic() - begin
            print(
                f"step {step}: {seconds:.0f} s, {done / seconds:.2f} steps/s, loss "
                f"{shown[0]:.3f} + {shown[1]:.3f}, hardness {hardness.mean():.3f}",
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
    parser.add_argument("--yunet", type=Path, default=None, help="its ONNX file, to begin from")
    parser.add_argument("--init", type=Path, default=None, help="pack to train further")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--front-steps", type=int, default=2500)
    parser.add_argument("--steps", type=int, default=20000, help="the whole training")
    parser.add_argument("--minutes", type=float, default=None, help="end this run after so long")
    parser.add_argument("--save-minutes", type=float, default=10)
    parser.add_argument("--batch", type=int, default=16, help="images of 320 x 320 in a batch")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--workers", type=int, default=1, help="processes that make images")
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
