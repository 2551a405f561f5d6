"""Step 6: measure packs on photographs with 68 points.

    python weights/training/evaluate.py --photographs ../shared/evaluation/afw \
        --pack CACHE/pack --pack CACHE/3ddfa_v2-mb05 --boxes CACHE/3ddfa_v2-mb05

Prints errors in % of the distance between the outer corners of the eyes, for groups of points, and
the correlation of eye and mouth apertures with the truth; starting from the region of the true
points, from each pack's own detector's boxes (``--boxes``: from one pack's for all), and after a
second pass from the first pass's landmarks. The folder holds pictures and ``landmarks68.npz`` with
``names`` (n) and ``landmarks`` (n, 68, 2). Without the folder it says so and ends well.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from face import Array
from metrics import print_table, summary
from numpy.typing import NDArray

from threedfa import FaceAligner, FaceDetector, load_image

Image = NDArray[np.uint8]


def best_box(boxes: Array, points: Array) -> Array | None:
    """The (1, 4) box that overlaps most with the points' bounding rectangle, None if none does."""
    if len(boxes) == 0:
        return None
    low, high = points.min(0), points.max(0)
    overlap = np.clip(np.minimum(boxes[:, 2:4], high) - np.maximum(boxes[:, :2], low), 0, None)
    shared = overlap.prod(1)
    union = (boxes[:, 2:4] - boxes[:, :2]).prod(1) + (high - low).prod() - shared
    best = int((shared / union).argmax())
    return boxes[best : best + 1, :4] if shared[best] > 0 else None


def measure(
    aligner: FaceAligner,
    images: list[Image],
    truth: Array,
    start: Callable[[int], list[Array]],
) -> tuple[dict[str, float], dict[str, float]]:
    """Tables of the first and of the second pass.

    Args:
        aligner: of the pack.
        images: the photographs.
        truth: (n, 68, 2).
        start: for a photograph the landmarks of the first pass, as a list of one; empty for a miss.
    """
    rows, first, second = [], [], []
    for i, image in enumerate(images):
        for landmarks in start(i):
            again = aligner.align_from_landmarks(image, [landmarks[:, :2]])[0]
            rows.append(i)
            first.append(landmarks)
            second.append(again.landmarks)
    missed = float(len(images) - len(rows))
    one, two = (summary(np.stack(found), truth[rows]) for found in (first, second))
    return one | {"missed": missed}, two | {"missed": missed}


def evaluate(folder: Path, packs: list[str], boxes_from: str | None) -> dict[str, dict[str, float]]:
    """A table of every pack and start."""
    table = np.load(folder / "landmarks68.npz")
    truth = table["landmarks"].astype(np.float32)
    images = [load_image(folder / str(name)) for name in table["names"]]
    rows: dict[str, dict[str, float]] = {}
    for pack in packs:
        aligner, detector = FaceAligner(pack), FaceDetector(boxes_from or pack)

        def from_truth(i: int, aligner: FaceAligner = aligner) -> list[Array]:
            return [aligner.align_from_landmarks(images[i], [truth[i]])[0].landmarks]

        def from_boxes(
            i: int, aligner: FaceAligner = aligner, detector: FaceDetector = detector
        ) -> list[Array]:
            box = best_box(detector.detect(images[i]).xyxy, truth[i])
            return [] if box is None else [aligner.align(images[i], box)[0].landmarks]

        name = Path(pack).name
        for view, start in (("true region", from_truth), ("boxes", from_boxes)):
            one, two = measure(aligner, images, truth, start)
            rows[f"{name}, {view}"] = one
            rows[f"{name}, {view}, 2 passes"] = two
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photographs", type=Path, default=Path("../shared/evaluation/afw"))
    parser.add_argument("--pack", action="append", required=True, help="name or folder; repeatable")
    parser.add_argument("--boxes", help="pack whose detector gives the boxes for all")
    options = parser.parse_args()
    if not (options.photographs / "landmarks68.npz").exists():
        print(f"{options.photographs} has no landmarks68.npz; nothing to measure on")
        return
    print_table(evaluate(options.photographs, options.pack, options.boxes))


if __name__ == "__main__":
    main()
