"""Where a head is in front of a camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from head import head_face, head_params, load_head
from threedfa import Face, PackError
from threedfa._core import rotation_from_angles
from threedfa.metric_pose import intrinsics, place

Array = npt.NDArray[Any]

HEIGHT, WIDTH = 480, 640
CM = 11.5  # centimetres per unit of the toy's head, which is 2 units high


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> Face:
    model = load_head(tmp_path_factory.mktemp("pose") / "m.safetensors")
    model.centimetres_per_unit = CM
    return head_face(model, head_params(yaw=20, pitch=-5, roll=10, coefficients=0.4))


def camera_of(field_of_view: float) -> Array:
    return intrinsics((HEIGHT, WIDTH), None, field_of_view)


def true_transform(yaw: float, pitch: float, roll: float, place: Any) -> Array:
    """From the head to OpenCV's camera, by the angles of docs/conventions.md."""
    transform = np.eye(4)
    transform[:3, :3] = np.diag([1, -1, -1]) @ rotation_from_angles(yaw, pitch, roll)
    transform[:3, 3] = place
    return transform


def head_of(face: Face) -> Array:
    head = face.model.reconstruct(face.shape_coeffs, face.expression_coeffs)
    return head.astype(np.float64) * CM


def seen_through(camera: Array, transform: Array, head: Array) -> Array:
    projected = (head @ transform[:3, :3].T + transform[:3, 3]) @ camera.T
    return projected[:, :2] / projected[:, 2:]


@settings(max_examples=40)
@given(
    yaw=st.floats(-80, 80),
    pitch=st.floats(-50, 50),
    roll=st.floats(-170, 170),
    x=st.floats(-0.3, 0.3),
    y=st.floats(-0.3, 0.3),
    z=st.floats(25, 300),
    field_of_view=st.floats(8, 110),
)
def test_known_poses_are_found(
    face: Face,
    yaw: float,
    pitch: float,
    roll: float,
    x: float,
    y: float,
    z: float,
    field_of_view: float,
) -> None:
    camera, head = camera_of(field_of_view), head_of(face)
    truth = true_transform(yaw, pitch, roll, (x * z, y * z, z))
    pose = place(head, seen_through(camera, truth, head), camera)
    np.testing.assert_allclose(pose.transform(), truth, atol=1e-4 * z)
    np.testing.assert_allclose(pose.transform()[:3, :3], truth[:3, :3], atol=1e-5)
    assert pose.reprojection_error < 1e-4


def test_a_face_is_placed_in_centimetres(face: Face) -> None:
    # The same head, as a camera with perspective sees it from half a metre.
    truth = true_transform(-30, 10, 5, (4, -3, 50))
    seen = head_face(face.model, face.params)
    pixels = seen_through(camera_of(60), truth, head_of(face))
    seen.__dict__["vertices"] = np.column_stack([pixels, np.zeros(len(pixels))]).astype(np.float32)
    by_angle = seen.metric_pose(field_of_view=60, image_size=(HEIGHT, WIDTH))
    by_matrix = seen.metric_pose(camera_matrix=camera_of(60).tolist())
    for pose in (by_angle, by_matrix):
        np.testing.assert_allclose(pose.transform(), truth, atol=1e-2)
        assert pose.reprojection_error < 1e-3
        np.testing.assert_allclose(pose.camera_matrix, camera_of(60))


def test_a_far_face_agrees_with_its_weak_perspective_pose(face: Face) -> None:
    pose = face.metric_pose(field_of_view=1, image_size=(140, 140))
    rotation = pose.transform("opengl")[:3, :3]
    np.testing.assert_allclose(rotation, face.pose.rotation, atol=5e-3)
    assert pose.reprojection_error < 0.2
    near = face.metric_pose(field_of_view=60, image_size=(140, 140))
    assert near.reprojection_error > 5 * pose.reprojection_error
    assert near.transform()[2, 3] < pose.transform()[2, 3]


def test_opencv_camera_reprojects(face: Face) -> None:
    pose = face.metric_pose(field_of_view=2, image_size=(140, 140))
    pixels = seen_through(pose.camera_matrix, pose.transform("opencv"), head_of(face))
    misses = np.linalg.norm(pixels - face.vertices[:, :2], axis=1)
    assert np.sqrt((misses**2).mean()) == pytest.approx(pose.reprojection_error, rel=1e-6)
    assert pose.transform("opencv")[2, 3] > 0  # in front of the camera


def test_opengl_camera_reprojects(face: Face) -> None:
    """By the projection matrix of the OpenGL pipeline: clip space, then the viewport."""
    pose = face.metric_pose(field_of_view=2, image_size=(140, 140))
    (fx, _, cx), (_, fy, cy), _ = pose.camera_matrix
    near, far, size = 1.0, 1e5, 140
    projection = np.array(
        [
            # Pixel centres lie at whole numbers, OpenGL's at halves; window y is up.
            [2 * fx / size, 0, 1 - 2 * (cx + 0.5) / size, 0],
            [0, 2 * fy / size, 2 * (cy + 0.5) / size - 1, 0],
            [0, 0, -(far + near) / (far - near), -2 * far * near / (far - near)],
            [0, 0, -1, 0],
        ]
    )
    head = np.column_stack([head_of(face), np.ones(len(face.vertices))])
    clip = head @ (projection @ pose.transform("opengl")).T
    device = clip[:, :3] / clip[:, 3:]
    assert (np.abs(device[:, 2]) < 1).all() and pose.transform("opengl")[2, 3] < 0
    window = np.column_stack([(device[:, 0] + 1) * size / 2, (1 - device[:, 1]) * size / 2]) - 0.5
    expected = seen_through(pose.camera_matrix, pose.transform("opencv"), head_of(face))
    np.testing.assert_allclose(window, expected, atol=1e-6)


def test_transforms_are_rigid_and_the_callers_own(face: Face) -> None:
    pose = face.metric_pose(field_of_view=40, image_size=(140, 140))
    for convention in ("opencv", "opengl"):
        transform = pose.transform(convention)
        np.testing.assert_allclose(transform[:3, :3] @ transform[:3, :3].T, np.eye(3), atol=1e-9)
        assert np.linalg.det(transform[:3, :3]) == pytest.approx(1)
        np.testing.assert_array_equal(transform[3], (0, 0, 0, 1))
        expected = transform.copy()
        transform[:] = 0
        np.testing.assert_array_equal(pose.transform(convention), expected)
    with pytest.raises(ValueError, match="opencv, opengl, got 'blender'"):
        pose.transform("blender")  # type: ignore[arg-type]


def test_field_of_view_spans_the_width() -> None:
    camera = camera_of(90)
    left, right = (
        (np.array([x, 239.5, 1]) - camera[:, 2])[0] / camera[0, 0] for x in (-0.5, 639.5)
    )
    assert np.degrees(np.arctan(right) - np.arctan(left)) == pytest.approx(90)
    np.testing.assert_array_equal(camera[:2, 2], (319.5, 239.5))
    assert camera[0, 0] == camera[1, 1]


def test_a_pack_without_unit(tmp_path: Path) -> None:
    face = head_face(load_head(tmp_path / "m.safetensors"), head_params())
    with pytest.raises(PackError, match=r"morphable_model\.unit.*micrometre.*metre"):
        face.metric_pose(field_of_view=60, image_size=(10, 10))


@pytest.mark.parametrize(
    ("camera", "error", "message"),
    [
        ({}, ValueError, "both or neither"),
        ({"camera_matrix": np.eye(3), "field_of_view": 60}, ValueError, "both or neither"),
        ({"field_of_view": 60}, ValueError, r"image_size: expected \(height, width\)"),
        (
            {"field_of_view": 60, "image_size": (0, 5)},
            ValueError,
            "image_size: expected a positive",
        ),
        ({"field_of_view": 60, "image_size": (5,)}, ValueError, r"\(height, width\), got \(5,\)"),
        ({"field_of_view": 60, "image_size": (5, 5, 3)}, ValueError, r"got \(5, 5, 3\)"),
        ({"field_of_view": 60, "image_size": (5, np.inf)}, TypeError, "whole number, got inf"),
        ({"field_of_view": 60, "image_size": (5, True)}, TypeError, "whole number, got True"),
        ({"field_of_view": 0, "image_size": (5, 5)}, ValueError, "between 0 and 180, got 0"),
        ({"field_of_view": 180, "image_size": (5, 5)}, ValueError, "between 0 and 180, got 180"),
        ({"field_of_view": np.nan, "image_size": (5, 5)}, ValueError, "between 0 and 180, got nan"),
        ({"camera_matrix": np.eye(4)}, ValueError, r"shape \(3, 3\), got \(4, 4\)"),
        ({"camera_matrix": np.full((3, 3), "x")}, TypeError, "real numbers"),
        ({"camera_matrix": np.full((3, 3), np.nan)}, ValueError, "positive focal"),
        ({"camera_matrix": np.diag([0, 5, 1])}, ValueError, "positive focal"),
        ({"camera_matrix": np.diag([5, -5, 1])}, ValueError, "positive focal"),
        ({"camera_matrix": [[5, 1, 0], [0, 5, 0], [0, 0, 1]]}, ValueError, "positive focal"),
        ({"camera_matrix": np.diag([5, 5, 2])}, ValueError, "positive focal"),
    ],
)
def test_cameras_that_cannot_be(
    face: Face, camera: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        face.metric_pose(**camera)


def test_a_face_of_a_few_pixels(face: Face) -> None:
    camera, head = camera_of(60), head_of(face)
    truth = true_transform(15, 5, -10, (800, -300, 3000))  # a dozen pixels high, 30 metres away
    pose = place(head, seen_through(camera, truth, head), camera)
    np.testing.assert_allclose(pose.transform(), truth, rtol=1e-3, atol=1)
    assert pose.reprojection_error < 1e-4


def test_faces_that_fit_no_pose() -> None:
    head = np.tile([[1.0, 2, 3]], (50, 1))
    with pytest.raises(ValueError, match="expected a face"):
        place(head, np.tile([[5.0, 5]], (50, 1)), camera_of(60))
