"""One test for each line of docs/conventions.md, on the whole analyzer."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import trimesh
from PIL import Image

import threedfa
from head import write_head
from threedfa import ops
from threedfa._core import rotation_from_angles
from toy_pack import CAMERA, HEAD_SCALE, NOSE_TIP, build_toy_pack

Array = npt.NDArray[Any]

EXIF_ORIENTATION = 0x0112
UPSIDE_DOWN = 3


@pytest.fixture(scope="module")
def picture() -> Array:
    """A red square, 32 pixels wide, in the cell whose top left pixel is (64, 32)."""
    image = np.full((96, 160, 3), (0, 40, 90), np.uint8)
    image[32:64, 64:96] = (255, 30, 10)
    return image


@pytest.fixture(scope="module")
def face(picture: Array, toy_pack: Path) -> threedfa.Face:
    (found,) = threedfa.FaceAnalyzer(toy_pack).analyze(picture)
    return found


def turned_face(folder: Path, picture: Array, **angles: float) -> threedfa.Face:
    """The face with a camera that sees the head turned."""
    rotation = rotation_from_angles(*(angles.get(name, 0) for name in ("yaw", "pitch", "roll")))
    camera = np.column_stack([HEAD_SCALE * rotation, [CAMERA[3], CAMERA[7], 0]])
    pack = build_toy_pack(folder / "pack", camera=camera.ravel().tolist())
    (found,) = threedfa.FaceAnalyzer(pack).analyze(picture)
    return found


def test_image_in_every_form_gives_the_same_face(
    picture: Array, face: threedfa.Face, toy_pack: Path, tmp_path: Path
) -> None:
    analyzer = threedfa.FaceAnalyzer(toy_pack)
    path = tmp_path / "picture.png"
    Image.fromarray(picture).save(path)
    rgba = np.dstack([picture, np.full(picture.shape[:2], 7, np.uint8)])
    forms = [np.asfortranarray(picture), rgba, path, str(path), path.read_bytes()]
    for form in [*forms, Image.fromarray(picture)]:
        (found,) = analyzer.analyze(form)
        np.testing.assert_array_equal(found.params, face.params)
    (found,) = analyzer.analyze(picture[..., ::-1], color="bgr")
    np.testing.assert_array_equal(found.params, face.params)
    grey = np.where(picture[..., 0] > 99, 255, 0).astype(np.uint8)
    np.testing.assert_allclose(analyzer.analyze(grey)[0].bbox, face.bbox)


def test_exif_orientation_is_applied(picture: Array, face: threedfa.Face, toy_pack: Path) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = UPSIDE_DOWN
    stream = io.BytesIO()
    Image.fromarray(picture[::-1, ::-1]).save(stream, format="PNG", exif=exif)
    (found,) = threedfa.FaceAnalyzer(toy_pack).analyze(stream.getvalue())
    np.testing.assert_array_equal(found.bbox, face.bbox)


def test_box_is_in_pixels_of_the_image_and_not_clipped(
    face: threedfa.Face, picture: Array, tmp_path: Path
) -> None:
    np.testing.assert_allclose(face.bbox, (64, 32, 96, 64), atol=1e-4)
    # Log 3 / 0.2: boxes three times the size of their priors, beyond the border of the image.
    pack = build_toy_pack(tmp_path / "large", loc=(0, 0, np.log(3) / 0.2, np.log(3) / 0.2))
    (found,) = threedfa.FaceAnalyzer(pack).detector.detect(picture[:64])
    np.testing.assert_allclose(found[0], (32, 0, 128, 96), atol=1e-3)


def test_pixel_centres_lie_at_whole_numbers() -> None:
    # The square that reaches half a pixel around (2, 1) covers just that centre.
    square = [[1.5, 0.5, 0], [2.5, 0.5, 0], [1.5, 1.5, 0], [2.5, 1.5, 0]]
    raster = ops.rasterize(square, [[0, 1, 2], [1, 3, 2]], 4, 5)
    np.testing.assert_array_equal(np.argwhere(raster.triangle >= 0), [[1, 2]])


def test_z_grows_towards_the_viewer_and_has_one_zero(face: threedfa.Face) -> None:
    nose, jaw = face.landmarks[NOSE_TIP], face.landmarks[0]
    assert nose[2] > jaw[2]
    model = face.model
    at_landmarks = np.einsum(
        "ijk,ij->ik", face.vertices[model.landmark_vertices], model.landmark_weights
    )
    np.testing.assert_allclose(face.landmarks, at_landmarks, atol=1e-4)
    origin = face.pose.projection @ (0, 0, 0, 1)
    assert origin[2] == 0


def test_arrays_of_a_face(face: threedfa.Face) -> None:
    vertices = len(face.model.mean)
    assert face.landmarks.shape == (68, 3) and face.landmarks.dtype == np.float32
    assert face.vertices.shape == (vertices, 3) and face.vertices.dtype == np.float32
    assert not face.landmarks.flags.writeable and not face.vertices.flags.writeable
    assert face.triangles.shape[1:] == (3,) and face.triangles.dtype == np.int32
    assert face.triangles.min() == 0 and face.triangles.max() == vertices - 1


def test_triangles_run_counter_clockwise_seen_from_outside(face: threedfa.Face) -> None:
    mean = face.model.mean
    normals = ops.vertex_normals(mean, face.triangles)
    assert (normals * mean).sum(axis=1).min() > 0  # the head is star-shaped around its origin


def test_rotation_is_proper_and_the_identity_for_a_frontal_face(
    face: threedfa.Face, picture: Array, tmp_path: Path
) -> None:
    np.testing.assert_allclose(face.pose.rotation, np.eye(3), atol=1e-6)
    rotation = turned_face(tmp_path, picture, yaw=40, pitch=-20, roll=70).pose.rotation
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(rotation) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("angle", "direction"), [("yaw", (1, 0)), ("pitch", (0, -1)), ("roll", None)]
)
def test_signs_of_the_angles(
    angle: str,
    direction: tuple[int, int] | None,
    face: threedfa.Face,
    picture: Array,
    tmp_path: Path,
) -> None:
    turned = turned_face(tmp_path, picture, **{angle: 25})
    for name in ("yaw", "pitch", "roll"):
        assert getattr(turned.pose, name) == pytest.approx(25 if name == angle else 0, abs=1e-3)
    moved = (turned.landmarks - face.landmarks)[NOSE_TIP, :2]
    if direction is not None:
        assert moved @ direction > 1  # image pixels, y down
    else:
        brows, chin = turned.landmarks[17:27, :2].mean(axis=0), turned.landmarks[8, :2]
        assert brows[0] > chin[0] + 1  # the top of the head tips to the image's right


def test_angles_compose_in_the_documented_order() -> None:
    def turn(axis: int, degrees: float) -> Array:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        matrix = np.eye(3)
        matrix[[i, i, j, j], [i, j, i, j]] = (c, -s, s, c)
        return matrix

    expected = turn(2, -15) @ turn(1, 50) @ turn(0, -35)
    np.testing.assert_allclose(rotation_from_angles(50, 35, 15), expected, atol=1e-6)


def test_projection_maps_object_space_to_the_vertices(picture: Array, tmp_path: Path) -> None:
    face = turned_face(tmp_path, picture, yaw=-30, pitch=12, roll=8)
    points = face.model.reconstruct(face.shape_coeffs, face.expression_coeffs)
    projected = points @ face.pose.projection[:, :3].T + face.pose.projection[:, 3]
    np.testing.assert_allclose(projected, face.vertices, atol=1e-3)


def test_object_space_of_a_frontal_face(face: threedfa.Face) -> None:
    mean = face.model.mean
    highest, rightmost = np.argmax(mean[:, 1]), np.argmax(mean[:, 0])
    assert face.vertices[highest, 1] == pytest.approx(face.vertices[:, 1].min(), abs=1e-3)
    assert face.vertices[rightmost, 0] == pytest.approx(face.vertices[:, 0].max(), abs=1e-3)


def test_mesh_files_are_right_handed_with_y_up(
    face: threedfa.Face, picture: Array, tmp_path: Path
) -> None:
    path = tmp_path / "face.ply"
    threedfa.save_mesh(path, picture, [face])
    mesh = trimesh.load(path, process=False)
    x, y, z = face.vertices.T
    np.testing.assert_allclose(mesh.vertices, np.stack([x, len(picture) - y, z], axis=1), atol=1e-4)
    assert mesh.face_normals[:, 2].mean() > 0  # outside is towards the viewer


def test_mesh_files_in_object_space(face: threedfa.Face, tmp_path: Path) -> None:
    head = face.model.reconstruct(face.shape_coeffs, face.expression_coeffs)
    face.save(tmp_path / "face.ply")
    mesh: Any = trimesh.load(tmp_path / "face.ply", process=False)
    np.testing.assert_allclose(mesh.vertices, head, atol=1e-6)
    model = threedfa.MorphableModel.load(
        write_head(tmp_path / "head.safetensors"),
        input_size=face.model.input_size,
        centimetres_per_unit=10,
    )
    replace(face, model=model).save(tmp_path / "face.glb")
    scene: Any = trimesh.load(tmp_path / "face.glb", process=False)
    neutral = model.reconstruct(face.shape_coeffs, 0 * face.expression_coeffs)
    (mesh,) = scene.geometry.values()
    np.testing.assert_allclose(mesh.vertices, 0.1 * neutral, atol=1e-6)


def test_texture_coordinates_are_0_and_1_at_the_corners(face: threedfa.Face) -> None:
    """A picture whose colours are the texture coordinates shows those of each texel's centre."""
    size, roi = 16, (0, 0, 400, 400)
    vertices = face.model.project(face.params, roi, dense=True)
    raster = ops.rasterize(vertices, face.triangles, 400, 400, attributes=face.model.uv)
    assert raster.image is not None
    picture = np.dstack([raster.image, np.zeros((400, 400))]) * 255
    texture = threedfa.uv_texture(
        np.rint(picture).astype(np.uint8), replace(face, roi=np.array(roi, float)), size=size
    )
    centres = (np.arange(size) + 0.5) / size * 255
    inner = slice(2, -2)  # the others are seen at a flat angle
    for found, expected in ((texture[:, :, 0], centres), (texture[::-1, :, 1].T, centres)):
        columns = found[inner, inner].astype(float).mean(axis=0)
        np.testing.assert_allclose(columns, expected[inner], atol=1.5)


def test_texture_coordinates_have_v_up(face: threedfa.Face, picture: Array) -> None:
    top_blue = np.where(np.arange(96)[:, None, None] < face.vertices[:, 1].mean(), 255, 0)
    image = np.broadcast_to(top_blue * np.array([0, 0, 1]), picture.shape).astype(np.uint8)
    texture = threedfa.uv_texture(image, face, size=64)
    assert texture[8, 32, 2] > 200 and texture[56, 32, 2] < 50
    uv = face.model.uv
    assert uv is not None and uv[np.argmax(face.model.mean[:, 1]), 1] > 0.9


def test_roll_is_zero_where_it_is_not_defined() -> None:
    for yaw in (90, -90):
        camera = np.column_stack([rotation_from_angles(yaw, 20, 50), np.zeros(3)])
        pose = threedfa.Pose.from_camera(camera.ravel(), (0, 0, 120, 120), 120)
        assert pose.roll == 0
        assert pose.yaw == pytest.approx(yaw, abs=1e-3)
        again = rotation_from_angles(pose.yaw, pose.pitch, pose.roll)
        np.testing.assert_allclose(again, pose.rotation, atol=1e-5)
