"""Step 7: measure pose and expressions on renders of held-out portraits, whose truth is known.

    python weights/training/evaluate_renders.py --renders CACHE/renders --pack weights/default

Prints, by yaw: errors of the three angles and of the whole rotation in degrees, and of the 68
landmarks in pixels per 100 of the longer side of their bounding rectangle; then the correlation of
expressions with the truth, for faces that turn at most ``--most-yaw`` degrees (beyond, one half of
the face is hidden). Each picture goes through the pack's own detector.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from crops import Crops, render_crops
from face import CAMERA, Array, Morphable
from numpy.typing import NDArray
from renders import angles, object_rotation

from threedfa import FaceAnalyzer
from threedfa.evaluation import best_box, correlation

YAW_BINS = (0, 30, 60, 90)
EXPRESSIONS = (
    "jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "mouthSmileLeft", "mouthSmileRight",
    "browInnerUp", "browDownLeft", "browDownRight", "browOuterUpLeft", "browOuterUpRight",
    "mouthPucker", "mouthFunnel", "eyeLookUpLeft", "eyeLookOutLeft",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One row for each face that was found."""

    yaw: Array  # (n,) true, degrees
    angle_errors: Array  # (n, 3) yaw, pitch, roll, degrees
    rotation_error: Array  # (n,) degrees
    landmark_error: Array  # (n,)
    found: Array  # (n, E) expression coefficients
    true: Array  # (n, E)
    missed: int


def measure(analyzer: FaceAnalyzer, model: Morphable, crops: Crops, count: int) -> Measured:
    """Analyze ``count`` of the pictures, evenly taken.

    Raises:
        ValueError: if no face is found.
    """
    rows: list[tuple[object, ...]] = []
    missed = 0
    for i in range(0, len(crops), -(-len(crops) // count)):
        params = crops.params[i]
        landmarks = model.landmarks(params)
        image = np.ascontiguousarray(crops.image(i)[..., ::-1])
        faces = analyzer.analyze(image)
        best = best_box(np.array([face.bbox for face in faces], np.float32), landmarks)
        if best is None:
            missed += 1
            continue
        face = faces[best]
        truth = object_rotation(params)
        apart = np.degrees(np.array(angles(face.pose.rotation)) - np.array(angles(truth)))
        cosine = (np.trace(face.pose.rotation.T @ truth) - 1) / 2
        distance = np.linalg.norm(face.landmarks[:, :2] - landmarks, axis=1).mean()
        rows.append(
            (
                np.degrees(angles(truth)[0]),
                np.abs((apart + 180) % 360 - 180),
                np.degrees(np.arccos(np.clip(cosine, -1, 1))),
                100 * distance / np.ptp(landmarks, axis=0).max(),
                face.expression_coeffs,
                params[CAMERA + model.shape_count :],
            )
        )
    if not rows:
        raise ValueError(f"none of the {missed} heads was found; is this the right pack?")
    columns = [np.array(column, np.float32) for column in zip(*rows, strict=True)]
    return Measured(*columns, missed=missed)


def print_pose(result: Measured) -> None:
    print(f"{len(result.yaw)} faces, {result.missed} missed")
    print(f"{'|yaw|':>8}{'faces':>7}{'yaw':>7}{'pitch':>7}{'roll':>7}{'whole':>7}{'points':>8}")
    size = np.abs(result.yaw)
    bins: list[tuple[str, NDArray[np.bool_]]] = [
        (f"{low}-{high}", (size >= low) & (size < high)) for low, high in pairwise(YAW_BINS)
    ]
    bins.append(("0-60", size < 60))
    for name, inside in bins:
        if not inside.any():
            continue
        yaw, pitch, roll = result.angle_errors[inside].mean(0)
        print(
            f"{name:>8}{inside.sum():7d}{yaw:7.2f}{pitch:7.2f}{roll:7.2f}"
            f"{result.rotation_error[inside].mean():7.2f}{result.landmark_error[inside].mean():8.2f}"
        )


def print_expressions(result: Measured, model: Morphable, most_yaw: float) -> None:
    facing = np.abs(result.yaw) <= most_yaw
    print(f"correlation of expressions, {facing.sum()} faces up to {most_yaw:.0f} degrees of yaw")
    for name in EXPRESSIONS:
        column = model.expression_index(name)
        value = correlation(result.found[facing, column], result.true[facing, column])
        print(f"{name:>16} {value:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--renders", type=Path, required=True, help="what renders.py made")
    parser.add_argument("--model", type=Path, default=Path("weights/default/model.safetensors"))
    parser.add_argument("--pack", default="weights/default", help="name or folder")
    parser.add_argument("--count", type=int, default=1000, help="pictures to measure")
    parser.add_argument("--most-yaw", type=float, default=45.0, help="degrees")
    options = parser.parse_args()
    model = Morphable.load(options.model)
    crops = render_crops(options.renders, "heldout")
    result = measure(FaceAnalyzer(options.pack), model, crops, options.count)
    print_pose(result)
    print_expressions(result, model, options.most_yaw)


if __name__ == "__main__":
    main()
