"""One aligned face and its head pose."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from .aligned_crop import aligned_crop, frontalized
from .blendshapes import Blendshapes
from .detections import RefusedFace
from .image import ColorOrder, load_image
from .landmark_sets import Location, locate, point_at, table_named, visibility
from .metric_pose import MetricPose, intrinsics, place, size_in_centimetres
from .model import MorphableModel

if TYPE_CHECKING:
    from .export import Space, TextureFormat


_Array = TypeVar("_Array", bound=NDArray[Any])


@dataclass(frozen=True, eq=False)
class Pose:
    """Head pose: the rigid part of the weak-perspective camera.

    Attributes:
        yaw: degrees; > 0: the subject's nose points to the image's right.
        pitch: degrees; > 0: up.
        roll: degrees; > 0: clockwise in the image.
        rotation: (3, 3) proper rotation, object axes to the image's axes with y turned up;
            ``Rz(-roll) · Ry(yaw) · Rx(-pitch)``.
        translation: (3,) in pixels of the regressor's input (y up).
        scale: input pixels per model unit.
        projection: (3, 4) affine map from object space to image pixels (y down).
    """

    yaw: float
    pitch: float
    roll: float
    rotation: NDArray[np.float32]
    translation: NDArray[np.float32]
    scale: float
    projection: NDArray[np.float32]

    @classmethod
    def from_camera(cls, camera: ArrayLike, roi: ArrayLike, input_size: int) -> Pose:
        """Split a camera.

        Args:
            camera: (12,) the first parameters of a face.
            roi: (4,) the region that the regressor saw.
            input_size: side of the regressor's input, pixels.

        Raises:
            TypeError: arguments that are not real numbers.
            ValueError: a wrong number of them, one that is not finite, or a degenerate camera.
        """
        return cls(
            *_core.decompose(camera), projection=_core.image_projection(camera, roi, input_size)
        )


@dataclass(frozen=True, eq=False, repr=False)
class Face:
    """One face of one image. Its arrays are read-only, since each follows from others: a changed
    landmark would not be that of the parameters.

    Attributes:
        bbox: float32 (4,) x1 y1 x2 y2 in pixels, not clipped.
        score: of the detector, 0..1; 1 for a box that the caller gave.
        roi: float64 (4,) x1 y1 x2 y2, the square that the regressor saw.
        params: float32 (P,) camera (12), shape and expression coefficients.
        landmarks: float32 (68, 3) in pixels; z towards the viewer, zero at the model's origin.
        model: the morphable model that the parameters belong to.
        confidence: how sure the pack is that this is a face, 0..1; None for a pack that does not
            say.
    """

    bbox: NDArray[np.float32]
    score: float
    roi: NDArray[np.float64]
    params: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    model: MorphableModel
    confidence: float | None = None

    def __post_init__(self) -> None:
        for name in ("bbox", "roi", "params", "landmarks"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Copied and unpickled arrays would be writable."""
        for name, value in state.items():
            self.__dict__[name] = _read_only(value) if isinstance(value, np.ndarray) else value

    def __repr__(self) -> str:
        box = " ".join(f"{edge:.1f}" for edge in self.bbox)
        sure = None if self.confidence is None else round(float(self.confidence), 3)
        return (
            f"Face(bbox=[{box}], score={self.score:.3f}, confidence={sure}, model={self.model!r})"
        )

    @cached_property
    def vertices(self) -> NDArray[np.float32]:
        """(V, 3) dense vertices in the image, with the z of the landmarks; computed when asked."""
        return _read_only(self.model.project(self.params, self.roi, dense=True))

    @property
    def normals(self) -> NDArray[np.float32]:
        """(V, 3) unit normals of ``vertices`` in image axes: +z towards the viewer, y down."""
        # Image axes are left-handed (y down), which turns the triangles round.
        return -self.model.vertex_normals(self.vertices)

    @cached_property
    def dense_vertices(self) -> NDArray[np.float32]:
        """(D, 3) ``vertices`` and, for a model with fewer than 35,568 of them, one more for each
        edge, on a smooth surface through them; in the image, computed when asked."""
        return _read_only(self.model.densify(self.vertices))

    @property
    def dense_triangles(self) -> NDArray[np.int32]:
        """(T', 3) over ``dense_vertices``, counter-clockwise seen from outside."""
        return self.model.dense_triangles

    @cached_property
    def pose(self) -> Pose:
        """Head pose."""
        return Pose.from_camera(self.params[:12], self.roi, self.model.input_size)

    @property
    def shape_coeffs(self) -> NDArray[np.float32]:
        """(S,) coefficients of the shape basis."""
        return self.params[12 : 12 + len(self.model.shape_basis)]

    @property
    def expression_coeffs(self) -> NDArray[np.float32]:
        """(E,) coefficients of the expression basis."""
        return self.params[12 + len(self.model.shape_basis) :]

    @property
    def triangles(self) -> NDArray[np.int32]:
        """(T, 3), counter-clockwise seen from outside."""
        return self.model.triangles

    @property
    def blendshapes(self) -> Blendshapes:
        """The expression as ARKit's blend shapes: a mapping from the names to weights 0..1.

        Its ``unsupported`` lists those of the 52 that the pack's model cannot show.

        Raises:
            PackError: if the pack does not name its expressions as ARKit does.
        """
        return Blendshapes.of(self.model.expression_names, self.expression_coeffs)

    def landmarks_in(self, name: str) -> NDArray[np.float32]:
        """Landmarks of another scheme.

        Args:
            name: ``"ibug68"`` (as ``landmarks``), ``"mediapipe468"``, ``"five"``, or any other of
                ``model.landmark_sets``.

        Returns:
            (L, 3) x, y in pixels, z as in ``landmarks``.

        Raises:
            PackError: if the pack's model lacks the set.
            TypeError: if the name is no text.
            ValueError: if there is no set of that name.
        """
        table = table_named(self.model.landmark_sets, name)
        return self.landmarks if name == "ibug68" else table.of(self.vertices)

    def landmark_visibility(self, name: str = "ibug68") -> NDArray[np.bool_]:
        """(L,) True for each landmark of a set that the face itself does not hide.

        Decided by a z-buffer of the mesh, see :func:`threedfa.landmark_sets.visibility`. Hair,
        hands and the border of the image are not considered.

        Raises:
            PackError, ValueError: as :meth:`landmarks_in`.
        """
        table = table_named(self.model.landmark_sets, name)
        return visibility(table, self.vertices, self.triangles)

    def locate(self, x: float, y: float) -> Location | None:
        """The point of the surface seen at one place of the image, pixels; None outside the face.

        Raises:
            ValueError: if x or y is not finite.
        """
        return locate(x, y, self.vertices, self.triangles)

    def point_at(self, triangle: int, barycentric: ArrayLike) -> NDArray[np.float32]:
        """The point (3,) in the image of a triangle's number and weights (3,) of its vertices.

        Raises:
            TypeError: weights that are not real numbers, or a triangle that is no whole number.
            ValueError: a triangle out of range, or weights of a wrong shape or not finite.
        """
        return point_at(triangle, barycentric, self.vertices, self.triangles)

    def metric_pose(
        self,
        *,
        camera_matrix: ArrayLike | None = None,
        field_of_view: float | None = None,
        image_size: tuple[int, int] | None = None,
    ) -> MetricPose:
        """The head's place in front of the camera, in centimetres.

        The size of the head is that of the fitted model, so distances are right as far as the
        person's head has the size that the model gives it.

        Args:
            camera_matrix: (3, 3) intrinsics ``[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]``, pixels.
            field_of_view: of an ideal camera, in place of ``camera_matrix``: the angle across the
                image's width, degrees.
            image_size: (height, width) in pixels; needed with ``field_of_view``.

        Raises:
            PackError: if the pack's model has no unit of length.
            TypeError: a camera matrix of no real numbers, or an image size of no whole ones.
            ValueError: neither or both cameras, one that cannot be, or a face that fits no pose.
        """
        size = size_in_centimetres(self.model.centimetres_per_unit)
        matrix = intrinsics(image_size, camera_matrix, field_of_view)
        head = self.model.reconstruct(self.shape_coeffs, self.expression_coeffs)
        return place(head.astype(np.float64) * size, self.vertices[:, :2], matrix)

    def aligned_crop(
        self, image: Any, size: int = 112, *, color: ColorOrder = "rgb"
    ) -> NDArray[np.uint8]:
        """The face as recognition networks want it: its five points on ArcFace's template.

        Args:
            image: (H, W, 3) uint8 or anything else that :func:`threedfa.image.load_image` takes;
                the one that the face was found in.
            size: side of the crop, pixels; the template is that of 112 and grows with it.
            color: channel order of ``image`` if it is an array, ``"rgb"`` or ``"bgr"``.

        Returns:
            RGB (size, size, 3) uint8, black beyond the image.

        Raises:
            ImageError: if the image cannot be read or used.
            PackError: if the pack's model lacks the landmark set ``"five"``.
            ValueError: if the size is out of range.
        """
        return aligned_crop(load_image(image, color=color), self.landmarks_in("five"), size)

    def frontalized(
        self, image: Any, size: int = 256, *, mirror: bool = True, color: ColorOrder = "rgb"
    ) -> NDArray[np.uint8]:
        """The face seen from the front, with its expression and the colours of the image.

        Args:
            image: as for :meth:`aligned_crop`.
            size: side of the picture, pixels; it holds the whole mesh.
            mirror: fill what the image does not show from the other side of the face.
            color: channel order of ``image`` if it is an array, ``"rgb"`` or ``"bgr"``.

        Returns:
            RGB (size, size, 3) uint8, black around the face.

        Raises:
            ImageError: if the image cannot be read or used.
            ValueError: if the size is out of range.
        """
        return frontalized(
            load_image(image, color=color),
            self.vertices,
            self.triangles,
            self.model.reconstruct(self.shape_coeffs, self.expression_coeffs),
            self.normals[:, 2],
            size=size,
            mirror=mirror,
        )

    def save(
        self,
        path: str | os.PathLike[str],
        image: Any = None,
        *,
        space: Space | None = None,
        texture_size: int | None = 1024,
        texture_format: TextureFormat = "png",
        color: ColorOrder = "rgb",
    ) -> None:
        """Write the mesh as OBJ, PLY, GLB or STL; see :func:`threedfa.save_mesh`.

        Without the image that the face is of: upright, in object space, and without colours.

        Raises:
            ImageError, ExportError, ValueError: as :func:`threedfa.save_mesh`.
        """
        from .export import save_mesh  # which needs this module

        save_mesh(
            path,
            image,
            [self],
            space=space,
            texture_size=texture_size,
            texture_format=texture_format,
            color=color,
        )


class Analysis(NamedTuple):
    """The faces of one image and what was refused, both best score first."""

    faces: list[Face]
    refused: list[RefusedFace]


def require_faces(faces: object) -> None:
    """Raise a TypeError for one face where several are expected."""
    if isinstance(faces, Face):
        raise TypeError("faces: expected a list of faces, got one Face; put it into a list")


def _read_only(array: _Array) -> _Array:
    view = array.view()
    view.flags.writeable = False
    return view
