"""The face model that ships: weights/default/model.safetensors, made by weights/training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open

from threedfa import MorphableModel
from threedfa.face import Face
from threedfa.model import DENSE_VERTICES
from threedfa.ops import rasterize, vertex_normals

Array = NDArray[np.float32]

PATH = Path(__file__).parents[2] / "weights" / "default" / "model.safetensors"
FLIP_X = np.array([-1, 1, 1], np.float32)
SIDE = 600  # pixels of the pictures, 20 to a centimetre


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return MorphableModel.load(PATH)


@pytest.fixture(scope="module")
def tensors() -> dict[str, NDArray[np.generic]]:
    with safe_open(PATH, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def names(key: str) -> list[str]:
    with safe_open(PATH, framework="numpy") as file:
        found: list[str] = json.loads(file.metadata()[key])
    return found


def expression(model: MorphableModel, **weights: float) -> Array:
    """The mean face with an expression."""
    coefficients = np.zeros(len(model.expression_basis), np.float32)
    for name, weight in weights.items():
        coefficients[names("expression_names").index(name)] = weight
    return model.reconstruct(np.zeros(len(model.shape_basis)), coefficients)


def labelled(tensors: dict[str, NDArray[np.generic]], *regions: str) -> NDArray[np.bool_]:
    return np.isin(tensors["region"], [names("region_names").index(name) for name in regions])


def seen_vertices(
    vertices: Array, triangles: NDArray[np.int32], yaw: float = 0
) -> NDArray[np.int64]:
    """The first vertex of the triangle seen at each covered pixel of a picture."""
    angle = np.radians(yaw)
    turned = (
        vertices
        @ np.array(
            [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        ).T
    )
    picture = turned * (20, -20, 20) + (SIDE / 2, SIDE / 2, 0)
    triangle = rasterize(picture, triangles, SIDE, SIDE).triangle
    return triangles[triangle[triangle >= 0], 0].astype(np.int64)


def landmarks(model: MorphableModel, vertices: Array) -> Array:
    return model.landmark_sets["ibug68"].of(vertices)


def test_is_small_and_has_the_agreed_number_of_modes(model: MorphableModel) -> None:
    assert PATH.stat().st_size <= 7.5e6
    assert model.shape_basis.shape[0] == 50
    assert model.expression_basis.shape[0] == 51
    assert len(model.mean) < DENSE_VERTICES


def test_triangles_are_a_manifold_seen_from_outside(model: MorphableModel) -> None:
    triangles = model.triangles
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    assert len(np.unique(sides, axis=0)) == len(sides)  # no side twice in the same direction
    _, uses = np.unique(np.sort(sides, axis=1), axis=0, return_counts=True)
    assert uses.max() == 2
    assert len(np.unique(triangles)) == len(model.mean)
    a, b, c = model.mean[triangles].transpose(1, 0, 2).astype(np.float64)
    assert (np.linalg.norm(np.cross(b - a, c - a), axis=1) > 1e-5).all()
    # From the front, only front sides are seen.
    picture = model.mean[triangles] * (20, -20, 20) + (SIDE / 2, SIDE / 2, 0)
    clockwise = np.cross(picture[:, 1] - picture[:, 0], picture[:, 2] - picture[:, 0])[:, 2] < 0
    seen = rasterize(picture.reshape(-1, 3), np.arange(triangles.size).reshape(-1, 3), SIDE, SIDE)
    assert clockwise[np.unique(seen.triangle[seen.triangle >= 0])].all()  # y down
    normals = vertex_normals(model.mean, triangles)
    assert normals[np.argmax(model.mean[:, 2]), 2] > 0.8  # the tip of the nose


def test_texture_coordinates_do_not_overlap(model: MorphableModel) -> None:
    uv = model.uv
    assert uv is not None and uv.min() >= 0 and uv.max() <= 1
    flat = np.column_stack([uv * 1500, np.zeros(len(uv))]).astype(np.float32)
    # Drawn in both orders: the earlier triangle wins where two overlap.
    forwards = rasterize(flat, model.triangles, 1500, 1500).triangle
    backwards = rasterize(flat, model.triangles[::-1], 1500, 1500).triangle
    drawn = forwards >= 0
    assert drawn.mean() > 0.8
    assert (forwards[drawn] == len(model.triangles) - 1 - backwards[drawn]).all()
    a, b, c = uv[model.triangles].transpose(1, 0, 2).astype(np.float64)
    areas = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert (areas > 0).all()


def test_a_mirror_image_flips_signs_and_swaps_names(
    model: MorphableModel, tensors: dict[str, NDArray[np.generic]]
) -> None:
    mirror = tensors["mirror_vertices"].astype(np.int64)
    assert (mirror[mirror] == np.arange(len(mirror))).all()
    np.testing.assert_array_equal(model.mean[mirror] * FLIP_X, model.mean)
    signs = tensors["shape_mirror_sign"].astype(np.float32)
    assert set(signs) == {1, -1}
    np.testing.assert_array_equal(
        model.shape_basis[:, mirror] * FLIP_X, signs[:, None, None] * model.shape_basis
    )
    swap = tensors["expression_mirror"].astype(np.int64)
    np.testing.assert_array_equal(
        model.expression_basis[:, mirror] * FLIP_X, model.expression_basis[swap]
    )
    swapped = [
        name.replace("Left", "?").replace("Right", "Left").replace("?", "Right")
        for name in names("expression_names")
    ]
    assert [names("expression_names")[i] for i in swap] == swapped
    faces = {tuple(row) for row in np.sort(model.triangles, axis=1)}
    assert {tuple(row) for row in np.sort(mirror[model.triangles], axis=1)} == faces


def test_shape_modes_are_principal_axes_of_unit_variance(model: MorphableModel) -> None:
    """Coefficients are N(0, 1), so a mode is as large as it is important, and modes are
    uncorrelated: under the weights of the PCA (areas, more near the features) nearly orthogonal."""
    sizes = np.linalg.norm(model.shape_basis.reshape(50, -1), axis=1)
    assert sizes[0] > 3 * sizes[10] > 3 * sizes[49]
    rng = np.random.default_rng(0)
    distances = [
        np.linalg.norm(
            model.reconstruct(rng.standard_normal(50), np.zeros(51)) - model.mean, axis=1
        )
        for _ in range(50)
    ]
    assert 0.3 < np.mean(distances) < 0.7  # centimetres: what ICT's identities are away from it
    unit = model.shape_basis.reshape(50, -1) / sizes[:, None]
    assert np.abs(unit @ unit.T - np.eye(50))[:10, :10].max() < 0.5


def test_expressions_have_arkits_names_in_its_order() -> None:
    found = names("expression_names")
    assert len(found) == len(set(found)) == 51
    assert found[:2] == ["eyeBlinkLeft", "eyeLookDownLeft"]
    assert found[14:18] == ["jawForward", "jawLeft", "jawRight", "jawOpen"]
    assert found[-1] == "noseSneerRight"
    assert "tongueOut" not in found


@pytest.mark.parametrize(
    ("name", "x"), [("eyeBlinkLeft", 1), ("browDownRight", -1), ("mouthSmileLeft", 1)]
)
def test_left_is_the_subjects_left(model: MorphableModel, name: str, x: int) -> None:
    moves = np.linalg.norm(expression(model, **{name: 1}) - model.mean, axis=1)
    assert (model.mean[moves > moves.max() / 2, 0] * x > 0).all()


def test_jaw_and_mouth_move_as_named(model: MorphableModel) -> None:
    mean = landmarks(model, model.mean)
    jaw = landmarks(model, expression(model, jawOpen=1)) - mean
    assert jaw[66, 1] < -2 and abs(jaw[62, 1]) < 0.3  # lower and upper lip
    assert (landmarks(model, expression(model, jawLeft=1)) - mean)[8, 0] > 0.5
    smile = landmarks(model, expression(model, mouthSmileLeft=1)) - mean
    assert smile[54, 0] > 0.5 and smile[54, 1] > 0.3 and abs(smile[48, 0]) < 0.3


def test_lids_close(model: MorphableModel, tensors: dict[str, NDArray[np.generic]]) -> None:
    closed = expression(model, eyeBlinkLeft=1, eyeBlinkRight=1)
    open_, shut = landmarks(model, model.mean), landmarks(model, closed)
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        assert open_[upper, 1] - open_[lower, 1] > 0.7
        assert abs(shut[upper, 1] - shut[lower, 1]) < 0.1
    eyeballs = labelled(tensors, "left eyeball", "right eyeball")
    for yaw in (-50, -25, 0, 25, 50):
        assert eyeballs[seen_vertices(model.mean, model.triangles, yaw)].mean() > 0.003
        assert not eyeballs[seen_vertices(closed, model.triangles, yaw)].any()
    left = expression(model, eyeBlinkLeft=1)
    seen = seen_vertices(left, model.triangles)
    assert not labelled(tensors, "left eyeball")[seen].any()
    assert labelled(tensors, "right eyeball")[seen].any()


def test_eyeballs_do_not_poke_through_the_lids(
    model: MorphableModel, tensors: dict[str, NDArray[np.generic]]
) -> None:
    """Of any sampled face, what is seen of the eyes lies between the lids' landmarks."""
    rng = np.random.default_rng(2)
    eyeballs = labelled(tensors, "left eyeball", "right eyeball")
    for _ in range(10):
        vertices = model.reconstruct(
            rng.standard_normal(50), 0.4 * (rng.random(51) < 0.2) * rng.random(51)
        )
        seen = np.unique(seen_vertices(vertices, model.triangles))
        visible = vertices[seen[eyeballs[seen]]]
        lids = landmarks(model, vertices)[36:48]
        for side in (slice(0, 6), slice(6, 12)):
            low, high = lids[side, :2].min(axis=0), lids[side, :2].max(axis=0)
            here = visible[np.sign(visible[:, 0]) == np.sign(lids[side, 0].mean()), :2]
            assert len(here) > 5
            # One ring of the ball beyond a vertex belongs to its triangles.
            assert (here > low - 0.3).all() and (here < high + 0.3).all()


@pytest.mark.parametrize(
    ("name", "axis", "sign"),
    [("eyeLookUpLeft", 1, 1), ("eyeLookDownLeft", 1, -1), ("eyeLookOutLeft", 0, 1),
     ("eyeLookInLeft", 0, -1), ("eyeLookOutRight", 0, -1), ("eyeLookInRight", 0, 1)],
)  # fmt: skip
def test_gaze_turns_the_eyeball(
    model: MorphableModel,
    tensors: dict[str, NDArray[np.generic]],
    name: str,
    axis: int,
    sign: int,
) -> None:
    ball = np.flatnonzero(
        labelled(tensors, "left eyeball" if name.endswith("Left") else "right eyeball")
    )
    before, after = model.mean[ball].astype(np.float64), expression(model, **{name: 1})[ball]
    pole = before[:, 2].argmax()
    assert sign * (after - before)[pole, axis] > 0.4
    # A turn: distances within the ball stay.
    np.testing.assert_allclose(
        np.linalg.norm(after - after[pole], axis=1),
        np.linalg.norm(before - before[pole], axis=1),
        atol=1e-3,
    )


def test_landmarks_are_where_they_belong(model: MorphableModel) -> None:
    points = landmarks(model, model.mean)
    for name, count in (("ibug68", 68), ("mediapipe468", 468), ("five", 5)):
        table = model.landmark_sets[name]
        assert len(table) == count
        np.testing.assert_allclose(table.weights.sum(axis=1), 1, atol=1e-6)
        assert (table.weights >= -1e-6).all()
    jaw, brows, nose = points[:17], points[17:27], points[27:36]
    assert (np.diff(jaw[:, 0]) > 0).all() and jaw[:, 1].argmin() == 8
    assert (np.diff(brows[:, 0]) > 0).all()
    assert (np.diff(nose[:4, 1]) < 0).all() and (np.diff(nose[4:, 0]) > 0).all()
    assert points[:, 2].argmax() in (29, 30)
    for left, right in ((36, 39), (42, 45), (48, 54), (60, 64)):  # of the image
        assert points[left, 0] < points[right, 0]
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46), (51, 57), (62, 66)):
        assert points[upper, 1] > points[lower, 1]
    # Mirror images of each other, to half a millimetre.
    swap = [
        *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
        45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
        *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65,
    ]  # fmt: skip
    assert np.linalg.norm(points[swap] * FLIP_X - points, axis=1).max() < 0.05
    five = model.landmark_sets["five"].of(model.mean)
    assert five[0, 0] < five[2, 0] < five[1, 0] and five[3, 0] < five[4, 0]
    assert five[:2, 1].min() > five[2, 1] > five[3:, 1].max()


def test_regions_are_where_they_belong(
    model: MorphableModel, tensors: dict[str, NDArray[np.generic]]
) -> None:
    points = landmarks(model, model.mean)
    heaviest = model.landmark_indices
    assert labelled(tensors, "lips")[heaviest[60:68]].all()  # the outer ones are on the border
    assert labelled(tensors, "eyelids")[heaviest[[37, 38, 40, 41, 43, 44, 46, 47]]].all()
    assert labelled(tensors, "face")[heaviest[17:36]].all()
    assert (np.abs(model.mean[labelled(tensors, "ears"), 0]) > 6).all()
    assert (model.mean[labelled(tensors, "neck"), 1] < points[[0, 16], 1].max()).all()
    assert (model.mean[labelled(tensors, "left eyeball"), 0] > 0).all()
    assert set(np.unique(tensors["region"])) == set(range(len(names("region_names"))))


def test_dense_faces_have_35568_vertices(model: MorphableModel) -> None:
    params = np.zeros(model.param_count, np.float32)
    params[[0, 5, 10]] = 5
    params[[3, 7]] = 60
    roi = np.array([10, 20, 130, 140], np.float64)
    points = model.project(params, roi, dense=False)
    face = Face(
        bbox=roi.astype(np.float32), score=1, roi=roi, params=params, landmarks=points, model=model
    )
    assert len(face.vertices) == len(model.mean)
    assert len(face.dense_vertices) >= 35_568
    assert face.dense_triangles.max() == len(face.dense_vertices) - 1
    assert len(face.dense_triangles) == 4 * len(face.triangles)
    np.testing.assert_array_equal(face.dense_vertices[: len(model.mean)], face.vertices)
    # Between the vertices a smooth surface: new ones are near the middles of their edges.
    ends = face.vertices[np.stack([face.triangles[:, 0], face.triangles[:, 1]], axis=1)]
    offset = np.linalg.norm(
        face.dense_vertices[face.dense_triangles[0::4, 1]] - ends.mean(1), axis=1
    )
    assert offset.max() < 0.1 * 5  # a millimetre
    assert offset.mean() < 0.01 * 5
    uv = model.dense_uv
    assert uv is not None and uv.shape == (len(face.dense_vertices), 2)
    assert uv.min() >= 0 and uv.max() <= 1


@pytest.mark.parametrize("values", ["text", [[np.nan] * 3], np.zeros((4, 3)), np.zeros(9495)])
def test_densify_refuses_bad_values(model: MorphableModel, values: object) -> None:
    with pytest.raises((TypeError, ValueError), match="values: expected"):
        model.densify(values)  # type: ignore[arg-type]


def test_densify_refuses_values_that_are_not_finite(model: MorphableModel) -> None:
    bad = np.zeros_like(model.mean)
    bad[7, 1] = np.inf
    with pytest.raises(ValueError, match="finite"):
        model.densify(bad)
