"""Meshes with morph targets as GLB files (glTF 2.0, Khronos Group 2021).

A GLB file is a JSON description and a block of numbers: what a face needs of it is written here,
so that the base installation needs no glTF library. The tests read it with other people's parsers
and with the validator of the Khronos Group.

glTF's axes are right-handed, +Y up, a model's front is +Z, and the unit is the metre.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ExportError
from .files import atomic_write
from .mesh_files import MeshPart

_FLOAT, _UNSIGNED_SHORT, _UNSIGNED_INT = 5126, 5123, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE = 9729, 9987, 33071
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3"}


@dataclass(frozen=True, eq=False)
class GltfNode:
    """A mesh, how it can move, and where it stands: ``rotation · scale · vertex + translation``.

    Attributes:
        mesh: vertices in metres; its name is that of the node.
        targets: E arrays float32 (V, 3), displacements for a weight of 1, metres. An array that
            several nodes have is stored once.
        target_names: E names.
        weights: float32 (E,).
        rotation: (3, 3), determinant +1.
        translation: (3,) metres.
        scale: > 0.
    """

    mesh: MeshPart
    targets: Sequence[NDArray[np.float32]] = ()
    target_names: Sequence[str] = ()
    weights: Sequence[float] | NDArray[np.float32] = ()
    rotation: NDArray[Any] | None = None
    translation: NDArray[Any] | None = None
    scale: float = 1.0


def write_glb(path: str | os.PathLike[str], nodes: Sequence[GltfNode]) -> None:
    """Write meshes as nodes of the one scene of a GLB file: see `encode_glb`.

    Raises:
        TypeError, ValueError: as `encode_glb`.
        ExportError: as `encode_glb`, or if the file cannot be written.
    """
    content = encode_glb(nodes)
    with atomic_write(path) as stream:
        stream.write(content)


def encode_glb(nodes: Sequence[GltfNode]) -> bytes:
    """The contents of a GLB file with meshes as nodes of its one scene.

    Textures are embedded; materials are matt, and visible from both sides because faces are open
    at the back. Vertex colours become linear, as glTF has them. Names of targets are where
    importers look for them: ``mesh.extras.targetNames``.

    Raises:
        TypeError: for something that is not an array or has a wrong dtype.
        ValueError: for no nodes, a wrong shape, numbers that are not finite, indices out of range.
        ExportError: for a mesh without triangles, or a file of more than 4 GiB.
    """
    if not nodes:
        raise ValueError("nodes: expected at least one, got none")
    builder = _Builder()
    for node in nodes:
        builder.add(node)
    return builder.content()


class _Builder:
    """Collects the parts of a file."""

    def __init__(self) -> None:
        self._lists: dict[str, list[dict[str, Any]]] = {}
        self._data = bytearray()
        # Accessors by array; the arrays are kept, so that no other can get the same id.
        self._accessors: dict[int, tuple[NDArray[Any], int]] = {}

    def add(self, node: GltfNode) -> None:
        mesh = node.mesh.checked()
        if not len(mesh.triangles):
            raise ExportError(f"cannot write {mesh.name or 'a mesh'} as glTF: it has no triangles")
        attributes = {"POSITION": self._array(mesh.vertices, bounds=True)}
        if mesh.normals is not None:
            # A vertex without a surface has no normal; glTF wants a unit vector all the same.
            none = ~mesh.normals.any(axis=1, keepdims=True)
            attributes["NORMAL"] = self._array(
                np.where(none, np.array((0, 0, 1), np.float32), mesh.normals)
            )
        if mesh.uv is not None:
            # v runs down from the first row of the picture.
            attributes["TEXCOORD_0"] = self._array(
                np.stack([mesh.uv[:, 0], 1 - mesh.uv[:, 1]], axis=1)
            )
        if mesh.colors is not None:
            attributes["COLOR_0"] = self._array(_linear(mesh.colors))
        small = len(mesh.vertices) <= np.iinfo(np.uint16).max
        primitive: dict[str, Any] = {
            "attributes": attributes,
            "indices": self._array(
                mesh.triangles.astype(np.uint16 if small else np.uint32).ravel(), indices=True
            ),
            "material": self._material(mesh),
        }
        described: dict[str, Any] = {"name": mesh.name, "primitives": [primitive]}
        if len(node.targets):
            for target in node.targets:
                if target.shape != mesh.vertices.shape or not np.isfinite(target).all():
                    raise ValueError(
                        f"expected finite targets of shape {mesh.vertices.shape}, "
                        f"got shape {target.shape}"
                    )
            primitive["targets"] = [
                {"POSITION": self._array(target, bounds=True)} for target in node.targets
            ]
            described["weights"] = [float(weight) for weight in node.weights]
            described["extras"] = {"targetNames": list(node.target_names)}
        placed: dict[str, Any] = {"name": mesh.name, "mesh": self._append("meshes", described)}
        if node.rotation is not None:
            placed["rotation"] = _quaternion(node.rotation)
        if node.translation is not None:
            placed["translation"] = [float(value) for value in node.translation]
        if node.scale != 1:
            placed["scale"] = [float(node.scale)] * 3
        self._append("nodes", placed)

    def content(self) -> bytes:
        document = {
            "asset": {"version": "2.0", "generator": "threedfa"},
            "scene": 0,
            "scenes": [{"nodes": list(range(len(self._lists["nodes"])))}],
            **self._lists,
            "buffers": [{"byteLength": len(self._data)}],
        }
        text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        chunks: list[bytes | bytearray] = []
        for kind, chunk, filler in ((b"JSON", text, b" "), (b"BIN\0", self._data, b"\0")):
            padding = filler * (-len(chunk) % 4)
            length = np.array([len(chunk) + len(padding)], "<u4").tobytes()
            chunks += [length, kind, chunk, padding]
        size = 12 + sum(map(len, chunks))
        if size > np.iinfo(np.uint32).max:
            raise ExportError(f"expected at most 4 GiB for a GLB file, got {size} bytes")
        return b"".join([b"glTF", np.array([2, size], "<u4").tobytes(), *chunks])

    def _append(self, kind: str, item: dict[str, Any]) -> int:
        items = self._lists.setdefault(kind, [])
        items.append(item)
        return len(items) - 1

    def _view(self, content: bytes, **properties: int) -> int:
        self._data += b"\0" * (-len(self._data) % 4)
        start = len(self._data)
        self._data += content
        return self._append(
            "bufferViews",
            {"buffer": 0, "byteOffset": start, "byteLength": len(content), **properties},
        )

    def _array(self, array: NDArray[Any], *, bounds: bool = False, indices: bool = False) -> int:
        if id(array) in self._accessors:
            return self._accessors[id(array)][1]
        kinds = {"f": _FLOAT, "H": _UNSIGNED_SHORT, "I": _UNSIGNED_INT}
        target = _ELEMENT_ARRAY_BUFFER if indices else _ARRAY_BUFFER
        item: dict[str, Any] = {
            "bufferView": self._view(
                np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes(), target=target
            ),
            "componentType": kinds[array.dtype.char],
            "count": len(array),
            "type": _TYPES[array.shape[1] if array.ndim == 2 else 1],
        }
        if bounds:
            columns = np.ascontiguousarray(array.T)  # of which NumPy is done ten times as fast
            item["min"] = columns.min(axis=1).tolist()
            item["max"] = columns.max(axis=1).tolist()
        index = self._append("accessors", item)
        self._accessors[id(array)] = array, index
        return index

    def _material(self, mesh: MeshPart) -> int:
        surface: dict[str, Any] = {"metallicFactor": 0, "roughnessFactor": 1}
        if mesh.texture is not None:
            if "samplers" not in self._lists:
                self._append(
                    "samplers",
                    {
                        "magFilter": _LINEAR,
                        "minFilter": _LINEAR_MIPMAP_LINEAR,
                        "wrapS": _CLAMP_TO_EDGE,
                        "wrapT": _CLAMP_TO_EDGE,
                    },
                )
            picture = self._append(
                "images",
                {
                    "name": mesh.name,
                    "mimeType": f"image/{mesh.texture_format}",
                    "bufferView": self._view(mesh.texture),
                },
            )
            texture = self._append("textures", {"sampler": 0, "source": picture})
            surface["baseColorTexture"] = {"index": texture}
        return self._append(
            "materials",
            {"name": mesh.name, "pbrMetallicRoughness": surface, "doubleSided": True},
        )


def _linear(colors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """8-bit sRGB as linear values 0..1 (IEC 61966-2-1)."""
    share = np.arange(256) / 255
    table = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    linear: NDArray[np.float32] = table.astype(np.float32)[colors]
    return linear


def _quaternion(rotation: NDArray[Any]) -> list[float]:
    """x, y, z, w of a rotation matrix, of unit length, w >= 0.

    Source: Bar-Itzhack 2000, "New Method for Extracting the Quaternion from a Rotation Matrix":
    the eigenvector of the greatest eigenvalue, which is the closest one if the matrix is rounded.
    """
    m = np.asarray(rotation, np.float64)
    symmetric = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[2, 1] - m[1, 2]],
            [m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1], m[0, 2] - m[2, 0]],
            [m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], np.trace(m)],
        ]
    )
    quaternion = np.linalg.eigh(symmetric)[1][:, -1]
    values: list[float] = (quaternion * (-1 if quaternion[3] < 0 else 1)).tolist()
    return values
