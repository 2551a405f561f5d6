"""Geometry on meshes that building the face model needs."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Edge = tuple[int, int]


def quad_edges(quads: Indices) -> dict[Edge, list[int]]:
    """The quads (Q, 4) on each edge (low vertex, high vertex)."""
    found: dict[Edge, list[int]] = defaultdict(list)
    for quad, corners in enumerate(quads.tolist()):
        for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
            found[min(a, b), max(a, b)].append(quad)
    return found


def neighbours(edges: dict[Edge, list[int]]) -> dict[int, set[int]]:
    """The vertices that share an edge with each vertex."""
    found: dict[int, set[int]] = defaultdict(set)
    for a, b in edges:
        found[a].add(b)
        found[b].add(a)
    return found


def edge_rings(edges: dict[Edge, list[int]], start: Indices, count: int) -> list[Indices]:
    """``start`` and the ``count`` next rings of vertices around it, by number of edges."""
    around = neighbours(edges)
    rings, seen = [start], set(start.tolist())
    for _ in range(count):
        ring = sorted({other for vertex in rings[-1].tolist() for other in around[vertex]} - seen)
        seen.update(ring)
        rings.append(np.array(ring))
    return rings


def split_quads(vertices: Array, quads: Indices) -> Indices:
    """Two triangles for each quad (rows 2q and 2q + 1), split along the shorter diagonal."""
    corners = vertices[quads]
    first = np.linalg.norm(corners[:, 0] - corners[:, 2], axis=1)
    second = np.linalg.norm(corners[:, 1] - corners[:, 3], axis=1)
    a, b, c, d = quads.T
    along_first = np.stack([a, b, c, a, c, d], axis=1)
    along_second = np.stack([b, c, d, b, d, a], axis=1)
    chosen = np.where((first <= second)[:, None], along_first, along_second)
    triangles: Indices = chosen.reshape(-1, 3).astype(np.int64)
    return triangles


def vertex_areas(vertices: Array, triangles: Indices) -> Array:
    """A third of the area of the triangles around each vertex."""
    a, b, c = vertices[triangles].transpose(1, 0, 2)
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    shares = np.bincount(triangles.ravel(), np.repeat(areas / 3, 3), len(vertices))
    return shares.astype(np.float64)


def closest_point(point: Array, vertices: Array, triangles: Indices) -> tuple[int, Array]:
    """The triangle nearest to a point and the barycentric weights of the nearest point in it."""
    a, b, c = vertices[triangles].transpose(1, 0, 2)

    def on_edge(start: Array, end: Array) -> Array:
        along = end - start
        length2 = np.maximum((along**2).sum(1), 1e-30)
        share: Array = np.clip(((point - start) * along).sum(1) / length2, 0, 1)
        return share

    ab, ac, ap = b - a, c - a, point - a
    d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    d20, d21 = (ap * ab).sum(1), (ap * ac).sum(1)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-30)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    inner = np.stack([1 - v - w, v, w], axis=1)
    zero = np.zeros(len(triangles))
    ab_t, bc_t, ca_t = on_edge(a, b), on_edge(b, c), on_edge(c, a)
    candidates = np.stack(
        [
            inner,
            np.stack([1 - ab_t, ab_t, zero], axis=1),
            np.stack([zero, 1 - bc_t, bc_t], axis=1),
            np.stack([ca_t, zero, 1 - ca_t], axis=1),
        ]
    )
    points = np.einsum("ktc,ctx->ktx", candidates, np.stack([a, b, c]))
    distances = np.linalg.norm(points - point, axis=2)
    distances[0, (inner < 0).any(axis=1)] = np.inf
    kind, triangle = np.unravel_index(distances.argmin(), distances.shape)
    return int(triangle), candidates[kind, triangle]


def inside_polygon(points: Array, polygon: Array) -> NDArray[np.bool_]:
    """Which points (N, 2) lie inside a closed polygon (M, 2): the even-odd rule."""
    x, y = points.T[:, :, None]
    x1, y1 = polygon.T
    x2, y2 = np.roll(polygon, -1, axis=0).T
    crosses = (y1 > y) != (y2 > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        left = x < (x2 - x1) * (y - y1) / (y2 - y1) + x1
    odd: NDArray[np.bool_] = (crosses & left).sum(axis=1) % 2 == 1
    return odd
