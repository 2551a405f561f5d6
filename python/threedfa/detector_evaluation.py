"""What face detectors find on images whose faces people have boxed, what they take for a face, and
how both change with damages (``threedfa evaluate-detector``).

A face is found where a detection's middle lies within 0.45 of the face's side from its middle and
its side is between half and double (``match="middle"``): detectors and annotators draw boxes by
different conventions, which this forgives. ``match="iou"`` asks for an intersection over union of
at least 0.5 instead. The side of a box is the square root of its area. Detections take faces in
the order of their scores, each the free face that fits it best, and no face twice: a second box on
a face is a false alarm. So is every box where no face is annotated, even if there is one: only sets
with boxes around all their faces, and images without faces, tell how many false alarms there are.

Faces that the annotators marked as difficult, and faces below 8 pixels, are neither found nor
missed, and boxes on them no false alarms.
"""

from __future__ import annotations

import csv
import io
import json
import math
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from .analyzer import FaceAnalyzer
from .damages import DAMAGES, Damaged, apply_damage
from .detections import Detections
from .detector import FaceDetector
from .errors import ImageError
from .evaluation import read_marked
from .image import SUFFIXES, load_image, save_image
from .networks import Backend
from .pack import Pack

Array = NDArray[np.float32]
Image = NDArray[np.uint8]
Match: TypeAlias = Literal["middle", "iou"]
Stage: TypeAlias = Literal["detector", "analyzer"]

SIZES: Final = (8, 12, 20, 40, 80, 200, math.inf)
"""Edges of the classes of sizes, in pixels: side of a face's box."""

UNDAMAGED: Final = "undamaged"
"""The name of the row of images as they are given."""

CERTAIN: Final = 0.95
"""Score from which a false alarm cannot be told from a face by any threshold."""

SCORE_FLOOR: Final = 0.05
"""Detections above it are taken into average precision."""

BOX_PER_LANDMARKS: Final = 1.1
"""Side of a face's box over the longer side of the rectangle around its 68 points: the convention
of the package's own detector."""

YUNET_SHIFT: Final = 0.13
YUNET_SCALE: Final = 0.975
"""From YuNet's boxes (WIDER FACE's: forehead to chin) to those of the own detector: moved down by
so much of their side, and scaled."""

_CERTAIN = float(np.nextafter(np.float32(CERTAIN), np.float32(0)))
_MIDDLE, _LARGER = 0.45, 2.0
_IOU = 0.5
_INSIDE = 0.5  # of a box that lies on an ignored face, which are often drawn around whole groups
_LARGEST_XML = 1 << 24  # bytes


@dataclass(frozen=True)
class Annotated:
    """An image and its faces.

    Attributes:
        image: the file.
        name: for reports, and for what damages draw at random.
        boxes: float32 (N, 4) xyxy, centre of the first pixel (0, 0); or, where ``relative``, edges
            as fractions of the image's width and height.
        ignored: bool (N,), faces that do not count.
        relative: what the boxes are.
    """

    image: Path
    name: str
    boxes: Array
    ignored: NDArray[np.bool_]
    relative: bool = False

    def pixel_boxes(self, height: int, width: int) -> Array:
        """The boxes in pixels of the image, which has this size."""
        if not self.relative:
            return self.boxes
        boxes: Array = self.boxes * np.array([width, height] * 2, np.float32) - np.float32(0.5)
        return boxes


# --- readers ----------------------------------------------------------------------------------


def read_annotations(
    images: Path, boxes: Path, *, categories: Collection[str] | None = None
) -> list[Annotated]:
    """Images and their annotated faces.

    Args:
        images: the folder of the images.
        boxes: what says where the faces are, told apart by its name:

            * ``.txt``: WIDER FACE (``wider_face_val_bbx_gt.txt``); faces marked as invalid and
              boxes without an area are ignored;
            * ``.json``: COCO; ``iscrowd`` and ``ignore`` are ignored;
            * ``.csv``: a first line ``name,x1,y1,x2,y2`` and perhaps ``,ignored`` (0 or 1), then a
              line for each face, in pixels, centre of the first pixel (0, 0); four empty cells for
              an image without faces;
            * ``.npz``: ``names`` and 68 ``landmarks`` as :func:`threedfa.evaluation.read_marked`
              takes them; the box is a square around the points;
            * a folder of ``.xml`` files: Pascal VOC; ``difficult`` ones are ignored;
            * a folder of ``.txt`` files: YOLO, one for each image, in the same subfolders; an image
              without one has no face;
            * a folder of ``.pts`` files: 68 points each, as the NPZ file.
        categories: names of the COCO categories or VOC objects that are faces, or numbers of YOLO
            classes; None: all are.

    Returns:
        The images in the order of the annotations.

    Raises:
        ValueError: if the annotations cannot be read, are not in the format, or an image is
            missing. The message names the file, the line or the entry, what is expected and what
            is there.
    """
    if not images.is_dir():
        raise ValueError(f"{images}: expected the folder of the images, found none")
    read = _reader(boxes)
    annotated = list(read(images, boxes, frozenset(categories) if categories else None))
    if not any(len(item.boxes) for item in annotated):
        found = f"{len(annotated)} images without one" if annotated else "none"
        raise ValueError(f"{boxes}: expected boxes of at least one face, found {found}")
    return annotated


def read_negatives(folder: Path) -> list[Annotated]:
    """The images in a folder and its subfolders, as images without faces.

    Raises:
        ValueError: if there are none.
    """
    paths = _images_in(folder) if folder.is_dir() else []
    if not paths:
        raise ValueError(
            f"{folder}: expected a folder with images without faces ({', '.join(SUFFIXES)}), "
            "found none"
        )
    return [_annotated(path, path.relative_to(folder).as_posix(), []) for path in paths]


_Categories: TypeAlias = "frozenset[str] | None"
_Reader: TypeAlias = Callable[[Path, Path, _Categories], Iterable[Annotated]]


def _reader(boxes: Path) -> _Reader:
    if boxes.is_dir():
        folders = {".xml": _read_voc, ".txt": _read_yolo, ".pts": _read_landmarks}
        suffixes = {path.suffix.lower() for path in boxes.rglob("*")} & set(folders)
        if len(suffixes) != 1:
            found = f"{' and '.join(sorted(suffixes))} files" if suffixes else "none of them"
            raise ValueError(
                f"{boxes}: expected a folder of .xml (VOC), .txt (YOLO) or .pts files, found "
                f"{found}"
            )
        return folders[suffixes.pop()]
    files: dict[str, _Reader] = {
        ".txt": _read_wider, ".json": _read_coco, ".csv": _read_csv, ".npz": _read_landmarks,
    }  # fmt: skip
    if boxes.suffix.lower() not in files or not boxes.is_file():
        found = "a file of another name" if boxes.is_file() else "no such file"
        raise ValueError(
            f"{boxes}: expected a file that ends in {', '.join(files)}, or a folder of .xml, .txt "
            f"or .pts files, found {found}"
        )
    return files[boxes.suffix.lower()]


def _read_wider(images: Path, path: Path, categories: _Categories) -> Iterator[Annotated]:
    lines = _text(path).splitlines()
    place = 0
    while place < len(lines):
        name = lines[place].strip()
        if not name:
            place += 1
            continue
        if not name.lower().endswith(SUFFIXES):
            _wrong(path, place + 1, "the name of an image", name)
        try:
            count = int(lines[place + 1])
        except (ValueError, IndexError):
            count = -1
        if count < 0:
            got = lines[place + 1] if place + 1 < len(lines) else "the end"
            _wrong(path, place + 2, f"the number of faces of {name}", got)
        first = place + 2
        place = first + count
        if place > len(lines):
            _wrong(path, len(lines), f"{count} faces of {name}", f"{len(lines) - first} lines")
        faces = []
        for number in range(first, place):
            values = lines[number].split()
            expected = "x y width height and perhaps six flags, whole numbers"
            try:
                x, y, width, height, *flags = map(int, values)
            except ValueError:
                _wrong(path, number + 1, expected, lines[number])
            if len(flags) not in (0, 6):
                _wrong(path, number + 1, expected, lines[number])
            invalid = width <= 0 or height <= 0 or (len(flags) > 3 and flags[3] != 0)
            width, height = max(width, 0), max(height, 0)
            faces.append(([x - 0.5, y - 0.5, x + width - 0.5, y + height - 0.5], invalid))
        if count == 0 and place < len(lines) and set(lines[place].split()) == {"0"}:
            place += 1  # a line of zeros stands for no face
        yield _annotated(_existing(images / name), name, faces)


def _read_coco(images: Path, path: Path, categories: _Categories) -> Iterator[Annotated]:
    try:
        content = json.loads(_text(path))
    except json.JSONDecodeError as error:
        _wrong(path, error.lineno, "JSON", f"{error.msg} in column {error.colno}")
    except RecursionError:
        raise ValueError(f"{path}: expected COCO's JSON, got lists within lists") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object, got {type(content).__name__}")
    names: dict[Any, str] = {}
    faces: dict[Any, list[tuple[list[float], bool]]] = {}
    for i, image in enumerate(_entries(path, content, "images")):
        key, name = image.get("id"), image.get("file_name")
        if not isinstance(key, (int, str)) or not isinstance(name, str):
            _wrong(path, f"images[{i}]", "an id and a file_name", image)
        if key in names:
            _wrong(path, f"images[{i}]", "an id of its own", key)
        names[key], faces[key] = name, []
    known = {}
    if categories is not None:
        for category in _entries(path, content, "categories"):
            known[str(category.get("id"))] = str(category.get("name"))
        _require_known(path, categories, known.values())
    for i, entry in enumerate(_entries(path, content, "annotations")):
        if entry.get("image_id") not in names:
            _wrong(path, f"annotations[{i}]", "the image_id of an image", entry.get("image_id"))
        if categories is not None and known.get(str(entry.get("category_id"))) not in categories:
            continue
        box = entry.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            _wrong(path, f"annotations[{i}]", "a bbox of x, y, width and height", box)
        x, y, width, height = map(float, box)
        if width < 0 or height < 0:
            _wrong(path, f"annotations[{i}]", "a width and a height of the bbox from 0", box)
        ignored = bool(entry.get("iscrowd") or entry.get("ignore") or 0 in (width, height))
        corners = [x - 0.5, y - 0.5, x + width - 0.5, y + height - 0.5]
        faces[entry["image_id"]].append((corners, ignored))
    for key, name in names.items():
        yield _annotated(_existing(images / name), name, faces[key])


def _read_csv(images: Path, path: Path, categories: _Categories) -> Iterator[Annotated]:
    header = ["name", "x1", "y1", "x2", "y2"]
    rows = csv.reader(io.StringIO(_text(path), newline=""))
    faces: dict[str, list[tuple[list[float], bool]]] = {}
    first = next(rows, [])
    if first[:5] != header or first[5:] not in ([], ["ignored"]):
        _wrong(path, 1, ",".join(header) + " and perhaps ,ignored", ",".join(first))
    for row in rows:
        if not row:
            continue
        if len(row) != len(first) or not row[0]:
            _wrong(path, rows.line_num, f"{len(first)} cells, a name first", ",".join(row))
        of_image = faces.setdefault(row[0], [])
        if not any(row[1:5]):
            continue
        box = _numbers(path, rows.line_num, row[1:5], "x1, y1, x2 and y2")
        if box[2] <= box[0] or box[3] <= box[1]:
            _wrong(path, rows.line_num, "x1 < x2 and y1 < y2", ",".join(row[1:5]))
        if row[5:] not in ([], ["0"], ["1"]):
            _wrong(path, rows.line_num, "ignored: 0 or 1", row[5])
        of_image.append((box, row[5:] == ["1"]))
    for name, of_image in faces.items():
        yield _annotated(_existing(images / name), name, of_image)


def _read_landmarks(images: Path, path: Path, categories: _Categories) -> Iterator[Annotated]:
    of_image: dict[Path, list[tuple[list[float], bool]]] = {}
    for marked in read_marked(images, path):
        low, high = marked.points.min(0), marked.points.max(0)
        half = BOX_PER_LANDMARKS * (high - low).max() / 2
        middle = (low + high) / 2
        box = [*(middle - half).tolist(), *(middle + half).tolist()]
        of_image.setdefault(marked.image, []).append((box, False))
    for image, faces in of_image.items():
        yield _annotated(image, image.relative_to(images).as_posix(), faces)


def _read_yolo(images: Path, folder: Path, categories: _Categories) -> Iterator[Annotated]:
    if categories is not None and not all(c.isdecimal() for c in categories):
        raise ValueError(
            f"{folder}: expected numbers of YOLO's classes as categories, got "
            f"{', '.join(sorted(categories))}"
        )
    labels = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.txt")}
    for image in _images_in(images):
        name = image.relative_to(images)
        stem = name.with_suffix("").as_posix()
        path = (folder / stem).with_name(f"{name.stem}.txt")
        faces = list(_yolo_faces(path, categories)) if stem in labels else []
        labels.discard(stem)
        yield _annotated(image, name.as_posix(), faces, relative=True)
    labels -= {"classes"}  # names of the classes, as labelling programs write them
    if labels:
        some = ", ".join(f"{stem}.txt" for stem in sorted(labels)[:3])
        raise ValueError(
            f"{folder}: expected an image in {images} for each file, found none for "
            f"{len(labels)}: {some}"
        )


def _yolo_faces(path: Path, categories: _Categories) -> Iterator[tuple[list[float], bool]]:
    expected = "class, middle x, middle y, width and height, the last four fractions of the image's"
    for number, line in enumerate(_text(path).splitlines(), 1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != 5 or not cells[0].isdecimal():
            _wrong(path, number, expected, line)
        x, y, width, height = _numbers(path, number, cells[1:], expected)
        if not (0 <= x <= 1 and 0 <= y <= 1 and 0 < width <= 1.5 and 0 < height <= 1.5):
            _wrong(path, number, expected, line)
        if categories is None or cells[0] in categories:
            yield [x - width / 2, y - height / 2, x + width / 2, y + height / 2], False


def _read_voc(images: Path, folder: Path, categories: _Categories) -> Iterator[Annotated]:
    by_stem = {path.stem: path for path in _images_in(images)}
    seen: set[str] = set()
    annotated = []
    for path in sorted(folder.rglob("*.xml")):
        root = _parse_xml(path)
        if root.tag != "annotation":
            raise ValueError(f"{path}: expected an <annotation>, got <{root.tag}>")
        name = (root.findtext("filename") or "").strip()
        image = images / name
        if not name or not image.is_file():  # many sets name the file of another machine, or none
            image = by_stem.get(path.stem, image if name else images / f"{path.stem}{SUFFIXES[0]}")
        faces = []
        for i, element in enumerate(root.iter("object")):
            kind = (element.findtext("name") or "").strip()
            seen.add(kind)
            box = element.find("bndbox")
            expected = "a <bndbox> of xmin, ymin, xmax and ymax"
            if box is None:
                _wrong(path, f"object {i + 1}", expected, "none")
            cells = [box.findtext(edge) or "" for edge in ("xmin", "ymin", "xmax", "ymax")]
            x1, y1, x2, y2 = _numbers(path, f"object {i + 1}", cells, expected)
            if x2 < x1 or y2 < y1:
                _wrong(path, f"object {i + 1}", "xmin <= xmax and ymin <= ymax", " ".join(cells))
            if categories is None or kind in categories:
                difficult = (element.findtext("difficult") or "0").strip() not in ("0", "")
                # The first and the last pixel, of which the first of the image is (1, 1).
                faces.append(([x1 - 1.5, y1 - 1.5, x2 - 0.5, y2 - 0.5], difficult))
        annotated.append(_annotated(_existing(image), image.relative_to(images).as_posix(), faces))
    if categories is not None:
        _require_known(folder, categories, seen)
    return iter(annotated)


def _parse_xml(path: Path) -> ET.Element:
    """The root. Document types are refused before a parser sees them: they declare the entities
    that grow without end or name other files. So are zero bytes, which would hide one in UTF-16."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST_XML + 1)
    except OSError as error:
        raise ValueError(f"{path}: expected a readable file: {error.strerror or error}") from None
    if len(data) > _LARGEST_XML:
        raise ValueError(f"{path}: expected at most {_LARGEST_XML} bytes, got more")
    for mark, what in ((b"<!DOCTYPE", "a DOCTYPE"), (b"<!ENTITY", "an ENTITY"), (b"\0", "UTF-16")):
        if mark in data:
            line = data[: data.index(mark)].count(b"\n") + 1
            _wrong(path, line, "plain XML in UTF-8 without document type or entities", what)
    try:
        return ET.fromstring(data)
    except ET.ParseError as error:
        _wrong(path, error.position[0], "XML", str(error))
    except (ValueError, LookupError) as error:  # an unknown encoding
        raise ValueError(f"{path}: expected XML, got {error}") from None


def _annotated(
    image: Path, name: str, faces: Sequence[tuple[list[float], bool]], *, relative: bool = False
) -> Annotated:
    boxes = np.array([box for box, _ in faces], np.float32).reshape(-1, 4)
    ignored = np.array([flag for _, flag in faces], np.bool_)
    return Annotated(image, name, boxes, ignored, relative)


def _images_in(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _existing(image: Path) -> Path:
    if not image.is_file():
        raise ValueError(f"{image}: no such image, but there are boxes for it")
    return image


def _entries(path: Path, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(
            f"{path}: {key}: expected a list of objects, got {_short(content.get(key))}"
        )
    return entries


def _require_known(path: Path, categories: Collection[str], known: Iterable[str]) -> None:
    missing = set(categories) - set(known)
    if missing:
        raise ValueError(
            f"{path}: expected categories among {', '.join(sorted(set(known)))}, got "
            f"{', '.join(sorted(missing))}"
        )


def _numbers(path: Path, place: int | str, cells: Sequence[str], expected: str) -> list[float]:
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        _wrong(path, place, expected, " ".join(cells))
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: expected a readable file: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8: {error}") from None


def _wrong(path: Path, place: int | str, expected: str, got: Any) -> NoReturn:
    where = f"line {place}" if isinstance(place, int) else place
    raise ValueError(f"{path}, {where}: expected {expected}, got {_short(got)}")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return repr(text if len(text) <= 100 else f"{text[:100]} …")


# --- systems ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class System:
    """Something that finds faces.

    Attributes:
        name: for reports.
        score_threshold: detections above it count for recall and false alarms.
        detect: from a uint8 (H, W, 3) RGB image to detections in any order, those above the
            threshold and perhaps others; called from several threads at once.
        detect_all: likewise, all those above `SCORE_FLOOR`, for average precision; None: ``detect``
            gives them. It is a function of its own where the threshold decides more than what is
            dropped: a detector that looks again where it finds nothing.
    """

    name: str
    score_threshold: float
    detect: Callable[[Image], Detections]
    detect_all: Callable[[Image], Detections] | None = None


def pack_system(
    pack: str | Path,
    stage: Stage,
    *,
    name: str | None = None,
    score_threshold: float | None = None,
    backend: Backend = "onnxruntime",
    providers: Sequence[str] | None = None,
    num_threads: int = 1,
) -> System:
    """A pack's detector alone, or the faces that its analyzer keeps, with their detector scores.

    Args:
        pack: name or folder.
        stage: ``"detector"`` or ``"analyzer"``.
        name: of the system; None: the pack's and the stage.
        score_threshold: None: the pack's.
        backend: as of :class:`threedfa.FaceDetector`, like ``providers`` and ``num_threads``, the
            threads of the networks for each image.

    Raises:
        PackError, BackendError, ValueError: as :class:`threedfa.FaceAnalyzer`.
    """
    loaded = Pack.load(pack)
    threshold = loaded.detector.score_threshold if score_threshold is None else score_threshold
    arguments: dict[str, Any] = {
        "backend": backend,
        "providers": providers,
        "num_threads": num_threads,
    }

    def detecting(threshold: float) -> Callable[[Image], Detections]:
        if stage == "detector":
            return FaceDetector(loaded, score_threshold=threshold, **arguments).detect
        analyzer = FaceAnalyzer(loaded, score_threshold=threshold, **arguments)

        def analyze(image: Image) -> Detections:
            faces = analyzer.analyze(image)
            boxes = np.array([face.bbox for face in faces], np.float32).reshape(-1, 4)
            return Detections(boxes, [face.score for face in faces])

        return analyze

    return System(
        name or f"{loaded.name} {stage}",
        threshold,
        detecting(threshold),
        detecting(SCORE_FLOOR) if threshold > SCORE_FLOOR else None,
    )


def yunet_system(
    path: Path,
    *,
    name: str = "YuNet",
    score_threshold: float = 0.6,
    longest_side: int = 640,
    enlarge: bool = False,
) -> System:
    """YuNet from its ONNX file, run by OpenCV (``cv2.FaceDetectorYN``), with its boxes moved and
    scaled to the own detector's convention.

    Args:
        path: the file, such as ``face_detection_yunet_2023mar.onnx``.
        name: of the system.
        score_threshold: 0..1.
        longest_side: larger images are made so small.
        enlarge: whether smaller ones are enlarged to it.

    Raises:
        ValueError: if the file is missing or cannot be loaded.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected YuNet's ONNX file, found none")
    floor = min(SCORE_FLOOR, score_threshold)

    def make() -> cv2.FaceDetectorYN:
        return cv2.FaceDetectorYN.create(
            str(path), "", (longest_side, longest_side), floor, nms_threshold=0.3, top_k=5000
        )

    try:
        make()
    except cv2.error as error:
        raise ValueError(f"{path}: expected YuNet's ONNX file: {error}") from None
    local = threading.local()  # OpenCV's detector keeps state between calls

    def detect(image: Image) -> Detections:
        if not hasattr(local, "detector"):
            local.detector = make()
        height, width = image.shape[:2]
        scale = longest_side / max(height, width)
        bgr = np.ascontiguousarray(image[..., ::-1])
        if scale < 1 or (enlarge and scale > 1):
            size = max(1, round(width * scale)), max(1, round(height * scale))
            way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            bgr = np.asarray(cv2.resize(bgr, size, interpolation=way), np.uint8)
        local.detector.setInputSize(bgr.shape[1::-1])
        _, found = local.detector.detect(bgr)
        if found is None:
            return Detections(np.zeros((0, 4)), np.zeros(0))
        return Detections(
            _from_yunet(found[:, :4], np.array(image.shape[1::-1]) / bgr.shape[1::-1]),
            found[:, 14].clip(0, 1),
        )

    return System(name, score_threshold, detect)


def _from_yunet(found: Array, factors: NDArray[np.float64]) -> Array:
    """(N, 4) left, top, width and height, edges of the first pixel at 0, to our boxes in an image
    that is larger by the factors of width and height."""
    sides = np.clip(found[:, 2:], 0, None) * factors
    centres = found[:, :2] * factors + sides / 2 - 0.5
    centres[:, 1] += YUNET_SHIFT * np.sqrt(sides.prod(1))
    half = YUNET_SCALE * sides / 2
    return np.concatenate([centres - half, centres + half], axis=1).astype(np.float32)


# --- matching ---------------------------------------------------------------------------------


def match_boxes(
    boxes: Array, faces: Array, ignored: NDArray[np.bool_], *, match: Match = "middle"
) -> NDArray[np.int64]:
    """Which face each detection finds.

    Args:
        boxes: float32 (N, 4) xyxy, best score first.
        faces: float32 (M, 4) annotated boxes.
        ignored: bool (M,), faces that do not count.
        match: the rule.

    Returns:
        int64 (N,): the face's index, each at most once; -2 for a detection on an ignored face, -1
        for a false alarm.
    """
    result = np.full(len(boxes), -1, np.int64)
    if not len(boxes) or not len(faces):
        return result
    fit = _middle_fit(boxes, faces) if match == "middle" else _overlap_fit(boxes, faces)
    shared = _shared(boxes, faces)
    inside = shared > _INSIDE * np.maximum(_side(boxes) ** 2, 1e-9)[:, None]
    excused = np.any((inside | (fit > 0)) & ignored, axis=1)
    fit[:, ignored] = 0
    for i, row in enumerate(fit):
        best = int(row.argmax())
        if row[best] > 0:
            result[i] = best
            fit[:, best] = 0
        elif excused[i]:
            result[i] = -2
    return result


def _middle_fit(boxes: Array, faces: Array) -> Array:
    """(N, M) above 0 where the box finds the face, the more the better it fits."""
    sides = _side(faces)
    away = np.linalg.norm(_middle(boxes)[:, None] - _middle(faces), axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance, larger = away / sides, _side(boxes)[:, None] / sides
    fits = (distance <= _MIDDLE) & (larger >= 1 / _LARGER) & (larger <= _LARGER)
    return np.where(fits, 1 - distance, 0).astype(np.float32)


def _overlap_fit(boxes: Array, faces: Array) -> Array:
    shared = _shared(boxes, faces)
    union = (_side(boxes) ** 2)[:, None] + _side(faces) ** 2 - shared
    overlap = shared / np.maximum(union, 1e-9)
    return np.where(overlap >= _IOU, overlap, 0).astype(np.float32)


def _shared(boxes: Array, faces: Array) -> Array:
    low = np.maximum(boxes[:, None, :2], faces[:, :2])
    high = np.minimum(boxes[:, None, 2:], faces[:, 2:])
    shared: Array = np.clip(high - low, 0, None).prod(2)
    return shared


def _middle(boxes: Array) -> Array:
    middle: Array = (boxes[:, :2] + boxes[:, 2:]) * np.float32(0.5)
    return middle


def _side(boxes: Array) -> Array:
    side: Array = np.sqrt(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1))
    return side


# --- measuring --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What one system finds in one image, damaged in one way.

    Attributes:
        image: its name.
        damage: the damage's name, or `UNDAMAGED`.
        system: the system's name.
        boxes: float32 (N, 4), best score first.
        scores: float32 (N,).
        matches: int64 (N,), see `match_boxes`.
        ranked: the scores of the faces (M,), nan where none, and of the false alarms, see `Result`.
        faces: float32 (M, 4), where the faces are in the damaged image.
        ignored: bool (M,), those that do not count, by annotation, damage or size.
        negative: whether the image was given as one without faces.
    """

    image: str
    damage: str
    system: str
    boxes: Array
    scores: Array
    matches: NDArray[np.int64]
    faces: Array
    ignored: NDArray[np.bool_]
    negative: bool
    ranked: tuple[Array, Array] | None


@dataclass(frozen=True)
class Result:
    """One system under one damage.

    Attributes:
        damage: the damage's name, or `UNDAMAGED`.
        system: the system's name.
        score_threshold: the system's.
        images: number of images with boxes. Some damages need a face and leave out the others.
        negatives: number of images without faces, given as such.
        sizes: float32 (F,), sides of the faces that count.
        scores: float32 (F,), of the detection that finds each; nan where none does.
        false_scores: float32 (A,) of the false alarms.
        on_negatives: bool (A,), which of them are on images given as such.
        ranked: the scores of faces and of false alarms, like ``scores`` and ``false_scores``, when
            all detections above `SCORE_FLOOR` are asked for; None: not measured.
    """

    damage: str
    system: str
    score_threshold: float
    images: int
    negatives: int
    sizes: Array
    scores: Array
    false_scores: Array
    on_negatives: NDArray[np.bool_]
    ranked: tuple[Array, Array] | None = None

    def faces(self, low: float = 0, high: float = math.inf) -> int:
        """How many faces have a side of at least ``low`` and below ``high`` pixels."""
        return int(((self.sizes >= low) & (self.sizes < high)).sum())

    def recall(
        self, low: float = 0, high: float = math.inf, *, score_threshold: float | None = None
    ) -> float:
        """The share of those faces that is found with a score above the threshold; nan where there
        are none."""
        threshold = self.score_threshold if score_threshold is None else score_threshold
        chosen = (self.sizes >= low) & (self.sizes < high)
        return float((self.scores[chosen] > threshold).mean()) if chosen.any() else math.nan

    def false_alarms(
        self, *, negatives: bool | None = None, score_threshold: float | None = None
    ) -> float:
        """False alarms with a score above the threshold, per 1,000 images; nan without images.

        Args:
            negatives: only on images given as such (True), only on others (False), or on all.
            score_threshold: None: the system's.
        """
        threshold = self.score_threshold if score_threshold is None else score_threshold
        chosen = self.false_scores > threshold
        images = self.images + self.negatives
        if negatives is not None:
            chosen &= self.on_negatives == negatives
            images = self.negatives if negatives else self.images
        return 1000 * float(chosen.sum()) / images if images else math.nan

    def average_precision(self) -> float:
        """Area under precision over recall, of all faces and all images, with precision made to
        never fall towards lower recall (all points, as Pascal VOC from 2010 on; COCO takes 101 of
        them). Detections count from `SCORE_FLOOR` on, not from the threshold; those of equal score
        count at once. nan where there are no faces, or it was not measured."""
        if not len(self.sizes) or self.ranked is None:
            return math.nan
        of_faces, of_others = self.ranked
        hits = of_faces[~np.isnan(of_faces)]
        scores = np.concatenate([hits, of_others])
        right = np.arange(len(scores)) < len(hits)
        order = np.argsort(-scores, kind="stable")
        found = np.cumsum(right[order])
        last = np.flatnonzero(np.diff(scores[order], append=-1))  # of each score
        recall = found[last] / len(self.sizes)
        precision = found[last] / (last + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        return float((np.diff(recall, prepend=0) * envelope).sum())


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` gives.

    Attributes:
        results: damage by damage, the systems in their order.
        unread: what is wrong with the images that could not be read; they are left out.
        found: every image's detections, if asked for.
    """

    results: tuple[Result, ...]
    unread: tuple[str, ...]
    found: tuple[Found, ...] = field(default=(), repr=False)


def evaluate(
    systems: Sequence[System],
    annotated: Sequence[Annotated],
    negatives: Sequence[Annotated] = (),
    *,
    damages: Sequence[str] = (),
    match: Match = "middle",
    threads: int = 1,
    average_precision: bool = True,
    keep: bool = False,
    misses: Path | None = None,
    progress: Callable[[Iterable[list[Found] | str]], Iterable[list[Found] | str]] = iter,
) -> Evaluation:
    """Measure systems on images as they are, then damaged.

    Args:
        systems: each with a name of its own. All get the very same damaged images.
        annotated: images with boxes.
        negatives: images without faces.
        damages: names of :data:`threedfa.damages.DAMAGES`.
        match: when a face is found.
        threads: images worked on at once.
        average_precision: whether to measure it, for which packs look at each image once more.
        keep: whether the result holds all detections.
        misses: a folder for images of what went wrong, with boxes drawn: found faces green, missed
            ones red, false alarms orange, ignored ones grey, one file for each system and damage.
        progress: wraps the results of the images, in their order, as tqdm does.

    Raises:
        ValueError: for unknown damages, a wrong rule or number, two systems of one name, negatives
            with boxes, or no system or image at all.
        ExportError: if the images of misses cannot be written.
    """
    names = [system.name for system in systems]
    if not systems or len(set(names)) < len(names):
        raise ValueError(f"systems: expected at least one, of different names, got {names}")
    for system in systems:
        if not 0 <= system.score_threshold <= 1:
            raise ValueError(f"score_threshold: expected 0..1, got {system.score_threshold}")
    if not annotated and not negatives:
        raise ValueError("expected at least one image")
    if any(len(item.boxes) for item in negatives):
        raise ValueError("negatives: expected images without boxes, got some with boxes")
    for damage in damages:
        if damage not in DAMAGES:
            raise ValueError(f"unknown damage {damage!r}: expected some of {', '.join(DAMAGES)}")
    if match not in ("middle", "iou"):
        raise ValueError(f"match: expected 'middle' or 'iou', got {match!r}")
    if threads < 1:
        raise ValueError(f"threads: expected at least 1, got {threads}")

    def found_by(
        detect: Callable[[Image], Detections], damaged: Damaged, ignored: NDArray[np.bool_]
    ) -> tuple[Detections, NDArray[np.int64]]:
        detections = detect(damaged.image)
        detections = detections[np.argsort(-detections.confidence, kind="stable")]
        return detections, match_boxes(detections.xyxy, damaged.boxes, ignored, match=match)

    def work(item: Annotated, negative: bool) -> list[Found] | str:
        try:
            image = load_image(item.image)
        except ImageError as error:
            return str(error)
        boxes = item.pixel_boxes(*image.shape[:2])
        plain = Damaged(image, boxes, item.ignored)
        results = []
        for name in (UNDAMAGED, *damages):
            damaged = plain
            if name != UNDAMAGED:
                made = apply_damage(name, image, boxes, item.ignored, image_name=item.name)
                if made is None:
                    continue
                damaged = made
            ignored = damaged.ignored | (_side(damaged.boxes) < SIZES[0])
            for system in systems:
                detections, matches = found_by(system.detect, damaged, ignored)
                ranked = None
                if average_precision:
                    everything, places = detections, matches
                    if system.detect_all is not None:
                        everything, places = found_by(system.detect_all, damaged, ignored)
                    scores = everything.confidence
                    ranked = _scores_of_faces(scores, places, len(ignored)), scores[places == -1]
                found = Found(
                    item.name, name, system.name, detections.xyxy, detections.confidence, matches,
                    damaged.boxes, ignored, negative, ranked,
                )  # fmt: skip
                if misses is not None:
                    _save_misses(misses, damaged.image, found, system.score_threshold)
                results.append(found)
        return results

    items = [*annotated, *negatives]
    flags = [False] * len(annotated) + [True] * len(negatives)
    if threads == 1:
        outcomes = list(progress(map(work, items, flags)))
    else:
        pool = ThreadPoolExecutor(threads)
        try:
            outcomes = list(progress(pool.map(work, items, flags)))
        finally:
            pool.shutdown(cancel_futures=True)
    found = [item for item in outcomes if not isinstance(item, str)]
    grouped: dict[tuple[str, str], list[Found]] = {
        (damage, name): [] for damage in (UNDAMAGED, *damages) for name in names
    }
    for one in chain.from_iterable(found):
        grouped[one.damage, one.system].append(one)
    thresholds = {system.name: system.score_threshold for system in systems}
    return Evaluation(
        tuple(_result(*key, thresholds[key[1]], group) for key, group in grouped.items()),
        tuple(item for item in outcomes if isinstance(item, str)),
        tuple(chain.from_iterable(found)) if keep else (),
    )


def _result(damage: str, system: str, threshold: float, found: Sequence[Found]) -> Result:
    empty = np.zeros(0, np.float32)
    sizes, scores, false_scores, on_negatives = [empty], [empty], [empty], [np.zeros(0, np.bool_)]
    ranked, false_ranked = [empty], [empty]
    for item in found:
        of_faces = _scores_of_faces(item.scores, item.matches, len(item.faces))
        sizes.append(_side(item.faces)[~item.ignored])
        scores.append(of_faces[~item.ignored])
        false_scores.append(item.scores[item.matches == -1])
        on_negatives.append(np.full(len(false_scores[-1]), item.negative))
        if item.ranked is not None:
            ranked.append(item.ranked[0][~item.ignored])
            false_ranked.append(item.ranked[1])
    negatives = sum(item.negative for item in found)
    return Result(
        damage,
        system,
        threshold,
        len(found) - negatives,
        negatives,
        np.concatenate(sizes),
        np.concatenate(scores),
        np.concatenate(false_scores),
        np.concatenate(on_negatives),
        None
        if len(ranked) == 1 and found
        else (np.concatenate(ranked), np.concatenate(false_ranked)),
    )


def _scores_of_faces(scores: Array, matches: NDArray[np.int64], count: int) -> Array:
    """(count,) of the detection that finds each face; nan where none does."""
    of_faces = np.full(count, np.nan, np.float32)
    of_faces[matches[matches >= 0]] = scores[matches >= 0]
    return of_faces


def _save_misses(folder: Path, image: Image, found: Found, threshold: float) -> None:
    above = found.scores > threshold
    hit = np.isin(np.arange(len(found.faces)), found.matches[above])
    wrong = above & (found.matches == -1)
    if (hit | found.ignored).all() and not wrong.any():
        return
    drawn = image.copy()
    for box, is_hit, ignored in zip(found.faces, hit, found.ignored, strict=True):
        colour = (128, 128, 128) if ignored else (0, 200, 0) if is_hit else (230, 0, 0)
        _draw(drawn, box, colour)
    for box, score in zip(found.boxes[wrong], found.scores[wrong], strict=True):
        _draw(drawn, box, (255, 150, 0), f"{score:.2f}")
    target = folder / _file_name(found.system) / found.damage
    target.mkdir(parents=True, exist_ok=True)
    save_image(target / f"{_file_name(found.image)}.jpg", drawn)


def _draw(image: Image, box: Array, colour: tuple[int, int, int], text: str = "") -> None:
    x1, y1, x2, y2 = (int(v) for v in np.rint(box).clip(-(1 << 15), 1 << 15))
    cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2)
    if text:
        at = max(x1, 0), max(y1 - 3, 10)
        cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)


def _file_name(name: str) -> str:
    """One that stays in its folder."""
    return "".join(c if c.isalnum() or c in " ._-" else "_" for c in name).strip(". ") or "_"


# --- reports ----------------------------------------------------------------------------------


def size_name(low: float, high: float) -> str:
    """``"8-12"``, ``">200"``: a class of sizes."""
    return f">{low:g}" if math.isinf(high) else f"{low:g}-{high:g}"


def tables(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Rows by damage and system for :func:`threedfa.evaluation.table_text`: recall by size and of
    all faces, average precision, false alarms per 1,000 images. Before the systems of a damage the
    numbers of its faces and images, unless they are those of the damage before it."""
    rows: dict[str, dict[str, float]] = {}
    before: dict[str, float] = {}
    damage = None
    for result in evaluation.results:
        if result.damage != damage:
            damage = result.damage
            counts: dict[str, float] = {}
            if result.faces():
                for low, high in pairwise(SIZES):
                    counts[size_name(low, high)] = result.faces(low, high)
                counts["all"] = result.faces()
                if result.ranked is not None:
                    counts["AP"] = result.faces()
            if result.images:
                counts["elsewhere"] = result.images
            if result.negatives:
                counts["negatives"] = result.negatives
            if counts != before:
                rows[f"{damage}: faces, images"] = before = counts
        row = {
            size_name(low, high): result.recall(low, high)
            for low, high in pairwise(SIZES)
            if result.faces(low, high)
        }
        if result.faces():
            row["all"] = result.recall()
            if result.ranked is not None:
                row["AP"] = result.average_precision()
        for name, negatives in (("elsewhere", False), ("negatives", True)):
            rate = result.false_alarms(negatives=negatives)
            if not math.isnan(rate):
                row[name] = round(rate)
                row[f"{name} >={CERTAIN:g}"] = round(
                    result.false_alarms(negatives=negatives, score_threshold=_CERTAIN)
                )
        rows[f"{damage}: {result.system}"] = row
    return rows


def to_dict(evaluation: Evaluation, *, match: Match) -> dict[str, Any]:
    """Everything for JSON; what is nan elsewhere is None."""

    def number(value: float) -> float | None:
        return None if math.isnan(value) else value

    results = [
        {
            "damage": result.damage,
            "system": result.system,
            "score_threshold": result.score_threshold,
            "images": result.images,
            "negatives": result.negatives,
            "sizes": [
                {
                    "from": low,
                    "to": None if math.isinf(high) else high,
                    "faces": result.faces(low, high),
                    "recall": number(result.recall(low, high)),
                }
                for low, high in pairwise(SIZES)
            ],
            "faces": result.faces(),
            "recall": number(result.recall()),
            "average_precision": number(result.average_precision()),
            "false_alarms_per_1000": {
                name: {
                    "all": number(result.false_alarms(negatives=negatives)),
                    f"score_{CERTAIN:g}": number(
                        result.false_alarms(negatives=negatives, score_threshold=_CERTAIN)
                    ),
                }
                for name, negatives in (("elsewhere", False), ("negatives", True))
            },
            "by_threshold": [
                {
                    "score_threshold": threshold,
                    "recall": [
                        number(result.recall(low, high, score_threshold=threshold))
                        for low, high in pairwise(SIZES)
                    ],
                    "elsewhere_per_1000": number(
                        result.false_alarms(negatives=False, score_threshold=threshold)
                    ),
                    "negatives_per_1000": number(
                        result.false_alarms(negatives=True, score_threshold=threshold)
                    ),
                }
                for threshold in (t / 20 for t in range(1, 20))
                if threshold >= result.score_threshold
            ],
        }
        for result in evaluation.results
    ]
    document: dict[str, Any] = {
        "match": match,
        "score_floor": SCORE_FLOOR,
        "results": results,
        "unread": list(evaluation.unread),
    }
    if evaluation.found:
        document["images"] = [
            {
                "image": found.image,
                "damage": found.damage,
                "system": found.system,
                "faces": found.faces.tolist(),
                "ignored": found.ignored.tolist(),
                "boxes": found.boxes.tolist(),
                "scores": found.scores.tolist(),
                "matches": found.matches.tolist(),
            }
            for found in evaluation.found
        ]
    return document
