"""Write the trained presence network as ONNX.

    python weights/training/export_presence.py --cache CACHE/presence --out CACHE/presence

writes ``presence.onnx`` and ``presence.json``, the ``presence`` entry of ``pack.json``. The graph,
calibration included, is compared with the averaged network of the checkpoint on random crops before
it is put in place.

Input ``input`` (N, 3, 64, 64) float32, BGR; output ``presence`` (N, 1), a probability.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import torch
from network_graph import NetworkGraph
from onnx_file import write_compared
from presence_network import MEAN, ROI_SCALE, SCALE, SIDE, Presence
from train_presence import CHECKPOINT

from threedfa.files import atomic_write
from threedfa.networks import open_network

TOLERANCE = 1e-4  # of a probability
THRESHOLD = 0.5


def to_onnx(network: Presence, gain: float, shift: float) -> onnx.ModelProto:
    """The network in ONNX, calibrated."""
    graph = NetworkGraph()
    x = graph.module("input", "trunk", network.trunk)
    x = graph.node("GlobalAveragePool", [x], "mean")
    x = graph.node("Flatten", [x], "features", axis=1)
    weight = network.last.weight.detach().numpy() * np.float32(gain)
    bias = network.last.bias.detach().numpy() * np.float32(gain) + np.float32(shift)
    weight_name = graph.constant("last.weight", weight)
    bias_name = graph.constant("last.bias", bias)
    x = graph.node("Gemm", [x, weight_name, bias_name], "logit", transB=1)
    graph.node("Sigmoid", [x], "presence")
    return graph.model("presence", {"input": ["N", 3, SIDE, SIDE]}, {"presence": ["N", 1]})


@torch.no_grad()
def difference(file: Path, network: Presence, gain: float, shift: float) -> float:
    """Largest difference of the ONNX file's outputs on random crops; NaN where there is one."""
    opened = open_network(file, num_threads=1)
    crops = torch.randn(16, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    (given,) = opened.run(crops.numpy())
    wanted = torch.sigmoid(network(crops) * gain + shift)[:, None]
    return float(np.abs(given - wanted.numpy()).max())


def export(checkpoint: Path, out: Path) -> float:
    """Write both files into ``out``; the largest difference between the networks.

    Raises:
        ValueError: if ONNX Runtime and torch disagree.
    """
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    network = Presence()
    network.load_state_dict(content["averaged"])
    network.eval()
    gain, shift = float(content["gain"]), float(content["shift"])
    out.mkdir(parents=True, exist_ok=True)
    worst = write_compared(
        out / "presence.onnx",
        to_onnx(network, gain, shift),
        lambda file: difference(file, network, gain, shift),
        TOLERANCE,
    )
    entry = {
        "file": "presence.onnx",
        "color": "bgr",
        "layout": "NCHW",
        "input_size": SIDE,
        "mean": [MEAN] * 3,
        "scale": [SCALE] * 3,
        "roi_scale": ROI_SCALE,
        "confidence_threshold": THRESHOLD,
    }
    with atomic_write(out / "presence.json") as stream:
        stream.write((json.dumps(entry, indent=1) + "\n").encode())
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder with the checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two files")
    options = parser.parse_args()
    checkpoint = options.cache / CHECKPOINT
    if not checkpoint.is_file():
        raise SystemExit(f"no {checkpoint}; run train_presence.py first")
    worst = export(checkpoint, options.out)
    size = (options.out / "presence.onnx").stat().st_size
    print(f"{options.out / 'presence.onnx'}: {size / 1e6:.2f} MB, differs by {worst:.1e}")


if __name__ == "__main__":
    main()
