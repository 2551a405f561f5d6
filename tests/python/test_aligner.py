"""The aligner: regions, crops and parameters that can be worked out beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from threedfa import Detections, Face, FaceAligner, FaceDetector, Pack
from threedfa.aligner import as_detections
from threedfa.errors import BackendError, ImageError, PackError
from toy_pack import (
    BOX_SCALE,
    BOX_SHIFT_Y,
    CAMERA,
    HEAD_SCALE,
    INPUT_SIZE,
    LANDMARK_SCALE,
    NOSE_TIP,
    build_toy_pack,
    detector_network,
    expected_coeffs,
    head_model,
    presence_network,
    regressor_network,
)

Array = npt.NDArray[Any]

NOISE = np.random.default_rng(5).integers(0, 256, (200, 300, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def aligner(toy_pack: Path) -> FaceAligner:
    return FaceAligner(toy_pack)


def coeffs(face: Face) -> Array:
    return np.concatenate([face.shape_coeffs, face.expression_coeffs])


def assert_same(first: Face, second: Face) -> None:
    """Up to the order in which a matrix product adds up rows of different numbers of faces."""
    np.testing.assert_array_equal(first.bbox, second.bbox)
    np.testing.assert_array_equal(first.roi, second.roi)
    assert first.score == second.score
    np.testing.assert_allclose(first.params, second.params, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(first.landmarks, second.landmarks, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(first.vertices, second.vertices, rtol=1e-5, atol=1e-3)


def some_boxes(count: int) -> Array:
    """Boxes of all sizes within NOISE."""
    rng = np.random.default_rng(count)
    corners = rng.uniform((0, 0), (250, 150), (count, 2))
    return np.hstack([corners, corners + rng.uniform(5, 60, (count, 2))]).astype(np.float32)


@settings(max_examples=60)
@given(
    x=st.integers(-30, 290), y=st.integers(-30, 190), zoom=st.integers(1, 4), seed=st.integers(0, 9)
)
def test_parameters_are_those_of_the_crop(
    aligner: FaceAligner, x: int, y: int, zoom: int, seed: int
) -> None:
    """A box of 16 pixels times ``zoom`` makes a region of 24 times ``zoom``: the size of the input,
    shrunk by a whole number, black beyond the border."""
    side = 16 * zoom
    # The region begins 4 zooms left of the box and 2 above it.
    x, y = max(x, 4 * zoom - 24 * zoom + 1), max(y, 2 * zoom - 24 * zoom + 1)
    image = np.roll(NOISE, 17 * seed, axis=1)
    (face,) = aligner.align(image, [[x, y, x + side, y + side]])
    left, top, size = x - 4 * zoom, y - 2 * zoom, INPUT_SIZE * zoom
    assert face.roi.tolist() == [left, top, left + size, top + size]
    margin = 200
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    region = padded[top + margin :, left + margin :][:size, :size].astype(np.float64)
    if zoom % 2:  # samples at pixel centres
        crop = region[zoom // 2 :: zoom, zoom // 2 :: zoom]
    else:  # samples in the middle of four pixels
        half = zoom // 2
        crop = sum(region[half - i :: zoom, half - j :: zoom] for i in (0, 1) for j in (0, 1)) / 4
    np.testing.assert_allclose(coeffs(face), expected_coeffs(crop), atol=2.5 / 255)
    np.testing.assert_allclose(face.params[:12], CAMERA, atol=1e-5)


def test_channels_are_not_mixed_up(aligner: FaceAligner, tmp_path: Path) -> None:
    image = np.full((90, 90, 3), (200, 100, 50), np.uint8)
    box = [[30, 30, 60, 60]]
    expected = np.array([200, 100, 50]) / 255
    for source, color in (
        (image, "rgb"),
        (image[:, :, ::-1], "bgr"),
        (np.dstack([image, image[:, :, 0]]), "rgb"),
        (Image.fromarray(image), "bgr"),
    ):
        (face,) = aligner.align(source, box, color=color)  # type: ignore[arg-type]
        np.testing.assert_allclose(face.shape_coeffs[:3], expected, atol=1e-5)
    (swapped,) = aligner.align(image, box, color="bgr")
    np.testing.assert_allclose(swapped.shape_coeffs[:3], expected[::-1], atol=1e-5)


@settings(max_examples=60)
@given(st.floats(-100, 300), st.floats(-100, 200), st.floats(2, 300), st.floats(2, 300))
def test_regions_of_boxes(
    aligner: FaceAligner, left: float, top: float, width: float, height: float
) -> None:
    box = np.float32([left, top, left + width, top + height])
    x1, y1, x2, y2 = box.astype(float)
    mean_side = (x2 - x1 + y2 - y1) / 2
    side = np.trunc(mean_side * BOX_SCALE)
    center = (x1 + x2) / 2, (y1 + y2) / 2 + mean_side * BOX_SHIFT_Y
    expected = [*(c - side / 2 for c in center), *(c + side / 2 for c in center)]
    inside = expected[0] < 298 and expected[1] < 198 and expected[2] > 2 and expected[3] > 2
    if inside:
        (face,) = aligner.align(NOISE, [box])
        np.testing.assert_allclose(face.roi, expected, atol=1e-6)
        np.testing.assert_array_equal(face.bbox, box)


def test_a_face(aligner: FaceAligner) -> None:
    """Shapes, dtypes and how the parts belong together."""
    (face,) = aligner.align(NOISE, [[100, 60, 160, 140, 0.75]])
    model = aligner.model
    assert face.model is model
    assert face.score == 0.75
    vertices = len(model.mean)
    for array, shape in (
        (face.bbox, (4,)),
        (face.params, (19,)),
        (face.landmarks, (68, 3)),
        (face.vertices, (vertices, 3)),
        (face.shape_coeffs, (4,)),
        (face.expression_coeffs, (3,)),
        (face.pose.rotation, (3, 3)),
        (face.pose.translation, (3,)),
        (face.pose.projection, (3, 4)),
    ):
        assert array.shape == shape and array.dtype == np.float32
    assert face.triangles.dtype == np.int32
    assert face.vertices is face.vertices  # computed once
    # A landmark is a weighted sum of three vertices.
    corners = face.vertices[model.landmark_vertices]
    np.testing.assert_allclose(
        face.landmarks, (corners * model.landmark_weights[:, :, np.newaxis]).sum(axis=1), atol=1e-3
    )
    # The projection takes the model's vertices to those of the face.
    object_space = model.reconstruct(face.shape_coeffs, face.expression_coeffs)
    projected = object_space @ face.pose.projection[:, :3].T + face.pose.projection[:, 3]
    np.testing.assert_allclose(face.vertices, projected, atol=1e-3)


def test_a_frontal_head_lies_where_the_camera_puts_it(aligner: FaceAligner) -> None:
    """On black the face is the mean: all coefficients are 0."""
    (face,) = aligner.align(np.zeros((300, 300, 3), np.uint8), [[96, 100, 176, 180]])
    np.testing.assert_allclose(coeffs(face), 0, atol=1e-5)
    side = 120  # of the region: 5 image pixels for each of the crop
    np.testing.assert_allclose(face.roi, [76, 90, 196, 210])
    zoom = side / INPUT_SIZE
    expected = head_model()["mean"] * HEAD_SCALE
    expected[:, 0] = 76 + (expected[:, 0] + 12 - 1) * zoom
    expected[:, 1] = 90 + (INPUT_SIZE - (expected[:, 1] + 12)) * zoom
    expected[:, 2] *= zoom
    np.testing.assert_allclose(face.vertices, expected, atol=1e-3)
    assert face.landmarks[:, 2].argmax() == NOSE_TIP
    assert (face.pose.yaw, face.pose.pitch, face.pose.roll) == (0, 0, 0)
    assert face.pose.scale == pytest.approx(HEAD_SCALE)


def test_faces_are_frozen(aligner: FaceAligner) -> None:
    (face,) = aligner.align(NOISE, [[10, 10, 60, 60]])
    with pytest.raises(AttributeError):
        face.score = 0.5  # type: ignore[misc]
    with pytest.raises(AttributeError):
        face.pose.yaw = 0.5  # type: ignore[misc]


@pytest.mark.parametrize("count", [1, 2, 64, 65, 130])
def test_many_faces_are_aligned_as_one_by_one(aligner: FaceAligner, count: int) -> None:
    boxes = some_boxes(count)
    faces = aligner.align(NOISE, boxes)
    assert len(faces) == count
    for box, face in zip(boxes, faces, strict=True):
        assert_same(face, aligner.align(NOISE, [box])[0])


NO_BOXES = [
    [],
    (),
    np.empty((0, 4)),
    np.empty((0, 5), np.float32),
    Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32)),
]


@pytest.mark.parametrize("boxes", NO_BOXES, ids=repr)
def test_no_boxes(aligner: FaceAligner, boxes: Any) -> None:
    assert aligner.align(NOISE, boxes) == []


def test_boxes_of_any_kind(aligner: FaceAligner) -> None:
    boxes = np.array([[10, 20, 70, 90], [100, 30, 150, 80]], np.float32)
    expected = aligner.align(NOISE, boxes)
    assert [face.score for face in expected] == [1, 1]
    read_only = boxes.copy()
    read_only.flags.writeable = False
    for same in (
        boxes.tolist(),
        tuple(map(tuple, boxes)),
        boxes.astype(np.float64),
        boxes.astype(np.int32),
        boxes.astype(np.uint8),
        np.asfortranarray(boxes),
        boxes.repeat(2, axis=1)[:, ::2],
        read_only,
    ):
        for face, other in zip(aligner.align(NOISE, same), expected, strict=True):
            assert_same(face, other)
    for wrong in (7, -1, np.nan):
        with pytest.raises(ValueError, match=r"scores: expected 0\.\.1|finite"):
            aligner.align(NOISE, [[*boxes[0], wrong]])
        with pytest.raises(ValueError, match=r"scores: expected 0\.\.1"):
            aligner.align(NOISE, Detections(boxes[:1], np.float32([wrong])))
    with pytest.raises(ValueError, match=r"detections: expected xyxy \(N, 4\)"):
        Detections(boxes, np.float32([1]))
    (plain,) = aligner.align(NOISE, Detections([[*map(float, boxes[0])]], [1]))
    assert plain.bbox.dtype == np.float32
    scored = np.column_stack([boxes, [0.5, 0.25]])
    for with_scores in (scored, Detections(boxes, np.float32([0.5, 0.25]))):
        faces = aligner.align(NOISE, with_scores)
        assert [face.score for face in faces] == [0.5, 0.25]
        np.testing.assert_array_equal([face.bbox for face in faces], boxes)


def test_detections_go_straight_in(aligner: FaceAligner, toy_pack: Path) -> None:
    image = np.zeros((128, 128, 3), np.uint8)
    image[32:64, 64:96] = 255
    found = FaceDetector(toy_pack).detect(image)
    (face,) = aligner.align(image, found)
    np.testing.assert_array_equal(face.bbox, found.xyxy[0])
    assert face.score == found.confidence[0]


GOOD = [10.0, 10.0, 60.0, 60.0]


@pytest.mark.parametrize(
    "bad",
    [
        [np.nan, 10, 60, 60],
        [10, 10, np.inf, 60],
        [10, 10, 10, 60],  # no width
        [10, 10, 60, 10],  # no height
        [60, 10, 10, 60],  # left and right exchanged
        [10, 60, 60, 10],
        [10, 10, 10.3, 10.3],  # no region of a pixel
        [400, 10, 460, 60],  # outside, each way
        [10, 400, 60, 460],
        [-400, 10, -360, 60],
        [10, -400, 60, -360],
        [1e30, 10, 2e30, 60],
    ],
)
def test_bad_boxes(aligner: FaceAligner, bad: list[float]) -> None:
    for boxes in ([bad], [GOOD, bad], np.array([GOOD, bad, GOOD])):
        with pytest.raises(ValueError, match="expected"):
            aligner.align(NOISE, boxes)
    found = Detections(np.array([GOOD, bad], np.float32), np.ones(2, np.float32))
    with pytest.raises(ValueError, match="expected"):
        aligner.align(NOISE, found)


@pytest.mark.parametrize(
    "boxes",
    [
        GOOD,
        [GOOD[:3]],
        [[*GOOD, 1, 1]],
        [[GOOD]],
        np.empty((3, 0)),
        np.float32(5),
        [[*GOOD, np.nan]],
        [[*GOOD[:3], 1e300]],
    ],
    ids=repr,
)
def test_boxes_of_a_wrong_shape(aligner: FaceAligner, boxes: Any) -> None:
    with pytest.raises(ValueError, match="boxes: expected"):
        aligner.align(NOISE, boxes)


@pytest.mark.parametrize(
    "boxes", [None, "10 10 60 60", [["10", "10", "60", "60"]], [[10, 10, 60, 60j]], [[True] * 4]]
)
def test_boxes_that_are_no_numbers(aligner: FaceAligner, boxes: Any) -> None:
    with pytest.raises(TypeError, match="boxes: expected an array of real numbers"):
        aligner.align(NOISE, boxes)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 5000), (5000, 1)])
def test_small_and_narrow_pictures(aligner: FaceAligner, size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 255, np.uint8)
    faces = aligner.align(image, [[0, 0, 1, 1], [0, 0, size[1], size[0]]])
    assert len(faces) == 2
    np.testing.assert_allclose(faces[0].shape_coeffs[:3], 1, atol=1e-5)
    assert all(np.isfinite(face.vertices).all() for face in faces)


def test_bad_images(aligner: FaceAligner) -> None:
    for image in (np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), b"", "missing.png"):
        with pytest.raises(ImageError):
            aligner.align(image, [GOOD])
        with pytest.raises(ImageError):
            aligner.align_from_landmarks(image, [np.eye(3)])


def test_arguments_are_left_as_they_were(aligner: FaceAligner) -> None:
    image, boxes = NOISE.copy(), np.array([GOOD], np.float32)
    (face,) = aligner.align(image, boxes)
    landmarks = face.landmarks.copy()
    assert not np.shares_memory(face.bbox, boxes)
    aligner.align_from_landmarks(image, [landmarks])
    np.testing.assert_array_equal(landmarks, face.landmarks)
    np.testing.assert_array_equal(image, NOISE)


# --- landmarks ------------------------------------------------------------------------------------


def test_align_from_landmarks(aligner: FaceAligner) -> None:
    points = np.float32([[100, 60], [140, 70], [110, 120], [105, 90]])
    (face,) = aligner.align_from_landmarks(NOISE, [points])
    np.testing.assert_array_equal(face.bbox, [100, 60, 140, 120])
    side = 60 * LANDMARK_SCALE
    np.testing.assert_allclose(
        face.roi, [120 - side / 2, 90 - side / 2, 120 + side / 2, 90 + side / 2]
    )
    assert face.score == 1
    assert face.landmarks.shape == (68, 3)


def test_landmarks_of_any_kind(aligner: FaceAligner) -> None:
    faces = aligner.align(NOISE, some_boxes(3))
    landmarks = np.stack([face.landmarks for face in faces])
    expected = aligner.align_from_landmarks(NOISE, landmarks)
    assert len(expected) == 3
    for same in (
        list(landmarks),
        (points for points in landmarks),
        landmarks[:, :, :2],
        landmarks.astype(np.float64),
        landmarks.tolist(),
    ):
        for face, other in zip(aligner.align_from_landmarks(NOISE, same), expected, strict=True):
            assert_same(face, other)
    for points, face in zip(landmarks, expected, strict=True):
        assert_same(face, aligner.align_from_landmarks(NOISE, [points])[0])


def test_no_landmarks(aligner: FaceAligner) -> None:
    assert aligner.align_from_landmarks(NOISE, []) == []
    assert aligner.align_from_landmarks(NOISE, np.empty((0, 68, 3))) == []


def test_landmarks_on_a_line(aligner: FaceAligner) -> None:
    (face,) = aligner.align_from_landmarks(NOISE, [[[50, 20], [50, 60]]])
    np.testing.assert_array_equal(face.bbox, [50, 20, 50, 60])
    np.testing.assert_allclose(face.roi, [25, 15, 75, 65])


@pytest.mark.parametrize(
    "bad",
    [
        [[10, 10]],  # one point
        [[10, 10], [10, 10]],  # in one place
        [[10, 10], [np.nan, 20]],
        [[10, 10, np.inf], [20, 20, 0]],
        [10, 10, 20, 20],
        [[10], [20]],
        [[[10, 10], [20, 20]]],
        np.empty((0, 3)),
        [[400, 10], [420, 30]],  # outside
        [[10, 10], [10.2, 10.2]],  # no region of a pixel
    ],
    ids=repr,
)
def test_bad_landmarks(aligner: FaceAligner, bad: Any) -> None:
    for landmarks in ([bad], [[[20, 20], [60, 60]], bad]):
        with pytest.raises(ValueError, match="expected"):
            aligner.align_from_landmarks(NOISE, landmarks)


@pytest.mark.parametrize("coordinates", [2, 3])
def test_landmarks_with_the_coordinates_first(aligner: FaceAligner, coordinates: int) -> None:
    (face,) = aligner.align(NOISE, [GOOD])
    message = rf"\(L, 2\) or \(L, 3\).*got \({coordinates}, 68\); .*landmarks\.T"
    with pytest.raises(ValueError, match=message):
        aligner.align_from_landmarks(NOISE, [face.landmarks[:, :coordinates].T])


@pytest.mark.parametrize("bad", [[["a", "b"], ["c", "d"]], None, [[1j, 1], [2, 3]]])
def test_landmarks_that_are_no_numbers(aligner: FaceAligner, bad: Any) -> None:
    with pytest.raises(TypeError):
        aligner.align_from_landmarks(NOISE, [bad])


def test_one_face_where_a_list_is_expected(aligner: FaceAligner) -> None:
    with pytest.raises(ValueError, match=r"landmarks: expected .*got \(3,\); put .* into a list"):
        aligner.align_from_landmarks(NOISE, np.ones((68, 3)))


# --- two passes and confidence --------------------------------------------------------------------


def test_a_second_pass_looks_at_the_landmarks_of_the_first(
    aligner: FaceAligner, tmp_path: Path
) -> None:
    twice = FaceAligner(build_toy_pack(tmp_path / "pack", regressor={"passes": 2}))
    boxes = some_boxes(5)
    first = aligner.align(NOISE, boxes)
    again = aligner.align_from_landmarks(NOISE, [face.landmarks for face in first])
    found = twice.align(NOISE, boxes)
    for box, face, one, two in zip(boxes, found, first, again, strict=True):
        np.testing.assert_array_equal(face.bbox, box)
        np.testing.assert_array_equal(face.roi, two.roi)
        np.testing.assert_allclose(face.params, two.params, rtol=1e-5, atol=1e-5)
        assert np.abs(face.roi - one.roi).max() > 1
    # Landmarks given by the caller are a first pass already.
    (followed,) = twice.align_from_landmarks(NOISE, [first[0].landmarks])
    np.testing.assert_array_equal(followed.roi, again[0].roi)


@pytest.mark.parametrize(
    "camera",
    [[0] * 12, [100 * v for v in CAMERA], [*CAMERA[:3], 5000, *CAMERA[4:]]],
    ids=["all in one place", "another size", "beyond the image"],
)
def test_no_second_pass_where_the_first_found_nothing(tmp_path: Path, camera: list[float]) -> None:
    once = FaceAligner(build_toy_pack(tmp_path / "once", camera=camera))
    twice = FaceAligner(build_toy_pack(tmp_path / "twice", camera=camera, regressor={"passes": 2}))
    (one,), (two,) = once.align(NOISE, [GOOD]), twice.align(NOISE, [GOOD])
    np.testing.assert_array_equal(one.roi, two.roi)
    np.testing.assert_array_equal(one.params, two.params)


def test_no_second_pass_where_the_region_hardly_moved(aligner: FaceAligner, tmp_path: Path) -> None:
    settings = {"passes": 2, "roi_tolerance": 0.0}
    always = FaceAligner(build_toy_pack(tmp_path / "always", regressor=settings))
    boxes = some_boxes(8)
    once, twice = aligner.align(NOISE, boxes), always.align(NOISE, boxes)
    moved = [
        np.abs(a.roi - b.roi).max() / (b.roi[2] - b.roi[0])
        for a, b in zip(once, twice, strict=True)
    ]
    settings["roi_tolerance"] = float(np.median(moved))
    some = FaceAligner(build_toy_pack(tmp_path / "some", regressor=settings)).align(NOISE, boxes)
    for far, face, one, two in zip(
        np.array(moved) > settings["roi_tolerance"], some, once, twice, strict=True
    ):
        assert_same(face, two if far else one)


@pytest.mark.parametrize("tolerance", [0.0, 0.3])
def test_passes_of_pictures_do_not_mix(tmp_path: Path, tolerance: float) -> None:
    settings = {"passes": 2, "roi_tolerance": tolerance}
    twice = FaceAligner(build_toy_pack(tmp_path / "pack", regressor=settings))
    images, boxes = [NOISE, NOISE[::-1], NOISE[:, ::-1]], [some_boxes(n) for n in (2, 0, 3)]
    together = twice._align(images, [as_detections(b) for b in boxes])
    for image, own, found in zip(images, boxes, together, strict=True):
        for face, alone in zip(found, twice.align(image, own), strict=True):
            assert_same(face, alone)


def test_confidence(tmp_path: Path, aligner: FaceAligner) -> None:
    networks = {"regressor.onnx": regressor_network(confidence=True)}
    sure = FaceAligner(
        build_toy_pack(
            tmp_path / "sure", networks=networks, regressor={"confidence_threshold": 0.5}
        )
    )
    red, black = np.zeros((2, 200, 300, 3), np.uint8)
    red[..., 0] = 255  # where a crop holds nothing else
    box = [[100, 80, 148, 128]]
    (high,), (low,) = sure.align(red, box), sure.align(black, box)
    assert high.confidence == pytest.approx(1 / (1 + np.exp(-(255 - 130) / 120)), abs=1e-6)
    assert low.confidence == pytest.approx(1 / (1 + np.exp(130 / 120)), abs=1e-6)
    assert aligner.align(red, box)[0].confidence is None
    assert sure.align(red, []) == []
    found = as_detections(box), as_detections(box)
    both = sure.align_detected([red, black], found, [None, None])
    assert [len(each.faces) for each in both] == [1, 0]
    assert [len(each.refused) for each in both] == [0, 1]
    assert len(aligner.align_detected([black], found[:1], [None])[0].faces) == 1


def test_a_refusal_makes_room_for_the_next_face(tmp_path: Path) -> None:
    networks = {"regressor.onnx": regressor_network(confidence=True)}
    pack = build_toy_pack(
        tmp_path / "pack", networks=networks, regressor={"confidence_threshold": 0.5}
    )
    image = np.zeros((200, 900, 3), np.uint8)
    image[:, 450:, 0] = 255  # what the network takes for faces
    lefts = np.array([10, 500, 110, 600, 210, 700, 310, 800])
    boxes = np.stack([lefts, 0 * lefts + 70, lefts + 48, 0 * lefts + 118], axis=1)
    found = as_detections(boxes)

    def kept(most: int | None, start: int = 0) -> list[int]:
        aligner = FaceAligner(pack)
        both = aligner.align_detected([image] * 2, [found[start:]] * 2, [most, None])
        assert [round(float(face.bbox[0])) for face in both[1].faces] == [
            left for left in lefts[start:] if image[90, left, 0] == 255
        ]
        return [round(float(face.bbox[0])) for face in both[0].faces]

    assert kept(None) == [500, 600, 700, 800]
    assert kept(1) == [500]
    assert kept(3) == [500, 600, 700]
    assert kept(9) == [500, 600, 700, 800]
    image[:, 450:650] = 0
    assert kept(1, 0) == []  # not among the first four
    assert kept(1, 2) == [700]


def test_a_confidence_that_is_not_there(tmp_path: Path) -> None:
    pack = build_toy_pack(tmp_path / "pack", regressor={"confidence_threshold": 0.5})
    with pytest.raises(PackError, match=r"confidence \(2, 1\)"):
        FaceAligner(pack)


# --- packs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"text", "expected a network"),
        (detector_network(), r"outputs parameters \(2, 19\).*got float32 \(2, 2, 4\)"),
    ],
    ids=["no network", "other network"],
)
def test_a_network_that_does_not_fit_its_pack(tmp_path: Path, content: bytes, problem: str) -> None:
    pack = build_toy_pack(tmp_path / "pack", networks={"regressor.onnx": content})
    with pytest.raises(PackError, match=r"regressor\.onnx: .*" + problem):
        FaceAligner(pack)


def test_a_model_that_does_not_fit_its_pack(tmp_path: Path, synthetic_pack: Path) -> None:
    content = (synthetic_pack / "model.safetensors").read_bytes()
    pack = build_toy_pack(tmp_path / "a", networks={"model.safetensors": content})
    with pytest.raises(PackError, match=r"model with 4 shape and 3 .*got 40 and 10"):
        FaceAligner(pack)
    pack = build_toy_pack(tmp_path / "b", networks={"model.safetensors": b"text"})
    with pytest.raises(PackError, match=r"model\.safetensors"):
        FaceAligner(pack)


def test_a_camera_that_is_none(tmp_path: Path) -> None:
    """Nothing is made up: the points are there, a pose is not to be had."""
    aligner = FaceAligner(build_toy_pack(tmp_path / "pack", camera=[0] * 12))
    (face,) = aligner.align(NOISE, [GOOD])
    assert np.isfinite(face.vertices).all()
    with pytest.raises(ValueError, match="camera: expected"):
        _ = face.pose


def test_settings(toy_pack: Path) -> None:
    assert len(FaceAligner(Pack.load(toy_pack), num_threads=1).align(NOISE, [GOOD])) == 1
    with pytest.raises(BackendError, match="got NoSuchProvider"):
        FaceAligner(toy_pack, providers=["NoSuchProvider"])
    with pytest.raises(BackendError, match="got 'darknet'"):
        FaceAligner(toy_pack, backend="darknet")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_threads"):
        FaceAligner(toy_pack, num_threads=0)


# --- presence -------------------------------------------------------------------------------------


def lit(*levels: int) -> Array:
    """Columns of 100 pixels with these amounts of red."""
    image = np.zeros((200, 100 * len(levels), 3), np.uint8)
    for i, level in enumerate(levels):
        image[:, 100 * i : 100 * (i + 1), 0] = level
    return image


def middles(count: int) -> Array:
    """A box in the middle of each column, whose region lies within the column."""
    lefts = 100 * np.arange(count) + 26
    return np.stack([lefts, 0 * lefts + 70, lefts + 48, 0 * lefts + 118], axis=1)


def test_presence_decides_what_is_a_face(tmp_path: Path) -> None:
    pack = build_toy_pack(tmp_path / "pack", presence={})
    aligner = FaceAligner(pack)
    assert aligner.confidence_threshold == 0.5
    levels = [255, 51, 153, 102]
    image, boxes = lit(*levels), as_detections(middles(4))
    faces = aligner.align(image, boxes)  # what the caller gives is not refused
    found = [face.confidence for face in faces]
    np.testing.assert_allclose(np.array(found, float), np.array(levels) / 255, atol=1e-6)

    runs: list[int] = []
    network = aligner._network

    class Watched:
        def run(self, batch: Array) -> list[Array]:
            runs.append(len(batch))
            return network.run(batch)

    watched = aligner.adjusted()
    watched._network = Watched()  # type: ignore[assignment]
    ((kept, refused),) = watched.align_detected([image], [boxes], [None])
    assert runs == [2]  # what is refused does not reach the regressor
    assert [face.bbox[0] for face in kept] == [26, 226]
    assert_same(kept[0], faces[0])
    assert [each.bbox.tolist() for each in refused] == boxes.xyxy[[1, 3]].tolist()
    assert [each.score for each in refused] == [1, 1]
    assert [each.confidence for each in refused] == pytest.approx([0.2, 0.4], abs=1e-6)

    strict = aligner.adjusted(confidence_threshold=0.7)
    assert aligner.confidence_threshold == 0.5
    ((kept, refused),) = strict.align_detected([image], [boxes], [None])
    assert [len(kept), len(refused)] == [1, 3]
    for aligner in (FaceAligner(pack, confidence_threshold=0), strict.single_threaded()):
        ((kept, _),) = aligner.align_detected([image], [boxes], [None])
        assert len(kept) == (1 if aligner.confidence_threshold else 4)
    # The next takes the place of what is refused.
    ((kept, refused),) = FaceAligner(pack).align_detected([image], [boxes], [2])
    assert [face.bbox[0] for face in kept] == [26, 226] and len(refused) == 1


@pytest.mark.parametrize(("roi_scale", "expected"), [(1.0, 1.0), (2.0, 0.25), (0.5, 1.0)])
def test_presence_sees_more_or_less_than_the_regressor(
    tmp_path: Path, roi_scale: float, expected: float
) -> None:
    (roi,) = (face.roi for face in FaceAligner(build_toy_pack(tmp_path / "toy")).align(
        np.zeros((300, 300, 3), np.uint8), [[126, 126, 174, 174]]
    ))  # fmt: skip
    x1, y1, x2, y2 = np.rint(roi).astype(int)
    image = np.zeros((300, 300, 3), np.uint8)
    image[y1:y2, x1:x2, 0] = 255
    pack = build_toy_pack(tmp_path / "pack", presence={"roi_scale": roi_scale})
    (face,) = FaceAligner(pack).align(image, [[126, 126, 174, 174]])
    assert face.confidence == pytest.approx(expected, abs=0.05)


def test_presence_in_other_colors(tmp_path: Path) -> None:
    image = np.zeros((200, 100, 3), np.uint8)
    image[:] = 200, 100, 40
    for color, expected in (("rgb", 200), ("bgr", 40)):
        pack = build_toy_pack(tmp_path / color, presence={"color": color})
        (face,) = FaceAligner(pack).align(image, middles(1))
        assert face.confidence == pytest.approx(expected / 255, abs=1e-5)
    networks = {"presence.onnx": presence_network(1)}
    settings = {"color": "grey", "mean": [10], "scale": [1 / 245]}
    pack = build_toy_pack(tmp_path / "grey", presence=settings, networks=networks)
    (face,) = FaceAligner(pack).align(image, middles(1))
    grey = (38 * 200 + 75 * 100 + 15 * 40) / 128
    assert face.confidence == pytest.approx((grey - 10) / 245, abs=1e-5)


def test_presence_networks_and_thresholds_that_do_not_fit(tmp_path: Path, toy_pack: Path) -> None:
    pack = build_toy_pack(tmp_path / "a", presence={}, networks={"presence.onnx": b"text"})
    with pytest.raises(PackError, match=r"presence\.onnx: expected a network"):
        FaceAligner(pack)
    networks = {"presence.onnx": regressor_network()}
    pack = build_toy_pack(tmp_path / "b", presence={"input_size": 24}, networks=networks)
    with pytest.raises(
        PackError, match=r"presence\.onnx.*presence \(2, 1\).*got float32 \(2, 19\)"
    ):
        FaceAligner(pack)
    with pytest.raises(ValueError, match="confidence_threshold: expected None, as this pack"):
        FaceAligner(toy_pack, confidence_threshold=0.5)
    pack = build_toy_pack(tmp_path / "c", presence={})
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"confidence_threshold: expected None or 0\.\.1"):
            FaceAligner(pack, confidence_threshold=wrong)


def test_two_boxes_of_one_face_are_one(aligner: FaceAligner) -> None:
    """The head in the region of the second comes to lie where that of the first does; that of the
    third lies elsewhere."""
    boxes = as_detections([[40, 40, 90, 90, 0.9], [41, 42, 91, 92, 0.8], [90, 40, 140, 90, 0.7]])
    ((faces, refused),) = aligner.align_detected([NOISE], [boxes], [None])
    assert [round(face.score, 2) for face in faces] == [0.9, 0.7]
    assert refused == []
    ((faces, _),) = aligner.align_detected([NOISE], [boxes], [2])
    assert [round(face.score, 2) for face in faces] == [0.9, 0.7]


# --- turned faces ---------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_turned_faces_are_those_of_the_turned_image(aligner: FaceAligner, turns: int) -> None:
    """What is found in the upright image, and where each thing lies in the turned one."""
    upright = NOISE[:150, :190]
    box = np.float32([60, 50, 101, 91])
    (expected,) = aligner.align(upright, [box])
    image = np.ascontiguousarray(np.rot90(upright, -turns))  # clockwise
    height, width = upright.shape[:2]

    def moved(points: Array, edge: int) -> Array:
        """Points of the upright image; ``edge``: 0 for borders, 1 for middles of pixels."""
        x, y = points[..., 0], points[..., 1]
        far_x, far_y = width - edge - x, height - edge - y
        pairs = [(x, y), (far_y, x), (far_x, far_y), (y, far_x)]
        return np.stack(pairs[turns], axis=-1)

    def square(corners: Array) -> Array:
        both = moved(corners.reshape(2, 2), 0)
        return np.concatenate([both.min(axis=0), both.max(axis=0)])

    detections = Detections([square(box)], [0.75], [turns])
    ((face,),) = [aligner.align(image, detections)]
    np.testing.assert_array_equal(face.bbox, square(box))
    np.testing.assert_array_equal(face.roi, square(expected.roi))
    np.testing.assert_array_equal(face.params[12:], expected.params[12:])
    np.testing.assert_allclose(
        face.landmarks[:, :2], moved(expected.landmarks[:, :2], 1), atol=1e-3
    )
    np.testing.assert_array_equal(face.landmarks[:, 2], expected.landmarks[:, 2])
    # Everything else follows from the parameters, in the turned image.
    np.testing.assert_allclose(face.vertices[:, :2], moved(expected.vertices[:, :2], 1), atol=1e-3)
    np.testing.assert_allclose(face.vertices[:, 2], expected.vertices[:, 2], atol=1e-3)
    roll = (face.pose.roll - expected.pose.roll - 90 * turns + 180) % 360 - 180
    assert abs(roll) < 1e-2
    assert [face.pose.yaw, face.pose.pitch] == pytest.approx(
        [expected.pose.yaw, expected.pose.pitch], abs=1e-2
    )
    assert np.linalg.det(face.pose.rotation) == pytest.approx(1, abs=1e-5)
    ((detected, _),) = aligner.align_detected([image], [detections], [None])
    assert_same(detected[0], face)


def test_faces_turned_differently_keep_their_order(aligner: FaceAligner) -> None:
    boxes = some_boxes(6)
    turns = [2, 0, 1, 3, 0, 2]
    image = NOISE
    scores = np.linspace(0.9, 0.6, 6)
    faces = aligner.align(image, Detections(boxes, scores, turns))
    assert [face.score for face in faces] == pytest.approx(scores)
    for i, face in enumerate(faces):
        (alone,) = aligner.align(
            image, Detections(boxes[i : i + 1], scores[i : i + 1], turns[i : i + 1])
        )
        assert_same(face, alone)
