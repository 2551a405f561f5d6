"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from .errors import ExportError

_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file that appears under ``path`` only if the block ends without an error.

    The bytes go to a temporary file in the same folder, which is then moved over ``path``;
    on any error it is removed and an older file at ``path`` stays as it was. The new file has the
    permissions of the older one; where ``path`` is a link, what it leads to is written.

    Raises:
        ExportError: if the file cannot be written (missing or read-only folder, full disk), or what
            is there is no plain file.
    """
    target, permissions = _replaceable(path)
    temporary = target.with_name(f".{target.name[:64]}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with temporary.open("xb") as stream:
                if permissions is not None:
                    temporary.chmod(permissions)
                yield stream
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise _cannot_write(path, error) from error


def atomic_write_all(files: Sequence[tuple[Path, bytes]]) -> None:
    """Write files that belong together: all or none, and the last one only after the others.

    Raises:
        ExportError: as `atomic_write`, before any file is there; files that were not there before
            are not there then, should one fail to be moved.
    """
    found = [_replaceable(path) for path, _ in files]
    added = [target for target, permissions in found if permissions is None]
    try:
        with contextlib.ExitStack() as stack:
            # They appear when the stack is left: what was entered last comes first.
            for path, content in reversed(files):
                stack.enter_context(atomic_write(path)).write(content)
    except BaseException:
        for path in added:
            with contextlib.suppress(OSError):
                path.unlink()
        raise


def _replaceable(path: str | os.PathLike[str]) -> tuple[Path, int | None]:
    """Where links lead from ``path``, and the permissions of the plain file there; None where there
    is nothing yet.

    Raises:
        ExportError: if something else is there, which a file must not take the place of.
    """
    name = Path(path)
    if not name.name or "\0" in str(name):
        raise ExportError(f"expected a file name to write to, got {os.fspath(path)!r}")
    target = Path(os.path.realpath(name))
    try:
        mode = name.stat().st_mode
    except FileNotFoundError:
        return target, None
    except OSError as error:
        raise _cannot_write(path, error) from error
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no plain file")
        raise ExportError(
            f"cannot write {name}: expected a plain file or none, it is {kind}; "
            "give another file name"
        )
    return target, mode & 0o777


def _cannot_write(path: str | os.PathLike[str], error: OSError) -> ExportError:
    return ExportError(
        f"cannot write {Path(path)}: {error.strerror or error}; "
        "give a file name in an existing, writable folder with free space"
    )
