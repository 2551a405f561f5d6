"""Landmark sets for the 3DDFA_V2 topology, computed while a pack is imported.

Upstream's basis names 68 vertices. Two more sets are found on the imported mean face itself, so no
part of it has to come with this package:

* ``landmarks468``: MediaPipe's canonical face mesh (``face_mesh_468.npz``, Apache License 2.0,
  made by ``weights/landmarks/make_template.py``) is warped onto the mean face by a
  thin-plate spline through the 51 inner landmarks of both, and each of its points goes to the
  nearest point of the surface; the lips each to their own.
* ``five``: nose tip and corners of the mouth are landmarks; an eye is the point of the surface in
  front of the middle between the corners of its lids.
"""

from __future__ import annotations

import io
from importlib import resources
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..landmark_sets import locate

Array = npt.NDArray[Any]

_INNER: Final = slice(17, 68)  # of the 68 landmarks: all but the jaw line
_UPPER_LIP: Final = [49, 50, 51, 52, 53, 61, 62, 63]
_LOWER_LIP: Final = [55, 56, 57, 58, 59, 65, 66, 67]
_NOSE_TIP, _MOUTH_CORNERS = 30, (48, 54)
_EYE_CORNERS: Final = ((36, 39), (42, 45))

_STIFFNESS: Final = 0.3  # centimetres by which the spline may miss an anchor for a smoother warp
_LIP_STEPS: Final = 40  # edges from a landmark of a lip that are followed along it
_CANDIDATES: Final = 64  # triangles that the nearest point is looked for in


def landmark_tables(mean: Array, triangles: Array, keypoints: Array) -> dict[str, Array]:
    """Tensors for a model's file.

    Args:
        mean: (V, 3) the mean face, y up.
        triangles: (T, 3).
        keypoints: (68,) the vertices that are landmarks.

    Returns:
        ``landmarks468_vertices`` int32 (468, 3) and ``landmarks468_weights`` float32, likewise
        ``five_vertices`` and ``five_weights`` (5, 3).
    """
    mean = mean.astype(np.float64)
    vertices468, weights468 = _mediapipe468(mean, triangles, keypoints)
    vertices5, weights5 = _five(mean, triangles, keypoints)
    return {
        "landmarks468_vertices": vertices468.astype(np.int32),
        "landmarks468_weights": weights468.astype(np.float32),
        "five_vertices": vertices5.astype(np.int32),
        "five_weights": weights5.astype(np.float32),
    }


def _mediapipe468(mean: Array, triangles: Array, keypoints: Array) -> tuple[Array, Array]:
    data = resources.files(__package__).joinpath("face_mesh_468.npz").read_bytes()
    template = np.load(io.BytesIO(data), allow_pickle=False)
    warped = _warp(template["anchors"], mean[keypoints[_INNER]], template["points"])
    vertices, weights = _nearest(warped, mean, triangles)
    # Where the lips touch, the nearest surface may be that of the other lip.
    upper = _steps_from(keypoints[_UPPER_LIP], triangles, len(mean))
    lower = _steps_from(keypoints[_LOWER_LIP], triangles, len(mean))
    for name, own in (("lips_upper", upper <= lower), ("lips_lower", lower <= upper)):
        lip = template[name]
        on_lip = triangles[own[triangles].all(axis=1)]
        if len(on_lip):
            vertices[lip], weights[lip] = _nearest(warped[lip], mean, on_lip)
    return vertices, weights


def _five(mean: Array, triangles: Array, keypoints: Array) -> tuple[Array, Array]:
    vertices = np.zeros((5, 3), np.int64)
    weights = np.zeros((5, 3))
    for i, (outer, inner) in enumerate(_EYE_CORNERS):
        x, y, _ = mean[keypoints[[outer, inner]]].mean(axis=0)
        found = locate(x, y, mean, triangles)
        if found is None:  # a face with open eye sockets
            vertices[i], weights[i] = keypoints[[outer, inner, inner]], (0.5, 0.5, 0)
        else:
            vertices[i], weights[i] = triangles[found.triangle], found.barycentric
    for i, landmark in enumerate((_NOSE_TIP, *_MOUTH_CORNERS), start=2):
        vertices[i], weights[i] = keypoints[landmark], (1, 0, 0)
    return vertices, weights


def _warp(source: Array, target: Array, points: Array) -> Array:
    """Move points (N, 3) by the smooth map that takes source (L, 3) near target (L, 3).

    Thin-plate spline in space: kernel |r|, linear part, and a stiffness that trades nearness for
    smoothness. Source: Bookstein 1989, "Principal warps", and Wahba 1990, "Spline Models for
    Observational Data", chapter 2.
    """
    count = len(source)
    system = np.zeros((count + 4, count + 4))
    system[:count, :count] = np.linalg.norm(source[:, None] - source[None], axis=2)
    system[:count, :count] -= _STIFFNESS * np.eye(count)  # the kernel is negative definite
    system[:count, count:] = np.column_stack([np.ones(count), source])
    system[count:, :count] = system[:count, count:].T
    right = np.concatenate([target, np.zeros((4, 3))])
    solution = np.linalg.lstsq(system, right, rcond=None)[0]
    kernel = np.linalg.norm(points[:, None] - source[None], axis=2)
    moved: Array = np.column_stack([kernel, np.ones(len(points)), points]) @ solution
    return moved


def _nearest(points: Array, mean: Array, triangles: Array) -> tuple[Array, Array]:
    """For each point (N, 3) the vertices (N, 3) and weights (N, 3) of the nearest surface point."""
    corners = mean[triangles]
    centres = corners.mean(axis=1)
    lengths = (centres**2).sum(axis=1)
    vertices = np.zeros((len(points), 3), np.int64)
    weights = np.zeros((len(points), 3))
    for i, point in enumerate(points):
        distances = lengths - 2 * (centres @ point)  # squared, but for the same constant
        count = min(_CANDIDATES, len(centres))
        near = np.argpartition(distances, count - 1)[:count]
        candidates = _weights_of_nearest(point, corners[near])  # (4, count, 3)
        found = np.einsum("kcv,cvx->kcx", candidates, corners[near])
        squared = ((found - point) ** 2).sum(axis=2)
        kind, best = np.unravel_index(np.nanargmin(squared), squared.shape)
        vertices[i], weights[i] = triangles[near[best]], candidates[kind, best]
    return vertices, weights


def _weights_of_nearest(point: Array, corners: Array) -> Array:
    """Weights (4, C, 3) of the points of C triangles (C, 3, 3) that may be nearest to a point:
    the foot of the perpendicular, NaN where that is outside, and the nearest of each edge."""
    candidates = np.zeros((4, len(corners), 3))
    for kind, (a, b) in enumerate(((0, 1), (1, 2), (2, 0)), start=1):
        edge = corners[:, b] - corners[:, a]
        length = np.maximum((edge**2).sum(axis=1), np.finfo(float).tiny)
        part = (((point - corners[:, a]) * edge).sum(axis=1) / length).clip(0, 1)
        candidates[kind, :, a], candidates[kind, :, b] = 1 - part, part
    u, v, to_point = (
        corners[:, 1] - corners[:, 0],
        corners[:, 2] - corners[:, 0],
        point - corners[:, 0],
    )
    uu, uv, vv = (u * u).sum(axis=1), (u * v).sum(axis=1), (v * v).sum(axis=1)
    pu, pv = (to_point * u).sum(axis=1), (to_point * v).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        second, third = (np.array([vv * pu - uv * pv, uu * pv - uv * pu])) / (uu * vv - uv**2)
    inside = (second >= 0) & (third >= 0) & (second + third <= 1)
    foot = np.stack([1 - second - third, second, third], axis=1)
    candidates[0] = np.where(inside[:, None], foot, np.nan)
    return candidates


def _steps_from(seeds: Array, triangles: Array, count: int) -> Array:
    """(count,) edges between each vertex and the nearest seed, at most `_LIP_STEPS` + 1."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    steps = np.full(count, _LIP_STEPS + 1)
    steps[seeds] = 0
    reached = np.zeros(count, bool)
    reached[seeds] = True
    for step in range(1, _LIP_STEPS + 1):
        fresh = np.zeros(count, bool)
        fresh[edges[reached[edges[:, 0]], 1]] = True
        fresh &= steps > _LIP_STEPS
        steps[fresh] = step
        reached = fresh
    return steps
