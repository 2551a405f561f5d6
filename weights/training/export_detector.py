"""Write a trained face detector as ONNX.

    python weights/training/export_detector.py --cache CACHE/detector --out CACHE/detector

writes ``detector.onnx`` and ``detector.json``, the ``detector`` entry of ``pack.json``. Batch norm
and identities are folded into the convolutions. The graph is compared with the averaged network of
the checkpoint on random pictures of several sizes before it is put in place. Without
``--score-threshold``, the score threshold is the one that training chose on made pictures of
held-out portraits.

Input ``input`` (N, 1, H, W) float32, grey; outputs ``loc`` (N, P, 4) and ``conf`` (N, P, 2), the
probabilities of background and face.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from detector_data import BOX_SCALE
from detector_network import MEAN, NUMBERS, PRIORS, SCALE, VARIANCES, ConvNorm, Detector, tame
from onnx import TensorProto, helper, numpy_helper
from onnx_file import write_compared
from torch import nn
from train_detector import CHECKPOINT, IOU_THRESHOLD

from threedfa.files import atomic_write
from threedfa.networks import open_network

OPSET = 13
TOLERANCE = 1e-3  # of an offset or a probability
TRIAL_SIZES = ((64, 96), (123, 77), (17, 250))  # height and width


def to_onnx(network: Detector) -> onnx.ModelProto:
    """The network in ONNX, all that is linear folded into its convolutions."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(kind: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, list(outputs), outputs[0], **attributes))
        return outputs[0]

    def convolution(
        x: str, name: str, conv: nn.Conv2d, folded: tuple[torch.Tensor, torch.Tensor], relu: bool
    ) -> str:
        weight, bias = (t.detach().numpy() for t in folded)
        x = node(
            "Conv",
            [x, constant(f"{name}.weight", weight), constant(f"{name}.bias", bias)],
            f"{name}.conv",
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            pads=list(conv.padding) * 2,
            group=conv.groups,
        )
        return node("Relu", [x], f"{name}.relu") if relu else x

    def chain(x: str, layers: nn.Sequential, name: str) -> str:
        for i, layer in enumerate(layers):
            if isinstance(layer, ConvNorm):
                x = convolution(x, f"{name}.{i}", layer.conv, layer.folded(), layer.relu)
            else:
                x = convolution(x, f"{name}.{i}", layer, (layer.weight, layer.bias), False)
        return x

    rows = constant("rows", np.array([0, -1, NUMBERS], np.int64))
    x, found = "input", []
    for i, (level, head) in enumerate(zip(network.levels, network.heads, strict=True)):
        x = chain(x, level, f"level{i}")
        y = chain(x, head, f"head{i}")
        y = node("Transpose", [y], f"head{i}.last", perm=[0, 2, 3, 1])
        found.append(node("Reshape", [y, rows], f"head{i}.rows"))
    y = node("Concat", found, "numbers", axis=1)
    node("Split", [y, constant("parts", np.array([4, 1], np.int64))], "loc", "logit", axis=2)
    # The softmax of (-x / 2, x / 2), which is cheaper than Softmax over pairs.
    both = node("Concat", [node("Neg", ["logit"], "against"), "logit"], "both", axis=2)
    node("Sigmoid", [both], "conf")
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "detector",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1, "H", "W"])],
            [
                helper.make_tensor_value_info("loc", TensorProto.FLOAT, ["N", "P", 4]),
                helper.make_tensor_value_info("conf", TensorProto.FLOAT, ["N", "P", 2]),
            ],
            weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
        producer_name="threedfa",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


@torch.no_grad()
def difference(file: Path, network: Detector) -> float:
    """Largest difference of an output of the ONNX file on random pictures; NaN where there is
    one."""
    opened = open_network(file, num_threads=1)
    generator = torch.Generator().manual_seed(0)
    differences = []
    for size in TRIAL_SIZES:
        pictures = torch.randn(2, 1, *size, generator=generator)
        loc, conf = opened.run(pictures.numpy())
        offsets, logits = network(pictures)
        face = torch.sigmoid(logits)
        for found, expected in ((loc, offsets), (conf, torch.stack([1 - face, face], -1))):
            differences.append(np.abs(found - expected.numpy()).max())
    return float(np.max(differences))


def pack_entry(file: str, threshold: float) -> dict[str, object]:
    """The ``detector`` object of ``pack.json``."""
    return {
        "file": file,
        "color": "grey",
        "layout": "NCHW",
        "mean": [MEAN],
        "scale": [SCALE],
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
    tame(network)
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
