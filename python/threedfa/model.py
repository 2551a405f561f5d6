"""The morphable face model."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from .errors import PackError
from .landmark_sets import LandmarkTable, tables_of
from .pack import Pack

DENSE_VERTICES = 35_568
"""Models with fewer vertices are subdivided where dense results are asked for."""

# How far from any vertex a vertex's mirror image may lie, in extents of the face.
_MIRROR_TOLERANCE = 0.03


class MorphableModel:
    """A 3D morphable face model (Blanz and Vetter 1999).

    ``vertices = mean + shape_coeffs · shape_basis + expression_coeffs · expression_basis`` in
    object space: right-handed, +X to the image's right for a frontal face, +Y up, +Z to the viewer;
    the unit is the pack's. Immutable; one model may be used from many threads.

    Attributes:
        input_size: side of the regressor's input in pixels: the frame that camera
            parameters are written in.
        centimetres_per_unit: of object space; None for a model without a size in space.
        expression_names: of the expression modes in their order; empty where they have none.
        landmark_sets: the named sets of points on its surface, see
            :mod:`threedfa.landmark_sets`.
    """

    def __init__(
        self,
        core: _core.MorphableModel,
        *,
        input_size: int = 120,
        centimetres_per_unit: float | None = None,
        expression_names: tuple[str, ...] = (),
    ) -> None:
        if centimetres_per_unit is not None and not 0 < centimetres_per_unit < math.inf:
            raise ValueError(
                "centimetres_per_unit: expected None or a finite number above 0, "
                f"got {centimetres_per_unit}"
            )
        if expression_names and len(expression_names) != len(core.expression_basis):
            raise ValueError(
                f"expression_names: expected {len(core.expression_basis)} names, one for each "
                f"mode, or none, got {len(expression_names)}"
            )
        self._core = core
        self._path: Path | None = None  # of its file, where it was opened by name
        self.input_size = input_size
        self.centimetres_per_unit = centimetres_per_unit
        self.expression_names = expression_names
        self.landmark_sets: Mapping[str, LandmarkTable] = tables_of(core.point_sets)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        input_size: int = 120,
        centimetres_per_unit: float | None = None,
        expression_names: tuple[str, ...] = (),
    ) -> MorphableModel:
        """Map a model file (safetensors, as described in ``threedfa/morphable_model.hpp``).

        Args:
            path: the file; or the folder of a pack, whose settings then stand for the other
                arguments.
            input_size, centimetres_per_unit, expression_names: see the attributes.

        Raises:
            PackError: if the file is missing or malformed, or its tensors do not fit together.
            ValueError: if ``centimetres_per_unit`` is not above 0, or the names are not one for
                each expression mode.
        """
        if Path(path).is_dir():
            return cls.from_pack(Pack.load(path))
        model = cls(
            _map_file(path),
            input_size=input_size,
            centimetres_per_unit=centimetres_per_unit,
            expression_names=expression_names,
        )
        model._path = Path(path).absolute()
        return model

    @classmethod
    def from_pack(cls, pack: Pack) -> MorphableModel:
        """The model of a pack.

        Raises:
            PackError: as :meth:`load`.
        """
        try:
            return cls.load(
                pack.file_path(pack.model.file),
                input_size=pack.regressor.input_size,
                centimetres_per_unit=pack.model.centimetres_per_unit,
                expression_names=pack.model.expression_names,
            )
        except ValueError as error:
            raise PackError(f"pack {pack.name}: {error}; import the pack again") from error

    def __repr__(self) -> str:
        counts = len(self.mean), len(self.shape_basis), len(self.expression_basis)
        return "MorphableModel({} vertices, {} shapes, {} expressions)".format(*counts)

    def __deepcopy__(self, memo: object) -> MorphableModel:
        return self  # immutable

    def __reduce__(self) -> tuple[Any, ...]:
        """So that faces can go to other processes, which open the file again."""
        if self._path is None:
            raise TypeError("only a model that was opened from a file can be pickled")
        return _reopened, (
            self._path, self.input_size, self.centimetres_per_unit, self.expression_names
        )  # fmt: skip

    @property
    def mean(self) -> NDArray[np.float32]:
        """(V, 3) the mean face; read-only, as all arrays of the model."""
        return self._core.mean

    @property
    def shape_basis(self) -> NDArray[np.float32]:
        """(S, V, 3) displacement for each shape coefficient."""
        return self._core.shape_basis

    @property
    def expression_basis(self) -> NDArray[np.float32]:
        """(E, V, 3) displacement for each expression coefficient."""
        return self._core.expression_basis

    @property
    def triangles(self) -> NDArray[np.int32]:
        """(T, 3), counter-clockwise seen from outside."""
        return self._core.triangles

    @cached_property
    def _subdivision(self) -> _core.Subdivision | None:
        count = len(self.mean)
        if count >= DENSE_VERTICES:
            return None
        return _core.Subdivision(self.triangles, count)

    @property
    def dense_triangles(self) -> NDArray[np.int32]:
        """(4 T, 3) over the vertices of :meth:`densify`; ``triangles`` where the model itself has
        :data:`DENSE_VERTICES` vertices or more."""
        subdivision = self._subdivision
        return self.triangles if subdivision is None else subdivision.triangles

    @property
    def dense_uv(self) -> NDArray[np.float32] | None:
        """(D, 2) texture coordinates of the vertices of :meth:`densify`: new ones lie halfway along
        their edge, so that islands keep their outlines. None where the pack has none."""
        uv, subdivision = self.uv, self._subdivision
        if uv is None or subdivision is None:
            return uv
        return np.concatenate([uv, uv[subdivision.edges].mean(axis=1, dtype=np.float32)])

    def densify(self, values: ArrayLike) -> NDArray[np.float32]:
        """Values at V + one for each edge instead of V vertices: the modified butterfly.

        The first V stay as they are; the new ones make a smooth surface through them (Zorin et al.
        1996, "Interpolating Subdivision for Meshes with Arbitrary Topology"). Weights add up to 1,
        so it does not matter whether vertices are projected before or after.

        Args:
            values: (V, C), any C: coordinates, normals, colours.

        Returns:
            (D, C); the values themselves where the model has :data:`DENSE_VERTICES` vertices or
            more.

        Raises:
            TypeError: values that are not real numbers.
            ValueError: a wrong shape, or values that are not finite.
        """
        array = np.asarray(values)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"values: expected real numbers, got {array.dtype}")
        if array.ndim != 2 or len(array) != len(self.mean):
            raise ValueError(f"values: expected shape ({len(self.mean)}, C), got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError("values: expected finite values, got nan or inf")
        subdivision = self._subdivision
        if subdivision is None:
            return array.astype(np.float32, copy=False)
        return subdivision.apply(array)

    @cached_property
    def _rings(self) -> _core.VertexRings:
        return _core.VertexRings(self.triangles, len(self.mean))

    def vertex_normals(self, vertices: ArrayLike) -> NDArray[np.float32]:
        """:func:`threedfa.ops.vertex_normals` for the model's triangles, three times as fast: what
        is around each vertex is found out once.

        Args:
            vertices: (V, 3).

        Returns:
            (V, 3); zero for a vertex with no area around it.

        Raises:
            TypeError: vertices that are not real numbers.
            ValueError: a wrong shape, or values that are not finite.
        """
        return self._rings.normals(vertices)

    @property
    def uv(self) -> NDArray[np.float32] | None:
        """(V, 2) texture coordinates 0..1 with v up; None where the pack has none."""
        return self._core.uv

    @property
    def landmark_indices(self) -> NDArray[np.int32]:
        """(68,) for each landmark the vertex that weighs most in it."""
        heaviest = np.argmax(self._core.landmark_weights, axis=1)[:, None]
        indices: NDArray[np.int32] = np.take_along_axis(
            self._core.landmark_vertices, heaviest, axis=1
        )[:, 0]
        return indices

    @property
    def landmark_vertices(self) -> NDArray[np.int32]:
        """(68, 3) the three vertices whose weighted sum each landmark is."""
        return self._core.landmark_vertices

    @property
    def landmark_weights(self) -> NDArray[np.float32]:
        """(68, 3) their weights."""
        return self._core.landmark_weights

    @property
    def ncc(self) -> NDArray[np.float32]:
        """(V, 3) normalised coordinate code: the mean face scaled to 0..1 along each axis.

        Source: PNCC of Zhu et al. 2016, "Face Alignment Across Large Poses", section 3.3.
        """
        low, high = self.mean.min(axis=0), self.mean.max(axis=0)
        extent = np.where(high > low, high - low, 1)  # a model flat along an axis has code 0 there
        code: NDArray[np.float32] = ((self.mean - low) / extent).astype(np.float32)
        return code

    @cached_property
    def mirror_vertices(self) -> NDArray[np.int32] | None:
        """(V,) for each vertex the one nearest to its mirror image in the mean face (-x, y, z).

        None where the mean face is not symmetric: where an image is farther from all vertices than
        3 % of the face's extent.
        """
        return _mirror(self.mean, _MIRROR_TOLERANCE * float(np.ptp(self.mean, axis=0).max()))

    @property
    def param_count(self) -> int:
        """Length of a parameter vector: 12 camera + S shape + E expression values."""
        return 12 + len(self.shape_basis) + len(self.expression_basis)

    def reconstruct(
        self, shape_coeffs: ArrayLike, expression_coeffs: ArrayLike
    ) -> NDArray[np.float32]:
        """Vertices of one face in object space.

        Args:
            shape_coeffs: (S,).
            expression_coeffs: (E,).

        Returns:
            (V, 3) in the pack's unit.

        Raises:
            TypeError: coefficients that are not real numbers.
            ValueError: a wrong number of them, or one that is not finite.
        """
        return self._core.reconstruct(shape_coeffs, expression_coeffs)

    def project(self, params: ArrayLike, roi: ArrayLike, *, dense: bool) -> NDArray[np.float32]:
        """Landmarks or vertices of one face in the image.

        Args:
            params: (12 + S + E,) camera (3 × 4, row by row), shape and expression.
            roi: (4,) x1 y1 x2 y2, the region that the regressor saw, pixels.
            dense: all vertices instead of the landmarks.

        Returns:
            (68 or V, 3): x right, y down in pixels; z in pixels towards the viewer, zero at the
            model's origin.

        Raises:
            TypeError: arguments that are not real numbers.
            ValueError: a wrong number of them, or one that is not finite.
        """
        points = self.project_many(np.asarray(params)[None], np.asarray(roi)[None], dense=dense)
        face: NDArray[np.float32] = points[0]
        return face

    def project_many(
        self, params: ArrayLike, rois: ArrayLike, *, dense: bool
    ) -> NDArray[np.float32]:
        """:meth:`project` for N faces at once: (N, 12 + S + E) and (N, 4) to (N, 68 or V, 3)."""
        return self._core.project(params, rois, input_size=self.input_size, dense=dense)


def packed_basis(name: str, modes: NDArray[np.floating]) -> dict[str, NDArray[np.generic]]:
    """Tensors of a model file for a basis in 16 bits: integers times a scale for each mode.

    Half the memory to read, so about twice as fast as float32. As small as half floats, whose steps
    grow with the value: 0.02 mm where a jaw moves 2 to 4 cm. Here they are 1/65534 of the mode's
    largest movement.

    Args:
        name: ``"shape"`` or ``"expression"``.
        modes: float (K, V, 3), finite.

    Returns:
        ``NAME_basis`` int16 (K, V, 3) and ``NAME_scale`` float32 (K).
    """
    largest = np.abs(modes).max(axis=(1, 2))
    scale = (largest / np.iinfo(np.int16).max).astype(np.float32)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)  # of a mode that moves nothing
    return {
        f"{name}_basis": np.rint(modes / scale[:, None, None]).astype(np.int16),
        f"{name}_scale": scale,
    }


def _mirror(points: NDArray[np.float32], tolerance: float) -> NDArray[np.int32] | None:
    """The point nearest to each point's mirror image; None if one is farther than ``tolerance``."""
    order = np.argsort(points[:, 1], kind="stable")
    heights = points[order, 1]
    result = np.empty(len(points), np.int32)
    left = np.arange(len(points))  # in that order
    for reach in (tolerance / 8, tolerance):  # most are found among few
        far = []
        for rows in np.array_split(left, len(left) // 256 + 1):
            if not len(rows):
                continue
            low = np.searchsorted(heights, heights[rows[0]] - reach, "left")
            high = np.searchsorted(heights, heights[rows[-1]] + reach, "right")
            near = points[order[low:high]]
            mirrored = points[order[rows]] * np.array((-1, 1, 1), np.float32)
            squared = np.square(mirrored[:, None, 0] - near[:, 0])
            for axis in (1, 2):
                squared += np.square(mirrored[:, None, axis] - near[:, axis])
            nearest = np.argmin(squared, axis=1)
            result[order[rows]] = order[low + nearest]
            far.append(rows[squared[np.arange(len(rows)), nearest] > reach**2])
        left = np.concatenate(far) if far else left[:0]
    if len(left):
        return None
    result.flags.writeable = False
    return result


@lru_cache(maxsize=8)  # the faces of one pickle share their model
def _reopened(
    path: Path, input_size: int, unit: float | None, names: tuple[str, ...]
) -> MorphableModel:
    return MorphableModel.load(
        path, input_size=input_size, centimetres_per_unit=unit, expression_names=names
    )


def _map_file(path: str | os.PathLike[str]) -> _core.MorphableModel:
    try:
        return _core.MorphableModel.load(path)
    except _core.FileError as error:
        raise PackError(str(error)) from error
