"""The training steps: their modules, their commands, their files."""

from __future__ import annotations

import contextlib
import importlib
import io
import runpy
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
TRAINING = ROOT / "weights" / "training"
MODEL = ROOT / "weights" / "default" / "model.safetensors"


def tool(name: str) -> Any:
    """One of the modules, imported as they import each other."""
    with mock.patch.object(sys, "path", [str(TRAINING), *sys.path]):
        return importlib.import_module(name)


def step(script: str, *arguments: object) -> str:
    """Run one step as its command does, but in this process; what it printed."""
    path, printed = str(TRAINING / script), io.StringIO()
    with (
        mock.patch.object(sys, "path", [str(TRAINING), *sys.path]),
        mock.patch.object(sys, "argv", [path, *map(str, arguments)]),
        contextlib.redirect_stdout(printed),
    ):
        runpy.run_path(path, run_name="__main__")
    return printed.getvalue()


def write_canonical(folder: Path, model: Any) -> None:
    """What the material says of the teacher's 468 points, for points that are the face model's."""
    surface = model.points468.of(model.mean)
    w68 = np.zeros((68, 468))
    marks = model.points68.of(model.mean)
    w68[np.arange(68), ((marks[:, None] - surface) ** 2).sum(2).argmin(1)] = 1
    rings = {name: np.arange(4) for name in ("lips_up", "lips_lo", "lid_up", "lid_lo")}
    np.savez(
        folder / "canonical_468_to_ict.npz",
        weight=np.ones(468),
        w68=w68,
        mirror468=mirror_images(surface),
        **rings,
    )


def mirror_images(points: Any) -> Any:
    """For each of (L, 3) points of a symmetric head the one on the other side."""
    return ((points[:, None] * [-1, 1, 1] - points) ** 2).sum(2).argmin(1)
