"""The face model as the training steps use it, and the frames that points are written in.

Image frame: pixels of a picture, x right, y down, z towards the viewer, centre of the first pixel
(0, 0). A camera is a (3, 4) matrix from object space to it. Pack frame: what the regressor's
parameters mean, see :func:`to_pack_frame`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

Array = NDArray[np.float32]
Indices = NDArray[np.int64]

CAMERA = 12
INPUT_SIZE = 120
# Side of the regressor's region / longer side of the landmarks' bounding rectangle. Upstream's is
# 1.41; what lies farther out than this says less than finer pixels do.
REGION_SCALE = 1.25

# The core maps a region of side S to the network's 120 pixels with pixel centres at half pixels and
# back without: crop pixel u lies at (u + 1/2) S/120 - 1/2, parameter x at (x - 1) S/120 of the
# region. The difference, (1 - 120/S) / 2 pixels of the crop, is 0 for a region of 120 pixels and
# 1/2 for a very large one. Training takes the value for 240.
_CENTRE = 0.25


def to_pack_frame(points: Array, size: int = INPUT_SIZE) -> Array:
    """(..., 2 or 3) points of a crop, image frame, in the frame of the regressor's parameters."""
    out = np.array(points, np.float32)
    out[..., 0] += 1 + _CENTRE
    out[..., 1] = size - _CENTRE - out[..., 1]
    return out


def to_pack_camera(camera: Array, size: int = INPUT_SIZE) -> Array:
    """(..., 3, 4) camera into a crop, image frame, as the regressor's camera (y up)."""
    out = np.array(camera, np.float32)
    out[..., 0, 3] += 1 + _CENTRE
    out[..., 1, :] *= -1
    out[..., 1, 3] += size - _CENTRE
    out[..., 2, 3] = 0
    return out


@dataclass(frozen=True)
class PointTable:
    """Points of the surface: each the weighted sum of three vertices."""

    vertices: Indices  # (L, 3)
    weights: Array  # (L, 3)

    def __len__(self) -> int:
        return len(self.vertices)

    def of(self, field: Array) -> Array:
        """(..., V, 3) values at the vertices to (..., L, 3)."""
        corners = field[..., self.vertices, :]
        result: Array = (corners * self.weights[..., None]).sum(-2)
        return result


@dataclass(frozen=True)
class Morphable:
    """mean + shape · shape_basis + expression · expression_basis, in centimetres."""

    mean: Array  # (V, 3)
    shape_basis: Array  # (S, V, 3)
    expression_basis: Array  # (E, V, 3)
    triangles: NDArray[np.int32]  # (T, 3)
    points68: PointTable
    points468: PointTable
    mirror_signs: Array  # (S,) 1 or -1: each shape mode is symmetric or antisymmetric
    mirror_expressions: Indices  # (E,) for each expression its mirror image
    region: NDArray[np.int32]  # (V,) index into region_names
    expression_names: tuple[str, ...]  # ARKit's blend shapes
    region_names: tuple[str, ...]

    @staticmethod
    def load(path: Path) -> Morphable:
        """Read a model file that also has ``landmarks468_*`` and the expressions' names."""
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()

        def table(name: str) -> PointTable:
            return PointTable(
                tensors[f"{name}_vertices"].astype(np.int64),
                tensors[f"{name}_weights"].astype(np.float32),
            )

        def basis(name: str) -> Array:
            scale = tensors[f"{name}_scale"].astype(np.float32)  # stored as 16-bit integers
            return tensors[f"{name}_basis"].astype(np.float32) * scale[:, None, None]

        return Morphable(
            mean=tensors["mean"].astype(np.float32),
            shape_basis=basis("shape"),
            expression_basis=basis("expression"),
            triangles=tensors["triangles"].astype(np.int32),
            points68=table("landmark"),
            points468=table("landmarks468"),
            mirror_signs=tensors["shape_mirror_sign"].astype(np.float32),
            mirror_expressions=tensors["expression_mirror"].astype(np.int64),
            region=tensors["region"].astype(np.int32),
            expression_names=tuple(json.loads(metadata["expression_names"])),
            region_names=tuple(json.loads(metadata["region_names"])),
        )

    @property
    def shape_count(self) -> int:
        return len(self.shape_basis)

    @property
    def expression_count(self) -> int:
        return len(self.expression_basis)

    @property
    def param_count(self) -> int:
        return CAMERA + self.shape_count + self.expression_count

    def expression_index(self, name: str) -> int:
        """Position of an ARKit blend shape among the expressions."""
        return self.expression_names.index(name)

    @cached_property
    def _basis(self) -> Array:
        return np.concatenate([self.shape_basis, self.expression_basis]).reshape(
            self.shape_count + self.expression_count, -1
        )

    def vertices(self, coefficients: Array) -> Array:
        """(S + E,) coefficients to (V, 3) vertices, object space."""
        out: Array = self.mean + (coefficients.astype(np.float32) @ self._basis).reshape(-1, 3)
        return out

    def at(self, table: PointTable) -> tuple[Array, Array]:
        """Mean (L, 3) and basis (S + E, L, 3) at some points."""
        basis = np.concatenate([table.of(self.shape_basis), table.of(self.expression_basis)])
        return table.of(self.mean), basis

    @cached_property
    def _at68(self) -> tuple[Array, Array]:
        return self.at(self.points68)

    def landmarks(self, params: Array) -> Array:
        """(12 + S + E,) parameters to the 68 landmarks, (68, 2) in the frame of their camera."""
        mean, basis = self._at68
        camera = params[:CAMERA].reshape(3, 4)
        points = mean + np.tensordot(params[CAMERA:], basis, 1)
        flat: Array = points @ camera[:2, :3].T + camera[:2, 3]
        return flat

    def mirror(self, camera: Array, coefficients: Array, size: int) -> tuple[Array, Array]:
        """Camera (3, 4) and coefficients of the face in the picture mirrored left to right."""
        flipped = np.array(camera)
        flipped[:, 0] *= -1
        flipped[0] *= -1
        flipped[0, 3] += size - 1
        shape = coefficients[: self.shape_count] * self.mirror_signs
        return flipped, np.concatenate(
            [shape, coefficients[self.shape_count :][self.mirror_expressions]]
        )
