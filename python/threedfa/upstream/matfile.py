"""MATLAB 5 ``.mat`` files with plain numeric matrices, which is all that upstream's files hold.

Format: "MAT-File Format", The MathWorks, chapter 1 (level 5 MAT-files): a 128-byte header, then
elements of an 8-byte tag (type, size) and data padded to 8 bytes; small ones have size and type
in 4 bytes and their data in the other 4. A matrix is an element that holds further elements.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .untrusted import Malformed, opened

MAX_BYTES = 64 * 2**20

_HEADER_BYTES = 128
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_NUMBERS = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}
_CLASSES = {
    **{6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2"},
    **{11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"},
}
# Of the flags byte beside the class: complex 8, global 4, logical 2.
_COMPLEX_OR_LOGICAL = 0x0A00


def read_mat(
    path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES
) -> dict[str, npt.NDArray[Any]]:
    """Read the real numeric two-dimensional arrays of a MATLAB 5 file.

    Args:
        path: the ``.mat`` file (little-endian, compressed or not).
        max_bytes: limit on the file's size and, separately, on what it decompresses to.

    Returns:
        One C-contiguous array (rows, columns) per variable, with the dtype of its MATLAB class.

    Raises:
        PackError: if the file is unreadable, truncated or over a limit, or holds anything else
            (text, cells, structures, sparse, complex, logical or n-dimensional arrays).
    """
    with opened(path, max_bytes) as data:
        if data[:10] != b"MATLAB 5.0" or data[124:_HEADER_BYTES] != b"\x00\x01IM":
            raise Malformed("it is not a little-endian MATLAB 5 file")
        variables: dict[str, npt.NDArray[Any]] = {}
        left = max_bytes
        elements = _Elements(memoryview(data)[_HEADER_BYTES:])
        while elements.data:
            kind, content = elements.take()
            if kind == _COMPRESSED:
                plain = _decompressed(content, left)
                left -= len(plain)
                inner = _Elements(memoryview(plain))
                kind, content = inner.take()
                inner.check_end()
            if kind != _MATRIX:
                raise Malformed(f"it holds an element of type {kind}, not a matrix")
            name, array = _matrix(content)
            if name in variables:
                raise Malformed(f"variable {name} comes twice")
            variables[name] = array
        return variables


@dataclass
class _Elements:
    """Takes elements off the front of some bytes."""

    data: memoryview

    def take(self) -> tuple[int, memoryview]:
        """The type and content of the next element."""
        if len(self.data) < 8:
            raise Malformed("the file ends within the tag of an element")
        kind, size = struct.unpack_from("<II", self.data)
        start = 8
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, 4
            if size > 4:
                raise Malformed(f"a small element declares {size} bytes")
        end = start + size
        if end > len(self.data):
            raise Malformed(
                f"an element declares {size} bytes and {len(self.data) - start} are left"
            )
        content = self.data[start:end]
        # Compressed elements are the ones that are not padded.
        self.data = self.data[end if kind == _COMPRESSED else -(-end // 8) * 8 :]
        return kind, content

    def take_as(self, expected: int, what: str) -> memoryview:
        """The content of the next element, which must have the given type."""
        kind, content = self.take()
        if kind != expected:
            raise Malformed(f"{what} should be of type {expected} and is of type {kind}")
        return content

    def check_end(self) -> None:
        if self.data:
            raise Malformed(f"{len(self.data)} unexpected bytes follow an element")


def _decompressed(content: memoryview, limit: int) -> bytes:
    stream = zlib.decompressobj()
    plain = stream.decompress(content, limit + 1)
    if len(plain) > limit:
        raise Malformed(f"it decompresses to more than {limit} bytes")
    if not stream.eof or stream.unused_data:
        raise Malformed("a compressed element is truncated or followed by other bytes")
    return plain


def _matrix(content: memoryview) -> tuple[str, npt.NDArray[Any]]:
    """The name and the values of a matrix element."""
    elements = _Elements(content)
    flags = elements.take_as(_UINT32, "the flags of a matrix")
    dimensions = elements.take_as(_INT32, "the dimensions of a matrix")
    name = bytes(elements.take_as(_INT8, "the name of a matrix")).decode("ascii")
    if not name.isidentifier() or len(flags) != 8 or len(dimensions) != 8:
        raise Malformed(f"{name[:63]!a} is not a named two-dimensional matrix")
    (flag,) = struct.unpack_from("<I", flags)
    if flag & 0xFF not in _CLASSES or flag & _COMPLEX_OR_LOGICAL:
        raise Malformed(f"matrix {name[:63]} is not of real numbers (flags {flag:#x})")
    target = np.dtype(_CLASSES[flag & 0xFF])
    rows, columns = struct.unpack("<ii", dimensions)
    kind, values = elements.take()
    elements.check_end()
    # MATLAB stores whole numbers in the smallest type that holds them.
    if kind not in _NUMBERS or not np.can_cast(_NUMBERS[kind], target):
        raise Malformed(f"matrix {name[:63]} has values of type {kind}, not {target}")
    stored = np.dtype("<" + _NUMBERS[kind])
    if rows < 0 or columns < 0 or rows * columns * stored.itemsize != len(values):
        raise Malformed(
            f"matrix {name[:63]} is declared as {rows} x {columns} with {len(values)} bytes"
        )
    view: npt.NDArray[Any] = np.ndarray((rows, columns), stored, buffer=values, order="F")
    return name, np.array(view, dtype=target, order="C")
