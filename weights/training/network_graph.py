"""The small networks' parts as nodes of an ONNX graph, batch norms folded into convolutions."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from detector_network import Convolution, Head, Unit
from onnx import TensorProto, helper, numpy_helper
from presence_network import Separable
from torch import nn

OPSET = 13
Shape: TypeAlias = list[int | str]


class NetworkGraph:
    """An ONNX graph under construction, from the parts that the small networks share."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, list(outputs), outputs[0], **attributes))
        return outputs[0]

    def convolution(self, x: str, name: str, conv: nn.Conv2d, norm: nn.Module | None) -> str:
        weight, bias = _folded(conv, norm)
        return self.node(
            "Conv",
            [x, self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)],
            name,
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            pads=[int(p) for p in conv.padding] * 2,
            group=conv.groups,
        )

    def module(self, x: str, name: str, module: nn.Module) -> str:
        """One of the network's parts."""
        if isinstance(module, nn.Sequential):
            for i, part in enumerate(module):
                x = self.module(x, f"{name}.{i}", part)
            return x
        if isinstance(module, Convolution):
            x = self.convolution(x, f"{name}.conv", module.conv, module.norm)
        elif isinstance(module, Separable):
            x = self.convolution(x, f"{name}.depthwise", module.depthwise, None)
            x = self.convolution(x, f"{name}.pointwise", module.pointwise, module.norm)
        elif isinstance(module, Unit):
            x = self.convolution(x, f"{name}.pointwise", module.pointwise, None)
            x = self.convolution(x, f"{name}.depthwise", module.depthwise, module.norm)
        else:
            assert isinstance(module, Head)
            x = self.convolution(x, f"{name}.pointwise", module.pointwise, None)
            return self.convolution(x, f"{name}.depthwise", module.depthwise, None)
        return self.node("Relu", [x], f"{name}.relu")

    def model(
        self, name: str, inputs: dict[str, Shape], outputs: dict[str, Shape]
    ) -> onnx.ModelProto:
        """The finished graph; float32 inputs and outputs with their shapes."""

        def described(shapes: dict[str, Shape]) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(key, TensorProto.FLOAT, shape)
                for key, shape in shapes.items()
            ]

        model = helper.make_model(
            helper.make_graph(
                self.nodes, name, described(inputs), described(outputs), self.weights
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=8,
            producer_name="threedfa",
        )
        onnx.checker.check_model(model, full_check=True)
        return model


@torch.no_grad()
def _folded(conv: nn.Conv2d, norm: nn.Module | None) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of a convolution and the trained norm behind it (float32)."""
    weight = conv.weight.double()
    bias = torch.zeros(len(weight)) if conv.bias is None else conv.bias
    bias = bias.double()
    if norm is not None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        weight = weight * gain[:, None, None, None]
        bias = (bias - norm.running_mean.double()) * gain + norm.bias.double()
    return weight.float().numpy(), bias.float().numpy()
