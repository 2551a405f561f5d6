"""MATLAB 5 files: real numeric matrices come back, everything else is refused."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from threedfa.errors import PackError
from threedfa.upstream.matfile import read_mat

Array = npt.NDArray[Any]

# MATLAB's numbers of the types of stored values and of the classes of matrices.
TYPES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 9, "i8": 12, "u8": 13}
CLASSES = {
    **{"f8": 6, "f4": 7, "i1": 8, "u1": 9, "i2": 10},
    **{"u2": 11, "i4": 12, "u4": 13, "i8": 14, "u8": 15},
}
HEADER = b"MATLAB 5.0 MAT-file, made by a test".ljust(124) + b"\x00\x01IM"
UV = np.array([[0.0, 0.5], [0.25, 1.0], [1.0, 0.75]])


def element(kind: int, data: bytes, *, small: bool = False) -> bytes:
    if small and 0 < len(data) <= 4:
        return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def matrix(
    name: str,
    array: Array,
    *,
    stored_as: str = "",
    flags: int = 0,
    shape: tuple[int, ...] | None = None,
    small: bool = False,
    more: bytes = b"",
) -> bytes:
    """A matrix element; the arguments after the array make it unusual or wrong."""
    code = array.dtype.str[1:]
    values = array.astype(stored_as or code)
    parts = [
        element(6, struct.pack("<II", CLASSES[code] | flags, 0)),
        element(5, struct.pack(f"<{len(shape or array.shape)}i", *(shape or array.shape))),
        element(1, name.encode(), small=small),
        element(TYPES[stored_as or code], values.tobytes(order="F"), small=small),
    ]
    return element(14, b"".join(parts) + more)


def compressed(content: bytes) -> bytes:
    data = zlib.compress(content)
    return struct.pack("<II", 15, len(data)) + data  # not padded


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[bytes], Path]:
    def store(data: bytes) -> Path:
        path = tmp_path / "file.mat"
        path.write_bytes(data)
        return path

    return store


Store = Callable[[bytes], Path]


@pytest.mark.parametrize("wrap", [bytes, compressed])
@pytest.mark.parametrize("dtype", CLASSES)
def test_reads_every_class(stored: Store, wrap: Callable[[bytes], bytes], dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    data = HEADER + wrap(matrix("first", array)) + wrap(matrix("b2", UV))
    variables = read_mat(stored(data))
    assert list(variables) == ["first", "b2"]
    assert variables["first"].dtype == array.dtype
    np.testing.assert_array_equal(variables["first"], array)
    np.testing.assert_array_equal(variables["b2"], UV)
    assert variables["b2"].flags.c_contiguous and variables["b2"].flags.writeable


def test_reads_whole_numbers_stored_small(stored: Store) -> None:
    array = np.array([[3.0], [200.0], [7.0]])
    data = HEADER + matrix("a", array, stored_as="u1", small=True)
    np.testing.assert_array_equal(read_mat(stored(data))["a"], array)


def test_reads_empty_matrices_and_files(stored: Store) -> None:
    assert read_mat(stored(HEADER)) == {}
    data = HEADER + matrix("a", np.empty((0, 5)))
    assert read_mat(stored(data))["a"].shape == (0, 5)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "file.mat"


@given(
    array=hnp.arrays(
        st.sampled_from(list(CLASSES)).map(np.dtype),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=0),
        elements=st.integers(0, 100),
    ),
    wrap=st.sampled_from([bytes, compressed]),
    small=st.booleans(),
)
def test_what_is_written_comes_back(
    scratch: Path, array: Array, wrap: Callable[[bytes], bytes], small: bool
) -> None:
    scratch.write_bytes(HEADER + wrap(matrix("name", array, small=small)))
    result = read_mat(scratch)["name"]
    assert result.dtype == array.dtype
    np.testing.assert_array_equal(result, array)


GOOD = matrix("UV", UV)
BAD = {
    "empty file": b"",
    "text file": b"x" * 200,
    "short header": HEADER[:-1],
    "HDF5 (MATLAB 7.3)": b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + GOOD,
    "big-endian": HEADER[:124] + b"\x01\x00MI" + GOOD,
    "half a tag": HEADER + GOOD + b"\x0e\0\0\0",
    "size past the end": HEADER + struct.pack("<II", 14, 1000) + GOOD,
    "size of 2**32-1": HEADER + struct.pack("<II", 14, 2**32 - 1) + GOOD,
    "small element of 5 bytes": HEADER + struct.pack("<HH", 14, 5) + bytes(8),
    "number at top level": HEADER + element(9, bytes(8)),
    "compressed number": HEADER + compressed(element(9, bytes(8))),
    "compressed twice": HEADER + compressed(compressed(GOOD)),
    "compressed two at once": HEADER + compressed(GOOD + GOOD),
    "compressed, bytes after": HEADER + element(15, zlib.compress(GOOD) + b"x"),
    "compressed, cut": HEADER + element(15, zlib.compress(GOOD)[:-5]),
    "not compressed at all": HEADER + element(15, b"not zlib"),
    "twice": HEADER + GOOD + GOOD,
    "complex": HEADER + matrix("a", UV, flags=0x0800),
    "logical": HEADER + matrix("a", UV, flags=0x0200),
    "imaginary part": HEADER + matrix("a", UV, more=element(9, bytes(48))),
    "three dimensions": HEADER + matrix("a", UV, shape=(3, 2, 1)),
    "one dimension": HEADER + matrix("a", UV, shape=(6,)),
    "too few values": HEADER + matrix("a", UV, shape=(3, 3)),
    "too many values": HEADER + matrix("a", UV, shape=(3, 1)),
    "negative": HEADER + matrix("a", UV, shape=(-3, -2)),
    "overflow": HEADER + matrix("a", UV, shape=(2**31 - 1, 2**31 - 1)),
    "no name": HEADER + matrix("", UV),
    "path as name": HEADER + matrix("../a", UV),
    "name that is not ASCII": HEADER + matrix("\u00e9", UV),
    "real numbers for integers": HEADER + matrix("a", UV.astype("i4"), stored_as="f8"),
    "wide numbers for narrow": HEADER + matrix("a", UV.astype("i2"), stored_as="i4"),
    "empty matrix element": HEADER + element(14, b""),
    "parts in the wrong order": HEADER + element(14, element(5, bytes(8)) + element(6, bytes(8))),
}
OTHER_CLASSES = {"cell": 1, "struct": 2, "object": 3, "char": 4, "sparse": 5, "function": 16}
BAD |= {
    f"{name} class": HEADER
    + GOOD.replace(struct.pack("<II", 6, 0), struct.pack("<II", number, 0), 1)
    for name, number in OTHER_CLASSES.items()
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_anything_else_is_refused(stored: Store, data: bytes) -> None:
    with pytest.raises(PackError, match=r"file\.mat: refused"):
        read_mat(stored(data))


def test_truncated_files_are_refused(stored: Store) -> None:
    for content in (GOOD, compressed(GOOD)):
        data = HEADER + content
        for length in [*range(len(HEADER)), *range(len(HEADER) + 1, len(data))]:
            with pytest.raises(PackError):
                read_mat(stored(data[:length]))


def test_size_is_limited_before_and_after_decompression(stored: Store) -> None:
    data = HEADER + compressed(matrix("a", np.zeros((1000, 1000))))
    assert len(data) < 20_000
    assert read_mat(stored(data))["a"].shape == (1000, 1000)
    with pytest.raises(PackError, match="decompresses to more than 1000000 bytes"):
        read_mat(stored(data), max_bytes=10**6)
    twice = data + compressed(matrix("b", np.zeros((1000, 1000))))
    with pytest.raises(PackError, match="decompresses to more than"):
        read_mat(stored(twice), max_bytes=12 * 10**6)
    with pytest.raises(PackError, match="more than the limit of 100"):
        read_mat(stored(data), max_bytes=100)


@given(
    wrap=st.sampled_from([bytes, compressed]),
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=4)),
        min_size=1,
        max_size=4,
    ),
)
@settings(max_examples=300)
def test_mutations_give_numbers_or_an_error(
    scratch: Path, wrap: Callable[[bytes], bytes], edits: list[tuple[float, int, bytes]]
) -> None:
    content = GOOD
    for where, drop, new in edits:
        position = int(where * len(content))
        content = content[:position] + new + content[position + drop :]
    scratch.write_bytes(HEADER + wrap(content))
    try:
        variables = read_mat(scratch, max_bytes=2**20)
    except PackError:
        return
    for name, array in variables.items():
        assert name.isidentifier() and array.ndim == 2 and array.dtype.kind in "fiu"


def test_reads_the_texture_coordinates_of_upstream(reference: Path) -> None:
    variables = read_mat(reference / "weights" / "BFM_UV.mat")
    assert list(variables) == ["UV"]
    uv = variables["UV"]
    assert uv.shape == (53215, 2) and uv.dtype == np.float64
    assert uv.min() == 0 and uv.max() == 1
    # The recorded texture positions are these, scaled to 256 pixels, with y downwards.
    with np.load(reference / "goldens" / "render" / "uv_coords_256.npz") as golden:
        expected = golden["uv"]
    kept = uv[np.load(reference / "weights" / "indices.npy")]
    actual = np.stack([kept[:, 0] * 255, 255 - kept[:, 1] * 255], axis=1)
    np.testing.assert_allclose(actual, expected[:, :2], atol=1e-3)
