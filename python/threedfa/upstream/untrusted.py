"""Reading files that nobody vouches for: bounded, and with one kind of error."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import PackError

# What the readers of the standard library raise on bytes they cannot make sense of.
_READER_ERRORS = (
    ValueError,  # also UnicodeDecodeError
    EOFError,
    OverflowError,
    MemoryError,
    RuntimeError,  # also NotImplementedError
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    Warning,  # where warnings are errors
)


class Malformed(Exception):  # noqa: N818
    """Content that is refused; the message says what and why, :func:`opened` adds the file."""


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], max_bytes: int) -> Iterator[bytes]:
    """Give the bytes of a regular file of at most ``max_bytes`` and name it in every error.

    Raises:
        PackError: if the file cannot be read or is too large, and in place of any
            :class:`Malformed` or decoding error that the block raises.
    """
    try:
        # Looked at before opening: opening a pipe would wait for its other end.
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise PackError(f"{os.fspath(path)}: expected a regular file")
        with Path(path).open("rb") as stream:
            data = stream.read(min(status.st_size, max_bytes) + 1)
    except (OSError, ValueError) as error:
        raise PackError(f"{os.fspath(path)}: cannot be read: {error}") from error
    if len(data) > max_bytes:
        raise PackError(
            f"{os.fspath(path)}: {status.st_size} bytes, more than the limit of {max_bytes}; "
            "this is not the file that upstream publishes"
        )
    try:
        yield data
    except (Malformed, *_READER_ERRORS) as error:
        raise PackError(
            f"{os.fspath(path)}: refused: {error or type(error).__name__}; "
            "get the file again from the place that publishes it"
        ) from error
