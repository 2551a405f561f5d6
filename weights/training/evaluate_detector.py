"""Measure a face detector against a pack's, in one run.

    python weights/training/evaluate_detector.py --detector CACHE/detector --against 3ddfa_v2-mb05

Both detectors run as users run them, with their packs' own settings:

* photographs with one annotated face each (``landmarks68.npz``, ``names`` and ``landmarks``; other
  people may be in them): faces found, and how the box lies to the square of the true landmarks;
  boxes that neither the annotation nor the other detector confirms;
* false alarms on pictures made of held-out portraits without their faces;
* time of the networks at 1080 x 720, one thread.

What is not there (photographs, portraits) is left out, with a word.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from detector_data import Array, Image, Painter, box_square, load_portraits

from threedfa import FaceDetector, load_image, pack_path
from threedfa.pack import PACK_JSON

IOU = (0.4, 0.5)
LOW = 0.1  # score at which the other detector's boxes confirm one


def with_detector(pack: Path, detector: Path, out: Path) -> Path:
    """A copy of a pack with another detector in it.

    Args:
        pack: the pack's folder.
        detector: the folder with ``detector.onnx`` and ``detector.json``.
        out: where to put it; made.
    """
    shutil.copytree(pack, out)
    content = json.loads((out / PACK_JSON).read_text())
    content["detector"] = json.loads((detector / "detector.json").read_text())
    file = content["detector"]["file"]
    shutil.copyfile(detector / file, out / file)
    content["files"][file] = hashlib.sha256((out / file).read_bytes()).hexdigest()
    content["name"] = out.name
    (out / PACK_JSON).write_text(json.dumps(content))
    return out


def overlaps(boxes: Array, square: Array) -> Array:
    """Intersection over union of boxes (N, 4) with a square (centre x, y and side)."""
    low, high = square[:2] - square[2] / 2, square[:2] + square[2] / 2
    sides = np.minimum(boxes[:, 2:], high) - np.maximum(boxes[:, :2], low)
    shared = np.clip(sides, 0, None).prod(1)
    result: Array = shared / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + square[2] ** 2 - shared)
    return result


def as_square(box: Array) -> Array:
    """Centre x, y and mean side of a box x1 y1 x2 y2."""
    return np.array([*(box[:2] + box[2:]) / 2, (box[2:] - box[:2]).mean()], np.float32)


def photographs(folder: Path, pair: dict[str, tuple[FaceDetector, FaceDetector]]) -> None:
    """Print what each detector finds on annotated photographs.

    Args:
        folder: of the photographs.
        pair: by name, a detector with its own settings and the same with a low threshold.
    """
    table = np.load(folder / "landmarks68.npz")
    images = [load_image(folder / str(name)) for name in table["names"]]
    squares = [box_square(points) for points in table["landmarks"].astype(np.float32)]
    found = {
        name: [[d.detect(image) for image in images] for d in detectors]
        for name, detectors in pair.items()
    }
    for name, (own, _) in found.items():
        (other,) = (low for key, (_, low) in found.items() if key != name)
        best, lies, unconfirmed, missed = [], [], 0, []
        for i, (detections, square) in enumerate(zip(own, squares, strict=True)):
            iou = overlaps(detections.xyxy, square) if len(detections) else np.zeros(1)
            best.append(iou.max())
            if iou.max() < IOU[0]:
                missed.append(f"{table['names'][i]} ({iou.max():.2f})")
            else:
                x, y, side = as_square(detections.xyxy[int(iou.argmax())])
                lies.append([*((x, y) - square[:2]) / square[2], np.log(side / square[2])])
            for box in detections.xyxy:
                confirmed = overlaps(other[i].xyxy, as_square(box)).max(initial=0) > 0.3
                truth = overlaps(box[None], square)[0] > 0.2
                unconfirmed += not confirmed and not truth
        recall = "  ".join(f"IoU >= {t}: {(np.array(best) >= t).mean():.4f}" for t in IOU)
        print(f"{name}: recall on {len(images)} photographs  {recall}; {unconfirmed} other boxes")
        print(f"  missed {len(missed)}: {', '.join(missed[:12])}{' ...' * (len(missed) > 12)}")
        if lies:
            names = ("x", "y", "log size")
            parts = zip(names, np.mean(lies, 0), np.std(lies, 0), strict=True)
            told = ", ".join(f"{part} {mean:+.3f} ± {spread:.3f}" for part, mean, spread in parts)
            print(f"  box against the landmarks' square, of its side: {told}")


def false_alarms(pictures: list[Image], pair: dict[str, tuple[FaceDetector, FaceDetector]]) -> None:
    """Print the false alarms on pictures without a face."""
    for name, (own, low) in pair.items():
        counts = np.array([len(own.detect(picture, color="bgr")) for picture in pictures])
        scores = np.concatenate([low.detect(p, color="bgr").confidence for p in pictures])
        top = ", ".join(f"{s:.2f}" for s in np.sort(scores)[::-1][:5])
        print(
            f"{name}: {1000 * counts.mean():.0f} false alarms per 1,000 pictures without a face "
            f"({len(pictures)} tried); highest scores {top}"
        )


def network_times(files: dict[str, Path], repeats: int) -> dict[str, Array]:
    """Milliseconds of processor time of each run at 1080 x 720, one thread, turn by turn."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for name, path in files.items()
    }
    batch = np.random.default_rng(0).uniform(-100, 100, (1, 3, 720, 1080)).astype(np.float32)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(repeats):
        for name, session in sessions.items():
            begin = time.thread_time()
            session.run(None, {session.get_inputs()[0].name: batch})
            times[name].append(1000 * (time.thread_time() - begin))
    return {name: np.array(values, np.float32) for name, values in times.items()}


def evaluate(options: argparse.Namespace, work: Path) -> None:
    reference = pack_path(options.against)
    ours = with_detector(reference, options.detector, work / "measured")
    packs = {"detector": ours, reference.name: reference}
    pair = {
        name: (FaceDetector(pack), FaceDetector(pack, score_threshold=LOW))
        for name, pack in packs.items()
    }
    print(f"thresholds: {', '.join(f'{k} {d.score_threshold:.2f}' for k, (d, _) in pair.items())}")
    if (options.photographs / "landmarks68.npz").is_file():
        photographs(options.photographs, pair)
    else:
        print(f"no landmarks68.npz in {options.photographs}: recall left out")
    if (options.material / "labels.npz").is_file():
        heldout = load_portraits(options.material, "heldout", options.limit)
        painter = Painter(heldout, np.random.default_rng(11))
        pictures = [painter.sample(480, 640, faces=False).image for _ in range(options.pictures)]
        false_alarms(pictures, pair)
    else:
        print(f"no labels.npz in {options.material}: false alarms left out")
    files = {
        name: pack / detectors[0].spec.file
        for (name, pack), detectors in zip(packs.items(), pair.values(), strict=True)
    }
    times = network_times(files, options.repeats)
    for name, values in times.items():
        print(f"{name}: network {values.min():.2f} ms at best, median {np.median(values):.2f} ms")
    best, middle = ([f(v) for v in times.values()] for f in (np.min, np.median))
    print(
        f"time against the other: {best[0] / best[1]:.3f} at best, {middle[0] / middle[1]:.3f} "
        "by medians"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--detector", type=Path, required=True, help="folder of detector.onnx, .json"
    )
    parser.add_argument("--against", default="3ddfa_v2-mb05", help="pack to compare with")
    parser.add_argument("--photographs", type=Path, default=Path("../shared/evaluation/afw"))
    parser.add_argument("--material", type=Path, default=Path("../shared/training"))
    parser.add_argument("--pictures", type=int, default=500, help="without a face, to make")
    parser.add_argument("--repeats", type=int, default=40, help="of the time measurement")
    parser.add_argument("--limit", type=int, default=None, help="read at most so many portraits")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if not (options.detector / "detector.onnx").is_file():
        print(f"skipped: no detector.onnx in {options.detector}; run export_detector.py first")
        return
    with tempfile.TemporaryDirectory() as work:
        evaluate(options, Path(work))


if __name__ == "__main__":
    main()
