"""Draw where a pack fails: the sample's heads in views that are too much for it.

    python weights/sample/draw_limits.py --ict ../shared/training --out weights/limits.jpg

Each panel shows the landmarks that the pack finds; a red frame says that it finds no face.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from make_sample import HEADS, OVERSAMPLING, Head, IctHead, draw
from numpy.typing import NDArray

from threedfa import FaceAnalyzer, render, save_image

Image = NDArray[np.uint8]

SIDE = 260  # pixels of a panel
COLUMNS = 4
FIRST, SECOND = (replace(head, center=(SIDE / 2, SIDE / 2), pixels_per_cm=7.5) for head in HEADS)
VIEWS: tuple[tuple[str, Head], ...] = (
    ("as it should be", FIRST),
    ("turned by 60", replace(FIRST, yaw=60)),
    ("turned by 90", replace(FIRST, yaw=90)),
    ("seen from below", replace(SECOND, yaw=0, pitch=50)),
    ("leaning by 75", replace(SECOND, yaw=0, roll=75)),
    ("upside down", replace(SECOND, yaw=0, roll=180)),
    ("18 pixels", replace(FIRST, pixels_per_cm=1.1)),
    ("half covered", FIRST),
)


def panel(analyzer: FaceAnalyzer, model: IctHead, name: str, head: Head) -> Image:
    """One view with what is found in it."""
    canvas = np.full((SIDE * OVERSAMPLING, SIDE * OVERSAMPLING, 3), 0.45)
    draw(canvas, model, head)
    if name == "half covered":
        canvas[SIDE * OVERSAMPLING // 2 + 10 :] = (0.2, 0.3, 0.5)
    pixels = (canvas.clip(0, 1) * 255).astype(np.uint8)
    picture = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    faces = analyzer.analyze(picture)
    shown: Image = render(picture, faces, "landmarks") if faces else picture
    if not faces:
        cv2.rectangle(shown, (0, 0), (SIDE - 1, SIDE - 1), (220, 40, 40), 6)
    cv2.putText(shown, name, (10, SIDE - 12), 0, 0.55, (255, 255, 255), 1, cv2.LINE_AA)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ict", type=Path, required=True, help="folder with ict_facekit.npz")
    parser.add_argument("--out", type=Path, required=True, help="picture to write")
    parser.add_argument("--pack", default="weights/default", help="name or folder")
    options = parser.parse_args()
    analyzer, model = FaceAnalyzer(options.pack), IctHead(options.ict)
    panels = [panel(analyzer, model, name, head) for name, head in VIEWS]
    rows = [np.hstack(panels[i : i + COLUMNS]) for i in range(0, len(panels), COLUMNS)]
    save_image(options.out, np.vstack(rows))


if __name__ == "__main__":
    main()
