"""Networks on PyTorch: the only module that imports it.

The ONNX file of a pack is read once into a list of steps, one function of torch for each node.
Only operators whose every attribute is understood are taken, and every value that flows from node
to node is float32; anything else is refused when the file is opened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from .errors import BackendError, PackError
from .networks import check_providers

try:
    import torch
except (ImportError, OSError) as error:  # OSError: its shared libraries do not load
    raise BackendError(
        f"backend: 'torch' needs PyTorch ({error}); install it with: pip install 'threedfa[torch]'"
    ) from error

# Every operator below has one meaning throughout these.
_OPSETS = range(13, 26)
_REMEDY = "use the onnxruntime backend or import the pack again"

_Operation = Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]


def available_devices() -> list[str]:
    """Devices that this build of PyTorch finds on this machine."""
    if not torch.cuda.is_available():
        return ["cpu"]
    return ["cpu", "cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]


class TorchNetwork:
    """An ONNX file run by PyTorch; see :func:`threedfa.networks.open_network`.

    Convolutions are computed in full float32 on every device. Matrix products follow
    ``torch.backends.cuda.matmul.allow_tf32``, which is off unless the program turns it on.
    """

    def __init__(
        self, path: Path, *, devices: Sequence[str] | None, num_threads: int | None
    ) -> None:
        if num_threads is not None:
            raise ValueError(
                f"num_threads: expected None for the torch backend, got {num_threads}; PyTorch has "
                "one thread count for the whole process, which torch.set_num_threads sets"
            )
        self._device = _device(devices)
        graph = _read(path)
        constants = {item.name: _array(path, item) for item in graph.initializer}
        self._input, self._input_shape = _input(path, graph, constants)
        self._outputs = [item.name for item in graph.output]
        self._weights: dict[str, torch.Tensor] = {}
        self._steps: list[_Step] = []
        known = {self._input}

        def need(name: str, by: str) -> None:
            if name in known or name in self._weights:
                return
            value = constants.get(name)
            if value is None or value.dtype != np.float32:
                kind = "unknown" if value is None else str(value.dtype)
                raise PackError(
                    f"{path}: {by}: expected {name!r} as float32, got {kind}; {_REMEDY}"
                )
            self._weights[name] = torch.tensor(value, device=self._device)

        for proto in graph.node:
            node = _Node(path, proto, constants)
            if node.kind == "Constant":
                constants[proto.output[0]] = _array(path, node.attribute("value", None))
                node.finish()
                continue
            if node.kind == "Cast":
                constants[proto.output[0]] = _full_precision(node)
                node.finish()
                continue
            run = _operation(node)
            inputs = node.finish()
            for name in inputs:
                need(name, str(node))
            known.update(proto.output)
            self._steps.append(_Step(run, inputs, tuple(proto.output)))
        for name in self._outputs:
            need(name, "output")
        _find_last_uses(self._steps, keep=self._outputs)

    def single_threaded(self) -> TorchNetwork:
        """This network: PyTorch has one thread count for the whole process."""
        return self

    def run(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """(N, C, H, W) to the network's outputs, in the order of its file.

        Raises:
            TypeError: if the batch is not float32.
            ValueError: if it has not the shape that the file asks for.
        """
        if batch.dtype != np.float32:
            raise TypeError(f"batch: expected float32, got {batch.dtype}")
        if len(batch.shape) != len(self._input_shape) or any(
            wanted is not None and size != wanted
            for size, wanted in zip(batch.shape, self._input_shape, strict=True)
        ):
            wanted = ", ".join("any" if size is None else str(size) for size in self._input_shape)
            raise ValueError(f"batch: expected shape ({wanted}), got {batch.shape}")
        # Both switches are of this thread alone.
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
            # torch.tensor copies: an array that is read-only or that the caller changes is safe.
            values = self._weights | {
                self._input: torch.tensor(np.ascontiguousarray(batch), device=self._device)
            }
            for step in self._steps:
                results = step.run(*(values[name] for name in step.inputs))
                if isinstance(results, torch.Tensor):
                    results = (results,)
                values.update(zip(step.outputs, results, strict=True))
                for name in step.last_used:
                    del values[name]
            # Copies again: an output may be a view of a weight or of another output.
            return [np.array(values[name].cpu().numpy(), order="C") for name in self._outputs]


@dataclass
class _Step:
    """One node: ``outputs`` are what ``run`` makes of ``inputs``."""

    run: _Operation
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    last_used: tuple[str, ...] = ()
    """What no later step reads, so that its memory can be used again."""


def _find_last_uses(steps: list[_Step], keep: Sequence[str]) -> None:
    later = set(keep)
    for step in reversed(steps):
        names = {*step.inputs, *step.outputs}
        step.last_used = tuple(names - later)
        later |= names


# --- Reading the file -------------------------------------------------------------------------


def _device(devices: Sequence[str] | None) -> torch.device:
    wanted = ["cpu"] if devices is None else list(devices)
    check_providers(
        wanted,
        available_devices(),
        expected="torch devices out",
        remedy="CUDA devices need a build of PyTorch for CUDA and a working driver",
    )
    # Of a tensor, because that of "cuda" has a number and means the same GPU in every thread.
    return torch.empty(0, device=wanted[0]).device


def _read(path: Path) -> onnx.GraphProto:
    """A graph that the ONNX checker accepts and that needs nothing outside its file."""
    try:
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            _refuse_external(path, tensor)
        onnx.checker.check_model(model, full_check=True)
    except PackError:
        raise
    except Exception as error:  # protobuf and the checker raise classes that share no base
        raise PackError(f"{path}: expected an ONNX file: {error}; import the pack again") from error
    opsets = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    if len(opsets) != 1 or opsets[0] not in _OPSETS:
        raise PackError(
            f"{path}: expected an ONNX opset of {_OPSETS[0]} to {_OPSETS[-1]}, "
            f"got {', '.join(map(str, opsets)) or 'none'}; {_REMEDY}"
        )
    if model.functions or model.graph.sparse_initializer:
        raise PackError(f"{path}: functions and sparse weights are not supported; {_REMEDY}")
    return model.graph


def _refuse_external(path: Path, tensor: TensorProto) -> None:
    if tensor.data_location != TensorProto.DEFAULT or tensor.external_data:
        raise PackError(
            f"{path}: weight {tensor.name!r} lies in another file; write the network as one file"
        )


def _array(path: Path, tensor: object) -> NDArray[Any]:
    if not isinstance(tensor, TensorProto):
        raise PackError(f"{path}: expected every constant as a tensor; {_REMEDY}")
    _refuse_external(path, tensor)
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:  # whatever NumPy finds wrong with the bytes
        raise PackError(f"{path}: constant {tensor.name!r} is damaged: {error}") from error


def _input(
    path: Path, graph: onnx.GraphProto, constants: dict[str, NDArray[Any]]
) -> tuple[str, list[int | None]]:
    """Name and shape of the only input; None stands for any size."""
    inputs = [item for item in graph.input if item.name not in constants]
    if len(inputs) == 1:
        kind = inputs[0].type.tensor_type
        if kind.elem_type == TensorProto.FLOAT and len(kind.shape.dim) == 4:
            shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
            return inputs[0].name, shape
    raise PackError(
        f"{path}: expected one input, float32 (N, C, H, W), "
        f"got {', '.join(item.name for item in inputs) or 'none'}; import the pack again"
    )


class _Node:
    """A node, read strictly: an attribute that no operation asked for is refused.

    The inputs are of two kinds: parameters, which have to be constants because the operation needs
    them when it is made, and tensors, which it is given when it runs.
    """

    def __init__(
        self, path: Path, proto: onnx.NodeProto, constants: dict[str, NDArray[Any]]
    ) -> None:
        self.kind = (
            proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}"
        )
        self.outputs = len(proto.output)
        self._path = path
        self._name = proto.name or next(iter(proto.output), "")
        self._attributes = {item.name: item for item in proto.attribute}
        self._inputs = list(proto.input)
        self._constants = constants

    def __str__(self) -> str:
        return f"node {self._name!r} ({self.kind})"

    def error(self, reason: str) -> PackError:
        return PackError(f"{self._path}: {self}: {reason}; {_REMEDY}")

    def attribute(self, name: str, default: Any) -> Any:
        """Take an attribute."""
        if name not in self._attributes:
            return default
        value = helper.get_attribute_value(self._attributes.pop(name))
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    def require(self, name: str, only: Any) -> None:
        """Take an attribute that has one supported value, which is also its default."""
        value = self.attribute(name, only)
        if value != only:
            raise self.error(f"expected {name} {only}, got {value}, which is not supported")

    def parameter(self, index: int, dtype: type[np.generic] = np.int64) -> NDArray[Any] | None:
        """Take an input that has to be a constant, None where it is left out."""
        if index >= len(self._inputs) or not self._inputs[index]:
            return None
        value = self._constant(index)
        if value.dtype != dtype:
            raise self.error(f"expected input {index} as {dtype.__name__}, got {value.dtype}")
        self._inputs[index] = ""
        return value

    def shape(self, index: int) -> tuple[int, ...]:
        """The shape of an input that has to be a constant; it stays among the tensors."""
        return self._constant(index).shape

    def _constant(self, index: int) -> NDArray[Any]:
        name = self._inputs[index]
        if name not in self._constants:
            raise self.error(f"expected input {name!r} to be a constant")
        return self._constants[name]

    def finish(self) -> tuple[str, ...]:
        """The names of the tensors, once everything else has been taken."""
        if self._attributes:
            raise self.error(f"unsupported attributes {', '.join(sorted(self._attributes))}")
        return tuple(name for name in self._inputs if name)


# --- Operators --------------------------------------------------------------------------------


def _operation(node: _Node) -> _Operation:
    if node.outputs != 1 and node.kind != "Split":
        raise node.error(f"expected one output, got {node.outputs}")
    if node.kind in _PLAIN:
        return _PLAIN[node.kind]
    if node.kind in _OPERATORS:
        return _OPERATORS[node.kind](node)
    supported = ", ".join(sorted([*_PLAIN, *_OPERATORS, "Cast", "Constant"]))
    raise node.error(f"unsupported operator; the torch backend has {supported}")


def _full_precision(node: _Node) -> NDArray[Any]:
    """Weights that the file keeps in half precision; there is no other use of a cast."""
    node.require("to", TensorProto.FLOAT)
    node.require("saturate", 1)  # tells of 8-bit numbers only
    value = node.parameter(0, np.float16)
    if value is None:
        raise node.error("expected one input, got none")
    return value.astype(np.float32)


def _identity(x: torch.Tensor) -> torch.Tensor:
    return x


def _global_average_pool(x: torch.Tensor) -> torch.Tensor:
    return x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)


@dataclass(frozen=True)
class _Window:
    """How a kernel moves over a map; pairs are (height, width)."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[int]
    """(top, left, bottom, right)"""

    @property
    def padding(self) -> list[int]:
        """What torch's own padding, the same on both sides, takes care of."""
        return [0, 0] if self.border else self.pads[:2]

    @property
    def border(self) -> list[int]:
        """(left, right, top, bottom) to add beforehand; empty where both sides are the same."""
        top, left, bottom, right = self.pads
        return [] if (top, left) == (bottom, right) else [left, right, top, bottom]


def _window(node: _Node, kernel: list[int]) -> _Window:
    automatic = node.attribute("auto_pad", "NOTSET")
    if automatic not in ("NOTSET", "VALID"):
        raise node.error(f"unsupported auto_pad {automatic}, expected explicit pads")
    pads = list(node.attribute("pads", [0, 0, 0, 0]))
    window = _Window(
        kernel,
        strides=list(node.attribute("strides", [1, 1])),
        dilations=list(node.attribute("dilations", [1, 1])),
        pads=[0, 0, 0, 0] if automatic == "VALID" else pads,
    )
    pairs = (window.kernel, window.strides, window.dilations)
    if any(len(pair) != 2 or min(pair) < 1 for pair in pairs):
        raise node.error(
            f"expected kernel, strides and dilations as two positive sizes, got {pairs}"
        )
    if len(pads) != 4 or min(pads) < 0:
        raise node.error(f"expected four pads of at least 0, got {pads}")
    return window


def _bordered(x: torch.Tensor, window: _Window, value: float) -> torch.Tensor:
    return torch.nn.functional.pad(x, window.border, value=value) if window.border else x


def _convolution(node: _Node) -> _Operation:
    shape = node.shape(1)
    if len(shape) != 4:
        raise node.error(f"expected a weight of four dimensions, got {shape}")
    filters, kernel = shape[0], list(shape[2:])
    if list(node.attribute("kernel_shape", kernel)) != kernel:
        raise node.error(f"expected kernel_shape {kernel}, as the weight's")
    window = _window(node, kernel)
    groups = node.attribute("group", 1)
    if groups < 1 or filters % groups:
        raise node.error(f"expected a group that divides {filters} filters, got {groups}")

    def run(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        # conv2d follows torch.backends.cudnn.allow_tf32, which is on unless the program turns it
        # off, and TF32 leaves three digits. The flag can only be changed for the whole process;
        # the function below conv2d takes it as its last argument.
        cudnn = torch.backends.cudnn
        return torch._convolution(
            _bordered(x, window, 0.0),
            weight,
            bias,
            window.strides,
            window.padding,
            window.dilations,
            False,  # not transposed
            [0, 0],  # hence no output padding
            groups,
            bool(cudnn.benchmark),
            bool(cudnn.deterministic) or torch.are_deterministic_algorithms_enabled(),
            bool(cudnn.enabled),
            False,
        )

    return run


def _pool_window(node: _Node) -> _Window:
    node.require("ceil_mode", 0)
    window = _window(node, list(node.attribute("kernel_shape", [])))
    if any(2 * pad > size for pad, size in zip(window.pads, window.kernel * 2, strict=True)):
        raise node.error(f"expected pads of at most half the kernel, got {window.pads}")
    return window


def _max_pool(node: _Node) -> _Operation:
    node.require("storage_order", 0)
    window = _pool_window(node)

    def run(x: torch.Tensor) -> torch.Tensor:
        return torch.max_pool2d(
            _bordered(x, window, -math.inf),
            window.kernel,
            window.strides,
            window.padding,
            window.dilations,
        )

    return run


def _average_pool(node: _Node) -> _Operation:
    count_border = bool(node.attribute("count_include_pad", 0))
    window = _pool_window(node)
    if window.dilations != [1, 1]:
        raise node.error(f"unsupported dilations {window.dilations}")
    if window.border and not count_border:
        raise node.error("expected the same pads on both sides where they are not counted")

    def run(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(
            _bordered(x, window, 0.0),
            window.kernel,
            window.strides,
            window.padding,
            count_include_pad=count_border,
        )

    return run


def _clip(node: _Node) -> _Operation:
    limits: list[float | None] = []
    for index in (1, 2):
        value = node.parameter(index, np.float32)
        if value is not None and value.size != 1:
            raise node.error(f"expected limits of one number, got shape {value.shape}")
        limits.append(None if value is None else float(value.reshape(())))

    def run(x: torch.Tensor) -> torch.Tensor:
        return x if limits == [None, None] else x.clamp(limits[0], limits[1])

    return run


def _reduce_mean(node: _Node) -> _Operation:
    keep = bool(node.attribute("keepdims", 1))
    identity = bool(node.attribute("noop_with_empty_axes", 0))
    given = node.parameter(1)  # an attribute before opset 18
    axes = node.attribute("axes", []) if given is None else given.tolist()

    def run(x: torch.Tensor) -> torch.Tensor:
        if not axes and identity:
            return x
        return x.mean(dim=axes or list(range(x.ndim)), keepdim=keep)

    return run


def _concat(node: _Node) -> _Operation:
    axis = node.attribute("axis", 0)

    def run(*tensors: torch.Tensor) -> torch.Tensor:
        return torch.cat(tensors, dim=axis)

    return run


def _split(node: _Node) -> _Operation:
    axis = node.attribute("axis", 0)
    sizes = node.parameter(1)
    if sizes is None:
        raise node.error("expected the sizes of the parts as an input")
    parts = sizes.tolist()
    if len(parts) != node.outputs:
        raise node.error(f"expected sizes for {node.outputs} outputs, got {parts}")

    def run(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.split(x, parts, dim=axis))

    return run


def _transpose(node: _Node) -> _Operation:
    order = node.attribute("perm", None)

    def run(x: torch.Tensor) -> torch.Tensor:
        return x.permute(order or list(range(x.ndim))[::-1])

    return run


def _reshape(node: _Node) -> _Operation:
    shape = node.parameter(1)
    if shape is None:
        raise node.error("expected the shape as an input")
    sizes = shape.tolist()
    if node.attribute("allowzero", 0) and 0 in sizes:
        raise node.error("unsupported empty shape")

    def run(x: torch.Tensor) -> torch.Tensor:
        return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(sizes)])

    return run


def _flatten(node: _Node) -> _Operation:
    axis = node.attribute("axis", 1)

    def run(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))

    return run


def _resize(node: _Node) -> _Operation:
    """Maps made larger by whole numbers, each value repeated; there is no other use of it."""
    node.require("mode", "nearest")
    place = node.attribute("coordinate_transformation_mode", "half_pixel")
    if place not in ("half_pixel", "asymmetric", "pytorch_half_pixel"):
        raise node.error(f"unsupported coordinate_transformation_mode {place}")
    rounding = node.attribute("nearest_mode", "round_prefer_floor")
    node.attribute("cubic_coeff_a", -0.75)  # of other modes
    node.require("exclude_outside", 0)
    node.require("antialias", 0)
    node.require("extrapolation_value", 0.0)
    region = node.parameter(1, np.float32)
    if region is not None and region.size:
        raise node.error("expected no region of interest")
    scales, sizes = node.parameter(2, np.float32), node.parameter(3)
    if sizes is not None or scales is None or scales.shape != (4,):
        raise node.error("expected scales of four dimensions, and no sizes")
    factors = [int(scale) for scale in scales.tolist()]
    if factors != scales.tolist() or factors[:2] != [1, 1] or min(factors) < 1:
        raise node.error(
            f"expected scales of 1, 1 and two whole numbers of at least 1, got {scales.tolist()}"
        )
    # With these each value is repeated: what other pairs do depends on where halves are rounded.
    if rounding != ("floor" if place == "asymmetric" else "round_prefer_floor"):
        raise node.error(f"unsupported nearest_mode {rounding} with {place}")

    def run(x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(factors[2], dim=2).repeat_interleave(factors[3], dim=3)

    return run


def _slice(node: _Node) -> _Operation:
    starts, ends, axes, steps = (node.parameter(i) for i in range(1, 5))
    if starts is None or ends is None or starts.shape != ends.shape or starts.ndim != 1:
        raise node.error("expected starts and ends of the same number")
    places = range(len(starts)) if axes is None else axes.tolist()
    if len(places) != len(starts):
        raise node.error(f"expected {len(starts)} axes, got {len(places)}")
    if steps is not None and (steps.shape != starts.shape or (steps < 1).any()):
        raise node.error(f"expected {len(starts)} steps of at least 1, got {steps.tolist()}")
    by = [1] * len(starts) if steps is None else steps.tolist()
    # Python's slices count negative numbers from the end and stop at it, as ONNX's do.
    parts = [slice(*part) for part in zip(starts.tolist(), ends.tolist(), by, strict=True)]

    def run(x: torch.Tensor) -> torch.Tensor:
        index = [slice(None)] * x.ndim
        for place, part in zip(places, parts, strict=True):
            index[place] = part
        return x[tuple(index)]

    return run


def _softmax(node: _Node) -> _Operation:
    axis = node.attribute("axis", -1)

    def run(x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, dim=axis)

    return run


def _gemm(node: _Node) -> _Operation:
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    turn_a, turn_b = bool(node.attribute("transA", 0)), bool(node.attribute("transB", 0))

    def run(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        a, b = a.t() if turn_a else a, b.t() if turn_b else b
        if c is None:
            return torch.mm(a, b).mul(alpha)
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)

    return run


_PLAIN: dict[str, _Operation] = {
    "Add": torch.add,
    "GlobalAveragePool": _global_average_pool,
    "Identity": _identity,
    "MatMul": torch.matmul,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sub": torch.sub,
}
_OPERATORS: dict[str, Callable[[_Node], _Operation]] = {
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _convolution,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "MaxPool": _max_pool,
    "ReduceMean": _reduce_mean,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Transpose": _transpose,
}
