"""Faces and head pose: the conventions, tested by drawing a head that is turned."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from head import head_face, head_params
from threedfa import Face, MorphableModel, Pose, _core, ops
from toy_pack import COLUMNS, EXPRESSIONS, INPUT_SIZE, ROWS, SHAPES

Array = npt.NDArray[Any]

SIZE = 140  # of the pictures; the head fills two thirds of them
ROI = (20, 20, 120, 120)


def test_faces_go_to_other_processes(model: MorphableModel) -> None:
    face = turned(model, yaw=20)
    one, other = pickle.loads(pickle.dumps([face, face]))
    assert one.model is other.model
    for name in ("bbox", "params", "landmarks", "vertices", "triangles"):
        np.testing.assert_array_equal(getattr(one, name), getattr(face, name))
    assert one.pose.yaw == face.pose.yaw
    same = copy.deepcopy(face)
    assert same.model is face.model and same.params is not face.params
    assert dataclasses.asdict(face)["score"] == face.score


def test_a_model_without_a_file_stays_where_it_is(model: MorphableModel) -> None:
    nameless = MorphableModel(model._core)
    with pytest.raises(TypeError, match="opened from a file"):
        pickle.dumps(nameless)


def turned(model: MorphableModel, **angles: float) -> Face:
    return head_face(model, head_params(**angles), ROI)


def spots(model: MorphableModel, **angles: float) -> dict[str, Array]:
    """Where a picture of the turned head shows its nose, crown and left cheek (the subject's), and
    the middle of the head: (x, y) of the centre of their colours."""
    row, column = np.divmod(np.arange(ROWS * COLUMNS), COLUMNS)
    nose = (np.abs(column - COLUMNS // 2) <= 1) & (np.abs(row - 9) <= 1)
    colors = np.stack([nose, row <= 1, column >= COLUMNS - 6], axis=1).astype(np.float32)
    face = turned(model, **angles)
    raster = ops.rasterize(face.vertices, face.triangles, SIZE, SIZE, attributes=colors)
    assert raster.image is not None
    shown = {
        name: np.argwhere(raster.image[:, :, i] > 0.5)[:, ::-1]
        for i, name in enumerate(("nose", "crown", "left cheek"))
    }
    shown["head"] = np.argwhere(raster.triangle >= 0)[:, ::-1]
    return {name: pixels.mean(axis=0) for name, pixels in shown.items() if len(pixels)}


def test_a_frontal_head(model: MorphableModel) -> None:
    seen = spots(model)
    assert abs(seen["nose"][0] - seen["head"][0]) < 1
    assert abs(seen["crown"][0] - seen["head"][0]) < 1
    assert seen["crown"][1] < seen["nose"][1] - 30
    assert seen["left cheek"][0] > seen["nose"][0] + 15  # it looks at us: its left is on our right


@pytest.mark.parametrize("angle", [15, 30, 50])
def test_yaw(model: MorphableModel, angle: float) -> None:
    front, right, left = (spots(model, yaw=a) for a in (0, angle, -angle))
    assert right["nose"][0] > front["nose"][0] + 5
    assert left["nose"][0] < front["nose"][0] - 5
    for seen in (right, left):
        assert abs(seen["nose"][1] - front["nose"][1]) < 2


@pytest.mark.parametrize("angle", [15, 30, 50])
def test_pitch(model: MorphableModel, angle: float) -> None:
    front, up, down = (spots(model, pitch=a) for a in (0, angle, -angle))
    assert up["nose"][1] < front["nose"][1] - 5
    assert down["nose"][1] > front["nose"][1] + 5
    for seen in (up, down):
        assert abs(seen["nose"][0] - front["nose"][0]) < 1


@pytest.mark.parametrize("angle", [15, 45, 90, 135])
def test_roll(model: MorphableModel, angle: float) -> None:
    """Clockwise on the screen: the crown goes to the right, the cheek on the right goes down."""
    front, clockwise, counter = (spots(model, roll=a) for a in (0, angle, -angle))
    assert clockwise["crown"][0] > front["crown"][0] + 5
    assert counter["crown"][0] < front["crown"][0] - 5
    assert clockwise["left cheek"][1] > front["left cheek"][1] + 4
    assert counter["left cheek"][1] < front["left cheek"][1] - 4
    # Turning the picture by the angle about the origin of the model gives the same spots.
    turn = np.radians(angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    origin = turned(model).pose.projection[:2, 3]
    for name in ("nose", "crown", "left cheek"):
        expected = matrix @ (front[name] - origin) + origin
        np.testing.assert_allclose(clockwise[name], expected, atol=1)


def test_yaw_and_roll_together(model: MorphableModel) -> None:
    """Roll is a turn of the finished picture: the turned-away head turns about the line of
    sight."""
    away = spots(model, yaw=40)
    both = spots(model, yaw=40, roll=90)
    origin = turned(model).pose.projection[:2, 3]
    x, y = away["nose"] - origin
    np.testing.assert_allclose(both["nose"] - origin, (-y, x), atol=1)


yaws = st.floats(-89, 89)
angles = st.floats(-179, 179)


@given(yaws, angles, angles)
def test_angles_survive(yaw: float, pitch: float, roll: float) -> None:
    pose = Pose.from_camera(head_params(yaw, pitch, roll)[:12], ROI, INPUT_SIZE)
    np.testing.assert_allclose((pose.yaw, pose.pitch, pose.roll), (yaw, pitch, roll), atol=0.01)
    np.testing.assert_allclose(
        pose.rotation, _core.rotation_from_angles(yaw, pitch, roll), atol=1e-6
    )


@given(yaws, angles, angles)
def test_rotation_is_the_product_of_its_turns(yaw: float, pitch: float, roll: float) -> None:
    y, p, r = np.radians([yaw, -pitch, -roll])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    np.testing.assert_allclose(
        _core.rotation_from_angles(yaw, pitch, roll), about_z @ about_y @ about_x, atol=1e-6
    )


@pytest.mark.parametrize("yaw", [90, -90])
@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (20, 0), (0, 20), (50, -30), (170, 60)])
def test_profiles(yaw: float, pitch: float, roll: float) -> None:
    """Where pitch and roll turn about the same axis, roll is 0 and the rotation still right."""
    pose = Pose.from_camera(head_params(yaw, pitch, roll)[:12], ROI, INPUT_SIZE)
    assert pose.roll == 0
    np.testing.assert_allclose(pose.yaw, yaw, atol=0.01)
    np.testing.assert_allclose(
        _core.rotation_from_angles(pose.yaw, pose.pitch, pose.roll),
        _core.rotation_from_angles(yaw, pitch, roll),
        atol=3e-4,
    )


@given(st.integers(0, 2**32 - 1))
def test_rotations_of_any_camera_are_proper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    camera = (rng.normal(size=12) * 10.0 ** rng.uniform(-6, 6)).astype(np.float32)
    pose = Pose.from_camera(camera, ROI, INPUT_SIZE)
    rotation = pose.rotation.astype(np.float64)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-6)
    rows = camera.astype(np.float64).reshape(3, 4)[:2, :3]
    lengths = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(pose.scale, lengths.mean(), rtol=1e-6)
    np.testing.assert_array_equal(pose.translation, camera[[3, 7, 11]])
    # No orthonormal pair is closer to the two directions than the one of the polar decomposition.
    u, _, vt = np.linalg.svd(rows / lengths[:, None], full_matrices=False)
    np.testing.assert_allclose(rotation[:2], u @ vt, atol=1e-5)


@given(st.integers(0, 2**32 - 1))
def test_projection_reproduces_the_vertices(model: MorphableModel, seed: int) -> None:
    rng = np.random.default_rng(seed)
    params = head_params(*rng.uniform(-80, 80, 3), rng.normal(size=SHAPES + EXPRESSIONS))
    params[:12] += rng.normal(size=12) * 0.3  # regressed cameras are not quite orthogonal
    face = head_face(model, params, (*rng.uniform(-50, 50, 2), *rng.uniform(100, 300, 2)))
    shape = model.reconstruct(face.shape_coeffs, face.expression_coeffs)
    projection = face.pose.projection
    assert projection.shape == (3, 4)
    points = np.column_stack([shape, np.ones(len(shape))]) @ projection.astype(np.float64).T
    np.testing.assert_allclose(face.vertices, points, rtol=1e-5, atol=2e-3)
    assert projection[2, 3] == 0


def test_face(model: MorphableModel) -> None:
    coefficients = np.arange(SHAPES + EXPRESSIONS)
    face = head_face(model, head_params(coefficients=coefficients), ROI)
    np.testing.assert_array_equal(face.shape_coeffs, coefficients[:SHAPES])
    np.testing.assert_array_equal(face.expression_coeffs, coefficients[SHAPES:])
    np.testing.assert_array_equal(face.triangles, model.triangles)
    assert face.vertices.shape == model.mean.shape
    assert face.vertices is face.vertices  # computed once
    assert face.landmarks.shape == (68, 3)
    with pytest.raises(AttributeError):
        face.score = 1.0  # type: ignore[misc]
    assert repr(face) == (
        "Face(bbox=[20.0 20.0 120.0 120.0], score=0.900, confidence=None, "
        f"model=MorphableModel({len(model.mean)} vertices, {SHAPES} shapes, "
        f"{EXPRESSIONS} expressions))"
    )
    assert "confidence=0.123," in repr(dataclasses.replace(face, confidence=0.12345))


def test_arrays_are_read_only(model: MorphableModel) -> None:
    """Each follows from others, so none is changed alone; what the caller gave stays writable."""
    params = head_params(yaw=20)
    face = head_face(model, params, ROI)
    assert params.flags.writeable
    copies = copy.deepcopy(face), pickle.loads(pickle.dumps(face)), dataclasses.replace(face)
    for each in (face, *copies):
        for name in ("bbox", "roi", "params", "landmarks", "vertices", "dense_vertices"):
            with pytest.raises(ValueError, match="read-only"):
                getattr(each, name)[:] = 0
        with pytest.raises(ValueError, match="read-only"):
            each.expression_coeffs[:] = 0


@pytest.mark.parametrize(
    ("camera", "match"),
    [
        (np.zeros(12), r"camera: expected first two rows that are not zero, got"),
        ([1, 2, 3, 0, 2, 4, 6, 0, 0, 0, 1, 0], r"camera: expected .*not parallel, got"),
        ([np.nan, *range(11)], r"camera: expected finite .*got nan"),
        (np.ones(11), r"camera: expected .*\(12,\), got float64 \(11,\)"),
        (np.ones((3, 4)), r"camera: expected .*\(12,\), got float64 \(3, 4\)"),
    ],
)
def test_cameras_that_are_none(camera: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Pose.from_camera(camera, ROI, INPUT_SIZE)


def test_regions_that_are_none(tmp_path: Path) -> None:
    camera = head_params()[:12]
    with pytest.raises(ValueError, match=r"roi: expected .*x1 < x2"):
        Pose.from_camera(camera, (10, 10, 10, 20), INPUT_SIZE)
    with pytest.raises(ValueError, match="input_size: expected 1 or more, got 0"):
        Pose.from_camera(camera, ROI, 0)
    with pytest.raises(TypeError, match="camera: expected an array of real numbers"):
        Pose.from_camera(["1"] * 12, ROI, INPUT_SIZE)
