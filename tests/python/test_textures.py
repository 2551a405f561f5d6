"""Textures against exact rays, exact samples, and textures that faces were drawn with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from head import head_face, head_params, load_head
from pictures import psnr
from threedfa import Face, MorphableModel, _core, ops, uv_texture
from threedfa.textures import Fill, mesh_texture
from toy_pack import COLUMNS, ROWS, head_model

Array = npt.NDArray[Any]

SIZE = 256
SIDE = 480  # of pictures
ROI = (60, 60, 420, 420)


def turned(model: MorphableModel, yaw: float = 0, pitch: float = 0) -> Face:
    return head_face(model, head_params(yaw, pitch), ROI)


def pattern(symmetric: bool = False) -> Array:
    """A smooth made-up texture with details of about 20 texels."""
    noise = np.random.default_rng(4).random((SIZE, SIZE, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6, borderType=cv2.BORDER_REPLICATE)
    smooth -= smooth.min()
    texture = 30 + 200 * smooth / smooth.max()
    if symmetric:
        texture = (texture + texture[:, ::-1]) / 2
    return texture


def draw(face: Face, texture: Array) -> Array:
    """A picture of the face with a texture, computed without the code that is tested."""
    raster = ops.rasterize(face.vertices, face.triangles, SIDE, SIDE, attributes=face.model.uv)
    assert raster.image is not None
    u, v = (raster.image[:, :, i].astype(np.float32) for i in (0, 1))
    picture = cv2.remap(
        np.asarray(texture, np.float32),
        u * SIZE - 0.5,
        (1 - v) * SIZE - 0.5,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    picture[raster.triangle < 0] = (0, 255, 0)
    return np.rint(picture).astype(np.uint8)


def texel_points(face: Face, size: int) -> tuple[Array, Array, Array]:
    """For each texel of the layout: triangle (-1 where there is none), point in the picture and
    unit normal; in double precision and one triangle after the other."""
    uv = face.model.uv
    assert uv is not None
    layout = np.stack([uv[:, 0] * size - 0.5, (1 - uv[:, 1].astype(float)) * size - 0.5], axis=1)
    normals = face.normals.astype(float)
    owner = np.full((size, size), -1)
    points, directions = np.zeros((2, size, size, 3))
    for number, corners in enumerate(face.triangles):
        a, b, c = layout[corners]
        matrix = np.stack([b - a, c - a], axis=1)
        if np.linalg.det(matrix) == 0:
            continue
        low = np.floor(layout[corners].min(axis=0)).astype(int).clip(0, size)
        high = np.ceil(layout[corners].max(axis=0)).astype(int).clip(0, size - 1)
        box = slice(low[1], high[1] + 1), slice(low[0], high[0] + 1)
        row, column = np.mgrid[box]
        weights = np.einsum(
            "ij,jrc->irc", np.linalg.inv(matrix), np.stack([column - a[0], row - a[1]])
        )
        inside = (weights[0] > 0) & (weights[1] > 0) & (weights.sum(axis=0) < 1) & (owner[box] < 0)
        shares = np.stack([1 - weights.sum(axis=0), *weights])[:, inside]
        owner[box][inside] = number
        points[box][inside] = shares.T @ face.vertices[corners]
        directions[box][inside] = shares.T @ normals[corners]
    lengths = np.linalg.norm(directions, axis=2, keepdims=True)
    return owner, points, directions / np.maximum(lengths, 1e-12)


def depth_of_covers(face: Face, point: Array, own: int) -> float:
    """How far before a point the ray from it to the viewer meets the mesh; -inf if it does not."""
    a, b, c = face.vertices[face.triangles].astype(float).transpose(1, 0, 2)
    edge, other, away = b - a, c - a, point - a
    area = edge[:, 0] * other[:, 1] - edge[:, 1] * other[:, 0]
    area[area == 0] = np.nan
    s = (away[:, 0] * other[:, 1] - away[:, 1] * other[:, 0]) / area
    t = (edge[:, 0] * away[:, 1] - edge[:, 1] * away[:, 0]) / area
    hit = (s >= 0) & (t >= 0) & (s + t <= 1)
    hit[own] = False
    depth = (a[:, 2] + s * edge[:, 2] + t * other[:, 2])[hit] - point[2]
    return float(depth.max(initial=-np.inf))


def bilinear(picture: Array, points: Array) -> Array:
    points = points.astype(np.float32)
    sampled = cv2.remap(
        picture.astype(np.float32), points[..., 0], points[..., 1], cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return np.asarray(sampled)


# --- Visibility -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (50, 0), (-70, 20), (10, -60)])
def test_visibility_against_exact_rays(model: MorphableModel, yaw: float, pitch: float) -> None:
    face, size = turned(model, yaw, pitch), 96
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    _, visibility = uv_texture(picture, face, size=size, return_visibility=True)
    owner, points, normals = texel_points(face, size)
    sample = np.random.default_rng(0).choice(np.flatnonzero(owner >= 0), 1500, replace=False)
    wrong = hidden = 0
    for texel in sample:
        point, cosine = points.reshape(-1, 3)[texel], normals.reshape(-1, 3)[texel, 2]
        found = visibility.ravel()[texel]
        if abs(cosine) < 0.01:
            continue  # on the horizon
        cover = depth_of_covers(face, point, int(owner.ravel()[texel]))
        expected = 0 if cosine < 0 or cover > 1e-3 else cosine
        if expected and found:
            assert found == pytest.approx(expected, abs=1e-4)
        # The z-buffer sees the surface of a pixel: near folds, and where something lies less than
        # three pixels of 360 before the point, rays are finer.
        wrong += bool(expected) != bool(found) and not (0 < cover < 3)
        hidden += cosine > 0.01 and cover >= 3
    assert wrong <= 0.008 * len(sample)
    assert (yaw, pitch) == (0, 0) or hidden >= 5  # the nose hides something


def test_visibility_is_nothing_outside_the_layout_and_the_picture(model: MorphableModel) -> None:
    face = turned(model)
    picture = np.full((SIDE, SIDE, 3), 99, np.uint8)
    owner, points, _ = texel_points(face, 64)
    _, whole = uv_texture(picture, face, size=64, return_visibility=True)
    assert whole.dtype == np.float32 and whole.shape == (64, 64)
    assert not whole[owner < 0].any()
    middle = SIDE // 2
    _, cut = uv_texture(picture[:, :middle], face, size=64, return_visibility=True)
    beyond = points[:, :, 0] > middle - 0.5
    assert not cut[beyond].any()
    np.testing.assert_array_equal(cut[~beyond], whole[~beyond])


# --- Sampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [512, 1024])
def test_every_texel_is_sampled_on_its_own(model: MorphableModel, size: int) -> None:
    """In a picture of noise: interpolating between vertices, or a blur, would be far off."""
    face = turned(model, 15, 5)
    picture = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    texture, visibility = uv_texture(picture, face, size=size, fill="photo", return_visibility=True)
    owner, points, _ = texel_points(face, size)
    clear = (owner >= 0) & (visibility > 0.5)  # there a texel is smaller than a pixel
    difference = np.abs(texture[clear] - bilinear(picture, points)[clear])
    assert clear.mean() > 0.3
    assert np.percentile(difference, 99) <= 8.5  # OpenCV's places have 5 bits behind the point


def test_texels_larger_than_pixels_are_means(model: MorphableModel) -> None:
    """Black and white by turns, which single samples would show as a pattern of their own."""
    y, x = np.mgrid[:SIDE, :SIDE]
    board = np.repeat(((x + y) % 2 * 200)[:, :, None], 3, axis=2).astype(np.uint8)
    texture, visibility = uv_texture(board, turned(model), size=32, return_visibility=True)
    clear = texture[visibility > 0.7]
    assert len(clear) > 100
    assert np.abs(clear.astype(int) - 100).max() <= 6


def test_fill_of_the_photo_shows_whatever_is_there(model: MorphableModel) -> None:
    face = turned(model, 60)
    picture = draw(face, pattern())
    owner, points, _ = texel_points(face, 512)
    texture = uv_texture(picture, face, size=512, fill="photo")
    covered = owner >= 0
    difference = np.abs(texture[covered] - bilinear(picture, points)[covered])
    assert np.median(difference) < 1


def test_size_of_4096(model: MorphableModel) -> None:
    texture = uv_texture(draw(turned(model), pattern()), turned(model), size=4096, fill="photo")
    assert texture.shape == (4096, 4096, 3)


# --- Round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (30, 0), (-20, 15)])
def test_round_trip(model: MorphableModel, yaw: float, pitch: float) -> None:
    face, made_up = turned(model, yaw, pitch), pattern()
    picture = draw(face, made_up)
    texture, visibility = uv_texture(picture, face, size=SIZE, return_visibility=True)
    # Well within what is seen; elsewhere the other half is mixed in, which is different here.
    clear = cv2.erode((visibility > 0.5).astype(np.uint8), np.ones((17, 17))) > 0
    assert clear.mean() > 0.2
    assert psnr(texture[clear], made_up[clear]) > 38

    # Drawn again, the face looks the same wherever it can be seen.
    again = draw(face, mesh_texture(picture, face, SIZE))
    shown = cv2.erode((picture != (0, 255, 0)).any(axis=2).astype(np.uint8), np.ones((9, 9))) > 0
    assert psnr(again[shown], picture[shown]) > 36


@pytest.mark.parametrize("yaw", [45, -45, 65])
def test_hidden_half_comes_from_the_other(model: MorphableModel, yaw: float) -> None:
    face, made_up = turned(model, yaw), pattern(symmetric=True)
    picture = draw(face, made_up)
    texture, visibility = uv_texture(picture, face, size=SIZE, return_visibility=True)
    covered = texel_points(face, SIZE)[0] >= 0
    filled = covered & (visibility == 0) & (visibility[:, ::-1] > 0.5)
    assert filled.mean() > 0.1
    assert psnr(texture[filled], made_up[filled]) > 28
    photo = uv_texture(picture, face, size=SIZE, fill="photo")
    assert psnr(photo[filled], made_up[filled]) < 24


def test_there_is_no_seam(model: MorphableModel) -> None:
    """A head lit from one side: its halves differ by 80 levels, but nowhere abruptly."""
    face = turned(model, 40)
    lit = np.repeat(np.linspace(80, 200, SIZE)[None, :, None], SIZE, axis=0).repeat(3, axis=2)
    picture = draw(face, lit)
    texture, visibility = uv_texture(picture, face, size=SIZE, return_visibility=True)
    border = np.diff((visibility > 0).astype(int), axis=1) != 0
    border[:, : SIZE // 2] = False  # the seam, not the horizon on the near side
    border &= (texel_points(face, SIZE)[0] >= 0)[:, :-1] & (np.arange(SIZE - 1) < SIZE - 5)
    gap = np.abs(lit - lit[:, ::-1])[:, :-1][border]
    step = np.abs(np.diff(texture.astype(int), axis=1))[border]
    assert np.median(gap) > 25 and np.percentile(step, 95) < 6


def test_without_symmetry_the_colours_around(tmp_path: Path) -> None:
    skewed = head_model()["mean"] * np.float32([1, 1, 1])
    skewed[:, 0] += 0.4 * (skewed[:, 0] > 0.2)
    model = load_head(tmp_path / "m.safetensors", mean=skewed)
    assert model.mirror_vertices is None
    face = head_face(model, head_params(50), ROI)
    picture = draw(face, np.full((SIZE, SIZE, 3), (200, 120, 60)))
    texture, visibility = uv_texture(picture, face, size=64, return_visibility=True)
    covered = texel_points(face, 64)[0] >= 0
    hidden = covered & (visibility == 0)
    assert hidden.sum() > 100
    # The sky beyond the head gets into texels at its edge, but no farther.
    assert (np.abs(texture[covered].astype(int) - (200, 120, 60)).max(axis=1) <= 3).mean() > 0.97


def test_a_face_that_is_not_in_the_picture(model: MorphableModel) -> None:
    picture = np.full((20, 20, 3), 50, np.uint8)
    face = head_face(model, head_params(), (500, 500, 600, 600))
    fills: tuple[Fill, ...] = ("mirror", "photo", "transparent")
    for fill in fills:
        texture, visibility = uv_texture(picture, face, fill=fill, return_visibility=True)
        assert not visibility.any() and texture.shape[:2] == (256, 256)


# --- Transparency, meshes -------------------------------------------------------------------------


def test_hidden_texels_can_be_transparent(model: MorphableModel) -> None:
    face = turned(model, 50)
    picture = draw(face, pattern())
    texture, visibility = uv_texture(
        picture, face, size=SIZE, fill="transparent", return_visibility=True
    )
    assert texture.shape == (SIZE, SIZE, 4) and texture.dtype == np.uint8
    np.testing.assert_array_equal(texture[:, :, 3], np.where(visibility > 0, 255, 0))
    seen = visibility > 0
    photo = uv_texture(picture, face, size=SIZE, fill="photo")
    np.testing.assert_array_equal(texture[seen, :3], photo[seen])
    assert not texture[~seen].any()


def test_textures_of_meshes_have_no_black_border(model: MorphableModel) -> None:
    face = turned(model)
    picture = draw(face, np.full((SIZE, SIZE, 3), (200, 120, 60)))
    texture = uv_texture(picture, face, size=SIZE)
    padded = mesh_texture(picture, face, SIZE)
    covered = texel_points(face, SIZE)[0] >= 0
    np.testing.assert_array_equal(padded[covered], texture[covered])
    assert not texture[~covered].any()
    assert np.abs(padded.astype(int) - (200, 120, 60)).max(axis=2).mean() < 2


def test_frontal_faces_are_left_as_they_are(model: MorphableModel) -> None:
    face = turned(model)
    picture = draw(face, pattern())
    texture, visibility = uv_texture(picture, face, return_visibility=True)
    photo = uv_texture(picture, face, fill="photo")
    clear = visibility > 0.5
    assert (np.abs(texture[clear].astype(int) - photo[clear]).max(axis=1) <= 1).mean() > 0.99


# --- The mirror -----------------------------------------------------------------------------------


def test_mirror_of_a_symmetric_head(model: MorphableModel) -> None:
    grid = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    mirror = model.mirror_vertices
    assert mirror is not None and mirror is model.mirror_vertices  # computed once
    np.testing.assert_array_equal(mirror, grid[:, ::-1].ravel())
    assert mirror.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        mirror[0] = 1


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_mirror_is_the_nearest_vertex(tmp_path: Path, noise: float) -> None:
    rng = np.random.default_rng(9)
    half = rng.normal(size=(400, 3))
    points = np.concatenate([half, half * (-1, 1, 1) + noise * rng.normal(size=(400, 3))])
    points = points[rng.permutation(800)].astype(np.float32)
    model = load_head(
        tmp_path / "m.safetensors",
        mean=points,
        shape_basis=np.zeros((0, 800, 3), np.float32),
        expression_basis=np.zeros((0, 800, 3), np.float32),
        uv=None,
    )
    distances = np.linalg.norm(points[:, None] * (-1, 1, 1) - points[None], axis=2)
    mirror = model.mirror_vertices
    assert mirror is not None
    np.testing.assert_allclose(
        distances[np.arange(800), mirror], distances.min(axis=1), rtol=0, atol=1e-6
    )


# --- Arguments ------------------------------------------------------------------------------------


def test_unknown_fill(model: MorphableModel) -> None:
    with pytest.raises(ValueError, match="fill: expected one of mirror, photo, transparent, got"):
        uv_texture(np.zeros((9, 9, 3), np.uint8), turned(model), fill="none")  # type: ignore[call-overload]


def test_sizes_out_of_range(model: MorphableModel) -> None:
    picture, face = np.zeros((9, 9, 3), np.uint8), turned(model)
    for size in (0, -1, 8193):
        with pytest.raises(ValueError, match=rf"size: expected 1\.\.8192 pixels, got {size}"):
            uv_texture(picture, face, size=size)
    with pytest.raises(TypeError, match="texture size: expected a whole number"):
        uv_texture(picture, face, size=256.5)  # type: ignore[call-overload]


def test_arguments_are_left_as_they_were(model: MorphableModel) -> None:
    face = turned(model, 30)
    picture = draw(face, pattern())
    before, vertices = picture.copy(), face.vertices.copy()
    uv_texture(picture, face)
    np.testing.assert_array_equal(picture, before)
    np.testing.assert_array_equal(face.vertices, vertices)


def test_kernel_checks_its_arguments(model: MorphableModel) -> None:
    face = turned(model)
    good: dict[str, Any] = {
        "image": np.zeros((9, 9, 3), np.uint8), "points": face.vertices[None],
        "normals": face.normals[None], "occluders": face.vertices, "uv": model.uv,
        "triangles": face.triangles, "size": 8,
    }  # fmt: skip
    _core.texture_map(**good)
    for name, wrong, error in (
        ("image", np.zeros((9, 9, 3)), TypeError),
        ("points", face.vertices, ValueError),
        ("points", face.vertices[None, :5], ValueError),
        ("points", face.vertices[None] * np.nan, ValueError),
        ("normals", face.vertices[None, :, :2], ValueError),
        ("normals", np.stack([face.normals] * 2), ValueError),
        ("occluders", face.vertices[1:], ValueError),
        ("uv", face.vertices, ValueError),
        ("triangles", face.triangles + 1, ValueError),
        ("size", 0, ValueError),
    ):
        with pytest.raises(error, match=r"^image|^points|^normals|^occluders|^uv|^triangles|^size"):
            _core.texture_map(**{**good, name: wrong})
