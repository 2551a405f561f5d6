"""Eyeballs of our own: spheres that follow ICT's eyes and lids, turned by the gaze."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

SECTORS = 18
RING_ANGLES = np.radians([4.5, 9.5, 15, 20.5, 26, 35, 45, 55, 67, 79, 92, 106])
"""From the pole. Pupil and iris end near the 2nd and the 5th ring."""
VERTICES = 1 + SECTORS * len(RING_ANGLES)

GAZE_DEGREES = {"LookIn": 30.0, "LookOut": 30.0, "LookUp": 25.0, "LookDown": 30.0}
"""Turn of an eyeball at weight 1. ICT's own gaze shapes move the lids alone."""


@dataclass(frozen=True)
class Eye:
    """One eyeball's sphere and how each identity vector moves and scales it (linearised)."""

    center: Array  # (3,)
    radius: float
    shift: Array  # (K, 3) displacement of the centre
    growth: Array  # (K,) relative change of the radius


def fit_sphere(points: Array) -> tuple[Array, float]:
    """Centre and radius of the least squares sphere through points (N, 3)."""
    system = np.column_stack([2 * points, np.ones(len(points))])
    solution = np.linalg.lstsq(system, (points**2).sum(axis=1), rcond=None)[0]
    center = solution[:3]
    return center, float(np.sqrt(solution[3] + center @ center))


def follow_lids(
    center: Array, radius: float, lids: Array, lid_moves: Array, eye: Array, eye_moves: Array
) -> tuple[Array, Array]:
    """Shift (K, 3) and growth (K,) of the sphere that keep the lids' distance to it.

    Least squares over the lids' points (N, 3) of the change of distance along the radius, held by
    a weaker wish to move as ICT's own eyeball (M, 3) does. Moves: (K, N or M, 3).
    """
    rows, targets = [], []
    for points, moves, weight in ((lids, lid_moves, 1.0), (eye, eye_moves, 0.3)):
        normals = points - center
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        scale = weight / np.sqrt(len(points))
        rows.append(np.column_stack([normals, np.full(len(points), radius)]) * scale)
        targets.append((moves * normals).sum(axis=2).T * scale)
    solution = np.linalg.lstsq(np.concatenate(rows), np.concatenate(targets), rcond=None)[0]
    return solution[:3].T, solution[3]


def ball(radius: float) -> Array:
    """(VERTICES, 3) cap of a sphere about the origin, pole at +z, rings counter-clockwise."""
    turn = 2 * np.pi * np.arange(SECTORS) / SECTORS + np.pi / 2  # symmetric about x = 0
    angle = RING_ANGLES[:, None]
    rings = np.stack(
        [
            np.sin(angle) * np.cos(turn),
            np.sin(angle) * np.sin(turn),
            np.cos(angle) * np.ones(SECTORS),
        ],
        axis=2,
    )
    return radius * np.concatenate([[[0.0, 0.0, 1.0]], rings.reshape(-1, 3)])


def ball_triangles() -> Indices:
    """Triangles of :func:`ball`, counter-clockwise seen from outside."""
    index = 1 + np.arange(SECTORS * len(RING_ANGLES)).reshape(-1, SECTORS)
    following = np.roll(index, -1, axis=1)
    fan = np.stack([np.zeros(SECTORS, int), index[0], following[0]], axis=1)
    inner, outer = (index[:-1], following[:-1]), (index[1:], following[1:])
    bands = [
        np.stack([inner[0], outer[0], outer[1]], axis=2),
        np.stack([inner[0], outer[1], inner[1]], axis=2),
    ]
    # Diagonals change sides at x = 0, so that a mirrored ball has the same triangles.
    mirrored = np.stack([inner[0], outer[0], inner[1]], axis=2)
    other = np.stack([inner[1], outer[0], outer[1]], axis=2)
    left = np.arange(SECTORS) < SECTORS // 2
    bands = [np.where(left[:, None], bands[0], mirrored), np.where(left[:, None], bands[1], other)]
    return np.concatenate([fan, *(band.reshape(-1, 3) for band in bands)])


def ball_mirror() -> Indices:
    """For each vertex of :func:`ball` the one at its mirror image, x negated."""
    sectors = -np.arange(SECTORS) % SECTORS
    rings = 1 + SECTORS * np.arange(len(RING_ANGLES))[:, None] + sectors
    return np.concatenate([[0], rings.ravel()])


def ball_uv(center: tuple[float, float], radius: float) -> Array:
    """(VERTICES, 2) the ball flattened to a disc: the distance to its middle is the angle."""
    points = ball(1.0)
    angle = np.arccos(np.clip(points[:, 2], -1, 1))
    spread = angle / RING_ANGLES[-1] / np.maximum(np.hypot(points[:, 0], points[:, 1]), 1e-12)
    flat: Array = np.array(center) + radius * points[:, :2] * spread[:, None]
    return flat


def gaze(center: Array, points: Array, direction: str, outwards: float) -> Array:
    """Displacement of an eyeball's points (N, 3) at weight 1 of one gaze shape.

    Args:
        direction: a key of GAZE_DEGREES.
        outwards: sign of x away from the nose.
    """
    angle = np.radians(GAZE_DEGREES[direction])
    horizontal = {"LookOut": outwards, "LookIn": -outwards}.get(direction)
    cos, sin = np.cos(angle), np.sin(angle)
    if horizontal is None:
        sin *= 1 if direction == "LookUp" else -1
        rotation = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
    else:
        sin *= horizontal
        rotation = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    turned: Array = (points - center) @ rotation.T - (points - center)
    return turned
