"""The landmark sets of the default face model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy

from test_landmark_sets import MIRRORED_68, ray_test
from test_landmark_tables import EYES, MOUTH, NOSE, mirrored_468
from threedfa import Face, MorphableModel
from threedfa._core import rotation_from_angles
from threedfa.landmark_sets import LandmarkTable, visibility

Array = npt.NDArray[Any]

PATH = Path(__file__).resolve().parents[2] / "weights" / "default" / "model.safetensors"
SETS = ("ibug68", "mediapipe468", "five")


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return MorphableModel.load(PATH)


def face_at(model: MorphableModel, yaw: float = 0, pitch: float = 0) -> Face:
    scale = 90 / np.ptp(model.mean[:, 1])
    params = np.zeros(model.param_count, np.float32)
    rotation = scale * rotation_from_angles(yaw, pitch, 0)
    params[:12] = np.column_stack([rotation, [60, 60, 0]]).ravel()
    roi = np.array([0.0, 0, 480, 480])
    return Face(
        bbox=roi.astype(np.float32),
        score=1,
        roi=roi,
        params=params,
        landmarks=model.project(params, roi, dense=False),
        model=model,
    )


def test_tables_are_valid(model: MorphableModel) -> None:
    assert [len(model.landmark_sets[name]) for name in SETS] == [68, 468, 5]
    for name in SETS:
        table = model.landmark_sets[name]
        np.testing.assert_allclose(table.weights.sum(axis=1), 1, atol=1e-5)
        assert table.weights.min() > -1e-6


def test_tables_are_mirrored(model: MorphableModel) -> None:
    partners = {"ibug68": MIRRORED_68, "mediapipe468": mirrored_468(), "five": [1, 0, 2, 4, 3]}
    for name, partner in partners.items():
        points = model.landmark_sets[name].of(model.mean)
        np.testing.assert_allclose(points[partner] * (-1, 1, 1), points, atol=0.02)  # centimetres


def test_sets_agree_with_each_other(model: MorphableModel) -> None:
    points = {name: model.landmark_sets[name].of(model.mean) for name in SETS}
    dense, landmarks, five = points["mediapipe468"], points["ibug68"], points["five"]
    for point, landmark in zip((NOSE, *MOUTH, *EYES), (30, 48, 54, 36, 39, 42, 45), strict=True):
        np.testing.assert_allclose(dense[point], landmarks[landmark], atol=0.01)
    np.testing.assert_allclose(five[2:], landmarks[[30, 48, 54]], atol=0.01)
    for eye, corners in zip(five[:2], ((36, 39), (42, 45)), strict=True):
        assert landmarks[corners[0], 0] < eye[0] < landmarks[corners[1], 0]


def test_a_frontal_face_shows_all(model: MorphableModel) -> None:
    for name in SETS:
        assert face_at(model).landmark_visibility(name).all()


def test_a_turned_face_hides_its_far_side(model: MorphableModel) -> None:
    face = face_at(model, yaw=70)
    shown = face.landmark_visibility()
    assert shown[[0, 2, 4, 36, 48]].all() and not shown[[12, 14, 16, 45]].any()
    mirrored = face_at(model, yaw=-70).landmark_visibility()
    assert (mirrored != shown[MIRRORED_68]).sum() <= 4  # some are just on the edge


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (-50, 0), (35, 25)])
def test_visibility_against_rays(model: MorphableModel, yaw: float, pitch: float) -> None:
    face = face_at(model, yaw, pitch)
    rng = np.random.default_rng(2)
    front = np.flatnonzero(safetensors.numpy.load_file(PATH)["region"][face.triangles[:, 0]] == 0)
    rows = rng.choice(front, 120)
    table = LandmarkTable(
        face.triangles[rows], rng.dirichlet([3, 3, 3], size=len(rows)).astype(np.float32)
    )
    seen, clear = ray_test(table, face.vertices, face.triangles)
    shown = visibility(table, face.vertices, face.triangles)
    np.testing.assert_array_equal(shown[clear], seen[clear])
    assert clear.mean() > 0.4 and (shown == seen).mean() > 0.85


def test_the_expressions_move_the_landmarks_that_they_should(model: MorphableModel) -> None:
    """Blinks close the lids of the 468 points, an open jaw parts the inner lips."""
    expressions = safetensors.safe_open(PATH, "numpy").metadata()["expression_names"]
    names = [name.strip('[]" ') for name in expressions.split(",")]
    table = model.landmark_sets["mediapipe468"]

    def gap(name: str, upper: int, lower: int, weight: float) -> float:
        coefficients = np.zeros(len(model.expression_basis), np.float32)
        coefficients[names.index(name)] = weight
        points = table.of(model.reconstruct(np.zeros(len(model.shape_basis)), coefficients))
        return float(np.linalg.norm(points[upper] - points[lower]))

    # MediaPipe's 159/145 are the lids of the eye at the image's left, the subject's right.
    assert gap("eyeBlinkRight", 159, 145, 1) < 0.35 * gap("eyeBlinkRight", 159, 145, 0)
    assert gap("eyeBlinkLeft", 386, 374, 1) < 0.35 * gap("eyeBlinkLeft", 386, 374, 0)
    assert gap("eyeBlinkLeft", 159, 145, 1) == pytest.approx(gap("eyeBlinkLeft", 159, 145, 0))
    assert gap("jawOpen", 13, 14, 1) > gap("jawOpen", 13, 14, 0) + 1
