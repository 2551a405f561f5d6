"""Named sets of landmarks: which points of the face's surface they are, and points of one's own.

A set is a table: each landmark is the weighted sum of three vertices. The tables are in the model's
file, as tensors ``NAME_vertices`` and ``NAME_weights``:

===============  ===========  =================================================================
set              tensors      points
===============  ===========  =================================================================
``ibug68``       landmark     68, the scheme of 300-W (Sagonas et al. 2013), as ``face.landmarks``
``mediapipe468`` landmarks468 468, in the order of MediaPipe's Face Mesh (Kartynnik et al. 2019)
``five``         five         eyes, nose tip, mouth corners; those at the image's left first
===============  ===========  =================================================================

Any other pair of such tensors is a set named NAME. How the tables were made: docs/landmarks.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import PackError
from .image import whole_number
from .ops import rasterize

_TENSORS: Final = {"ibug68": "landmark", "mediapipe468": "landmarks468", "five": "five"}
_ENOUGH: Final = 1e-6  # a barycentric weight below minus this is outside
_DEPTH_SIDE: Final = 512  # pixels of the z-buffer
_BEHIND: Final = 3  # pixels of the z-buffer behind it that are not hidden yet
_TURNED_AWAY: Final = 0.5  # sine of the angle by which skin may turn away and still be seen
_AROUND: Final = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1))


@dataclass(frozen=True, eq=False)
class LandmarkTable:
    """Points on the surface of a mesh.

    Attributes:
        vertices: int32 (L, 3), three vertices for each point.
        weights: float32 (L, 3), their weights.
    """

    vertices: NDArray[np.int32]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.vertices)

    def of(self, vertices: NDArray[np.float32]) -> NDArray[np.float32]:
        """The points (L, 3) of a mesh whose vertices (V, 3) are given."""
        points: NDArray[np.float32] = np.einsum(
            "lcx,lc->lx", vertices[self.vertices], self.weights, dtype=np.float64
        ).astype(np.float32)
        return points


class Location(NamedTuple):
    """A point of a face's surface.

    Attributes:
        triangle: its row in ``face.triangles``.
        barycentric: float32 (3,), the weights of that triangle's vertices; they add up to 1.
        point: float32 (3,) x, y, z in the image, pixels.
    """

    triangle: int
    barycentric: NDArray[np.float32]
    point: NDArray[np.float32]


def tables_of(
    point_sets: Mapping[str, tuple[NDArray[np.int32], NDArray[np.float32]]],
) -> Mapping[str, LandmarkTable]:
    """The sets of a model's file by the names under which they are asked for."""
    names = {tensor: name for name, tensor in _TENSORS.items()}
    return MappingProxyType(
        {names.get(tensor, tensor): LandmarkTable(*arrays) for tensor, arrays in point_sets.items()}
    )


def table_named(tables: Mapping[str, LandmarkTable], name: str) -> LandmarkTable:
    """One of the sets.

    Raises:
        PackError: if the model lacks a set that this library knows.
        TypeError: if the name is no text.
        ValueError: if there is no set of that name at all.
    """
    if not isinstance(name, str):
        raise TypeError(f"landmark set: expected a name, got {name!r}")
    table = tables.get(name)
    if table is not None:
        return table
    known = ", ".join(tables)
    if name in _TENSORS:
        raise PackError(
            f"the pack's face model has no landmark set {name!r} (tensors "
            f"{_TENSORS[name]}_vertices and {_TENSORS[name]}_weights), only {known}; import the "
            "pack again or use one that has it"
        )
    raise ValueError(f"landmark set: expected one of {known}, got {name!r}")


def visibility(
    table: LandmarkTable, vertices: NDArray[np.float32], triangles: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Which points of a table the mesh itself does not hide from the viewer.

    A point is hidden if all triangles that it belongs to show their back by more than 30°, or if it
    lies behind the mesh: see :func:`in_front`. One between vertices of different triangles, such as
    the middle of an eye, lies off the surface: its heaviest vertex stands for it.

    Args:
        table: L points.
        vertices: (V, 3) of a face in the image.
        triangles: (T, 3).

    Returns:
        (L,) True where visible.
    """
    # The triangles that a point belongs to have all the vertices that it is made of.
    used = np.unique(table.vertices)
    slot_of = np.full(len(vertices), len(used))  # the last one is for vertices of no interest
    slot_of[used] = np.arange(len(used))
    near = triangles[(slot_of[triangles] < len(used)).any(axis=1)]
    has = np.zeros((len(used) + 1, len(near)), bool)
    has[slot_of[near], np.arange(len(near))[:, None]] = True
    own = (has[slot_of[table.vertices]] | (table.weights == 0)[:, :, None]).all(axis=1)
    corners = vertices[near].astype(np.float64)
    normals = np.cross(corners[:, 2] - corners[:, 0], corners[:, 1] - corners[:, 0])  # y is down
    front = normals[:, 2] >= -_TURNED_AWAY * np.linalg.norm(normals, axis=1)

    on_surface = own.any(axis=1)
    heaviest = np.take_along_axis(table.vertices, table.weights.argmax(axis=1)[:, None], axis=1)[
        :, 0
    ]
    points = np.where(on_surface[:, None], table.of(vertices), vertices[heaviest])
    facing = (own & front).any(axis=1) | ~on_surface
    shown: NDArray[np.bool_] = facing & in_front(points, vertices, triangles)
    return shown


def in_front(
    points: NDArray[np.float32], vertices: NDArray[np.float32], triangles: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Which points (N, 3) a mesh does not hide, by a z-buffer: True for each (N,) that it does not.

    The z-buffer's longer side has 512 pixels. A point is hidden if it lies more than three of them,
    a millimetre and a half of a head, behind what the buffer has at its own pixel and at all
    neighbours: rims of eyelids and lips, which fold inwards, count as seen.
    """
    low = vertices.min(axis=0)
    extent = float((vertices.max(axis=0) - low)[:2].max())
    scale = np.float32(_DEPTH_SIDE / max(extent, 1e-6))  # a face without extent stays a point
    # One pixel more on each side, so that every point has all its neighbours.
    depth = np.full((_DEPTH_SIDE + 3, _DEPTH_SIDE + 3), -np.inf, np.float32)
    depth[1:-1, 1:-1] = rasterize(
        (vertices - low) * scale, triangles, _DEPTH_SIDE + 1, _DEPTH_SIDE + 1
    ).depth
    # The nearest mesh that is in front of a pixel and all its neighbours.
    depth[1:-1, 1:-1] = np.min(
        [depth[1 + i : len(depth) - 1 + i, 1 + j : len(depth) - 1 + j] for i, j in _AROUND], axis=0
    )
    fitted = (points - low) * scale
    column, row = np.rint(fitted[:, :2]).clip(0, _DEPTH_SIDE).astype(np.int64).T + 1
    front: NDArray[np.bool_] = fitted[:, 2] >= depth[row, column] - _BEHIND
    return front


def locate(
    x: float, y: float, vertices: NDArray[np.float32], triangles: NDArray[np.int32]
) -> Location | None:
    """The nearest point of a mesh to the viewer at one place of the image.

    Args:
        x: pixels, need not be whole.
        y: likewise.
        vertices: (V, 3) of a face in the image.
        triangles: (T, 3).

    Returns:
        None where the mesh does not cover the place.

    Raises:
        ValueError: if x or y is not finite.
    """
    place = np.array([x, y], np.float64)
    if not np.isfinite(place).all():
        raise ValueError(f"expected a finite x and y, got {x} and {y}")
    corners = vertices[triangles].astype(np.float64)
    near = np.flatnonzero(
        (corners[:, :, :2].min(axis=1) <= place).all(axis=1)
        & (corners[:, :, :2].max(axis=1) >= place).all(axis=1)
    )
    corners = corners[near]
    # Twice the signed areas that the place has with each edge, opposite to each corner.
    edges = corners[:, [2, 0, 1], :2] - corners[:, [1, 2, 0], :2]
    to_place = place - corners[:, [1, 2, 0], :2]
    areas = edges[:, :, 0] * to_place[:, :, 1] - edges[:, :, 1] * to_place[:, :, 0]
    total = areas.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = areas / total[:, None]
    covering = np.flatnonzero((weights >= -_ENOUGH).all(axis=1))  # not for triangles without area
    if len(covering) == 0:
        return None
    depths = (corners[covering, :, 2] * weights[covering]).sum(axis=1)
    best = covering[np.argmax(depths)]
    barycentric = weights[best].clip(0, 1)
    barycentric = (barycentric / barycentric.sum()).astype(np.float32)
    triangle = int(near[best])
    return Location(triangle, barycentric, point_at(triangle, barycentric, vertices, triangles))


def point_at(
    triangle: int,
    barycentric: ArrayLike,
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
) -> NDArray[np.float32]:
    """A point of a mesh, float32 (3,), from a triangle and weights of its vertices (3,).

    Raises:
        TypeError: weights that are not real numbers, or a triangle that is no whole number.
        ValueError: a triangle out of range, or weights of a wrong shape or not finite.
    """
    triangle = whole_number("triangle", triangle)
    weights = np.asarray(barycentric)
    if weights.dtype.kind not in "fiu":
        raise TypeError(f"barycentric: expected real numbers, got {weights.dtype}")
    if weights.shape != (3,) or not np.isfinite(weights).all():
        raise ValueError(f"barycentric: expected three finite numbers, got {weights.tolist()}")
    if not 0 <= triangle < len(triangles):
        raise ValueError(f"triangle: expected 0..{len(triangles) - 1}, got {triangle}")
    point: NDArray[np.float32] = (
        weights.astype(np.float64) @ vertices[triangles[triangle]]
    ).astype(np.float32)
    return point
