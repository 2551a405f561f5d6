"""Mesh files of faces, as other people's parsers read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import plyfile
import pytest
import trimesh

from threedfa import Face, FaceAligner, save_mesh
from threedfa.errors import ExportError, ImageError

Array = npt.NDArray[Any]

HEIGHT, WIDTH = 160, 240
IMAGE = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
BOXES = [[20, 20, 100, 100], [110, -20, 220, 90]]  # the second reaches out of the picture


@pytest.fixture(scope="module")
def faces(toy_pack: Path) -> list[Face]:
    return FaceAligner(toy_pack).align(IMAGE, BOXES)


def expected_mesh(faces: list[Face]) -> tuple[Array, Array, Array]:
    """Vertices (x, height - y, z), triangles and the colours of the nearest pixels."""
    count = len(faces[0].vertices)
    vertices = np.concatenate([face.vertices for face in faces])
    columns = np.rint(vertices[:, 0]).astype(int).clip(0, WIDTH - 1)
    rows = np.rint(vertices[:, 1]).astype(int).clip(0, HEIGHT - 1)
    triangles = np.concatenate([face.triangles + count * i for i, face in enumerate(faces)])
    flipped = np.stack([vertices[:, 0], np.float32(HEIGHT) - vertices[:, 1], vertices[:, 2]], 1)
    return flipped, triangles, IMAGE[rows, columns]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("suffix", ["obj", "ply", "PLY", "Obj"])
def test_trimesh_reads_the_same_mesh(
    faces: list[Face], tmp_path: Path, suffix: str, count: int
) -> None:
    path = tmp_path / f"mesh.{suffix}"
    save_mesh(path, IMAGE, faces[:count], texture_size=None)
    mesh: Any = trimesh.load(path, file_type=suffix.lower(), process=False, maintain_order=True)
    vertices, triangles, colors = expected_mesh(faces[:count])
    np.testing.assert_array_equal(mesh.vertices.astype(np.float32), vertices)
    np.testing.assert_array_equal(mesh.faces, triangles)
    np.testing.assert_array_equal(mesh.visual.vertex_colors[:, :3], colors)
    # Right-handed, outside out: the front of a head shows its counter-clockwise side.
    assert mesh.face_normals[:, 2].mean() > 0.3


def test_plyfile_reads_the_same_mesh(faces: list[Face], tmp_path: Path) -> None:
    path = tmp_path / "mesh.ply"
    save_mesh(str(path), IMAGE, faces)
    content = plyfile.PlyData.read(path)
    assert not content.text and content.byte_order == "<"
    vertices, triangles, colors = expected_mesh(faces)
    vertex = content["vertex"]
    np.testing.assert_array_equal(np.stack([vertex[axis] for axis in "xyz"], axis=1), vertices)
    names = ("red", "green", "blue")
    np.testing.assert_array_equal(np.stack([vertex[name] for name in names], axis=1), colors)
    np.testing.assert_array_equal(np.stack(content["face"]["vertex_indices"]), triangles)


@pytest.mark.parametrize("suffix", ["obj", "ply"])
def test_the_same_bytes_for_the_same_image_however_given(
    faces: list[Face], tmp_path: Path, suffix: str
) -> None:
    first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    save_mesh(first, IMAGE, faces, texture_size=None)
    save_mesh(second, IMAGE[:, :, ::-1], faces, color="bgr", texture_size=None)
    assert first.read_bytes() == second.read_bytes()
    save_mesh(second, IMAGE, faces[:1], texture_size=None)  # over an older file
    assert len(second.read_bytes()) < len(first.read_bytes())


@pytest.mark.parametrize("name", ["mesh.gltf", "mesh", "obj", "mesh.obj.txt", ".ply"])
def test_unknown_suffix(faces: list[Face], tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match=r"expected a name that ends in \.obj, .* or \.stl"):
        save_mesh(tmp_path / name, IMAGE, faces)
    assert list(tmp_path.iterdir()) == []


def test_no_faces(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="at least one face, got none"):
        save_mesh(tmp_path / "mesh.obj", IMAGE, [])
    assert list(tmp_path.iterdir()) == []


def test_bad_image(faces: list[Face], tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        save_mesh(tmp_path / "mesh.obj", IMAGE.astype(float), faces)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["obj", "ply"])
def test_a_folder_that_is_not_there(faces: list[Face], tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ExportError, match=r"cannot write .*No such file or directory"):
        save_mesh(tmp_path / "missing" / f"mesh.{suffix}", IMAGE, faces)
    assert list(tmp_path.iterdir()) == []


def test_arguments_are_left_as_they_were(faces: list[Face], tmp_path: Path) -> None:
    image, vertices = IMAGE.copy(), faces[0].vertices.copy()
    save_mesh(tmp_path / "mesh.obj", image, faces)
    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(faces[0].vertices, vertices)
