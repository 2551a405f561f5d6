"""The morphable model: reconstruction, projection, and files that are not what they should be."""

from __future__ import annotations

import gc
import json
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from head import PARAM_COUNT, head_params, load_head, write_head
from threedfa import MorphableModel, Pack, PackError, _core, ops
from toy_pack import EXPRESSIONS, INPUT_SIZE, SHAPES, head_model

Array = npt.NDArray[Any]

TENSORS = head_model()
VERTICES = len(TENSORS["mean"])
ROI = np.array([10.0, 20, 110, 140])

shape_coeffs, expression_coeffs = (
    hnp.arrays(np.float32, count, elements=st.floats(-5, 5, width=32))
    for count in (SHAPES, EXPRESSIONS)
)


# --- Content -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TENSORS)
def test_arrays_are_those_of_the_file(model: MorphableModel, name: str) -> None:
    array = getattr(model, name)
    assert array.dtype == TENSORS[name].dtype
    np.testing.assert_array_equal(array, TENSORS[name])


@pytest.mark.parametrize("name", TENSORS)
def test_arrays_are_read_only(model: MorphableModel, name: str) -> None:
    array = getattr(model, name)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


def test_texture_coordinates_are_optional(tmp_path: Path) -> None:
    assert load_head(tmp_path / "m.safetensors", uv=None).uv is None


def test_landmark_indices_are_the_heaviest_vertices(model: MorphableModel) -> None:
    for landmark, index in enumerate(model.landmark_indices):
        heaviest = model.landmark_weights[landmark].argmax()
        assert index == model.landmark_vertices[landmark, heaviest]
    assert model.landmark_indices.shape == (68,)


def test_ncc_is_the_mean_face_scaled_to_one(model: MorphableModel) -> None:
    ncc = model.ncc
    assert ncc.dtype == np.float32
    np.testing.assert_array_equal(ncc.min(axis=0), 0)
    np.testing.assert_array_equal(ncc.max(axis=0), 1)
    for axis in range(3):
        np.testing.assert_array_equal(
            ncc[:, axis].argsort(kind="stable"), model.mean[:, axis].argsort(kind="stable")
        )


def test_ncc_of_a_flat_model(tmp_path: Path) -> None:
    ncc = load_head(tmp_path / "m.safetensors", mean=TENSORS["mean"] * np.int8([1, 1, 0])).ncc
    assert np.all(ncc[:, 2] == 0)
    assert ncc[:, :2].max() == 1


def test_param_count(model: MorphableModel) -> None:
    assert model.param_count == PARAM_COUNT


# --- Reconstruction ------------------------------------------------------------------------------


def test_no_coefficients_give_the_mean(model: MorphableModel) -> None:
    vertices = model.reconstruct(np.zeros(SHAPES), np.zeros(EXPRESSIONS))
    assert vertices.dtype == np.float32
    np.testing.assert_array_equal(vertices, model.mean)
    assert vertices.flags.writeable


@given(shape_coeffs, expression_coeffs)
def test_reconstruction_equals_the_definition_bit_for_bit(
    model: MorphableModel, shape: Array, expression: Array
) -> None:
    expected = TENSORS["mean"].copy()
    bases = np.concatenate([TENSORS["shape_basis"], TENSORS["expression_basis"]])
    for coefficient, basis in zip(np.concatenate([shape, expression]), bases, strict=True):
        expected += coefficient * basis
    np.testing.assert_array_equal(model.reconstruct(shape, expression), expected)


def test_normals_are_those_of_the_triangles(model: MorphableModel) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        vertices = rng.normal(size=model.mean.shape).astype(np.float32)
        expected = ops.vertex_normals(vertices, model.triangles)
        np.testing.assert_allclose(model.vertex_normals(vertices), expected, atol=1e-5)
    with pytest.raises(ValueError, match="vertices: expected"):
        model.vertex_normals(vertices[1:])
    with pytest.raises(ValueError, match="vertices: expected finite"):
        model.vertex_normals(vertices * np.float32(np.nan))
    with pytest.raises(TypeError, match="vertices: expected"):
        model.vertex_normals(vertices.astype(str))


@given(shape_coeffs, expression_coeffs, shape_coeffs, expression_coeffs, st.floats(-3, 3))
def test_reconstruction_is_linear(
    model: MorphableModel, s1: Array, e1: Array, s2: Array, e2: Array, factor: float
) -> None:
    first, second = (model.reconstruct(*c) - model.mean for c in ((s1, e1), (s2, e2)))
    both = model.reconstruct(s1 + factor * s2, e1 + factor * e2) - model.mean
    np.testing.assert_allclose(both, first + factor * second, atol=2e-5)


@pytest.mark.parametrize("wrong", [[], [0] * (SHAPES - 1), [0] * (SHAPES + 1), [[0] * SHAPES]])
def test_wrong_numbers_of_coefficients(model: MorphableModel, wrong: Any) -> None:
    with pytest.raises(ValueError, match=rf"shape_coeffs: expected .*\({SHAPES},\), got"):
        model.reconstruct(wrong, np.zeros(EXPRESSIONS))
    with pytest.raises(ValueError, match=rf"expression_coeffs: expected .*\({EXPRESSIONS},\), got"):
        model.reconstruct(np.zeros(SHAPES), [*np.ravel(wrong), 0, 0, 0, 0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_coefficients_that_are_not_finite(model: MorphableModel, bad: float) -> None:
    with pytest.raises(
        ValueError, match=f"shape_coeffs: expected finite .* flat index {SHAPES - 1}"
    ):
        model.reconstruct([0] * (SHAPES - 1) + [bad], np.zeros(EXPRESSIONS))
    params = head_params().astype(np.float64)
    params[12] = bad
    with pytest.raises(ValueError, match=r"params: expected finite .* flat index 12"):
        model.project(params, ROI, dense=True)


# --- Projection ----------------------------------------------------------------------------------

cameras = st.builds(
    head_params,
    *[st.floats(-90, 90)] * 3,
    coefficients=st.tuples(shape_coeffs, expression_coeffs).map(np.concatenate),
    scale=st.floats(0.2, 3),
)


@given(cameras)
def test_projection_equals_the_definition(model: MorphableModel, params: Array) -> None:
    shape, expression = params[12 : 12 + SHAPES], params[12 + SHAPES :]
    vertices = model.reconstruct(shape, expression).astype(np.float64)
    camera = params[:12].astype(np.float64).reshape(3, 4)
    crop = vertices @ camera[:, :3].T + (camera[0, 3], camera[1, 3], 0)
    # The regressor counts pixels from 1 and y upwards.
    scale = np.array([100, 120]) / INPUT_SIZE
    expected = np.column_stack(
        [
            (crop[:, 0] - 1) * scale[0] + 10,
            (INPUT_SIZE - crop[:, 1]) * scale[1] + 20,
            crop[:, 2] * scale.mean(),
        ]
    )
    points = model.project(params, ROI, dense=True)
    assert points.dtype == np.float32
    np.testing.assert_allclose(points, expected, rtol=1e-6, atol=2e-3)


@given(cameras)
def test_landmarks_are_weighted_sums_of_vertices(model: MorphableModel, params: Array) -> None:
    vertices = model.project(params, ROI, dense=True)
    expected = np.einsum(
        "lcx,lc->lx", vertices[model.landmark_vertices], model.landmark_weights.astype(np.float64)
    )
    landmarks = model.project(params, ROI, dense=False)
    np.testing.assert_allclose(landmarks, expected, rtol=1e-6, atol=2e-3)


@pytest.fixture(scope="module")
def vertex_model(tmp_path_factory: pytest.TempPathFactory) -> MorphableModel:
    """A head each of whose landmarks is a vertex."""
    chosen = np.random.default_rng(3).choice(VERTICES, 68, replace=False)
    return load_head(
        tmp_path_factory.mktemp("model") / "head.safetensors",
        landmark_vertices=np.stack([chosen, 0 * chosen, 0 * chosen], axis=1).astype(np.int32),
        landmark_weights=np.tile(np.float32([1, 0, 0]), (68, 1)),
    )


@given(cameras)
def test_sparse_equals_dense_bit_for_bit(vertex_model: MorphableModel, params: Array) -> None:
    vertices = vertex_model.project(params, ROI, dense=True)
    landmarks = vertex_model.project(params, ROI, dense=False)
    np.testing.assert_array_equal(landmarks, vertices[vertex_model.landmark_indices])


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 20])
@pytest.mark.parametrize("dense", [False, True])
def test_a_batch_equals_its_members_bit_for_bit(
    model: MorphableModel, count: int, dense: bool
) -> None:
    rng = np.random.default_rng(count)
    params = np.array([head_params(*rng.uniform(-60, 60, 3)) for _ in range(count)])
    params = params.reshape(count, PARAM_COUNT)
    params[:, 12:] = rng.normal(size=(count, SHAPES + EXPRESSIONS))
    rois = rng.uniform(0, 50, (count, 4)) + (0, 0, 100, 100)
    points = model.project_many(params, rois, dense=dense)
    assert points.shape == (count, VERTICES if dense else 68, 3)
    for one, face_params, roi in zip(points, params, rois, strict=True):
        np.testing.assert_array_equal(one, model.project(face_params, roi, dense=dense))


@given(cameras)
def test_z_is_zero_at_the_origin_of_the_model(
    tmp_path_factory: pytest.TempPathFactory, params: Array
) -> None:
    moved = {name: TENSORS[name].copy() for name in ("mean", "shape_basis", "expression_basis")}
    for tensor in moved.values():
        tensor[..., 5, :] = 0
    model = load_head(tmp_path_factory.mktemp("model") / "head.safetensors", **moved)
    params[11] = 7  # the camera's shift along z, which has no meaning
    origin = model.project(params, ROI, dense=True)[5]
    assert origin[2] == 0
    middle = INPUT_SIZE / 2
    expected = middle * 100 / INPUT_SIZE + 10, middle * 120 / INPUT_SIZE + 20
    np.testing.assert_allclose(origin[:2], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("params", "roi", "match"),
    [
        (np.zeros(PARAM_COUNT - 1), ROI, rf"params: expected .*{PARAM_COUNT}\), got"),
        (np.zeros((1, PARAM_COUNT)), ROI, r"params: expected"),
        (np.zeros(PARAM_COUNT), [0, 0, 1], r"rois: expected .*4\), got"),
        (np.zeros(PARAM_COUNT), [0, 0, 1, np.nan], r"rois: expected finite .*got nan"),
        (np.zeros(PARAM_COUNT), [5, 0, 5, 9], r"roi: expected .*x1 < x2.*got"),
        (np.zeros(PARAM_COUNT), [0, 9, 5, 3], r"roi: expected .*y1 < y2.*got"),
    ],
)
def test_projection_arguments(model: MorphableModel, params: Any, roi: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        model.project(params, roi, dense=True)


def test_projection_needs_real_numbers(model: MorphableModel) -> None:
    with pytest.raises(TypeError, match="params: expected an array of real numbers, got complex"):
        model.project(np.zeros(PARAM_COUNT, complex), ROI, dense=True)
    with pytest.raises(TypeError, match="rois: expected an array of real numbers, got bool"):
        model.project(np.zeros(PARAM_COUNT), np.ones(4, bool), dense=True)


# --- Files ---------------------------------------------------------------------------------------


def test_the_file_may_be_deleted(tmp_path: Path) -> None:
    path = write_head(tmp_path / "head.safetensors")
    model = MorphableModel.load(path)
    path.unlink()
    np.testing.assert_array_equal(
        model.reconstruct(np.zeros(SHAPES), np.zeros(EXPRESSIONS)), TENSORS["mean"]
    )


def test_arrays_outlive_their_model(tmp_path: Path) -> None:
    model = MorphableModel.load(write_head(tmp_path / "head.safetensors"))
    mean, triangles = model.mean, model.triangles
    del model
    gc.collect()
    np.testing.assert_array_equal(mean, TENSORS["mean"])
    np.testing.assert_array_equal(triangles, TENSORS["triangles"])


def expect_pack_error(path: Path, match: str = "expected") -> None:
    with pytest.raises(PackError, match=match) as caught:
        MorphableModel.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text elsewhere")
def test_a_bad_file_whose_name_is_no_utf8(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/pack\xff"))
    folder.mkdir()
    path = folder / "model.safetensors"
    path.write_bytes(b"bad")
    expect_pack_error(path)
    with pytest.raises(RuntimeError) as caught:
        _core.MorphableModel.load(path)
    assert isinstance(caught.value, _core.FileError)


def test_no_file(tmp_path: Path) -> None:
    expect_pack_error(tmp_path / "missing.safetensors")
    expect_pack_error(tmp_path, match="pack.json")


def test_truncated_files(tmp_path: Path) -> None:
    path = write_head(tmp_path / "head.safetensors")
    content = path.read_bytes()
    header = 8 + struct.unpack_from("<Q", content)[0]
    lengths = {0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, len(content) // 2}
    for length in sorted({*lengths, len(content) - 4, len(content) - 1}):
        path.write_bytes(content[:length])
        expect_pack_error(path)
    path.write_bytes(content + b"\0")
    expect_pack_error(path)


def test_every_byte_of_the_header_altered(tmp_path: Path) -> None:
    """Anything but a wrong answer in silence: an error, or the same model."""
    path = write_head(tmp_path / "head.safetensors")
    content = bytearray(path.read_bytes())
    header = 8 + struct.unpack_from("<Q", content)[0]
    refused = 0
    for position in range(header):
        kept = content[position]
        content[position] ^= 0x11
        path.write_bytes(content)
        content[position] = kept
        try:
            model = MorphableModel.load(path)
        except PackError:
            refused += 1
        else:
            np.testing.assert_array_equal(model.mean, TENSORS["mean"])
            np.testing.assert_array_equal(model.triangles, TENSORS["triangles"])
    assert refused > 0.9 * header


@pytest.mark.parametrize("size", [0, 1, 2**20 + 1, 2**40, 2**64 - 8, 2**64 - 1])
def test_absurd_header_sizes(tmp_path: Path, size: int) -> None:
    path = tmp_path / "head.safetensors"
    path.write_bytes(struct.pack("<Q", size) + b"{}" + b" " * 62)
    expect_pack_error(path)


@pytest.mark.parametrize("name", [name for name in TENSORS if name != "uv"])
def test_missing_tensors(tmp_path: Path, name: str) -> None:
    expect_pack_error(write_head(tmp_path / "head.safetensors", **{name: None}), name)


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize(
    "change",
    [
        lambda array: array[..., :-1],
        lambda array: array[..., None],
        lambda array: array.ravel(),
        lambda array: array.astype(np.float64),
        lambda array: array.astype(np.int64),
        lambda array: array.astype(np.float16),
    ],
    ids=["narrow", "rank+1", "flat", "float64", "int64", "float16"],
)
def test_wrong_tensors(tmp_path: Path, name: str, change: Callable[[Array], Array]) -> None:
    path = write_head(tmp_path / "head.safetensors", **{name: change(TENSORS[name])})
    expect_pack_error(path, rf"expected tensor '{name}' .*, got")


@pytest.mark.parametrize("name", ["mean", "triangles", "landmark_vertices"])
def test_empty_tensors(tmp_path: Path, name: str) -> None:
    path = write_head(tmp_path / "head.safetensors", **{name: TENSORS[name][:0]})
    expect_pack_error(path, rf"expected tensor '{name}' .*or more, got 0")


def test_a_model_may_have_no_modes(tmp_path: Path) -> None:
    none = np.empty((0, VERTICES, 3), np.float32)
    model = load_head(tmp_path / "m.safetensors", shape_basis=none, expression_basis=none)
    np.testing.assert_array_equal(model.reconstruct([], []), model.mean)


@pytest.mark.parametrize("name", ["shape_basis", "expression_basis", "uv"])
def test_tensors_that_do_not_fit_the_vertices(tmp_path: Path, name: str) -> None:
    axis = 0 if name == "uv" else 1
    fewer = np.delete(TENSORS[name], -1, axis=axis)
    path = write_head(tmp_path / "head.safetensors", **{name: fewer})
    expect_pack_error(path, rf"{name}.*{VERTICES}.*got.*{VERTICES - 1}")


def test_landmark_weights_that_do_not_fit(tmp_path: Path) -> None:
    path = write_head(
        tmp_path / "head.safetensors", landmark_weights=TENSORS["landmark_weights"][:-1]
    )
    expect_pack_error(path, r"landmark_weights.*68.*got.*67")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name", ["mean", "shape_basis", "expression_basis", "uv", "landmark_weights"]
)
def test_values_that_are_not_finite(tmp_path: Path, name: str, bad: float) -> None:
    wrong = TENSORS[name].copy()
    wrong.reshape(-1)[-1] = bad
    path = write_head(tmp_path / "head.safetensors", **{name: wrong})
    expect_pack_error(path, rf"{name}.*got {bad} at element {wrong.size - 1}")


@pytest.mark.parametrize("bad", [-1, VERTICES, 2**31 - 1])
@pytest.mark.parametrize("name", ["triangles", "landmark_vertices"])
def test_indices_out_of_range(tmp_path: Path, name: str, bad: int) -> None:
    wrong = TENSORS[name].copy()
    wrong[3, 1] = bad
    path = write_head(tmp_path / "head.safetensors", **{name: wrong})
    expect_pack_error(path, rf"{name}.*0\.\.{VERTICES - 1}, got {bad} at element 10")


@pytest.mark.parametrize("bad", [-0.01, 1.01])
def test_texture_coordinates_out_of_range(tmp_path: Path, bad: float) -> None:
    wrong = TENSORS["uv"].copy()
    wrong[3, 1] = bad
    expect_pack_error(write_head(tmp_path / "head.safetensors", uv=wrong), r"uv.*0\.\.1.*got")


def test_overlapping_tensors(tmp_path: Path) -> None:
    """Two names for the same bytes."""
    path = write_head(tmp_path / "head.safetensors")
    content = path.read_bytes()
    size = struct.unpack_from("<Q", content)[0]
    header = json.loads(content[8 : 8 + size])
    header["expression_basis"]["data_offsets"] = header["mean"]["data_offsets"]
    header["expression_basis"]["shape"] = [1, VERTICES, 3]
    encoded = json.dumps(header, separators=(",", ":")).encode().ljust(size)
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content[8 + size :])
    expect_pack_error(path)


def test_a_folder_is_the_model_of_its_pack(toy_pack: Path) -> None:
    pack = Pack.load(toy_pack)
    model = MorphableModel.load(toy_pack)
    assert model.input_size == pack.regressor.input_size
    np.testing.assert_array_equal(model.mean, MorphableModel.load(toy_pack / pack.model.file).mean)
    with pytest.raises(PackError):
        MorphableModel.load(toy_pack.parent / "nothing")


@pytest.mark.parametrize("unit", [0, -1, float("nan"), float("inf")])
def test_a_unit_without_a_size(tmp_path: Path, unit: float) -> None:
    path = write_head(tmp_path / "head.safetensors")
    with pytest.raises(ValueError, match=f"centimetres_per_unit: expected .* got {unit}"):
        MorphableModel.load(path, centimetres_per_unit=unit)


def test_names_that_are_not_one_for_each_expression(tmp_path: Path) -> None:
    path = write_head(tmp_path / "head.safetensors")
    with pytest.raises(ValueError, match=f"expression_names: expected {EXPRESSIONS} names.* got 1"):
        MorphableModel.load(path, expression_names=("jawOpen",))
