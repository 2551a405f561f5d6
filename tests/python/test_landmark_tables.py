"""Landmark sets that importing a pack finds on its own mean face."""

from __future__ import annotations

import io
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from threedfa import FaceAligner, MorphableModel
from threedfa.landmark_sets import LandmarkTable
from threedfa.upstream import landmark_tables as tables
from toy_pack import head_model

Array = npt.NDArray[Any]

TEMPLATE = np.load(
    io.BytesIO(resources.files("threedfa.upstream").joinpath("face_mesh_468.npz").read_bytes()),
    allow_pickle=False,
)
# Points of MediaPipe's mesh: nose tip, chin, corners of the mouth, of the eyes; inner lips.
NOSE, CHIN, MOUTH, EYES = 4, 152, (61, 291), (33, 133, 362, 263)
UPPER_LIP, LOWER_LIP = 13, 14


@pytest.fixture(scope="module")
def basel(reference_pack: Path) -> MorphableModel:
    return FaceAligner(reference_pack).model


def mirrored_468() -> Array:
    """For each point of the template the one that is its mirror image."""
    points = TEMPLATE["points"]
    distances = np.linalg.norm(points[:, None] * (-1, 1, 1) - points[None], axis=2)
    assert distances.min(axis=1).max() < 1e-3
    partner: Array = distances.argmin(axis=1)
    return partner


def test_template() -> None:
    points = TEMPLATE["points"]
    assert points.shape == (468, 3) and TEMPLATE["anchors"].shape == (51, 3)
    assert points[NOSE, 2] == pytest.approx(points[:, 2].max(), abs=0.2)
    assert points[CHIN, 1] == points[:, 1].min()
    upper, lower = (points[TEMPLATE[f"lips_{side}"]] for side in ("upper", "lower"))
    assert upper[:, 1].mean() > lower[:, 1].mean() + 0.5
    assert UPPER_LIP in TEMPLATE["lips_upper"] and LOWER_LIP in TEMPLATE["lips_lower"]
    # The anchor of landmark 30 is the nose tip, of 48 and 54 the corners of the mouth.
    np.testing.assert_allclose(TEMPLATE["anchors"][30 - 17], points[NOSE], atol=0.3)
    for landmark, corner in zip((48, 54), MOUTH, strict=True):
        np.testing.assert_allclose(TEMPLATE["anchors"][landmark - 17], points[corner], atol=0.3)


def test_warp_takes_anchors_near_their_targets_and_keeps_similarities() -> None:
    rng = np.random.default_rng(0)
    source, points = TEMPLATE["anchors"].astype(float), TEMPLATE["points"].astype(float)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    moved = tables._warp(source, 1e4 * source @ turn.T + 7, points)
    np.testing.assert_allclose(moved, 1e4 * points @ turn.T + 7, atol=1e-3)
    target = source + rng.normal(scale=0.2, size=source.shape)
    misses = np.linalg.norm(tables._warp(source, target, source) - target, axis=1)
    assert 0 < misses.mean() < 0.15


def test_nearest_points_of_a_surface() -> None:
    head = head_model()
    mean, triangles = head["mean"].astype(np.float64), head["triangles"]
    rng = np.random.default_rng(1)
    places = rng.normal(size=(60, 3))
    vertices, weights = tables._nearest(places, mean, triangles)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    found = np.einsum("nc,ncx->nx", weights, mean[vertices])
    samples = np.einsum("sc,tcx->stx", rng.dirichlet([0.5] * 3, size=400), mean[triangles]).reshape(
        -1, 3
    )
    for place, point in zip(places, found, strict=True):
        assert np.linalg.norm(point - place) <= np.linalg.norm(samples - place, axis=1).min() + 1e-9
    on_surface = samples[::997]
    vertices, weights = tables._nearest(on_surface, mean, triangles)
    again = np.einsum("nc,ncx->nx", weights, mean[vertices])
    np.testing.assert_allclose(again, on_surface, atol=1e-9)


def test_tables_of_the_basel_topology(basel: MorphableModel) -> None:
    mirror = mirrored_468()
    for name, count, partner in (
        ("mediapipe468", 468, mirror),
        ("five", 5, np.array([1, 0, 2, 4, 3])),
    ):
        table = basel.landmark_sets[name]
        assert len(table) == count
        np.testing.assert_allclose(table.weights.sum(axis=1), 1, atol=1e-6)
        assert table.weights.min() >= 0
        points = table.of(basel.mean) / 1e3  # millimetres
        # The mean face itself is symmetric to some millimetres only.
        misses = np.linalg.norm(points[partner] * (-1, 1, 1) - points, axis=1)
        assert np.median(misses) < 2 and misses.max() < 8


def test_tables_lie_where_the_68_landmarks_say(basel: MorphableModel) -> None:
    table = basel.landmark_sets["mediapipe468"]
    points, landmarks = (
        table.of(basel.mean) / 1e3,
        basel.landmark_sets["ibug68"].of(basel.mean) / 1e3,
    )
    pairs = {NOSE: 30, CHIN: 8, MOUTH[0]: 48, MOUTH[1]: 54}
    pairs |= dict(zip(EYES, (36, 39, 42, 45), strict=True))
    for point, landmark in pairs.items():
        distance = np.linalg.norm(points[point] - landmarks[landmark])
        assert distance < (12 if point == CHIN else 5), (point, landmark)
    five = basel.landmark_sets["five"].of(basel.mean) / 1e3
    np.testing.assert_array_equal(five[2:], landmarks[[30, 48, 54]])
    for eye, (outer, inner) in zip(five[:2], ((36, 39), (42, 45)), strict=True):
        middle = (landmarks[outer] + landmarks[inner]) / 2
        np.testing.assert_allclose(eye[:2], middle[:2], atol=0.01)
        assert -1 < eye[2] - middle[2] < 12  # the eyeball bulges


def test_lips_keep_to_themselves(basel: MorphableModel) -> None:
    table, triangles = basel.landmark_sets["mediapipe468"], basel.triangles
    vertex_of = basel.landmark_indices
    upper = tables._steps_from(vertex_of[tables._UPPER_LIP], triangles, len(basel.mean))
    lower = tables._steps_from(vertex_of[tables._LOWER_LIP], triangles, len(basel.mean))
    for side, own, other in (("upper", upper, lower), ("lower", lower, upper)):
        used = table.vertices[TEMPLATE[f"lips_{side}"]]
        assert (own[used] <= other[used]).all()
    assert upper[table.vertices[UPPER_LIP]].max() < lower[table.vertices[UPPER_LIP]].min()
    assert lower[table.vertices[LOWER_LIP]].max() < upper[table.vertices[LOWER_LIP]].min()


def test_a_face_with_holes_for_eyes() -> None:
    head = head_model()
    landmarks = LandmarkTable(head["landmark_vertices"], head["landmark_weights"])
    keypoints = head["landmark_vertices"][:, 0]
    corners = head["mean"][head["triangles"]].mean(axis=1)
    middles = landmarks.of(head["mean"])[[36, 39, 42, 45]].reshape(2, 2, 3).mean(axis=1)
    distances = np.linalg.norm(corners[:, None, :2] - middles[None, :, :2], axis=2).min(axis=1)
    found = tables.landmark_tables(head["mean"], head["triangles"][distances > 0.25], keypoints)
    np.testing.assert_array_equal(found["five_weights"][:2], [[0.5, 0.5, 0]] * 2)
    np.testing.assert_array_equal(
        found["five_vertices"][:2, :2], [keypoints[[36, 39]], keypoints[[42, 45]]]
    )
