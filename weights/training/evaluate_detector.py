"""Measure the face detectors of two packs, in one run.

    python weights/training/evaluate_detector.py --pack weights/default --against 3ddfa_v2-mb05

Both run as users run them, with their packs' own settings:

* photographs with one annotated face each (``landmarks68.npz``, ``names`` and ``landmarks``; other
  people may be in them): faces found, and how the box lies to the square of the true landmarks;
  boxes that neither the annotation nor the other detector confirms, and how many of them are left
  where the pack's regressor refuses what is no face;
* false alarms on pictures made of held-out portraits without their faces, likewise;
* time of the networks at 1080 x 720, one thread.

What is not there (photographs, portraits) is left out, with a word.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
from detector_data import Array, Image, Painter, box_square, load_portraits

from threedfa import FaceAnalyzer, load_image, pack_path
from threedfa.networks import open_network

IOU = (0.4, 0.5)
LOW = 0.1  # score at which the other detector's boxes confirm one


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


def photographs(folder: Path, pair: dict[str, FaceAnalyzer]) -> None:
    """Print what each pack finds on annotated photographs."""
    table = np.load(folder / "landmarks68.npz")
    images = [load_image(folder / str(name)) for name in table["names"]]
    squares = [box_square(points) for points in table["landmarks"].astype(np.float32)]
    low = {name: a.detector.adjusted(score_threshold=LOW) for name, a in pair.items()}
    for name, analyzer in pair.items():
        (other,) = (detector for key, detector in low.items() if key != name)
        best, lies, missed = [], [], []
        unconfirmed = refused = kept = 0
        for i, (image, square) in enumerate(zip(images, squares, strict=True)):
            detections = analyzer.detector.detect(image)
            faces = analyzer.aligner.align_detected([image], [detections], [None])[0]
            iou = overlaps(detections.xyxy, square)
            best.append(iou.max(initial=0))
            if best[-1] < IOU[0]:
                missed.append(f"{table['names'][i]} ({best[-1]:.2f})")
            else:
                box = detections.xyxy[int(iou.argmax())]
                x, y, side = as_square(box)
                lies.append([*((x, y) - square[:2]) / square[2], np.log(side / square[2])])
                refused += not any((face.bbox == box).all() for face in faces)
            confirmed = other.detect(image).xyxy
            unconfirmed += sum(alarm(box, square, confirmed) for box in detections.xyxy)
            kept += sum(alarm(face.bbox, square, confirmed) for face in faces)
        recall = "  ".join(f"IoU >= {t}: {(np.array(best) >= t).mean():.4f}" for t in IOU)
        print(
            f"{name}: recall on {len(images)} photographs  {recall}; {unconfirmed} other boxes; "
            f"the regressor refuses {refused} faces and leaves {kept} others"
        )
        print(f"  missed {len(missed)}: {', '.join(missed[:12])}{' ...' * (len(missed) > 12)}")
        if lies:
            names = ("x", "y", "log size")
            parts = zip(names, np.mean(lies, 0), np.std(lies, 0), strict=True)
            told = ", ".join(f"{part} {mean:+.3f} ± {spread:.3f}" for part, mean, spread in parts)
            print(f"  box against the landmarks' square, of its side: {told}")


def alarm(box: Array, square: Array, confirmed: Array) -> bool:
    """Whether a box is neither the annotated face nor one of another detector's."""
    truth = overlaps(box[None], square)[0] > 0.2
    return not truth and overlaps(confirmed, as_square(box)).max(initial=0) <= 0.3


def false_alarms(pictures: list[Image], pair: dict[str, FaceAnalyzer]) -> None:
    """Print the false alarms on pictures without a face."""
    for name, analyzer in pair.items():
        low = analyzer.detector.adjusted(score_threshold=LOW)
        found = [low.detect(picture, color="bgr") for picture in pictures]
        scores = np.concatenate([detections.confidence for detections in found])
        alarms = (scores > analyzer.detector.score_threshold).sum()
        left = sum(len(faces) for faces in analyzer.analyze_batch(pictures, color="bgr"))
        top = ", ".join(f"{s:.2f}" for s in np.sort(scores)[::-1][:8])
        print(
            f"{name}: {1000 * alarms / len(pictures):.0f} false alarms per 1,000 pictures without "
            f"a face ({len(pictures)} tried), {1000 * left / len(pictures):.0f} that the regressor "
            f"does not refuse; highest scores {top}"
        )


def network_times(
    packs: dict[str, Path], pair: dict[str, FaceAnalyzer], repeats: int
) -> dict[str, Array]:
    """Milliseconds of processor time of each run at 1080 x 720, one thread, turn by turn."""
    rng = np.random.default_rng(0)
    specs = {name: analyzer.detector.spec for name, analyzer in pair.items()}
    networks = {
        name: open_network(packs[name] / spec.file, num_threads=1) for name, spec in specs.items()
    }
    batches = {
        name: rng.uniform(-100, 100, (1, len(spec.mean), 720, 1080)).astype(np.float32)
        for name, spec in specs.items()
    }
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(repeats):
        for name, network in networks.items():
            begin = time.thread_time()
            network.run(batches[name])
            times[name].append(1000 * (time.thread_time() - begin))
    return {name: np.array(values, np.float32) for name, values in times.items()}


def evaluate(options: argparse.Namespace) -> None:
    packs = {str(pack): pack_path(pack) for pack in (options.pack, options.against)}
    if len(set(packs.values())) < 2:
        raise SystemExit(f"--against: expected another pack than {options.pack}")
    pair = {name: FaceAnalyzer(pack) for name, pack in packs.items()}
    thresholds = (f"{name} {a.detector.score_threshold:.2f}" for name, a in pair.items())
    print(f"thresholds: {', '.join(thresholds)}")
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
    times = network_times(packs, pair, options.repeats)
    for name, values in times.items():
        print(f"{name}: network {values.min():.2f} ms at best, median {np.median(values):.2f} ms")
    best, middle = ([f(v) for v in times.values()] for f in (np.min, np.median))
    print(
        f"time against the other: {best[0] / best[1]:.3f} at best, {middle[0] / middle[1]:.3f} "
        "by medians"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pack", default="weights/default", help="name or folder")
    parser.add_argument("--against", default="3ddfa_v2-mb05", help="pack to compare with")
    parser.add_argument("--photographs", type=Path, default=Path("../shared/evaluation/afw"))
    parser.add_argument("--material", type=Path, default=Path("../shared/training"))
    parser.add_argument("--pictures", type=int, default=1000, help="without a face, to make")
    parser.add_argument("--repeats", type=int, default=40, help="of the time measurement")
    parser.add_argument("--limit", type=int, default=None, help="read at most so many portraits")
    cv2.setNumThreads(1)
    evaluate(parser.parse_args())


if __name__ == "__main__":
    main()
