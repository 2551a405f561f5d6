"""Images in and out, and the order of their channels."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image, ImageFile, PngImagePlugin

from threedfa.errors import ExportError, ImageError
from threedfa.image import (
    DEFAULT_MAX_PIXELS,
    check_side,
    encode_image,
    encoded_size,
    is_reversed,
    load_image,
    save_image,
)

RNG = np.random.default_rng(7)
PICTURE = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)

pixels = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4])),
)


def encode(picture: NDArray[Any] | Image.Image, format_name: str = "PNG", **options: Any) -> bytes:
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    stream = io.BytesIO()
    picture.save(stream, format_name, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, *, depth: int = 8, color_type: int = 2, rows: bytes) -> bytes:
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0))
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def expected_rgb(array: NDArray[np.uint8], color: str) -> NDArray[np.uint8]:
    """The same conversion, pixel by pixel."""
    result = np.zeros((*array.shape[:2], 3), np.uint8)
    for y, x in np.ndindex(*array.shape[:2]):
        values = [int(value) for value in array[y, x].ravel()]
        if len(values) == 1:
            result[y, x] = values * 3
        else:
            result[y, x] = values[:3] if color == "rgb" else values[2::-1]
    return result


# Arrays


def test_contiguous_rgb_is_not_copied_and_cannot_be_written_to() -> None:
    source = PICTURE.copy()
    image = load_image(source)
    assert np.shares_memory(image, source)
    assert not image.flags.writeable
    assert source.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1
    np.testing.assert_array_equal(source, PICTURE)


@given(
    pixels,
    st.sampled_from(["rgb", "bgr"]),
    st.tuples(*[st.sampled_from([1, -1, 2, -3])] * 2),
    st.booleans(),
    st.booleans(),
)
def test_any_strides(
    array: NDArray[np.uint8],
    color: Any,
    steps: tuple[int, int],
    fortran: bool,
    writeable: bool,
) -> None:
    view = (np.asfortranarray(array) if fortran else array)[:: steps[0], :: steps[1]]
    view.flags.writeable = writeable
    before = view.copy()
    image = load_image(view, color=color)
    assert (image.dtype, image.shape) == (np.uint8, (*view.shape[:2], 3))
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, expected_rgb(before, color))
    np.testing.assert_array_equal(view, before)


def test_channels_reversed_by_a_view() -> None:
    np.testing.assert_array_equal(load_image(PICTURE[..., ::-1]), PICTURE[..., ::-1])
    np.testing.assert_array_equal(load_image(PICTURE[..., ::-1], color="bgr"), PICTURE)


def test_grey_without_a_channel_axis() -> None:
    grey = PICTURE[..., 0]
    for color in ("rgb", "bgr"):
        np.testing.assert_array_equal(
            load_image(grey, color=color),  # type: ignore[arg-type]
            np.stack([grey] * 3, axis=-1),
        )


def test_alpha_is_dropped() -> None:
    rgba = np.dstack([PICTURE, RNG.integers(0, 256, PICTURE.shape[:2], dtype=np.uint8)])
    bgra = rgba[..., [2, 1, 0, 3]]
    for source in (rgba, Image.fromarray(rgba), encode(rgba), encode(rgba, "TIFF")):
        np.testing.assert_array_equal(load_image(source), PICTURE)
    np.testing.assert_array_equal(load_image(bgra, color="bgr"), PICTURE)


def test_extreme_shapes() -> None:
    assert load_image(np.zeros((1, 1, 3), np.uint8)).shape == (1, 1, 3)
    assert load_image(np.zeros((1, 100_000), np.uint8)).shape == (1, 100_000, 3)
    assert load_image(np.zeros((100_000, 1, 4), np.uint8)).shape == (100_000, 1, 3)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 4, 3), np.uint8), r"at least one pixel, got shape \(0, 4, 3\)"),
        (np.zeros((4, 0), np.uint8), r"at least one pixel"),
        (np.zeros((4, 4, 3), np.float32), r"uint8, got float32.*\* 255"),
        (np.full((4, 4, 3), np.nan), r"uint8, got float64"),
        (np.zeros((4, 4, 3), np.float16), r"uint8, got float16"),
        (np.zeros((4, 4, 3), np.uint16), r"uint8, got uint16.*>> 8"),
        (np.zeros((4, 4, 3), np.int64), r"uint8, got int64"),
        (np.zeros((4, 4, 3), bool), r"uint8, got bool"),
        (np.zeros((4, 4, 3), object), r"uint8, got object"),
        (np.zeros((), np.uint8), r"got \(\)"),
        (np.zeros(64, np.uint8), r"got \(64,\).*tobytes"),
        (np.zeros((4, 4, 2), np.uint8), r"got \(4, 4, 2\)"),
        (np.zeros((4, 4, 0), np.uint8), r"got \(4, 4, 0\)"),
        (np.zeros((3, 4, 5), np.uint8), r"got \(3, 4, 5\).*transpose\(1, 2, 0\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"got \(1, 4, 4, 3\).*one by one"),
    ],
)
def test_arrays_that_are_no_image(array: NDArray[Any], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(array)


@pytest.mark.parametrize("source", [None, 3, [[1, 2, 3]], object(), io.BytesIO(b"")])
def test_other_types(source: Any) -> None:
    with pytest.raises(TypeError, match=f"got .*{type(source).__name__}"):
        load_image(source)


@pytest.mark.parametrize("color", ["RGB", "grey", "", None])
def test_unknown_color_order(color: Any) -> None:
    with pytest.raises(ValueError, match=r"'rgb' or 'bgr', got"):
        load_image(PICTURE, color=color)


def test_order_of_a_network() -> None:
    assert is_reversed("bgr") is True
    assert is_reversed("rgb") is False
    with pytest.raises(ValueError, match=r"'rgb' or 'bgr', got 'gbr'"):
        is_reversed("gbr")


# Files, bytes and PIL images


@pytest.mark.parametrize("format_name", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_every_kind_of_source(format_name: str, tmp_path: Path) -> None:
    data = encode(PICTURE, format_name, **({"lossless": True} if format_name == "WEBP" else {}))
    path = tmp_path / "without a suffix"
    path.write_bytes(data)
    sources: list[Any] = [
        path,
        str(path),
        data,
        bytearray(data),
        memoryview(data),
        memoryview(bytes(x for byte in data for x in (byte, 0)))[::2],
        Image.open(io.BytesIO(data)),
    ]
    for source in sources:
        for color in ("rgb", "bgr"):  # files know their own order
            image = load_image(source, color=color)  # type: ignore[arg-type]
            np.testing.assert_array_equal(image, PICTURE)
            assert image.flags.c_contiguous
            assert not image.flags.writeable


def test_jpeg_is_decoded_as_pillow_does() -> None:
    data = encode(PICTURE, "JPEG", quality=90)
    np.testing.assert_array_equal(load_image(data), np.asarray(Image.open(io.BytesIO(data))))


def test_a_changed_buffer_does_not_change_the_image() -> None:
    data = bytearray(encode(PICTURE, "BMP"))
    image = load_image(data)
    data[:] = bytes(len(data))
    np.testing.assert_array_equal(image, PICTURE)


def test_pil_modes() -> None:
    grey = PICTURE[..., 0]
    as_grey = np.stack([grey] * 3, axis=-1)
    np.testing.assert_array_equal(load_image(Image.fromarray(grey)), as_grey)
    np.testing.assert_array_equal(load_image(Image.fromarray(grey).convert("LA")), as_grey)
    np.testing.assert_array_equal(load_image(Image.fromarray(PICTURE).convert("RGBX")), PICTURE)
    black_white = Image.fromarray(grey > 127)
    assert black_white.mode == "1"
    np.testing.assert_array_equal(load_image(black_white)[..., 1], (grey > 127) * 255)


@pytest.mark.parametrize("format_name", ["PNG", "GIF", "TIFF", "BMP"])
def test_palette(format_name: str) -> None:
    picture = Image.fromarray(PICTURE).convert("P", palette=Image.Palette.ADAPTIVE, colors=64)
    expected = np.array(picture.convert("RGB"))
    np.testing.assert_array_equal(expected, PICTURE)
    np.testing.assert_array_equal(load_image(encode(picture, format_name)), expected)


def test_palette_with_transparency() -> None:
    picture = Image.fromarray(PICTURE).convert("P", palette=Image.Palette.ADAPTIVE, colors=64)
    data = encode(picture, transparency=bytes(range(64)))
    np.testing.assert_array_equal(load_image(data), PICTURE)


@pytest.mark.parametrize("format_name", ["JPEG", "TIFF"])
def test_cmyk(format_name: str) -> None:
    flat = np.broadcast_to(np.uint8([200, 40, 90]), (16, 16, 3))
    data = encode(Image.fromarray(flat).convert("CMYK"), format_name)
    assert np.abs(load_image(data).astype(int) - flat).max() <= 3


@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled(format_name: str) -> None:
    values = np.uint16([[0, 128, 129, 257], [32767, 32768, 65406, 65535]])
    expected = [[0, 0, 1, 1], [127, 128, 254, 255]]
    if format_name == "PNG":
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        data = png_of(4, 2, depth=16, color_type=0, rows=rows)
    elif format_name == "PPM":
        data = b"P5 4 2 65535\n" + values.astype(">u2").tobytes()
    else:
        data = encode(Image.fromarray(values), format_name)
    image = load_image(data)
    for channel in range(3):
        np.testing.assert_array_equal(image[..., channel], expected)


@pytest.mark.parametrize("deep", [False, True])
def test_grey_whose_zero_is_white(deep: bool) -> None:
    values = np.uint8([[0, 1, 200, 255]])
    data = encode(Image.fromarray(values.astype(np.uint16) * 257 if deep else values), "TIFF")
    black, white = (struct.pack("<HHIHH", 262, 3, 1, zero, 0) for zero in (1, 0))
    assert data.count(black) == 1  # PhotometricInterpretation
    np.testing.assert_array_equal(load_image(data)[..., 0], values)
    np.testing.assert_array_equal(load_image(data.replace(black, white))[..., 0], 255 - values)


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_size_without_the_pixels(format_name: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (70, 30)).save(stream, format_name)
    data = stream.getvalue()
    assert encoded_size(data) == (30, 70)
    if format_name == "PNG":  # nothing but its header is read
        assert encoded_size(data[:60]) == (30, 70)
    with pytest.raises(ImageError, match="image data of 5 bytes: not an image"):
        encoded_size(data[:5])


def test_sixteen_bit_color_keeps_the_high_byte() -> None:
    values = (PICTURE.astype(np.uint16) << 8) + 17
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    np.testing.assert_array_equal(load_image(png_of(7, 5, depth=16, rows=rows)), PICTURE)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_a_known_range(dtype: Any) -> None:
    picture = Image.fromarray(np.zeros((3, 3), dtype))
    for source in (picture, encode(picture, "TIFF")):
        with pytest.raises(ImageError, match="32 bits"):
            load_image(source)


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several(format_name: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    options: dict[str, Any] = {"lossless": True} if format_name == "WEBP" else {}
    data = encode(frames[0], format_name, save_all=True, append_images=frames[1:], **options)
    image = load_image(data)
    assert image.shape == (8, 8, 3)
    assert (image == [255, 0, 0]).all()


def test_the_first_picture_of_a_phone() -> None:
    """Phones write MPO: a JPEG file with further pictures behind it."""
    frames = [Image.new("RGB", (8, 8), color) for color in ("white", "black")]
    data = encode(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert (load_image(data) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exif_orientation(format_name: str, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)  # a different grey in each quarter
    upright[:8, :16], upright[:8, 16:], upright[8:, 16:] = 80, 160, 240
    # How such a picture lies in the file: the inverse of what the EXIF standard says to do.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"exif": exif}
    if format_name == "WEBP":
        options["lossless"] = True
    data = encode(np.ascontiguousarray(stored[orientation]), format_name, **options)
    opened = Image.open(io.BytesIO(data))
    for source in (data, opened):
        image = load_image(source)
        assert image.shape == upright.shape
        assert np.abs(image.astype(int) - upright).max() <= (6 if format_name == "JPEG" else 0)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientations_are_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(load_image(encode(PICTURE, exif=exif)), PICTURE)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # Pillow's word to the user
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0nonsense"]
)
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_damaged_metadata_does_not_hide_the_pixels(format_name: str, exif: bytes) -> None:
    plain = encode(PICTURE, format_name)
    np.testing.assert_array_equal(
        load_image(encode(PICTURE, format_name, exif=exif)), load_image(plain)
    )


def test_a_pil_image_is_left_as_it_was() -> None:
    picture = Image.open(io.BytesIO(encode(PICTURE[..., [0, 1, 2]])))
    exif = picture.getexif()
    exif[0x0112] = 6
    image = load_image(picture)
    assert image.shape == (7, 5, 3)
    assert (picture.mode, picture.size) == ("RGB", (7, 5))
    np.testing.assert_array_equal(np.asarray(picture), PICTURE)


# Files that cannot be used


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]
)
def test_bytes_that_are_no_image(data: bytes) -> None:
    with pytest.raises(ImageError, match=f"image data of {len(data)} bytes.*PNG, JPEG"):
        load_image(data)


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_truncated_at_any_place(format_name: str) -> None:
    noise = RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    data = encode(noise, format_name)
    for length in [*range(0, 60, 7), *range(60, len(data) * 9 // 10, 97)]:
        with pytest.raises(ImageError):
            load_image(data[:length])


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's words to the user
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM"]), st.data())
def test_damaged_bytes_give_an_image_or_an_image_error(format_name: str, draw: Any) -> None:
    data = bytearray(encode(PICTURE, format_name))
    for _ in range(draw.draw(st.integers(1, 8))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        image = load_image(data, max_pixels=100_000)
    except ImageError:
        return
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3


def test_a_picture_without_memory_for_it_is_not_called_damaged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(ImageError, match="not enough memory for 7 x 5 pixels"):
        load_image(encode(PICTURE))


def test_a_damaged_png_is_named(tmp_path: Path) -> None:
    data = bytearray(encode(PICTURE))
    data[data.index(b"IDAT") + 8] ^= 0xFF
    path = tmp_path / "broken.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"broken\.png.*damaged"):
        load_image(path)


def test_a_png_without_its_rows() -> None:
    with pytest.raises(ImageError, match="damaged"):
        load_image(png_of(100, 100, rows=b"\0" * 50))


@pytest.mark.parametrize("kind", ["PNG", "PPM", "BMP", "GIF"])
def test_a_bomb_is_refused_by_its_header(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    side = 30_000
    data = {
        "PNG": png_of(side, side, rows=b""),
        "PPM": b"P6 30000 30000 255\n",
        "BMP": b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, side, side, 1, 24, *[0] * 6),
        "GIF": b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0) + b",\0\0\0\0"
        + struct.pack("<HHB", side, side, 0) + b"\x02\x00;",
    }[kind]  # fmt: skip
    limit = Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("pixels were decoded"))
    with pytest.raises(ImageError, match=r"900000000.*raise"):
        load_image(data)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("wide", [True, False])
def test_the_limit_of_pixels(wide: bool) -> None:
    picture = np.zeros((1, 100_000) if wide else (100_000, 1), np.uint8)
    for source in (encode(picture), Image.fromarray(picture)):
        assert load_image(source, max_pixels=100_000).size == 300_000
        with pytest.raises(ImageError, match=r"limit of 99999; .*raise max_pixels"):
            load_image(source, max_pixels=99_999)


def test_a_header_just_above_the_default_limit() -> None:
    # Pillow warns of this one rather than refusing it.
    with pytest.raises(ImageError, match="raise"):
        load_image(png_of(DEFAULT_MAX_PIXELS + 1, 1, rows=b""))
    with pytest.raises(ImageError, match="damaged"):  # not refused for its size
        load_image(png_of(DEFAULT_MAX_PIXELS // 2, 2, rows=b""))


@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
def test_a_higher_limit() -> None:
    data = png_of(DEFAULT_MAX_PIXELS // 2 + 1, 2, rows=b"")
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(ImageError, match="damaged"):
        load_image(data, max_pixels=DEFAULT_MAX_PIXELS + 2)


@pytest.mark.parametrize("max_pixels", [0, -1])
def test_a_limit_that_lets_nothing_through(max_pixels: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, got {max_pixels}"):
        load_image(PICTURE, max_pixels=max_pixels)


@pytest.mark.parametrize("max_pixels", [1e6, True, "9", None])
def test_a_limit_that_is_no_whole_number(max_pixels: Any) -> None:
    with pytest.raises(TypeError, match="max_pixels: expected a whole number, got"):
        load_image(PICTURE, max_pixels=max_pixels)


def test_sides_are_numbers_of_python() -> None:
    side = check_side("size", np.uint8(200))
    assert type(side) is int and side == 200


@pytest.mark.parametrize("format_name", ["ICO", "TGA", "PCX", "SGI"])
def test_formats_off_the_list(format_name: str) -> None:
    data = encode(Image.new("RGB", (16, 16)), format_name)
    assert Image.open(io.BytesIO(data)).size == (16, 16)
    with pytest.raises(ImageError, match=r"supported format \(PNG, JPEG, WEBP"):
        load_image(data)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="it is a folder"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match=r"missing\.png.*No such file"):
        load_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="null"):
        load_image("a\0b.png")
    with pytest.raises(ImageError, match="too long"):
        load_image("n" * 5000)
    with pytest.raises(ImageError, match="it is a folder"):
        load_image("")  # the current folder, as for pathlib


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="not a plain file"):
        load_image(tmp_path / "pipe.png")


# Writing


@given(pixels)
def test_png_gives_back_the_same_pixels(tmp_path_factory: Any, array: NDArray[np.uint8]) -> None:
    path = tmp_path_factory.mktemp("png") / "picture.png"
    save_image(path, array)
    np.testing.assert_array_equal(load_image(path), expected_rgb(array, "rgb"))
    np.testing.assert_array_equal(np.asarray(Image.open(path)), expected_rgb(array, "rgb"))


@pytest.mark.parametrize(
    ("name", "format_name"),
    [("a.PNG", "PNG"), ("a.jpg", "JPEG"), ("a.b.JPEG", "JPEG"), ("a.webp", "WEBP")],
)
def test_the_suffix_chooses_the_format(tmp_path: Path, name: str, format_name: str) -> None:
    smooth = np.dstack([np.add.outer(np.arange(32), np.arange(48)) * 2] * 3).astype(np.uint8)
    smooth[..., 0] = 255 - smooth[..., 1]
    save_image(str(tmp_path / name), smooth[::-1])
    picture = Image.open(tmp_path / name)
    assert picture.format == format_name
    assert np.abs(np.asarray(picture).astype(int) - smooth[::-1]).mean() < 3


@pytest.mark.parametrize("name", ["a.gif", "a", ".png", "a.png.txt"])
def test_unknown_suffixes(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match=r"unknown image format.*\.png, \.jpg"):
        save_image(tmp_path / name, PICTURE)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "width"), [("a.jpg", 70_000), ("a.webp", 20_000)])
def test_sizes_that_a_format_cannot_hold(tmp_path: Path, name: str, width: int) -> None:
    with pytest.raises(ExportError, match=rf"{width} x 1 pixels cannot be encoded.*try \.png"):
        save_image(tmp_path / name, np.zeros((1, width, 3), np.uint8))
    assert not any(tmp_path.iterdir())


def test_arrays_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="uint8, got float64"):
        save_image(tmp_path / "a.png", np.zeros((4, 4, 3)))  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="at least one pixel"):
        save_image(tmp_path / "a.png", np.zeros((0, 4, 3), np.uint8))
    with pytest.raises(TypeError, match="got list"):
        save_image(tmp_path / "a.png", [[0]])  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


def test_pictures_without_grain_are_smaller_as_such() -> None:
    smooth = cv2.resize(PICTURE, (400, 300), interpolation=cv2.INTER_CUBIC)
    small, usual = encode_image(smooth, ".png", smooth=True), encode_image(smooth, ".png")
    assert len(small) < len(usual)
    np.testing.assert_array_equal(load_image(small), smooth)
    assert encode_image(smooth, ".jpg", smooth=True) == encode_image(smooth, ".jpg")
