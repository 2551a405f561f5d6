"""Errors of 68 landmarks, in the annotation of 300-W (Sagonas et al. 2013)."""

from __future__ import annotations

import numpy as np
from face import Array

GROUPS = {
    "all 68": slice(0, 68),
    "inner 51": slice(17, 68),
    "contour": slice(0, 17),
    "brows": slice(17, 27),
    "nose": slice(27, 36),
    "eyes": slice(36, 48),
    "mouth": slice(48, 68),
}


def errors(found: Array, truth: Array) -> Array:
    """(N, 68) distances in % of the distance between the outer corners of the eyes."""
    unit = np.linalg.norm(truth[:, 36, :2] - truth[:, 45, :2], axis=1)
    distance = np.linalg.norm(found[..., :2] - truth[..., :2], axis=2)
    result: Array = 100 * distance / unit[:, None]
    return result


def eye_aperture(points: Array) -> Array:
    """(N, 2) height of each eye over its width, right eye first."""
    flat = points[..., :2]

    def length(a: int, b: int) -> Array:
        out: Array = np.linalg.norm(flat[:, a] - flat[:, b], axis=1)
        return out

    right = (length(37, 41) + length(38, 40)) / (2 * length(36, 39))
    left = (length(43, 47) + length(44, 46)) / (2 * length(42, 45))
    return np.stack([right, left], 1)


def mouth_aperture(points: Array) -> Array:
    """(N,) height of the mouth's opening over the mouth's width."""
    flat = points[..., :2]
    height = np.linalg.norm(flat[:, 61:64] - flat[:, 67:64:-1], axis=2).mean(1)
    result: Array = height / np.linalg.norm(flat[:, 48] - flat[:, 54], axis=1)
    return result


def summary(found: Array, truth: Array) -> dict[str, float]:
    """Mean error of each group, and how well the apertures follow the truth (correlation)."""
    table = errors(found, truth)
    row = {name: float(table[:, part].mean()) for name, part in GROUPS.items()}
    eyes = eye_aperture(found).ravel(), eye_aperture(truth).ravel()
    mouths = mouth_aperture(found), mouth_aperture(truth)
    row["eye corr."] = float(np.corrcoef(*eyes)[0, 1])
    row["mouth corr."] = float(np.corrcoef(*mouths)[0, 1])
    return row


def print_table(rows: dict[str, dict[str, float]]) -> None:
    """Rows by name, aligned; the columns of the longest row, nan where a row has none."""
    columns = list(max(rows.values(), key=len))
    width = max(len(name) for name in rows)
    print(" " * width + "".join(f"{c:>{_cell(c)}}" for c in columns))
    for name, row in rows.items():
        cells = "".join(f"{row.get(c, float('nan')):{_cell(c)}.3f}" for c in columns)
        print(f"{name:{width}}{cells}", flush=True)


def _cell(column: str) -> int:
    return max(len(column), 7) + 2
