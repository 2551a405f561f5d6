"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

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
    if not target.name or "\0" in target.name:
        raise ExportError(f"expected a file name to write to, got {os.fspath(path)!r}")
    temporary = target.with_name(f".{target.name[:64]}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with temporary.open("xb") as stream:
                yield stream
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise ExportError(
            f"cannot write {target}: {error.strerror or error}; "
            "give a file name in an existing, writable folder with free space"
        ) from error


def atomic_write_all(files: Sequence[tuple[Path, bytes]]) -> None:
    """Write files that belong together: all or none, and the last one only after the others.

    Raises:
        ExportError: as `atomic_write`; files that were not there before are not there then.
    """
    added = [path for path, _ in files if not os.path.lexists(path)]  # never an error
    try:
        with contextlib.ExitStack() as stack:
            # They appear when the stack is left: what was entered last comes first.
            for path, content in reversed(files):
                stack.enter_context(atomic_write(path)).write(content)
    except BaseException:
        for path in added:
            with contextlib.suppress(OSError, ValueError):  # names that cannot be
                path.unlink()
        raise
