"""OBJ, PLY and STL files, read back by other people's parsers."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import plyfile
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from threedfa import ExportError
from threedfa.mesh_files import (
    Mesh,
    MeshPart,
    merge_meshes,
    to_y_up,
    write_obj,
    write_obj_parts,
    write_ply,
    write_stl,
)

WRITERS: dict[str, Callable[..., None]] = {
    "obj": write_obj,
    "ply": write_ply,
    "ascii.ply": lambda *args, **options: write_ply(*args, **options, binary=False),
}

VERTICES = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.1, 1e-7, -12345.678]])
TRIANGLES = np.int32([[0, 1, 2], [2, 1, 3]])
COLORS = np.uint8([[0, 1, 2], [254, 255, 128], [127, 63, 200], [9, 90, 190]])


@st.composite
def meshes(draw: Any) -> Mesh:
    count = draw(st.integers(3, 40))
    coordinates = st.floats(-1e6, 1e6, width=32)
    vertices = draw(hnp.arrays(np.float32, (count, 3), elements=coordinates))
    triangles = draw(hnp.arrays(np.int32, st.tuples(st.integers(1, 40), st.just(3)),
                                elements=st.integers(0, count - 1)))  # fmt: skip
    colors = draw(st.none() | hnp.arrays(np.uint8, (count, 3)))
    return vertices, triangles, colors


def read_trimesh(path: Path) -> Mesh:
    mesh: Any = trimesh.load(path, process=False, maintain_order=True)
    colored = mesh.visual.kind == "vertex"
    return mesh.vertices, mesh.faces, mesh.visual.vertex_colors[:, :3] if colored else None


def read_plyfile(path: Path) -> Mesh:
    data = plyfile.PlyData.read(path)
    points, names = data["vertex"].data, data["vertex"].data.dtype.names
    colors = None
    if "red" in names:
        colors = np.stack([points[name] for name in ("red", "green", "blue")], axis=-1)
    triangles = np.array(list(data["face"]["vertex_indices"])).reshape(-1, 3)
    return np.stack([points[axis] for axis in "xyz"], axis=-1), triangles, colors


def read_obj_by_hand(path: Path) -> Mesh:
    rows = [line.split() for line in path.read_text("ascii").splitlines()]
    points = np.array([[float(x) for x in row[1:]] for row in rows if row[0] == "v"])
    faces = np.array([[int(x) for x in row[1:]] for row in rows if row[0] == "f"])
    assert all(row[0] in "vf" for row in rows)
    colors = np.rint(points[:, 3:] * 255) if points.shape[1] == 6 else None
    return points[:, :3].astype(np.float32), faces - 1, colors  # type: ignore[return-value]


def assert_same(actual: Mesh, expected: Mesh) -> None:
    np.testing.assert_array_equal(np.asarray(actual[0]).astype(np.float32), expected[0])
    np.testing.assert_array_equal(actual[1], expected[1])
    if expected[2] is None:
        assert actual[2] is None
    else:
        np.testing.assert_array_equal(actual[2], expected[2])


@given(meshes(), st.sampled_from(sorted(WRITERS)))
def test_other_parsers_read_the_same_mesh(tmp_path_factory: Any, mesh: Mesh, suffix: str) -> None:
    vertices, triangles, colors = mesh
    path = tmp_path_factory.mktemp("mesh") / f"mesh.{suffix}"
    WRITERS[suffix](path, vertices, triangles, colors=colors)
    assert_same(read_obj_by_hand(path) if suffix == "obj" else read_plyfile(path), mesh)
    assert_same(read_trimesh(path), mesh)


@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_float32_survives_to_the_last_bit(tmp_path: Path, suffix: str) -> None:
    limits = np.finfo(np.float32)
    values = [limits.max, limits.min, limits.tiny, limits.smallest_subnormal, -0.0, 1 / 3,
              16777217.0, 0.1, np.nextafter(np.float32(1), np.float32(2))]  # fmt: skip
    vertices = np.float32(values).reshape(3, 3)
    WRITERS[suffix](tmp_path / f"a.{suffix}", vertices, np.int32([[0, 1, 2]]))
    read = (read_obj_by_hand if suffix == "obj" else read_plyfile)(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(
        read[0].astype(np.float32).view(np.int32), vertices.view(np.int32)
    )


def test_obj_text(tmp_path: Path) -> None:
    write_obj(tmp_path / "a.obj", VERTICES[:3], TRIANGLES[:1], colors=COLORS[:3])
    assert (tmp_path / "a.obj").read_text() == (
        "v 0 0 0 0.0000 0.0039 0.0078\n"
        "v 1 0 0 0.9961 1.0000 0.5020\n"
        "v 0 1 0 0.4980 0.2471 0.7843\n"
        "f 1 2 3\n"
    )


def test_ply_text(tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply", VERTICES[:3], TRIANGLES[:1], colors=COLORS[:3], binary=False)
    header = (
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
        "property float z\nproperty uchar red\nproperty uchar green\nproperty uchar blue\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    body = "0 0 0 0 1 2\n1 0 0 254 255 128\n0 1 0 127 63 200\n3 0 1 2\n"
    assert (tmp_path / "a.ply").read_text() == header + body


@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_any_strides_and_dtypes_and_nothing_changes(tmp_path: Path, suffix: str) -> None:
    write, path = WRITERS[suffix], tmp_path / f"a.{suffix}"
    write(path, VERTICES, TRIANGLES, colors=COLORS)
    expected = path.read_bytes()
    wide = np.zeros((3, 8))
    wide[:, ::2] = VERTICES.T
    vertices, triangles = wide[:, ::2].T, np.asfortranarray(TRIANGLES.astype(np.uint64))
    colors = COLORS[:, ::-1].copy()[:, ::-1]
    arrays = (vertices, triangles, colors)
    for array in arrays:
        array.flags.writeable = False
    before = [array.copy() for array in arrays]
    write(path, vertices, triangles, colors=colors)
    assert path.read_bytes() == expected
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("suffix", ["ply", "ascii.ply"])
def test_points_without_triangles_and_nothing_at_all(tmp_path: Path, suffix: str) -> None:
    none = np.empty((0, 3), np.int32)
    for count in (0, 4):
        WRITERS[suffix](tmp_path / "a.ply", VERTICES[:count], none, colors=COLORS[:count])
        assert_same(read_plyfile(tmp_path / "a.ply"), (VERTICES[:count], none, COLORS[:count]))


def test_obj_without_triangles(tmp_path: Path) -> None:
    write_obj(tmp_path / "a.obj", VERTICES, np.empty((0, 3), np.int32))
    assert (tmp_path / "a.obj").read_text().count("v ") == 4
    write_obj(tmp_path / "a.obj", VERTICES[:0], np.empty((0, 3), np.int32), colors=COLORS[:0])
    assert (tmp_path / "a.obj").read_bytes() == b""


NAN, INF = VERTICES.copy(), VERTICES.copy()
NAN[2, 1], INF[3, 0] = np.nan, -np.inf


@pytest.mark.parametrize("suffix", sorted(WRITERS))
@pytest.mark.parametrize(
    ("vertices", "triangles", "colors", "error", "message"),
    [
        (NAN, TRIANGLES, None, ValueError, r"finite vertices, got 1 .*vertex 2"),
        (INF, TRIANGLES, None, ValueError, r"finite vertices, got 1 .*vertex 3"),
        (VERTICES * np.float64(1e40), TRIANGLES, None, ValueError, r"finite vertices"),
        (VERTICES.T, TRIANGLES, None, ValueError, r"vertices of shape \(N, 3\), got \(3, 4\)"),
        (VERTICES[0], TRIANGLES, None, ValueError, r"vertices of shape \(N, 3\), got \(3,\)"),
        (VERTICES.astype(int), TRIANGLES, None, TypeError, r"vertices of dtype float32, got int"),
        (VERTICES.astype(complex), TRIANGLES, None, TypeError, r"float32, got complex128"),
        (VERTICES.tolist(), TRIANGLES, None, TypeError, r"vertices as a NumPy array, got list"),
        (VERTICES, TRIANGLES + 2, None, ValueError, r"indices in 0\.\.3, got 2\.\.5"),
        (VERTICES, TRIANGLES - 1, None, ValueError, r"indices in 0\.\.3, got -1\.\.2"),
        (VERTICES, TRIANGLES.astype(float), None, TypeError, r"dtype int32, got float64"),
        (VERTICES, TRIANGLES[:, :2], None, ValueError, r"triangles of shape .* got \(2, 2\)"),
        (VERTICES[:0], TRIANGLES, None, ValueError, r"indices in 0\.\.-1"),
        (VERTICES, TRIANGLES, COLORS[:3], ValueError, r"each of the 4 vertices, got 3"),
        (VERTICES, TRIANGLES, COLORS / 255, TypeError, r"dtype uint8 .*got float64"),
        (VERTICES, TRIANGLES, COLORS[:, :1], ValueError, r"colors of shape .* got \(4, 1\)"),
        (VERTICES, TRIANGLES, "red", TypeError, r"colors as a NumPy array, got str"),
    ],
)
def test_wrong_arguments_write_nothing(
    tmp_path: Path,
    suffix: str,
    vertices: Any,
    triangles: Any,
    colors: Any,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        WRITERS[suffix](tmp_path / "a", vertices, triangles, colors=colors)
    assert not any(tmp_path.iterdir())


@given(st.lists(meshes(), min_size=1, max_size=4))
def test_merged_meshes_have_the_same_corners(parts: list[Mesh]) -> None:
    if any(colors is None for _, _, colors in parts):
        parts = [(vertices, triangles, None) for vertices, triangles, _ in parts]
    vertices, triangles, colors = merge_meshes(parts)
    assert (vertices.dtype, triangles.dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(
        vertices[triangles], np.concatenate([part[0][part[1]] for part in parts])
    )
    if parts[0][2] is None:
        assert colors is None
    else:
        assert colors is not None
        np.testing.assert_array_equal(
            colors[triangles],
            np.concatenate([part[2][part[1]] for part in parts if part[2] is not None]),
        )


def test_merging_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="at least one mesh"):
        merge_meshes([])
    with pytest.raises(ValueError, match="for 1 of 2"):
        merge_meshes([(VERTICES, TRIANGLES, COLORS), (VERTICES, TRIANGLES, None)])
    with pytest.raises(ValueError, match=r"indices in 0\.\.3, got 2\.\.5"):
        merge_meshes([(VERTICES, TRIANGLES, None), (VERTICES, TRIANGLES + 2, None)])


def test_y_up() -> None:
    vertices = np.float32([[1, 2, 3], [0, 8.5, -4], [-6, -1, 0]])
    before = vertices.copy()
    turned = to_y_up(vertices, 8)
    assert turned.dtype == np.float32
    np.testing.assert_array_equal(turned, [[1, 6, 3], [0, -0.5, -4], [-6, 9, 0]])
    np.testing.assert_array_equal(vertices, before)


@pytest.mark.parametrize("number", [1, 2])
def test_against_the_files_of_3ddfa_v2(reference: Path, tmp_path: Path, number: int) -> None:
    tiny = np.load(reference / "goldens/export/tiny.npz")
    vertices = to_y_up(tiny["vertices"][number - 1].T, int(tiny["height"]))
    write_ply(tmp_path / "a.ply", vertices, tiny["triangles"][:, ::-1])
    ours = read_plyfile(tmp_path / "a.ply")
    # Its PLY files have an empty line behind the header, which parsers do not read.
    path = reference / f"goldens/export/tiny_single_{number}.ply"
    lines = path.read_text().split("end_header")[1].split("\n")
    rows = [[float(value) for value in line.split()] for line in lines if line.strip()]
    np.testing.assert_allclose(ours[0], rows[:12], rtol=0, atol=0.0051)
    np.testing.assert_array_equal(ours[1], np.array(rows[12:])[:, 1:])


def test_a_face_of_full_size(reference: Path, tmp_path: Path) -> None:
    with gzip.open(reference / "goldens/export/3_bgr.obj.gz", "rt") as stream:
        rows = [line.split() for line in stream]
    points = np.array([row[1:] for row in rows if row[0] == "v"], np.float32)
    triangles = np.array([row[1:] for row in rows if row[0] == "f"], np.int32) - 1
    mesh = (points[:, :3], triangles, np.rint(points[:, 3:] * 255).astype(np.uint8))
    for suffix, write in WRITERS.items():
        write(tmp_path / f"a.{suffix}", mesh[0], mesh[1], colors=mesh[2])
        assert_same(read_trimesh(tmp_path / f"a.{suffix}"), mesh)


# --- STL ------------------------------------------------------------------------------------------


@given(meshes())
def test_trimesh_reads_the_same_stl(tmp_path_factory: Any, mesh: Mesh) -> None:
    vertices, triangles, _ = mesh
    path = tmp_path_factory.mktemp("mesh") / "mesh.stl"
    write_stl(path, vertices, triangles)
    assert path.stat().st_size == 84 + 50 * len(triangles)
    read: Any = trimesh.load(path, process=False)
    np.testing.assert_array_equal(read.triangles.astype(np.float32), vertices[triangles])


def test_normals_of_stl_point_outside(tmp_path: Path) -> None:
    triangles = np.int32([[0, 1, 2], [0, 2, 1], [0, 0, 1]])
    write_stl(tmp_path / "a.stl", VERTICES, triangles)
    facets = np.frombuffer((tmp_path / "a.stl").read_bytes()[84:], "(3,)<f4,(9,)<f4,<u2")
    np.testing.assert_array_equal(facets["f0"], [[0, 0, 1], [0, 0, -1], [0, 0, 0]])


@pytest.mark.parametrize(
    ("vertices", "triangles", "error", "message"),
    [
        (VERTICES * np.float32(np.nan), TRIANGLES, ValueError, "expected finite vertices, got 4"),
        (VERTICES, TRIANGLES + 2, ValueError, r"indices in 0\.\.3, got 2\.\.5"),
        (VERTICES.tolist(), TRIANGLES, TypeError, "vertices as a NumPy array, got list"),
    ],
)
def test_wrong_arguments_write_no_stl(
    tmp_path: Path, vertices: Any, triangles: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        write_stl(tmp_path / "a.stl", vertices, triangles)
    assert not any(tmp_path.iterdir())


# --- OBJ with textures ----------------------------------------------------------------------------


def encoded(picture: Any, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind)
    return stream.getvalue()


PICTURES = [np.full((4, 4, 3), color, np.uint8) for color in ((255, 0, 0), (0, 0, 255))]
UV = np.float32([[0, 0], [1, 0], [0, 1], [0.1, 0.25]])
NORMALS = np.float32([[0, 0, 1], [0, 1, 0], [0, 0.6, 0.8], [1, 0, 0]])


def textured_parts() -> list[MeshPart]:
    return [
        MeshPart(f"face{i}", VERTICES + np.float32(i), TRIANGLES, None, NORMALS, UV, texture)
        for i, texture in enumerate([encoded(PICTURES[0]), encoded(PICTURES[1], "JPEG")])
    ]


def test_textured_obj_text(tmp_path: Path) -> None:
    part = MeshPart(
        "f", VERTICES[:3], TRIANGLES[:1], None, NORMALS[:3], UV[:3], encoded(PICTURES[0])
    )
    write_obj_parts(tmp_path / "my face.obj", [part, replace(part, name="g")])
    stem = f"my_face-{sha256(b'my face').hexdigest()[:8]}"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "my face.obj", f"{stem}.mtl", f"{stem}_f.png", f"{stem}_g.png",
    ]  # fmt: skip
    rows = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nvn 0 0 1\nvn 0 1 0\nvn 0 0.6 0.8\n"
    first, second = (f"o {name}\ng {name}\nusemtl {name}\n" for name in "fg")
    assert (tmp_path / "my face.obj").read_text() == (
        f"mtllib {stem}.mtl\n{first}{rows}f 1/1/1 2/2/2 3/3/3\n{second}{rows}f 4/4/4 5/5/5 6/6/6\n"
    )


def test_parts_that_cannot_be_told_apart(tmp_path: Path) -> None:
    part = textured_parts()[0]
    for parts in ([], [part, part]):
        with pytest.raises(ValueError, match="parts: expected at least one, with different names"):
            write_obj_parts(tmp_path / "a.obj", parts)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("uv", "normals", "corner"), [(UV, None, "1/1"), (None, NORMALS, "1//1"), (None, None, "1")]
)
def test_corners_of_obj(tmp_path: Path, uv: Any, normals: Any, corner: str) -> None:
    write_obj_parts(tmp_path / "a.obj", [MeshPart("a", VERTICES, TRIANGLES, None, normals, uv)])
    lines = (tmp_path / "a.obj").read_text().splitlines()
    assert lines[-2].split()[1] == corner
    mesh: Any = trimesh.load(tmp_path / "a.obj", process=False, maintain_order=True)
    np.testing.assert_array_equal(mesh.vertices.astype(np.float32), VERTICES)
    np.testing.assert_array_equal(mesh.faces, TRIANGLES)


def test_trimesh_reads_textured_obj(tmp_path: Path) -> None:
    write_obj_parts(tmp_path / "a.obj", textured_parts())
    scene: Any = trimesh.load(tmp_path / "a.obj", process=False)
    found_meshes = sorted(scene.geometry.values(), key=lambda mesh: mesh.visual.material.name)
    for mesh, part, picture in zip(found_meshes, textured_parts(), PICTURES, strict=True):
        np.testing.assert_array_equal(mesh.triangles.astype(np.float32), part.vertices[TRIANGLES])
        np.testing.assert_array_equal(mesh.visual.uv[mesh.faces].astype(np.float32), UV[TRIANGLES])
        np.testing.assert_allclose(mesh.vertex_normals[mesh.faces], NORMALS[TRIANGLES], atol=1e-6)
        found = np.asarray(mesh.visual.material.image.convert("RGB")).astype(int)
        assert np.abs(found - picture).max() <= 2


def test_assimp_reads_textured_obj(tmp_path: Path) -> None:
    if shutil.which("assimp") is None:
        pytest.skip("needs assimp's command line (Debian: assimp-utils)")
    write_obj_parts(tmp_path / "a.obj", textured_parts())
    report = subprocess.run(
        ["assimp", "info", str(tmp_path / "a.obj")],
        check=True, capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    words = " ".join(report.split())
    for text in ("Meshes: 2", "Faces: 4", "Materials: 2", "'a_face0.png' 'a_face1.jpg'"):
        assert text in words, report
    for name in ("face0", "face1"):
        assert f"({name}): [6 / 0 / 2 | triangle]" in words


def test_parts_with_colors_need_no_sidecars(tmp_path: Path) -> None:
    write_obj_parts(tmp_path / "a.obj", [MeshPart("a", VERTICES, TRIANGLES, COLORS, NORMALS)])
    assert [path.name for path in tmp_path.iterdir()] == ["a.obj"]
    assert_same(read_trimesh(tmp_path / "a.obj"), (VERTICES, TRIANGLES, COLORS))


@pytest.mark.parametrize("taken", ["a.obj", "a.mtl", "a_face1.jpg"])
def test_textured_obj_comes_whole_or_not_at_all(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).mkdir()  # where a file cannot go
    with pytest.raises(ExportError, match=f"cannot write .*{taken}"):
        write_obj_parts(tmp_path / "a.obj", textured_parts())
    assert [path.name for path in tmp_path.iterdir()] == [taken]


def test_parts_are_not_changed(tmp_path: Path) -> None:
    parts = textured_parts()
    write_obj_parts(tmp_path / "a.obj", parts)
    np.testing.assert_array_equal(parts[1].vertices, VERTICES + np.float32(1))
    np.testing.assert_array_equal(parts[1].triangles, TRIANGLES)
