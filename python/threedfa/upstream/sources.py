"""The files that 3DDFA_V2 publishes and what a pack needs of them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import PackError

UPSTREAM_COMMIT = "1b6c67601abffc1e9f248b291708aef0e43b55ae"
UPSTREAM_SOURCE = f"https://github.com/cleardusk/3DDFA_V2, commit {UPSTREAM_COMMIT}"
UPSTREAM_LICENCE = (
    "Code and networks: MIT License, Copyright (c) 2020 Jianzhu Guo (3DDFA_V2).\n"
    "Face model: derived from the Basel Face Model 2009 (P. Paysan, R. Knothe, B. Amberg, "
    "S. Romdhani, T. Vetter, University of Basel), for academic use only; commercial use needs a "
    "licence from the University of Basel, see https://faces.dmi.unibas.ch/bfm/."
)

MAX_BYTES = 256 * 2**20  # of one file; the largest real one has 24 MB


@dataclass(frozen=True)
class UpstreamFile:
    """A published file: its path in the repository and the git blob id of its content."""

    path: str
    git_blob: str

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


DETECTOR = "FaceBoxesProd.pth"
BASIS = "bfm_noneck_v3.pkl"
TRIANGLES = "tri.pkl"
PARAM_STATISTICS = "param_mean_std_62d_120x120.pkl"
UV = "BFM_UV.mat"
UV_ROWS = "indices.npy"
REGRESSORS: Mapping[str, str] = {"mb1": "mb1_120x120.pth", "mb05": "mb05_120x120.pth"}
PACK_REGRESSORS: Mapping[str, str] = {"3ddfa_v2-mb1": "mb1", "3ddfa_v2-mb05": "mb05"}

OPTIONAL = (UV, UV_ROWS)  # without them the model has no uv coordinates

UPSTREAM_FILES = (
    UpstreamFile(f"FaceBoxes/weights/{DETECTOR}", "89c411c20eb55668e224b04cba549687ea242b57"),
    UpstreamFile(f"weights/{REGRESSORS['mb1']}", "bb78e0cd616fa578febb725b4be3a3ddd546f6b4"),
    UpstreamFile(f"weights/{REGRESSORS['mb05']}", "6b7be882d53da54cc84732b295695d5c89c93bc3"),
    UpstreamFile(f"configs/{BASIS}", "7a44e1e29d658fc5d7303eb07cd820b23daab34a"),
    UpstreamFile(f"configs/{TRIANGLES}", "31b52dcfb1a823649a6157f784ce39304c96ca6d"),
    UpstreamFile(f"configs/{PARAM_STATISTICS}", "110c0f3eda9f7c610dd20a4ac96de848b76de443"),
    UpstreamFile(f"configs/{UV}", "fa205443b62307647358facf6fd92b13166d0d86"),
    UpstreamFile(f"configs/{UV_ROWS}", "8dc0fbd5fcd3f46528ce0c8cb40fd5fa8432bed4"),
)


def needed_files(
    regressor: str, files: Sequence[UpstreamFile] = UPSTREAM_FILES
) -> list[UpstreamFile]:
    """The published files that a pack with this regressor (``"mb1"``, ``"mb05"``) is made of."""
    others = {name for key, name in REGRESSORS.items() if key != regressor}
    return [file for file in files if file.name not in others]


def git_blob_id(path: Path) -> str:
    """The id that git gives to a file with this content: SHA-1 of a short header and the bytes."""
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def find_file(source_dir: Path, file: UpstreamFile) -> Path | None:
    """Where ``source_dir`` has this file: at its place in a checkout, or in any of the checkout's
    folders, or beside the others.

    Raises:
        PackError: if it is a link that leaves ``source_dir``, not a regular file, or too large.
    """
    folders = ("", "weights", "configs", "FaceBoxes/weights")
    candidates = [source_dir / file.path, *(source_dir / f / file.name for f in folders)]
    path = next((path for path in candidates if os.path.lexists(path)), None)
    if path is None:
        return None
    try:
        real = path.resolve(strict=True)
        status = real.stat()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise PackError(f"cannot read {path}: {error}") from error
    if not real.is_relative_to(source_dir.resolve()):
        raise PackError(
            f"{path} is a link to {real}, outside {source_dir}; put the file itself there"
        )
    if not stat.S_ISREG(status.st_mode):
        raise PackError(f"{path}: expected a regular file")
    if status.st_size > MAX_BYTES:
        raise PackError(
            f"{path}: expected at most {MAX_BYTES} bytes, found {status.st_size}; this is not the "
            "file that upstream publishes"
        )
    return path
