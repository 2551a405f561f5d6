"""Images in and out, and the one place where RGB or BGR is decided.

Inside this package an image is a ``uint8 (H, W, 3)`` array in **RGB** order. `load_image` makes one
of whatever a caller has; `is_reversed` says whether a network wants its channels the other way
round; `save_image` writes one to a file.
"""

from __future__ import annotations

import io
import operator
import os
import stat
import zlib
from pathlib import Path
from typing import BinaryIO, Final, Literal, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin

from .errors import ExportError, ImageError, ImageSizeError
from .files import atomic_write

ImageSource: TypeAlias = (
    "NDArray[np.uint8] | str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image"
)
"""What `load_image` reads."""

ColorOrder: TypeAlias = Literal["rgb", "bgr"]
"""The order of the channels of an array."""

DEFAULT_MAX_PIXELS: Final = 2**28 // 3
"""Largest picture decoded unless the caller says otherwise: 256 MiB of RGB, 89 megapixels. It is
also the size from which Pillow warns of decompression bombs."""

MAX_SIDE: Final = 8192
"""Side in pixels of the largest texture or crop that is made; a texture takes 7 GB meanwhile, about
100 bytes a texel."""

FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""The file formats that are read, by Pillow's names. Pillow's other decoders are never tried."""

SUFFIXES: Final = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".tif", ".tiff",
    ".gif", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
"""Endings, in small letters, of the names of files in these formats: what a folder is searched
for."""

SAMPLE: Final = Path(__file__).parent / "data" / "sample.jpg"
"""A made-up picture of two heads that comes with the package."""

_SAVE_OPTIONS: Final[dict[str, tuple[str, dict[str, int]]]] = {
    ".png": ("PNG", {"compress_level": 3}),
    ".jpg": ("JPEG", {"quality": 95}),
    ".jpeg": ("JPEG", {"quality": 95}),
    ".webp": ("WEBP", {"quality": 95}),
}

_ORIENTATIONS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def is_reversed(network_color: str) -> bool:
    """Whether the channels of an RGB array must be reversed for a network.

    Args:
        network_color: what the network's pack asks for, ``"rgb"`` or ``"bgr"``.

    Raises:
        ValueError: for any other name.
    """
    if network_color not in ("rgb", "bgr"):
        raise ValueError(f"expected the color order 'rgb' or 'bgr', got {network_color!r}")
    return network_color == "bgr"


def require_several(images: object) -> None:
    """Raise a TypeError for one image where several are expected: its rows or letters would be
    taken for images."""
    one = isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image))
    if isinstance(images, np.ndarray):
        one = images.ndim < 3 or (images.ndim == 3 and images.shape[2] in (1, 3, 4))
    if one:
        raise TypeError(
            f"images: expected several images, got one ({type(images).__qualname__}); "
            "put it into a list"
        )


def load_image(
    source: ImageSource, *, color: ColorOrder = "rgb", max_pixels: int = DEFAULT_MAX_PIXELS
) -> NDArray[np.uint8]:
    """Turn any kind of image into a ``uint8 (H, W, 3)`` RGB array.

    Args:
        source: one of

            * a uint8 array ``(H, W, 3)``, ``(H, W, 4)``, ``(H, W)`` or ``(H, W, 1)``, any strides;
            * a path (``str`` or path object) of a PNG, JPEG, WebP, BMP, TIFF, GIF or PNM file;
            * the bytes of such a file;
            * a `PIL.Image.Image`.

            Alpha is dropped: the colours are used as they are stored. Grey becomes three equal
            channels, 16-bit grey is scaled to 8 bits. Of an animation, the first frame is read.
            The EXIF orientation of files, bytes and PIL images is applied.
        color: the channel order of an array, ``"rgb"`` or ``"bgr"`` (OpenCV). Nothing else is
            affected: files, bytes and PIL images know their own order.
        max_pixels: files, bytes and PIL images with more pixels are refused before they are
            decoded. Above Pillow's own limit (twice the default) ``PIL.Image.MAX_IMAGE_PIXELS``
            has to be raised as well.

    Returns:
        A C-contiguous array, read-only because it may share the caller's memory: an array that
        already is contiguous RGB is not copied.

    Raises:
        ImageError: if the source is no usable image: an empty array, a wrong dtype or shape, a
            missing, damaged or unsupported file, or one with more than ``max_pixels`` pixels.
        TypeError: if the source is of none of these types, or ``max_pixels`` not a whole number.
        ValueError: for a wrong ``color`` or ``max_pixels``.
    """
    reversed_channels = is_reversed(color)
    if whole_number("max_pixels", max_pixels) < 1:
        raise ValueError(f"max_pixels: expected at least 1, got {max_pixels}")
    if isinstance(source, np.ndarray):
        image = _from_array(source, reversed_channels)
    elif isinstance(source, Image.Image):
        image = _from_pil(source, "the PIL image", max_pixels)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        image = _from_stream(io.BytesIO(data), f"image data of {len(data)} bytes", max_pixels)
    elif isinstance(source, (str, os.PathLike)):
        image = _from_file(Path(source), max_pixels)
    else:
        raise TypeError(
            "expected an image as a uint8 NumPy array, a path, encoded bytes or a PIL image, "
            f"got {type(source).__module__}.{type(source).__qualname__}"
        )
    image = image.view()
    image.flags.writeable = False
    return image


def encoded_size(data: bytes) -> tuple[int, int]:
    """Height and width of the picture in the bytes of an image file, as stored, from its header
    alone.

    Raises:
        ImageError: if there is no picture in a supported format; ``ImageSizeError`` for one of
            more than twice ``DEFAULT_MAX_PIXELS``.
    """
    with _open(io.BytesIO(data), f"image data of {len(data)} bytes") as picture:
        return picture.height, picture.width


def whole_number(name: str, value: SupportsIndex) -> int:
    """A whole number of Python, in place of NumPy's, whose products may overflow.

    Raises:
        TypeError: for anything else, a bool among it.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected a whole number, got {value!r}")
    return number


def check_side(name: str, value: SupportsIndex) -> int:
    """The side of a square picture to be made, unless it cannot be one.

    Raises:
        TypeError: if it is not a whole number.
        ValueError: if it is not in 1..``MAX_SIDE`` pixels.
    """
    side = whole_number(name, value)
    if not 1 <= side <= MAX_SIDE:
        raise ValueError(f"{name}: expected 1..{MAX_SIDE} pixels, got {side}")
    return side


def check_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of an image, unless they cannot be.

    Raises:
        TypeError: if they are not whole numbers.
        ValueError: if they are not two, or below 1.
    """
    if np.shape(image_size) != (2,):
        raise ValueError(f"image_size: expected (height, width), got {image_size!r}")
    height, width = (whole_number("image_size", value) for value in image_size)
    if height < 1 or width < 1:
        raise ValueError(f"image_size: expected a positive (height, width), got {image_size!r}")
    return height, width


def save_image(path: str | os.PathLike[str], image: NDArray[np.uint8]) -> None:
    """Write an RGB image as PNG, JPEG or WebP, by the suffix of the file name.

    Args:
        path: ends in ``.png``, ``.jpg``, ``.jpeg`` or ``.webp``, in small or capital letters. The
            file appears whole or not at all.
        image: uint8 ``(H, W, 3)`` RGB; grey and RGBA as in `load_image`.

    Raises:
        ExportError: for another suffix, a size that the format cannot hold, or a file that cannot
            be written.
        ImageError: if the array is not an image.
        TypeError: if it is not an array.
    """
    if not isinstance(image, np.ndarray):
        raise TypeError(f"expected a uint8 NumPy array, got {type(image).__qualname__}")
    suffix = Path(path).suffix
    if suffix.lower() not in _SAVE_OPTIONS:
        raise ExportError(
            f"cannot write {path}: unknown image format {suffix!r}; "
            f"use one of {', '.join(_SAVE_OPTIONS)}"
        )
    try:
        encoded = encode_image(image, suffix)
    except ExportError as error:
        raise ExportError(f"cannot write {path}: {error}") from error
    with atomic_write(path) as stream:
        stream.write(encoded)


def encode_image(image: NDArray[np.uint8], suffix: str, *, smooth: bool = False) -> bytes:
    """The contents of the file that `save_image` writes for a suffix that it knows.

    Args:
        image: as `save_image` takes it.
        suffix: as in a file name.
        smooth: whether the picture has no grain of its own, as textures have, most of which lies
            between the pixels of a photograph. PNG is then smaller, and made in two thirds of the
            time, where nothing is looked for but repetitions of the last byte.

    Raises:
        ExportError: for a size that the format cannot hold.
        ImageError: if the array is not an image.
    """
    format_name, options = _SAVE_OPTIONS[suffix.lower()]
    if smooth and format_name == "PNG":
        options = options | {"compress_type": zlib.Z_RLE}
    picture = Image.fromarray(_from_array(image, reversed_channels=False))
    encoded = io.BytesIO()
    try:
        picture.save(encoded, format_name, **options)
    except Exception as error:  # encoders fail with OSError, ValueError, KeyError, ...
        raise ExportError(
            f"a picture of {picture.width} x {picture.height} pixels cannot "
            f"be encoded as {format_name} ({error}); try .png"
        ) from error
    return encoded.getvalue()


def _from_array(array: NDArray[np.uint8], reversed_channels: bool) -> NDArray[np.uint8]:
    if array.dtype != np.uint8:
        raise ImageError(f"expected an image of dtype uint8, got {array.dtype}; {_advice(array)}")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = ""
        if array.ndim == 1:
            hint = "; for an encoded image pass array.tobytes()"
        elif array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "; for channels first pass array.transpose(1, 2, 0)"
        elif array.ndim == 4:
            hint = "; pass the images of a batch one by one"
        raise ImageError(
            "expected an image of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), "
            f"got {array.shape}{hint}"
        )
    if array.size == 0:
        raise ImageError(f"expected an image with at least one pixel, got shape {array.shape}")
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    if array.shape[2] == 1:
        array = np.broadcast_to(array, (*array.shape[:2], 3))
    # Either slice takes the first three channels; a fourth, alpha, is dropped.
    return np.ascontiguousarray(array[:, :, 2::-1] if reversed_channels else array[:, :, :3])


def _advice(array: NDArray[np.generic]) -> str:
    if np.issubdtype(array.dtype, np.floating):
        return (
            "convert values in 0..1 with (image * 255).round().clip(0, 255).astype('uint8'), "
            "values in 0..255 with image.round().clip(0, 255).astype('uint8')"
        )
    if array.dtype == np.uint16:
        return "convert 16-bit values with (image >> 8).astype('uint8')"
    return "scale the values to 0..255 and convert with image.astype('uint8')"


def _from_file(path: Path, max_pixels: int) -> NDArray[np.uint8]:
    try:
        # Anything but a plain file is refused unopened: reading a pipe or a device may never end.
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "not a plain file"
            raise ImageError(f"cannot read {path}: it is {kind}; give the path of an image file")
        with path.open("rb") as stream:
            return _from_stream(stream, str(path), max_pixels)
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise ImageError(
            f"cannot read {str(path)!r}: {reason}; give the path of a readable image file"
        ) from error


def _from_stream(stream: BinaryIO, name: str, max_pixels: int) -> NDArray[np.uint8]:
    with _open(stream, name) as picture:
        return _from_pil(picture, name, max_pixels)


def _open(stream: BinaryIO, name: str) -> Image.Image:
    try:
        # Reads the header only; the pixels are decoded after their number has been checked.
        return Image.open(stream, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageSizeError(
            f"cannot read {name}: {error}; if you trust it, raise PIL.Image.MAX_IMAGE_PIXELS "
            "and max_pixels"
        ) from error
    except Exception as error:  # on damaged files decoders raise exceptions of any kind
        raise ImageError(
            f"cannot read {name}: not an image, damaged, or not in a supported format "
            f"({', '.join(FORMATS)})"
        ) from error


def _from_pil(picture: Image.Image, name: str, max_pixels: int) -> NDArray[np.uint8]:
    width, height = picture.size
    if width < 1 or height < 1:
        raise ImageError(f"cannot use {name}: it has {width} x {height} pixels")
    if width * height > max_pixels:
        raise ImageSizeError(
            f"cannot use {name}: {width} x {height} pixels are more than the limit of "
            f"{max_pixels}; if you trust it, raise max_pixels"
        )
    try:
        picture.load()
        transposition = _transposition(picture)
        picture = _to_rgb(picture, name)
        if transposition is not None:
            picture = picture.transpose(transposition)
        return np.ascontiguousarray(np.asarray(picture))
    except ImageError:
        raise
    except MemoryError as error:  # also for rows that are longer than a decoder of Pillow takes
        raise ImageError(
            f"cannot decode {name}: not enough memory for {width} x {height} pixels"
        ) from error
    except Exception as error:  # on damaged files decoders raise exceptions of any kind
        raise ImageError(f"cannot decode {name}: damaged or incomplete ({error})") from error


def _transposition(picture: Image.Image) -> Image.Transpose | None:
    """What undoes the EXIF orientation. Only for loaded pictures: some formats store it behind the
    pixels, and Pillow turns TIFF pictures itself while loading (and then removes the tag)."""
    try:
        return _ORIENTATIONS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a picture with damaged metadata is taken as it is stored
        return None


def _to_rgb(picture: Image.Image, name: str) -> Image.Image:
    if picture.mode == "RGB":
        return picture
    sixteen_bit = picture.mode.startswith("I;16") or (
        # 16-bit files of these formats; elsewhere mode I holds 32-bit integers of unknown range
        picture.mode == "I" and picture.format in ("PNG", "PPM")
    )
    if sixteen_bit:
        values = np.asarray(picture).astype(np.uint32)
        if isinstance(picture, TiffImagePlugin.TiffImageFile):
            # 0 may be white, which Pillow minds for 8 bits alone.
            zero_is_white = picture.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == 0
            values = 65535 - values if zero_is_white else values
        grey = ((values + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257
        return Image.fromarray(grey).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ImageError(
            f"cannot use {name}: pixels of 32 bits (Pillow's mode {picture.mode}) have no known "
            "range; convert it to 8 bits"
        )
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # without this step Pillow warns
    return picture.convert("RGB")
