"""Pictures of faces and their textures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from head import head_face, head_params, load_head
from threedfa import Face, ImageError, MorphableModel, ops, render, uv_texture
from threedfa.rendering import Mode, vertex_colors

Array = npt.NDArray[Any]

MODES = get_args(Mode)
FILLED = ("mesh", "wireframe", "depth", "pncc")  # drawn on nothing but the mesh
HEIGHT, WIDTH = 140, 160

every_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(scope="module")
def face(model: MorphableModel) -> Face:
    return head_face(model, head_params(yaw=20, pitch=-5, roll=10), (40, 20, 110, 90))


@pytest.fixture
def image() -> Array:
    return np.random.default_rng(5).integers(90, 170, (HEIGHT, WIDTH, 3), np.uint8)


def mask(face: Face) -> Array:
    return ops.rasterize(face.vertices, face.triangles, HEIGHT, WIDTH).triangle >= 0


# --- Every mode ----------------------------------------------------------------------------------


@every_mode
def test_draws_a_new_picture(image: Array, face: Face, mode: Mode) -> None:
    before = image.copy()
    params, landmarks, vertices = (a.copy() for a in (face.params, face.landmarks, face.vertices))
    picture = render(image, [face], mode)
    assert (picture.dtype, picture.shape) == (np.uint8, image.shape)
    assert picture.flags.writeable
    assert not np.shares_memory(picture, image)
    assert np.any(picture != image)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(face.params, params)
    np.testing.assert_array_equal(face.landmarks, landmarks)
    np.testing.assert_array_equal(face.vertices, vertices)


@every_mode
def test_leaves_the_rest_of_the_picture(image: Array, face: Face, mode: Mode) -> None:
    changed = np.any(render(image, [face], mode) != image, axis=2)
    if mode in FILLED:
        assert not np.any(changed & ~mask(face))
    elif mode in ("landmarks", "dense"):  # lines have a width
        grown = cv2.dilate(mask(face).astype(np.uint8), np.ones((9, 9)))
        assert not np.any(changed & (grown == 0))
    else:
        assert changed.mean() < 0.5


@every_mode
def test_alpha(image: Array, face: Face, mode: Mode) -> None:
    np.testing.assert_array_equal(render(image, [face], mode, alpha=0), image)
    full = render(image, [face], mode, alpha=1).astype(float)
    half = render(image, [face], mode, alpha=0.25)
    np.testing.assert_allclose(half, 0.75 * image + 0.25 * full, atol=0.51)
    default = render(image, [face], mode)
    same = render(image, [face], mode, alpha=0.6 if mode == "mesh" else 1)
    np.testing.assert_array_equal(default, same)


@every_mode
def test_color_order(image: Array, face: Face, mode: Mode) -> None:
    rgb = render(image, [face], mode)
    np.testing.assert_array_equal(render(image[:, :, ::-1], [face], mode, color="bgr"), rgb)


@every_mode
def test_any_strides_and_read_only_pictures(image: Array, face: Face, mode: Mode) -> None:
    expected = render(image, [face], mode)
    locked = np.asfortranarray(image)
    locked.flags.writeable = False
    np.testing.assert_array_equal(render(locked, [face], mode), expected)


@every_mode
def test_no_faces(image: Array, mode: Mode) -> None:
    picture = render(image, [], mode)
    np.testing.assert_array_equal(picture, image)
    assert not np.shares_memory(picture, image)


@every_mode
def test_every_face_is_drawn(image: Array, model: MorphableModel, mode: Mode) -> None:
    left, right = (head_face(model, head_params(), (x, 50, x + 50, 100)) for x in (10, 100))
    both = render(image, [left, right], mode)
    changed = np.any(both != image, axis=2)
    assert changed[:, :75].any()
    assert changed[:, 90:].any()
    one_by_one = render(render(image, [left], mode), [right], mode)
    np.testing.assert_array_equal(both, one_by_one)


@pytest.mark.parametrize("mode", ["landmarks", *FILLED])  # text stays in the picture
def test_a_part_of_the_picture(model: MorphableModel, mode: Mode) -> None:
    """What is drawn does not depend on where the picture ends."""
    clipped = head_face(model, head_params(yaw=30), (-30, -20, 70, 80))
    inside = head_face(model, head_params(yaw=30), (30, 40, 130, 140))
    part = render(np.zeros((140, 160, 3), np.uint8), [clipped], mode, alpha=1)
    whole = render(np.zeros((200, 220, 3), np.uint8), [inside], mode, alpha=1)
    np.testing.assert_allclose(part, whole[60:, 60:], atol=1)


@every_mode
@pytest.mark.parametrize(
    "roi",
    [
        (-30, -20, 40, 50),
        (120, 100, 190, 170),
        (-200, 20, -100, 120),
        (400, 20, 500, 120),
        (40, -300, 140, -200),
        (40, 900, 140, 1000),
        (-1e3, -1e3, 1e3, 1e3),
        (1e7, 1e7, 1e7 + 100, 1e7 + 100),
        (-1e9, -1e9, 1e9, 1e9),
        (0, 0, 1e15, 1e15),
        (-3e37, -3e37, 3e37, 3e37),
        (50, 50, 50.001, 50.001),
    ],
)
def test_faces_anywhere(image: Array, model: MorphableModel, mode: Mode, roi: Any) -> None:
    face = head_face(model, head_params(yaw=10), roi)
    picture = render(image, [face], mode)
    assert picture.shape == image.shape
    if mode in FILLED and not mask(face).any():
        np.testing.assert_array_equal(picture, image)


@every_mode
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3), (300, 1, 3)])
def test_tiny_pictures(face: Face, mode: Mode, shape: tuple[int, ...]) -> None:
    picture = render(np.full(shape, 100, np.uint8), [face], mode)
    assert picture.shape == shape


@every_mode
def test_grey_pictures_become_rgb(image: Array, face: Face, mode: Mode) -> None:
    grey = image[:, :, 0]
    expected = render(np.repeat(grey[:, :, None], 3, axis=2), [face], mode)
    np.testing.assert_array_equal(render(grey, [face], mode), expected)


@settings(max_examples=40)
@given(
    st.sampled_from(MODES),
    st.tuples(*[st.floats(-89, 89)] * 3),
    st.tuples(st.floats(-200, 200), st.floats(-200, 200), st.floats(0.01, 400)),
)
def test_any_pose(model: MorphableModel, mode: Mode, angles: Any, place: Any) -> None:
    x, y, side = place
    face = head_face(model, head_params(*angles), (x, y, x + side, y + side))
    background = np.full((60, 70, 3), 100, np.uint8)
    picture = render(background, [face], mode)
    assert picture.shape == background.shape


# --- Arguments -----------------------------------------------------------------------------------


def test_one_face_where_a_list_is_expected(image: Array, face: Face) -> None:
    with pytest.raises(TypeError, match="faces: expected a list of faces, got one Face; put it"):
        render(image, face, "mesh")  # type: ignore[arg-type]


def test_unknown_mode(image: Array, face: Face) -> None:
    for mode in ("meshes", "", None, 3, ["mesh"]):
        with pytest.raises(ValueError, match=r"mode: expected one of landmarks, .*pncc, got"):
            render(image, [face], mode)  # type: ignore[arg-type]


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), float("inf")])
def test_alpha_out_of_range(image: Array, face: Face, alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"alpha: expected None or 0\.\.1, got {alpha}"):
        render(image, [face], "mesh", alpha=alpha)


def test_wrong_images(face: Face) -> None:
    for wrong in (np.zeros((5, 5, 3)), np.zeros((0, 5, 3), np.uint8), np.zeros(5, np.uint8)):
        with pytest.raises(ImageError, match="expected an image"):
            render(wrong, [face], "mesh")
        with pytest.raises(ImageError, match="expected an image"):
            uv_texture(wrong, face)


# --- What is drawn -------------------------------------------------------------------------------


def test_pncc_shows_the_code(model: MorphableModel, face: Face) -> None:
    picture = render(np.zeros((HEIGHT, WIDTH, 3), np.uint8), [face], "pncc")
    raster = ops.rasterize(face.vertices, face.triangles, HEIGHT, WIDTH, attributes=255 * model.ncc)
    assert raster.image is not None
    np.testing.assert_allclose(picture, np.floor(raster.image), atol=1)


def test_depth_runs_from_black_to_white(face: Face) -> None:
    background = np.full((HEIGHT, WIDTH, 3), 7, np.uint8)
    picture = render(background, [face], "depth")
    assert np.all(picture == picture[:, :, :1])
    raster = ops.rasterize(face.vertices, face.triangles, HEIGHT, WIDTH)
    drawn = raster.triangle >= 0
    z = face.vertices[:, 2]
    expected = 255 * (raster.depth[drawn] - z.min()) / (z.max() - z.min())
    np.testing.assert_allclose(picture[drawn, 0], np.floor(expected), atol=1)
    assert np.all(picture[~drawn] == 7)


def test_mesh_is_lit_from_the_front(model: MorphableModel) -> None:
    """The nose faces the light more than the cheek does, and the light is white."""
    face = head_face(model, head_params(), (40, 20, 110, 90))
    picture = render(np.zeros((HEIGHT, WIDTH, 3), np.uint8), [face], "mesh", alpha=1)
    assert np.all(picture == picture[:, :, :1])
    rows, columns = np.nonzero(mask(face))
    row = (rows.min() + rows.max()) // 2 - 8  # the forehead
    across = columns[rows == row]
    middle = (across.min() + across.max()) // 2
    assert picture[row, middle, 0] > picture[row, across.min() + 3, 0] + 30
    assert picture[row, middle, 0] > picture[row, across.max() - 3, 0] + 30


def test_nearer_faces_of_a_mesh_hide_farther_ones(model: MorphableModel) -> None:
    """A head in profile shows the nose's code, not that of the other cheek behind it."""
    face = head_face(model, head_params(yaw=80), (40, 20, 110, 90))
    picture = render(np.zeros((HEIGHT, WIDTH, 3), np.uint8), [face], "pncc")
    # Turned to our right, it shows its right half, whose x is below the middle of the code.
    assert (picture[mask(face)][:, 0] < 0.55 * 255).mean() > 0.95


def test_landmarks_are_drawn_where_they_are(face: Face) -> None:
    picture = render(np.zeros((HEIGHT, WIDTH, 3), np.uint8), [face], "landmarks")
    for x, y in np.rint(face.landmarks[:, :2]).astype(int):
        assert picture[y, x].max() > 100


@pytest.mark.parametrize("mode", ["landmarks", "box", "pose"])
def test_lines_far_to_the_right(model: MorphableModel, mode: Mode) -> None:
    """Beyond the coordinates that 16 bits hold."""
    near, far = (head_face(model, head_params(), (x + 10, 20, x + 50, 60)) for x in (0, 40_000))
    expected = render(np.zeros((90, 70, 3), np.uint8), [near], mode)
    picture = render(np.zeros((90, 40_070, 3), np.uint8), [far], mode)
    # Landmarks at 40 000 pixels are rounded to 1/256 pixel.
    assert (np.abs(picture[:, 40_000:].astype(int) - expected) > 60).mean() < 0.01
    assert not picture[:, :39_900].any()


def test_vertices_have_the_colour_of_the_nearest_pixel(image: Array) -> None:
    far = 1e30
    vertices = np.float32([(3.4, 5.6, 0), (-1, 2, 0), (2, far, 9), (-far, -far, 0)])
    rows, columns = [6, 2, HEIGHT - 1, 0], [3, 0, 2, 0]
    np.testing.assert_array_equal(vertex_colors(image, vertices), image[rows, columns])


def test_dense_points_are_those_that_face_us(face: Face) -> None:
    picture = render(np.zeros((HEIGHT, WIDTH, 3), np.uint8), [face], "dense")
    drawn = set(zip(*np.nonzero(picture.any(axis=2)), strict=True))
    assert len(drawn) > 50
    assert drawn <= {(y, x) for x, y in np.rint(face.vertices[:, :2]).astype(int).tolist()}


def test_box_is_drawn_where_it_is(image: Array, face: Face) -> None:
    picture = render(np.zeros_like(image), [face], "box")
    x1, y1, x2, y2 = face.bbox.astype(int)
    for x, y in ((x1, y1), (x2, y1), (x1, y2), (x2, y2), ((x1 + x2) // 2, y2)):
        assert picture[y, x].any()
    assert not picture[(y1 + y2) // 2, (x1 + x2) // 2].any()


@pytest.mark.parametrize(("yaw", "pitch"), [(40, 0), (-40, 0), (0, 40), (0, -40)])
def test_pose_box_points_where_the_head_looks(
    model: MorphableModel, yaw: float, pitch: float
) -> None:
    """The larger square, in front of the face, goes where the nose goes."""
    large = np.zeros((400, 400, 3), np.uint8)

    def middle(**angles: float) -> Array:
        face = head_face(model, head_params(**angles), (170, 170, 230, 230))
        picture = render(large, [face], "pose")
        # The text is drawn in white on black below the box.
        green = (picture[:, :, 1] > 200) & (picture[:, :, 2] < 60)
        ys, xs = np.nonzero(green)
        return np.array([xs.min() + xs.max(), ys.min() + ys.max()]) / 2

    moved = middle(yaw=yaw, pitch=pitch) - middle()
    assert np.sign(np.round(moved[0] / 8)) == np.sign(yaw)
    assert np.sign(np.round(moved[1] / 8)) == -np.sign(pitch)


def test_wireframe_shows_the_edges(model: MorphableModel) -> None:
    face = head_face(model, head_params(), (0, 0, 400, 400))  # triangles of many pixels
    picture = render(np.zeros((400, 400, 3), np.uint8), [face], "wireframe")
    drawn = (ops.rasterize(face.vertices, face.triangles, 400, 400).triangle >= 0).sum()
    assert 0.02 * drawn < (picture[:, :, 0] > 128).sum() < 0.4 * drawn


# --- Textures ------------------------------------------------------------------------------------


def test_texture_needs_coordinates(tmp_path: Path, image: Array) -> None:
    model = load_head(tmp_path / "m.safetensors", uv=None)
    with pytest.raises(ValueError, match=r"texture coordinates.*BFM_UV.mat"):
        uv_texture(image, head_face(model, head_params()))


@pytest.mark.parametrize("size", [1, 2, 256, 300])
def test_texture_sizes(image: Array, face: Face, size: int) -> None:
    texture = uv_texture(image, face, size=size)
    assert (texture.dtype, texture.shape) == (np.uint8, (size, size, 3))
    np.testing.assert_array_equal(
        uv_texture(image[:, :, ::-1], face, size=size, color="bgr"), texture
    )


def test_texture_of_one_colour(model: MorphableModel, face: Face) -> None:
    texture = uv_texture(np.full((HEIGHT, WIDTH, 3), (200, 100, 50), np.uint8), face, size=256)
    black = np.all(texture == 0, axis=2)
    assert 0.002 < black.mean() < 0.8  # the layout of the head does not fill the square
    np.testing.assert_allclose(
        texture[~black], np.tile((200, 100, 50), ((~black).sum(), 1)), atol=1
    )


def flat_face(path: Path, count: int) -> Face:
    """A sheet of count × count vertices, one on each pixel of a picture of that size, whose
    texture coordinates are its place in the picture."""
    down, across = (grid.ravel() for grid in np.mgrid[:count, :count])
    corner = np.arange(count * count, dtype=np.int32).reshape(count, count)
    a, b, c, d = (
        part.ravel()
        for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:])
    )
    model = load_head(
        path,
        mean=np.stack([across, -down, 0 * down], axis=1).astype(np.float32),
        shape_basis=np.zeros((0, count**2, 3), np.float32),
        expression_basis=np.zeros((0, count**2, 3), np.float32),
        triangles=np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)]),
        uv=(np.stack([across + 0.5, count - 0.5 - down], axis=1) / count).astype(np.float32),
        landmark_vertices=np.zeros((68, 3), np.int32),
    )
    camera = np.float32([1, 0, 0, 1, 0, 1, 0, model.input_size, 0, 0, 1, 0])
    face = head_face(model, camera, (0, 0, model.input_size, model.input_size))
    np.testing.assert_array_equal(face.vertices, np.stack([across, down, 0 * down], axis=1))
    return face


@pytest.mark.parametrize("count", [3, 17, 33])
def test_texture_of_a_sheet_is_the_picture_itself(tmp_path: Path, count: int) -> None:
    picture = np.random.default_rng(count).integers(0, 256, (count, count, 3), np.uint8)
    face = flat_face(tmp_path / "m.safetensors", count)
    texture = uv_texture(picture, face, size=count, fill="photo")
    inside = slice(1, -1)  # the outermost texels have their centres on the border of the layout
    np.testing.assert_allclose(texture[inside, inside], picture[inside, inside], atol=1)


def test_texture_of_a_sheet_can_be_enlarged(tmp_path: Path) -> None:
    ramp = np.zeros((17, 17, 3), np.uint8)
    ramp[:, :, 0] = 10 * np.arange(17)
    ramp[:, :, 1] = 10 * np.arange(17)[:, None]
    face = flat_face(tmp_path / "m.safetensors", 17)
    texture = uv_texture(ramp, face, size=161, fill="photo")
    place = (np.arange(161) + 0.5) / 161 * 17 - 0.5  # of the texels, in pixels
    inside = (place > 0) & (place < 16)
    row = 10 * place[inside]
    texture = texture[inside][:, inside]
    np.testing.assert_allclose(texture[:, :, 0], np.tile(row, (len(row), 1)), atol=1)
    np.testing.assert_allclose(texture[:, :, 1], np.tile(row[:, None], (1, len(row))), atol=1)


@every_mode
def test_flat_faces(tmp_path: Path, mode: Mode) -> None:
    """A sheet has neither depth nor, here, landmarks that differ."""
    picture = np.full((40, 40, 3), 50, np.uint8)
    drawn = render(picture, [flat_face(tmp_path / "m.safetensors", 33)], mode)
    assert drawn.shape == picture.shape
