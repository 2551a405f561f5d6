"""JSON, CSV and NPZ files of results."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from head import head_face, head_params, load_head
from threedfa import FaceAligner, FaceAnalyzer
from threedfa.tables import (
    FaceFields,
    Result,
    faces_from_dict,
    faces_to_dict,
    write_csv,
    write_json,
    write_npz,
)

SCHEMA = json.loads(
    resources.files("threedfa").joinpath("schemas/result.schema.json").read_text("utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
RESULT_VALIDATOR = jsonschema.Draft202012Validator(
    {"$ref": "#/$defs/result", "$defs": SCHEMA["$defs"]}
)


@dataclass(frozen=True)
class FakePose:
    yaw: float
    pitch: float
    roll: float
    rotation: NDArray[np.float32]
    translation: NDArray[np.float32]
    scale: float


@dataclass(frozen=True)
class FakeFace:
    bbox: NDArray[np.float32]
    score: float
    roi: NDArray[np.float64]
    params: NDArray[np.float32]
    pose: FakePose
    landmarks: NDArray[np.float32]
    vertices: NDArray[np.float32]
    triangles: NDArray[np.int32]
    shape_coeffs: NDArray[np.float32]
    expression_coeffs: NDArray[np.float32]
    confidence: float | None = None


def make_face(seed: int, vertices: int = 9) -> FakeFace:
    rng = np.random.default_rng(seed)

    def values(*shape: int) -> NDArray[np.float32]:
        return (rng.standard_normal(shape) * 10.0 ** rng.integers(-8, 6)).astype(np.float32)

    params = values(62)
    rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0].astype(np.float32)
    return FakeFace(
        bbox=values(4),
        score=float(np.float32(rng.random())),
        roi=rng.standard_normal(4) * 1000,
        params=params,
        pose=FakePose(
            yaw=float(np.float32(rng.uniform(-90, 90))),
            pitch=float(np.float32(rng.uniform(-180, 180))),
            roll=float(np.float32(rng.uniform(-180, 180))),
            rotation=rotation,
            translation=values(3),
            scale=float(np.float32(rng.random() * 1e-3)),
        ),
        landmarks=values(68, 3),
        vertices=values(vertices, 3),
        triangles=rng.integers(0, vertices, (7, 3), dtype=np.int32),
        shape_coeffs=params[12:52],
        expression_coeffs=params[52:],
    )


def make_results(count: int = 2) -> list[Result]:
    return [
        ("a.jpg", (480, 640), [make_face(seed) for seed in range(count)]),
        (Path("folder") / "none.png", (1, 1), []),
        ("b.jpg", (7, 5), [make_face(99)]),
    ]


def assert_dict_is_face(data: dict[str, Any], face: FakeFace) -> None:
    """Every field is there and is the same number once it is float32 (roi: float64) again."""
    pose = data["pose"]
    assert np.float32(data["score"]) == face.score
    np.testing.assert_array_equal(data["roi"], face.roi)
    for name in ("bbox", "params", "landmarks", "shape_coeffs", "expression_coeffs"):
        np.testing.assert_array_equal(np.float32(data[name]), getattr(face, name))
    for name in ("yaw", "pitch", "roll", "rotation", "translation", "scale"):
        np.testing.assert_array_equal(np.float32(pose[name]), getattr(face.pose, name))


def strict_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


# JSON


def test_confidence_is_there_where_the_regressor_says() -> None:
    for confidence in (None, 0.0, 0.75):
        entry = faces_to_dict((4, 5), [replace(make_face(0), confidence=confidence)])
        assert entry["faces"][0].get("confidence") == confidence
        RESULT_VALIDATOR.validate(entry)


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@settings(max_examples=20)  # validating takes long
@given(st.lists(st.integers(0, 10_000), max_size=3), st.none() | st.text())
def test_dictionary_of_one_image(seeds: list[int], name: str | None) -> None:
    faces = [make_face(seed) for seed in seeds]
    result = faces_to_dict((480, 640), faces, name=name)
    RESULT_VALIDATOR.validate(result)
    assert result["image"] == {"name": name, "height": 480, "width": 640}
    assert len(result["faces"]) == len(faces)
    for data, face in zip(result["faces"], faces, strict=True):
        assert_dict_is_face(data, face)
    assert strict_json(json.dumps(result)) == result


def test_json_file(tmp_path: Path) -> None:
    results = make_results()
    write_json(tmp_path / "r.json", results)
    text = (tmp_path / "r.json").read_text("utf-8")
    data = strict_json(text)
    VALIDATOR.validate(data)
    assert data == [faces_to_dict(size, faces, name=name) for name, size, faces in results]
    assert [entry["image"]["name"] for entry in data] == [
        "a.jpg",
        os.path.join("folder", "none.png"),  # noqa: PTH118
        "b.jpg",
    ]
    assert len(text.splitlines()) == len(results) + 2  # one image a line


def test_json_file_without_images(tmp_path: Path) -> None:
    write_json(tmp_path / "r.json", [])
    assert strict_json((tmp_path / "r.json").read_text()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.pop("schema_version"),
        lambda entry: entry.update(schema_version=2),
        lambda entry: entry.update(extra=1),
        lambda entry: entry["image"].update(height=0),
        lambda entry: entry["faces"][0]["landmarks"].pop(),
        lambda entry: entry["faces"][0]["landmarks"][3].append(1.0),
        lambda entry: entry["faces"][0].update(score=1.5),
        lambda entry: entry["faces"][0].update(score="0.5"),
        lambda entry: entry["faces"][0]["pose"].pop("rotation"),
        lambda entry: entry["faces"][0]["pose"].update(yaw=91),
        lambda entry: entry["faces"][0]["bbox"].pop(),
    ],
)
def test_the_schema_refuses_other_documents(change: Callable[[dict[str, Any]], None]) -> None:
    entry = faces_to_dict((4, 4), [make_face(0)])
    VALIDATOR.validate([entry])
    change(entry)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate([entry])


def test_numbers_have_the_digits_of_float32() -> None:
    face = replace(make_face(0), score=float(np.float32(0.1)), bbox=np.float32([0.1, 0.3, 1e-7, 5]))
    data = faces_to_dict((4, 4), [face])["faces"][0]
    assert json.dumps([data["score"], data["bbox"]]) == "[0.1, [0.1, 0.3, 1e-07, 5.0]]"


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=80))
def test_numbers_are_the_shortest_that_give_them_back(numbers: list[float]) -> None:
    params = np.array(numbers, np.float32)
    written = faces_to_dict((4, 4), [replace(make_face(0), params=params)])["faces"][0]["params"]
    assert written == [float(str(number)) for number in params]
    np.testing.assert_array_equal(np.float32(written), params)


def test_names_of_any_kind(tmp_path: Path) -> None:
    names = ["größe ☃.jpg", 'a"b,c\n;.png', "=1+2.png", os.fsdecode(b"\xff.png"), "\u2028"]
    results: list[Result] = [(name, (1, 1), [make_face(0)]) for name in names]
    write_json(tmp_path / "r.json", results)
    write_csv(tmp_path / "r.csv", results)
    data = strict_json((tmp_path / "r.json").read_bytes().decode("utf-8"))
    assert [entry["image"]["name"] for entry in data] == names
    rows = list(csv.reader(io.StringIO((tmp_path / "r.csv").read_bytes().decode("utf-8"))))
    escaped = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    assert [row[0] for row in rows[1:]] == escaped
    assert '"größe ☃.jpg"' in (tmp_path / "r.json").read_text("utf-8")


# CSV


def test_csv_file(tmp_path: Path) -> None:
    results = make_results()
    write_csv(tmp_path / "r.csv", results)
    text = (tmp_path / "r.csv").read_text("utf-8")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert list(rows[0])[:14] == [
        *("image", "face", "score", "left", "top", "right", "bottom"),
        *("yaw", "pitch", "roll", "scale", "x0", "y0", "z0"),
    ]
    assert len(rows[0]) == 11 + 68 * 3
    expected = [
        (name, index, face) for name, _, faces in results for index, face in enumerate(faces)
    ]
    assert len(rows) == len(expected) == 3
    for row, (name, index, face) in zip(rows, expected, strict=True):
        assert (row["image"], row["face"]) == (name, str(index))
        assert np.float32(row["score"]) == face.score
        box = [row[side] for side in ("left", "top", "right", "bottom")]
        np.testing.assert_array_equal(np.float32(box), face.bbox)
        for part in ("yaw", "pitch", "roll", "scale"):
            assert np.float32(row[part]) == getattr(face.pose, part)
        points = [[row[f"{axis}{point}"] for axis in "xyz"] for point in range(68)]
        np.testing.assert_array_equal(np.float32(points), face.landmarks)
    for line in text.splitlines()[1:]:
        assert line.startswith('"')  # a name is always quoted


@pytest.mark.parametrize("landmark_set", ["ibug68", "five"])
def test_faces_given_by_an_iterator(tmp_path: Path, landmark_set: str) -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    faces = FaceAligner().align(image, np.float32([[10, 10, 90, 90], [20, 40, 190, 190]]))
    written = []
    for results in ([("a", (200, 200), faces)], iter([("a", (200, 200), iter(faces))])):
        write_csv(tmp_path / "a.csv", results, landmark_set=landmark_set)  # type: ignore[arg-type]
        written.append((tmp_path / "a.csv").read_text())
    assert written[0] == written[1]
    assert len(written[0].splitlines()) == 3
    write_npz(tmp_path / "a.npz", iter(faces), landmark_sets=["five"])  # type: ignore[arg-type]
    assert np.load(tmp_path / "a.npz")["five"].shape == (2, 5, 3)


def test_csv_file_without_faces(tmp_path: Path) -> None:
    write_csv(tmp_path / "r.csv", [("a.jpg", (4, 4), [])])
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 1


# NPZ

NPZ_ARRAYS = [
    *("bbox", "score", "roi", "params", "landmarks", "vertices", "triangles"),
    *("yaw", "pitch", "roll", "rotation", "translation", "scale"),
    *("shape_coeffs", "expression_coeffs"),
]


@pytest.mark.parametrize("count", [1, 3])
def test_npz_file(tmp_path: Path, count: int) -> None:
    faces = [replace(make_face(seed), triangles=make_face(0).triangles) for seed in range(count)]
    write_npz(tmp_path / "r.npz", faces)
    with np.load(tmp_path / "r.npz", allow_pickle=False) as data:
        for name in data.files:
            if name == "triangles":
                np.testing.assert_array_equal(data[name], faces[0].triangles)
                assert data[name].dtype == np.int32
                continue
            values = [getattr(face if hasattr(face, name) else face.pose, name) for face in faces]
            np.testing.assert_array_equal(data[name], np.stack(values))
            assert data[name].dtype == (np.float64 if name == "roi" else np.float32)
        assert sorted(data.files) == sorted(NPZ_ARRAYS)


def test_npz_file_without_faces(tmp_path: Path) -> None:
    write_npz(tmp_path / "r.npz", [])
    with np.load(tmp_path / "r.npz", allow_pickle=False) as data:
        shapes = {name: data[name].shape for name in data.files}
        assert data["roi"].dtype == np.float64
    assert shapes["landmarks"] == (0, 68, 3)
    assert shapes["vertices"] == (0, 0, 3)
    assert shapes["triangles"] == (0, 3)
    assert shapes["rotation"] == (0, 3, 3)
    assert shapes["bbox"] == shapes["roi"] == (0, 4)
    assert shapes["score"] == shapes["yaw"] == (0,)


def test_faces_of_two_models_in_one_npz_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"faces of one model, got vertices of shapes.*9.*12"):
        write_npz(tmp_path / "r.npz", [make_face(0), make_face(1, vertices=12)])
    assert not any(tmp_path.iterdir())


# Values that must not be written

NAN_POINTS = np.full((68, 3), np.nan, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": math.nan}, "score to be finite, got nan"),
        ({"bbox": np.float32([0, 0, np.inf, 1])}, "bbox to be finite"),
        ({"landmarks": NAN_POINTS}, "landmarks to be finite"),
        ({"landmarks": np.zeros((67, 3), np.float32)}, r"landmarks of shape .*got \(67, 3\)"),
        ({"bbox": np.zeros(3, np.float32)}, r"bbox of shape \(4,\), got \(3,\)"),
    ],
)
@pytest.mark.parametrize("suffix", ["json", "csv", "npz"])
def test_wrong_values_write_nothing(
    tmp_path: Path, suffix: str, change: dict[str, Any], message: str
) -> None:
    good: FaceFields = make_face(0)
    faces: list[FaceFields] = [good, replace(make_face(1), **change)]
    path = tmp_path / f"r.{suffix}"
    with pytest.raises(ValueError, match=message):
        if suffix == "npz":
            write_npz(path, faces)
        else:
            (write_json if suffix == "json" else write_csv)(path, [("a", (4, 4), faces)])
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        ((4,), ValueError, r"image_size: expected \(height, width\), got \(4,\)"),
        ((4, 5, 3), ValueError, r"got \(4, 5, 3\)"),
        ((-4, 5), ValueError, r"a positive \(height, width\), got \(-4, 5\)"),
        ((4, 0), ValueError, "a positive"),
        ((4, 5.5), TypeError, r"a whole number, got 5\.5"),
        (("4", "5"), TypeError, "a whole number, got '4'"),
    ],
)
def test_sizes_of_no_image(size: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        faces_to_dict(size, [])


def test_one_face_where_a_list_is_expected(tmp_path: Path) -> None:
    face = head_face(load_head(tmp_path / "m.safetensors"), head_params())
    with pytest.raises(TypeError, match="got one Face; put it into a list"):
        faces_to_dict((4, 5), face)  # type: ignore[arg-type]


def test_sizes_of_numpy_are_written_as_others() -> None:
    entry = faces_to_dict(tuple(np.array([4, 5])), [])
    assert json.dumps(entry["image"]) == '{"name": null, "height": 4, "width": 5}'


def test_faces_are_left_as_they_were(tmp_path: Path) -> None:
    faces = [make_face(5)]
    write_json(tmp_path / "r.json", [("a", (4, 4), faces)])
    write_csv(tmp_path / "r.csv", [("a", (4, 4), faces)])
    write_npz(tmp_path / "r.npz", faces)
    fresh = make_face(5)
    for name in ("bbox", "roi", "params", "landmarks", "vertices", "triangles"):
        np.testing.assert_array_equal(getattr(faces[0], name), getattr(fresh, name))


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"faces": None}, {"faces": 5}, {"faces": [3]}, {"faces": [None]}, {"schema_version": True},
        {"bbox": [1, 2, 3, None]}, {"bbox": [1, 2, 3, 1e300]}, {"confidence": None},
        {"params": "text"}, {"params": {}},
    ],
)  # fmt: skip
def test_entries_that_are_none_are_refused(toy_pack: Path, change: dict[str, Any]) -> None:
    analyzer = FaceAnalyzer(toy_pack)
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, 32:64] = 255
    entry = faces_to_dict(image.shape[:2], analyzer.analyze(image))
    assert len(faces_from_dict(entry, analyzer.model)) == 1
    del entry["image"]
    target = entry if change.keys() <= entry.keys() else entry["faces"][0]
    target.update(change)
    with pytest.raises(ValueError, match="expected"):
        faces_from_dict(entry, analyzer.model)
    del entry["faces"]
    with pytest.raises(ValueError, match="faces: expected a list"):
        faces_from_dict({"schema_version": 1}, analyzer.model)


def test_faces_come_back_as_they_were(toy_pack: Path) -> None:
    analyzer = FaceAnalyzer(toy_pack)
    image = np.full((120, 160, 3), 20, np.uint8)
    image[:32, 64:96] = image[64:96, :32] = 250
    faces = analyzer.analyze(image)
    assert len(faces) == 2
    entry = json.loads(json.dumps(faces_to_dict((120, 160), faces, vertices=True)))
    RESULT_VALIDATOR.validate(entry)
    for found, face in zip(faces_from_dict(entry, analyzer.model), faces, strict=True):
        assert found.score == face.score and found.confidence == face.confidence
        for name in ("bbox", "roi", "params", "landmarks", "vertices"):
            expected = getattr(face, name)
            np.testing.assert_array_equal(getattr(found, name), expected)
            assert getattr(found, name).dtype == expected.dtype
    written = entry["faces"][0]["vertices"]
    np.testing.assert_array_equal(np.float32(written), faces[0].vertices)

    fields = entry["faces"][0]
    for wrong, said in (
        ({**entry, "schema_version": 2}, "schema_version: expected 1, got 2"),
        ({**entry, "faces": [{**fields, "params": [1, 2]}]}, r"params: expected shape \(19,\)"),
        ({**entry, "faces": [{"bbox": [1, 2, 3, 4]}]}, "expected a face with score, got bbox"),
    ):
        with pytest.raises(ValueError, match=said):
            faces_from_dict(wrong, analyzer.model)
