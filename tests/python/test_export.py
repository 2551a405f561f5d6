"""Mesh files of faces, as other people's parsers read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import plyfile
import pytest
import trimesh
from PIL import Image

from head import head_face, head_params, load_head, write_head
from threedfa import Face, FaceAligner, MorphableModel, save_mesh
from threedfa.errors import ExportError, ImageError
from threedfa.export import encode_mesh
from threedfa.textures import mesh_texture
from toy_pack import INPUT_SIZE

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


@pytest.mark.parametrize("suffix", ["obj", "ply", "stl"])
def test_faces_given_by_an_iterator(faces: list[Face], tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    save_mesh(path, None, faces)
    expected = path.read_bytes()
    save_mesh(path, None, iter(faces))  # type: ignore[arg-type]
    assert path.read_bytes() == expected


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


# --- Textures, spaces -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_textured_obj_of_two_faces(faces: list[Face], tmp_path: Path, kind: Any) -> None:
    save_mesh(tmp_path / "two.obj", IMAGE, faces, texture_size=64, texture_format=kind)
    suffix = {"png": "png", "jpeg": "jpg"}[kind]
    names = ["two.mtl", "two.obj", f"two_face0.{suffix}", f"two_face1.{suffix}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    scene: Any = trimesh.load(tmp_path / "two.obj", process=False)
    meshes = sorted(scene.geometry.values(), key=lambda mesh: mesh.visual.material.name)
    for mesh, face in zip(meshes, faces, strict=True):
        vertices, triangles, _ = expected_mesh([face])
        np.testing.assert_array_equal(mesh.triangles.astype(np.float32), vertices[triangles])
        assert face.model.uv is not None
        np.testing.assert_array_equal(
            mesh.visual.uv[mesh.faces].astype(np.float32), face.model.uv[triangles]
        )
        texture = np.asarray(mesh.visual.material.image.convert("RGB"))
        assert texture.shape == (64, 64, 3)
        if kind == "png":
            np.testing.assert_array_equal(texture, mesh_texture(IMAGE, face, 64))
        # Given normals look the way the surface does.
        corners = mesh.vertex_normals[mesh.faces].mean(axis=1)
        assert ((corners * mesh.face_normals).sum(axis=1) > 0.3).all()


@pytest.mark.parametrize("suffix", ["obj", "ply", "stl"])
def test_object_space_is_upright_at_the_origin(
    faces: list[Face], tmp_path: Path, suffix: str
) -> None:
    face = faces[0]
    face.save(tmp_path / f"a.{suffix}")
    head = face.model.reconstruct(face.shape_coeffs, face.expression_coeffs)
    mesh: Any = trimesh.load(tmp_path / f"a.{suffix}", process=False)
    np.testing.assert_allclose(mesh.triangles, head[face.triangles], rtol=1e-6)
    face.save(tmp_path / f"b.{suffix}", IMAGE, space="object", texture_size=None)
    mesh = trimesh.load(tmp_path / f"b.{suffix}", process=False)
    np.testing.assert_allclose(mesh.triangles, head[face.triangles], rtol=1e-6)


def test_stl_is_in_millimetres_where_the_unit_is_known(tmp_path: Path) -> None:
    path = write_head(tmp_path / "head.safetensors")
    known = MorphableModel.load(path, input_size=INPUT_SIZE, centimetres_per_unit=10)
    face = head_face(known, head_params())
    face.save(tmp_path / "a.stl")
    mesh: Any = trimesh.load(tmp_path / "a.stl", process=False)
    assert mesh.extents[1] == pytest.approx(10 * 10 * np.ptp(known.mean[:, 1]), rel=1e-5)


def test_stl_in_image_space(faces: list[Face], tmp_path: Path) -> None:
    save_mesh(tmp_path / "a.stl", IMAGE, faces)
    mesh: Any = trimesh.load(tmp_path / "a.stl", process=False)
    vertices, triangles, _ = expected_mesh(faces)
    np.testing.assert_array_equal(mesh.triangles.astype(np.float32), vertices[triangles])


def test_no_texture_coordinates(tmp_path: Path) -> None:
    face = head_face(load_head(tmp_path / "m.safetensors", uv=None), head_params())
    with pytest.raises(ExportError, match=r"texture coordinates .*texture_size=None.*BFM_UV\.mat"):
        face.save(tmp_path / "a.obj", IMAGE)
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]
    for options in ({"image": IMAGE, "texture_size": None}, {}):
        face.save(tmp_path / "a.obj", **options)
        mesh: Any = trimesh.load(tmp_path / "a.obj", process=False)
        assert len(mesh.faces) == len(face.triangles)


def test_faces_that_are_no_numbers(faces: list[Face], tmp_path: Path) -> None:
    params = faces[0].params.copy()
    params[3] = np.nan
    broken = head_face(faces[0].model, faces[0].params)
    object.__setattr__(broken, "params", params)
    for suffix in ("obj", "ply", "stl"):
        with pytest.raises(ValueError, match="finite"):
            broken.save(tmp_path / f"a.{suffix}", IMAGE)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": "camera"}, "space: expected one of image, object, got 'camera'"),
        ({"texture_format": "gif"}, "texture_format: expected one of png, jpeg, got 'gif'"),
        ({"texture_size": 0}, r"size: expected 1\.\.8192 pixels, got 0"),
        ({"image": None, "space": "image"}, "expected the image as well"),
    ],
)
def test_wrong_options(
    faces: list[Face], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        save_mesh(tmp_path / "a.obj", **{"image": IMAGE, "faces": faces, **options})
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["obj", "ply", "stl", "glb"])
@pytest.mark.parametrize(
    ("size", "error"), [(-5, ValueError), (99999, ValueError), (1.5, TypeError)]
)
def test_wrong_texture_sizes_of_any_format(
    faces: list[Face], tmp_path: Path, suffix: str, size: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"texture size: expected .* got {size}"):
        save_mesh(tmp_path / f"a.{suffix}", IMAGE, faces, texture_size=size)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["obj", "ply", "stl"])
def test_files_in_memory(faces: list[Face], tmp_path: Path, suffix: str) -> None:
    files = encode_mesh(f"a b.{suffix}", IMAGE, faces, texture_size=32)
    save_mesh(tmp_path / f"a b.{suffix}", IMAGE, faces, texture_size=32)
    assert dict(files) == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert files[-1][0] == f"a b.{suffix}"


def test_one_face_where_a_list_is_expected(faces: list[Face], tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="got one Face; put it into a list"):
        save_mesh(tmp_path / "f.obj", IMAGE, faces[0])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mesh", "image"), [("photo.obj", "photo_face0.png"), ("photo.ply", "photo.ply")]
)
@pytest.mark.parametrize("linked", [False, True])
def test_the_image_is_never_written_over(
    faces: list[Face], tmp_path: Path, mesh: str, image: str, linked: bool
) -> None:
    given = tmp_path / image
    Image.fromarray(IMAGE).save(given, "PNG")
    before = given.read_bytes()
    if linked:
        given = tmp_path / "link.png"
        given.symlink_to(image)
    with pytest.raises(ExportError, match=rf"cannot write .*{image}: it is the image; choose"):
        faces[0].save(tmp_path / mesh, given)
    assert (tmp_path / image).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {image, given.name}
