"""Make the template from which importing an upstream pack gets its 468 landmarks.

    python weights/landmarks/make_template.py --material ../shared/training

It holds, of MediaPipe's canonical face mesh (`canonical_face_model.obj`, Apache License 2.0, The
MediaPipe Authors) in centimetres:

* ``points`` (468, 3) the vertices;
* ``anchors`` (51, 3) where landmarks 17 to 67 of the 68-point scheme lie on it, each between two
  vertices (table ``w68`` of the material);
* ``lips_upper``, ``lips_lower`` the vertices of the lips.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

JAW = 17  # points of the jaw line, which no two schemes place alike
TARGET = (
    Path(__file__).resolve().parents[2] / "python" / "threedfa" / "upstream" / "face_mesh_468.npz"
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--material", type=Path, required=True)
    material = parser.parse_args().material
    lines = (material / "mediapipe" / "canonical_face_model.obj").read_text().splitlines()
    points = np.array([line.split()[1:] for line in lines if line.startswith("v ")], np.float64)
    tables = np.load(material / "canonical_468_to_ict.npz")
    template = {
        "points": points.astype(np.float32),
        "anchors": (tables["w68"] @ points)[JAW:].astype(np.float32),
        "lips_upper": tables["lips_up"].astype(np.int32),
        "lips_lower": tables["lips_lo"].astype(np.int32),
    }
    np.savez_compressed(TARGET, **template)


if __name__ == "__main__":
    main()
