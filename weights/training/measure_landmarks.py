"""Measure the tables of 468 landmarks against a real 468-point network, on portraits of nobody.

    python weights/training/measure_landmarks.py --material ../shared/training \
        --reference ../shared/reference/weights

The network is MediaPipe's; its points on pictures that text-to-image models made are in the
material's ``labels.npz``. Errors are distances in the picture, in percent of the face's size, the
square root of width times height of the 468 points. "Systematic" is the part of it that is the same
in every picture, in the head's own axes: what a better table would remove.

Measured are, on the 150 held-out portraits,

* the default model fitted to the 468 points, which shows how well table and model together can be
  where the network says, and fitted to 68 of them, which shows the other 400 where nothing pulled;

and, on every fourth portrait, the whole chain of the imported 3DDFA_V2 pack, beside the error of
its own 68 landmarks on the same pictures.

Prints a table and ends with status 1 if an error exceeds its limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from face import Morphable
from labels import fit
from numpy.typing import NDArray

from threedfa import FaceAligner
from threedfa.upstream.convert import import_reference_pack

Array = NDArray[np.float64]

INNER = slice(17, 68)  # of the 68: all but the jaw line


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path("weights/default/model.safetensors"))
    parser.add_argument("--reference", type=Path, help="upstream's files with the stand-in basis")
    options = parser.parse_args()
    labels = dict(np.load(options.material / "labels.npz"))
    tables = dict(np.load(options.material / "canonical_468_to_ict.npz"))

    rows = fitted_default(options.model, labels, tables)
    if options.reference is not None:
        rows += imported_pack(options.material, options.reference, labels, tables)
    failed = False
    print(f"{'points':58}{'mean':>7}{'median':>8}{'95 %':>7}{'systematic':>12}{'limit':>7}")
    for name, errors, systematic, limit in rows:
        middle, high = np.percentile(errors, [50, 95])
        print(
            f"{name:58}{errors.mean():6.2f}%{middle:7.2f}%{high:6.2f}%{systematic:11.2f}%{limit:6.2f}%"
        )
        failed |= bool(errors.mean() > limit)
    return int(failed)


Row = tuple[str, Array, float, float]


def compared(
    name: str, found: Array, truth: Array, rotations: Array, size: Array, limit: float
) -> Row:
    """Errors of (n, L, 2) points in percent of ``size`` (n,), and their systematic part."""
    misses = 100 * (found - truth)[..., :2] / size[:, None, None]
    # Into the head's axes: the picture tells two of three coordinates of each miss, so the mean
    # miss m of a point solves sum(P' P) m = sum(P' miss), P the first two rows of the rotation.
    axes = rotations[:, :2] * np.array([1, -1])[:, None]
    normal = np.einsum("nai,naj->ij", axes, axes)
    mean = np.linalg.solve(normal, np.einsum("nai,nla->il", axes, misses)).T
    return (
        name,
        np.linalg.norm(misses, axis=2).ravel(),
        float(np.linalg.norm(mean[:, :2], axis=1).mean()),
        limit,
    )


def face_size(points: Array) -> Array:
    size: Array = np.sqrt(np.ptp(points[..., :2], axis=1).prod(axis=1))
    return size


def fitted_default(
    path: Path, labels: dict[str, NDArray[np.generic]], tables: dict[str, Array]
) -> list[Row]:
    model = Morphable.load(path)
    points = labels["landmarks468"][labels["heldout"]].astype(np.float32)
    points[..., 2] *= -1  # towards the viewer
    points68 = np.einsum("kl,nlx->nkx", tables["w68"], points).astype(np.float32)
    size = face_size(points.astype(np.float64))

    rows = []
    for name, subset, target, weight, limit in (
        ("468 points", model.points468, points, tables["weight"], 0.8),
        ("68 of them", model.points68, points68, np.ones(68), 1.1),
    ):
        cameras, coefficients = fit(
            replace(model, points468=subset), target, weight.astype(np.float32)
        )
        vertices = np.stack([model.vertices(c) for c in coefficients])
        at468 = model.points468.of(vertices)
        found = np.einsum("nij,nlj->nli", cameras[:, :, :3], at468) + cameras[:, None, :, 3]
        lengths = np.linalg.norm(cameras[:, :, :3], axis=2, keepdims=True)
        rotations = cameras[:, :, :3] / lengths * np.array([1, -1, 1])[:, None]
        rows.append(
            compared(f"default model fitted to {name}: 468", found, points, rotations, size, limit)
        )
    return rows


def imported_pack(
    material: Path,
    reference: Path,
    labels: dict[str, NDArray[np.generic]],
    tables: dict[str, Array],
) -> list[Row]:
    chosen = np.flatnonzero(labels["keep"])[::4]
    with tempfile.TemporaryDirectory() as folder:
        aligner = FaceAligner(import_reference_pack(reference, folder))
    found, landmarks, rotations = [], [], []
    for number in chosen:
        left, top, width, height = labels["yunet"][number, :4]
        (face,) = aligner.align(
            material / str(labels["image"][number]), [[left, top, left + width, top + height]]
        )
        found.append(face.landmarks_in("mediapipe468"))
        landmarks.append(face.landmarks)
        rotations.append(face.pose.rotation)
    points = labels["landmarks468"][chosen].astype(np.float64)
    size, turned = face_size(points), np.array(rotations)
    points68 = np.einsum("kl,nlx->nkx", tables["w68"], points)
    return [
        compared("3ddfa_v2-mb05 on pictures: 468", np.array(found), points, turned, size, 2.8),
        compared(
            "3ddfa_v2-mb05 on pictures: its own 51 inner landmarks",
            np.array(landmarks)[:, INNER],
            points68[:, INNER],
            turned,
            size,
            3.0,
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
