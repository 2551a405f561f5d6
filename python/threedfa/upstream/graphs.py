"""The upstream networks as ONNX graphs, made from their weights.

Batch normalisation is folded into the convolutions: a channel's ``gamma * (x - mean) / sqrt(var +
eps) + beta`` is linear, so it scales the channel's weights and adds a bias. What remains is
Conv + Relu, which ONNX Runtime runs as one operation. Folding is done in float64.

The detector is FaceBoxes (Zhang et al., "FaceBoxes: A CPU Real-time Face Detector with High
Accuracy", 2017), the regressor MobileNet-V1 (Howard et al., "MobileNets: Efficient Convolutional
Neural Networks for Mobile Vision Applications", 2017).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..errors import PackError

Array = npt.NDArray[Any]

_OPSET = 17
# The oldest file format that knows the opset, so that older ONNX Runtimes read the file.
_IR_VERSION = 8
_BATCH_NORM_EPSILON = 1e-5
_BATCH_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")

PARAMETERS = 62
INPUT_SIZE = 120
# Priors per cell of the three feature maps.
_ANCHORS = (21, 1, 1)
_INCEPTION_BRANCHES = (
    "branch1x1",
    "branch1x1_2",
    "branch3x3_reduce",
    "branch3x3",
    "branch3x3_reduce_2",
    "branch3x3_2",
    "branch3x3_3",
)
# Depthwise separable blocks and their strides.
_BLOCKS = {
    **{"dw2_1": 1, "dw2_2": 2, "dw3_1": 1, "dw3_2": 2, "dw4_1": 1, "dw4_2": 2},
    **{"dw5_1": 1, "dw5_2": 1, "dw5_3": 1, "dw5_4": 1, "dw5_5": 1, "dw5_6": 2, "dw6": 1},
}


def faceboxes_onnx(state: Mapping[str, Array]) -> onnx.ModelProto:
    """The FaceBoxes detector.

    Input ``input`` float32 (N, 3, H, W), any N, H, W of at least 1. Outputs ``loc`` float32
    (N, P, 4) and ``conf`` float32 (N, P, 2), the probabilities of background and face, for the
    P priors in the order of :func:`threedfa.ops.prior_boxes`. The outputs of the modules have the
    modules' names (``inception1``, ``conv3_2``, ...).

    Args:
        state: the state dict, as :func:`threedfa.upstream.unpickle.load_torch` gives it.

    Raises:
        PackError: if weights are missing, unexpected, of the wrong shape or not finite.
    """
    basic = ["conv1", "conv2", "conv3_1", "conv3_2", "conv4_1", "conv4_2"]
    basic += [f"inception{i}.{branch}" for i in (1, 2, 3) for branch in _INCEPTION_BRANCHES]
    heads = [f"{head}.{i}" for head in ("loc", "conf") for i in range(len(_ANCHORS))]
    weights = _Weights(
        state,
        expected=[f"{name}.conv.weight" for name in basic]
        + [f"{name}.bn.{part}" for name in basic for part in _BATCH_NORM_PARTS]
        + [f"{name}.{part}" for name in heads for part in ("weight", "bias")],
    )
    graph = _Graph()

    def conv(x: str, name: str, channels: tuple[int, int], kernel: int, **options: Any) -> str:
        weight = weights.get(f"{name}.conv.weight", (channels[1], channels[0], kernel, kernel))
        folded = weights.folded(weight, f"{name}.bn")
        return graph.conv(x, name, *folded, **options)

    def crelu_and_pool(
        x: str, name: str, channels: tuple[int, int], kernel: int, **options: Any
    ) -> str:
        # The maximum of a window and ReLU may change places, which leaves ReLU a quarter to do.
        x = conv(x, name, channels, kernel, relu=False, **options)
        x = graph.add("Concat", [x, graph.add("Neg", [x])], axis=1)
        x = graph.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        return graph.add("Relu", [x], f"{name}.pooled")

    def inception(x: str, name: str) -> str:
        pool = graph.add(
            "AveragePool", [x], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
        )
        short = conv(x, f"{name}.branch3x3_reduce", (128, 24), 1)
        long = conv(x, f"{name}.branch3x3_reduce_2", (128, 24), 1)
        long = conv(long, f"{name}.branch3x3_2", (24, 32), 3)
        branches = [
            conv(x, f"{name}.branch1x1", (128, 32), 1),
            conv(pool, f"{name}.branch1x1_2", (128, 32), 1),
            conv(short, f"{name}.branch3x3", (24, 32), 3),
            conv(long, f"{name}.branch3x3_3", (32, 32), 3),
        ]
        return graph.add("Concat", branches, name, axis=1)

    x = crelu_and_pool("input", "conv1", (3, 24), 7, stride=4)
    x = crelu_and_pool(x, "conv2", (48, 64), 5, stride=2)
    for name in ("inception1", "inception2", "inception3"):
        x = inception(x, name)
    sources = [x]
    x = conv(x, "conv3_1", (128, 128), 1)
    sources.append(conv(x, "conv3_2", (128, 256), 3, stride=2))
    x = conv(sources[-1], "conv4_1", (256, 128), 1)
    sources.append(conv(x, "conv4_2", (128, 256), 3, stride=2))

    # One convolution per map gives each prior its 4 + 2 numbers side by side.
    numbers = []
    rows = graph.constant("head.rows", np.array([0, -1, 6], np.int64))
    for i, (source, anchors) in enumerate(zip(sources, _ANCHORS, strict=True)):
        channels = (128, 256, 256)[i]
        kernels, biases = [], []
        for head, size in (("loc", 4), ("conf", 2)):
            kernel = weights.get(f"{head}.{i}.weight", (anchors * size, channels, 3, 3))
            kernels.append(kernel.reshape(anchors, size, channels, 3, 3))
            biases.append(weights.get(f"{head}.{i}.bias", (anchors * size,)).reshape(anchors, size))
        y = graph.conv(
            source,
            f"head.{i}",
            np.concatenate(kernels, axis=1).reshape(anchors * 6, channels, 3, 3),
            np.concatenate(biases, axis=1).reshape(anchors * 6),
            relu=False,
        )
        y = graph.add("Transpose", [y], perm=[0, 2, 3, 1])
        numbers.append(graph.add("Reshape", [y, rows]))
    y = graph.add("Concat", numbers, axis=1)
    sizes = graph.constant("head.sizes", np.array([4, 2], np.int64))
    graph.nodes.append(helper.make_node("Split", [y, sizes], ["loc", "logits"], "head", axis=2))
    graph.add("Softmax", ["logits"], "conf", axis=2)
    return graph.model(
        "faceboxes",
        input_shape=["N", 3, "H", "W"],
        outputs={"loc": ["N", "P", 4], "conf": ["N", "P", 2]},
    )


def mobilenet_v1_onnx(state: Mapping[str, Array]) -> onnx.ModelProto:
    """The MobileNet-V1 regressor, of any width: the channels are those of the weights.

    Input ``input`` float32 (N, 3, 120, 120), any N. Output ``params`` float32 (N, 62), not yet
    scaled by the standard deviations and means of the parameters. The outputs of the blocks have
    the blocks' names (``dw2_1``, ...).

    Args:
        state: the state dict, as :func:`threedfa.upstream.unpickle.load_torch` gives it. The last
            layer is ``fc`` or ``fc_param``; a second head for landmarks, ``fc_lm``, is left out.

    Raises:
        PackError: if weights are missing, unexpected, of the wrong shape or not finite.
    """
    head = "fc" if "fc.weight" in state else "fc_param"
    convolutions = {"conv1": "bn1"}
    for block in _BLOCKS:
        convolutions[f"{block}.conv_dw"] = f"{block}.bn_dw"
        convolutions[f"{block}.conv_sep"] = f"{block}.bn_sep"
    weights = _Weights(
        state,
        expected=[f"{name}.weight" for name in (*convolutions, head)]
        + [f"{norm}.{part}" for norm in convolutions.values() for part in _BATCH_NORM_PARTS]
        + [f"{head}.bias"],
        ignored=["fc_lm.weight", "fc_lm.bias"],
    )
    graph = _Graph()

    def conv(x: str, name: str, shape: tuple[int | None, ...], output: str, **options: Any) -> str:
        weight = weights.get(f"{name}.weight", shape)
        folded = weights.folded(weight, convolutions[name])
        return graph.conv(x, output, *folded, **options)

    x = conv("input", "conv1", (None, 3, 3, 3), "conv1", stride=2)
    channels = weights.channels("conv1.weight")
    for block, stride in _BLOCKS.items():
        depthwise = (channels, 1, 3, 3)
        x = conv(x, f"{block}.conv_dw", depthwise, f"{block}.dw", stride=stride, groups=channels)
        x = conv(x, f"{block}.conv_sep", (None, channels, 1, 1), block)
        channels = weights.channels(f"{block}.conv_sep.weight")
    x = graph.add("GlobalAveragePool", [x])
    x = graph.add("Flatten", [x])
    kernel = graph.weight("fc.weight", weights.get(f"{head}.weight", (PARAMETERS, channels)))
    bias = graph.weight("fc.bias", weights.get(f"{head}.bias", (PARAMETERS,)))
    graph.add("Gemm", [x, kernel, bias], "params", transB=1)
    return graph.model(
        "mobilenet_v1",
        input_shape=["N", 3, INPUT_SIZE, INPUT_SIZE],
        outputs={"params": ["N", PARAMETERS]},
    )


class _Weights:
    """The arrays of a state dict, checked as they are taken."""

    def __init__(
        self, state: Mapping[str, Array], expected: Iterable[str], ignored: Iterable[str] = ()
    ) -> None:
        names = set(expected)
        counters = {name for name in state if name.endswith(".num_batches_tracked")}
        missing = sorted(names - state.keys())
        unexpected = sorted(state.keys() - names - counters - set(ignored))
        if missing or unexpected:
            parts = [
                f"{len(keys)} {what}: {', '.join(keys[:8])}{', ...' if len(keys) > 8 else ''}"
                for what, keys in (("missing", missing), ("unexpected", unexpected))
                if keys
            ]
            raise PackError(
                f"these weights are of another network ({'; '.join(parts)}); "
                "give the file that upstream publishes for this one"
            )
        self._state = state

    def get(self, name: str, shape: tuple[int | None, ...]) -> Array:
        """An array of the given shape as float64; None stands for any size of at least 1."""
        array = self._state[name]
        fits = array.ndim == len(shape) and all(
            actual == wanted or (wanted is None and actual > 0)
            for actual, wanted in zip(array.shape, shape, strict=False)
        )
        if not fits or array.dtype.kind != "f":
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise PackError(
                f"weight {name}: expected floating-point ({wanted}), "
                f"not {array.dtype} {array.shape}; the file is of another network"
            )
        if not np.isfinite(array).all():
            raise PackError(f"weight {name} has values that are not finite; the file is damaged")
        return array.astype(np.float64)

    def channels(self, name: str) -> int:
        """The number of output channels of a convolution that :meth:`get` has checked."""
        return int(self._state[name].shape[0])

    def folded(self, weight: Array, norm: str) -> tuple[Array, Array]:
        """Weight and bias of a convolution together with the batch norm that follows it."""
        shape = weight.shape[:1]
        gamma, beta, mean, variance = (
            self.get(f"{norm}.{part}", shape) for part in _BATCH_NORM_PARTS
        )
        if (variance < 0).any():
            raise PackError(f"weight {norm}.running_var is negative; the file is damaged")
        factor = gamma / np.sqrt(variance + _BATCH_NORM_EPSILON)
        return weight * factor[:, None, None, None], beta - mean * factor


class _Graph:
    """Nodes and constants of an ONNX graph in the making."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """Add a node with one output, named after ``output`` or numbered, and give its name."""
        output = output or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, value: Array) -> str:
        """Add a constant and give its name."""
        self._constants.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, name: str, value: Array) -> str:
        """Add a constant as float32 and give its name."""
        with np.errstate(over="ignore"):
            narrow = value.astype(np.float32)
        if not np.isfinite(narrow).all():
            raise PackError(f"weight {name} is too large for float32; the file is damaged")
        return self.constant(name, narrow)

    def conv(
        self,
        x: str,
        name: str,
        weight: Array,
        bias: Array,
        *,
        stride: int = 1,
        groups: int = 1,
        relu: bool = True,
    ) -> str:
        """A convolution with a square kernel, padded by half of it, and ReLU."""
        output = self.add(
            "Conv",
            [x, self.weight(f"{name}.weight", weight), self.weight(f"{name}.bias", bias)],
            f"{name}.conv" if relu else name,
            kernel_shape=list(weight.shape[2:]),
            strides=[stride] * 2,
            pads=[weight.shape[-1] // 2] * 4,
            group=groups,
        )
        return self.add("Relu", [output], name) if relu else output

    def model(
        self, name: str, input_shape: list[str | int], outputs: Mapping[str, list[str | int]]
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, input_shape)],
            [
                helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
                for output, shape in outputs.items()
            ],
            self._constants,
        )
        model = helper.make_model(
            graph,
            producer_name="threedfa",
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
        )
        onnx.checker.check_model(model, full_check=True)
        return model
