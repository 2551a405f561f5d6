"""Errors of 68 landmarks on pictures whose points people have marked (``threedfa evaluate``).

Points follow the annotation of 300-W (Sagonas et al. 2013). Errors are mean distances in percent of
a size: the distance between the outer corners of the eyes, or the side of the square with the area
of the points' bounding rectangle, which does not shrink when a face turns.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from .analyzer import FaceAnalyzer
from .errors import ImageError
from .face import Face
from .image import SUFFIXES

Array = NDArray[np.float32]

GROUPS = {
    "all 68": slice(0, 68),
    "inner 51": slice(17, 68),
    "contour": slice(0, 17),
    "brows": slice(17, 27),
    "nose": slice(27, 36),
    "eyes": slice(36, 48),
    "mouth": slice(48, 68),
}
YAW_BINS = (0, 15, 30, 60, 90)  # degrees

_LARGEST_PTS = 1 << 16  # bytes; a file of 68 points has about 2,000


@dataclass(frozen=True)
class Marked:
    """A picture and one face's points in it, float32 (68, 2), centre of the first pixel (0, 0)."""

    image: Path
    points: Array


@dataclass(frozen=True)
class Measured:
    """What a pack found on marked pictures.

    Attributes:
        found: (n, 68, 2) landmarks of the faces that were found.
        truth: (n, 68, 2) their marked points.
        yaw: (n,) degrees, as the pack found it.
        missed: marked faces without a detection over their middle.
        unread: what is wrong with the pictures that could not be read, which are neither.
    """

    found: Array
    truth: Array
    yaw: Array
    missed: int
    unread: tuple[str, ...]


def read_marked(images: Path, points: Path) -> list[Marked]:
    """Marked pictures.

    Args:
        images: the folder of the pictures.
        points: an NPZ file with ``names`` (n) of pictures in that folder and ``landmarks``
            (n, 68, 2), centre of the first pixel (0, 0); or a folder with a file ``NAME.pts`` in
            the format of 300-W, whose first pixel is (1, 1), for each picture ``NAME.jpg`` (or
            .png, …, in small or capital letters) to be measured.

    Raises:
        ValueError: if the points cannot be read, or a picture is missing.
    """
    if not points.exists():
        raise ValueError(f"{points}: expected a folder of .pts files or an .npz file, found none")
    marked = list(_from_npz(images, points) if points.is_file() else _from_pts(images, points))
    if not marked:
        raise ValueError(f"{points}: expected points of at least one picture, found none")
    return marked


def measure(analyzer: FaceAnalyzer, marked: Iterable[Marked]) -> Measured:
    """Analyze each picture and take the detection that fits the marked face best."""

    def fitting(analyzer: FaceAnalyzer, item: Marked) -> tuple[Array, Face | str | None]:
        try:
            faces = analyzer.analyze(item.image)
        except ImageError as error:
            return item.points, str(error)
        best = best_box(np.array([face.bbox for face in faces], np.float32), item.points)
        return item.points, None if best is None else faces[best]

    found, truth, yaws, unread = [], [], [], []
    missed = 0
    for points, face in analyzer.map(fitting, marked):
        if isinstance(face, str):
            unread.append(face)
        elif face is None:
            missed += 1
        else:
            found.append(face.landmarks[:, :2])
            truth.append(points)
            yaws.append(face.pose.yaw)
    return Measured(
        np.reshape(np.array(found, np.float32), (-1, 68, 2)),
        np.reshape(np.array(truth, np.float32), (-1, 68, 2)),
        np.array(yaws, np.float32),
        missed,
        tuple(unread),
    )


def tables(measured: Measured) -> dict[str, dict[str, float]]:
    """Rows by name: all faces by either size, then by yaw; errors of each group in percent, the
    correlation of eye and mouth apertures with the truth, the number of faces, and the misses."""
    found, truth = measured.found, measured.truth
    everything = summary(found, truth, eye_distance(truth))
    rows = {
        "outer eyes": everything | {"faces": len(found), "missed": measured.missed},
        "box": summary(found, truth, box_size(truth)) | {"faces": len(found)},
    }
    turned = np.abs(measured.yaw)
    for low, high in pairwise(YAW_BINS):
        inside = (turned >= low) & (turned < high)
        if inside.any():
            part = summary(found[inside], truth[inside], box_size(truth[inside]))
            rows[f"box, yaw {low}-{high}"] = part | {"faces": int(inside.sum())}
    return rows


def best_box(boxes: Array, points: npt.NDArray[np.floating]) -> int | None:
    """Which of the boxes (N, 4) that hold the middle of the points (L, 2) overlaps most with their
    bounding rectangle; None if none does."""
    if len(boxes) == 0:
        return None
    low, high = points.min(0), points.max(0)
    middle = (low + high) / 2
    around = ((boxes[:, :2] <= middle) & (boxes[:, 2:] >= middle)).all(1)
    overlap = np.clip(np.minimum(boxes[:, 2:], high) - np.maximum(boxes[:, :2], low), 0, None)
    shared = overlap.prod(1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (high - low).prod() - shared
    best = int(np.where(around, shared / union, -1).argmax())
    return best if around[best] else None


def summary(found: Array, truth: Array, size: Array | None = None) -> dict[str, float]:
    """Mean error of each group of points, and how well the apertures follow the truth.

    Args:
        found: (N, 68, 2 or 3) landmarks.
        truth: (N, 68, 2 or 3).
        size: (N,) what the errors are percents of; None: the distance of the outer eye corners.

    Returns:
        By group, then ``"eye corr."`` and ``"mouth corr."``; nan where there are too few faces, for
        the last two also where no aperture differs from another.
    """
    size = eye_distance(truth) if size is None else size
    distance = np.linalg.norm(found[..., :2] - truth[..., :2], axis=2)
    errors = 100 * distance / size[:, None]
    row = {
        name: float(errors[:, part].mean()) if len(found) else np.nan
        for name, part in GROUPS.items()
    }
    for name, aperture in (("eye corr.", eye_aperture), ("mouth corr.", mouth_aperture)):
        pair = aperture(found).ravel(), aperture(truth).ravel()
        row[name] = np.nan if len(found) < 2 else correlation(*pair)
    return row


def correlation(found: Array, truth: Array) -> float:
    """Pearson's, of (N,) values each; nan for fewer than two, or where one side never changes."""
    if len(found) < 2 or np.ptp(found) == 0 or np.ptp(truth) == 0:
        return np.nan
    return float(np.corrcoef(found, truth)[0, 1])


def eye_distance(points: Array) -> Array:
    """(N,) between the outer corners of the eyes."""
    return _length(points, 36, 45)


def box_size(points: Array) -> Array:
    """(N,) square root of the area of the points' bounding rectangle."""
    size: Array = np.sqrt(np.ptp(points[..., :2], axis=1).prod(1))
    return size


def eye_aperture(points: Array) -> Array:
    """(N, 2) height of each eye over its width, right eye first."""
    right = _length(points, 37, 41) + _length(points, 38, 40)
    left = _length(points, 43, 47) + _length(points, 44, 46)
    widths = 2 * _length(points, 36, 39), 2 * _length(points, 42, 45)
    return np.stack([right / widths[0], left / widths[1]], 1)


def mouth_aperture(points: Array) -> Array:
    """(N,) height of the mouth's opening over the mouth's width."""
    heights = [_length(points, 61 + i, 67 - i) for i in range(3)]
    aperture: Array = np.mean(heights, 0) / _length(points, 48, 54)
    return aperture


def table_text(rows: dict[str, dict[str, float]], *, markdown: bool = False) -> str:
    """Rows by name, aligned; every row's columns, empty where a row has none."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    table = [["", *columns]]
    for name, row in rows.items():
        table.append([name, *(_cell(row[c]) if c in row else "" for c in columns)])
    if markdown:
        table.insert(1, ["---"] + ["---:"] * len(columns))
        return "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    widths = [max(len(column), 7) + 2 for column in columns]
    first = max(len(name) for name in rows)
    lines = [
        f"{name:{first}}" + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True))
        for name, *cells in table
    ]
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _length(points: Array, a: int, b: int) -> Array:
    length: Array = np.linalg.norm(points[:, a, :2] - points[:, b, :2], axis=1)
    return length


def _from_npz(images: Path, path: Path) -> Iterator[Marked]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as table:
            names, landmarks = table["names"], table["landmarks"]
    except (
        OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error,
        TypeError, AttributeError,  # a file of one array
    ) as error:  # fmt: skip
        raise ValueError(
            f"{path}: expected an NPZ file with names and landmarks: {error}"
        ) from None
    if names.ndim != 1:
        raise ValueError(f"{path}: names: expected a list of names, got shape {names.shape}")
    if landmarks.shape != (len(names), 68, 2) or landmarks.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: landmarks: expected numbers ({len(names)}, 68, 2), one set for each name, "
            f"got {landmarks.dtype} {landmarks.shape}"
        )
    for name, points in zip(names, landmarks.astype(np.float32), strict=True):
        yield Marked(_existing(images / str(name)), _checked(path, points))


def _from_pts(images: Path, folder: Path) -> Iterator[Marked]:
    pictures = {(path.stem, path.suffix.lower()): path for path in images.iterdir()}
    for path in sorted(folder.glob("*.pts")):
        found = (pictures.get((path.stem, suffix)) for suffix in SUFFIXES)
        picture = next(filter(None, found), images / f"{path.stem}{SUFFIXES[0]}")
        yield Marked(_existing(picture), _checked(path, _read_pts(path)))


def _read_pts(path: Path) -> Array:
    if path.stat().st_size > _LARGEST_PTS:
        raise ValueError(f"{path}: expected a file of 68 points, at most {_LARGEST_PTS} bytes")
    try:
        inside = path.read_text().split("{")[1].split("}")[0]
        points = np.array(inside.split(), np.float32).reshape(-1, 2)
    except (OSError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: expected lines of x y between braces: {error}") from None
    if points.shape != (68, 2):
        raise ValueError(f"{path}: expected 68 points, got {len(points)}")
    return points - 1


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path}: no such picture, but there are points for it")
    return path


def _checked(path: Path, points: Array) -> Array:
    if not np.isfinite(points).all() or (np.ptp(points, axis=0) == 0).any():
        raise ValueError(f"{path}: expected finite points that are not all in one place")
    return points
