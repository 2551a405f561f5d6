"""Landmark sets and animation files from the command line."""

from __future__ import annotations

import csv
import json
from importlib import resources
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import safetensors.numpy

import threedfa
from test_landmark_sets import five_tensors
from threedfa import FaceAnalyzer, cli, load_image, render, save_image
from toy_pack import build_toy_pack, head_model

NAMES = ["jawOpen", "browInnerUp", "wrinkle"]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy pack with names, a unit and five points."""
    return build_toy_pack(
        tmp_path_factory.mktemp("pack") / "toy",
        networks={"model.safetensors": safetensors.numpy.save({**head_model(), **five_tensors()})},
        model={"expression_names": NAMES, "unit": "centimetre"},
    )


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """A face, none, and two faces."""
    paths = []
    for name, cells in (("a", [(64, 32)]), ("b", []), ("c", [(0, 0), (128, 64)])):
        image = np.full((160, 200, 3), 40, np.uint8)
        for left, top in cells:
            image[top : top + 32, left : left + 32] = 250
        paths.append(tmp_path / f"{name}.png")
        save_image(paths[-1], image)
    return paths


def run(*arguments: object) -> int:
    return cli.main(["image", *(str(argument) for argument in arguments)])


def test_a_landmark_set_in_every_file(pack: Path, pictures: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = ["--json", "--jsonl", "--csv", "--npz", "--render", "landmarks", "--landmarks", "five"]
    assert run(*pictures, "-o", out, "--pack", pack, *flags) == 0
    analyzer = FaceAnalyzer(pack)
    expected = [analyzer.analyze(load_image(path)) for path in pictures]

    results = json.loads((out / "faces.json").read_text())
    lines = [json.loads(line) for line in (out / "faces.jsonl").read_text().splitlines()]
    assert lines == results and len(lines) == 3
    schema = resources.files("threedfa").joinpath("schemas/result.schema.json").read_text("utf-8")
    jsonschema.Draft202012Validator(json.loads(schema)).validate(results)
    for result, faces in zip(results, expected, strict=True):
        for found, face in zip(result["faces"], faces, strict=True):
            five = face.landmarks_in("five")
            np.testing.assert_allclose(found["landmark_sets"]["five"], five, rtol=1e-6)
            assert len(found["landmarks"]) == 68
            assert found["blendshapes"] == pytest.approx(dict(face.blendshapes), abs=1e-6)
            assert list(found["blendshapes"]) == ["jawOpen", "browInnerUp"]

    with (out / "faces.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 and "z4" in rows[0] and "x5" not in rows[0]
    assert float(rows[0]["y4"]) == pytest.approx(expected[0][0].landmarks_in("five")[4, 1])

    arrays = np.load(out / "c.npz", allow_pickle=False)
    np.testing.assert_array_equal(
        arrays["five"], [face.landmarks_in("five") for face in expected[2]]
    )
    image = load_image(pictures[0])
    drawn = render(image, expected[0], "landmarks", landmark_set="five")
    np.testing.assert_array_equal(load_image(out / "a_landmarks.png"), drawn)
    changed = (drawn != image).any(axis=2)
    assert 5 <= changed.sum() < (render(image, expected[0], "landmarks") != image).any(axis=2).sum()
    for x, y, _ in np.rint(expected[0][0].landmarks_in("five")).astype(int):
        assert changed[y, x]


def test_animation_files_alone(pack: Path, pictures: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = ["--livelink", "--openface-csv", "--frame-rate", "10", "--field-of-view", "40"]
    assert run(*pictures, "-o", out, "--pack", pack, *flags) == 0
    assert {path.name for path in out.iterdir()} == {"livelink.csv", "openface.csv"}
    with (out / "livelink.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["Timecode"] for row in rows] == ["00:00:00:00.000", "00:00:00:12.000"]
    assert float(rows[0]["JawOpen"]) > 0 and float(rows[0]["TongueOut"]) == 0
    with (out / "openface.csv").open(newline="") as stream:
        faces = list(csv.DictReader(stream))
    assert [(row["frame"], row["face_id"]) for row in faces] == [("1", "0"), ("3", "0"), ("3", "1")]
    pose = (
        FaceAnalyzer(pack)
        .analyze(load_image(pictures[0]))[0]
        .metric_pose(field_of_view=40, image_size=(160, 200))
    )
    assert float(faces[0]["pose_Tz"]) == pytest.approx(10 * pose.transform()[2, 3], rel=1e-6)


def test_time_goes_on_where_a_picture_fails(
    pack: Path, pictures: list[Path], tmp_path: Path
) -> None:
    pictures[1].write_bytes(b"no picture")
    out = tmp_path / "out"
    flags = ["--livelink", "--openface-csv", "--json", "--frame-rate", "10"]
    assert run(*pictures, "-o", out, "--pack", pack, *flags) == 1
    with (out / "livelink.csv").open(newline="") as stream:
        codes = [row["Timecode"] for row in csv.DictReader(stream)]
    assert codes == ["00:00:00:00.000", "00:00:00:12.000"]
    with (out / "openface.csv").open(newline="") as stream:
        assert [row["frame"] for row in csv.DictReader(stream)] == ["1", "3", "3"]
    assert len(json.loads((out / "faces.json").read_text())) == 2


def test_a_frame_rate_too_low_for_time_codes(
    pack: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for rate in ("1e-9", "1e-320"):
        flags = ["--livelink", "--json", "--frame-rate", rate]
        assert run(*pictures, "-o", tmp_path / "out", "--pack", pack, *flags) == 2
        assert "expected" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        (["--landmarks", "mediapipe468"], 1, "no landmark set 'mediapipe468'"),
        (["--landmarks", "ears"], 2, "expected one of"),
        (["--livelink"], 1, "expression_names"),
        (["--openface-csv"], 1, "morphable_model.unit"),
        (["--livelink", "--frame-rate", "0"], 1, "expression_names"),
        (["--json", "--frame-rate", "0"], 2, "frame_rate"),
    ],
)
def test_what_the_pack_lacks_is_said_at_once(
    toy_pack: Path,
    pictures: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    status: int,
    said: str,
) -> None:
    out = tmp_path / "out"
    assert run(*pictures, "-o", out, "--pack", toy_pack, *flags) == status
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_a_field_of_view_that_cannot_be(
    pack: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*pictures, "--pack", pack, "--openface-csv", "--field-of-view", "180") == 2
    assert "field_of_view" in capsys.readouterr().err


def test_blend_shapes_only_where_the_pack_names_them(
    toy_pack: Path, pictures: list[Path], tmp_path: Path
) -> None:
    assert run(pictures[0], "-o", tmp_path, "--pack", toy_pack, "--json") == 0
    (result,) = json.loads((tmp_path / "faces.json").read_text())
    assert "blendshapes" not in result["faces"][0] and "landmark_sets" not in result["faces"][0]


def test_render_refuses_sets_that_are_not_there(toy_pack: Path, pictures: list[Path]) -> None:
    image = load_image(pictures[0])
    faces = FaceAnalyzer(toy_pack).analyze(image)
    with pytest.raises(threedfa.PackError, match="mediapipe468"):
        render(image, faces, "landmarks", landmark_set="mediapipe468")
    with pytest.raises(ValueError, match="ears"):
        render(image, faces, "landmarks", landmark_set="ears")
