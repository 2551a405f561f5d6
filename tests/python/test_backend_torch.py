"""The torch backend against ONNX Runtime, and the graphs that it refuses."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from threedfa import FaceAnalyzer
from threedfa.errors import BackendError, PackError
from threedfa.networks import Network, open_network

Array = npt.NDArray[Any]
Open = Callable[[Path], Network]

SHAPE = (2, 4, 9, 8)  # of the input of the small graphs


@pytest.fixture(scope="session")
def torch() -> Any:
    return pytest.importorskip("torch", reason="needs PyTorch: pip install 'threedfa[torch]'")


@pytest.fixture(scope="session")
def open_torch(torch: Any) -> Open:
    return lambda path: open_network(path, backend="torch")


def floats(rng: np.random.Generator, *shape: int) -> Array:
    return rng.normal(size=shape).astype(np.float32)


def assert_same(found: Sequence[Array], expected: Sequence[Array]) -> None:
    assert [(array.dtype, array.shape) for array in found] == [
        (array.dtype, array.shape) for array in expected
    ]
    for a, b in zip(found, expected, strict=True):
        assert a.flags.c_contiguous and a.flags.writeable
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


# --- The pack's networks ----------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (2, 3), (33, 57), (240, 320)])
def test_detector(
    synthetic_pack: Path, open_torch: Open, size: tuple[int, int], batch: int
) -> None:
    images = floats(np.random.default_rng(1), batch, 3, *size)
    path = synthetic_pack / "detector.onnx"
    assert_same(open_torch(path).run(images), open_network(path).run(images))


@pytest.mark.parametrize("batch", [1, 3])
def test_regressor(synthetic_pack: Path, open_torch: Open, batch: int) -> None:
    crops = floats(np.random.default_rng(2), batch, 3, 120, 120)
    path = synthetic_pack / "regressor.onnx"
    assert_same(open_torch(path).run(crops), open_network(path).run(crops))


def test_arrays_of_any_layout(synthetic_pack: Path, open_torch: Open) -> None:
    network = open_torch(synthetic_pack / "detector.onnx")
    images = floats(np.random.default_rng(3), 2, 3, 40, 50)
    expected = network.run(images)
    turned = np.ascontiguousarray(images[..., ::-1])[..., ::-1]
    locked = images.copy()
    locked.flags.writeable = False
    for same in (turned, locked):
        for a, b in zip(network.run(same), expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_wrong_batches(synthetic_pack: Path, open_torch: Open) -> None:
    network = open_torch(synthetic_pack / "regressor.onnx")
    with pytest.raises(TypeError, match="expected float32, got float64"):
        network.run(np.zeros((1, 3, 120, 120)))  # type: ignore[arg-type]
    for shape in ((1, 3, 121, 120), (1, 1, 120, 120), (3, 120, 120)):
        with pytest.raises(ValueError, match=r"expected shape \(any, 3, 120, 120\)"):
            network.run(np.zeros(shape, np.float32))


def test_settings_of_the_caller(synthetic_pack: Path, torch: Any, open_torch: Open) -> None:
    """Autocast does not reach the network, and the network changes no setting."""
    network = open_torch(synthetic_pack / "detector.onnx")
    images = floats(np.random.default_rng(4), 1, 3, 64, 64)
    expected = network.run(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network.run(images)
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        matrix = torch.ones(2, 2)
        assert (matrix @ matrix).dtype == torch.bfloat16
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_reference_pack(reference: Path, reference_pack: Path, open_torch: Open) -> None:
    one, other = FaceAnalyzer(reference_pack), FaceAnalyzer(reference_pack, backend="torch")
    std = one.aligner.spec.param_std
    images = sorted((reference / "images").iterdir())
    assert images
    count = 0
    for image in images:
        expected, found = one.analyze(image), other.analyze(image)
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a.bbox, b.bbox, rtol=0, atol=0.05)
            np.testing.assert_allclose(a.score, b.score, rtol=0, atol=1e-4)
        # From the same boxes: a box that differs in its last bit moves the crop.
        detections = one.detector.detect(image)
        for a, b in zip(
            other.aligner.align(image, detections),
            one.aligner.align(image, detections),
            strict=True,
        ):
            assert (np.abs(a.params - b.params) <= 1e-4 * np.array(std)).all()
            count += 1
    assert count > 0


def test_many_threads(synthetic_pack: Path, open_torch: Open) -> None:
    network = open_torch(synthetic_pack / "detector.onnx")
    rng = np.random.default_rng(5)
    batches = [floats(rng, 1, 3, 24 + 8 * (i % 4), 40) for i in range(32)]
    expected = [network.run(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        for found, serial in zip(pool.map(network.run, batches), expected, strict=True):
            for a, b in zip(found, serial, strict=True):
                np.testing.assert_array_equal(a, b)


# --- Single operators -------------------------------------------------------------------------


def graph(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Array] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
) -> onnx.ModelProto:
    """A model with the float32 input ``x`` of SHAPE, unchecked."""
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "test",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )
    # The checker wants the outputs' shapes; those of graphs that have none do not matter.
    inferred = onnx.shape_inference.infer_shapes(model).graph.output
    for output, found in zip(model.graph.output, inferred, strict=True):
        kind = found.type.tensor_type
        if not kind.HasField("shape"):
            shape = (constants or {}).get(output.name, np.empty(SHAPE)).shape
            kind = helper.make_tensor_type_proto(TensorProto.FLOAT, shape).tensor_type
        output.type.tensor_type.shape.CopyFrom(kind.shape)
    return model


def node(kind: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs or ("x",), ["y"], kind.lower(), **attributes)


def integers(*values: int) -> Array:
    return np.array(values, np.int64)


_RNG = np.random.default_rng(6)
KERNEL = floats(_RNG, 6, 4, 3, 3)
CONSTANTS = {
    "kernel": KERNEL,
    "depthwise": floats(_RNG, 8, 1, 3, 2),
    "bias": floats(_RNG, 6),
    "row": floats(_RNG, 8),
    "channels": floats(_RNG, 4, 1, 1),
    "square": floats(_RNG, 8, 8),
    "low": np.float32(-0.5),
    "high": np.float32([0.5]),
}
CONV = ("x", "kernel", "bias")

GRAPHS: dict[str, onnx.NodeProto | list[onnx.NodeProto]] = {
    "conv": node("Conv", *CONV),
    "conv without bias": node("Conv", "x", "kernel", kernel_shape=[3, 3]),
    "conv even pads": node("Conv", *CONV, pads=[1, 2, 1, 2], strides=[2, 1]),
    "conv uneven pads": node("Conv", *CONV, pads=[0, 1, 2, 3], strides=[2, 2]),
    "conv dilated": node("Conv", *CONV, dilations=[2, 1], pads=[2, 1, 2, 1]),
    "conv depthwise": node("Conv", "x", "depthwise", group=4),
    "conv valid": node("Conv", *CONV, auto_pad="VALID", strides=[2, 3]),
    "relu": node("Relu"),
    "neg": node("Neg"),
    "sigmoid": node("Sigmoid"),
    "identity": node("Identity"),
    "clip": node("Clip", "x", "low", "high"),
    "clip below": node("Clip", "x", "low"),
    "clip above": node("Clip", "x", "", "high"),
    "clip nothing": node("Clip", "x"),
    "max": node("MaxPool", kernel_shape=[3, 2]),
    "max even pads": node(
        "MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=0
    ),
    "max uneven pads": node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 1, 0]),
    "max dilated": node("MaxPool", kernel_shape=[3, 2], dilations=[2, 3], pads=[1, 0, 1, 0]),
    "max valid": node("MaxPool", kernel_shape=[2, 2], auto_pad="VALID"),
    "average": node("AveragePool", kernel_shape=[2, 3], strides=[1, 2]),
    "average even pads": node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "average counted": node(
        "AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1, strides=[2, 2]
    ),
    "average uneven": node(
        "AveragePool", kernel_shape=[3, 3], pads=[0, 1, 1, 0], count_include_pad=1
    ),
    "global average": node("GlobalAveragePool"),
    "mean of all": node("ReduceMean"),
    "mean": node("ReduceMean", axes=[2, -1], keepdims=0),
    "mean kept": node("ReduceMean", axes=[1]),
    "concat": node("Concat", "x", "x", axis=-3),
    "split": [
        helper.make_node("Split", ["x", "three_one"], ["a", "b"], axis=1),
        helper.make_node("Concat", ["b", "a"], ["y"], axis=1),
    ],
    "split by default": [
        helper.make_node("Split", ["x", "ones"], ["a", "b"]),
        helper.make_node("Sub", ["b", "a"], ["y"]),
    ],
    "transpose": node("Transpose", perm=[0, 2, 3, 1]),
    "transpose reversed": node("Transpose"),
    "reshape": node("Reshape", "x", "zero_any_six"),
    "reshape transposed": [
        helper.make_node("Transpose", ["x"], ["a"], perm=[0, 3, 2, 1]),
        node("Reshape", "a", "zero_any_six"),
    ],
    "resize": node(
        "Resize",
        "x",
        "",
        "twice",
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    ),
    "resize with an empty region": node("Resize", "x", "no_region", "larger", mode="nearest"),
    "slice": node("Slice", "x", "two_one", "most_five", "last_axes"),
    "slice with steps": node("Slice", "x", "two_one", "most_five", "last_axes", "two_one"),
    "slice from the end": node("Slice", "x", "minus_three", "most"),
    "flatten": node("Flatten"),
    **{f"flatten {axis}": node("Flatten", axis=axis) for axis in (-1, 0, 2, 4)},
    "softmax": node("Softmax"),
    "softmax of channels": node("Softmax", axis=1),
    "gemm": [
        helper.make_node("Flatten", ["x"], ["a"], axis=3),
        node("Gemm", "a", "square", "row"),
    ],
    "gemm turned": [
        helper.make_node("Flatten", ["x"], ["a"], axis=3),
        node("Gemm", "square", "a", alpha=0.5, transA=1, transB=1),
    ],
    "gemm scaled": [
        helper.make_node("Flatten", ["x"], ["a"], axis=3),
        node("Gemm", "a", "square", "row", alpha=2.0, beta=-3.0, transB=1),
    ],
    "matmul": node("MatMul", "x", "square"),
    "matmul vector": node("MatMul", "x", "row"),
    "add": node("Add", "x", "channels"),
    "sub": node("Sub", "row", "x"),
    "mul": node("Mul", "x", "x"),
    "constant": [
        helper.make_node(
            "Constant", [], ["c"], value=numpy_helper.from_array(KERNEL[0, :, :1, :1])
        ),
        node("Add", "x", "c"),
    ],
    "half precision": [
        helper.make_node(
            "Constant", [], ["c"], value=numpy_helper.from_array(KERNEL.astype(np.float16))
        ),
        helper.make_node("Cast", ["c"], ["k"], to=TensorProto.FLOAT),
        node("Conv", "x", "k"),
    ],
    "constant shape": [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(integers(0, -1))),
        node("Reshape", "x", "c"),
    ],
}
SHAPES = {
    "three_one": integers(3, 1),
    "ones": integers(1, 1),
    "zero_any_six": integers(0, -1, 6),
    "twice": np.float32([1, 1, 2, 2]),
    "larger": np.float32([1, 1, 3, 4]),
    "no_region": np.float32([]),
    "two_one": integers(2, 1),
    "most_five": integers(np.iinfo(np.int64).max, 5),
    "last_axes": integers(-1, 2),
    "minus_three": integers(-3),
    "most": integers(-1),
}


def save(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "network.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def agrees(path: Path, open_torch: Open) -> None:
    x = floats(np.random.default_rng(7), *SHAPE)
    before = x.copy()
    network = open_torch(path)
    found = network.run(x)
    assert_same(found, open_network(path).run(x))
    for array in found:  # they are the caller's own
        array.fill(np.nan)
    np.testing.assert_array_equal(x, before)
    assert_same(network.run(x), open_network(path).run(x))


@pytest.mark.parametrize("name", GRAPHS)
def test_operator(tmp_path: Path, open_torch: Open, name: str) -> None:
    nodes = GRAPHS[name]
    nodes = nodes if isinstance(nodes, list) else [nodes]
    used = {used for item in nodes for used in item.input}
    constants = {key: value for key, value in (CONSTANTS | SHAPES).items() if key in used}
    agrees(save(tmp_path, graph(nodes, constants)), open_torch)


@pytest.mark.parametrize("noop", [0, 1])
@pytest.mark.parametrize("axes", [None, (2, 3)])
def test_mean_of_opset_18(
    tmp_path: Path, open_torch: Open, axes: tuple[int, ...] | None, noop: int
) -> None:
    constants = {} if axes is None else {"axes": integers(*axes)}
    mean = node("ReduceMean", "x", *constants, noop_with_empty_axes=noop)
    agrees(save(tmp_path, graph([mean], constants, opset=18)), open_torch)


def test_outputs_that_share_memory(tmp_path: Path, open_torch: Open) -> None:
    """The input, a weight, a value twice, and one that later nodes read as well."""
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Relu", ["a"], ["c"]),
        helper.make_node("Add", ["c", "row"], ["d"]),
        helper.make_node("Neg", ["d"], ["unused"]),
    ]
    outputs = ["b", "c", "a", "d", "row"]
    agrees(save(tmp_path, graph(nodes, {"row": CONSTANTS["row"]}, outputs)), open_torch)


# --- Graphs that are refused ------------------------------------------------------------------

REFUSED = {
    "resize by halves": (
        node("Resize", "x", "", "halves", mode="nearest"),
        "two whole numbers of at least 1",
    ),
    "resize smoothly": (node("Resize", "x", "", "twice", mode="linear"), "expected mode nearest"),
    "resize, rounded up": (
        node("Resize", "x", "", "twice", mode="nearest", nearest_mode="ceil"),
        "unsupported nearest_mode ceil",
    ),
    "resize to a size": (
        node("Resize", "x", "", "", "sizes", mode="nearest"),
        "scales of four dimensions",
    ),
    "slice backwards": (
        node("Slice", "x", "two_one", "most_five", "last_axes", "back"),
        "steps of at least 1",
    ),
    "operator": (node("Erf"), "unsupported operator"),
    "auto_pad": (node("Conv", *CONV, auto_pad="SAME_UPPER"), "auto_pad SAME_UPPER"),
    "kernel_shape": (node("Conv", *CONV, kernel_shape=[3, 2]), "kernel_shape"),
    "group": (node("Conv", *CONV, group=4), "group"),
    "weight of one dimension": (node("Conv", "x", "row"), "conv"),
    "negative pads": (node("Conv", *CONV, pads=[-1, 0, 0, 0]), "pads"),
    "weight that is no constant": (node("Conv", "x", "x"), "'x' to be a constant"),
    "max ceil_mode": (node("MaxPool", kernel_shape=[2, 2], ceil_mode=1), "expected ceil_mode 0"),
    "storage_order": (node("MaxPool", kernel_shape=[2, 2], storage_order=1), "storage_order 0"),
    "large pads": (node("MaxPool", kernel_shape=[3, 3], pads=[2, 2, 2, 2]), "half the kernel"),
    "average ceil_mode": (
        node("AveragePool", kernel_shape=[2, 2], ceil_mode=1),
        "expected ceil_mode 0",
    ),
    "uneven pads": (
        node("AveragePool", kernel_shape=[2, 2], pads=[1, 0, 0, 1]),
        "the same pads on both sides",
    ),
    "shape that is no constant": (node("Reshape", "x", "x"), "reshape"),
    "empty shape": (node("Reshape", "x", "nothing", allowzero=1), "unsupported empty shape"),
    "split without sizes": (
        helper.make_node("Split", ["x"], ["y", "z"], "split", axis=1),
        "sizes of the parts",
    ),
    "second output": (
        helper.make_node("MaxPool", ["x"], ["y", "z"], "maxpool", kernel_shape=[2, 2]),
        "expected one output, got 2",
    ),
    "wrong type": (node("Add", "x", "nothing"), "add"),
    "cast of what is no constant": (
        helper.make_node("Cast", ["x"], ["y"], "cast", to=TensorProto.FLOAT),
        "'x' to be a constant",
    ),
    "cast of full precision": (
        helper.make_node("Cast", ["row"], ["y"], "cast", to=TensorProto.FLOAT),
        "input 0 as float16, got float32",
    ),
    "value of a constant": (
        helper.make_node("Constant", [], ["y"], value_float=1.0),
        "constant as a tensor",
    ),
}


REFUSED_SHAPES = {
    "halves": np.float32([1, 1, 1.5, 2]),
    "sizes": integers(2, 4, 18, 16),
    "back": integers(-1, 1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_node(tmp_path: Path, open_torch: Open, name: str) -> None:
    refused, message = REFUSED[name]
    constants = {"nothing": integers(0, 4, 72)}
    known = CONSTANTS | SHAPES | REFUSED_SHAPES
    constants |= {key: known[key] for key in refused.input if key in known}
    path = save(tmp_path, graph([refused], constants))
    with pytest.raises(PackError, match=message) as info:
        open_torch(path)
    assert str(path) in str(info.value)
    assert (refused.name or refused.output[0]) in str(info.value)


def test_dilated_average(tmp_path: Path, open_torch: Open) -> None:
    pool = node("AveragePool", kernel_shape=[2, 2], dilations=[2, 2])
    with pytest.raises(PackError, match=r"'averagepool' \(AveragePool\): unsupported dilations"):
        open_torch(save(tmp_path, graph([pool], opset=19)))


@pytest.mark.parametrize("opset", [12, 99])
def test_refused_opset(tmp_path: Path, open_torch: Open, opset: int) -> None:
    with pytest.raises(PackError, match="opset"):
        open_torch(save(tmp_path, graph([node("Relu")], opset=opset)))


def external(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")


def second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, SHAPE))


def input_type(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones(8), "row"))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def unknown_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "elsewhere"


def short_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-1]


def other_domain(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    model.graph.node[0].domain = "com.example"


def function(model: onnx.ModelProto) -> None:
    other_domain(model)
    model.functions.append(
        helper.make_function(
            "com.example",
            "Add",
            ["a", "b"],
            ["c"],
            [helper.make_node("Sub", ["a", "b"], ["c"])],
            [helper.make_opsetid("", 17)],
        )
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (external, "lies in another file"),
        (second_input, r"expected one input, float32 \(N, C, H, W\), got x, z"),
        (input_type, "expected one input, float32"),
        (unknown_output, "elsewhere"),
        (short_weight, "row"),
        (other_domain, "com.example.Add"),
        (function, "functions"),
    ],
)
def test_refused_model(
    tmp_path: Path, open_torch: Open, spoil: Callable[[onnx.ModelProto], None], message: str
) -> None:
    model = graph([node("Add", "x", "row")], {"row": CONSTANTS["row"]})
    agrees(save(tmp_path, model), open_torch)
    spoil(model)
    path = save(tmp_path, model)
    with pytest.raises(PackError, match=message) as info:
        open_torch(path)
    assert str(path) in str(info.value)


def test_damaged_files(synthetic_pack: Path, tmp_path: Path, open_torch: Open) -> None:
    """Missing, a folder, empty, cut off, or with bytes changed: PackError or a network."""
    for path in (tmp_path / "missing.onnx", tmp_path):
        with pytest.raises(PackError, match=re.escape(str(path))):
            open_torch(path)
    content = (synthetic_pack / "regressor.onnx").read_bytes()
    path = tmp_path / "network.onnx"
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(PackError, match=re.escape(str(path))):
            open_torch(path)
    model = graph([node("Conv", *CONV, pads=[1, 1, 1, 1])], {k: CONSTANTS[k] for k in CONV[1:]})
    content = model.SerializeToString()
    rng = np.random.default_rng(8)
    refused = 0
    for position in itertools.chain(range(120), range(len(content) - 120, len(content))):
        changed = bytearray(content)
        changed[position] = rng.integers(256)
        path.write_bytes(changed)
        try:
            open_torch(path)
        except PackError:
            refused += 1
    assert refused > 20


# --- Devices and threads ----------------------------------------------------------------------


def test_unavailable_devices(synthetic_pack: Path, torch: Any) -> None:
    path = synthetic_pack / "regressor.onnx"
    for wanted in (["cuda:99"], ["cpu", "cuda:99"], ["tpu"], ["CPUExecutionProvider"], []):
        with pytest.raises(BackendError, match=r"out of cpu.*got " + (wanted or ["none"])[-1]):
            open_network(path, backend="torch", providers=wanted)
    if not torch.cuda.is_available():
        with pytest.raises(BackendError, match="out of cpu, got cuda;"):
            open_network(path, backend="torch", providers=["cuda"])


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda(synthetic_pack: Path, torch: Any, device: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU and PyTorch for CUDA")
    rng = np.random.default_rng(9)
    for name, batch in (
        ("detector.onnx", floats(rng, 3, 3, 240, 320)),
        ("detector.onnx", floats(rng, 1, 3, 1, 1)),
        ("regressor.onnx", floats(rng, 3, 3, 120, 120)),
    ):
        path = synthetic_pack / name
        network = open_network(path, backend="torch", providers=[device])
        assert_same(network.run(batch), open_network(path).run(batch))


def test_number_of_threads(synthetic_pack: Path, torch: Any) -> None:
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match=r"got 2;.*torch\.set_num_threads"):
        open_network(synthetic_pack / "regressor.onnx", backend="torch", num_threads=2)
    open_network(synthetic_pack / "regressor.onnx", backend="torch")
    assert torch.get_num_threads() == before


def test_without_torch(synthetic_pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "threedfa.backend_torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendError, match=r"pip install 'threedfa\[torch\]'$"):
        open_network(synthetic_pack / "regressor.onnx", backend="torch")
