"""Detection, alignment and dense vertices of one picture against the predecessor's time.

    python tests/benchmarks/benchmark_whole.py KERNELS [--pack NAME] [--picture FILE]

KERNELS is the program ``benchmark_kernels``, built from the same folder: before and after, it times
the textbook's box loop, by which the predecessor's time is scaled to this machine. All on one
thread, in milliseconds of the processor, of which the least counts. The face is first compared
with that of detector and aligner called one after the other. Exit status 1 if they differ, or if
the picture does not show one face, as the predecessor's did.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from threedfa import FaceAnalyzer
from threedfa.bench import same_faces, scene
from threedfa.image import load_image

PREDECESSOR = 21.1  # milliseconds for one picture with one face, on one thread
ITS_BOX_LOOP = 5.2  # milliseconds of the box loop on its machine
BOX_LOOP = "rasterize a face, 370 high"  # the row's name
ROUNDS = 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kernels", type=Path, help="the program benchmark_kernels")
    parser.add_argument("--pack", default="default", help="name or folder")
    parser.add_argument("--picture", type=Path, help="default: the sample's face in 1080 x 720")
    options = parser.parse_args()
    analyzer = FaceAnalyzer(options.pack, num_threads=1)
    picture = scene(analyzer, 1) if options.picture is None else load_image(options.picture)

    faces = analyzer.analyze(picture)
    if len(faces) != 1:
        print(f"expected a picture with one face, found {len(faces)}", file=sys.stderr)
        return 1
    expected = analyzer.aligner.align(picture, analyzer.detector.detect(picture))
    dense = [face.model.project(face.params, face.roi, dense=True) for face in expected]
    if not same_faces(faces, expected) or not all(
        np.allclose(face.vertices, vertices, atol=0.01)
        for face, vertices in zip(faces, dense, strict=True)
    ):
        print("the faces differ from those of detector and aligner", file=sys.stderr)
        return 1

    box_loop = box_loop_ms(options.kernels)
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for face in analyzer.analyze(picture):
            face.vertices  # noqa: B018 (computed when asked for)
        times.append(1000 * (time.process_time() - start))
    box_loop = min(box_loop, box_loop_ms(options.kernels))
    scaled = PREDECESSOR * box_loop / ITS_BOX_LOOP
    height, width = picture.shape[:2]
    print(f"{width} x {height}, faces: {len(faces)}, vertices: {len(analyzer.model.mean):,}")
    print(
        f"detection, alignment, dense vertices: {min(times):.2f} ms, {np.median(times):.2f} median"
    )
    print(f"box loop: {box_loop:.2f} ms, so the predecessor: {scaled:.2f} ms")
    print(f"times as fast: {scaled / min(times):.2f}")
    return 0


def box_loop_ms(kernels: Path) -> float:
    """Of the textbook, for one face of the predecessor's size."""
    report = json.loads(subprocess.check_output([kernels, "--json"]))
    (found,) = [row["other"] for row in report["rows"] if row["name"] == BOX_LOOP]
    return float(found)


if __name__ == "__main__":
    sys.exit(main())
