"""Faces of the toy pack's head, made without any network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from threedfa import Face, MorphableModel, _core
from toy_pack import EXPRESSIONS, HEAD_SCALE, INPUT_SIZE, SHAPES, head_model

Array = npt.NDArray[Any]

PARAM_COUNT = 12 + SHAPES + EXPRESSIONS


def write_head(path: Path, **changes: Array | None) -> Path:
    """The head's model file with some tensors changed, or left out where they are None."""
    tensors = {**head_model(), **changes}
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(array) for name, array in tensors.items() if array is not None},
        path,
    )
    return path


def load_head(path: Path, **changes: Array | None) -> MorphableModel:
    return MorphableModel.load(write_head(path, **changes), input_size=INPUT_SIZE)


def head_params(
    yaw: float = 0, pitch: float = 0, roll: float = 0, coefficients: Any = 0, scale: float = 1
) -> Array:
    """Parameters of a head turned by these angles in the middle of its region, which it fills at
    scale 1."""
    middle = np.array([[INPUT_SIZE / 2 + 1], [INPUT_SIZE / 2], [0]])
    rotation = scale * HEAD_SCALE * _core.rotation_from_angles(yaw, pitch, roll)
    params = np.zeros(PARAM_COUNT, np.float32)
    params[:12] = np.hstack([rotation, middle]).ravel()
    params[12:] = coefficients
    return params


def head_face(model: MorphableModel, params: Array, roi: Any = (10, 20, 110, 120)) -> Face:
    roi = np.array(roi, np.float64)
    return Face(
        bbox=roi.astype(np.float32),
        score=0.9,
        roi=roi,
        params=params,
        landmarks=model.project(params, roi, dense=False),
        model=model,
    )
