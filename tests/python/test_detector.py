"""The detector, on pictures where it is known what there is to find."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pictures import png
from threedfa import Detections, FaceDetector, Pack
from threedfa.errors import BackendError, ImageError, PackError
from toy_pack import (
    SCORE_THRESHOLD,
    build_toy_pack,
    cell_score,
    detector_network,
    network,
    regressor_network,
)

Picture = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def detector(toy_pack: Path) -> FaceDetector:
    return FaceDetector(toy_pack)


def picture(*squares: tuple[int, int, int, int], size: tuple[int, int] = (192, 256)) -> Picture:
    """Black with red squares: left, top, side, red."""
    image = np.zeros((*size, 3), np.uint8)
    for left, top, side, red in squares:
        image[top : top + side, left : left + side, 0] = red
    return image


TWO = picture((64, 32, 32, 255), (128, 128, 64, 200))


def assert_found(found: Detections, *expected: tuple[float, float, float, float, float]) -> None:
    """The detections are these: left, top, side, side of the cell, red."""
    assert found.xyxy.shape == (len(expected), 4)
    assert found.confidence.shape == (len(expected),)
    assert found.xyxy.dtype == found.confidence.dtype == np.float32
    boxes = [[left, top, left + side, top + side] for left, top, side, _, _ in expected]
    np.testing.assert_allclose(found.xyxy, np.reshape(boxes, (-1, 4)), atol=2e-3)
    scores = [cell_score(red, int(cell)) for *_, cell, red in expected]
    np.testing.assert_allclose(found.confidence, scores, atol=1e-4)


def test_squares_are_found_where_they_are_best_first(detector: FaceDetector) -> None:
    assert_found(detector.detect(TWO), (64, 32, 32, 32, 255), (128, 128, 64, 64, 200))


BLOCKS = st.lists(  # of 64 x 64: dark, one of the four cells lit, or all
    st.tuples(st.sampled_from([None, 0, 1, 2, 3, "all"]), st.integers(160, 255)),
    min_size=12,
    max_size=12,
)


@settings(max_examples=60)
@given(BLOCKS)
def test_any_squares_are_found(detector: FaceDetector, blocks: list[tuple[Any, int]]) -> None:
    squares = []
    for number, (which, red) in enumerate(blocks):
        left, top = 64 * (number % 4), 64 * (number // 4)
        if which == "all":
            squares.append((left, top, 64, red))
        elif which is not None:
            squares.append((left + 32 * (which % 2), top + 32 * (which // 2), 32, red))
    found = detector.detect(picture(*squares))
    assert (np.diff(found.confidence) <= 0).all()
    order = np.lexsort(found.xyxy[:, :2].round().T)
    squares.sort(key=lambda square: (square[1], square[0]))
    assert_found(found[order], *((x, y, side, side, red) for x, y, side, red in squares))


@pytest.mark.parametrize("factor", [2, 3])
def test_a_large_picture_is_made_smaller(detector: FaceDetector, factor: int) -> None:
    """Boxes are in pixels of the given picture."""
    large = TWO.repeat(factor, axis=0).repeat(factor, axis=1)
    found = detector.detect(large)
    f = factor
    assert_found(found, (64 * f, 32 * f, 32 * f, 32, 255), (128 * f, 128 * f, 64 * f, 64, 200))


@pytest.mark.parametrize("size", [(384, 100), (100, 512), (1000, 40), (40, 1000)])
def test_the_longer_side_decides(detector: FaceDetector, size: tuple[int, int]) -> None:
    scale = min(192 / size[0], 256 / size[1])
    side = round(32 / scale)
    found = detector.detect(picture((0, 0, side, 255), size=size))
    assert len(found) == 1
    np.testing.assert_allclose(found.xyxy[0], [0, 0, 32 / scale, 32 / scale], rtol=1e-5, atol=1e-3)


SMALL = [(1, 1), (2, 2), (1, 100000), (100000, 1), (3, 7), (31, 33)]


@pytest.mark.parametrize("size", SMALL)
@pytest.mark.parametrize("value", [0, 255])
def test_nothing_is_found_in_pictures_with_no_room(
    detector: FaceDetector, size: tuple[int, int], value: int
) -> None:
    found = detector.detect(np.full((*size, 3), value, np.uint8))
    if size != (31, 33) or not value:  # there nearly a whole cell is lit
        assert_found(found)
        assert list(found) == []


@pytest.mark.parametrize("size", SMALL)
def test_pictures_of_any_shape_give_finite_boxes_that_touch_them(
    toy_pack: Path, size: tuple[int, int]
) -> None:
    found = FaceDetector(toy_pack, score_threshold=0).detect(np.zeros((*size, 3), np.uint8))
    assert len(found) > 0
    assert np.isfinite(found.xyxy).all()
    assert (found.xyxy[:, :2] < size[::-1]).all() and (found.xyxy[:, 2:] > 0).all()


def read_only(image: Picture) -> Picture:
    image = image.copy()
    image.flags.writeable = False
    return image


SOURCES = {
    "bgr": (TWO[:, :, ::-1].copy(), "bgr"),
    "bgr view": (TWO[:, :, ::-1], "bgr"),
    "bgra": (np.dstack([TWO[:, :, ::-1], np.full(TWO.shape[:2], 9, np.uint8)]), "bgr"),
    "rgba": (np.dstack([TWO, np.zeros(TWO.shape[:2], np.uint8)]), "rgb"),
    "fortran": (np.asfortranarray(TWO), "rgb"),
    "every other row": (TWO.repeat(2, axis=0)[::2], "rgb"),
    "upside down twice": (TWO[::-1, ::-1].copy()[::-1, ::-1], "rgb"),
    "read-only": (read_only(TWO), "rgb"),
    "pil": (Image.fromarray(TWO), "rgb"),
    "pil, whatever the order of arrays": (Image.fromarray(TWO), "bgr"),
    "bytes": (png(TWO), "rgb"),
    "memoryview": (memoryview(png(TWO)), "rgb"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_any_kind_of_image(detector: FaceDetector, name: str) -> None:
    source, color = SOURCES[name]
    found, expected = detector.detect(source, color=color), detector.detect(TWO)
    np.testing.assert_array_equal(found.xyxy, expected.xyxy)
    np.testing.assert_array_equal(found.confidence, expected.confidence)


@pytest.mark.parametrize("kind", [str, Path])
def test_files(detector: FaceDetector, tmp_path: Path, kind: type) -> None:
    path = tmp_path / "two.png"
    path.write_bytes(png(TWO))
    np.testing.assert_array_equal(detector.detect(kind(path)).xyxy, detector.detect(TWO).xyxy)


def test_grey_counts_as_red(detector: FaceDetector) -> None:
    grey = TWO[:, :, 0]
    for image in (grey, grey[:, :, np.newaxis]):
        np.testing.assert_array_equal(detector.detect(image).xyxy, detector.detect(TWO).xyxy)


def test_channel_order(detector: FaceDetector, tmp_path: Path) -> None:
    blue = TWO[:, :, ::-1]
    assert len(detector.detect(TWO, color="bgr")) == 0
    assert len(detector.detect(blue)) == 0
    assert len(detector.detect(blue, color="bgr")) == 2
    # A pack that asks for RGB: its third channel is blue.
    other = FaceDetector(build_toy_pack(tmp_path / "rgb", color="rgb"))
    assert [len(other.detect(TWO)), len(other.detect(blue))] == [0, 2]


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), b"", "missing.png"]
)
def test_bad_images(detector: FaceDetector, image: Any) -> None:
    with pytest.raises(ImageError):
        detector.detect(image)


def test_bad_color(detector: FaceDetector) -> None:
    with pytest.raises(ValueError, match="'rgb' or 'bgr', got 'rbg'"):
        detector.detect(TWO, color="rbg")  # type: ignore[arg-type]


def test_the_image_is_left_as_it_was(detector: FaceDetector) -> None:
    image = TWO.copy()
    detector.detect(image)
    detector.detect(image, color="bgr")
    np.testing.assert_array_equal(image, TWO)
    assert image.flags.writeable


# --- settings -------------------------------------------------------------------------------------


def test_offsets_are_decoded_with_the_variances(tmp_path: Path) -> None:
    pack = build_toy_pack(tmp_path / "pack", loc=(1, -2, 0.5, -1), variances=[0.25, 0.5])
    found = FaceDetector(pack).detect(picture((64, 96, 32, 255)))
    center = np.array([80 + 0.25 * 32, 112 - 0.25 * 2 * 32])
    size = 32 * np.exp([0.25, -0.5])
    np.testing.assert_allclose(
        found.xyxy, [[*(center - size / 2), *(center + size / 2)]], rtol=1e-5, atol=1e-3
    )


@pytest.mark.parametrize(
    ("shift", "kept"),
    [((-20, 0), 6 * 6), ((0, -20), 4 * 8), ((20, 0), 6 * 6), ((0, 20), 4 * 8), ((-90, 0), 0)],
)
def test_boxes_outside_the_picture_are_left_out(
    tmp_path: Path, shift: tuple[float, float], kept: int
) -> None:
    """20 times the variance 0.1 moves a box by two of its sides."""
    cells = [{"step": 32, "sizes": [{"size": 32, "density": 1, "offset": 0.5}]}] + [
        {"step": 64, "sizes": [{"size": 1, "density": 1, "offset": 0.5}]}
    ]
    pack = build_toy_pack(tmp_path / "pack", loc=(*shift, 0, 0), priors=cells)
    found = FaceDetector(pack, score_threshold=0.1).detect(np.full((192, 256, 3), 255, np.uint8))
    assert (np.diff(found.xyxy[:, [0, 2]]) > 31).sum() == kept
    assert (found.xyxy[:, :2] < (256, 192)).all() and (found.xyxy[:, 2:] > 0).all()


def test_score_threshold(toy_pack: Path) -> None:
    default = FaceDetector(toy_pack)
    assert default.score_threshold == SCORE_THRESHOLD
    strict = FaceDetector(toy_pack, score_threshold=0.97)
    assert_found(strict.detect(TWO), (64, 32, 32, 32, 255))
    assert len(FaceDetector(toy_pack, score_threshold=1).detect(TWO)) == 0
    # At the threshold is not above it.
    score = float(default.detect(TWO).confidence[1])
    assert len(FaceDetector(toy_pack, score_threshold=score).detect(TWO)) == 1
    # Everything: the lit block and, of the 11 dark ones, the 44 small cells, which score better.
    assert len(FaceDetector(toy_pack, score_threshold=0).detect(TWO)) == 45


def test_iou_threshold(toy_pack: Path) -> None:
    lenient = FaceDetector(toy_pack, iou_threshold=0.3)
    assert len(lenient.detect(TWO)) == 6  # also the four cells of the large square
    assert len(FaceDetector(toy_pack, iou_threshold=0.2).detect(TWO)) == 2
    assert len(FaceDetector(toy_pack, iou_threshold=0).detect(TWO)) == 1


def test_max_faces(toy_pack: Path) -> None:
    assert_found(FaceDetector(toy_pack, max_faces=1).detect(TWO), (64, 32, 32, 32, 255))
    assert len(FaceDetector(toy_pack, max_faces=np.int64(9)).detect(TWO)) == 2


def test_limits_of_the_pack(tmp_path: Path) -> None:
    image = picture(*((64 * i, 0, 32, 255 - i) for i in range(4)))
    assert len(FaceDetector(build_toy_pack(tmp_path / "a")).detect(image)) == 4
    kept = FaceDetector(build_toy_pack(tmp_path / "b", keep_top_k=3)).detect(image)
    assert kept.xyxy[:, 0].round().tolist() == [0, 64, 128]
    assert len(FaceDetector(build_toy_pack(tmp_path / "c", top_k=2)).detect(image)) == 2


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("score_threshold", [-0.1, 1.1, float("nan")]),
        ("iou_threshold", [-0.1, 1.1, float("nan")]),
        ("max_faces", [0, -1, 1.5, "2"]),
        ("num_threads", [0, -1, 1.5, "2"]),
    ],
)
def test_arguments_out_of_range(toy_pack: Path, argument: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=argument):
            FaceDetector(toy_pack, **{argument: value})


def test_other_settings_for_the_same_network(toy_pack: Path) -> None:
    first = FaceDetector(toy_pack, score_threshold=0.7, max_faces=3)
    other = first.adjusted(iou_threshold=0.5, max_faces=2)
    assert (other.score_threshold, other.iou_threshold, other.max_faces) == (0.7, 0.5, 2)
    assert (first.score_threshold, first.max_faces) == (0.7, 3)
    assert first.iou_threshold == FaceDetector(toy_pack).iou_threshold
    assert other._network is first._network
    again = other.adjusted()
    assert (again.score_threshold, again.iou_threshold, again.max_faces) == (0.7, 0.5, 2)
    for wrong in ({"score_threshold": 2}, {"iou_threshold": -1}, {"max_faces": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            first.adjusted(**wrong)


def test_backend_and_provider(toy_pack: Path) -> None:
    with pytest.raises(BackendError, match="got 'darknet'"):
        FaceDetector(toy_pack, backend="darknet")  # type: ignore[arg-type]
    with pytest.raises(BackendError, match=r"CPUExecutionProvider.*got NoSuchProvider"):
        FaceDetector(toy_pack, providers=["NoSuchProvider"])


def test_a_detector_that_sees_grey(tmp_path: Path) -> None:
    pack = build_toy_pack(
        tmp_path / "pack",
        networks={"detector.onnx": detector_network(grey=True)},
        color="grey", mean=[127.5], scale=[1 / 255],
    )  # fmt: skip
    detector = FaceDetector(pack)
    image = TWO.copy()
    assert_found(detector.detect(image))  # red is too dark
    image[TWO[..., 0] > 0] = 250
    assert_found(detector.detect(image), (128, 128, 64, 64, 250), (64, 32, 32, 32, 250))

    noise = np.random.default_rng(0).integers(0, 256, (11, 22, 3), np.uint8)
    grey = noise @ np.array([38, 75, 15]) / 128
    np.testing.assert_array_equal(
        detector.network_input(noise), np.float32(grey - 127.5)[None, None] * np.float32(1 / 255)
    )


def test_pack_by_object(toy_pack: Path) -> None:
    assert len(FaceDetector(Pack.load(toy_pack)).detect(TWO)) == 2


def test_unknown_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREEDFA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(PackError, match="no pack named 'nobody'"):
        FaceDetector("nobody")


LEVEL = {"step": 32, "sizes": [{"size": 32, "density": 1, "offset": 0.5}]}
ONE_OUTPUT = network([], {"image": ["N", 3, "H", "W"]}, {"image": ["N", 3, "H", "W"]}, {})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"networks": {"detector.onnx": b"text"}}, "expected a network"),
        ({"networks": {"detector.onnx": regressor_network()}}, "got an error"),
        ({"networks": {"detector.onnx": ONE_OUTPUT}}, r"got float32 \(1, 3, 64, 96\)"),
        (
            {"priors": [LEVEL]},
            r"loc \(1, 6, 4\), conf \(1, 6, 2\).*got float32 \(1, 8, 4\)",
        ),
    ],
    ids=["no network", "other input", "other outputs", "other priors"],
)
def test_a_network_that_does_not_fit_its_pack(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    pack = build_toy_pack(tmp_path / "pack", **changes)
    with pytest.raises(PackError, match=r"detector\.onnx: .*" + problem):
        FaceDetector(pack)


def test_a_network_whose_results_are_no_numbers(tmp_path: Path) -> None:
    pack = build_toy_pack(tmp_path / "pack", loc=(0, 0, 1e6, 0))
    with pytest.raises(ValueError, match="network output: expected a finite score and box"):
        FaceDetector(pack).detect(TWO)


# --- Detections -----------------------------------------------------------------------------------


@pytest.fixture
def three() -> Detections:
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    return Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32))


def test_detections_as_a_sequence(three: Detections) -> None:
    assert len(three) == 3 and bool(three)
    pairs = list(three)
    assert [score for _, score in pairs] == pytest.approx([0.9, 0.8, 0.7])
    assert all(type(score) is float and box.shape == (4,) for box, score in pairs)
    for index in (0, 2, -1, np.int64(1)):
        box, score = three[index]
        np.testing.assert_array_equal(box, three.xyxy[index])
        assert score == three.confidence[index]
    with pytest.raises(IndexError):
        three[3]


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        (np.array([True, False, True]), [0, 2]),
        (np.array([2, 0]), [2, 0]),
        ([2, 0], [2, 0]),
        ([True, False, True], [0, 2]),
        (slice(0, 0), []),
        (np.zeros(3, bool), []),
    ],
)
def test_selections(three: Detections, index: Any, rows: list[int]) -> None:
    selection = three[index]
    assert isinstance(selection, Detections) and len(selection) == len(rows)
    np.testing.assert_array_equal(selection.xyxy, three.xyxy[rows].reshape(-1, 4))
    np.testing.assert_array_equal(selection.confidence, three.confidence[rows])


def test_detections_of_lists_and_wrong_shapes() -> None:
    found = Detections([[1, 2, 3, 4]], [0.5])
    assert found.xyxy.dtype == found.confidence.dtype == np.float32
    assert dataclasses.replace(found, confidence=[0.25]).confidence.tolist() == [0.25]
    for boxes, scores in (([1, 2, 3, 4], [0.5]), ([[1, 2, 3, 4]], [0.5, 0.5]), (1, 0.5), ([], [])):
        with pytest.raises(ValueError, match=r"expected xyxy \(N, 4\) and confidence \(N,\)"):
            Detections(boxes, scores)


def test_no_detections(detector: FaceDetector) -> None:
    none = detector.detect(np.zeros((64, 64, 3), np.uint8))
    assert len(none) == 0 and not none and list(none) == []
    assert none.xyxy.shape == (0, 4) and none.confidence.shape == (0,)
    with pytest.raises(IndexError):
        none[0]


def test_to_supervision_without_the_package(
    three: Detections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        three.to_supervision()


def test_to_supervision(three: Detections, monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(Detections=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "supervision", module)
    other: Any = three.to_supervision()
    np.testing.assert_array_equal(other.xyxy, three.xyxy)
    np.testing.assert_array_equal(other.confidence, three.confidence)
    assert not np.shares_memory(other.xyxy, three.xyxy)
