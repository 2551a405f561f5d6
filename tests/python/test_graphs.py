"""The ONNX graphs against the networks computed step by step, without folding, in float64."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from threedfa.errors import PackError
from threedfa.upstream.graphs import faceboxes_onnx, mobilenet_v1_onnx
from threedfa.upstream.unpickle import load_torch

Array = npt.NDArray[Any]
State = dict[str, Array]

BLOCKS = {
    **{"dw2_1": 1, "dw2_2": 2, "dw3_1": 1, "dw3_2": 2, "dw4_1": 1, "dw4_2": 2},
    **{f"dw5_{i}": 1 for i in range(1, 6)},
    **{"dw5_6": 2, "dw6": 1},
}


def run(model: onnx.ModelProto, images: Array, *more: str) -> dict[str, Array]:
    """The graph's outputs, and inner ones that are asked for by name."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in more)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # inner outputs have no shape, which is warned about
    session = onnxruntime.InferenceSession(
        copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {"input": images.astype(np.float32)})
    return dict(zip(names, values, strict=True))


# --- the layers by their definitions ----------------------------------------------------------


def windows(x: Array, kernel: int, stride: int, fill: float) -> Array:
    """(N, C, H, W) to (N, C, H', W', kernel, kernel), padded by half a kernel with ``fill``."""
    edge = kernel // 2
    x = np.pad(x, [(0, 0), (0, 0), (edge, edge), (edge, edge)], constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(2, 3))
    return view[:, :, ::stride, ::stride]


def conv(x: Array, weight: Array, stride: int = 1) -> Array:
    view = windows(x, weight.shape[-1], stride, 0)
    if weight.shape[1] == 1 != x.shape[1]:  # depthwise
        return np.einsum("nchwij,cij->nchw", view, weight[:, 0].astype(float))
    return np.einsum("nchwij,ocij->nohw", view, weight.astype(float), optimize=True)


def normalised(x: Array, state: Mapping[str, Array], name: str) -> Array:
    gamma, beta, mean, var = (
        state[f"{name}.{part}"].astype(float)[:, None, None]
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    return gamma * (x - mean) / np.sqrt(var + 1e-5) + beta


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def mobilenet(state: Mapping[str, Array], x: Array) -> Array:
    x = relu(normalised(conv(x, state["conv1.weight"], 2), state, "bn1"))
    for name, stride in BLOCKS.items():
        x = conv(x, state[f"{name}.conv_dw.weight"], stride)
        x = relu(normalised(x, state, f"{name}.bn_dw"))
        x = conv(x, state[f"{name}.conv_sep.weight"])
        x = relu(normalised(x, state, f"{name}.bn_sep"))
    return x.mean(axis=(2, 3)) @ state["fc.weight"].T.astype(float) + state["fc.bias"]


def faceboxes(state: Mapping[str, Array], x: Array) -> tuple[Array, Array]:
    def step(x: Array, name: str, stride: int = 1) -> Array:
        return normalised(conv(x, state[f"{name}.conv.weight"], stride), state, f"{name}.bn")

    for name, stride in (("conv1", 4), ("conv2", 2)):
        x = step(x, name, stride)
        x = relu(np.concatenate([x, -x], axis=1))
        x = windows(x, 3, 2, -np.inf).max(axis=(4, 5))
    for name in ("inception1", "inception2", "inception3"):
        pooled = windows(x, 3, 1, 0).mean(axis=(4, 5))
        short = relu(step(x, f"{name}.branch3x3_reduce"))
        long = relu(step(x, f"{name}.branch3x3_reduce_2"))
        long = relu(step(long, f"{name}.branch3x3_2"))
        branches = [
            step(x, f"{name}.branch1x1"),
            step(pooled, f"{name}.branch1x1_2"),
            step(short, f"{name}.branch3x3"),
            step(long, f"{name}.branch3x3_3"),
        ]
        x = relu(np.concatenate(branches, axis=1))
    sources = [x]
    for i in (3, 4):
        x = relu(step(x, f"conv{i}_1"))
        x = relu(step(x, f"conv{i}_2", 2))
        sources.append(x)
    rows: dict[str, list[Array]] = {"loc": [], "conf": []}
    for head, size in (("loc", 4), ("conf", 2)):
        for i, source in enumerate(sources):
            y = conv(source, state[f"{head}.{i}.weight"]) + state[f"{head}.{i}.bias"][:, None, None]
            rows[head].append(y.transpose(0, 2, 3, 1).reshape(len(y), -1, size))
    logits = np.concatenate(rows["conf"], axis=1)
    odds = np.exp(logits - logits.max(axis=2, keepdims=True))
    return np.concatenate(rows["loc"], axis=1), odds / odds.sum(axis=2, keepdims=True)


# --- random weights ---------------------------------------------------------------------------


def random_mobilenet(channels: list[int], seed: int = 0) -> State:
    """A state dict whose layers have the given numbers of output channels, one per block."""
    generator = np.random.default_rng(seed)
    state: State = {}

    def layer(name: str, norm: str, shape: tuple[int, ...]) -> None:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        state[f"{name}.weight"] = generator.normal(scale=scale, size=shape)
        state[f"{norm}.weight"] = generator.uniform(0.5, 1.5, shape[0])
        state[f"{norm}.bias"] = generator.normal(size=shape[0])
        state[f"{norm}.running_mean"] = generator.normal(size=shape[0])
        state[f"{norm}.running_var"] = generator.uniform(0.5, 1.5, shape[0])

    layer("conv1", "bn1", (channels[0], 3, 3, 3))
    for block, before, after in zip(BLOCKS, channels, channels[1:], strict=False):
        layer(f"{block}.conv_dw", f"{block}.bn_dw", (before, 1, 3, 3))
        layer(f"{block}.conv_sep", f"{block}.bn_sep", (after, before, 1, 1))
    state["fc.weight"] = generator.normal(size=(62, channels[-1]))
    state["fc.bias"] = generator.normal(size=62)
    return {name: array.astype(np.float32) for name, array in state.items()}


def widths(multiplier: float) -> list[int]:
    base = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
    return [int(channels * multiplier) for channels in base]


@pytest.fixture(scope="module")
def detector_state(upstream_files: Path) -> State:
    return load_torch(upstream_files / "FaceBoxes" / "weights" / "FaceBoxesProd.pth")


@pytest.fixture(scope="module")
def regressor_state() -> State:
    return random_mobilenet(widths(0.1))


def assert_close(actual: Array, expected: Array) -> None:
    """Equal to the precision of float32 sums, relative to the largest value."""
    assert actual.dtype == np.float32 and actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * max(1, np.abs(expected).max()))


# --- the regressor ----------------------------------------------------------------------------


@pytest.mark.parametrize("multiplier", [0.1, 0.25, 0.3])
def test_the_regressor_equals_the_unfolded_network(multiplier: float) -> None:
    state = random_mobilenet(widths(multiplier))
    images = np.random.default_rng(1).normal(size=(2, 3, 120, 120))
    params = run(mobilenet_v1_onnx(state), images)["params"]
    assert params.shape == (2, 62)
    assert_close(params, mobilenet(state, images.astype(np.float32)))


def test_the_regressor_takes_any_channels_that_fit_together() -> None:
    state = random_mobilenet([4, 7, 2, 9, 1, 5, 8, 3, 6, 2, 4, 7, 5, 11])
    images = np.random.default_rng(1).normal(size=(1, 3, 120, 120))
    assert_close(run(mobilenet_v1_onnx(state), images)["params"], mobilenet(state, images))


def test_the_regressor_takes_any_batch(regressor_state: State) -> None:
    model = mobilenet_v1_onnx(regressor_state)
    images = np.random.default_rng(2).normal(size=(5, 3, 120, 120))
    together = run(model, images)["params"]
    for image, params in zip(images, together, strict=True):
        np.testing.assert_allclose(run(model, image[None])["params"][0], params, atol=1e-5)


def test_the_heads_of_upstream_are_known(regressor_state: State) -> None:
    model = mobilenet_v1_onnx(regressor_state)
    renamed = {name.replace("fc.", "fc_param."): array for name, array in regressor_state.items()}
    renamed["fc_lm.weight"] = np.ones((136, 5), np.float32)
    renamed["fc_lm.bias"] = np.ones(136, np.float32)
    assert mobilenet_v1_onnx(renamed) == model


# --- the detector -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (33, 129), (97, 40), (1, 1)])
def test_the_detector_equals_the_unfolded_network(
    detector_state: State, size: tuple[int, int]
) -> None:
    images = np.random.default_rng(3).normal(size=(2, 3, *size))
    outputs = run(faceboxes_onnx(detector_state), images)
    loc, conf = faceboxes(detector_state, images.astype(np.float32))
    assert_close(outputs["loc"], loc)
    assert_close(outputs["conf"], conf)
    cells = [-(-size[0] // step) * -(-size[1] // step) for step in (32, 64, 128)]
    assert outputs["loc"].shape == (2, 21 * cells[0] + cells[1] + cells[2], 4)
    np.testing.assert_allclose(outputs["conf"].sum(axis=2), 1, atol=1e-6)


# --- both -------------------------------------------------------------------------------------

Build = Callable[[Mapping[str, Array]], onnx.ModelProto]
NETWORKS: list[tuple[Build, str]] = [
    (faceboxes_onnx, "detector_state"),
    (mobilenet_v1_onnx, "regressor_state"),
]


@pytest.fixture(params=NETWORKS, ids=["detector", "regressor"])
def network(request: pytest.FixtureRequest) -> tuple[Build, State]:
    build, state = request.param
    return build, dict(request.getfixturevalue(state))


def test_graphs_are_valid_lean_and_reproducible(network: tuple[Build, State]) -> None:
    build, state = network
    before = {name: array.copy() for name, array in state.items()}
    model = build(state)
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert not {"BatchNormalization", "Identity", "Constant", "Mul", "Add"} & set(kinds)
    assert all(len(node.input) == 3 for node in model.graph.node if node.op_type == "Conv")
    assert kinds.count("Transpose") == (3 if build is faceboxes_onnx else 0)
    assert build(dict(reversed(state.items()))).SerializeToString() == model.SerializeToString()
    for name, array in before.items():
        np.testing.assert_array_equal(state[name], array)


def test_graphs_name_their_free_dimensions(network: tuple[Build, State]) -> None:
    build, state = network
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*build(state).graph.input, *build(state).graph.output]
    }
    assert shapes == (
        {"input": ["N", 3, "H", "W"], "loc": ["N", "P", 4], "conf": ["N", "P", 2]}
        if build is faceboxes_onnx
        else {"input": ["N", 3, 120, 120], "params": ["N", 62]}
    )


def test_counters_of_batches_are_ignored(network: tuple[Build, State]) -> None:
    build, state = network
    norm = next(name for name in state if name.endswith(".running_mean")).removesuffix(
        "running_mean"
    )
    counted = state | {f"{norm}num_batches_tracked": np.array(7)}
    assert build(counted) == build(state)


def test_missing_and_unexpected_weights_are_named(network: tuple[Build, State]) -> None:
    build, state = network
    gone = next(name for name in state if name.endswith(".running_var"))
    del state[gone]
    state["extra.weight"] = np.ones(3, np.float32)
    with pytest.raises(PackError, match=rf"1 missing: {gone}; 1 unexpected: extra\.weight\)"):
        build(state)
    with pytest.raises(PackError, match=r"missing: .*, \.\.\.\)"):
        build({})


def test_the_networks_are_not_mistaken_for_each_other(
    detector_state: State, regressor_state: State
) -> None:
    with pytest.raises(PackError, match="of another network"):
        faceboxes_onnx(regressor_state)
    with pytest.raises(PackError, match="of another network"):
        mobilenet_v1_onnx(detector_state)


def test_shapes_and_values_are_checked(network: tuple[Build, State]) -> None:
    build, state = network
    for name, array in state.items():
        for wrong, message in (
            (np.concatenate([array, array]), "expected floating-point"),
            (array[..., None], "expected floating-point"),
            (array[:0], "expected floating-point"),
            (array.astype(np.int64), "expected floating-point"),
            (np.full_like(array, np.nan), "not finite"),
        ):
            with pytest.raises(PackError, match=message):
                build(state | {name: wrong})
        if name.endswith("running_var"):
            with pytest.raises(PackError, match=f"{name} is negative"):
                build(state | {name: -array})
        if name.endswith("conv.weight"):
            with pytest.raises(PackError, match="too large for float32"):
                build(state | {name: array.astype(float) * 1e60})


# --- upstream's weights and recorded results --------------------------------------------------


@pytest.fixture(scope="module")
def detector(reference: Path) -> onnx.ModelProto:
    return faceboxes_onnx(load_torch(reference / "weights" / "FaceBoxesProd.pth"))


@pytest.fixture(scope="module")
def regressor(reference: Path) -> onnx.ModelProto:
    return mobilenet_v1_onnx(load_torch(reference / "weights" / "mb05_120x120.pth"))


def detector_input(bgr: Array) -> Array:
    return (bgr.astype(np.float32) - np.float32([104, 117, 123])).transpose(2, 0, 1)[None]


def regressor_input(crops: Array) -> Array:
    return ((crops.astype(np.float32) - 127.5) / 128).transpose(0, 3, 1, 2)


def test_detector_layers_are_those_of_upstream(reference: Path, detector: onnx.ModelProto) -> None:
    with np.load(reference / "goldens" / "facebox" / "layers_64x64.npz") as golden:
        names = [name for name in golden if name not in ("image_bgr", "loc", "conf")]
        outputs = run(detector, detector_input(golden["image_bgr"]), *names)
        for name in ("conv1", "conv2"):  # recorded behind their CReLU
            outputs[name] = relu(np.concatenate([outputs[name], -outputs[name]], axis=1))
        for name in (*names, "loc", "conf"):
            np.testing.assert_allclose(outputs[name][0], golden[name], atol=1e-4, err_msg=name)


def detector_picture(reference: Path, name: str) -> Array:
    """The BGR picture that the recorded network saw."""
    stored = {"3": "3_scaled.png", "2_small320x240": "2_small320x240.png"}
    if name == "black_80x100":
        return np.zeros((100, 80, 3), np.uint8)
    if name in stored:
        path = reference / "goldens" / "facebox" / stored[name]
    else:
        path = reference / "images" / f"{name}.jpg"
    image = cv2.imread(str(path))
    assert image is not None
    return image


@pytest.mark.parametrize("name", ["3", "2_small320x240", "black_80x100", "JianzhuGuo"])
def test_detector_outputs_are_those_of_upstream(
    reference: Path, detector: onnx.ModelProto, name: str
) -> None:
    image = detector_picture(reference, name)
    with np.load(reference / "goldens" / "facebox" / f"{name}.npz") as golden:
        assert hashlib.sha256(image.tobytes()).hexdigest() == str(golden["scaled_sha256"])
        outputs = run(detector, detector_input(image))
        for output in ("loc", "conf"):
            np.testing.assert_allclose(outputs[output][0], golden[output], rtol=0, atol=1e-4)


def test_regressor_layers_are_those_of_upstream(
    reference: Path, regressor: onnx.ModelProto
) -> None:
    path = reference / "goldens" / "tddfa" / "layers_mb05_3_face0_bgr.npz"
    with np.load(path) as golden:
        outputs = run(regressor, regressor_input(golden["crop_bgr"][None]), "conv1.conv", *BLOCKS)
        recorded = {"fc": "params", "bn1": "conv1.conv"} | {name: name for name in BLOCKS}
        for layer, output in recorded.items():
            value = outputs[output][0]
            assert value.shape == tuple(golden[f"{layer}_shape"])
            first = value[0].ravel()
            np.testing.assert_allclose(first, golden[f"{layer}_c0"], atol=1e-5, err_msg=layer)
            means = value.reshape(len(value), -1).mean(axis=1)
            np.testing.assert_allclose(means, golden[f"{layer}_chmean"], atol=1e-5, err_msg=layer)


@pytest.mark.parametrize("name", ["1", "2", "3", "JianzhuGuo"])
def test_regressor_outputs_are_those_of_upstream(
    reference: Path, regressor: onnx.ModelProto, name: str
) -> None:
    with np.load(reference / "goldens" / "tddfa" / f"{name}.npz") as golden:
        for suffix in ("bgr", "rgb", "lmpolicy_bgr"):
            outputs = run(regressor, regressor_input(golden[f"crops_{suffix}"]))
            expected = golden[f"raw62_{suffix}"]
            np.testing.assert_allclose(outputs["params"], expected, rtol=0, atol=1e-5)
