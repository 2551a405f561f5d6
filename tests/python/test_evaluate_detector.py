"""What ``evaluate_detector.py`` says of packs whose boxes are known beforehand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pictures import Picture, picture
from threedfa import FaceAnalyzer
from toy_pack import build_toy_pack, regressor_network
from training_steps import step, tool

Array = npt.NDArray[Any]

FACE, OTHER = (64, 32), (128, 96)  # left and top of bright squares, of which the first is annotated
SIDE = 32
REFUSED = 0.46  # the toy's confidence in a crop around a square is higher, in one beside it lower


def red(*cells: tuple[int, int]) -> Picture:
    """RGB. The toy pack finds red things; were it shown BGR, nothing."""
    image = picture(*cells)
    image[..., 1:] = 0
    return image


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two, each with one annotated face; in the second there is one more."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, cells in (("a.png", [FACE]), ("b.png", [FACE, OTHER])):
        cv2.imwrite(str(folder / name), red(*cells)[..., ::-1])
    middle = np.array(FACE) + SIDE / 2
    corners = np.array([[-1, -1], [1, 1]]) * SIDE / 2 / tool("detector_data").BOX_PER_RECTANGLE
    points = np.linspace(*corners, 68) + middle
    np.savez(
        folder / "landmarks68.npz",
        names=np.array(["a.png", "b.png"]),
        landmarks=np.stack([points, points]),
    )
    return folder


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One that boxes the squares, one whose boxes are larger and up to the right, one that is wrong
    by a whole side."""
    folder = tmp_path_factory.mktemp("packs")
    variances = (0.1, 0.2)
    boxes = {"exact": (0.0, 0.0, 0.0), "larger": (0.1, -0.1, 0.1), "astray": (1.0, 0.0, 0.0)}
    return {
        name: build_toy_pack(
            folder / name,
            loc=(x / variances[0], y / variances[0], *[log_size / variances[1]] * 2),
            networks={"regressor.onnx": regressor_network(confidence=True)},
            regressor={"confidence_threshold": REFUSED},
        )
        for name, (x, y, log_size) in boxes.items()
    }


def told(photographs: Path, packs: dict[str, Path], *names: str) -> dict[str, str]:
    """What is printed of two packs, by their names."""
    first, second = (packs[name] for name in names)
    printed = step(
        "evaluate_detector.py", "--pack", first, "--against", second, "--repeats", 1,
        "--photographs", photographs, "--material", photographs,
    )  # fmt: skip
    assert "false alarms left out" in printed
    parts = re.split(r"^.*/(\w+): recall on 2 photographs  ", printed, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_faces_found_on_photographs(photographs: Path, packs: dict[str, Path]) -> None:
    said = told(photographs, packs, "exact", "larger")
    assert said["exact"].startswith(
        "IoU >= 0.4: 1.0000  IoU >= 0.5: 1.0000; 0 other boxes; "
        "the regressor refuses 0 faces and leaves 0 others\n  missed 0: \n"
    )
    assert re.search(
        r"x [+-]0\.000 ± 0\.000, y [+-]0\.000 ± .*, log size [+-]0\.000", said["exact"]
    )
    assert said["larger"].startswith(
        "IoU >= 0.4: 1.0000  IoU >= 0.5: 1.0000; 0 other boxes; "
        "the regressor refuses 2 faces and leaves 0 others\n  missed 0: \n"
    )
    assert "x +0.100 ± 0.000, y -0.100 ± 0.000, log size +0.100" in said["larger"]


def test_faces_missed_on_photographs(photographs: Path, packs: dict[str, Path]) -> None:
    """What only one of the packs takes for a face is a false alarm, in the second photograph."""
    said = told(photographs, packs, "exact", "astray")
    assert said["exact"].startswith(
        "IoU >= 0.4: 1.0000  IoU >= 0.5: 1.0000; 1 other boxes; "
        "the regressor refuses 0 faces and leaves 1 others\n"
    )
    assert said["astray"].startswith(
        "IoU >= 0.4: 0.0000  IoU >= 0.5: 0.0000; 3 other boxes; "
        "the regressor refuses 0 faces and leaves 0 others\n"
        "  missed 2: a.png (0.00), b.png (0.00)\n"
    )
    assert "log size" not in said["astray"]


def test_false_alarms_are_counted(
    packs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two on four pictures, which the painter of the training makes as BGR."""
    pictures = [
        np.ascontiguousarray(red(*cells)[..., ::-1]) for cells in ([], [FACE, OTHER], [], [])
    ]
    pair = {name: FaceAnalyzer(packs[name]) for name in ("exact", "larger")}
    tool("evaluate_detector").false_alarms(pictures, pair)
    exact, larger = capsys.readouterr().out.splitlines()
    many = "500 false alarms per 1,000 pictures without a face (4 tried), "
    assert exact.startswith(
        f"exact: {many}500 that the regressor does not refuse; highest scores 0.95"
    )
    assert larger.startswith(
        f"larger: {many}0 that the regressor does not refuse; highest scores 0.95"
    )


def test_overlap_with_a_square() -> None:
    module = tool("evaluate_detector")
    boxes = np.array(
        [[40, 40, 60, 60], [50, 40, 70, 60], [45, 45, 55, 55], [0, 0, 9, 9]], np.float32
    )
    square = np.array([50, 50, 20], np.float32)
    np.testing.assert_allclose(module.overlaps(boxes, square), [1, 1 / 3, 1 / 4, 0], rtol=1e-6)
    assert module.overlaps(boxes[:0], square).shape == (0,)
    np.testing.assert_array_equal(module.as_square(boxes[1]), [60, 50, 20])


def test_an_alarm_is_what_nothing_confirms() -> None:
    alarm = tool("evaluate_detector").alarm
    square = np.array([50, 50, 20], np.float32)
    on, beside, apart = np.array(
        [[40, 40, 60, 60], [48, 40, 68, 60], [90, 40, 110, 60]], np.float32
    )
    none = np.zeros((0, 4), np.float32)
    assert not alarm(on, square, none)
    assert not alarm(beside, square, none)
    assert alarm(apart, square, none)
    assert alarm(apart, square, np.stack([on, beside]))
    assert not alarm(apart, square, np.stack([on, apart + 4]))
