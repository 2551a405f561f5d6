"""A pack whose answers can be worked out with pen and paper.

The detector sees red: each 32 x 32 cell of its input is a face as far as its mean red exceeds
one half, and so is each 64 x 64 cell, with a little more confidence. Boxes are the cells. The
regressor's camera is constant: a frontal head that fills most of the crop. Its coefficients are
linear in the crop: see `expected_coeffs`. The face model is half an ellipsoid with a nose.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]

CELL_GAINS = {32: 8.0, 64: 10.0}  # side of a cell: slope of its logit
SCORE_THRESHOLD = 0.6
IOU_THRESHOLD = 0.2  # four small cells in a large one are suppressed: their overlap is 1/4
MAX_HEIGHT, MAX_WIDTH = 192, 256  # of the detector's input

INPUT_SIZE = 24  # of the regressor
BOX_SCALE, BOX_SHIFT_Y, LANDMARK_SCALE = 1.5, 0.125, 1.25
SHAPES, EXPRESSIONS = 4, 3
HEAD_SCALE = 9.0  # crop pixels per unit of the model, whose head is 2 units high
CAMERA = [HEAD_SCALE, 0, 0, 12, 0, HEAD_SCALE, 0, 12, 0, 0, HEAD_SCALE, 0]

PRESENCE_SIZE = 16  # of the presence network's input

ROWS, COLUMNS = 17, 19  # vertices of the head down and across
NOSE_TIP = 30  # among the 68 landmarks


def cell_score(red: float, cell: int = 32) -> float:
    """The detector's score for a cell of this mean red, 0..255."""
    return float(1 / (1 + np.exp(-CELL_GAINS[cell] * (red - 127.5) / 255)))


def expected_coeffs(crop: Array) -> Array:
    """The 7 coefficients that the regressor gives for an RGB crop (S, S, 3): its mean red, green
    and blue, left half brighter than right, top brighter than bottom (red), 0, and mean grey;
    all in 0..255 / 255."""
    crop = crop.astype(np.float64) / 255
    red, half = crop[..., 0], INPUT_SIZE // 2
    return np.array(
        [
            *crop.mean(axis=(0, 1)),
            red[:, :half].mean() - red[:, half:].mean(),
            red[:half].mean() - red[half:].mean(),
            0,
            crop.mean(),
        ]
    )


def build_toy_pack(
    folder: Path,
    *,
    loc: Sequence[float] = (0, 0, 0, 0),
    camera: Sequence[float] = CAMERA,
    networks: dict[str, bytes] | None = None,
    model: dict[str, Any] | None = None,
    regressor: dict[str, Any] | None = None,
    presence: dict[str, Any] | None = None,
    **detector: Any,
) -> Path:
    """Write the pack.

    Args:
        folder: to be made.
        loc: the detector's output for every prior.
        camera: the regressor's camera.
        networks: contents of files that take the place of the toy's.
        model: settings of the face model that replace the toy's.
        regressor: settings of the regressor that replace the toy's.
        presence: settings that replace those of `presence_network`, which is then in the pack.
        detector: settings of the detector that replace the toy's.
    """
    contents = {
        "detector.onnx": detector_network(loc),
        "regressor.onnx": regressor_network(),
        "model.safetensors": safetensors.numpy.save(head_model()),
        **({} if presence is None else {"presence.onnx": presence_network()}),
        **(networks or {}),
    }
    # Undo the normalization of the network's input, so that coefficients are in 0..1.
    mean_b, mean_g, mean_r, *_ = statistics = [110.0, 120.0, 130.0, 1 / 100, 1 / 110, 1 / 120]
    means, stds = statistics[:3], [1 / scale for scale in statistics[3:]]
    coeff_mean = [mean_r, mean_g, mean_b, 0, 0, 0, sum(means) / 3]
    coeff_std = [stds[2], stds[1], stds[0], stds[2], stds[2], 1, 1]
    settings = {
        "schema_version": 1,
        "name": folder.name,
        "licence": "MIT",
        "source": "made by a test",
        "files": {name: sha256(content).hexdigest() for name, content in contents.items()},
        "detector": {
            "file": "detector.onnx",
            "color": "bgr",
            "layout": "NCHW",
            "mean": [10, 20, 127.5],
            "scale": [1, 1, 1 / 255],
            "priors": [
                {"step": cell, "sizes": [{"size": cell, "density": 1, "offset": 0.5}]}
                for cell in CELL_GAINS
            ],
            "variances": [0.1, 0.2],
            "score_threshold": SCORE_THRESHOLD,
            "iou_threshold": IOU_THRESHOLD,
            "nms_offset": 0,
            "top_k": 1000,
            "keep_top_k": 500,
            "working_size": {"max_height": MAX_HEIGHT, "max_width": MAX_WIDTH},
            **detector,
        },
        "regressor": {
            "file": "regressor.onnx",
            "color": "bgr",
            "layout": "NCHW",
            "input_size": INPUT_SIZE,
            "mean": means,
            "scale": statistics[3:],
            "param_mean": [*camera, *(value / 255 for value in coeff_mean)],
            "param_std": [*[1.0] * 12, *(value / 255 for value in coeff_std)],
            "param_split": {"camera": 12, "shape": SHAPES, "expression": EXPRESSIONS},
            "roi": {
                "box_scale": BOX_SCALE,
                "box_shift_y": BOX_SHIFT_Y,
                "integer_side": True,
                "landmark_scale": LANDMARK_SCALE,
            },
            **(regressor or {}),
        },
        "morphable_model": {"file": "model.safetensors", "unit": "half a head", **(model or {})},
    }
    if presence is not None:
        settings["presence"] = {
            "file": "presence.onnx",
            "color": "rgb",
            "layout": "NCHW",
            "input_size": PRESENCE_SIZE,
            "mean": [0, 0, 0],
            "scale": [1 / 255] * 3,
            "roi_scale": 1.0,
            "confidence_threshold": 0.5,
            **presence,
        }
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "pack.json").write_text(json.dumps(settings))
    return folder


def network(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int | str]],
    outputs: dict[str, list[int | str]],
    weights: dict[str, Array],
) -> bytes:
    """An ONNX file of float32 inputs and outputs."""
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def detector_network(loc: Sequence[float] = (0, 0, 0, 0), grey: bool = False) -> bytes:
    channels, red = (1, 0) if grey else (3, 2)
    nodes, heads, weights = [], [], {"rows": np.array([0, -1, 6], np.int64)}
    for cell, gain in CELL_GAINS.items():
        # Four outputs for loc, two for the logits; one pixel in cell² counts for 1 / cell². The
        # input is padded to whole cells with its zero, which is the mean red of no evidence.
        kernel = np.zeros((6, channels, cell, cell), np.float32)
        kernel[5, red] = gain / cell**2
        weights[f"kernel{cell}"] = kernel
        weights[f"bias{cell}"] = np.array([*loc, 0, 0], np.float32)
        nodes += [
            helper.make_node(
                "Conv",
                ["image", f"kernel{cell}", f"bias{cell}"],
                [f"map{cell}"],
                kernel_shape=[cell, cell],
                strides=[cell, cell],
                pads=[0, 0, cell - 1, cell - 1],
            ),
            helper.make_node("Transpose", [f"map{cell}"], [f"cells{cell}"], perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", [f"cells{cell}", "rows"], [f"head{cell}"]),
        ]
        heads.append(f"head{cell}")
    weights["sizes"] = np.array([4, 2], np.int64)
    nodes += [
        helper.make_node("Concat", heads, ["all"], axis=1),
        helper.make_node("Split", ["all", "sizes"], ["loc", "logits"], axis=2),
        helper.make_node("Softmax", ["logits"], ["conf"], axis=2),
    ]
    return network(
        nodes,
        {"image": ["N", channels, "H", "W"]},
        {"loc": ["N", "P", 4], "conf": ["N", "P", 2]},
        weights,
    )


def regressor_network(*, confidence: bool = False) -> bytes:
    """With ``confidence`` a second output: the first of the coefficients, the mean red."""
    size, half = INPUT_SIZE, INPUT_SIZE // 2
    kernel = np.zeros((12 + SHAPES + EXPRESSIONS, 3, size, size), np.float32)
    mean = 1 / size**2
    kernel[12, 2] = kernel[13, 1] = kernel[14, 0] = mean
    kernel[15, 2, :, :half], kernel[15, 2, :, half:] = 2 * mean, -2 * mean
    kernel[16, 2, :half], kernel[16, 2, half:] = 2 * mean, -2 * mean
    kernel[18] = mean / 3 * np.array([100, 110, 120])[:, None, None]  # back to grey levels
    nodes = [
        helper.make_node("Flatten", ["image"], ["pixels"]),
        helper.make_node("Gemm", ["pixels", "kernel", "bias"], ["params"], transB=1),
    ]
    outputs: dict[str, list[int | str]] = {"params": ["N", len(kernel)]}
    weights = {"kernel": kernel.reshape(len(kernel), -1), "bias": np.zeros(len(kernel), np.float32)}
    if confidence:
        nodes.append(helper.make_node("Gather", ["params", "twelfth"], ["confidence"], axis=1))
        outputs["confidence"] = ["N", 1]
        weights["twelfth"] = np.array([12])
    return network(nodes, {"image": ["N", 3, size, size]}, outputs, weights)


def presence_network(channels: int = 3) -> bytes:
    """A region shows a face as far as it is bright in the first channel, 0..1."""
    kernel = np.zeros((1, channels, PRESENCE_SIZE, PRESENCE_SIZE), np.float32)
    kernel[:, 0] = 1 / PRESENCE_SIZE**2
    nodes = [
        helper.make_node("Flatten", ["image"], ["pixels"]),
        helper.make_node("Gemm", ["pixels", "kernel"], ["presence"], transB=1),
    ]
    return network(
        nodes,
        {"image": ["N", channels, PRESENCE_SIZE, PRESENCE_SIZE]},
        {"presence": ["N", 1]},
        {"kernel": kernel.reshape(1, -1)},
    )


def head_model() -> dict[str, Array]:
    """The front half of an ellipsoid that looks along +z, 2 units high, with a nose; its
    coefficients make it wider, longer, deeper, long-nosed, drop the jaw, smile, raise the brows."""
    longitudes = np.radians(np.linspace(-85, 85, COLUMNS))
    latitudes = np.radians(np.linspace(80, -80, ROWS))
    longitude, latitude = (grid.ravel() for grid in np.meshgrid(longitudes, latitudes))
    nose = np.exp(-((longitude / 0.2) ** 2) - ((latitude + 0.1) / 0.25) ** 2)
    mean = np.stack(
        [
            0.75 * np.sin(longitude) * np.cos(latitude),
            np.sin(latitude),
            0.8 * np.cos(longitude) * np.cos(latitude) + 0.3 * nose,
        ],
        axis=1,
    )
    x, y, z = mean.T
    none = np.zeros_like(x)
    jaw, mouth, brows = y < -0.3, np.abs(y + 0.5) < 0.15, np.abs(y - 0.4) < 0.15
    shape = [(0.1 * x, none, none), (none, 0.1 * y, none), (none, none, 0.1 * z)]
    shape += [(none, none, 0.2 * nose)]
    expression = [(none, -0.2 * jaw, none), (0.2 * x * mouth, none, none)]
    expression += [(none, 0.1 * brows, none)]
    corner = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    a, b, c, d = (
        part.ravel()
        for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:])
    )
    vertices, weights = _landmarks(longitudes, latitudes)
    return {
        "mean": mean.astype(np.float32),
        "shape_basis": np.stack([np.stack(m, axis=1) for m in shape]).astype(np.float32),
        "expression_basis": np.stack([np.stack(m, axis=1) for m in expression]).astype(np.float32),
        "triangles": np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)]).astype(
            np.int32
        ),
        "landmark_vertices": vertices.astype(np.int32),
        "landmark_weights": weights.astype(np.float32),
        "uv": np.stack([(longitude / 1.5 + 1) / 2, (latitude / 1.4 + 1) / 2], 1).astype(np.float32),
    }


def _landmarks(longitudes: Array, latitudes: Array) -> tuple[Array, Array]:
    """Three vertices and their weights for each of 68 points on the grid of the head."""

    def arc(count: int, left: float, right: float, height: float, sag: float) -> list[Array]:
        t = np.linspace(-1, 1, count)
        return list(np.stack([(left + right) / 2 + (right - left) / 2 * t, height - sag * t**2], 1))

    def loop(count: int, x: float, y: float, width: float, height: float) -> list[Array]:
        t = np.pi - 2 * np.pi * np.arange(count) / count
        return list(np.stack([x + width * np.cos(t), y + height * np.sin(t)], 1))

    points = arc(17, -70, 70, -60, -70)  # degrees of longitude and latitude
    points += arc(5, -35, -10, 30, 5) + arc(5, 10, 35, 30, 5)
    points += [np.array([0, y]) for y in (18, 10, 2, -6)] + arc(5, -12, 12, -12, -2)
    points += loop(6, -25, 18, 10, 5) + loop(6, 25, 18, 10, 5)
    points += loop(12, 0, -30, 20, 8) + loop(8, 0, -30, 12, 3)
    column, row = (
        (np.radians(np.array(points)[:, i]) - grid[0]) / (grid[1] - grid[0])
        for i, grid in enumerate((longitudes, latitudes))
    )
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    u, v = column - left, row - top
    corner = top * COLUMNS + left
    upper = u + v < 1
    first = np.where(upper, corner, corner + COLUMNS + 1)
    weights = np.where(upper, [1 - u - v, u, v], [u + v - 1, 1 - v, 1 - u])
    return np.stack([first, corner + 1, corner + COLUMNS], axis=1), np.stack([*weights], axis=1)
