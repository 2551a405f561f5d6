"""The detector, on pictures where it is known what there is to find."""

from __future__ import annotations

import dataclasses
import itertools
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
from threedfa.detector import _spans, without_parts
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
    found = detector.single_pass(large)
    f = factor
    assert_found(found, (64 * f, 32 * f, 32 * f, 32, 255), (128 * f, 128 * f, 64 * f, 64, 200))


@pytest.mark.parametrize("size", [(384, 100), (100, 512), (1000, 40), (40, 1000)])
def test_the_longer_side_decides(detector: FaceDetector, size: tuple[int, int]) -> None:
    scale = min(192 / size[0], 256 / size[1])
    side = round(32 / scale)
    found = detector.single_pass(picture((0, 0, side, 255), size=size))
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


# --- scales ---------------------------------------------------------------------------------------


def seen(detector: FaceDetector, image: Picture) -> list[tuple[int, int]]:
    """Heights and widths of the network's inputs for an image."""
    sizes = []
    network = detector._network

    class Watched:
        def run(self, batch: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
            sizes.append(batch.shape[2:])
            return network.run(batch)

    watched = detector.adjusted()
    watched._network, watched._single_network = Watched(), Watched  # type: ignore[assignment]
    watched.detect(image)
    return sizes


def test_an_ordinary_image_is_seen_once(detector: FaceDetector) -> None:
    assert seen(detector, TWO) == [(192, 256)]
    assert seen(detector, TWO.repeat(2, axis=0).repeat(2, axis=1)) == [(192, 256)]


def test_nothing_or_a_large_face_asks_for_half_the_size(tmp_path: Path) -> None:
    detector = FaceDetector(build_toy_pack(tmp_path / "pack"))
    dark = np.zeros((192, 256, 3), np.uint8)
    assert seen(detector, dark) == [(192, 256), (96, 128)]
    assert seen(detector, picture((64, 0, 64, 255), size=(100, 128))) == [(100, 128), (50, 64)]
    assert seen(detector, dark[:40, :40]) == [(40, 40)]  # there would be nothing left to see


class _Eye:
    """Stands in for a detector's network: sees squares, each of a grey of its own, that are 10 to
    200 pixels large to it. Of one that is cut it gives the part it sees, and is surest of parts."""

    def __init__(self, detector: FaceDetector) -> None:
        self.detector = detector.adjusted()
        self.detector._resize = lambda part, height, width: part  # type: ignore[assignment]
        self.detector._network = self  # type: ignore[assignment]
        self.detector._single_network = lambda: self  # type: ignore[assignment,return-value]
        self.detector._decode = self.decode  # type: ignore[method-assign]

    def run(self, part: Any) -> list[Any]:
        return [part, part]

    def decode(self, part: Any, _: Any, size: tuple[int, int], scale: float) -> Detections:
        assert part.shape[:2] == size
        boxes, scores = [], []
        for grey in np.unique(part[..., 0])[1:]:
            rows, columns = np.nonzero(part[..., 0] == grey)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            width, height = box[2] - box[0], box[3] - box[1]
            if scale * min(width, height) >= 10 and scale * max(width, height) <= 200:
                boxes.append(box)
                scores.append(0.9 if width == height else 0.99)
        return Detections(np.reshape(boxes, (-1, 4)), scores)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", ["auto", "full", 1500])
@pytest.mark.parametrize("shape", [(1400, 1900), (300, 2500), (2500, 230)])
def test_faces_of_all_sizes_in_a_large_image_are_found_once(
    toy_pack: Path, size: Any, threads: int, shape: tuple[int, int]
) -> None:
    """Wherever they lie among the tiles, and whole, though what is cut scores better."""
    rng = np.random.default_rng(3)
    image = np.zeros((*shape, 3), np.uint8)
    expected: list[list[int]] = []
    while len(expected) < 60:
        side = int(rng.choice([20, 20, 30, 30, 45, 45, 70, 110, 170, 260, 400]))
        if side >= min(shape):
            continue
        left, top = rng.integers(0, shape[1] - side), rng.integers(0, shape[0] - side)
        if image[top : top + side, left : left + side].any():
            if rng.random() < 0.02:  # as many as there is room for
                break
            continue
        image[top : top + side, left : left + side] = len(expected) + 1
        expected.append([left, top, left + side, top + side])
    detector = FaceDetector(toy_pack, detection_size=size, num_threads=threads)
    found = _Eye(detector).detector.detect(image)
    assert sorted(found.xyxy.astype(int).tolist()) == sorted(expected)


@settings(max_examples=60)
@given(st.integers(1, 30000), st.floats(32, 3000))
def test_tiles_cover_a_length_and_overlap(length: int, side: float) -> None:
    spans = _spans(length, side)
    assert spans[0][0] == 0 and spans[-1][1] == length
    assert len({end - start for start, end in spans}) == 1
    assert all(end - start <= side + 1 for start, end in spans)
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert end - start >= side / 4 - 1
    assert len(spans) <= 1 + length / (side * 3 / 4)


def test_memory_of_tiles_is_bounded(toy_pack: Path) -> None:
    detector = FaceDetector(toy_pack, num_threads=1)
    image = np.zeros((1000, 2600, 3), np.uint8)
    sizes = seen(detector.adjusted(detection_size="full"), image)
    assert len(sizes) > 60
    tile = detector._tile_side()
    assert max(height * width for height, width in sizes) <= (tile + 1) ** 2
    # Twice as coarse a size: a fourth of the tiles.
    assert 10 < len(seen(detector.adjusted(detection_size=1300), image)) < len(sizes) / 2.5


def test_a_size_in_pixels(toy_pack: Path) -> None:
    image = picture((64, 64, 64, 255))
    for size in (32, 64, 300):
        detector = FaceDetector(toy_pack, detection_size=size)
        assert seen(detector, image)[0] == (size * 192 // 256, size)
    found = FaceDetector(toy_pack, detection_size=128).detect(image)  # a cell of 32 to it
    assert_found(found, (64, 64, 64, 32, 255))
    assert FaceDetector(toy_pack, detection_size=np.int32(64)).detection_size == 64
    adjusted = FaceDetector(toy_pack).adjusted(detection_size=128)
    np.testing.assert_array_equal(adjusted.detect(image).xyxy, found.xyxy)
    assert adjusted.adjusted(max_faces=1).detection_size == 128
    for wrong in (31, 16385, "large", 64.0, True, None):
        with pytest.raises(ValueError, match=r"'auto', 'full' or a longer side of 32\.\.16384"):
            FaceDetector(toy_pack, detection_size=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((50, 60), (100, 120)), ((80, 100), (120, 150)), ((20, 30), (40, 60)), ((10, 200), (10, 200))],
)
def test_small_images_are_enlarged_where_the_pack_says_so(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    limits = {"max_height": 192, "max_width": 256, "enlarge_to": 150}
    detector = FaceDetector(build_toy_pack(tmp_path / "pack", working_size=limits))
    assert seen(detector, np.zeros((*size, 3), np.uint8))[0] == expected
    assert detector.network_input(np.zeros((*size, 3), np.uint8)).shape[2:] == expected


def test_input_is_filled_up_to_the_packs_divisor(tmp_path: Path) -> None:
    """With zeros, at the right and at the bottom, and boxes stay where they were."""
    plain = FaceDetector(build_toy_pack(tmp_path / "plain"))
    filled = FaceDetector(build_toy_pack(tmp_path / "filled", size_divisor=64))
    image = np.full((70, 130, 3), 200, np.uint8)
    image[32:64, 64:96] = (255, 0, 0)
    given, padded = plain.network_input(image), filled.network_input(image)
    assert padded.shape == (1, 3, 128, 192)
    np.testing.assert_array_equal(padded[..., :70, :130], given)
    assert not padded[..., 70:, :].any()
    assert not padded[..., 130:].any()
    found, expected = (d.detect(image[:64, :128]) for d in (filled, plain))
    assert len(expected) > 0
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=1e-3)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-6)


def test_boxes_inside_a_much_better_face_are_left_out() -> None:
    face = [0, 0, 100, 100]
    ear, outside, large = [70, 40, 110, 80], [80, 40, 120, 80], [10, 10, 95, 95]
    for other, score, kept in (
        (ear, 0.8, False),
        (ear, 0.9, True),  # nearly as good
        (outside, 0.8, True),  # half of it lies beside the face
        (large, 0.8, True),  # not a part of a face: that is for the overlap to decide
    ):
        found = without_parts(Detections([face, other], [0.95, score]))
        assert len(found) == 1 + kept, (other, score)
        np.testing.assert_array_equal(found.xyxy[0], face)
    # What is itself left out removes nothing.
    chain = Detections([face, [5, 5, 50, 50], [10, 10, 30, 30]], [0.95, 0.8, 0.65])
    assert len(without_parts(chain)) == 1
    assert len(without_parts(chain[1:])) == 1
    assert len(without_parts(chain[:0])) == 0


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 30))
def test_leaving_parts_out_keeps_the_best_and_is_done_at_once(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 50, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 60, (count, 2))], axis=1)
    found = Detections(boxes, np.sort(rng.uniform(0, 1, count))[::-1])
    kept = without_parts(found)
    assert set(map(tuple, kept.xyxy.tolist())) <= set(map(tuple, found.xyxy.tolist()))
    assert (np.diff(kept.confidence) <= 0).all()
    np.testing.assert_array_equal(kept.xyxy[:1], found.xyxy[:1])
    np.testing.assert_array_equal(without_parts(kept).xyxy, kept.xyxy)


# --- orientations ---------------------------------------------------------------------------------


def test_turned_faces_are_looked_for_where_nothing_is_found(tmp_path: Path) -> None:
    """The toy's faces look alike however they are turned, but its boxes do not: with these offsets
    they lie below the cells as the network sees them."""
    pack = build_toy_pack(tmp_path / "pack", loc=(0, 10, 0, 0))  # one side lower
    image = picture((64, 96, 32, 255), size=(192, 192))
    upright = FaceDetector(pack, orientations="any").detect(image)
    np.testing.assert_array_equal(upright.xyxy, FaceDetector(pack).detect(image).xyxy)
    assert upright.quarter_turns.tolist() == [0]
    found = FaceDetector(pack).turned_candidates(image)
    turns = found.quarter_turns.tolist()
    boxes = dict(zip(turns, found.xyxy.round().tolist(), strict=True))
    # A face turned clockwise by a quarter has its chin to the left, and so on.
    assert boxes[1] == [32, 96, 64, 128]
    assert boxes[2] == [64, 64, 96, 96]
    assert boxes[3] == [96, 96, 128, 128]
    with pytest.raises(ValueError, match="orientations: expected 'upright' or 'any', got 'all'"):
        FaceDetector(pack, orientations="all")  # type: ignore[arg-type]


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
