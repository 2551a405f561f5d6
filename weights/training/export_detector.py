"""Write a trained face detector as ONNX.

    python weights/training/export_detector.py --cache CACHE/detector --out CACHE/detector

writes ``detector.onnx`` and ``detector.json``, the ``detector`` entry of ``pack.json``. Batch norms
and the normalisation of the pixels are folded into the convolutions. The graph is compared with the
averaged network of the checkpoint on random images of several sizes before it is put in place.
Without ``--score-threshold``, the score threshold is the one that training chose on held-out
photographs.

Input ``input`` (N, 3, H, W) float32, BGR, height and width multiples of 64; outputs ``loc``
(N, P, 4) and ``conf`` (N, P, 2), the probabilities of background and face.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import torch
from detector_data import BOX_SCALE
from detector_network import (
    DIVISOR,
    MEAN,
    MERGED,
    NUMBERS,
    PRIORS,
    SCALE,
    STRIDES,
    VARIANCES,
    Detector,
)
from network_graph import NetworkGraph
from onnx_file import write_compared
from torch import Tensor
from train_detector import CHECKPOINT, IOU_THRESHOLD

from threedfa.files import atomic_write
from threedfa.networks import open_network

TOLERANCE = 1e-3  # of an offset or a probability
TRIAL_SIZES = ((64, 128), (192, 64), (128, 320))  # height and width


def to_onnx(network: Detector) -> onnx.ModelProto:
    """The network in ONNX, all that is linear folded into its convolutions."""
    graph = NetworkGraph()
    x = graph.module("input", "stem", network.stem)
    x = graph.module(x, "fine", network.fine)
    x = graph.node("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2])
    x = graph.module(x, "coarse", network.coarse)
    maps = []
    for i, level in enumerate(network.levels):
        if i:
            x = graph.node("MaxPool", [x], f"level{i}.pool", kernel_shape=[2, 2], strides=[2, 2])
        x = graph.module(x, f"level{i}", level)
        maps.append(x)
    twice = graph.constant("twice", np.array([1, 1, 2, 2], np.float32))
    rows = graph.constant("rows", np.array([0, -1, NUMBERS], np.int64))
    merged, found = "", []
    for i in reversed(range(len(STRIDES))):
        y = maps[i]
        if i < MERGED - 1:
            finer = graph.node(
                "Resize",
                [merged, "", twice],
                f"merge{i}.finer",
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
            y = graph.node("Add", [y, finer], f"merge{i}.sum")
        merged = graph.module(y, f"merge{i}", network.merges[i])
        y = graph.module(merged, f"tower{i}", network.towers[i])
        y = graph.module(y, f"head{i}", network.heads[i])
        y = graph.node("Transpose", [y], f"head{i}.last", perm=[0, 2, 3, 1])
        found.append(graph.node("Reshape", [y, rows], f"head{i}.rows"))
    y = graph.node("Concat", found[::-1], "numbers", axis=1)
    parts = graph.constant("parts", np.array([4, 1], np.int64))
    graph.node("Split", [y, parts], "loc", "logit", axis=2)
    # The softmax of (-x / 2, x / 2), which is cheaper than Softmax over pairs.
    against = graph.node("Neg", ["logit"], "against")
    both = graph.node("Concat", [against, "logit"], "both", axis=2)
    graph.node("Sigmoid", [both], "conf")
    return graph.model(
        "detector",
        {"input": ["N", 3, "H", "W"]},
        {"loc": ["N", "P", 4], "conf": ["N", "P", 2]},
    )


@torch.no_grad()
def difference(file: Path, network: Detector) -> float:
    """Largest difference of an output of the ONNX file on random images; NaN where there is
    one."""
    opened = open_network(file, num_threads=1)
    generator = torch.Generator().manual_seed(0)
    differences = []
    for size in TRIAL_SIZES:
        images = torch.randn(2, 3, *size, generator=generator)
        loc, conf = opened.run(images.numpy())
        offsets, logits = network(images)
        face = torch.sigmoid(logits)
        expected: tuple[Tensor, ...] = (offsets, torch.stack([1 - face, face], -1))
        for given, wanted in zip((loc, conf), expected, strict=True):
            differences.append(np.abs(given - wanted.numpy()).max())
    return float(np.max(differences))


def pack_entry(file: str, threshold: float) -> dict[str, object]:
    """The ``detector`` object of ``pack.json``."""
    return {
        "file": file,
        "color": "bgr",
        "layout": "NCHW",
        "mean": [MEAN] * 3,
        "scale": [SCALE] * 3,
        "size_divisor": DIVISOR,
        "priors": [
            {
                "step": level.step,
                "sizes": [
                    {"size": s.size, "density": s.density, "offset": s.offset} for s in level.sizes
                ],
            }
            for level in PRIORS.levels
        ],
        "variances": list(VARIANCES),
        "score_threshold": threshold,
        "iou_threshold": IOU_THRESHOLD,
        "nms_offset": 0,
        "top_k": 2000,
        "keep_top_k": 500,
        "working_size": {"max_height": 720, "max_width": 1080, "enlarge_to": 640},
    }


def export(checkpoint: Path, out: Path, threshold: float | None = None) -> float:
    """Write both files into ``out``; the largest difference between the networks.

    Args:
        checkpoint: of ``train_detector.py``.
        out: the folder.
        threshold: of the score; None: the checkpoint's.

    Raises:
        ValueError: if ONNX Runtime and torch disagree.
    """
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    network = Detector()
    network.load_state_dict(content["averaged"])
    network.eval()
    out.mkdir(parents=True, exist_ok=True)
    worst = write_compared(
        out / "detector.onnx", to_onnx(network), lambda file: difference(file, network), TOLERANCE
    )
    threshold = float(content["threshold"]) if threshold is None else threshold
    entry = pack_entry("detector.onnx", round(threshold, 3))
    with atomic_write(out / "detector.json") as stream:
        stream.write((json.dumps(entry, indent=1) + "\n").encode())
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder with the checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two files")
    parser.add_argument("--score-threshold", type=float, default=None)
    options = parser.parse_args()
    checkpoint = options.cache / CHECKPOINT
    if not checkpoint.is_file():
        raise SystemExit(f"no {checkpoint}; run train_detector.py first")
    worst = export(checkpoint, options.out, options.score_threshold)
    size = (options.out / "detector.onnx").stat().st_size
    print(
        f"{options.out / 'detector.onnx'}: {size / 1e6:.2f} MB, differs from torch by {worst:.1e}; "
        f"its boxes need box_scale {BOX_SCALE:.4f} and box_shift_y 0 in the regressor's roi rule"
    )


if __name__ == "__main__":
    main()
