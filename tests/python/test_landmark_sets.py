"""Landmark sets, what of them can be seen, and points of the surface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from head import head_face, head_params, load_head
from threedfa import Face, PackError, ops
from threedfa.landmark_sets import LandmarkTable, in_front, visibility
from toy_pack import NOSE_TIP, head_model

Array = npt.NDArray[Any]

TENSORS = head_model()
OF_THE_FIVE = [36, 45, NOSE_TIP, 48, 54]
MIRRORED_68 = [
    *range(16, -1, -1),
    *range(26, 16, -1),
    *range(27, 31),
    *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60, 67, 66, 65),
]


def five_tensors() -> dict[str, Array]:
    return {
        f"five_{part}": TENSORS[f"landmark_{part}"][OF_THE_FIVE] for part in ("vertices", "weights")
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    brow = {"brow_vertices": np.int32([[4, 5, 6]]), "brow_weights": np.float32([[0.2, 0.3, 0.5]])}
    return load_head(tmp_path_factory.mktemp("sets") / "m.safetensors", **five_tensors(), **brow)


@pytest.fixture(scope="module")
def face(model: Any) -> Face:
    return head_face(model, head_params(yaw=25, pitch=-10, roll=15, coefficients=0.3))


def surface_points(count: int, seed: int = 0) -> LandmarkTable:
    """Random points of the head's surface, not on edges."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(TENSORS["triangles"]), size=count)
    weights = rng.dirichlet([3, 3, 3], size=count).astype(np.float32)
    return LandmarkTable(TENSORS["triangles"][rows], weights)


# --- Tables --------------------------------------------------------------------------------------


def test_sets_have_the_documented_names(model: Any) -> None:
    assert set(model.landmark_sets) == {"ibug68", "five", "brow"}
    assert [len(model.landmark_sets[name]) for name in ("ibug68", "five", "brow")] == [68, 5, 1]
    with pytest.raises(TypeError):
        model.landmark_sets["ibug68"] = None


def test_points_are_weighted_vertices(face: Face) -> None:
    np.testing.assert_array_equal(face.landmarks_in("ibug68"), face.landmarks)
    five = face.landmarks_in("five")
    assert five.shape == (5, 3) and five.dtype == np.float32
    np.testing.assert_allclose(five, face.landmarks[OF_THE_FIVE], atol=1e-4)
    expected = np.float32([0.2, 0.3, 0.5]) @ face.vertices[4:7]
    np.testing.assert_allclose(face.landmarks_in("brow")[0], expected, atol=1e-4)


def test_tables_are_valid_and_mirrored(model: Any) -> None:
    for name in ("ibug68", "five"):
        table = model.landmark_sets[name]
        np.testing.assert_allclose(table.weights.sum(axis=1), 1, atol=1e-6)
        assert table.vertices.min() >= 0 and table.vertices.max() < len(model.mean)
        mirrored = [1, 0, 2, 4, 3] if name == "five" else MIRRORED_68
        points = table.of(model.mean)
        np.testing.assert_allclose(points[mirrored] * (-1, 1, 1), points, atol=0.02)
    left, right = model.landmark_sets["five"].of(model.mean)[:2, 0]
    assert left < 0 < right  # the eye at the image's left comes first


def test_missing_sets_say_what_there_is(face: Face, tmp_path: Path) -> None:
    for ask in (face.landmarks_in, face.landmark_visibility):
        with pytest.raises(PackError, match=r"no landmark set 'mediapipe468'.*ibug68.*import"):
            ask("mediapipe468")
        with pytest.raises(ValueError, match=r"expected one of .*ibug68.*got 'ears'"):
            ask("ears")
        for name in (["five"], None, 5):
            with pytest.raises(TypeError, match="landmark set: expected a name, got"):
                ask(name)


def test_a_table_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    bad = five_tensors()
    bad["five_vertices"] = bad["five_vertices"] + 9999
    with pytest.raises(PackError, match="'five_vertices' with vertices 0"):
        load_head(tmp_path / "m.safetensors", **bad)


# --- Visibility ----------------------------------------------------------------------------------


def ray_test(table: LandmarkTable, vertices: Array, triangles: Array) -> tuple[Array, Array]:
    """For each point of a triangle whether the line from it to the viewer is free, and whether that
    is clear: next to it the line is just as free, or blocked well before it."""
    points = table.of(vertices).astype(np.float64)
    corners = vertices[triangles].astype(np.float64)
    edges = corners[:, [1, 2, 0], :2] - corners[:, :, :2]
    pixel = np.ptp(vertices[:, :2], axis=0).max() / 512  # of the z-buffer
    seen, clear = np.zeros(len(points), bool), np.zeros(len(points), bool)
    for i, point in enumerate(points):
        own = np.isin(triangles, table.vertices[i]).all(axis=1)
        a, b = corners[own][0, 1:] - corners[own][0, 0]
        facing = a[0] * b[1] < a[1] * b[0]  # y down
        before = []  # how far before the point the nearest surface to the viewer is, pixels
        for dx, dy in [(0, 0), (2, 0), (-2, 0), (0, 2), (0, -2)]:
            to = point[:2] + np.array([dx, dy]) * pixel - corners[:, :, :2]
            sides = edges[:, :, 0] * to[:, :, 1] - edges[:, :, 1] * to[:, :, 0]
            hit = ((sides > 0).all(axis=1) | (sides < 0).all(axis=1)) & ~own
            weights = sides[hit][:, [1, 2, 0]]
            weights = weights / weights.sum(axis=1, keepdims=True)
            depths = (weights * corners[hit][:, :, 2]).sum(axis=1)
            before.append((depths.max(initial=-np.inf) - point[2]) / pixel)
        seen[i] = facing and before[0] <= 0
        clear[i] = max(before) < 2 if seen[i] else min(before) > 6
    return seen, clear


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (35, 10), (-60, 0), (80, -20), (20, 60)])
def test_visibility_against_rays(model: Any, yaw: float, pitch: float) -> None:
    # A long nose, which hides much of the cheek behind it.
    face = head_face(model, head_params(yaw, pitch, coefficients=[0, 0, 0, 4, 0, 0, 0]))
    table = surface_points(250)
    seen, clear = ray_test(table, face.vertices, face.triangles)
    shown = visibility(table, face.vertices, face.triangles)
    assert clear.mean() > 0.6
    np.testing.assert_array_equal(shown[clear], seen[clear])
    # Next to outlines points count as seen that lie a little behind.
    assert (shown == seen).mean() > 0.93 and not (seen & ~shown).any()
    if abs(yaw) >= 60:
        assert 20 < seen.sum() < 230


def test_visibility_of_a_turned_face(model: Any) -> None:
    turned = head_face(model, head_params(yaw=75)).landmark_visibility()
    assert turned.dtype == bool and turned.shape == (68,)
    # The nose points to the image's right, so the subject's right is seen: lower numbers.
    assert turned[:6].all() and not turned[12:17].any()
    frontal = head_face(model, head_params())
    assert frontal.landmark_visibility().all()
    assert frontal.landmark_visibility("five").all()


def test_visibility_does_not_depend_on_place_or_size(model: Any) -> None:
    face = head_face(model, head_params(yaw=50))
    table = surface_points(200)
    expected = visibility(table, face.vertices, face.triangles)
    moved = face.vertices * np.float32(16) + np.float32([4096, -8192, 512])
    np.testing.assert_array_equal(visibility(table, moved, face.triangles), expected)


def test_points_before_and_behind_a_square() -> None:
    square = np.float32([[0, 0, 0], [10, 0, 0], [0, 10, 0], [10, 10, 0]])
    triangles = np.int32([[0, 2, 1], [1, 2, 3]])
    points = np.float32([[5, 5, 1], [5, 5, 0], [5, 5, -1], [20, 5, -1], [5, 5, -0.05]])
    np.testing.assert_array_equal(
        in_front(points, square, triangles), [True, True, False, True, True]
    )


# --- Points of the surface -----------------------------------------------------------------------


@given(u=st.floats(0.05, 0.95), v=st.floats(0.05, 0.95))
def test_locate_and_back(face: Face, u: float, v: float) -> None:
    low, high = face.vertices[:, :2].min(axis=0), face.vertices[:, :2].max(axis=0)
    x, y = low + (high - low) * (u, v)
    found = face.locate(x, y)
    # The rasterizer agrees on whether something is there: move the place to a pixel's centre.
    shifted = face.vertices - np.float32([x - 2, y - 2, 0])
    raster = ops.rasterize(shifted, face.triangles, 5, 5)
    if found is None:
        assert raster.triangle[2, 2] == -1
        return
    assert found.barycentric.min() >= 0
    assert found.barycentric.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found.point[:2], (x, y), atol=1e-3)
    np.testing.assert_array_equal(face.point_at(found.triangle, found.barycentric), found.point)
    if raster.triangle[2, 2] != -1:
        assert found.point[2] == pytest.approx(raster.depth[2, 2], abs=1e-2)


def test_locate_finds_the_triangle_and_its_weights(face: Face) -> None:
    shown = visibility(surface_points(40), face.vertices, face.triangles)
    table = surface_points(40)
    for vertices, weights in zip(table.vertices[shown], table.weights[shown], strict=True):
        x, y, z = weights.astype(np.float64) @ face.vertices[vertices]
        found = face.locate(x, y)
        assert found is not None
        if found.point[2] > z + 0.01:
            continue  # within the z-buffer's pixel of an outline
        np.testing.assert_array_equal(face.triangles[found.triangle], vertices)
        np.testing.assert_allclose(found.barycentric, weights, atol=1e-3)


def test_locate_prefers_the_nearest_surface() -> None:
    vertices = np.float32([[0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 5], [9, 0, 5], [0, 9, 5]])
    model = load_stub(vertices, [[0, 1, 2], [3, 4, 5]])
    assert model.locate(1, 1).triangle == 1
    assert load_stub(vertices, [[3, 4, 5], [0, 1, 2]]).locate(1, 1).triangle == 0


def load_stub(vertices: Array, triangles: Any) -> Any:
    from threedfa.landmark_sets import locate

    class Stub:
        def locate(self, x: float, y: float) -> Any:
            return locate(x, y, vertices, np.int32(triangles))

    return Stub()


def test_nothing_outside_and_at_triangles_without_area(face: Face) -> None:
    assert face.locate(-1e6, 0) is None
    low = face.vertices[:, :2].min(axis=0)
    assert face.locate(low[0] - 1, low[1] - 1) is None
    assert (
        load_stub(np.float32([[0, 0, 0], [1, 1, 0], [2, 2, 0]]), [[0, 1, 2]]).locate(1, 1) is None
    )


def test_bad_places_and_points(face: Face) -> None:
    for x, y in ((np.nan, 1), (1, np.inf)):
        with pytest.raises(ValueError, match="finite"):
            face.locate(x, y)
    with pytest.raises(ValueError, match=r"triangle: expected 0\.\."):
        face.point_at(len(face.triangles), (1, 0, 0))
    with pytest.raises(ValueError, match=r"triangle: expected 0\.\."):
        face.point_at(-1, (1, 0, 0))
    with pytest.raises(ValueError, match="three finite"):
        face.point_at(0, (1, 0))
    with pytest.raises(ValueError, match="three finite"):
        face.point_at(0, (1, 0, np.nan))
    with pytest.raises(TypeError, match="real numbers"):
        face.point_at(0, ("a", "b", "c"))
    with pytest.raises(TypeError, match=r"triangle: expected a whole number, got 1\.5"):
        face.point_at(1.5, (1, 0, 0))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="triangle: expected a whole number, got True"):
        face.point_at(True, (1, 0, 0))
    np.testing.assert_array_equal(
        face.point_at(np.int8(3), (1, 0, 0)),  # type: ignore[arg-type]
        face.point_at(3, (1, 0, 0)),
    )
