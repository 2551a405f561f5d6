"""Step 5: write a trained regressor as ONNX.

    python weights/training/export.py --checkpoint CACHE/regressor/final.pt \
        --out CACHE/regressor.onnx

Input ``input`` (N, 3, 120, 120) float32; outputs ``params`` (N, P), of which
``output * std + mean`` is the parameter, and ``confidence`` (N, 1), a logit. Batch norm is folded
into the convolutions, weights are kept in half precision (every runtime casts them once, when it
loads the file). The ``regressor`` entry for ``pack.json`` is written beside it (``.json``).
The ONNX network is compared with the checkpoint on random pictures before it is put in place.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from detector_data import BOX_SCALE
from face import CAMERA, INPUT_SIZE, REGION_SCALE, Morphable
from network import STRIDES, TAPS, Regressor, folded
from onnx import TensorProto, helper, numpy_helper
from onnx_file import write_compared
from torch import Tensor, nn

from threedfa.networks import open_network

OPSET = 13
TOLERANCE = 1e-2  # of an output's size, at least 1: what half precision costs
ROI_TOLERANCE = 0.04  # of a region's side; looking again gains nothing below


def load_checkpoint(path: Path) -> Regressor:
    """The averaged network of a checkpoint, on the CPU, for evaluation."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    weights = state["average"]
    network = Regressor(len(weights["param_mean"]), state["width"])
    network.load_state_dict(weights)
    return network.eval()


class _Graph:
    """An ONNX graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Tensor, dtype: type[np.floating[Any]]) -> str:
        array = np.ascontiguousarray(value.detach().numpy().astype(dtype))
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def layer_inputs(self, x: str, name: str, weight: Tensor, bias: Tensor) -> list[str]:
        """A layer's inputs: x, its weight and its bias."""
        half = self.constant(f"{name}.weight", weight, np.float16)
        full = self.node("Cast", [half], f"{name}.full", to=TensorProto.FLOAT)
        return [x, full, self.constant(f"{name}.bias", bias, np.float32)]

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def convolution(self, x: str, name: str, conv: nn.Conv2d) -> str:
        """A convolution with a bias."""
        assert conv.bias is not None
        return self._convolution(x, name, conv, conv.weight, conv.bias)

    def layer(self, x: str, name: str, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> str:
        """Convolution, batch norm folded into it, and ReLU."""
        y = self._convolution(x, name, conv, *folded(conv, norm))
        return self.node("Relu", [y], f"{name}.relu")

    def _convolution(self, x: str, name: str, conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> str:
        return self.node(
            "Conv",
            self.layer_inputs(x, name, weight, bias),
            f"{name}.out",
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            pads=list(conv.padding) * 2,
            group=conv.groups,
        )


def to_onnx(network: Regressor) -> onnx.ModelProto:
    """The network in ONNX, batch norm folded."""
    graph = _Graph()
    network = copy.deepcopy(network).double()  # so that folding rounds once
    x = graph.layer("input", "stem", network.stem, network.stem_norm)
    maps = []
    for i in range(len(STRIDES)):
        block = network.blocks[i]
        x = graph.layer(x, f"block{i}.depthwise", block.depthwise, block.depthwise_norm)
        x = graph.layer(x, f"block{i}.pointwise", block.pointwise, block.pointwise_norm)
        if i in TAPS:
            tap = graph.convolution(x, f"tap{i}", network.taps[str(i)])
            maps.append(graph.node("Flatten", [tap], f"tap{i}.flat", axis=1))
    mean = graph.node("Flatten", [graph.node("GlobalAveragePool", [x], "average")], "mean", axis=1)
    features = graph.node("Concat", [mean, *maps], "features", axis=1)
    for name, rows in (("params", slice(0, -1)), ("confidence", slice(-1, None))):
        weight, bias = network.head.weight[rows], network.head.bias[rows]
        graph.node("Gemm", graph.layer_inputs(features, name, weight, bias), name, transB=1)
    side = INPUT_SIZE
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "regressor",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, side, side])],
            [
                helper.make_tensor_value_info(
                    "params", TensorProto.FLOAT, ["N", network.param_count]
                ),
                helper.make_tensor_value_info("confidence", TensorProto.FLOAT, ["N", 1]),
            ],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
        producer_name="threedfa",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def difference(file: Path, network: Regressor) -> float:
    """Largest difference of an output of the ONNX file on random pictures, in the output's size,
    at least 1; NaN where there is one."""
    crops = torch.randn(5, 3, INPUT_SIZE, INPUT_SIZE, generator=torch.Generator().manual_seed(0))
    found = np.hstack(open_network(file, num_threads=1).run(crops.numpy()))
    with torch.no_grad():
        expected = torch.hstack(network(crops)).numpy()
    return float((np.abs(found - expected) / np.maximum(1, np.abs(expected))).max())


def pack_entry(network: Regressor, file: str, shape_count: int) -> dict[str, object]:
    """The ``regressor`` object of ``pack.json``."""
    expressions = network.param_count - CAMERA - shape_count
    return {
        "file": file,
        "color": "bgr",
        "layout": "NCHW",
        "input_size": INPUT_SIZE,
        "mean": [127.5] * 3,
        "scale": [1 / 128] * 3,
        "param_mean": [float(v) for v in network.param_mean],
        "param_std": [float(v) for v in network.param_std],
        "param_split": {"camera": CAMERA, "shape": shape_count, "expression": expressions},
        "roi": {  # for the boxes of detector_data.py
            "box_scale": BOX_SCALE,
            "box_shift_y": 0.0,
            "integer_side": False,
            "landmark_scale": REGION_SCALE,
        },
        "passes": 2,
        "roi_tolerance": ROI_TOLERANCE,
        "confidence_threshold": 0.5,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path("weights/default/model.safetensors"))
    parser.add_argument("--out", type=Path, required=True, help="ONNX file")
    options = parser.parse_args()
    network = load_checkpoint(options.checkpoint)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        largest = write_compared(
            options.out, to_onnx(network), lambda file: difference(file, network), TOLERANCE
        )
    except ValueError as error:
        raise SystemExit(str(error)) from None
    entry = pack_entry(network, options.out.name, Morphable.load(options.model).shape_count)
    options.out.with_suffix(".json").write_text(json.dumps(entry, indent=1) + "\n")
    print(f"{options.out}: {options.out.stat().st_size} bytes, differs by {largest:.1e}")


if __name__ == "__main__":
    main()
