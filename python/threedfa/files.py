"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from .errors import ExportError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file that appears under ``path`` only if the block ends without an error.

    The bytes go to a temporary file in the same folder, which is then moved over ``path``;
    on any error it is removed and an older file at ``path`` stays as it was.

    Raises:
        ExportError: if the file cannot be written (missing or read-only folder, full disk).
    """
    target = Path(path)
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name[:64]}.", suffix=".tmp"
        )
        with os.fdopen(descriptor, "wb") as stream:
            yield cast(BinaryIO, stream)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise ExportError(
            f"cannot write {target}: {error.strerror or error}; "
            "give a file name in an existing, writable folder with free space"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _umask() -> int:
    """The permission bits that the user wants off; the mode of a file made by ``open`` shows them."""
    # Reading the mask means setting it; mkstemp's 0600 would otherwise hide results from the group.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
