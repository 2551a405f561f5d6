"""Errors of landmarks: numbers that can be worked out beforehand, and files that are not right."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from threedfa import FaceAnalyzer
from threedfa.cli import main
from threedfa.evaluation import (
    GROUPS,
    best_box,
    box_size,
    eye_aperture,
    eye_distance,
    measure,
    mouth_aperture,
    read_marked,
    summary,
    table_text,
    tables,
)
from toy_pack import head_model

Array = npt.NDArray[Any]


def heads(count: int = 5) -> Array:
    """(count, 68, 2) points of different sizes, with eyes and mouths more or less open."""
    model = head_model()
    corners = model["mean"][model["landmark_vertices"]]
    points = (corners * model["landmark_weights"][..., None]).sum(1)[:, :2] * (1, -1)
    rng = np.random.default_rng(count)
    scale = rng.uniform(30, 90, (count, 1, 1))
    return (points * scale + 100 + rng.normal(0, 0.5, (count, 68, 2))).astype(np.float32)


def test_errors_are_percents_of_the_size() -> None:
    truth = heads()
    row = summary(truth + np.array([3, 4], np.float32), truth)
    assert row["all 68"] == pytest.approx(100 * np.mean(5 / eye_distance(truth)), rel=1e-4)
    assert len({round(row[name], 3) for name in GROUPS}) == 1
    assert row["eye corr."] == pytest.approx(1, abs=1e-3)
    assert row["mouth corr."] == pytest.approx(1, abs=1e-3)
    box = summary(truth + np.array([3, 4], np.float32), truth, box_size(truth))
    assert box["nose"] == pytest.approx(100 * np.mean(5 / box_size(truth)), rel=1e-4)


@pytest.mark.parametrize("group", [name for name in GROUPS if name not in ("all 68", "inner 51")])
def test_groups_are_apart(group: str) -> None:
    truth = heads()
    found = truth.copy()
    found[:, GROUPS[group]] += 1
    row = summary(found, truth)
    for name in ("contour", "brows", "nose", "eyes", "mouth"):
        assert (row[name] > 0.5) == (name == group)


def test_apertures() -> None:
    points = np.zeros((1, 68, 2), np.float32)
    points[0, 36:42] = [(0, 0), (1, -1), (3, -1), (4, 0), (3, 1), (1, 1)]  # 4 wide, 2 high
    points[0, 42:48] = points[0, 36:42] * (1, 0.5)
    points[0, [48, 54]] = [(0, 0), (10, 0)]
    points[0, 61:64, 1], points[0, 65:68, 1] = -1, 1.5
    assert eye_aperture(points).tolist() == [[0.5, 0.25]]
    assert mouth_aperture(points).tolist() == [0.25]


def test_the_best_box_holds_the_middle() -> None:
    points = np.array([[10, 10], [30, 30]], np.float32)
    boxes = np.array([[21, 10, 40, 30], [0, 0, 60, 60], [9, 9, 32, 32]], np.float32)
    assert best_box(boxes, points) == 2
    assert best_box(boxes[:1], points) is None
    assert best_box(np.zeros((0, 4), np.float32), points) is None


def test_one_face_has_no_correlation() -> None:
    row = summary(heads(1), heads(1))
    assert np.isnan(row["eye corr."])
    assert row["all 68"] == 0


def test_faces_that_never_move_have_no_correlation() -> None:
    still = np.repeat(heads(1), 3, axis=0)
    still[:, 42:48] = still[:, 36:42]
    for found, truth in ((still, heads(3)), (heads(3), still)):
        row = summary(found, truth)
        assert np.isnan(row["eye corr."])
        assert np.isnan(row["mouth corr."])


# --- pictures and their points --------------------------------------------------------------------


@pytest.fixture
def marked(tmp_path: Path, toy_pack: Path) -> tuple[Path, Path, Array]:
    """Two pictures with a red cell, one without; points where the toy pack finds the first two."""
    analyzer = FaceAnalyzer(toy_pack)
    folder = tmp_path / "pictures"
    folder.mkdir()
    truth = []
    for i in range(3):
        picture = np.zeros((128, 160, 3), np.uint8)
        if i < 2:
            picture[32:64, 64 : 64 + 32] = (255, 40 * i, 0)
        Image.fromarray(picture).save(folder / f"{i}.png")
        faces = analyzer.analyze(picture)
        assert len(faces) == (i < 2)
        truth.append(faces[0].landmarks[:, :2] if faces else truth[-1])
    names = np.array([f"{i}.png" for i in range(3)])
    np.savez(tmp_path / "points.npz", names=names, landmarks=np.array(truth))
    return folder, tmp_path / "points.npz", np.array(truth)


def test_what_is_found_and_what_is_missed(marked: Any, toy_pack: Path) -> None:
    folder, points, truth = marked
    measured = measure(FaceAnalyzer(toy_pack), read_marked(folder, points))
    assert measured.missed == 1
    np.testing.assert_allclose(measured.found, truth[:2], atol=1e-3)
    rows = tables(measured)
    assert rows["outer eyes"]["all 68"] < 1e-3
    assert rows["outer eyes"]["missed"] == 1
    assert sum(row["faces"] for name, row in rows.items() if "yaw" in name) == 2
    lines = table_text(rows).splitlines()
    assert len(lines) == len(rows) + 1
    assert "mouth corr." in lines[0]


def test_pts_files_count_from_one(marked: Any, tmp_path: Path) -> None:
    folder, points, truth = marked
    for i, face in enumerate(truth):
        lines = "\n".join(f"{x} {y}" for x, y in face + 1)
        text = f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n"
        (folder / f"{i}.pts").write_text(text)
    found = read_marked(folder, folder)
    for one, other in zip(found, read_marked(folder, points), strict=True):
        assert one.image == other.image
        np.testing.assert_allclose(one.points, other.points, atol=1e-3)


def test_the_command(marked: Any, toy_pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, points, _ = marked
    arguments = ["evaluate", "--images", str(folder), "--points", str(points)]
    assert main([*arguments, "--pack", str(toy_pack), "--pack", str(toy_pack)]) == 0
    text = capsys.readouterr().out
    assert text.count("3 faces") == 2
    assert text.count("outer eyes") == 2
    assert main(["evaluate", "--images", str(folder), "--points", str(folder / "none")]) == 1
    assert "found none" in capsys.readouterr().err
    assert main([*arguments, "--pack", str(toy_pack), "--threads", "0"]) == 2
    assert "num_threads" in capsys.readouterr().err
    np.save(folder / "one.npy", np.zeros(3))
    whole = points.read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(folder / "scalar.npz", names="a", landmarks=np.zeros((1, 68, 2)))
    for name in ("one.npy", "cut.npz", "scalar.npz"):
        assert main([*arguments[:3], "--points", str(folder / name)]) == 1
        assert f"{name}: " in capsys.readouterr().err


def test_pictures_that_cannot_be_read_are_left_out(
    marked: Any, toy_pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, points, _ = marked
    (folder / "1.png").write_bytes(b"no picture")
    measured = measure(FaceAnalyzer(toy_pack), read_marked(folder, points))
    assert (len(measured.found), measured.missed, len(measured.unread)) == (1, 1, 1)
    arguments = ["evaluate", "--images", str(folder), "--points", str(points)]
    assert main([*arguments, "--pack", str(toy_pack)]) == 1
    output = capsys.readouterr()
    assert ", 2 faces\n" in output.out
    assert f"threedfa: cannot read {folder / '1.png'}: not an image" in output.err


def test_no_face_found_at_all(
    marked: Any, toy_pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, points, _ = marked
    for name in ("0.png", "1.png"):
        shutil.copy(folder / "2.png", folder / name)
    arguments = ["evaluate", "--images", str(folder), "--points", str(points)]
    assert main([*arguments, "--pack", str(toy_pack)]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert f"{toy_pack}: found none of 3 marked faces" in output.err


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".Png", ".tif"])
def test_endings_of_pictures(marked: Any, suffix: str) -> None:
    folder, _, truth = marked
    Image.new("RGB", (8, 8)).save(folder / f"a{suffix}")
    lines = "\n".join(f"{x} {y}" for x, y in truth[0])
    (folder / "a.pts").write_text(f"{{\n{lines}\n}}\n")
    (only,) = read_marked(folder, folder)
    assert only.image == folder / f"a{suffix}"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", b"text", "names and landmarks"),
        ("a.npz", {"names": np.array(["0.png"])}, "landmarks"),
        ("a.npz", {"names": ["0.png"], "landmarks": np.zeros((1, 67, 2))}, r"\(1, 68, 2\)"),
        ("a.npz", {"names": ["no.png"], "landmarks": heads(1)}, "no such picture"),
        ("a.npz", {"names": ["0.png"], "landmarks": heads(1) * np.nan}, "finite"),
        ("a.npz", {"names": ["0.png"], "landmarks": np.zeros((1, 68, 2))}, "one place"),
        ("0.pts", b"68 points", "between braces"),
        ("0.pts", b"{ 1 2 3 }", "between braces"),
        ("0.pts", b"{ 1 2 }", "68 points, got 1"),
        ("0.pts", b"{" + b"1 2\n" * 20000 + b"}", "at most"),
    ],
)
def test_points_that_are_not_right(
    tmp_path: Path, name: str, content: bytes | dict[str, Any], message: str
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.savez(tmp_path / name, **content)
    points = tmp_path if name.endswith(".pts") else tmp_path / name
    with pytest.raises(ValueError, match=message):
        read_marked(tmp_path, points)
