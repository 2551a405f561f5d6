"""Pictures of one face in a standard frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from head import head_face, head_params, load_head
from pictures import psnr
from test_landmark_sets import five_tensors
from threedfa import Face, ImageError, MorphableModel, PackError, ops
from threedfa.aligned_crop import TEMPLATE, crop_matrix, similarity

Array = npt.NDArray[Any]

IMAGE_SIZE = 200
ROI = (20, 20, 180, 180)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MorphableModel:
    return load_head(tmp_path_factory.mktemp("crop") / "m.safetensors", **five_tensors())


def face_at(model: MorphableModel, **pose: float) -> Face:
    return head_face(model, head_params(**pose), ROI)


def painted(face: Face, colors: Array) -> Array:
    """A picture of the face with colours (V, 3) in 0..255 on grey."""
    grey = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), 90, np.float32)
    raster = ops.rasterize(
        face.vertices, face.triangles, *grey.shape[:2], attributes=colors, background=grey
    )
    assert raster.image is not None
    return raster.image.clip(0, 255).astype(np.uint8)


def skin(model: MorphableModel, *, symmetric: bool) -> Array:
    x, y, z = model.mean.astype(np.float64).T
    across = np.abs(x) if symmetric else x
    waves = np.stack([np.sin(7 * across), np.cos(5 * y + 2 * across), np.sin(6 * y - 4 * z)], 1)
    return (128 + 90 * waves).astype(np.float32)


# --- The similarity ------------------------------------------------------------------------------

point_sets = st.lists(
    st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=3, max_size=8
).map(np.array)


@given(points=point_sets, turn=st.floats(-3, 3), scale=st.floats(0.1, 10), shift=st.floats(-99, 99))
def test_a_similarity_is_found_again(
    points: Array, turn: float, scale: float, shift: float
) -> None:
    if np.ptp(points, axis=0).max() < 1:
        return
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    truth = np.array([[c, -s, shift], [s, c, -shift]])
    found = similarity(points, points @ truth[:, :2].T + truth[:, 2])
    np.testing.assert_allclose(found, truth, atol=1e-7)


@settings(max_examples=50)
@given(source=point_sets, seed=st.integers(0, 999))
def test_no_similarity_comes_nearer(source: Array, seed: int) -> None:
    if np.ptp(source, axis=0).max() < 1:
        return
    rng = np.random.default_rng(seed)
    target = rng.normal(scale=50, size=source.shape)

    def cost(matrix: Array) -> float:
        return float(((source @ matrix[:, :2].T + matrix[:, 2] - target) ** 2).sum())

    best = similarity(source, target)
    (a, b), (c, d) = best[:, :2]
    assert a == pytest.approx(d, abs=1e-9) and b == pytest.approx(-c, abs=1e-9)  # never a mirror
    for _ in range(20):
        da, dc, dx, dy = rng.normal(scale=[0.05, 0.05, 2, 2])
        other = best + np.array([[da, -dc, dx], [dc, da, dy]])
        assert cost(best) <= cost(other) + 1e-6


def test_points_in_one_place() -> None:
    with pytest.raises(ValueError, match="not all in one place"):
        similarity(np.ones((5, 2)), np.array(TEMPLATE))


# --- The crop ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [112, 224, 96, 1])
def test_template_grows_with_the_size(size: int) -> None:
    five = 3 * np.float32(TEMPLATE)[:, ::-1] * (1, -1) + 50  # turned and enlarged
    matrix = crop_matrix(five.astype(np.float32), size)
    moved = five @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(moved, np.array(TEMPLATE) * size / 112, atol=1e-3)


def test_crop_puts_the_five_points_onto_the_template(model: MorphableModel) -> None:
    face = face_at(model, yaw=15, roll=25)
    five = face.landmarks_in("five")[:, :2]
    matrix = crop_matrix(five)
    expected = five @ matrix[:, :2].T + matrix[:, 2]
    # No similarity fits the toy's five points to the template, but it comes as near as any.
    assert np.abs(expected - TEMPLATE).max() < 30
    rows, columns = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE]
    for point, place in zip(five, expected, strict=True):
        spot = np.exp(-((columns - point[0]) ** 2 + (rows - point[1]) ** 2) / 18) * 255
        crop = face.aligned_crop(np.repeat(spot[:, :, None], 3, axis=2).astype(np.uint8))
        assert crop.shape == (112, 112, 3) and crop.dtype == np.uint8
        weights = crop[:, :, 0].astype(np.float64)
        y, x = (np.mgrid[:112, :112] * weights).sum(axis=(1, 2)) / weights.sum()
        np.testing.assert_allclose((x, y), place, atol=0.1)


def test_crop_keeps_colours_and_is_black_beyond_the_image(model: MorphableModel) -> None:
    face = face_at(model)
    orange = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), (255, 128, 0), np.uint8)
    crop = face.aligned_crop(orange, 64)
    np.testing.assert_array_equal(crop[32, 32], (255, 128, 0))
    np.testing.assert_array_equal(face.aligned_crop(orange[..., ::-1], 64, color="bgr"), crop)
    far = head_face(model, face.params, np.array(ROI) + 5000)
    assert not far.aligned_crop(orange).any()


def test_a_pack_without_the_five_points(tmp_path: Path) -> None:
    face = face_at(load_head(tmp_path / "m.safetensors"))
    with pytest.raises(PackError, match="no landmark set 'five'"):
        face.aligned_crop(np.zeros((9, 9, 3), np.uint8))


@pytest.mark.parametrize("draw", ["aligned_crop", "frontalized"])
def test_bad_arguments(model: MorphableModel, draw: str) -> None:
    call = getattr(face_at(model), draw)
    image = np.zeros((9, 9, 3), np.uint8)
    call(image, np.int64(5))
    for size in (0, -5, 100_000):
        with pytest.raises(ValueError, match=rf"size: expected 1\.\.8192 pixels, got {size}"):
            call(image, size)
    with pytest.raises(TypeError, match="size: expected a whole number, got True"):
        call(image, True)
    with pytest.raises(TypeError, match=r"size: expected a whole number, got 112\.5"):
        call(image, 112.5)
    with pytest.raises(ImageError):
        call(np.zeros((9, 9), np.float64))


# --- The frontal picture -------------------------------------------------------------------------


def inner(face: Face, size: int) -> Array:
    """Where the frontal picture shows the face: (size, size) bool, two pixels from its outline and
    away from its top and bottom, which even a frontal photo shows at a grazing angle."""
    picture = face.frontalized(np.full((IMAGE_SIZE, IMAGE_SIZE, 3), 255, np.uint8), size)
    covered = picture.max(axis=2) > 0
    where = covered.copy()
    for step in (1, 2):
        for axis in (0, 1):
            where &= np.roll(covered, step, axis) & np.roll(covered, -step, axis)
    where[: size // 8], where[-size // 8 :] = False, False
    return where


@pytest.mark.parametrize("size", [1, 64, 160])
def test_frontal_shape_and_place(model: MorphableModel, size: int) -> None:
    face = face_at(model, yaw=30, pitch=10, roll=-20)
    picture = face.frontalized(np.full((50, 60, 3), 200, np.uint8), size)
    assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
    if size == 160:
        rows, columns = np.nonzero(picture.max(axis=2))
        assert rows.min() + rows.max() == pytest.approx(size - 1, abs=1)
        assert columns.min() + columns.max() == pytest.approx(size - 1, abs=1)
        assert np.ptp(rows) == pytest.approx(0.92 * size, abs=2)
        # The head stands upright: it is higher than wide, and widest in the middle.
        assert np.ptp(columns) < 0.85 * np.ptp(rows)
        assert np.ptp(np.nonzero(picture[80].max(axis=1))[0]) == pytest.approx(np.ptp(columns))


@pytest.mark.parametrize(("yaw", "pitch", "least"), [(0, 0, 34), (25, 0, 26), (-30, 15, 26)])
def test_frontal_picture_of_a_turned_symmetric_face(
    model: MorphableModel, yaw: float, pitch: float, least: float
) -> None:
    colors = skin(model, symmetric=True)
    frontal = face_at(model)
    truth = frontal.frontalized(painted(frontal, colors), 96, mirror=False)
    turned = face_at(model, yaw=yaw, pitch=pitch)
    picture = turned.frontalized(painted(turned, colors), 96)
    where = inner(frontal, 96)
    assert psnr(picture[where], truth[where]) > least


def test_mirroring_fills_what_is_hidden(model: MorphableModel) -> None:
    colors = skin(model, symmetric=True)
    frontal, turned = face_at(model), face_at(model, yaw=60)
    truth = frontal.frontalized(painted(frontal, colors), 96, mirror=False)
    image = painted(turned, colors)
    where = inner(frontal, 96)
    filled, bare = (turned.frontalized(image, 96, mirror=mirror) for mirror in (True, False))
    hidden = where.copy()
    hidden[:, :56] = False  # the nose points to the image's right, so its other side is hidden
    assert psnr(filled[hidden], truth[hidden]) > psnr(bare[hidden], truth[hidden]) + 3
    shown = where.copy()
    shown[:, 30:] = False
    assert psnr(filled[shown], bare[shown]) > 30  # what is seen stays


def test_sides_are_not_exchanged(model: MorphableModel) -> None:
    face = face_at(model, yaw=10)
    colors = np.where(model.mean[:, :1] < 0, (200, 0, 0), (0, 0, 200)).astype(np.float32)
    picture = face.frontalized(painted(face, colors), 80)
    assert picture[40, 25, 0] > 150 and picture[40, 55, 2] > 150


def test_large_faces_are_averaged(model: MorphableModel) -> None:
    # A chequered face, sixteen times finer than the picture: grey, not a pattern of its own.
    face = head_face(model, head_params(), (0, 0, 1000, 1000))
    checks = (np.indices((1000, 1000)).sum(axis=0) % 2 * 255).astype(np.uint8)
    picture = face.frontalized(checks, 60)
    assert np.abs(picture[20:40, 20:40].astype(int) - 128).max() < 64
