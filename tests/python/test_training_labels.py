"""Labels that the regressor is trained with lie where its pictures show them.

Pictures here are black with one coloured dot at each of three of the teacher's points, so they tell
by themselves where these have come to.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from training_steps import mirror_images, tool

pytest.importorskip("torch", reason="training needs torch: pip install 'threedfa[train]'")

Array = npt.NDArray[Any]

DOTTED = [33, 263, 152]  # of the 468: outer corners of the right and the left eye, chin
SIGMA = 3.0  # of the dots, pixels
# Of well aligned faces; what is out of place differs by more. Shift and scale are of the side of
# the region, roll in radians.
MOST_SHIFT, SCALES, MOST_ROLL = 0.3, (0.53, 1.6), np.pi / 2


def head(face_model: Any, rng: np.random.Generator, middle: float) -> Array:
    """Parameters of a lopsided head that fills the region in a crop with this middle."""
    crops, renders = tool("crops"), tool("renders")
    shape = rng.normal(0, 1, face_model.shape_count)
    shape[face_model.mirror_signs < 0] = rng.choice([-3, 3], (face_model.mirror_signs < 0).sum())
    coefficients = np.concatenate([shape, rng.uniform(0, 1, face_model.expression_count)])
    coefficients = coefficients.astype(np.float32)
    camera = np.zeros((3, 4), np.float32)
    yaw, pitch = rng.uniform(-0.3, 0.3, 2)
    camera[:, :3] = renders.rotation(yaw, pitch, 0) * [[1], [-1], [1]]
    side, center = renders.region_side(
        camera, face_model.points68.of(face_model.vertices(coefficients))
    )
    camera *= crops.REGION / side
    camera[:2, 3] = middle - center * crops.REGION / side
    return np.concatenate([camera.ravel(), coefficients])


def projected(face_model: Any, params: Array) -> Array:
    """(468, 2) in the frame of the camera."""
    camera = params[:12].reshape(3, 4)
    points = face_model.points468.of(face_model.vertices(params[12:]))
    flat: Array = points @ camera[:2, :3].T + camera[:2, 3]
    return flat


def dots(points: Array, side: int) -> Array:
    """A picture with a dot of another channel at each of three points."""
    y, x = np.mgrid[:side, :side]
    apart = (x[..., None] - points[:, 0]) ** 2 + (y[..., None] - points[:, 1]) ** 2
    picture: Array = np.rint(255 * np.exp(-apart / (2 * SIGMA**2))).astype(np.uint8)
    return picture


def seen(picture: Array) -> Array:
    """(3, 2) middles of the dots; NaN for those that are cut off by the border."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    weight = np.where(picture > 20, picture, 0).astype(float)
    inner = np.zeros(picture.shape[:2], bool)
    inner[1:-1, 1:-1] = True
    total = weight.sum((0, 1))
    whole = (weight[~inner].max(0) == 0) & (picture.max((0, 1)) > 60)
    middles = np.stack([(weight * axis[..., None]).sum((0, 1)) for axis in (x, y)], 1)
    return np.where(whole[:, None], middles / np.maximum(total, 1)[:, None], np.nan)


@pytest.fixture(scope="module")
def examples(face_model: Any) -> Any:
    """Of eight portraits and eight renders, with nothing changed but the geometry."""
    module, renders = tool("crops"), tool("renders")
    rng = np.random.default_rng(1)

    def crops(taught: bool) -> Any:
        params = np.stack([head(face_model, rng, (renders.CROP - 1) / 2) for _ in range(8)])
        points = np.stack([projected(face_model, row) for row in params])
        images = np.stack([dots(p[DOTTED], renders.CROP) for p in points])
        return module.Crops([images[:5], images[5:]], params, points if taught else None)

    return module.Examples(
        model=face_model,
        mirror468=mirror_images(face_model.points468.of(face_model.mean)),
        portraits=crops(True),
        renders=crops(False),
        batch_size=64,
        seed=3,
        strength=0.0,
        gentle_batches=0,
    )


@pytest.fixture(scope="module")
def batches(examples: Any) -> list[Any]:
    return [examples[number] for number in range(6)]


def shown(batches: list[Any]) -> Any:
    """Place in its batch, picture's dots in the pack's frame in the order of DOTTED, whether the
    picture is a mirrored one."""
    to_pack_frame = tool("face").to_pack_frame
    for batch in batches:
        for i, image in enumerate(batch.images):
            found = seen(image)
            across, down = found[1] - found[0], found[2] - found[0]
            mirrored = across[0] * down[1] < across[1] * down[0]
            if mirrored:  # what was the right eye is the left one
                found = found[[1, 0, 2]]
            yield batch, i, to_pack_frame(found), mirrored


def test_cameras_and_coefficients_lie_on_the_pictures(face_model: Any, batches: list[Any]) -> None:
    counts = np.zeros(2)
    for batch, i, found, mirrored in shown(batches):
        lengths = np.linalg.norm(batch.params[i, :12].reshape(3, 4)[:, :3], axis=1)
        assert np.ptp(lengths) < 1e-3 * lengths[0]  # depth has the scale of the picture
        labelled = projected(face_model, batch.params[i])[DOTTED]
        if np.isfinite(found).all():
            assert np.abs(labelled - found).max() < 0.5
            counts[int(mirrored)] += 1
    assert counts.min() > 100


def test_the_teachers_points_lie_on_the_pictures(batches: list[Any]) -> None:
    counts = np.zeros(2)
    for batch, i, found, mirrored in shown(batches):
        if not batch.taught[i]:
            assert (batch.points[i] == 0).all()
        elif np.isfinite(found).all():
            assert np.abs(batch.points[i][DOTTED] - found).max() < 0.5
            counts[int(mirrored)] += 1
    assert counts.min() > 30


def test_teacher_and_face_model_agree_on_all_points(face_model: Any, batches: list[Any]) -> None:
    for batch in batches:
        pairs = zip(batch.params[batch.taught], batch.points[batch.taught], strict=True)
        for params, points in pairs:
            assert np.abs(projected(face_model, params) - points).max() < 0.5


def test_faces_out_of_place_are_those_that_are_not_aligned(
    face_model: Any, batches: list[Any]
) -> None:
    face, renders = tool("face"), tool("renders")
    middle = face.to_pack_frame(np.full(2, (face.INPUT_SIZE - 1) / 2))
    counts = np.zeros(2)
    for batch in batches:
        for params, aligned in zip(batch.params, batch.aligned, strict=True):
            camera = params[:12].reshape(3, 4).copy()
            camera[:2, 3] -= middle
            turn = camera[:, :3] / np.linalg.norm(camera[:, :3], axis=1, keepdims=True)
            roll = renders.angles(turn)[2]
            upright = renders.rotation(0, 0, -roll) @ camera
            points = face_model.points68.of(face_model.vertices(params[12:]))
            side, center = renders.region_side(upright, points)
            scale, shift = side / face.INPUT_SIZE, np.linalg.norm(center) / face.INPUT_SIZE
            near = shift < MOST_SHIFT and SCALES[0] < scale < SCALES[1]
            assert aligned == (near and abs(roll) < MOST_ROLL)
            counts[int(aligned)] += 1
    assert counts.min() > 10


def test_the_regions_middle_comes_to_the_crops_middle() -> None:
    """But for the shift, however it is turned and sized; and the picture is where the map says."""
    augment = tool("augment")
    middle, half = np.array([80.0, 80.0]), np.array([30.0, 0.0])
    picture = dots(np.array([middle, middle + half, middle - half]), 161)
    for move in ((1.0, 0.0, 0.0, 0.0), (0.9, 0.1, -0.05, 0.0), (1.2, -0.1, 0.07, 0.6)):
        scale, *shift, angle = move
        cut, affine = augment.warp(picture, 120.0, 90, move, cv2.BORDER_CONSTANT)
        assert cut.shape == (90, 90, 3)
        centre = (90 - 1) / 2 + 90 * np.array(shift)
        radius = scale * 90 / 120 * 30 * np.array([np.cos(angle), np.sin(angle)])
        expected = np.array([centre, centre + radius, centre - radius])
        assert np.abs(seen(cut) - expected).max() < 0.1
        there = np.array([middle, middle + half, middle - half]) @ affine[:, :2].T + affine[:, 2]
        assert np.abs(there - expected).max() < 1e-4


def test_a_mirrored_head_is_the_mirrored_picture(face_model: Any) -> None:
    """All of the points, with all that tells left from right: shapes and expressions."""
    rng = np.random.default_rng(2)
    partner = mirror_images(face_model.points468.of(face_model.mean))
    for _ in range(5):
        params = head(face_model, rng, 60)
        camera, coefficients = face_model.mirror(params[:12].reshape(3, 4), params[12:], 120)
        flipped = projected(face_model, np.concatenate([camera.ravel(), coefficients]))
        expected = projected(face_model, params)[partner] * [-1, 1] + [119, 0]
        assert np.abs(flipped - expected).max() < 0.3
        again = face_model.mirror(camera, coefficients, 120)
        assert np.abs(again[0].ravel() - params[:12]).max() < 1e-4
        assert (again[1] == params[12:]).all()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("yaw", [-0.3, 0.3])
@pytest.mark.parametrize("pitch", [-0.25, 0.25])
def test_eyes_look_into_the_camera(face_model: Any, side: str, yaw: float, pitch: float) -> None:
    turn = tool("renders").rotation(yaw, pitch, 0)
    cameras = np.pad(6 * turn * [[1], [-1], [1]], ((0, 0), (0, 1)))[None].astype(np.float32)
    rest = np.zeros((1, face_model.shape_count + face_model.expression_count), np.float32)
    (looking,) = tool("labels").look_into_camera(face_model, cameras, rest)
    eyeball = np.flatnonzero(face_model.region == face_model.region_names.index(f"{side} eyeball"))
    pupil = eyeball[face_model.mean[eyeball, 2].argmax()]

    def away(coefficients: Array) -> float:
        """Degrees between the way the eye looks and the way to the camera."""
        vertices = face_model.vertices(coefficients)
        gaze = vertices[pupil] - vertices[eyeball].mean(0)
        return float(np.degrees(np.arccos(gaze @ turn[2] / np.linalg.norm(gaze))))

    assert away(rest[0]) > 20
    assert away(looking) < 3
    assert rest.max() == 0  # what is given stays


def test_measuring_on_renders_shows_packs_what_the_renders_show(face_model: Any) -> None:
    """Packs are given RGB, and have the errors that were put into their answers."""
    module, crops, renders = (tool(name) for name in ("evaluate_renders", "crops", "renders"))
    rng = np.random.default_rng(6)
    params = np.stack([head(face_model, rng, (renders.CROP - 1) / 2) for _ in range(6)])
    pictures = rng.integers(0, 256, (6, 20, 20, 3), np.uint8)
    given: list[Array] = []

    def analyze(image: Array) -> list[Any]:
        row = params[len(given)]
        given.append(image)
        if len(given) == 2:
            return []
        landmarks = face_model.landmarks(row)
        low, high = landmarks.min(0), landmarks.max(0)
        shift = [0.02 * (high - low).max(), 0]
        angles = np.array(renders.angles(renders.object_rotation(row))) + np.deg2rad([0, 0, 5])
        face = SimpleNamespace(
            bbox=np.concatenate([low, high]),
            pose=SimpleNamespace(rotation=renders.rotation(*angles)),
            landmarks=np.column_stack([landmarks + shift, landmarks[:, :1]]),
            expression_coeffs=row[12 + face_model.shape_count :],
        )
        elsewhere = SimpleNamespace(**{**vars(face), "bbox": np.zeros(4)})
        return [elsewhere, face]

    analyzer = SimpleNamespace(analyze=analyze)
    measured = module.measure(analyzer, face_model, crops.Crops([pictures], params, None), 6)
    np.testing.assert_array_equal(given, pictures[..., ::-1])
    assert measured.missed == 1
    np.testing.assert_allclose(measured.angle_errors, [[0, 0, 5]] * 5, atol=0.01)
    np.testing.assert_allclose(measured.rotation_error, 5, atol=0.01)
    np.testing.assert_allclose(measured.landmark_error, 2, atol=0.01)
    left = np.delete(params, 1, 0)
    yaws = [np.degrees(renders.angles(renders.object_rotation(row))[0]) for row in left]
    np.testing.assert_allclose(measured.yaw, yaws, rtol=1e-5)
    for coefficients in (measured.found, measured.true):
        np.testing.assert_array_equal(coefficients, left[:, 12 + face_model.shape_count :])
