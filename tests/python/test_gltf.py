"""GLB files, read back by other people's parsers and judged by the Khronos validator."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import npm
from head import head_face, head_params, load_head, write_head
from threedfa import ExportError, Face, MorphableModel, ops, save_mesh, uv_texture
from threedfa.gltf import GltfNode, write_glb
from threedfa.mesh_files import MeshPart
from threedfa.textures import mesh_texture
from toy_pack import INPUT_SIZE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its dependencies' deprecations
    import pygltflib

Array = npt.NDArray[Any]

HEIGHT, WIDTH = 160, 240
NAMES = ("jawOpen", "mouthSmile", "browInnerUp")
CENTIMETRES = 10.0  # for a unit of the model, whose head is 2 units high
READERS = Path(__file__).parent / "gltf_readers"
NPM_PACKAGES = ("gltf-validator@2.0.0-dev.3.10", "three@0.187.0")


@pytest.fixture(scope="module")
def image() -> Array:
    """Colours that change slowly, so that a place between pixels has a colour."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    return np.stack([x, y, (x + y) // 2], axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MorphableModel:
    return MorphableModel.load(
        write_head(tmp_path_factory.mktemp("gltf") / "head.safetensors"),
        input_size=INPUT_SIZE,
        centimetres_per_unit=CENTIMETRES,
        expression_names=NAMES,
    )


@pytest.fixture(scope="module")
def faces(model: MorphableModel) -> list[Face]:
    """Two heads, the second smaller, with weights that a float32 holds exactly."""
    small = [0.5, 1, -0.25, 0, 0.125, 0.75, 0.5]
    return [
        head_face(model, head_params(25, -10, 15, 0.25), (20, 20, 120, 120)),
        head_face(model, head_params(-35, 5, 0, small), (140, 60, 200, 120)),
    ]


@pytest.fixture(scope="module")
def file(image: Array, faces: list[Face], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gltf") / "two.glb"
    save_mesh(path, image, faces, texture_size=128)
    return path


def read_array(document: Any, index: int) -> Array:
    accessor = document.accessors[index]
    view = document.bufferViews[accessor.bufferView]
    dtype = {5126: np.float32, 5125: np.uint32, 5123: np.uint16}[accessor.componentType]
    columns = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[accessor.type]
    start = view.byteOffset + (accessor.byteOffset or 0)
    array = np.frombuffer(document.binary_blob(), dtype, accessor.count * columns, start)
    assert array.nbytes == view.byteLength
    array = array.reshape(accessor.count, columns)
    if accessor.min:
        np.testing.assert_array_equal(array.min(axis=0), np.float32(accessor.min))
        np.testing.assert_array_equal(array.max(axis=0), np.float32(accessor.max))
    return array


def read_image(document: Any, index: int) -> Array:
    view = document.bufferViews[document.images[index].bufferView]
    content = document.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    with Image.open(io.BytesIO(content)) as picture:
        assert Image.MIME[str(picture.format)] == document.images[index].mimeType
        return np.asarray(picture.convert("RGB"))


def node_matrix(node: Any) -> Array:
    x, y, z, w = node.rotation or (0, 0, 0, 1)
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * (node.scale or [1, 1, 1])
    matrix[:3, 3] = node.translation or [0, 0, 0]
    return matrix


def morphed(document: Any, number: int) -> Array:
    """Vertices of a node in the scene, with its mesh's weights."""
    node = document.nodes[number]
    mesh = document.meshes[node.mesh]
    (primitive,) = mesh.primitives
    vertices = read_array(document, primitive.attributes.POSITION).astype(np.float64)
    for weight, target in zip(mesh.weights, primitive.targets, strict=True):
        vertices += weight * read_array(document, target["POSITION"])
    matrix = node_matrix(node)
    return np.asarray(vertices @ matrix[:3, :3].T + matrix[:3, 3])


def expected_scene(faces: list[Face]) -> list[Array]:
    """The faces' vertices in metres around the middle of the picture."""
    scales = [np.linalg.norm(face.pose.projection[:2, :3], axis=1).mean() for face in faces]
    pixels_per_metre = np.exp(np.mean(np.log(scales))) / (CENTIMETRES / 100)
    origin = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2, 0])
    return [(face.vertices - origin) * (1, -1, 1) / pixels_per_metre for face in faces]


# --- What is in the file --------------------------------------------------------------------------


def test_pygltflib_reads_the_faces(file: Path, faces: list[Face], model: MorphableModel) -> None:
    document: Any = pygltflib.GLTF2().load(str(file))
    assert [node.name for node in document.nodes] == ["face0", "face1"]
    assert document.scenes[document.scene].nodes == [0, 1]
    metres = CENTIMETRES / 100
    for number, face in enumerate(faces):
        mesh = document.meshes[document.nodes[number].mesh]
        (primitive,) = mesh.primitives
        neutral = model.reconstruct(face.shape_coeffs, np.zeros(len(NAMES)))
        vertices = read_array(document, primitive.attributes.POSITION)
        np.testing.assert_allclose(vertices, neutral * metres, rtol=1e-6)
        triangles = read_array(document, primitive.indices).reshape(-1, 3)
        np.testing.assert_array_equal(triangles, face.triangles)
        np.testing.assert_allclose(
            read_array(document, primitive.attributes.NORMAL),
            ops.vertex_normals(neutral, face.triangles),
            atol=1e-5,
        )
        uv = read_array(document, primitive.attributes.TEXCOORD_0)
        np.testing.assert_allclose(uv * (1, -1) + (0, 1), face.model.uv, atol=1e-7)  # type: ignore[arg-type]
        assert mesh.extras == {"targetNames": list(NAMES)}
        assert mesh.weights == face.expression_coeffs.tolist()
        for target, mode in zip(primitive.targets, model.expression_basis, strict=True):
            delta = read_array(document, target["POSITION"])
            np.testing.assert_allclose(delta, mode * metres, rtol=1e-6)


def test_faces_of_one_model_share_its_targets(file: Path) -> None:
    document: Any = pygltflib.GLTF2().load(str(file))
    first, second = (mesh.primitives[0].targets for mesh in document.meshes)
    assert first == second


def test_weights_give_the_fitted_face_where_the_picture_has_it(
    file: Path, faces: list[Face]
) -> None:
    document: Any = pygltflib.GLTF2().load(str(file))
    for number, expected in enumerate(expected_scene(faces)):
        np.testing.assert_allclose(morphed(document, number), expected, atol=1e-6)


def test_one_face_has_its_true_size_and_turn(
    image: Array, faces: list[Face], tmp_path: Path
) -> None:
    faces[0].save(tmp_path / "a.glb", image, texture_size=16)
    document: Any = pygltflib.GLTF2().load(str(tmp_path / "a.glb"))
    matrix = node_matrix(document.nodes[0])
    np.testing.assert_allclose(matrix[:3, :3], faces[0].pose.rotation, atol=1e-6)
    assert not document.nodes[0].scale  # the default, 1


def test_object_space_is_upright_at_the_origin(
    image: Array, faces: list[Face], tmp_path: Path
) -> None:
    for options in ({"image": image, "space": "object", "texture_size": 16}, {}):
        faces[1].save(tmp_path / "a.glb", **options)
        document: Any = pygltflib.GLTF2().load(str(tmp_path / "a.glb"))
        face = faces[1].model.reconstruct(faces[1].shape_coeffs, faces[1].expression_coeffs)
        np.testing.assert_allclose(morphed(document, 0), face * CENTIMETRES / 100, atol=1e-6)
        assert (document.images != []) == ("image" in options)


def test_texture_has_the_colours_of_the_landmarks(
    file: Path, image: Array, faces: list[Face], model: MorphableModel
) -> None:
    document: Any = pygltflib.GLTF2().load(str(file))
    for number, face in enumerate(faces):
        texture = read_image(document, number)
        np.testing.assert_array_equal(texture, mesh_texture(image, face, 128))
        primitive = document.meshes[number].primitives[0]
        uv = read_array(document, primitive.attributes.TEXCOORD_0)
        places = np.einsum("ijk,ij->ik", uv[model.landmark_vertices], model.landmark_weights)
        column, row = np.floor(places * 128).astype(int).T
        x, y = np.rint(face.landmarks[:, :2]).astype(int).T
        _, visibility = uv_texture(image, face, size=128, return_visibility=True)
        seen = visibility[row, column] > 0.5  # elsewhere the other half has a share
        difference = np.abs(texture[row, column].astype(int) - image[y, x]).max(axis=1)
        assert seen.sum() > 35
        assert np.median(difference[seen]) <= 2 and np.percentile(difference[seen], 95) <= 6


def test_jpeg_is_embedded_as_jpeg(image: Array, faces: list[Face], tmp_path: Path) -> None:
    options: Any = {"texture_size": 128, "texture_format": "jpeg"}
    faces[0].save(tmp_path / "a.glb", image, **options)
    document: Any = pygltflib.GLTF2().load(str(tmp_path / "a.glb"))
    texture = read_image(document, 0).astype(int)
    assert np.abs(texture - mesh_texture(image, faces[0], 128)).mean() < 3
    material = document.materials[document.meshes[0].primitives[0].material]
    texture_index = material.pbrMetallicRoughness.baseColorTexture.index
    assert document.textures[texture_index].source == 0


def test_colours_of_vertices_are_linear(image: Array, faces: list[Face], tmp_path: Path) -> None:
    faces[0].save(tmp_path / "a.glb", image, texture_size=None)
    document: Any = pygltflib.GLTF2().load(str(tmp_path / "a.glb"))
    linear = read_array(document, document.meshes[0].primitives[0].attributes.COLOR_0)
    encoded = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055
    )
    x, y = np.rint(faces[0].vertices[:, :2]).astype(int).T
    np.testing.assert_allclose(encoded * 255, image[y, x], atol=1e-3)
    assert not document.images


def test_modes_without_names_are_numbered(tmp_path: Path) -> None:
    model = MorphableModel.load(
        write_head(tmp_path / "m.safetensors"), input_size=INPUT_SIZE, centimetres_per_unit=1
    )
    head_face(model, head_params()).save(tmp_path / "a.glb")
    document: Any = pygltflib.GLTF2().load(str(tmp_path / "a.glb"))
    names = ["expression0", "expression1", "expression2"]
    assert document.meshes[0].extras == {"targetNames": names}


def test_model_without_expressions(tmp_path: Path) -> None:
    model = MorphableModel.load(
        write_head(tmp_path / "m.safetensors", expression_basis=np.zeros((0, 323, 3), np.float32)),
        input_size=INPUT_SIZE,
        centimetres_per_unit=1,
    )
    head_face(model, head_params()[:16]).save(tmp_path / "a.glb")
    document: Any = pygltflib.GLTF2().load(str(tmp_path / "a.glb"))
    assert not document.meshes[0].primitives[0].targets and not document.meshes[0].weights


@st.composite
def nodes(draw: Any) -> GltfNode:
    count = draw(st.integers(3, 20))
    numbers = st.floats(-1e3, 1e3, width=32)
    triangles = draw(hnp.arrays(np.int32, st.tuples(st.integers(1, 20), st.just(3)),
                                elements=st.integers(0, count - 1)))  # fmt: skip
    targets = draw(st.lists(hnp.arrays(np.float32, (count, 3), elements=numbers), max_size=3))
    vertices = draw(hnp.arrays(np.float32, (count, 3), elements=numbers))
    colors = draw(st.none() | hnp.arrays(np.uint8, (count, 3)))
    return GltfNode(
        MeshPart(draw(st.text(max_size=8)), vertices, triangles, colors),
        targets,
        [f"name {i}" for i in range(len(targets))],
        draw(hnp.arrays(np.float32, len(targets), elements=numbers)),
    )


@settings(max_examples=40)
@given(st.lists(nodes(), min_size=1, max_size=3))
def test_any_meshes_come_back(tmp_path_factory: Any, written: list[GltfNode]) -> None:
    path = tmp_path_factory.mktemp("glb") / "a.glb"
    write_glb(path, written)
    document: Any = pygltflib.GLTF2().load(str(path))
    for node, found in zip(written, document.nodes, strict=True):
        mesh = document.meshes[found.mesh]
        (primitive,) = mesh.primitives
        assert found.name == node.mesh.name
        np.testing.assert_array_equal(
            read_array(document, primitive.attributes.POSITION), node.mesh.vertices
        )
        np.testing.assert_array_equal(
            read_array(document, primitive.indices).reshape(-1, 3), node.mesh.triangles
        )
        for target, delta in zip(primitive.targets, node.targets, strict=True):
            np.testing.assert_array_equal(read_array(document, target["POSITION"]), delta)
        assert (mesh.weights or []) == np.asarray(node.weights).tolist()


def test_more_vertices_than_16_bits_can_number(tmp_path: Path) -> None:
    vertices = np.random.default_rng(0).random((70000, 3), np.float32)
    triangles = np.int32([[0, 1, 2], [69999, 65535, 65534]])
    write_glb(tmp_path / "a.glb", [GltfNode(MeshPart("many", vertices, triangles))])
    mesh: Any = trimesh.load(tmp_path / "a.glb", process=False, force="mesh")
    np.testing.assert_array_equal(mesh.faces, triangles)


# --- Other people's programs ----------------------------------------------------------------------


def test_trimesh_reads_the_scene(file: Path, faces: list[Face]) -> None:
    scene: Any = trimesh.load(file, process=False)
    assert set(scene.geometry) == {"face0", "face1"}
    for number, face in enumerate(faces):
        mesh = scene.geometry[f"face{number}"]
        np.testing.assert_array_equal(mesh.faces, face.triangles)
        np.testing.assert_allclose(mesh.visual.uv, face.model.uv, atol=1e-6)  # type: ignore[arg-type]
        assert mesh.visual.material.baseColorTexture.size == (128, 128)
        assert mesh.face_normals[:, 2].mean() > 0.3  # the front is +z
        transform, _ = scene.graph[f"face{number}"]
        turned = transform[:3, :3] / np.linalg.norm(transform[:3, :3], axis=0)
        np.testing.assert_allclose(turned, face.pose.rotation, atol=1e-6)


def test_assimp_reads_the_scene(file: Path, faces: list[Face], tmp_path: Path) -> None:
    if shutil.which("assimp") is None:
        pytest.skip("needs assimp's command line (Debian: assimp-utils)")
    report = run(["assimp", "info", str(file)])
    vertices = sum(len(face.vertices) for face in faces)
    triangles = sum(len(face.triangles) for face in faces)
    for line in ("Meshes: 2", f"Vertices: {vertices}", f"Faces: {triangles}", "(embed.): 2"):
        assert line in " ".join(report.split()), line
    # As another program's OBJ: the neutral faces, placed.
    run(["assimp", "export", str(file), str(tmp_path / "a.obj")])
    rows = [line.split() for line in (tmp_path / "a.obj").read_text().splitlines()]
    found = np.array([row[1:4] for row in rows if row and row[0] == "v"], float)
    document: Any = pygltflib.GLTF2().load(str(file))
    for mesh in document.meshes:
        mesh.weights = [0.0] * len(NAMES)
    expected = np.concatenate([morphed(document, number) for number in range(2)])
    # It merges vertices that are equal, and sorts.
    for one, other in ((found, expected), (expected, found)):
        distances = np.linalg.norm(one[:, None] - other[None], axis=2).min(axis=1)
        assert distances.max() < 1e-5


@pytest.fixture(scope="session")
def npm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages from npm and the scripts that use them."""
    folder = tmp_path_factory.mktemp("npm")
    npm.install(folder, *NPM_PACKAGES)
    for script in READERS.iterdir():
        shutil.copy(script, folder)
    return folder


def run(command: list[str], **environment: str) -> str:
    return subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    ).stdout


def test_the_khronos_validator_has_no_complaints(
    npm_folder: Path, file: Path, image: Array, faces: list[Face], tmp_path: Path
) -> None:
    variants: dict[str, dict[str, Any]] = {
        "plain": {},
        "object": {"image": image, "space": "object", "texture_size": 33},
        "jpeg": {"image": image, "texture_format": "jpeg", "texture_size": 64},
        "colors": {"image": image, "texture_size": None},
    }
    files = [file]
    for name, options in variants.items():
        files.append(tmp_path / f"{name}.glb")
        faces[0].save(files[-1], **options)
    # A vertex without a triangle has no normal.
    files.append(tmp_path / "loose.glb")
    vertices = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5]])
    triangles = np.int32([[0, 1, 2]])
    normals = ops.vertex_normals(vertices, triangles)
    write_glb(files[-1], [GltfNode(MeshPart("loose", vertices, triangles, normals=normals))])
    command = ["node", str(npm_folder / "validate.cjs"), *map(str, files)]
    for path, report in zip(files, json.loads(run(command)), strict=True):
        issues = report["issues"]
        assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), (path.name, issues)
        assert report["info"]["hasMorphTargets"] == (path.name != "loose.glb")


def test_three_js_reads_the_scene(npm_folder: Path, file: Path, faces: list[Face]) -> None:
    meshes = json.loads(run(["node", str(npm_folder / "load.mjs"), str(file)]))
    assert [mesh["name"] for mesh in meshes] == ["face0", "face1"]
    for mesh, face, expected in zip(meshes, faces, expected_scene(faces), strict=True):
        np.testing.assert_allclose(mesh["positions"], expected, atol=1e-5)
        np.testing.assert_array_equal(np.reshape(mesh["triangles"], (-1, 3)), face.triangles)
        uv = np.reshape(mesh["uv"], (-1, 2)) * (1, -1) + (0, 1)
        np.testing.assert_allclose(uv, face.model.uv, atol=1e-6)  # type: ignore[arg-type]
        assert mesh["targets"] == {name: i for i, name in enumerate(NAMES)}
        assert mesh["weights"] == face.expression_coeffs.tolist()
        # Rows of the picture are as glTF has them, its values are not linear.
        texture = mesh["texture"]
        assert (texture["flipped"], texture["space"]) == (False, "srgb")
        assert texture["type"] == "image/png" and texture["size"] > 1000


def test_blender_reads_the_scene(file: Path, faces: list[Face]) -> None:
    module = importlib.util.find_spec("bpy")
    if module is None or module.origin is None:
        pytest.skip("needs Blender as a module (pip install bpy)")
    command = [sys.executable, str(READERS / "blender.py"), str(file)]
    folder = str(Path(module.origin).parents[1])
    objects = json.loads(run(command, PYTHONPATH=folder).splitlines()[-1])
    for number, (face, expected) in enumerate(zip(faces, expected_scene(faces), strict=True)):
        found = objects[f"face{number}"]
        x, y, z = expected.T  # up is +z there, and a face looks along -y
        np.testing.assert_allclose(found["positions"], np.stack([x, -z, y], axis=1), atol=1e-5)
        weights = face.expression_coeffs.clip(0, 1).tolist()  # the range of its sliders
        assert list(found["keys"]) == ["Basis", *NAMES]
        np.testing.assert_allclose(list(found["keys"].values())[1:], weights, atol=1e-6)
        assert [128, 128] in found["images"]


# --- What cannot be written -----------------------------------------------------------------------


def test_a_model_without_a_size(image: Array, tmp_path: Path) -> None:
    face = head_face(load_head(tmp_path / "m.safetensors"), head_params())
    with pytest.raises(ExportError, match=r"metres.*morphable_model\.unit.*micrometre, "):
        face.save(tmp_path / "a.glb", image)
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"vertices": np.full((3, 3), np.nan, np.float32)}, ValueError, "expected finite vertices"),
        ({"triangles": np.zeros((0, 3), np.int32)}, ExportError, "face as glTF: it has no triangl"),
        ({"triangles": np.int32([[0, 1, 3]])}, ValueError, r"indices in 0\.\.2, got 0\.\.3"),
        ({"normals": np.zeros((2, 3), np.float32)}, ValueError, r"normals of shape \(3, 3\), got"),
        ({"uv": np.full((3, 2), np.inf, np.float32)}, ValueError, "expected finite uv of shape"),
        ({"uv": [[0, 0]] * 3}, TypeError, "expected uv as a NumPy array of float32"),
        ({"texture": b"\x89PNG"}, ValueError, "expected uv together with a texture"),
    ],
)
def test_bad_meshes_write_nothing(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    part: dict[str, Any] = {"vertices": np.eye(3, dtype=np.float32), "triangles": [[0, 1, 2]]}
    part["triangles"] = np.int32([[0, 1, 2]])
    with pytest.raises(error, match=message):
        write_glb(tmp_path / "a.glb", [GltfNode(MeshPart("face", **{**part, **changes}))])
    assert not any(tmp_path.iterdir())


def test_no_meshes_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nodes: expected at least one, got none"):
        write_glb(tmp_path / "a.glb", [])
    assert not any(tmp_path.iterdir())


def test_bad_targets_write_nothing(tmp_path: Path) -> None:
    mesh = MeshPart("face", np.eye(3, dtype=np.float32), np.int32([[0, 1, 2]]))
    for target in (np.zeros((2, 3), np.float32), np.full((3, 3), np.nan, np.float32)):
        with pytest.raises(ValueError, match=r"expected finite targets of shape \(3, 3\)"):
            write_glb(tmp_path / "a.glb", [GltfNode(mesh, [target], ["a"], [0.0])])
    assert not any(tmp_path.iterdir())


def test_a_folder_that_is_not_there(image: Array, faces: list[Face], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"cannot write .*No such file or directory"):
        faces[0].save(tmp_path / "missing" / "a.glb", image, texture_size=16)
    assert not any(tmp_path.iterdir())
