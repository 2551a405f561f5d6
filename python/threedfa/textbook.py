"""The kernels as they are usually written with NumPy and OpenCV: what ``threedfa bench`` checks our
answers against and compares our times with."""

from __future__ import annotations

from itertools import product
from math import ceil
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .pack import DetectorSpec
from .priors import PriorConfig

Floats = NDArray[np.float32]
Channels = tuple[float, ...]


def prior_boxes(height: int, width: int, config: PriorConfig) -> Floats:
    """Loops over cells, as in FaceBoxes' PriorBox."""
    boxes = []
    for level in config.levels:
        step = level.step
        for row, column in product(range(ceil(height / step)), range(ceil(width / step))):
            for size in level.sizes:
                places = [i / size.density + size.offset for i in range(size.density)]
                for y, x in product(places, places):
                    boxes.append(
                        (
                            (column + x) * step / width,
                            (row + y) * step / height,
                            size.size / width,
                            size.size / height,
                        )
                    )
    return np.array(boxes, np.float32)


def decode_boxes(loc: Floats, priors: Floats, variances: tuple[float, float]) -> Floats:
    """All boxes, x1 y1 x2 y2 (SSD, Liu et al. 2016)."""
    centers = priors[:, :2] + loc[:, :2] * np.float32(variances[0]) * priors[:, 2:]
    sizes = priors[:, 2:] * np.exp(loc[:, 2:] * np.float32(variances[1]))
    return np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1)


def nms(boxes: Floats, scores: Floats, threshold: float, offset: float) -> list[int]:
    """One box against all that are left, as in Fast R-CNN's py_cpu_nms."""
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1 + offset) * (y2 - y1 + offset)
    order = np.argsort(scores, kind="stable")[::-1]
    keep = []
    while len(order):
        best, rest = order[0], order[1:]
        keep.append(int(best))
        width = np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest]) + offset
        height = np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest]) + offset
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        order = rest[shared / (areas[best] + areas[rest] - shared) < threshold]
    return keep


def detections(
    loc: Floats, conf: Floats, height: int, width: int, spec: DetectorSpec
) -> tuple[Floats, Floats]:
    """From a network's output for an input of this size to boxes in its pixels and scores."""
    boxes = decode_boxes(loc, prior_boxes(height, width, spec.priors), spec.variances)
    boxes *= np.array([width, height, width, height], np.float32)
    scores = conf[:, 1]
    chosen = np.flatnonzero(scores > spec.score_threshold)
    boxes, scores = boxes[chosen], scores[chosen]
    # Back in their order, on which the suppression of equal scores rests.
    best = np.sort(np.argsort(scores, kind="stable")[::-1][: spec.top_k])
    boxes, scores = boxes[best], scores[best]
    keep = nms(boxes, scores, spec.iou_threshold, spec.nms_offset)[: spec.keep_top_k]
    return boxes[keep], scores[keep]


def normalize(image: NDArray[np.uint8], mean: Channels, scale: Channels, reverse: bool) -> Floats:
    """(H, W, 3) pixels to (1, 3, H, W)."""
    pixels = image[:, :, ::-1] if reverse else image
    values = (pixels.astype(np.float32) - np.array(mean, np.float32)) * np.array(scale, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def resize_normalize(
    image: NDArray[np.uint8], size: tuple[int, int], mean: Channels, scale: Channels, reverse: bool
) -> Floats:
    """The whole picture at another height and width, as a network's input."""
    resized = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    return normalize(np.asarray(resized, np.uint8), mean, scale, reverse)


def resize_normalize_grey(
    image: NDArray[np.uint8], size: tuple[int, int], mean: float, scale: float
) -> Floats:
    """The same without colours."""
    resized = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    grey = np.asarray(cv2.cvtColor(resized, cv2.COLOR_RGB2GRAY), np.float32)
    return (grey[None, None] - np.float32(mean)) * np.float32(scale)


def crop_normalize(
    image: NDArray[np.uint8],
    roi: NDArray[np.float64],
    size: int,
    mean: Channels,
    scale: Channels,
    reverse: bool,
) -> Floats:
    """A region, black beyond the picture, as a network's input."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = np.rint(roi).astype(int)
    region = np.zeros((y2 - y1, x2 - x1, 3), np.uint8)
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    region[top - y1 : bottom - y1, left - x1 : right - x1] = image[top:bottom, left:right]
    return resize_normalize(region, (size, size), mean, scale, reverse)


def vertex_normals(vertices: Floats, triangles: NDArray[np.int32]) -> Floats:
    """Normals of triangles, by their area, scattered to their corners."""
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    faces = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], faces)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    unit: Floats = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    return unit


def rasterize_depth(
    vertices: Floats, triangles: NDArray[np.int32], height: int, width: int
) -> Floats:
    """Barycentric weights of each pixel in each triangle's bounding box; -inf where none is."""
    depth = np.full((height, width), -np.inf, np.float32)
    for (x0, y0, z0), (x1, y1, z1), (x2, y2, z2) in vertices[triangles].astype(np.float64):
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        left, right = max(0, ceil(min(x0, x1, x2))), min(width, int(max(x0, x1, x2)) + 1)
        top, bottom = max(0, ceil(min(y0, y1, y2))), min(height, int(max(y0, y1, y2)) + 1)
        if area == 0 or left >= right or top >= bottom:
            continue
        x, y = np.arange(left, right), np.arange(top, bottom)[:, None]
        w1 = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) / area
        w2 = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) / area
        w0 = 1 - w1 - w2
        inside = (w0 >= 0) & (w1 >= 0) & (w2 >= 0)
        z = np.where(inside, w0 * z0 + w1 * z1 + w2 * z2, -np.inf).astype(np.float32)
        place = depth[top:bottom, left:right]
        np.maximum(place, z, out=place)
    return depth


def write_obj(path: Path, vertices: Floats, triangles: NDArray[np.int32]) -> None:
    """Line by line."""
    with path.open("w") as stream:
        for x, y, z in vertices:
            stream.write(f"v {x:.9g} {y:.9g} {z:.9g}\n")
        for a, b, c in triangles:
            stream.write(f"f {a + 1} {b + 1} {c + 1}\n")
