"""Textures: the face's skin laid out by the model's texture coordinates."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from . import _core
from .face import Face
from .image import ColorOrder, check_side, load_image
from .rendering import rasterize_window

Fill: TypeAlias = Literal["mirror", "photo", "transparent"]
"""What texels show that the viewer does not see."""

_Image: TypeAlias = NDArray[np.uint8]

# Visibility from which a texel is worth something, and all: seen at 84° and at 70°, where the
# picture has 1/10 and 1/3 of the texture's resolution.
_GRAZING, _CLEAR = 0.1, 0.34
_COARSE = 256  # side of the picture that says where both sides are blended
_LEAST = 0.02  # what the border of what is seen is worth: all, where nothing better is known
_ENOUGH = 0.02  # a weight from which a texel needs no colours from around
_RIM = 0.005  # of the face in the picture, in extents of the face
_SEAM = 1 / 64  # half the width over which both sides are blended, in sides of the texture


@overload
def uv_texture(
    image: Any,
    face: Face,
    *,
    size: int = ...,
    fill: Fill = ...,
    return_visibility: Literal[False] = ...,
    color: ColorOrder = ...,
) -> NDArray[np.uint8]: ...
@overload
def uv_texture(
    image: Any,
    face: Face,
    *,
    size: int = ...,
    fill: Fill = ...,
    return_visibility: Literal[True],
    color: ColorOrder = ...,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]: ...
@overload
def uv_texture(
    image: Any,
    face: Face,
    *,
    size: int = ...,
    fill: Fill = ...,
    return_visibility: bool,
    color: ColorOrder = ...,
) -> NDArray[np.uint8] | tuple[NDArray[np.uint8], NDArray[np.float32]]: ...
def uv_texture(
    image: Any,
    face: Face,
    *,
    size: int = 256,
    fill: Fill = "mirror",
    return_visibility: bool = False,
    color: ColorOrder = "rgb",
) -> NDArray[np.uint8] | tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The face's colours laid out by the model's texture coordinates.

    Each texel is looked up in the picture on its own: between pixels where it is smaller than one,
    as the mean of the pixels that it covers where it is larger. The texel in column ``i`` and row
    ``j`` lies at u = (i + 1/2) / size, v = 1 - (j + 1/2) / size, as in glTF and OBJ. It is black
    where the layout has no triangle.

    Args:
        image: (H, W, 3) uint8 or anything else that :func:`threedfa.image.load_image` takes.
        face: of this image.
        size: side of the texture, 1..8192 pixels.
        fill: what texels show that the picture does not, because the face turns away, hides them
            or leaves the picture there. ``"mirror"``: the same place of the face's other half,
            blended at the seam; where neither half is seen or the model is not symmetric, the
            colours around. ``"photo"``: whatever the picture shows at that place, as 3DDFA_V2 does.
            ``"transparent"``: nothing, the result has a fourth channel, alpha.
        return_visibility: return the visibility as well.
        color: channel order of ``image`` if it is an array, ``"rgb"`` or ``"bgr"``.

    Returns:
        RGB (size, size, 3) uint8, or RGBA (size, size, 4) for ``fill="transparent"``. With
        ``return_visibility`` a tuple of it and float32 (size, size): the cosine of the angle
        between the surface and the direction to the viewer where the texel is seen (z-buffer), 0
        where it is not.

    Raises:
        ImageError: if the image cannot be read or used.
        TypeError: if the size is not a whole number.
        ValueError: if the model has no texture coordinates, the size is out of range, or the fill
            is unknown.
    """
    if fill not in get_args(Fill):
        raise ValueError(f"fill: expected one of {', '.join(get_args(Fill))}, got {fill!r}")
    texture, visibility = _lay_out(load_image(image, color=color), face, size, fill)
    return (texture, np.maximum(visibility, 0)) if return_visibility else texture


def mesh_texture(image: NDArray[np.uint8], face: Face, size: int) -> NDArray[np.uint8]:
    """The texture for a mesh file, RGB (size, size, 3): as :func:`uv_texture`, with the colours
    carried on beyond the layout, so that renderers mix no black into its borders.

    Raises:
        ValueError: if the model has no texture coordinates, or the size is out of range.
    """
    texture, visibility = _lay_out(image, face, size, "mirror")
    return _spread(texture, visibility >= 0)


def _lay_out(
    image: _Image, face: Face, size: int, fill: Fill
) -> tuple[_Image, NDArray[np.float32]]:
    """Texture and visibility, which is -1 where the layout has no triangle."""
    size = check_side("texture size", size)
    uv = face.model.uv
    if uv is None:
        raise ValueError(
            "uv_texture: expected a model with texture coordinates, this pack's has none; import "
            "it again with BFM_UV.mat and indices.npy beside the other files"
        )
    vertices, normals = face.vertices, face.normals
    if fill != "mirror":
        (texture,), (visibility,) = _core.texture_map(
            image, vertices[None], normals[None], vertices, uv, face.triangles, size
        )
        if fill == "transparent":
            seen = visibility > 0
            texture = np.dstack([texture * seen[:, :, None], seen * np.uint8(255)])
        return texture, visibility

    # The same layout, its vertices looked up where they are, and where their mirror images are.
    mirror = face.model.mirror_vertices
    looks: list[Any] = [slice(None)] if mirror is None else [slice(None), mirror]
    # Which pixels are the face's is looked up as a fourth channel.
    colors, seen = _core.texture_map(
        np.dstack([image, _inside(image, face)]),
        np.stack([vertices[look] for look in looks]),
        np.stack([normals[look] for look in looks]),
        vertices,
        uv,
        face.triangles,
        size,
    )
    other = np.minimum(seen[0], 0) if mirror is None else seen[1]
    return _blend(colors[0], seen[0], colors[-1], other), seen[0]


def _inside(image: _Image, face: Face) -> _Image:
    """255 for the pixels of a picture that show the face, less its rim: there the background
    shines in, the more so as the outline of a fitted face is off by a pixel or two."""
    inside = np.zeros(image.shape[:2], np.uint8)
    left, top, raster = rasterize_window(image, face.vertices, face.triangles)
    height, width = raster.triangle.shape
    drawn = (raster.triangle >= 0).astype(np.uint8)
    # Mouth and eyes may be holes of the mesh: their borders show the face.
    outline, _ = cv2.findContours(drawn, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(inside[top : top + height, left : left + width], outline, -1, 255, cv2.FILLED)
    extent = float(np.ptp(face.vertices[:, :2], axis=0).max())
    rim = 1 + round(min(_RIM * extent, 50))
    # The border of the picture is none of the face, so nothing is taken off there.
    eroded: _Image = cv2.erode(inside, np.ones((2 * rim + 1, 2 * rim + 1), np.uint8)).astype(
        np.uint8, copy=False
    )
    return eroded


def _blend(
    own: _Image,
    own_visibility: NDArray[np.float32],
    other: _Image,
    other_visibility: NDArray[np.float32],
) -> _Image:
    """A texture of what is seen of each texel itself and of its mirror image; both with a fourth
    channel that says how much of it is the face's."""
    covered = own_visibility >= 0
    own_weight = _weight(own_visibility, covered, own[:, :, 3])
    colors: _Image = cv2.cvtColor(own, cv2.COLOR_RGBA2RGB).astype(np.uint8, copy=False)
    doubtful = covered & (own_weight < 1)
    if not doubtful.any():
        return colors
    # The other side counts as far as it is seen better, and has what this side leaves.
    better = ((other_visibility - own_visibility) / _CLEAR).clip(0, 1)
    other_weight = (1 - own_weight) * better * _weight(other_visibility, covered, other[:, :, 3])
    total = own_weight + other_weight
    share = np.divide(own_weight, total, out=np.ones_like(total), where=total > 0)
    mixed = cv2.cvtColor(cv2.blendLinear(own, other, share, 1 - share), cv2.COLOR_RGBA2RGB)
    known = (total / _ENOUGH).clip(0, 1)
    if (doubtful & (known < 1)).any() and known.any():
        mixed = _smooth(mixed, known)
    cv2.copyTo(mixed, doubtful.view(np.uint8), colors)
    return colors


def _weight(
    visibility: NDArray[np.float32], covered: NDArray[np.bool_], inside: _Image
) -> NDArray[np.float32]:
    """1 well within what is clearly seen, little at its border, 0 where nothing is seen."""
    clear = ((visibility - _GRAZING) / (_CLEAR - _GRAZING)).clip(0, 1)
    clear *= (inside * np.float32(1 / 127.5) - 1).clip(0, 1)  # at least half of the texel
    # The border is soft, so the picture of it may be coarse: blurring a large one takes minutes.
    side = len(clear)
    coarse = min(side, _COARSE)
    around, known = (
        cv2.GaussianBlur(
            cv2.resize(values, (coarse, coarse), interpolation=cv2.INTER_AREA),
            (0, 0),
            max(_SEAM * coarse, 0.5),
            borderType=cv2.BORDER_REPLICATE,
        )
        for values in (clear, covered.astype(np.float32))
    )
    # Half of the surroundings are clear at a straight border of what is seen. Blurred ones are
    # nearly one.
    within = (around / np.maximum(known, 1e-6) * 2 - 1).clip(_LEAST, 1)
    within[within > 1 - 1e-3] = 1
    within = cv2.resize(within, (side, side), interpolation=cv2.INTER_LINEAR)
    clear *= within  # 0 where nothing is covered
    return clear


def _spread(colors: _Image, known: NDArray[np.bool_]) -> _Image:
    """Known colours, and smooth ones between and around them, which take their places."""
    if not known.all() and known.any():
        smooth = _smooth(colors, known.astype(np.float32))
        cv2.copyTo(smooth, (~known).view(np.uint8), colors)
    return colors


def _smooth(colors: Any, weight: NDArray[np.float32]) -> Any:
    """Colours for every pixel, from those there are as far as their weights of 0..1 go."""
    weighted = cv2.multiply(colors, cv2.merge([weight] * 3), dtype=cv2.CV_32F)
    # Bytes do for the last of the levels, on which most of the time would go.
    coarse = cv2.convertScaleAbs(_pull_push(*_halved(weighted, weight)))
    fine = cv2.resize(coarse, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.blendLinear(colors, fine, weight, 1 - weight)


def _pull_push(colors: NDArray[Any], weight: NDArray[Any]) -> NDArray[np.float32]:
    """Colours (S, S, 3) for every pixel from colours times weights and weights (S, S) of 0..1.

    Source: Gortler et al. 1996, "The Lumigraph", section 3.4.
    """
    side = len(weight)
    filled: NDArray[np.float32]
    if side == 1:
        filled = colors / np.maximum(weight, 1e-12)[:, :, None]
        return filled
    coarse = _pull_push(*_halved(colors, weight))
    fine = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR)
    filled = colors + fine * (1 - weight)[:, :, None]
    return filled


def _halved(colors: Any, weight: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weighted colours and weights of half the size. A pixel of which a quarter is known is known:
    the rest of it takes its colour from there."""
    half = ((len(weight) + 1) // 2,) * 2
    low, low_weight = (
        cv2.resize(values, half, interpolation=cv2.INTER_AREA) for values in (colors, weight)
    )
    gain = np.minimum(4, 1 / np.maximum(low_weight, 1e-12))
    return low * gain[:, :, None], low_weight * gain
