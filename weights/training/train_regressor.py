"""Step 4: train the regressor.

    python weights/training/train_regressor.py --material ../shared/training \
        --model weights/default/model.safetensors --labels CACHE/portraits.npz \
        --renders CACHE/renders --out CACHE/regressor --images 1000000

The loss is measured on points, in pixels of the crop: the 468 and the 68 landmarks and some other
vertices, lids and lips weighing most; on portraits the 2D points are the teacher's own, everywhere
else the fitted or rendered face's. The heights of lids and lips are compared as well, more strongly
towards the end. A small loss on the parameters themselves keeps what points cannot tell apart.

The learning rate is constant until the last ``--decay`` of the images, then falls to a hundredth.
What ``--out`` gets: ``last.pt`` every few minutes (a run that is started again goes on from it),
``stable.pt`` before the rate falls (to train longer from: copy it to another folder as ``last.pt``
and give more ``--images``), ``final.pt`` at the end. Runs on CPU or GPU.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import frozen_trunk
import numpy as np
import torch
from crops import Batch, Crops, Examples, portrait_crops, render_crops
from face import CAMERA, Array, Morphable, to_pack_camera, to_pack_frame
from network import WIDTH, Regressor, load_network
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from threedfa.evaluation import correlation, summary, table_text

EXTRA_VERTICES = 220  # beside the landmarks, for the shape between them
DEPTH_WEIGHT = 0.25  # of z against x and y
CAMERA_WEIGHT, SHAPE_WEIGHT, EXPRESSION_WEIGHT = 3.0, 0.5, 16.0  # in the loss on parameters
# Expressions that points tell least of: faces at rest differ as much. They weigh more.
FAINT, FAINT_WEIGHT = ("mouthSmile", "brow"), 2.0
FITTED_EXPRESSIONS = 0.1  # times that on portraits, whose expressions are a fit
PARAMETERS_WEIGHT = 4.0  # of that loss, against the loss on points
EMA_DECAY = 0.999
WARM_UP = 200  # steps
DECAY = 2e-2  # of weights, each step, times the learning rate
MOST_CHECKED = 300  # held-out crops of a kind; a report takes some seconds
CHECKED_EXPRESSIONS = ("jawOpen", "eyeBlinkLeft", "mouthSmileLeft", "browInnerUp", "eyeLookUpLeft")

# Pairs of the 468 points whose difference is compared: lids, lips, corners, brows over eyes.
LIDS = ((159, 145), (386, 374), (160, 144), (158, 153), (385, 380), (387, 373))
LIPS = ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402))
WIDTHS = ((61, 291), (33, 133), (362, 263))
BROWS = ((70, 159), (105, 158), (107, 157), (300, 386), (334, 385), (336, 384))
PAIR_WEIGHTS = (3.0,) * len(LIDS) + (2.0,) * (len(LIPS) + len(BROWS)) + (1.0,) * len(WIDTHS)


def pixels(images: Tensor, device: torch.device) -> Tensor:
    """uint8 (B, 120, 120, 3) to the network's input."""
    x = images.to(device).permute(0, 3, 1, 2).float()
    return ((x - 127.5) / 128).contiguous(memory_format=torch.channels_last)


class Points(torch.nn.Module):
    """The points that the loss looks at: 468, 68 and some other vertices, in this order.

    Beside them what each of the parameters weighs, where labels are exact and where a teacher's
    points were fitted.
    """

    def __init__(self, model: Morphable, material: Path) -> None:
        super().__init__()
        face = np.flatnonzero(model.region == model.region_names.index("face"))
        extra = np.random.default_rng(3).choice(face, EXTRA_VERTICES, replace=False)

        def picked(field: Array) -> Array:
            parts = [model.points468.of(field), model.points68.of(field), field[..., extra, :]]
            return np.concatenate(parts, axis=-2)

        basis = np.concatenate([picked(model.shape_basis), picked(model.expression_basis)])
        table = np.load(material / "canonical_468_to_ict.npz")
        weight = np.ones(basis.shape[1], np.float32)
        weight[:468] = 0.8 * np.clip(table["weight"], 0.2, 1)
        weight[468 : 468 + 68] = 2.0
        weight[468 + 68 :] = 0.5
        for name, value in (("lips_up", 2), ("lips_lo", 2), ("lid_up", 4), ("lid_lo", 4)):
            weight[table[name]] = value
        pairs = np.array(LIDS + LIPS + BROWS + WIDTHS)
        exact = np.ones(model.param_count, np.float32)
        exact[:CAMERA], exact[CAMERA:][: model.shape_count] = CAMERA_WEIGHT, SHAPE_WEIGHT
        exact[CAMERA + model.shape_count :] = EXPRESSION_WEIGHT
        for i, name in enumerate(model.expression_names):
            if name.startswith(FAINT):
                exact[CAMERA + model.shape_count + i] *= FAINT_WEIGHT
        taught = exact.copy()
        taught[CAMERA + model.shape_count :] *= FITTED_EXPRESSIONS
        moving = np.arange(model.param_count) >= CAMERA + model.shape_count
        self.register_buffer("moving", torch.from_numpy(moving))
        self.register_buffer("exact_weight", torch.from_numpy(exact))
        self.register_buffer("taught_weight", torch.from_numpy(taught))
        self.register_buffer("mean", torch.from_numpy(picked(model.mean)))
        self.register_buffer("basis", torch.from_numpy(basis.reshape(len(basis), -1)))
        self.register_buffer("weight", torch.from_numpy(weight / weight.mean()))
        self.register_buffer("w68", torch.from_numpy(table["w68"].astype(np.float32)))
        self.register_buffer("pairs", torch.from_numpy(pairs))
        self.register_buffer("pair_weight", torch.tensor(PAIR_WEIGHTS))

    def forward(self, params: Tensor) -> Tensor:
        """(B, 12 + S + E) to (B, L, 3) in the frame of the crop."""
        camera = params[:, :CAMERA].reshape(-1, 3, 4)
        face = self.mean + (params[:, CAMERA:] @ self.basis).reshape(len(params), -1, 3)
        return face @ camera[:, :, :3].transpose(1, 2) + camera[:, None, :, 3]

    def target(self, params: Tensor, taught_points: Tensor, taught: Tensor) -> Tensor:
        """As forward, with the teacher's points in place of the fitted ones."""
        points = self(params)
        points[taught, :468, :2] = taught_points[taught]
        points[taught, 468 : 468 + 68, :2] = self.w68 @ taught_points[taught]
        return points


def heights_weight(progress: float) -> float:
    """Of the loss on heights against that on points; progress from 0 to 1."""
    return 0.5 + progress


def losses(
    out: Tensor, logit: Tensor, points: Points, network: Regressor, batch: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Mean losses of a batch: points, heights (pixels), parameters, confidence."""
    aligned = batch["aligned"]
    share = aligned / aligned.sum().clamp(min=1)  # per picture
    params = out * network.param_std + network.param_mean
    with torch.no_grad():
        target = points.target(batch["params"], batch["points"], batch["taught"])
    found = points(params)
    flat = found[..., :2] - target[..., :2]
    depth = found[..., 2] - target[..., 2]
    depth = DEPTH_WEIGHT * (depth - depth.mean(1, keepdim=True))
    squared = flat.square().sum(-1) + depth.square()
    by_face = ((squared + 0.25).sqrt() * points.weight).mean(1)

    first, second = points.pairs.T
    change = flat[:, first] - flat[:, second]
    heights = ((change.square().sum(-1) + 0.04).sqrt() * points.pair_weight).mean(1)

    normal = (batch["params"] - network.param_mean) / network.param_std
    miss = torch.nn.functional.smooth_l1_loss(out, normal, reduction="none")
    # Expressions are mostly at rest: absolute errors would be least for a face that never moves.
    miss = torch.where(points.moving, 0.5 * (out - normal).square(), miss)
    miss = miss * torch.where(batch["taught"][:, None], points.taught_weight, points.exact_weight)
    confidence = torch.nn.functional.binary_cross_entropy_with_logits(logit[:, 0], aligned)
    return {
        "points": (by_face * share).sum(),
        "heights": (heights * share).sum(),
        "parameters": (miss.mean(1) * share).sum(),
        "confidence": confidence,
    }


def tensors(batch: Batch) -> dict[str, Tensor]:
    """The batch's arrays as tensors, which workers hand over in shared memory."""
    return {name: torch.from_numpy(value) for name, value in vars(batch).items()}


def split(batch: dict[str, Tensor], parts: int) -> list[dict[str, Tensor]]:
    """The batch in equal parts; their number divides it."""
    chunks = {name: values.chunk(parts) for name, values in batch.items()}
    return [{name: values[i] for name, values in chunks.items()} for i in range(parts)]


def predict(network: Regressor, images: Tensor, half: bool) -> tuple[Tensor, Tensor]:
    """Outputs for a batch in training."""
    device = network.param_mean.device
    if network.frozen and half and device.type == "cpu":
        return network.outputs(frozen_trunk.features(network, images))
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        found: tuple[Tensor, Tensor] = network(pixels(images, device))
    return found


def gradients(
    network: Regressor, points: Points, heights: float, half: bool, batch: dict[str, Tensor]
) -> tuple[dict[str, float], list[Tensor]]:
    """Losses of a batch by name, and the gradient of their weighted sum for each parameter."""
    out, logit = predict(network, batch["images"], half)
    labels = {name: values.to(out.device) for name, values in batch.items() if name != "images"}
    parts = losses(out, logit, points, network, labels)
    loss = (
        parts["points"]
        + heights * parts["heights"]
        + PARAMETERS_WEIGHT * parts["parameters"]
        + 0.2 * parts["confidence"]
    )
    found = torch.autograd.grad(loss, list(network.parameters()))
    return {name: float(value.detach()) for name, value in parts.items()}, list(found)


def set_gradients(network: Regressor, parts: list[list[Tensor]]) -> None:
    """Give the parameters the means of their gradients, in the parameters' own order in memory.

    Fused optimizers take no other: on a GPU they say so, on a CPU weights get others' gradients.
    """
    for parameter, *found in zip(network.parameters(), *parts, strict=True):
        parameter.grad = torch.empty_like(parameter).copy_(torch.stack(found).mean(0))


class Optimizers:
    """Muon (Jordan et al. 2024) for the pointwise layers, which are matrices; AdamW for the rest.

    Muon's steps have the size that AdamW's would have, so both follow one learning rate.
    """

    def __init__(self, network: Regressor) -> None:
        pointwise = {id(block.pointwise.weight) for block in network.blocks}
        others = [p for p in network.parameters() if id(p) not in pointwise]
        # Muon takes nothing but matrices; these share the layers' memory.
        self._matrices = [
            (p, torch.nn.Parameter(p.data.flatten(1)))
            for p in network.parameters()
            if id(p) in pointwise
        ]
        self._parts: dict[str, torch.optim.Optimizer] = {
            "adam": torch.optim.AdamW(
                [
                    {"params": [p for p in others if p.ndim > 1], "weight_decay": DECAY},
                    {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
                ],
                betas=(0.9, 0.99),
                fused=True,
            ),
            "muon": torch.optim.Muon(
                [matrix for _, matrix in self._matrices],
                weight_decay=DECAY,
                adjust_lr_fn="match_rms_adamw",
            ),
        }

    def step(self, rate: float) -> None:
        """Take a step along the gradients that the network's parameters have."""
        for parameter, matrix in self._matrices:
            assert parameter.grad is not None
            assert parameter.data_ptr() == matrix.data_ptr()
            matrix.grad = parameter.grad.flatten(1)
        for optimizer in self._parts.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, optimizer in self._parts.items():
            optimizer.load_state_dict(state[name])


def learning_rate(step: int, steps: int, peak: float, decay: float) -> float:
    """Warm up, stay, fall to a hundredth along a half cosine."""
    start = int(steps * (1 - decay))
    fall = max(step - start, 0) / max(steps - start, 1)
    return peak * min(1.0, (step + 1) / WARM_UP) * (0.505 + 0.495 * float(np.cos(np.pi * fall)))


def follow(average: Regressor, network: Regressor, step: int) -> None:
    """Exponential moving average of weights and statistics."""
    keep = min(EMA_DECAY, (step + 1) / (step + 20))
    with torch.no_grad():
        pairs = zip(average.state_dict().values(), network.state_dict().values(), strict=True)
        floats = [(slow, fast) for slow, fast in pairs if slow.dtype.is_floating_point]
        torch._foreach_lerp_(*map(list, zip(*floats, strict=True)), 1 - keep)


def run(network: Regressor, images: NDArray, device: torch.device) -> tuple[Array, Array]:
    """Parameters (N, P) and confidence logits (N,) of many crops."""
    network.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), 128):
            out, logit = network(pixels(torch.from_numpy(images[start : start + 128]), device))
            params = out * network.param_std + network.param_mean
            parts.append((params.cpu().numpy(), logit[:, 0].cpu().numpy()))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


class Validation:
    """Held-out portraits and renders, seen through the landmarks' and through a box's region."""

    def __init__(self, model: Morphable, material: Path, portraits: Crops, renders: Crops) -> None:
        self.model = model
        self.w68 = np.load(material / "canonical_468_to_ict.npz")["w68"].astype(np.float32)
        self.parts = {"portraits": portraits, "renders": renders}

    def _crops(self, crops: Crops, scale: float) -> tuple[NDArray, Array, Array]:
        images, params, truth = [], [], []
        for i in range(0, len(crops), -(-len(crops) // MOST_CHECKED)):
            image, moved, points = Examples.place(crops, i, (scale, 0, 0, 0), True)
            camera = to_pack_camera(moved[:CAMERA].reshape(3, 4))
            params.append(np.concatenate([camera.ravel(), moved[CAMERA:]]))
            truth.append(
                self.model.landmarks(params[-1])
                if points is None
                else self.w68 @ to_pack_frame(points)
            )
            images.append(image)
        return np.stack(images), np.stack(params), np.stack(truth)

    def report(self, network: Regressor, device: torch.device) -> None:
        """Print a table: errors in % of the outer-eye distance, correlations."""
        rows = {}
        for name, crops in self.parts.items():
            for view, scale in (("landmark region", 1.0), ("box region", 0.82)):
                images, params, truth = self._crops(crops, scale)
                found, logits = run(network, images, device)
                row = summary(np.stack([self.model.landmarks(p) for p in found]), truth)
                row["confident"] = float((logits > 0).mean())
                if crops.points is None:
                    for expression in CHECKED_EXPRESSIONS:
                        column = CAMERA + self.model.shape_count
                        column += self.model.expression_index(expression)
                        row[expression] = correlation(found[:, column], params[:, column])
                rows[f"{name}, {view}"] = row
        print(table_text(rows), flush=True)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    unfinished = path.with_suffix(".partial")
    torch.save(state, unfinished)
    unfinished.replace(path)


def measure_parameters(network: Regressor, examples: Examples, probes: int) -> None:
    """Set the statistics that the network's outputs are normalised by."""
    batches = [examples[(1 << 29) + k] for k in range(max(1, probes // examples.batch_size))]
    params = np.concatenate([b.params[b.aligned > 0] for b in batches])
    std = np.maximum(params.std(0), 1e-3)
    std[CAMERA:] = np.maximum(std[CAMERA:], 0.05)
    std[11] = 1.0  # depth of the origin is always zero
    network.param_mean.copy_(torch.from_numpy(params.mean(0)))
    network.param_std.copy_(torch.from_numpy(std))


def one_thread(_: int) -> None:
    """Workers share the processor with the network."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    assert get_worker_info() is not None


def train(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)  # parts of a batch run in parallel instead, without waiting on locks
    cv2.setNumThreads(1)
    device = torch.device(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    model = Morphable.load(options.model)
    table = np.load(options.material / "canonical_468_to_ict.npz")
    steps = options.images // options.batch
    examples = Examples(
        model=model,
        mirror468=table["mirror468"],
        portraits=portrait_crops(options.material, options.labels, model, "train"),
        renders=render_crops(options.renders, "train"),
        batch_size=options.batch,
        seed=options.seed,
        strength=options.strength,
        gentle_batches=0 if options.init else steps // 10,
    )
    validation = Validation(
        model,
        options.material,
        portrait_crops(options.material, options.labels, model, "heldout"),
        render_crops(options.renders, "heldout"),
    )
    print(f"{len(examples.portraits)} portraits, {len(examples.renders)} renders", flush=True)
    if options.init:
        network = load_network(options.init, options.width, options.seed)
    else:
        network = Regressor(model.param_count, options.width or WIDTH)
    network = network.to(device, memory_format=torch.channels_last)
    points = Points(model, options.material).to(device)
    optimizers = Optimizers(network)
    average = copy.deepcopy(network)
    step = 0
    last = options.out / "last.pt"
    if last.exists():
        state = torch.load(last, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizers.load_state_dict(state["optimizers"])
        step = state["step"]
        print(f"going on from step {step}", flush=True)
    else:
        if not options.init:
            measure_parameters(network, examples, options.probes)
            average.load_state_dict(network.state_dict())
        validation.report(average, device)

    def state() -> dict[str, Any]:
        return {
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimizers": optimizers.state_dict(),
            "step": step,
            "width": network.width,
        }

    loader = DataLoader(
        examples,
        sampler=range(step, steps),
        batch_size=None,
        collate_fn=tensors,
        num_workers=options.workers,
        worker_init_fn=one_thread if options.workers else None,
        prefetch_factor=6 if options.workers else None,
        multiprocessing_context="fork" if options.workers else None,
    )
    decay_start = int(steps * (1 - options.decay))
    pool = ThreadPoolExecutor(options.threads)
    shown: dict[str, float] = {}
    began = saved = reported = time.monotonic()
    first_step = step
    for batch in loader:
        if step == decay_start:
            save(options.out / "stable.pt", state())
        network.train()
        work = partial(gradients, network, points, heights_weight(step / steps), options.bf16)
        results = list(pool.map(work, split(batch, options.threads)))
        set_gradients(network, [found for _, found in results])
        torch.nn.utils.clip_grad_norm_(network.parameters(), 20.0)
        optimizers.step(learning_rate(step, steps, options.lr, options.decay))
        step += 1
        follow(average, network, step)
        for name, value in results[0][0].items():
            shown[name] = 0.98 * shown.get(name, value) + 0.02 * value
        now = time.monotonic()
        if step % options.log_every == 0:
            rate = (step - first_step) * options.batch / (now - began)
            text = ", ".join(f"{name} {value:.3f}" for name, value in shown.items())
            print(f"step {step} of {steps}, {rate:.0f} images/s: {text}", flush=True)
        if now - saved > 60 * options.save_minutes:
            save(last, state())
            saved = now
        if now - reported > 60 * options.report_minutes:
            validation.report(average, device)
            reported = time.monotonic()
    save(last, state())
    save(options.out / "final.pt", state())
    validation.report(average, device)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--material", type=Path, default=Path("../shared/training"))
    parser.add_argument("--model", type=Path, default=Path("weights/default/model.safetensors"))
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--renders", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--init", type=Path, help="pack whose regressor to train further")
    parser.add_argument("--images", type=int, default=1_600_000, help="crops in all")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=0.4, help="last part of the run")
    parser.add_argument("--strength", type=float, default=0.5, help="of the augmentation, 0..1")
    parser.add_argument(
        "--width",
        type=float,
        help=f"times MobileNet's; by default the pack's of --init, or {WIDTH}",
    )
    parser.add_argument(
        "--probes",
        type=int,
        default=6400,
        help="examples for the parameters' statistics",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--threads",
        type=int,
        help="parts of a batch at a time, 1 on a GPU; by default as many of the CPUs as divide it",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that draw examples")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--log-every", type=int, default=200, help="steps")
    parser.add_argument("--save-minutes", type=float, default=3)
    parser.add_argument("--report-minutes", type=float, default=10)
    options = parser.parse_args(arguments)
    if options.threads is None:
        fitting = range(1, (os.cpu_count() or 1) + 1)
        options.threads = max(count for count in fitting if options.batch % count == 0)
    if options.threads < 1 or options.batch % options.threads:
        parser.error(
            f"--threads: expected a number that divides the batch of {options.batch} pictures, "
            f"got {options.threads}"
        )
    train(options)


if __name__ == "__main__":
    main()
