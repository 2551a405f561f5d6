"""Measuring detectors: annotations in every format, matching worked out by hand, damages, and the
command on detectors whose answers are known."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pictures import Picture, picture, png
from threedfa.cli import main
from threedfa.damages import CUT, DAMAGES, apply_damage
from threedfa.detections import Detections
from threedfa.detector_evaluation import (
    SIZES,
    UNDAMAGED,
    Annotated,
    Result,
    System,
    evaluate,
    match_boxes,
    read_annotations,
    read_negatives,
    tables,
    to_dict,
    yunet_system,
)

Array = npt.NDArray[Any]

HEIGHT, WIDTH, SIDE = 160, 200, 32
CELLS = [(64, 32), (128, 96)]  # left and top of the faces
NONE = np.zeros(0, np.bool_)


def box(left: float, top: float, side: float = SIDE) -> list[float]:
    """Of the pixels from left, top on, by our convention."""
    return [left - 0.5, top - 0.5, left + side - 0.5, top + side - 0.5]


def boxes(*rows: list[float]) -> npt.NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 4)


# --- readers --------------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two, of which the first has two faces."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    (folder / "a.png").write_bytes(png(picture(*CELLS)))
    (folder / "more" / "b.jpg").write_bytes(png(picture()))
    return folder


def write_wider(path: Path) -> Path:
    lines = ["a.png", "2", "64 32 32 32 0 0 0 0 0 0 ", "128 96 32 32 2 0 0 1 0 0 "]
    lines += ["more/b.jpg", "0", "0 0 0 0 0 0 0 0 0 0 "]
    path = path / "wider_face_val_bbx_gt.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def write_coco(path: Path) -> Path:
    content = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "more/b.jpg"}],
        "categories": [{"id": 1, "name": "face"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "bbox": [64, 32, 32, 32], "iscrowd": 0},
            {"image_id": 7, "category_id": 1, "bbox": [128, 96, 32, 32], "iscrowd": 1},
        ],
    }
    path = path / "instances.json"
    path.write_text(json.dumps(content))
    return path


def write_csv(path: Path) -> Path:
    lines = ["name,x1,y1,x2,y2,ignored", "a.png,63.5,31.5,95.5,63.5,0"]
    lines += ["more/b.jpg,,,,,", "a.png,127.5,95.5,159.5,127.5,1"]
    path = path / "boxes.csv"
    path.write_text("\n".join(lines))
    return path


def voc(name: str, *objects: tuple[int, int, int, int, int], kind: str = "face") -> str:
    text = "".join(
        f"<object><name>{kind}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1}</xmin>"
        f"<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for x1, y1, x2, y2, difficult in objects
    )
    return f"<annotation><filename>{name}</filename>{text}</annotation>"


def write_voc(path: Path) -> Path:
    path = path / "voc"
    path.mkdir()
    (path / "a.xml").write_text(voc("a.png", (65, 33, 96, 64, 0), (129, 97, 160, 128, 1)))
    (path / "b.xml").write_text(voc("elsewhere.jpg"))  # found by the file's own name
    return path


def write_yolo(path: Path) -> Path:
    path = path / "yolo"
    (path / "more").mkdir(parents=True)
    rows = ((left + 16, top + 16) for left, top in CELLS)
    text = "\n".join(f"0 {x / WIDTH} {y / HEIGHT} {32 / WIDTH} {32 / HEIGHT}" for x, y in rows)
    (path / "a.txt").write_text(text)
    (path / "classes.txt").write_text("face\n")
    return path


@pytest.mark.parametrize(
    ("write", "ignoring"),
    [
        (write_wider, True), (write_coco, True), (write_csv, True), (write_voc, True),
        (write_yolo, False),
    ],
)  # fmt: skip
def test_every_format_says_the_same(
    images: Path, tmp_path: Path, write: Callable[[Path], Path], ignoring: bool
) -> None:
    first, second = read_annotations(images, write(tmp_path))
    assert (first.name, second.name) == ("a.png", "more/b.jpg")
    assert first.image == images / "a.png"
    expected = boxes(*(box(*cell) for cell in CELLS))
    np.testing.assert_allclose(first.pixel_boxes(HEIGHT, WIDTH), expected, atol=1e-3)
    assert first.ignored.tolist() == [False, ignoring]
    assert second.boxes.shape == (0, 4)
    assert second.ignored.dtype == np.bool_


def test_squares_around_landmarks(images: Path, tmp_path: Path) -> None:
    points = np.linspace([50, 40], [90, 60], 68)[None]
    np.savez(tmp_path / "landmarks68.npz", names=["a.png"], landmarks=points)
    (only,) = read_annotations(images, tmp_path / "landmarks68.npz")
    np.testing.assert_allclose(only.boxes, [[48, 28, 92, 72]], atol=1e-4)


def test_categories(images: Path, tmp_path: Path) -> None:
    path = write_coco(tmp_path)
    assert len(read_annotations(images, path, categories=["face"])[0].boxes) == 2
    with pytest.raises(ValueError, match="at least one face, found 2 images without"):
        read_annotations(images, path, categories=["cat"])
    with pytest.raises(ValueError, match="among cat, face, got dog"):
        read_annotations(images, path, categories=["dog"])
    with pytest.raises(ValueError, match="among face, got dog"):
        read_annotations(images, write_voc(tmp_path), categories=["dog"])
    folder = write_yolo(tmp_path)
    (folder / "a.txt").write_text("0 .5 .5 .1 .1\n1 .5 .5 .2 .2\n")
    np.testing.assert_allclose(
        read_annotations(images, folder, categories=["1"])[0].boxes, [[0.4, 0.4, 0.6, 0.6]]
    )
    with pytest.raises(ValueError, match="numbers of YOLO's classes as categories, got face"):
        read_annotations(images, folder, categories=["face"])


CSV = "name,x1,y1,x2,y2\n"
COCO: dict[str, Any] = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", r"a\.csv, line 1: expected name,x1,y1,x2,y2 .*, got ''"),
        ("a.csv", "name,x,y,w,h\n", "line 1: expected name,x1,y1,x2,y2"),
        ("a.csv", CSV + "a.png,1,2,3\n", "line 2: expected 5 cells, a name first, got 'a.png,1,2"),
        ("a.csv", CSV + "a.png,1,2,x,4\n", "line 2: expected x1, y1, x2 and y2, got '1 2 x 4'"),
        ("a.csv", CSV + "a.png,1,2,nan,4\n", "line 2: expected x1"),
        ("a.csv", CSV + "\na.png,1,2,1,4\n", "line 3: expected x1 < x2 and y1 < y2, got '1,2,1,4'"),
        ("a.csv", CSV[:-1] + ",ignored\na.png,1,2,3,4,5\n", "line 2: expected ignored: 0 or 1"),
        ("a.csv", CSV + "no.png,1,2,3,4\n", r"no\.png: no such image"),
        ("a.csv", CSV, "at least one face, found none"),
        ("a.csv", b"\xff\xfe", "expected text in UTF-8"),
        ("a.txt", "a.png\n", r"a\.txt, line 2: expected the number of faces of a.png, got 'the en"),
        ("a.txt", "1 2 3\n", "line 1: expected the name of an image, got '1 2 3'"),
        ("a.txt", "a.png\n2\n1 2 3 4\n", "line 3: expected 2 faces of a.png, got '1 lines'"),
        ("a.txt", "a.png\n-1\n", "line 2: expected the number"),
        ("a.txt", "a.png\n1\n1 2 3\n", "line 3: expected x y width height"),
        ("a.txt", "a.png\n1\n1 2 3 4 5\n", "line 3: expected x y width height"),
        ("a.json", '{"images": [\n', r"a\.json, line 2: expected JSON, got 'Expecting value in"),
        ("a.json", "[]", "expected an object, got list"),
        ("a.json", "[" * 100_000, "lists within lists"),
        ("a.json", {"images": 3}, r"images: expected a list of objects, got '3'"),
        ("a.json", {"images": [{"id": 1}]}, r"images\[0\]: expected an id and a file_name"),
        ("a.json", COCO | {"images": COCO["images"] * 2}, r"images\[1\]: expected an id of it"),
        ("a.json", COCO | {"annotations": [{"image_id": 2}]}, r"annotations\[0\]: .* got '2'"),
        (
            "a.json",
            COCO | {"annotations": [{"image_id": 1, "bbox": [1, 2, 3]}]},
            r"annotations\[0\]: expected a bbox of x, y, width and height, got '\[1, 2, 3\]'",
        ),
        (
            "a.json",
            COCO | {"annotations": [{"image_id": 1, "bbox": [1, 2, -3, 4]}]},
            r"annotations\[0\]: expected a width",
        ),
        ("a.npz", b"", "expected an NPZ file"),
        ("a.dat", b"", r"ends in .txt, .json, .csv, .npz, or a folder .* a file of another name"),
        ("yolo/a.txt", "0 .5 .5 .1\n", r"a\.txt, line 1: expected class, middle x"),
        ("yolo/a.txt", "\n0 50 50 10 10\n", "line 2: expected class, middle x"),
        ("yolo/a.txt", "face .5 .5 .1 .1\n", "line 1: expected class"),
        ("yolo/c.txt", "0 .5 .5 .1 .1\n", r"found none for 1: c\.txt"),
        ("voc/a.xml", "<annotation>", r"a\.xml, line 1: expected XML, got 'no element found"),
        ("voc/a.xml", "<image/>", "expected an <annotation>, got <image>"),
        ("voc/a.xml", voc("", (1, 1, 0, 3, 0)), "object 1: expected xmin <= xmax"),
        (
            "voc/a.xml",
            "<annotation><object/></annotation>",
            "object 1: expected a <bndbox> of xmin, ymin, xmax and ymax, got 'none'",
        ),
        (
            "voc/a.xml",
            "<annotation><object><bndbox><xmin>1</xmin></bndbox></object></annotation>",
            "object 1: expected a <bndbox>",
        ),
        ("voc/c.xml", voc("c.png"), r"c\.png: no such image"),
        ("both/a.xml", voc("a.png"), None),
    ],
)  # fmt: skip
def test_annotations_that_are_not_right(
    images: Path, tmp_path: Path, name: str, content: Any, message: str | None
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if message is None:
        (path.parent / "a.txt").write_text("0 .5 .5 .1 .1\n")
        message = "found .txt and .xml files"
    given = path if path.parent == tmp_path else path.parent
    with pytest.raises(ValueError, match=message):
        read_annotations(images, given)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "latin-1"])
@pytest.mark.parametrize(
    "prologue",
    [
        '<!DOCTYPE annotation [<!ENTITY a "face"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
        '<!DOCTYPE annotation SYSTEM "file:///etc/passwd">',
    ],
)
def test_xml_that_declares_entities_is_refused(
    images: Path, tmp_path: Path, encoding: str, prologue: str
) -> None:
    folder = tmp_path / "voc"
    folder.mkdir()
    text = f'<?xml version="1.0"?>\n{prologue}{voc("a.png", (1, 1, 9, 9, 0))}'
    (folder / "a.xml").write_bytes(text.encode(encoding))
    with pytest.raises(ValueError, match=r"a\.xml, line \d: .* without document type or entities"):
        read_annotations(images, folder)


def test_folders_without_images(images: Path, tmp_path: Path) -> None:
    assert [item.name for item in read_negatives(images)] == ["a.png", "more/b.jpg"]
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(ValueError, match=r"images without faces .*, found none"):
            read_negatives(folder)
    with pytest.raises(ValueError, match="folder of the images"):
        read_annotations(tmp_path / "none", write_csv(tmp_path))
    with pytest.raises(ValueError, match="no such file"):
        read_annotations(images, tmp_path / "no.csv")
    with pytest.raises(ValueError, match="found none of them"):
        read_annotations(images, tmp_path / "empty")


# --- matching and numbers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "middle", "iou"),
    [
        (box(100, 100, 40), 0, 0),
        (box(117, 100, 40), 0, -1),  # 0.425 of the side
        (box(119, 100, 40), -1, -1),
        (box(113, 113, 40), -1, -1),  # 0.46 along the diagonal
        (box(110, 110, 20), 0, -1),  # half as large
        (box(110.5, 110.5, 19), -1, -1),
        (box(80, 80, 80), 0, -1),
        (box(79, 79, 82), -1, -1),
        (box(107, 107, 28), 0, -1),  # 0.49
        (box(105, 105, 30), 0, 0),  # 0.56
    ],
)
def test_when_a_face_is_found(found: list[float], middle: int, iou: int) -> None:
    face = boxes(box(100, 100, 40))
    assert match_boxes(boxes(found), face, np.array([False])).tolist() == [middle]
    assert match_boxes(boxes(found), face, np.array([False]), match="iou").tolist() == [iou]


def test_no_face_is_found_twice() -> None:
    faces = boxes(box(100, 100), box(120, 100))
    none = np.zeros(2, np.bool_)
    exact, between = box(100, 100), box(110, 100)
    # The best score chooses first, and takes what fits it best.
    assert match_boxes(boxes(exact, exact), faces, none).tolist() == [0, -1]
    assert match_boxes(boxes(between, exact, exact), faces, none).tolist()[0] in (0, 1)
    assert sorted(match_boxes(boxes(between, between, between), faces, none)) == [-1, 0, 1]
    assert match_boxes(boxes(exact, box(118, 100)), faces, none).tolist() == [0, 1]


def test_what_lies_on_ignored_faces_does_not_count() -> None:
    faces = boxes(box(100, 100), box(0, 0, 90))
    ignored = np.array([False, True])
    found = boxes(box(0, 0, 90), box(0, 0, 90), box(10, 10, 12), box(100, 100), box(75, 40))
    assert match_boxes(found, faces, ignored).tolist() == [-2, -2, -2, 0, -1]
    # A face that counts is taken before one that does not.
    same = boxes(box(100, 100), box(100, 100))
    assert match_boxes(same[:1], same, np.array([True, False])).tolist() == [1]


def test_nothing_to_match() -> None:
    assert match_boxes(boxes(), boxes(box(1, 1)), np.array([False])).tolist() == []
    assert match_boxes(boxes(box(1, 1)), boxes(), NONE).tolist() == [-1]
    # Boxes without an area find nothing, and divide by nothing.
    assert match_boxes(boxes(box(1, 1, 0)), boxes(box(1, 1, 0)), np.array([True])).tolist() == [-1]


def result(scores: list[float], false_scores: list[float], **changes: Any) -> Result:
    arguments: dict[str, Any] = {
        "damage": UNDAMAGED,
        "system": "s",
        "score_threshold": 0.5,
        "images": 4,
        "negatives": 0,
        "sizes": np.full(len(scores), 30, np.float32),
        "scores": np.array(scores, np.float32),
        "false_scores": np.array(false_scores, np.float32),
        "on_negatives": np.zeros(len(false_scores), np.bool_),
    }
    arguments["ranked"] = arguments["scores"], arguments["false_scores"]
    return Result(**(arguments | changes))


def test_average_precision_by_hand() -> None:
    nan = math.nan
    assert result([0.9, 0.8], []).average_precision() == 1
    assert result([nan, nan], [0.9]).average_precision() == 0
    assert result([nan], []).average_precision() == 0
    # Precision 1, 1/2, 2/3, of which the second is raised to the third: 1/4 + 2/3 / 4.
    assert result([0.9, 0.7, nan, nan], [0.8]).average_precision() == pytest.approx(1 / 4 + 1 / 6)
    # What has one score comes at once, whichever way it is ordered.
    assert result([0.9], [0.9]).average_precision() == 0.5
    assert math.isnan(result([], [0.9]).average_precision())


def test_recall_and_false_alarms() -> None:
    one = result(
        [0.9, 0.4, math.nan, 0.6],
        [0.95, 0.94, 0.6, 0.3],
        sizes=np.array([10, 20, 39.9, 40], np.float32),
        negatives=6,
        on_negatives=np.array([True, False, True, True]),
    )
    assert one.recall() == 0.5
    assert one.recall(8, 12) == 1
    assert one.recall(20, 40) == 0
    assert one.recall(20, 40, score_threshold=0.3) == 0.5
    assert [one.faces(low, high) for low, high in itertools.pairwise(SIZES)] == [1, 0, 2, 1, 0, 0]
    assert math.isnan(one.recall(12, 20))
    assert one.false_alarms() == 300
    assert one.false_alarms(negatives=True) == pytest.approx(1000 * 2 / 6)
    assert one.false_alarms(negatives=False) == 250
    assert one.false_alarms(score_threshold=0.2) == 400
    assert math.isnan(result([], []).false_alarms(negatives=True))


# --- systems that know ----------------------------------------------------------------------------


@pytest.fixture
def annotated(images: Path) -> list[Annotated]:
    faces = boxes(*(box(*cell) for cell in CELLS))
    return [
        Annotated(images / "a.png", "a.png", faces, np.zeros(2, np.bool_)),
        Annotated(images / "more" / "b.jpg", "b.jpg", boxes(), NONE),
    ]


def knowing(name: str, answer: Callable[[Array], tuple[Array, list[float]]]) -> System:
    """A system that sees the bright squares of an undamaged image."""

    def detect(image: Picture) -> Detections:
        bright = (image.min(axis=2) > 150).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(bright)
        seen = boxes(*(box(x, y, width) for x, y, width, _, _ in stats[1:]))
        return Detections(*answer(seen))

    return System(name, 0.5, detect)


def test_answers_that_are_known_beforehand(annotated: list[Annotated]) -> None:
    systems = [
        knowing("perfect", lambda seen: (seen, [0.9] * len(seen))),
        knowing("shifted", lambda seen: (seen + SIDE, [0.96] * len(seen))),
        knowing("twice", lambda seen: (np.repeat(seen, 2, axis=0), [0.9, 0.8] * len(seen))),
        knowing("unsure", lambda seen: (seen, [0.4] * len(seen))),
        knowing("blind", lambda seen: (boxes(), [])),
    ]
    evaluation = evaluate(systems, annotated, threads=2)
    told = {
        r.system: (r.recall(), round(r.average_precision(), 3), r.false_alarms())
        for r in evaluation.results
    }
    assert told == {
        "perfect": (1, 1, 0),
        "shifted": (0, 0, 1000),
        "twice": (1, 1, 1000),
        "unsure": (0, 1, 0),  # average precision looks below the threshold
        "blind": (0, 0, 0),
    }
    (shifted,) = (r for r in evaluation.results if r.system == "shifted")
    assert shifted.faces(20, 40) == shifted.faces() == 2
    rows = tables(evaluation)
    assert rows["undamaged: shifted"]["elsewhere >=0.95"] == 1000
    assert rows["undamaged: twice"]["elsewhere >=0.95"] == 0
    assert rows["undamaged: faces, images"]["20-40"] == 2
    assert "12-20" not in rows["undamaged: perfect"]


def test_average_precision_has_a_look_of_its_own(annotated: list[Annotated]) -> None:
    """A detector that looks further where it finds nothing gives more at a higher threshold."""
    right = knowing("a", lambda seen: (seen, [0.9] * len(seen)))
    wrong = knowing("a", lambda seen: (seen + SIDE, [0.4] * len(seen)))
    system = System("a", 0.5, right.detect, wrong.detect)
    (row,) = evaluate([system], annotated).results
    assert (row.recall(), row.average_precision(), row.false_alarms()) == (1, 0, 0)
    evaluation = evaluate([system], annotated, average_precision=False)
    (row,) = evaluation.results
    assert row.recall() == 1
    assert math.isnan(row.average_precision())
    assert "AP" not in tables(evaluation)["undamaged: a"]


def test_false_alarms_on_images_without_faces(annotated: list[Annotated]) -> None:
    """Whatever is found on those is one, also where there is a face."""
    system = knowing("perfect", lambda seen: (seen, [0.97] * len(seen)))
    negatives = read_negatives(annotated[0].image.parent)
    evaluation = evaluate([system], [], negatives)
    (row,) = evaluation.results
    assert (row.images, row.negatives, row.false_alarms(negatives=True)) == (0, 2, 1000)
    assert math.isnan(row.recall())
    assert set(tables(evaluation)["undamaged: perfect"]) == {"negatives", "negatives >=0.95"}
    (both,) = evaluate([system], annotated, negatives).results
    assert both.recall() == 1
    assert both.false_alarms() == 500


def test_small_and_ignored_faces_do_not_count(annotated: list[Annotated]) -> None:
    first = annotated[0]
    system = knowing("shifted", lambda seen: (seen[:1] + SIDE, [0.9] * len(seen[:1])))
    ignoring = Annotated(first.image, "a", first.boxes, np.array([True, False]))
    (row,) = evaluate([system], [ignoring]).results
    assert (row.faces(), row.recall()) == (1, 0)
    small = boxes(box(64, 32, 7), box(*CELLS[1]))
    (row,) = evaluate([system], [Annotated(first.image, "a", small, first.ignored)]).results
    assert row.faces() == 1
    blind = System("blind", 0.5, lambda image: Detections(np.zeros((0, 4)), []))
    everything = Annotated(first.image, "a", first.boxes, np.array([True, True]))
    (row,) = evaluate([blind], [everything]).results
    assert math.isnan(row.recall())


def test_all_systems_get_the_same_images_every_time(annotated: list[Annotated]) -> None:
    seen: dict[str, dict[str, list[int]]] = {}

    def recording(name: str) -> System:
        def detect(image: Picture) -> Detections:
            seen[run].setdefault(name, []).append(hash(image.tobytes()))
            return Detections(np.zeros((0, 4)), [])

        return System(name, 0.5, detect)

    for run, threads in (("one", 1), ("three", 3)):
        seen[run] = {}
        systems = [recording("a"), recording("b")]
        evaluation = evaluate(systems, annotated, damages=list(DAMAGES), threads=threads)
        assert len(evaluation.results) == 2 * (1 + len(DAMAGES))
        assert len(set(seen[run]["a"])) >= len(DAMAGES)
    assert seen["one"]["a"] == seen["one"]["b"]
    assert sorted(seen["three"]["a"]) == sorted(seen["one"]["a"])
    by_damage = {r.damage: r for r in evaluation.results}
    assert by_damage["noise-30"].images == 2
    assert by_damage["mask"].images == 1  # the other has no face
    assert by_damage["face-24"].faces(20, 40) == 2


def test_settings_that_are_not_right(annotated: list[Annotated]) -> None:
    system = knowing("a", lambda seen: (seen, [1.0] * len(seen)))
    for arguments, options, message in (
        (([], annotated), {}, "at least one, of different names"),
        (([system, system], annotated), {}, "of different names, got"),
        (([system], []), {}, "at least one image"),
        (([System("a", 2, system.detect)], annotated), {}, "score_threshold: expected 0..1, got 2"),
        (([system], [], annotated), {}, "negatives: expected images without boxes"),
        (([system], annotated), {"damages": ["rain"]}, "unknown damage 'rain': expected some of n"),
        (([system], annotated), {"match": "near"}, "match: expected 'middle' or 'iou'"),
        (([system], annotated), {"threads": 0}, "threads: expected at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(*arguments, **options)


def test_a_report_for_json(annotated: list[Annotated]) -> None:
    system = knowing("perfect", lambda seen: (seen, [0.9] * len(seen)))
    evaluation = evaluate([system], annotated, damages=["filling"], keep=True)
    document = json.loads(json.dumps(to_dict(evaluation, match="middle"), allow_nan=False))
    plain, filling = document["results"]
    assert plain["recall"] == 1
    assert plain["false_alarms_per_1000"]["negatives"]["all"] is None
    assert [size["faces"] for size in plain["sizes"]] == [0, 0, 2, 0, 0, 0]
    last = plain["by_threshold"][-1]
    assert last["score_threshold"] == 0.95
    assert last["recall"][2] == 0
    assert filling["images"] == 0  # 32 pixels are too few
    assert filling["recall"] is None
    assert [image["matches"] for image in document["images"]] == [[0, 1], []]


# --- damages --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bright() -> tuple[Picture, npt.NDArray[np.float32]]:
    """A dark image with a white face of 60 pixels, larger than a second one."""
    image = np.full((150, 180, 3), 20, np.uint8)
    image[40:100, 70:130] = 255
    return image, boxes(box(10, 10, 20), box(70, 40, 60))


def seen_box(image: Picture) -> Array:
    rows, columns = np.nonzero(image.min(axis=2) > 190)
    return np.array([columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5])


@pytest.mark.parametrize("name", DAMAGES)
def test_damages_change_images_alike_each_time(name: str) -> None:
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    before, faces = image.copy(), boxes(box(30, 20, 50))
    one, again = (apply_damage(name, image, faces, image_name="a") for _ in range(2))
    assert one is not None and again is not None
    np.testing.assert_array_equal(one.image, again.image)
    np.testing.assert_array_equal(one.boxes, again.boxes)
    np.testing.assert_array_equal(image, before)
    assert one.image.dtype == np.uint8
    assert one.image.flags.c_contiguous
    assert one.image.shape != image.shape or (one.image != image).any()
    assert one.boxes.dtype == np.float32
    assert not one.ignored.any()


def test_random_damages_differ_between_images() -> None:
    image, faces = np.full((60, 60, 3), 128, np.uint8), boxes(box(10, 10, 40))
    for name in ("noise-30", "salt-and-pepper-3", "hand"):
        one, other = (apply_damage(name, image, faces, image_name=key) for key in "ab")
        assert one is not None and other is not None
        assert (one.image != other.image).any()


@pytest.mark.parametrize("degrees", [15, 30, 45, 60, 90, 180])
def test_boxes_turn_with_the_image(bright: Any, degrees: int) -> None:
    image, faces = bright
    turned = apply_damage(f"roll-{degrees}", image, faces)
    assert turned is not None
    seen, face = seen_box(turned.image), turned.boxes[1]
    np.testing.assert_allclose((seen[:2] + seen[2:]) / 2, (face[:2] + face[2:]) / 2, atol=0.6)
    np.testing.assert_allclose(face[2:] - face[:2], 60, atol=1e-3)
    # Clockwise: the second face, up and left of the first, moves to the right.
    small = turned.boxes[0]
    angle = np.degrees(np.arctan2(*((small[:2] + small[2:]) - (face[:2] + face[2:]))[::-1]))
    first = np.degrees(np.arctan2(20 - 70, 20 - 100))
    assert (angle - first) % 360 == pytest.approx(degrees, abs=0.1)


def test_rectangles_turn_by_right_angles() -> None:
    image = np.zeros((50, 80, 3), np.uint8)
    image[10:20, 5:35] = 255
    turned = apply_damage("roll-90", image, boxes([4.5, 9.5, 34.5, 19.5]))
    assert turned is not None
    np.testing.assert_allclose(turned.boxes[0], seen_box(turned.image), atol=1e-4)


def test_a_part_of_the_face_is_cut_off(bright: Any) -> None:
    image, faces = bright
    sides = set()
    for key in "abcdefgh":
        cut = apply_damage("cut", image, faces, image_name=key)
        assert cut is not None
        height, width = cut.image.shape[:2]
        low, high = cut.boxes[1, :2], cut.boxes[1, 2:]
        outside = [*(-0.5 - low), *(high - [width - 0.5, height - 0.5])]
        sides.add(int(np.argmax(outside)))
        assert max(outside) == pytest.approx(CUT * 60, abs=0.6)
        clipped = np.concatenate(
            [np.maximum(low, -0.5), np.minimum(high, [width - 0.5, height - 0.5])]
        )
        np.testing.assert_allclose(clipped, seen_box(cut.image), atol=1e-4)
        gone = cut.boxes[0, 2] < 5 or cut.boxes[0, 3] < 5
        assert cut.ignored.tolist() == [gone, False]
    assert len(sides) > 2


def test_one_face_fills_the_image(bright: Any) -> None:
    image, faces = bright
    filled = apply_damage("filling", image, faces)
    assert filled is not None
    assert filled.image.shape == (720, 720, 3)
    assert (filled.image == 255).all()
    np.testing.assert_allclose(filled.boxes[1], [-0.5, -0.5, 719.5, 719.5], atol=1e-3)
    assert filled.ignored.tolist() == [True, False]
    assert apply_damage("filling", image, faces[:1]) is None
    # The larger face does not count: the other is too small.
    assert apply_damage("filling", image, faces, np.array([False, True])) is None


def test_images_are_made_smaller(bright: Any) -> None:
    image, faces = bright
    small = apply_damage("face-24", image, faces)
    assert small is not None
    np.testing.assert_allclose(small.boxes[1, 2:] - small.boxes[1, :2], 24, atol=1e-3)
    np.testing.assert_allclose(small.boxes[1], seen_box(small.image), atol=1)
    assert apply_damage("face-24", image, faces[:1]) is None


def test_what_is_hidden(bright: Any) -> None:
    image, faces = bright
    face, parts = np.s_[40:100, 70:130], {}
    for name in ("mask", "eye-bar", "hand"):
        hidden = apply_damage(name, image, faces)
        assert hidden is not None
        parts[name] = (hidden.image != image).any(axis=2)[face]
        np.testing.assert_array_equal(hidden.boxes, faces)
    assert parts["mask"][33:55, 12:48].all() and not parts["mask"][:25].any()
    assert parts["eye-bar"][10:26].all() and not parts["eye-bar"][30:].any()
    assert 0.1 < parts["hand"].mean() < 0.6


def test_levels_and_lines() -> None:
    image = np.full((40, 40, 3), 100, np.uint8)

    def damaged(name: str) -> Picture:
        result = apply_damage(name, image, boxes())
        assert result is not None
        return result.image

    assert (damaged("dark-0.1") == 10).all()
    assert (damaged("overexposed-2.5") == 250).all()
    assert (damaged("contrast-0.25") == 121).all()  # 127.5 - 27.5 / 4
    assert (damaged("red-cast") == (100, 40, 40)).all()
    lines = damaged("scan-lines")
    assert (lines[::2] == 100).all() and (lines[1::2] == 50).all()
    noise = damaged("noise-30").astype(float)
    assert noise.std() == pytest.approx(30, abs=1.5)
    grains = damaged("salt-and-pepper-3")
    assert np.isin(grains, (0, 255)).all(axis=2).mean() == pytest.approx(0.03, abs=0.02)
    for name in ("grey", "gaussian-blur-4", "motion-blur-15", "resample-4", "pixelate-8"):
        assert np.abs(damaged(name).astype(int) - 100).max() <= 1, name
    assert apply_damage("mask", image, boxes()) is None


def test_lines_of_two_moments() -> None:
    image = np.tile(np.arange(40, dtype=np.uint8)[None, :, None], (6, 1, 3))
    moved = apply_damage("interlace-8", image, boxes())
    assert moved is not None
    np.testing.assert_array_equal(moved.image[::2], image[::2])
    np.testing.assert_array_equal(moved.image[1::2, 8:], image[1::2, :-8])


def test_damages_that_are_unknown() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="unknown damage 'rain': expected one of noise-30, "):
        apply_damage("rain", image, boxes())
    with pytest.raises(ValueError, match=r"boxes: expected \(N, 4\), got \(4,\)"):
        apply_damage("grey", image, np.zeros(4, np.float32))


# --- YuNet ----------------------------------------------------------------------------------------


def write_yunet(path: Path) -> None:
    """A network with YuNet's outputs that finds red cells of 8, 16 and 32 pixels, BGR."""
    nodes, outputs, weights = [], [], {}
    for cell in (8, 16, 32):
        kernel = np.zeros((1, 3, cell, cell), np.float32)
        kernel[0, 2] = 1 / cell**2
        kernel[0, :2] = -0.5 / cell**2
        weights[f"kernel{cell}"] = kernel
        weights[f"one{cell}"] = np.array([1, -1, 1], np.int64)
        nodes += [
            helper.make_node(
                "Conv", ["input", f"kernel{cell}"], [f"map{cell}"],
                kernel_shape=[cell, cell], strides=[cell, cell],
            ),
            helper.make_node("Reshape", [f"map{cell}", f"one{cell}"], [f"red{cell}"]),
            helper.make_node("Mul", [f"red{cell}", "gain"], [f"gained{cell}"]),
            helper.make_node("Clip", [f"gained{cell}", "zero", "unit"], [f"cls_{cell}"]),
            helper.make_node("Clip", [f"gained{cell}", "zero", "unit"], [f"obj_{cell}"]),
        ]  # fmt: skip
        for name, width in (("bbox", 4), ("kps", 10)):
            nodes += [
                helper.make_node("Mul", [f"red{cell}", f"none{width}"], [f"{name}0_{cell}"]),
                helper.make_node("Add", [f"{name}0_{cell}", f"add{width}"], [f"{name}_{cell}"]),
            ]
    for name, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for cell in (8, 16, 32):
            shape = [1, (64 // cell) ** 2, width]
            outputs.append(
                helper.make_tensor_value_info(f"{name}_{cell}", TensorProto.FLOAT, shape)
            )
    weights |= {
        "gain": np.array([1 / 200], np.float32),
        "zero": np.array(0, np.float32),
        "unit": np.array(1, np.float32),
        "none4": np.zeros((1, 1, 4), np.float32),
        "none10": np.zeros((1, 1, 10), np.float32),
        "add4": np.array([[[0.5, 0.5, 0, 0]]], np.float32),
        "add10": np.zeros((1, 1, 10), np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "yunet",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 64, 64])],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path
    )


@pytest.mark.parametrize(("size", "enlarge"), [(640, False), (64, False), (256, True)])
def test_yunet_boxes_in_our_convention(tmp_path: Path, size: int, enlarge: bool) -> None:
    write_yunet(tmp_path / "yunet.onnx")
    system = yunet_system(tmp_path / "yunet.onnx", longest_side=size, enlarge=enlarge)
    image = np.zeros((128, 128, 3), np.uint8)
    image[32:64, 64:96, 0] = 255
    found = system.detect(image)
    good = found.confidence > system.score_threshold
    # 32 pixels: one cell of 32, or one of 16 at half the size, or four of 32 at twice the size.
    x, y, side = (64, 32, 32) if size != 256 else (64, 32, 16)
    expected = np.array([x, y, x + side, y + side]) - 0.5
    middle = (expected[:2] + expected[2:]) / 2 + (0, 0.13 * side)
    half = 0.975 * side / 2
    wanted = np.concatenate([middle - half, middle + half])
    assert np.abs(found.xyxy[good] - wanted).max(axis=1).min() < 0.01


def test_yunet_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected YuNet's ONNX file, found none"):
        yunet_system(tmp_path / "no.onnx")
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(ValueError, match=r"text\.onnx: expected YuNet's ONNX file"):
        yunet_system(tmp_path / "text.onnx")


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """Two images with a red square each, which the toy pack finds; boxes.csv of both, the first of
    them a face."""
    folder = tmp_path / "red"
    folder.mkdir()
    lines = [CSV]
    for i, left in enumerate((64, 96)):
        image = np.zeros((128, 160, 3), np.uint8)
        image[32:64, left : left + 32, 0] = 255
        (folder / f"{i}.png").write_bytes(png(image))
        lines.append(f"{i}.png," + ",".join(map(str, box(64, 32))) + "\n")
    (tmp_path / "boxes.csv").write_text("".join(lines))
    return folder


def test_the_command(
    red: Path, tmp_path: Path, toy_pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate-detector", "--images", str(red), "--boxes", str(tmp_path / "boxes.csv")]
    arguments += ["--pack", str(toy_pack), "--threads", "2"]
    options = ["--negatives", str(red), "--damages", "dark-0.1,grey", "--detections"]
    written, misses = tmp_path / "out.json", tmp_path / "misses"
    options += ["--json", str(written), "--save-misses", str(misses)]
    assert main([*arguments, *options]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[0].startswith(
        f"faces found by middle, scores above: {toy_pack.name} detector 0.6"
    )
    assert "negatives >=0.95" in output[2]
    document = json.loads(written.read_text())
    assert len(document["results"]) == 3 * 2
    detector, analyzer = document["results"][:2]
    assert detector["system"] == f"{toy_pack.name} detector"
    assert detector["recall"] == analyzer["recall"] == 0.5
    assert detector["false_alarms_per_1000"]["elsewhere"]["all"] == 500
    assert detector["false_alarms_per_1000"]["negatives"]["all"] == 1000
    assert all(row["recall"] == 0 for row in document["results"][2:])  # neither dark nor grey
    assert len(document["images"]) == 3 * 2 * 4
    assert (misses / detector["system"] / UNDAMAGED / "1.png.jpg").is_file()
    assert (misses / detector["system"] / "grey" / "0.png.jpg").is_file()

    assert main([*arguments, "--format", "markdown", "--stage", "detector", "--limit", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 4
    assert table[3].startswith(f"| undamaged: {toy_pack.name} detector |")
    assert len({line.count("|") for line in table}) == 1


def test_images_that_cannot_be_read(
    red: Path, tmp_path: Path, toy_pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (red / "1.png").write_bytes(b"no image")
    arguments = ["evaluate-detector", "--pack", str(toy_pack), "--stage", "detector"]
    annotated = ["--images", str(red), "--boxes", str(tmp_path / "boxes.csv")]
    assert main([*arguments, *annotated]) == 1
    output = capsys.readouterr()
    assert "cannot read" in output.err
    assert "1.000" in output.out
    (red / "0.png").write_bytes(b"no image")
    assert main([*arguments, *annotated]) == 1
    assert "none of the images could be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ([], 2, "nothing to measure with"),
        (["--images", "."], 2, "--images and --boxes: expected both or none"),
        (["--negatives", "RED", "--detections"], 2, "--detections: expected a file"),
        (["--negatives", "no"], 1, "no: expected a folder with images"),
        (["--negatives", "RED", "--damages", "rain"], 2, "unknown damage 'rain'"),
        (["--negatives", "RED", "--threads", "0"], 2, "threads"),
        (["--negatives", "RED", "--score-threshold", "2"], 2, "score_threshold"),
        (["--negatives", "RED", "--pack", "no"], 1, "no"),
        (["--negatives", "RED", "--yunet", "no.onnx"], 2, "no.onnx: expected YuNet's"),
        (["--negatives", "RED", "--json", "no/a.json"], 1, "cannot write"),
    ],
)
def test_usage_that_is_not_right(
    red: Path,
    toy_pack: Path,
    options: list[str],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [str(red) if option == "RED" else option for option in options]
    packs = [] if "--pack" in options else ["--pack", str(toy_pack)]
    assert main(["evaluate-detector", *packs, *arguments]) == status
    assert message in capsys.readouterr().err
