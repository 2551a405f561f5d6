"""Files of Live Link Face and OpenFace, read back by their readers' rules."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from head import head_face, head_params, load_head
from threedfa import ExportError, Face, MorphableModel, PackError
from threedfa.animation import (
    OPENFACE_FIELD_OF_VIEW,
    Frame,
    timecode,
    write_livelink,
    write_openface,
)

Array = npt.NDArray[Any]

SIZE = (140, 160)
NAMES = ("jawOpen", "mouthSmileLeft", "browInnerUp")
# As the app writes it.
LIVELINK_HEADER = (
    "Timecode,BlendShapeCount,EyeBlinkLeft,EyeLookDownLeft,EyeLookInLeft,EyeLookOutLeft,"
    "EyeLookUpLeft,EyeSquintLeft,EyeWideLeft,EyeBlinkRight,EyeLookDownRight,EyeLookInRight,"
    "EyeLookOutRight,EyeLookUpRight,EyeSquintRight,EyeWideRight,JawForward,JawRight,JawLeft,"
    "JawOpen,MouthClose,MouthFunnel,MouthPucker,MouthRight,MouthLeft,MouthSmileLeft,"
    "MouthSmileRight,MouthFrownLeft,MouthFrownRight,MouthDimpleLeft,MouthDimpleRight,"
    "MouthStretchLeft,MouthStretchRight,MouthRollLower,MouthRollUpper,MouthShrugLower,"
    "MouthShrugUpper,MouthPressLeft,MouthPressRight,MouthLowerDownLeft,MouthLowerDownRight,"
    "MouthUpperUpLeft,MouthUpperUpRight,BrowDownLeft,BrowDownRight,BrowInnerUp,BrowOuterUpLeft,"
    "BrowOuterUpRight,CheekPuff,CheekSquintLeft,CheekSquintRight,NoseSneerLeft,NoseSneerRight,"
    "TongueOut,HeadYaw,HeadPitch,HeadRoll,LeftEyeYaw,LeftEyePitch,LeftEyeRoll,RightEyeYaw,"
    "RightEyePitch,RightEyeRoll"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MorphableModel:
    model = load_head(tmp_path_factory.mktemp("animation") / "m.safetensors")
    model.expression_names = NAMES
    model.centimetres_per_unit = 11.5
    return model


@pytest.fixture(scope="module")
def frames(model: MorphableModel) -> list[Frame]:
    """One face, none, two faces."""

    def face(yaw: float, jaw: float) -> Face:
        return head_face(model, head_params(yaw, 8, -4, [0, 0, 0, 0, jaw, 0.5, 2]))

    faces: list[list[Face]] = [[face(20, 0.25)], [], [face(-35, 1), face(0, 0)]]
    return [(f"{number}.png", SIZE, found) for number, found in enumerate(faces)]


def read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        rows = list(reader)
    assert reader.fieldnames is not None
    assert all(None not in row and None not in row.values() for row in rows)
    return list(reader.fieldnames), rows


def unreal_seconds(code: str) -> float:
    """What the Unreal Engine's importer makes of a time code."""
    hours, minutes, seconds, frames = code.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(frames) / 60


# --- Live Link Face ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (0, "00:00:00:00.000"),
        (1 / 60, "00:00:00:01.000"),
        (1.5 / 60, "00:00:00:01.500"),
        (59 / 60 + 0.9996 / 60, "00:00:01:00.000"),
        (3661.5, "01:01:01:30.000"),
        (99 * 3600 + 59 * 60 + 59, "99:59:59:00.000"),
    ],
)
def test_time_codes(seconds: float, code: str) -> None:
    assert timecode(seconds) == code


@given(st.floats(0, 359_998))
def test_time_codes_read_back(seconds: float) -> None:
    code = timecode(seconds)
    assert len(code) == 15
    assert int(code[3:5]) < 60 and int(code[6:8]) < 60 and int(code[9:11]) < 60
    assert unreal_seconds(code) == pytest.approx(seconds, abs=0.51 / 60_000)


@pytest.mark.parametrize("seconds", [-1, 360_000, math.nan, math.inf])
def test_times_without_a_code(seconds: float) -> None:
    with pytest.raises(ValueError, match="100 hours"):
        timecode(seconds)


def test_livelink(frames: list[Frame], tmp_path: Path) -> None:
    path = tmp_path / "take.csv"
    write_livelink(path, frames, frame_rate=24)
    assert path.read_text().splitlines()[0] == LIVELINK_HEADER
    header, rows = read(path)
    assert len(header) == 2 + 61 and len(rows) == 2  # one picture shows nobody
    for row, number, jaw in zip(rows, (0, 2), (0.25, 1), strict=True):
        assert row["BlendShapeCount"] == "61"
        assert unreal_seconds(row["Timecode"]) == pytest.approx(number / 24, abs=1e-5)
        face = frames[number][2][0]  # they all have the same box
        values = {name: float(row[name]) for name in header[2:]}
        shown = {name: value for name, value in values.items() if value != 0}
        angles = {f"Head{a.title()}": getattr(face.pose, a) for a in ("yaw", "pitch", "roll")}
        expected = {"JawOpen": jaw, "MouthSmileLeft": 0.5, "BrowInnerUp": 1}
        expected |= {name: math.radians(angle) for name, angle in angles.items()}
        assert shown == pytest.approx(expected, abs=1e-7)


def test_livelink_follows_one_person(model: MorphableModel, tmp_path: Path) -> None:
    """In whatever order the detector gives the faces, and however large others are."""

    def face(jaw: float, x: float, side: float) -> Face:
        params = head_params(coefficients=[0, 0, 0, 0, jaw, 0, 0])
        return head_face(model, params, (x, 20, x + side, 20 + side))

    def other(x: float, side: float) -> Face:
        return face(0.9, x, side)

    people: list[list[Face]] = [
        [other(100, 30), face(0.1, 10, 50)],  # the largest
        [other(100, 60), face(0.2, 14, 50)],  # no more
        [other(10, 12), face(0.3, 20, 40)],  # both overlap
        [],
        [other(100, 60), face(0.4, 22, 45)],  # and here again
        [other(100, 20), face(0.5, 200, 25)],  # a cut
        [other(100, 60), face(0.6, 205, 20)],
    ]
    write_livelink(tmp_path / "take.csv", [("a.png", SIZE, faces) for faces in people])
    _, rows = read(tmp_path / "take.csv")
    jaws = [float(row["JawOpen"]) for row in rows]
    assert jaws == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


def test_livelink_needs_names(model: MorphableModel, tmp_path: Path) -> None:
    nameless = load_head(tmp_path / "m.safetensors")
    frame = ("a.png", SIZE, [head_face(nameless, head_params())])
    with pytest.raises(PackError, match="expression_names"):
        write_livelink(tmp_path / "take.csv", [frame])
    assert not (tmp_path / "take.csv").exists()


# --- OpenFace ------------------------------------------------------------------------------------


def test_openface_columns(frames: list[Frame], tmp_path: Path) -> None:
    path = tmp_path / "faces.csv"
    write_openface(path, frames, frame_rate=25)
    expected = ["frame", "face_id", "timestamp", "confidence", "success"]
    expected += ["pose_Tx", "pose_Ty", "pose_Tz", "pose_Rx", "pose_Ry", "pose_Rz"]
    for axis in ("x", "y", "X", "Y", "Z"):
        expected += [f"{axis}_{number}" for number in range(68)]
    header, rows = read(path)
    assert header == expected
    who = [(row["frame"], row["face_id"], row["timestamp"], row["success"]) for row in rows]
    assert who == [("1", "0", "0.000", "1"), ("3", "0", "0.080", "1"), ("3", "1", "0.080", "1")]
    assert float(rows[0]["confidence"]) == pytest.approx(0.9)


def test_openface_landmarks_and_pose_agree(frames: list[Frame], tmp_path: Path) -> None:
    """The points in space are seen where the points in the picture are, and turning the neutral
    points as pose_R and pose_T say gives them."""
    write_openface(tmp_path / "faces.csv", frames, field_of_view=5)
    _, rows = read(tmp_path / "faces.csv")
    faces = [face for _, _, found in frames for face in found]
    focal = SIZE[1] / 2 / math.tan(math.radians(5) / 2)
    for row, face in zip(rows, faces, strict=True):

        def columns(axes: str, row: dict[str, str] = row) -> Array:
            return np.array([[float(row[f"{a}_{i}"]) for a in axes] for i in range(68)])

        seen, space = columns("xy"), columns("XYZ")
        np.testing.assert_allclose(seen, face.landmarks[:, :2], atol=1e-5)
        middle = (np.array(SIZE)[::-1] - 1) / 2
        projected = space[:, :2] / space[:, 2:] * focal + middle
        pose = face.metric_pose(field_of_view=5, image_size=SIZE)
        assert np.abs(projected - seen).max() < 6 * pose.reprojection_error + 1e-3

        turn = np.eye(3)
        for axis, name in enumerate("xyz"):
            angle = float(row[f"pose_R{name}"])
            c, s = math.cos(angle), math.sin(angle)
            i, j = [(1, 2), (2, 0), (0, 1)][axis]
            single = np.eye(3)
            single[[i, i, j, j], [i, j, i, j]] = (c, -s, s, c)
            turn = turn @ single
        shift = [float(row[f"pose_T{name}"]) for name in "xyz"]
        head = face.model.reconstruct(face.shape_coeffs, face.expression_coeffs) * 115
        neutral = face.model.landmark_sets["ibug68"].of(head) * (1, -1, -1)  # millimetres
        np.testing.assert_allclose(space, neutral @ turn.T + shift, atol=2e-2)


def test_openface_angles_have_openfaces_signs(model: MorphableModel, tmp_path: Path) -> None:
    # With y down and z away, Rx > 0 points the nose down, Ry > 0 to the image's left.
    for name, expected in (("yaw", (0, -0.3, 0)), ("pitch", (-0.3, 0, 0)), ("roll", (0, 0, 0.3))):
        face = head_face(model, head_params(**{name: math.degrees(0.3)}), (40, 30, 120, 110))
        write_openface(tmp_path / "f.csv", [("a", SIZE, [face])], field_of_view=0.5)
        _, (row,) = read(tmp_path / "f.csv")
        angles = [float(row[f"pose_R{axis}"]) for axis in "xyz"]
        np.testing.assert_allclose(angles, expected, atol=0.02)


def test_openface_camera_of_640_pixels() -> None:
    assert 640 / 2 / math.tan(math.radians(OPENFACE_FIELD_OF_VIEW) / 2) == pytest.approx(500)


def test_openface_needs_a_unit(tmp_path: Path) -> None:
    frame = ("a.png", SIZE, [head_face(load_head(tmp_path / "m.safetensors"), head_params())])
    with pytest.raises(PackError, match="unit"):
        write_openface(tmp_path / "faces.csv", [frame])
    assert not (tmp_path / "faces.csv").exists()


# --- Both ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_livelink, write_openface])
def test_bad_arguments_and_folders(write: Any, frames: list[Frame], tmp_path: Path) -> None:
    for rate in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="frame_rate: expected a positive number"):
            write(tmp_path / "f.csv", frames, frame_rate=rate)
    with pytest.raises(ExportError, match="cannot write"):
        write(tmp_path / "nowhere" / "f.csv", frames)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [write_livelink, write_openface])
def test_no_faces_give_the_header_alone(write: Any, tmp_path: Path) -> None:
    write(tmp_path / "f.csv", [("a.png", SIZE, [])])
    header, rows = read(tmp_path / "f.csv")
    assert len(header) > 60 and rows == []
