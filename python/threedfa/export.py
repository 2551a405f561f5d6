"""Meshes of faces as files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from .errors import ExportError
from .face import Face, require_faces
from .files import atomic_write_all
from .gltf import GltfNode, encode_glb
from .image import ColorOrder, check_side, encode_image, load_image
from .mesh_files import (
    MeshPart,
    encode_obj_parts,
    encode_ply,
    encode_stl,
    merge_meshes,
    to_y_up,
)
from .pack import CENTIMETRES
from .rendering import vertex_colors
from .textures import mesh_texture

Space: TypeAlias = Literal["image", "object"]
"""Coordinates of a mesh file: those of the picture, or the head's own."""

TextureFormat: TypeAlias = Literal["png", "jpeg"]
"""How a texture is stored: without loss, or in a tenth of the size."""

DEFAULT_TEXTURE_SIZE = 1024

_Files: TypeAlias = list[tuple[str, bytes]]  # names and contents


def save_mesh(
    path: str | os.PathLike[str],
    image: Any,
    faces: Sequence[Face],
    *,
    space: Space | None = None,
    texture_size: int | None = DEFAULT_TEXTURE_SIZE,
    texture_format: TextureFormat = "png",
    color: ColorOrder = "rgb",
) -> None:
    """Write the meshes of one image's faces to one file.

    ===========  ===================================================================================
    ``.obj``     texture (beside it, with ``.mtl``), normals; an object and a group for each face
    ``.glb``     one file: texture, normals, expressions as morph targets; a node for each face
    ``.ply``     colours of the vertices, binary
    ``.stl``     the surface alone, binary
    ===========  ===================================================================================

    Coordinates are right-handed, y up, z towards the viewer. In image space they are pixels (x
    right, ``height - y``, z), and heads are as in the picture. In object space each head is at the
    origin, upright and looking along +z, in the pack's unit (millimetres in ``.stl`` if the pack's
    unit has a size). A ``.glb`` is in metres: the vertices are always the person's neutral
    face in object space, with the fitted expression as the weights of the targets; image space is
    the rotation, scale and translation of its nodes, so that they stand as in the picture,
    whose centre is the origin, and the heads have their true size on average.

    Args:
        path: ends in ``.obj``, ``.ply``, ``.glb`` or ``.stl``.
        image: (H, W, 3) uint8 or anything else that :func:`threedfa.image.load_image` takes; None
            for meshes without texture and colours.
        faces: of this image, at least one.
        space: ``"image"`` or ``"object"``; None: ``"image"`` if there is an image.
        texture_size: side of the textures, pixels; None for colours of vertices instead.
        texture_format: ``"png"`` or ``"jpeg"``.
        color: channel order of ``image`` if it is an array, ``"rgb"`` or ``"bgr"``.

    Raises:
        ImageError: if the image cannot be read or used.
        ExportError: for another suffix, no faces, a texture for a model without texture
            coordinates, a ``.glb`` of a model without a size, or a file that cannot be written or
            that is the image itself.
        TypeError: for one face that is not in a list.
        ValueError: for image space without an image, an unknown option, or a size out of range.
    """
    path = Path(path)
    require_faces(faces)
    *sidecars, (_, content) = encode_mesh(
        path.name,
        image,
        faces,
        space=space,
        texture_size=texture_size,
        texture_format=texture_format,
        color=color,
    )
    files = [*((path.with_name(name), data) for name, data in sidecars), (path, content)]
    if isinstance(image, (str, os.PathLike)):
        for file, _ in files:
            if os.path.realpath(file) == os.path.realpath(image):
                raise ExportError(f"cannot write {file}: it is the image; choose another name")
    atomic_write_all(files)


def encode_mesh(
    name: str,
    image: Any,
    faces: Sequence[Face],
    *,
    space: Space | None = None,
    texture_size: int | None = DEFAULT_TEXTURE_SIZE,
    texture_format: TextureFormat = "png",
    color: ColorOrder = "rgb",
    before_face: Callable[[], object] | None = None,
) -> list[tuple[str, bytes]]:
    """Names and contents of the files that :func:`save_mesh` writes, the named one last.

    Arguments and errors as of :func:`save_mesh`; ``before_face`` is called before each face's
    texture is made, which may take seconds, and what it raises ends the work.
    """
    path = Path(name)
    encoder = _ENCODERS.get(path.suffix.lower())
    if encoder is None:
        *others, last = _ENCODERS
        raise ExportError(f"{path}: expected a name that ends in {', '.join(others)} or {last}")
    faces = list(faces)  # read more than once
    if not faces:
        raise ExportError(f"{path}: expected at least one face, got none")
    if space is None:
        space = "object" if image is None else "image"
    for option, value, known in (
        ("space", space, get_args(Space)),
        ("texture_format", texture_format, get_args(TextureFormat)),
    ):
        if value not in known:
            raise ValueError(f"{option}: expected one of {', '.join(known)}, got {value!r}")
    if texture_size is not None:
        check_side("texture size", texture_size)
    if image is None and space == "image":
        raise ValueError('space "image": expected the image as well; or use space="object"')
    pixels = None if image is None else load_image(image, color=color)
    return encoder(path, _Scene(pixels, faces, space, texture_size, texture_format, before_face))


@dataclass(frozen=True)
class _Scene:
    """What is to be written."""

    pixels: NDArray[np.uint8] | None
    faces: Sequence[Face]
    space: Space
    texture_size: int | None
    texture_format: TextureFormat
    before_face: Callable[[], object] | None

    @property
    def textured(self) -> bool:
        return self.pixels is not None and self.texture_size is not None

    def vertices(self, face: Face) -> NDArray[np.float32]:
        if self.space == "object":
            return face.model.reconstruct(face.shape_coeffs, face.expression_coeffs)
        assert self.pixels is not None
        return to_y_up(face.vertices, self.pixels.shape[0])

    def colors(self, face: Face) -> NDArray[np.uint8] | None:
        return None if self.pixels is None else vertex_colors(self.pixels, face.vertices)

    def part(self, path: Path, number: int, vertices: NDArray[np.float32]) -> MeshPart:
        """A face with its texture; ``path`` is for messages."""
        if self.before_face is not None:
            self.before_face()
        face = self.faces[number]
        uv, texture = face.model.uv, None
        if self.textured:
            if uv is None:
                raise ExportError(
                    f"{path}: expected a model with texture coordinates for a texture, this pack's "
                    "has none; ask for colours of vertices (texture_size=None), or import the pack "
                    "again with BFM_UV.mat and indices.npy beside the other files"
                )
            assert self.pixels is not None and self.texture_size is not None
            picture = mesh_texture(self.pixels, face, self.texture_size)
            texture = encode_image(picture, f".{self.texture_format}", smooth=True)
        colors = None if self.textured else self.colors(face)
        return MeshPart(
            f"face{number}",
            vertices,
            face.triangles,
            colors,
            face.model.vertex_normals(vertices),
            # Readers that find texture coordinates look for no colours.
            uv if colors is None else None,
            texture,
        )


def _encode_obj(path: Path, scene: _Scene) -> _Files:
    return encode_obj_parts(
        path.stem,
        [scene.part(path, i, scene.vertices(face)) for i, face in enumerate(scene.faces)],
    )


def _encode_ply(path: Path, scene: _Scene) -> _Files:
    vertices, triangles, colors = merge_meshes(
        [(scene.vertices(face), face.triangles, scene.colors(face)) for face in scene.faces]
    )
    return [(path.name, encode_ply(vertices, triangles, colors=colors))]


def _encode_stl(path: Path, scene: _Scene) -> _Files:
    meshes = []
    for face in scene.faces:
        vertices = scene.vertices(face)
        centimetres = face.model.centimetres_per_unit
        if scene.space == "object" and centimetres is not None:
            vertices = vertices * np.float32(10 * centimetres)
        meshes.append((vertices, face.triangles, None))
    vertices, triangles, _ = merge_meshes(meshes)
    return [(path.name, encode_stl(vertices, triangles))]


def _encode_glb(path: Path, scene: _Scene) -> _Files:
    metres = []
    for face in scene.faces:
        if face.model.centimetres_per_unit is None:
            raise ExportError(
                f"{path}: glTF is in metres, but the unit of this pack's model has no known size; "
                f"set morphable_model.unit in its pack.json to one of {', '.join(CENTIMETRES)}"
            )
        metres.append(face.model.centimetres_per_unit / 100)
    pixels_per_metre = [
        float(np.linalg.norm(face.pose.projection[:2, :3], axis=1).mean()) / scale
        for face, scale in zip(scene.faces, metres, strict=True)
    ]
    targets: dict[int, list[NDArray[np.float32]]] = {}  # by model: faces share them
    nodes = []
    for i, (face, scale) in enumerate(zip(scene.faces, metres, strict=True)):
        model = face.model
        neutral = model.reconstruct(face.shape_coeffs, np.zeros_like(face.expression_coeffs))
        if id(model) not in targets:
            targets[id(model)] = [mode * np.float32(scale) for mode in model.expression_basis]
        nodes.append(
            GltfNode(
                scene.part(path, i, neutral * np.float32(scale)),
                targets[id(model)],
                model.expression_names
                or [f"expression{mode}" for mode in range(len(model.expression_basis))],
                face.expression_coeffs,
                **(
                    _placement(scene, face, pixels_per_metre, pixels_per_metre[i])
                    if scene.space == "image"
                    else {}
                ),
            )
        )
    return [(path.name, encode_glb(nodes))]


def _placement(
    scene: _Scene, face: Face, all_scales: Sequence[float], own_scale: float
) -> dict[str, Any]:
    """Rotation, translation and scale that show the head in metres where the picture has it.

    The picture has one scale for all: the geometric mean of its heads' pixels for a metre, so that
    a head that the picture shows twice as large stays twice as large.
    """
    assert scene.pixels is not None
    height, width = scene.pixels.shape[:2]
    scale = float(np.exp(np.mean(np.log(all_scales))))
    x, y, z = face.pose.projection[:, 3].astype(np.float64)
    return {
        "rotation": face.pose.rotation,
        "translation": np.array([x - (width - 1) / 2, (height - 1) / 2 - y, z]) / scale,
        "scale": round(own_scale / scale, 12),  # exactly 1 for a single head
    }


_ENCODERS: dict[str, Callable[[Path, _Scene], _Files]] = {
    ".obj": _encode_obj,
    ".ply": _encode_ply,
    ".glb": _encode_glb,
    ".stl": _encode_stl,
}
