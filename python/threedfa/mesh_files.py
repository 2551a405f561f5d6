"""Triangle meshes as OBJ, PLY and STL files.

Vertices are float32 ``(V, 3)`` in right-handed axes with y up, triangles int32 ``(T, 3)``, counter-
clockwise seen from outside, colours uint8 ``(V, 3)`` RGB. The vertices of a face are in image
coordinates, where y points down: `to_y_up` turns them.

All writers store coordinates with all digits of a float32, so reading a file gives back the same
mesh, and all write files whole or not at all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import _core
from .files import atomic_write, atomic_write_all

Mesh: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.uint8] | None]
"""Vertices, triangles and colours (or None)."""


@dataclass(frozen=True, eq=False)
class MeshPart:
    """A mesh with what makes it look like its subject.

    Attributes:
        name: of the object in the file, without white space; empty for none.
        vertices: float32 (V, 3), finite.
        triangles: int32 (T, 3), in 0..V-1.
        colors: uint8 (V, 3) RGB, or None.
        normals: float32 (V, 3) unit vectors, or None.
        uv: float32 (V, 2) texture coordinates 0..1 with v up, or None.
        texture: contents of a PNG or JPEG file, or None; needs ``uv``.
    """

    name: str
    vertices: NDArray[np.float32]
    triangles: NDArray[np.int32]
    colors: NDArray[np.uint8] | None = None
    normals: NDArray[np.float32] | None = None
    uv: NDArray[np.float32] | None = None
    texture: bytes | None = None

    @property
    def texture_format(self) -> str:
        """``"png"`` or ``"jpeg"``."""
        return "png" if (self.texture or b"").startswith(b"\x89PNG") else "jpeg"

    def checked(self) -> MeshPart:
        """The same with arrays of exactly these types.

        Raises:
            TypeError: for something that is not an array or has a wrong dtype.
            ValueError: for a wrong shape, numbers that are not finite, indices out of range.
        """
        vertices, triangles, colors = _check_mesh(self.vertices, self.triangles, self.colors)
        if self.texture is not None and self.uv is None:
            raise ValueError("expected uv together with a texture, got None")
        normals = _check_floats("normals", self.normals, (len(vertices), 3))
        uv = _check_floats("uv", self.uv, (len(vertices), 2))
        return MeshPart(self.name, vertices, triangles, colors, normals, uv, self.texture)


def to_y_up(vertices: NDArray[np.float32], height: float) -> NDArray[np.float32]:
    """Vertices in image coordinates (y down) in right-handed axes: y becomes ``height - y``.

    This is where 3DDFA_V2's writers put them too. Returns a new float32 ``(V, 3)`` array.
    """
    turned = _check_vertices(vertices).copy()
    turned[:, 1] = height - turned[:, 1]
    return turned


def merge_meshes(meshes: Sequence[Mesh]) -> Mesh:
    """Several meshes as one: vertices and colours one after the other, triangles renumbered.

    Raises:
        ValueError: if there is no mesh, if only some have colours, or as for the writers.
        TypeError: as for the writers.
    """
    if not meshes:
        raise ValueError("expected at least one mesh, got none")
    checked = [_check_mesh(*mesh) for mesh in meshes]
    colored = [colors for _, _, colors in checked if colors is not None]
    if colored and len(colored) != len(checked):
        raise ValueError(
            f"expected colors for all meshes or for none, got them for {len(colored)} "
            f"of {len(checked)}"
        )
    starts = np.cumsum([0] + [len(vertices) for vertices, _, _ in checked])
    if starts[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"expected at most 2147483647 vertices in all, got {starts[-1]}")
    return (
        np.concatenate([vertices for vertices, _, _ in checked]),
        np.concatenate(
            [t + np.int32(s) for (_, t, _), s in zip(checked, starts[:-1], strict=True)]
        ),
        np.concatenate(colored) if colored else None,
    )


def write_obj(
    path: str | os.PathLike[str],
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
    *,
    colors: NDArray[np.uint8] | None = None,
) -> None:
    """Write a mesh as Wavefront OBJ.

    Colours go behind the coordinates, as ``v x y z r g b`` with values in 0..1: not in Wavefront's
    specification, but read by MeshLab, Blender and trimesh.

    Args:
        path: the file, by custom ending in ``.obj``.
        vertices: float32 ``(V, 3)``, finite.
        triangles: int32 ``(T, 3)``, in 0..V-1.
        colors: uint8 ``(V, 3)`` RGB, or None.

    Raises:
        TypeError: for something that is not an array or has a wrong dtype.
        ValueError: for a wrong shape, coordinates that are not finite, indices out of range.
        ExportError: if the file cannot be written.
    """
    write_obj_parts(path, [MeshPart("", vertices, triangles, colors)])


def write_obj_parts(path: str | os.PathLike[str], parts: Sequence[MeshPart]) -> None:
    """Write meshes as objects and groups of one Wavefront OBJ file.

    With textures, materials go to ``NAME.mtl`` and each texture to ``NAME_PART.png`` (or ``.jpg``)
    beside ``NAME.obj``; in these names ``_`` takes the place of what readers of OBJ stumble over,
    such as white space, and then a digest of NAME follows, so that no two share a file. Either all
    files are written or none.

    Args:
        path: the file, by custom ending in ``.obj``.
        parts: at least one, with different names.

    Raises:
        TypeError: for something that is not an array or has a wrong dtype.
        ValueError: for no parts, equal names, a wrong shape, numbers that are not finite, indices
            out of range.
        ExportError: if a file cannot be written.
    """
    path = Path(path)
    *sidecars, (_, content) = encode_obj_parts(path.stem, parts)
    atomic_write_all([*((path.with_name(name), data) for name, data in sidecars), (path, content)])


def encode_obj_parts(stem: str, parts: Sequence[MeshPart]) -> list[tuple[str, bytes]]:
    """Names and contents of the files that :func:`write_obj_parts` writes for ``STEM.obj``, which
    is the last.

    Raises:
        TypeError, ValueError: as :func:`write_obj_parts`.
    """
    parts = [part.checked() for part in parts]
    names = [part.name for part in parts]
    if not parts or len(set(names)) < len(names):
        raise ValueError(f"parts: expected at least one, with different names, got {names}")
    obj_name = f"{stem}.obj"
    safe = re.sub(r"[^\w.+-]|^-", "_", stem)
    if safe != stem:  # another stem may become the same
        safe += f"-{sha256(os.fsencode(stem)).hexdigest()[:8]}"
    stem = safe
    sidecars: list[tuple[str, bytes]] = []
    library: list[str] = []
    text: list[bytes] = []
    starts = {"v": 1, "vt": 1, "vn": 1}
    for part in parts:
        if part.name:
            text.append(f"o {part.name}\ng {part.name}\n".encode())
        if part.texture is not None:
            picture = f"{stem}_{part.name}.{'png' if part.texture_format == 'png' else 'jpg'}"
            sidecars.append((picture, part.texture))
            library.append(
                f"newmtl {part.name}\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {picture}\n"
            )
            text.append(f"usemtl {part.name}\n".encode())
        text += _obj_rows(part, starts)
    if library:
        sidecars.append((f"{stem}.mtl", "\n".join(library).encode()))
        text.insert(0, f"mtllib {stem}.mtl\n".encode())
    return [*sidecars, (obj_name, b"".join(text))]


def _obj_rows(part: MeshPart, starts: dict[str, int]) -> list[bytes]:
    """Vertices and faces of a part; ``starts`` are the next free indices, moved on."""
    format_rows = _core.format_rows
    if part.colors is None:
        text = [format_rows("v %.9g %.9g %.9g\n", part.vertices)]
    else:
        rows = np.hstack([part.vertices, part.colors / np.float32(255)])
        text = [format_rows("v %.9g %.9g %.9g %.4f %.4f %.4f\n", rows)]
    if part.uv is not None:
        text.append(format_rows("vt %.9g %.9g\n", part.uv))
    if part.normals is not None:
        text.append(format_rows("vn %.6g %.6g %.6g\n", part.normals))
    # Each corner names its vertex, its place in the texture and its normal: as v, v/vt, v//vn or
    # v/vt/vn.
    corner = "%d" + ("/%d" if part.uv is not None else "/" if part.normals is not None else "")
    corner += "/%d" if part.normals is not None else ""
    kinds = ["v", *(["vt"] * (part.uv is not None)), *(["vn"] * (part.normals is not None))]
    first = [starts[kind] for kind in kinds]
    corners = np.add(part.triangles[:, :, None], first, dtype=np.int64)
    text.append(format_rows(f"f {corner} {corner} {corner}\n", corners.reshape(-1, 3 * len(kinds))))
    for kind in kinds:
        starts[kind] += len(part.vertices)
    return text


def write_ply(
    path: str | os.PathLike[str],
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
    *,
    colors: NDArray[np.uint8] | None = None,
    binary: bool = True,
) -> None:
    """Write a mesh as PLY (Turk 1994), binary little-endian or ASCII.

    Args:
        path: the file, by custom ending in ``.ply``.
        vertices: float32 ``(V, 3)``, finite.
        triangles: int32 ``(T, 3)``, in 0..V-1.
        colors: uint8 ``(V, 3)`` RGB, or None.
        binary: False for ASCII.

    Raises:
        TypeError: for something that is not an array or has a wrong dtype.
        ValueError: for a wrong shape, coordinates that are not finite, indices out of range.
        ExportError: if the file cannot be written.
    """
    parts = _ply_parts(vertices, triangles, colors, binary)
    with atomic_write(path) as stream:
        stream.writelines(parts)


def encode_ply(
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
    *,
    colors: NDArray[np.uint8] | None = None,
    binary: bool = True,
) -> bytes:
    """The contents of the file that :func:`write_ply` writes; arguments and errors as there."""
    return b"".join(_ply_parts(vertices, triangles, colors, binary))


def _ply_parts(
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
    colors: NDArray[np.uint8] | None,
    binary: bool,
) -> tuple[bytes | memoryview, ...]:
    """Header, vertices and faces; a file takes them without a copy of all in one piece."""
    vertices, triangles, colors = _check_mesh(vertices, triangles, colors)
    lines = [
        "ply",
        f"format {'binary_little_endian' if binary else 'ascii'} 1.0",
        f"element vertex {len(vertices)}",
        *(f"property float {name}" for name in ("x", "y", "z")),
        *(f"property uchar {name}" for name in ("red", "green", "blue") if colors is not None),
        f"element face {len(triangles)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    header = "".join(f"{line}\n" for line in lines).encode("ascii")
    body = _ply_binary if binary else _ply_ascii
    return (header, *body(vertices, triangles, colors))


def write_stl(
    path: str | os.PathLike[str],
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
) -> None:
    """Write a mesh as binary STL, which has no colours and no unit; printers take millimetres.

    Args:
        path: the file, by custom ending in ``.stl``.
        vertices: float32 ``(V, 3)``, finite.
        triangles: int32 ``(T, 3)``, in 0..V-1.

    Raises:
        TypeError: for something that is not an array or has a wrong dtype.
        ValueError: for a wrong shape, coordinates that are not finite, indices out of range.
        ExportError: if the file cannot be written.
    """
    encoded = encode_stl(vertices, triangles)
    with atomic_write(path) as stream:
        stream.write(encoded)


def encode_stl(vertices: NDArray[np.float32], triangles: NDArray[np.int32]) -> bytes:
    """The contents of the file that :func:`write_stl` writes; arguments and errors as there."""
    vertices, triangles, _ = _check_mesh(vertices, triangles, None)
    facets = np.zeros(
        len(triangles), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")]
    )
    corners = vertices[triangles]
    facets["corners"] = corners
    corners = corners.astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    facets["normal"] = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    # The header must not start with "solid", which would make it a text file.
    header = b"binary STL".ljust(80) + np.uint32(len(triangles)).astype("<u4").tobytes()
    content: bytes = header + facets.tobytes()
    return content


def _ply_binary(
    vertices: NDArray[np.float32], triangles: NDArray[np.int32], colors: NDArray[np.uint8] | None
) -> tuple[memoryview, memoryview]:
    points: NDArray[Any] = np.ascontiguousarray(vertices, "<f4")
    if colors is not None:
        points = np.empty(len(vertices), [("position", "V12"), ("color", "V3")])
        points["position"] = _as_wholes(vertices, "<f4")
        points["color"] = _as_wholes(colors, "u1")
    faces = np.empty(len(triangles), [("count", "u1"), ("indices", "V12")])
    faces["count"] = 3
    faces["indices"] = _as_wholes(triangles, "<i4")
    return points.data, faces.data


def _as_wholes(rows: NDArray[Any], dtype: str) -> NDArray[np.void]:
    """Each row of three numbers as one block of bytes: much faster to copy."""
    numbers = np.ascontiguousarray(rows, dtype)
    return numbers.view(f"V{3 * numbers.itemsize}")[:, 0]


def _ply_ascii(
    vertices: NDArray[np.float32], triangles: NDArray[np.int32], colors: NDArray[np.uint8] | None
) -> tuple[bytes, bytes]:
    if colors is None:
        points = _core.format_rows("%.9g %.9g %.9g\n", vertices)
    else:
        rows = np.hstack([vertices, colors.astype(np.float32)])
        points = _core.format_rows("%.9g %.9g %.9g %.3g %.3g %.3g\n", rows)
    return points, _core.format_rows("3 %d %d %d\n", triangles)


def _check_mesh(
    vertices: NDArray[np.float32], triangles: NDArray[np.int32], colors: NDArray[np.uint8] | None
) -> Mesh:
    vertices = _check_vertices(vertices)
    _check_rows("triangles", triangles)
    if not np.issubdtype(triangles.dtype, np.integer):
        raise TypeError(f"expected triangles of dtype int32, got {triangles.dtype}")
    if triangles.size and not (triangles.min() >= 0 and triangles.max() < len(vertices)):
        raise ValueError(
            f"expected triangles with indices in 0..{len(vertices) - 1}, "
            f"got {triangles.min()}..{triangles.max()}"
        )
    if colors is not None:
        _check_rows("colors", colors)
        if colors.dtype != np.uint8:
            raise TypeError(f"expected colors of dtype uint8 (0..255), got {colors.dtype}")
        if len(colors) != len(vertices):
            raise ValueError(
                f"expected a color for each of the {len(vertices)} vertices, got {len(colors)}"
            )
    return vertices, triangles.astype(np.int32, copy=False), colors


def _check_vertices(vertices: NDArray[np.float32]) -> NDArray[np.float32]:
    _check_rows("vertices", vertices)
    if not np.issubdtype(vertices.dtype, np.floating):
        raise TypeError(f"expected vertices of dtype float32, got {vertices.dtype}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite: found below
        vertices = vertices.astype(np.float32, copy=False)
    if not np.isfinite(vertices).all():
        bad = np.flatnonzero(~np.isfinite(vertices).all(axis=1))
        raise ValueError(
            f"expected finite vertices, got {len(bad)} that are not; the first is "
            f"vertex {bad[0]}: {vertices[bad[0]].tolist()}"
        )
    return vertices


def _check_rows(name: str, array: NDArray[Any]) -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"expected {name} as a NumPy array, got {type(array).__qualname__}")
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"expected {name} of shape (N, 3), got {array.shape}")


def _check_floats(
    name: str, array: NDArray[np.float32] | None, shape: tuple[int, int]
) -> NDArray[np.float32] | None:
    if array is None:
        return None
    if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"expected {name} as a NumPy array of float32, got {array!r:.60}")
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"expected finite {name} of shape {shape}, got shape {array.shape}")
    return array.astype(np.float32, copy=False)
