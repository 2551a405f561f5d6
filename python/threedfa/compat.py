"""The interface of ThreeDFA and 3DDFA_V2, for code written against it.

``docs/migrating.md`` lists what is here, what replaces it in new code, and where the two differ. In
short:

* Points and vertices are float32 ``(3, N)``; ``tri`` is ``(T, 3)``, **clockwise** seen from
  outside.
* z is zero at the farthest of the points that one call returns, so that sparse and dense points of
  one face have different zeros; landmark 44 has upstream's z.
* Angles are those of 3DDFA_V2, the negatives of those of :class:`threedfa.Pose`.
* :class:`FaceBoxes_ONNX`, :class:`TDDFA_ONNX` and the functions take **BGR** images, as
  ``cv2.imread`` gives them; :class:`Instance` takes **RGB** images.

Images are uint8 ``(H, W, 3)`` arrays. No function changes an array of its caller. A wrong dtype is
a ``TypeError`` (an :class:`~threedfa.errors.ImageError` for images), a wrong shape or a value that
is not finite a ``ValueError``.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from safetensors import safe_open

from . import _core
from .aligner import FaceAligner
from .detector import FaceDetector
from .errors import BackendError, PackError
from .image import load_image, save_image
from .mesh_files import merge_meshes, to_y_up, write_obj, write_ply
from .model import MorphableModel
from .pack import Pack, pack_path
from .rendering import (
    paint_depth,
    paint_landmarks,
    paint_lit,
    paint_mesh,
    paint_pose_box,
    pose_box,
    vertex_colors,
)

__all__ = [
    "TDDFA",
    "TDDFA_ONNX",
    "FaceBoxes",
    "FaceBoxes_ONNX",
    "FaceUtils",
    "ImgUtils",
    "Instance",
    "calc_pose",
    "cv_draw_landmark",
    "depth",
    "draw_landmarks",
    "get_suffix",
    "pncc",
    "render",
    "ser_to_obj",
    "ser_to_ply",
    "str2bool",
    "uv_tex",
    "viz_pose",
]

_Image = NDArray[np.uint8]
_Floats = NDArray[np.float32]
_PackLike = Pack | str | os.PathLike[str]
_Color = tuple[int, int, int]

_PACKS = ("3ddfa_v2-mb05", "3ddfa_v2-mb1", "default")  # ThreeDFA's own choice first
_REGRESSOR_PACKS = {"mb05": "3ddfa_v2-mb05", "mb1": "3ddfa_v2-mb1"}
_KEYPOINTS = "upstream_keypoints"
_YAW_LIMIT = 0.998  # |sin(yaw)| beyond which 3DDFA_V2 calls it 90 degrees


class FaceBoxes_ONNX:  # noqa: N801
    """Face detector.

    Args:
        timer_flag: print the time that each call takes.
        pack: a pack, its name, or its folder; None: the first that there is of ``3ddfa_v2-mb05``,
            ``3ddfa_v2-mb1`` and ``default``.

    Raises:
        PackError: if there is no such pack, or it is incomplete or altered.
    """

    def __init__(self, timer_flag: bool = False, *, pack: _PackLike | None = None) -> None:
        self.timer_flag = timer_flag
        self._detector = FaceDetector(_load_pack(pack))

    def __call__(self, img_: _Image) -> list[list[float]]:
        """Find the faces of a BGR image: ``[x1, y1, x2, y2, score]``, best first.

        Those whose score is above the pack's threshold: 0.5 for upstream's packs.

        Raises:
            ImageError: if the array is not an image.
        """
        start = time.perf_counter()
        found = self._detector.single_pass(load_image(_picture(img_), color="bgr"))
        if self.timer_flag:
            print(f"detection: {(time.perf_counter() - start) * 1000:.1f} ms")
        return [[*box.tolist(), score] for box, score in found]


class TDDFA_ONNX:  # noqa: N801
    """Face alignment, from a box to the parameters and vertices of the face model.

    The pack holds what upstream's files hold, so of the names in upstream's YAML files only
    ``checkpoint_fp`` matters: it chooses the pack. ``arch``, ``widen_factor``, ``bfm_fp``,
    ``onnx_fp`` and ``param_mean_std_fp`` are taken and not used.

    Args:
        checkpoint_fp: file whose name says ``mb1`` or ``mb05``, for the pack ``3ddfa_v2-mb1`` or
            ``3ddfa_v2-mb05``. It is not opened.
        gpu_mode: run on CUDA.
        gpu_id: only 0; other devices are chosen with the variable ``CUDA_VISIBLE_DEVICES``.
        size, num_params, shape_dim, exp_dim: must be the pack's if given.
        pack: a pack, its name, or its folder, whatever ``checkpoint_fp`` says; with neither, as for
            :class:`FaceBoxes_ONNX`.

    Attributes:
        tri: int32 (T, 3) triangles, clockwise seen from outside.
        size: side of the regressor's input in pixels.
        model: the :class:`threedfa.MorphableModel`.

    Raises:
        PackError: if there is no such pack, or it is incomplete or altered.
        BackendError: if ``gpu_mode`` is asked for and CUDA is not available.
        ValueError: if an argument does not fit the pack, or ``checkpoint_fp`` says neither name.
    """

    def __init__(
        self,
        *,
        arch: str | None = None,
        widen_factor: float | None = None,
        checkpoint_fp: str | os.PathLike[str] | None = None,
        bfm_fp: str | os.PathLike[str] | None = None,
        size: int | None = None,
        num_params: int | None = None,
        gpu_mode: bool = False,
        gpu_id: int = 0,
        onnx_fp: str | os.PathLike[str] | None = None,
        param_mean_std_fp: str | os.PathLike[str] | None = None,
        shape_dim: int | None = None,
        exp_dim: int | None = None,
        pack: _PackLike | None = None,
    ) -> None:
        if gpu_id != 0:
            raise ValueError(
                f"gpu_id: expected 0, got {gpu_id}; set CUDA_VISIBLE_DEVICES={gpu_id} instead"
            )
        if pack is None and checkpoint_fp is not None:
            pack = _regressor_pack(checkpoint_fp)
            if pack is None:
                raise ValueError(
                    f"checkpoint_fp: expected a file name with {' or '.join(_REGRESSOR_PACKS)}, "
                    f"got {os.fspath(checkpoint_fp)}; name the pack to use with pack="
                )
        loaded = _load_pack(pack)
        split = loaded.regressor.param_split
        for name, given, actual in (
            ("size", size, loaded.regressor.input_size),
            ("num_params", num_params, split.total),
            ("shape_dim", shape_dim, split.shape),
            ("exp_dim", exp_dim, split.expression),
        ):
            if given is not None and given != actual:
                raise ValueError(
                    f"{name}: expected {actual}, as pack {loaded.name} has it, got {given}; leave "
                    "it out or choose another pack with pack="
                )
        providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if gpu_mode else None
        self._aligner = FaceAligner(loaded, providers=providers)
        self._landmarks = _UpstreamLandmarks.load(loaded, self._aligner.model)
        self.model: MorphableModel = self._aligner.model
        self.size: int = self.model.input_size
        self.tri: NDArray[np.int32] = np.ascontiguousarray(self.model.triangles[:, ::-1])

    def __call__(
        self,
        img_ori: _Image,
        objs: Sequence[ArrayLike],
        *,
        crop_policy: Literal["box", "landmark"] = "box",
        timer_flag: bool = False,
    ) -> tuple[list[_Floats], list[list[float]]]:
        """Regress the parameters of faces.

        Args:
            img_ori: BGR image.
            objs: for ``crop_policy`` ``"box"`` boxes ``[x1, y1, x2, y2]``, with or without a score;
                for ``"landmark"`` points (3, N) or (2, N), of this image or the previous frame.
            crop_policy: what ``objs`` are.
            timer_flag: print the time that the call takes.

        Returns:
            Parameters float32 (P,) and regions ``[x1, y1, x2, y2]``, one of each for each face.

        Raises:
            ImageError: if the array is not an image.
            ValueError: for another ``crop_policy``, or boxes or points that are malformed, empty,
                not finite, or wholly outside the image.
        """
        image = _picture(img_ori)
        start = time.perf_counter()
        if crop_policy == "box":
            boxes = [np.asarray(box)[:4] for box in objs]
            faces = self._aligner.align(image, boxes, color="bgr")
        elif crop_policy == "landmark":
            points = [_points(obj) for obj in objs]
            faces = self._aligner.align_from_landmarks(image, points, color="bgr")
        else:
            raise ValueError(f"crop_policy: expected 'box' or 'landmark', got {crop_policy!r}")
        if timer_flag:
            print(f"alignment: {(time.perf_counter() - start) * 1000:.1f} ms")
        return [face.params.copy() for face in faces], [face.roi.tolist() for face in faces]

    def recon_vers(
        self,
        param_lst: Sequence[ArrayLike],
        roi_box_lst: Sequence[ArrayLike],
        *,
        dense_flag: bool = False,
    ) -> list[_Floats]:
        """Points of faces in the image, from what :meth:`__call__` returns.

        Args:
            param_lst: (P,) for each face.
            roi_box_lst: (4,) for each face.
            dense_flag: all vertices instead of the 68 landmarks.

        Returns:
            float32 (3, V) or (3, 68) for each face.

        Raises:
            ValueError: lists of different lengths, or wrong numbers of values in them.
        """
        faces = zip(param_lst, roi_box_lst, strict=True)
        if dense_flag or self._landmarks is None:
            points = [self.model.project(p, roi, dense=dense_flag) for p, roi in faces]
        else:
            points = [self._landmarks.project(p, roi) for p, roi in faces]
        return [_upstream_z(p) for p in points]


class _UpstreamLandmarks:
    """The landmarks as upstream's basis file lists them: three rows of coordinates for each.

    For landmark 44 the row of z belongs to another vertex than those of x and y.
    """

    def __init__(self, rows: NDArray[np.int32], model: MorphableModel) -> None:
        self._size = model.input_size
        self._mean = model.mean.ravel()[rows]
        modes = [
            basis.reshape(len(basis), -1)[:, rows.ravel()]
            for basis in (model.shape_basis, model.expression_basis)
        ]
        self._basis = np.concatenate(modes)

    @classmethod
    def load(cls, pack: Pack, model: MorphableModel) -> _UpstreamLandmarks | None:
        """None for a pack that was not made from upstream's files."""
        with safe_open(pack.file_path(pack.model.file), framework="numpy") as file:
            if _KEYPOINTS not in file.keys():  # noqa: SIM118 (not a mapping)
                return None
            rows = file.get_tensor(_KEYPOINTS)
        count = model.mean.size
        if (
            rows.dtype != np.int32
            or rows.shape != (len(model.landmark_indices), 3)
            or rows.min() < 0
            or rows.max() >= count
        ):
            raise PackError(
                f"pack {pack.name}: {_KEYPOINTS}: expected int32 (68, 3) in 0..{count - 1}, got "
                f"{rows.dtype} {rows.shape}; import the pack again"
            )
        return cls(rows, model)

    def project(self, params: ArrayLike, roi: ArrayLike) -> _Floats:
        """(68, 3) in the image; see :meth:`threedfa.MorphableModel.project`."""
        values = _params(params, 12 + len(self._basis))
        points = self._mean + (values[12:] @ self._basis).reshape(-1, 3)
        camera = _core.image_projection(values[:12], roi, self._size)
        projected: _Floats = points @ camera[:, :3].T + camera[:, 3]
        return projected


class Instance:
    """ThreeDFA's one object for everything, on **RGB** images.

    ThreeDFA gave its regressor RGB crops, although it was trained on BGR ones. Here detector and
    regressor both get BGR, so landmarks differ from ThreeDFA's and equal those of 3DDFA_V2.

    Args:
        config_path: taken as by ThreeDFA; the YAML file is not opened. If its name says ``mb1`` or
            ``mb05``, it chooses the pack as for :class:`TDDFA_ONNX`.
        pack: a pack, its name, or its folder.

    Attributes:
        face_boxes: the :class:`FaceBoxes_ONNX`, which takes BGR images.
        tddfa: the :class:`TDDFA_ONNX`, which takes BGR images.

    Raises:
        PackError: if there is no such pack, or it is incomplete or altered.
    """

    def __init__(
        self,
        config_path: str | os.PathLike[str] | None = None,
        *,
        pack: _PackLike | None = None,
    ) -> None:
        if pack is None and config_path is not None:
            pack = _regressor_pack(config_path)
        loaded = _load_pack(pack)
        self.face_boxes = FaceBoxes_ONNX(pack=loaded)
        self.tddfa = TDDFA_ONNX(pack=loaded)

    def detect_face(
        self, loaded_im: _Image, filter_score: float = 0.85, trunc_score: bool = True
    ) -> list[list[float]]:
        """Boxes ``[x1, y1, x2, y2]`` with a score of at least ``filter_score``.

        The score is the last element where ``trunc_score`` is False.
        """
        found = self.face_boxes(_swapped(loaded_im))
        return [box[:4] if trunc_score else box for box in found if box[4] >= filter_score]

    def detect_lms(
        self,
        loaded_im: _Image,
        ret_dense: bool = False,
        lm_type: Literal["2d", "3d"] = "2d",
        round_int: bool = True,
    ) -> list[NDArray[Any]]:
        """Detect the faces and return their landmarks, or all vertices if ``ret_dense``.

        Returns:
            For each face whole pixels (N, 2), or (N, 3) for ``lm_type`` ``"3d"``; or, where
            ``round_int`` is False, float32 (3, N).
        """
        faces = self.vlist(loaded_im, self.detect_face(loaded_im), ret_dense)
        if not round_int:
            return list(faces)
        return [np.array(FaceUtils.ret_lmpts(face, lm_type), dtype=int) for face in faces]

    def vlist(
        self, loaded_im: _Image, in_bboxes: Sequence[ArrayLike], ret_dense: bool = False
    ) -> list[_Floats]:
        """Landmarks (3, 68), or all vertices (3, V), of the faces in the given boxes."""
        params, rois = self.tddfa(_swapped(loaded_im), in_bboxes)
        return self.tddfa.recon_vers(params, rois, dense_flag=ret_dense)

    def overlay(
        self,
        loaded_im: _Image,
        vert_list: Sequence[ArrayLike],
        mode: Literal["base", "depth", "pncc", "uvtex"] = "pncc",
        show: bool = False,
        alpha: float = 0.6,
        with_bg: bool = True,
    ) -> _Image:
        """Draw dense faces over their image; an RGB picture.

        ``alpha`` is that of ``"base"``; ``with_bg`` False draws on black.
        """
        tri, model = self.tddfa.tri, self.tddfa.model
        if mode == "base":
            drawn = render(loaded_im, vert_list, tri, alpha, with_bg_flag=with_bg)
        elif mode == "depth":
            drawn = depth(loaded_im, vert_list, tri, with_bg_flag=with_bg)
        elif mode == "pncc":
            drawn = pncc(loaded_im, vert_list, tri, with_bg_flag=with_bg, model=model)
        elif mode == "uvtex":
            drawn = uv_tex(loaded_im, vert_list, tri, model=model)
        else:
            raise ValueError(f"mode: expected base, depth, pncc or uvtex, got {mode!r}")
        if show:
            _show(_swapped(drawn))
        return drawn

    def pose(
        self,
        loaded_im: _Image,
        param_list: Sequence[ArrayLike],
        ver_list: Sequence[ArrayLike],
        show: bool = False,
    ) -> _Image:
        """:func:`viz_pose` on an RGB image."""
        return _swapped(viz_pose(_swapped(loaded_im), param_list, ver_list, show))

    def ser_to_mesh(
        self,
        loaded_im: _Image,
        ver_list: Sequence[ArrayLike],
        mode: Literal["obj", "ply"] = "obj",
        sv_fp: str | os.PathLike[str] | None = None,
    ) -> str:
        """Write dense faces as one coloured OBJ or as one PLY file; returns the file's name.

        Without ``sv_fp`` the file goes into the working folder, named after the number of
        faces and the time in nanoseconds, so that each call has its own.

        Raises:
            ValueError: for another ``mode``, or without any face.
            ExportError: if the file cannot be written.
        """
        if not len(ver_list):
            raise ValueError("ver_list: expected at least one face, got none")
        if mode not in ("obj", "ply"):
            raise ValueError(f"mode: expected obj or ply, got {mode!r}")
        name = f"faceobjs_{len(ver_list)}_{time.time_ns()}.{mode}"
        path = name if sv_fp is None else os.fspath(sv_fp)
        image = _swapped(loaded_im)
        if mode == "obj":
            ser_to_obj(image, ver_list, self.tddfa.tri, len(image), path)
        else:
            ser_to_ply(ver_list, self.tddfa.tri, len(image), path)
        return path


# --- pictures -------------------------------------------------------------------------------------
#
# In all of these, `show_flag` opens a window until a key is pressed and is a BackendError where
# that cannot be done; `wfp` is a .png, .jpg or .webp file to write, whole or not at all
# (ExportError).


def render(
    img: _Image,
    ver_lst: Sequence[ArrayLike],
    tri: ArrayLike,
    alpha: float = 0.6,
    show_flag: bool = False,
    wfp: str | os.PathLike[str] | None = None,
    with_bg_flag: bool = True,
) -> _Image:
    """Draw lit meshes over their image, or opaque on black where ``with_bg_flag`` is False.

    Args:
        img: BGR or RGB; the result has the same order.
        ver_lst: (3, V) for each face.
        tri: (T, 3), clockwise seen from outside.
        alpha: opacity 0..1.
        show_flag: show the result (taken as BGR) in a window.
        wfp: file to write the result (taken as BGR) to.
        with_bg_flag: draw over the image.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected 0..1, got {alpha}")
    picture, canvas = _canvas(img, with_bg_flag)
    triangles = np.asarray(tri)
    for vertices in map(_vertices, ver_lst):
        # Clockwise in image axes, whose y points down: these normals point outwards.
        paint_lit(canvas, vertices, triangles, _core.vertex_normals(vertices, triangles))
    if with_bg_flag:
        canvas = cv2.addWeighted(picture, 1 - alpha, canvas, alpha, 0).astype(np.uint8, copy=False)
    return _deliver(canvas, wfp, show_flag)


def depth(
    img: _Image,
    ver_lst: Sequence[ArrayLike],
    tri: ArrayLike,
    show_flag: bool = False,
    wfp: str | os.PathLike[str] | None = None,
    with_bg_flag: bool = True,
) -> _Image:
    """Draw z, from black (far) to white (near) for each face; arguments as of :func:`render`."""
    _, canvas = _canvas(img, with_bg_flag)
    for vertices in map(_vertices, ver_lst):
        paint_depth(canvas, vertices, np.asarray(tri))
    return _deliver(canvas, wfp, show_flag)


def pncc(
    img: _Image,
    ver_lst: Sequence[ArrayLike],
    tri: ArrayLike,
    show_flag: bool = False,
    wfp: str | os.PathLike[str] | None = None,
    with_bg_flag: bool = True,
    *,
    model: MorphableModel | None = None,
) -> _Image:
    """Draw the projected normalised coordinate code; arguments as of :func:`render`.

    ``model`` is that of the vertices; None: of the pack that :class:`FaceBoxes_ONNX` takes.
    """
    _, canvas = _canvas(img, with_bg_flag)
    faces = [_vertices(vertices) for vertices in ver_lst]
    code = _model_of(faces, model).ncc
    for vertices in faces:
        paint_mesh(canvas, vertices, np.asarray(tri), code)
    return _deliver(canvas, wfp, show_flag)


def uv_tex(
    img: _Image,
    ver_lst: Sequence[ArrayLike],
    tri: ArrayLike,
    uv_h: int = 256,
    uv_w: int = 256,
    uv_c: int = 3,
    show_flag: bool = False,
    wfp: str | os.PathLike[str] | None = None,
    *,
    model: MorphableModel | None = None,
) -> _Image:
    """The faces' colours laid out by texture coordinates, squares side by side.

    Further arguments as of :func:`pncc`; ``uv_h`` and ``uv_w`` must be equal and ``uv_c`` 3.

    Raises:
        ValueError: also without any face, or if the model has no texture coordinates.
    """
    if uv_c != 3:
        raise ValueError(f"uv_c: expected 3, got {uv_c}")
    if uv_h != uv_w:
        raise ValueError(f"uv_h, uv_w: expected the same size, got {uv_h} and {uv_w}")
    if not len(ver_lst):
        raise ValueError("ver_lst: expected at least one face, got none")
    picture = _picture(img)
    faces = [_vertices(vertices) for vertices in ver_lst]
    uv = _model_of(faces, model).uv
    if uv is None:
        raise ValueError(
            "uv_tex: expected a model with texture coordinates, this pack's has none; import it "
            "again with BFM_UV.mat and indices.npy beside the other files"
        )
    textures = [_core.uv_texture(picture, vertices, uv, tri, uv_h) for vertices in faces]
    return _deliver(np.concatenate(textures, axis=1), wfp, show_flag)


def draw_landmarks(
    img: _Image,
    pts: NDArray[Any] | Sequence[NDArray[Any]],
    style: str = "fancy",
    wfp: str | os.PathLike[str] | None = None,
    show_flag: bool = False,
    *,
    dense_flag: bool = False,
) -> _Image:
    """Draw points over a BGR image: the 68 landmarks and their lines, or every sixth vertex.

    Args:
        img: BGR.
        pts: (3, 68) or, for ``dense_flag``, (3, V), of one face or a list of them.
        style: not used, as by upstream.
        wfp: as of :func:`render`. The picture keeps the image's size.
        show_flag: as of :func:`render`.
        dense_flag: the points are vertices.

    Returns:
        BGR picture.
    """
    faces = list(pts) if isinstance(pts, (list, tuple)) else [pts]
    canvas = _swapped(img)
    for points in map(_points, faces):
        if dense_flag:
            _paint_circles(canvas, points[::6], 1, (0, 255, 255), 1)
        elif len(points) == 68:
            paint_landmarks(canvas, points)
        else:
            raise ValueError(
                f"pts: expected 68 landmarks, got {len(points)} points; use dense_flag=True"
            )
    return _deliver(_swapped(canvas), wfp, show_flag)


def cv_draw_landmark(
    img_ori: _Image,
    pts: ArrayLike,
    box: ArrayLike | None = None,
    color: _Color = (0, 255, 0),
    size: int = 1,
) -> _Image:
    """Draw the points (3, N) of one face, and its box if given, over a BGR image."""
    canvas = _picture(img_ori).copy()
    points = _points(pts)
    _paint_circles(canvas, points, size, color, -1 if len(points) <= 106 else 1)
    _paint_rectangle(canvas, box, (255, 0, 0))
    return canvas


def viz_pose(
    img: _Image,
    param_lst: Sequence[ArrayLike],
    ver_lst: Sequence[ArrayLike],
    show_flag: bool = False,
    wfp: str | os.PathLike[str] | None = None,
) -> _Image:
    """Draw a box in each head's direction over a BGR image and print the angles.

    Args:
        img: BGR.
        param_lst: (P,) for each face.
        ver_lst: its landmarks, (3, 68).
        show_flag: as of :func:`render`.
        wfp: as of :func:`render`.
    """
    canvas = _picture(img).copy()
    for params, points in zip(param_lst, map(_points, ver_lst), strict=True):
        projection, (yaw, pitch, roll) = calc_pose(params)
        paint_pose_box(canvas, pose_box(points, projection[:, :3]), 2)
        print(f"yaw: {yaw:.1f}, pitch: {pitch:.1f}, roll: {roll:.1f}")
    return _deliver(canvas, wfp, show_flag)


def calc_pose(param: ArrayLike) -> tuple[_Floats, list[float]]:
    """Rotation and angles of a face by 3DDFA_V2's formula.

    The rows of the rotation are normalised each on its own, so it is a proper rotation only as
    far as the camera is. Angles after Slabaugh, "Computing Euler angles from a rotation matrix".
    For new code see :class:`threedfa.Pose`.

    Args:
        param: (P,), of which the first 12 are the camera.

    Returns:
        float32 (3, 4), rotation and translation; and ``[yaw, pitch, roll]`` in degrees.

    Raises:
        ValueError: a wrong shape, a value that is not finite, a camera with an empty row.
    """
    camera = _params(param, None)[:12].reshape(3, 4)
    lengths = np.linalg.norm(camera[:2, :3], axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise ValueError(f"param: expected a camera with two rows, got {camera.tolist()}")
    rows = camera[:2, :3] / lengths
    rotation = np.vstack([rows, np.cross(rows[0], rows[1])])
    sine = float(rotation[2, 0])
    if abs(sine) > _YAW_LIMIT:
        yaw, roll = math.copysign(90.0, sine), 0.0
        pitch = _degrees(math.copysign(1, -sine) * rotation[0, 1:3])
    else:
        yaw = math.degrees(math.asin(sine))
        pitch = _degrees(rotation[2, 1:3])
        roll = _degrees(rotation[[1, 0], 0])
    return np.hstack([rotation, camera[:, 3:]]), [yaw, pitch, roll]


# --- mesh files -----------------------------------------------------------------------------------


def ser_to_ply(
    ver_lst: Sequence[ArrayLike],
    tri: ArrayLike,
    height: float,
    wfp: str | os.PathLike[str],
    reverse: bool = True,
) -> None:
    """Write dense faces as one ASCII PLY file; nothing where there is no face.

    Args:
        ver_lst: (3, V) for each face.
        tri: (T, 3), clockwise seen from outside.
        height: of the image; y is written as ``height - y``, pointing up.
        wfp: the file, which appears whole or not at all.
        reverse: turn y and the triangles round; False writes both as they are.

    Raises:
        ExportError: if the file cannot be written.
    """
    if not len(ver_lst):
        return
    triangles = _export_triangles(tri, reverse)
    faces = [_vertices(vertices) for vertices in ver_lst]
    if reverse:
        faces = [to_y_up(vertices, height) for vertices in faces]
    vertices, triangles, _ = merge_meshes([(vertices, triangles, None) for vertices in faces])
    write_ply(wfp, vertices, triangles, binary=False)


def ser_to_obj(
    img: _Image,
    ver_lst: Sequence[ArrayLike],
    tri: ArrayLike,
    height: float,
    wfp: str | os.PathLike[str],
) -> None:
    """Write dense faces with the colours of a **BGR** image as one OBJ file.

    Arguments as of :func:`ser_to_ply`.
    """
    if not len(ver_lst):
        return
    image, triangles = _swapped(img), _export_triangles(tri, True)
    vertices, triangles, colors = merge_meshes(
        [
            (to_y_up(vertices, height), triangles, vertex_colors(image, vertices))
            for vertices in map(_vertices, ver_lst)
        ]
    )
    write_obj(wfp, vertices, triangles, colors=colors)


# --- small helpers of the predecessors ------------------------------------------------------------


class ImgUtils:
    """ThreeDFA's helpers for images."""

    @staticmethod
    def rgb2bgr(in_img: NDArray[Any]) -> NDArray[Any]:
        """The channels the other way round; a view."""
        return in_img[..., ::-1]

    @staticmethod
    def path_imload(img_dir: str | os.PathLike[str], conv_bgr: bool = False) -> _Image:
        """Read an image file as **BGR**, as ThreeDFA does whatever ``conv_bgr`` says.

        Raises:
            ImageError: if it cannot be read.
        """
        return load_image(Path(img_dir))[..., ::-1].copy()

    @staticmethod
    def at(in_npd: NDArray[Any], d_type: DTypeLike = "int") -> NDArray[Any]:
        """A copy with another dtype."""
        return in_npd.astype(d_type)


class FaceUtils:
    """ThreeDFA's helpers for faces."""

    @staticmethod
    def bbox_shape(bbox: Sequence[float]) -> NDArray[Any]:
        """Width and height of a box in whole pixels."""
        return np.array([abs(int(bbox[2] - bbox[0])), abs(int(bbox[3] - bbox[1]))])

    @staticmethod
    def ret_lmpts(in_pts: ArrayLike, lm_type: Literal["2d", "3d"] = "2d") -> list[tuple[int, ...]]:
        """Points (3, N) as a list of N tuples of whole pixels: x, y and, for ``"3d"``, z."""
        if lm_type not in ("2d", "3d"):
            raise ValueError(f"lm_type: expected 2d or 3d, got {lm_type!r}")
        points = _points(in_pts)[:, : 2 if lm_type == "2d" else 3]
        return [tuple(point) for point in np.rint(points).astype(int).tolist()]

    @staticmethod
    def cv_draw_landmark(
        loaded_im: _Image,
        pts: ArrayLike,
        box: ArrayLike | None = None,
        dot_color: _Color = (255, 196, 96),
        ln_color: _Color = (255, 160, 255),
        s_size: int = 4,
        c_size: int = 1,
    ) -> _Image:
        """Draw the points (3, N) of one face as rings, and its box if given.

        ``s_size`` is the radius for up to 106 points, ``c_size`` for more. Colours have the order
        of the image.
        """
        canvas = _picture(loaded_im).copy()
        points = _points(pts)
        _paint_circles(canvas, points, s_size if len(points) <= 106 else c_size, dot_color, 1)
        _paint_rectangle(canvas, box, ln_color)
        return canvas

    @staticmethod
    def split_uv(loaded_im: _Image, n_faces: int = 0) -> list[_Image]:
        """The square textures of a picture that :func:`uv_tex` made; views."""
        height, width = loaded_im.shape[:2]
        if height == width or n_faces == 0:
            return [loaded_im]
        side = min(height, width)
        return [loaded_im[:side, i * side : (i + 1) * side] for i in range(n_faces)]


def get_suffix(filename: str) -> str:
    """The ending of a file name with its dot, "" without one: ``a.jpg`` to ``.jpg``."""
    dot = filename.rfind(".")
    return filename[dot:] if dot >= 0 else ""


def str2bool(v: str) -> bool:
    """A yes or no from the command line, for argparse."""
    if v.lower() in ("yes", "true", "t", "y", "1"):
        return True
    if v.lower() in ("no", "false", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"expected yes or no, got {v!r}")


FaceBoxes = FaceBoxes_ONNX
TDDFA = TDDFA_ONNX


# --- inside ---------------------------------------------------------------------------------------


def _load_pack(pack: _PackLike | None) -> Pack:
    if isinstance(pack, Pack):
        return pack
    if pack is not None:
        return Pack.load(pack)
    return Pack.load(_default_pack())


def _default_pack() -> Path:
    for name in _PACKS:
        try:
            return pack_path(name)
        except PackError:
            continue
    raise PackError(
        f"found no pack of {', '.join(_PACKS)}; get one with `threedfa pack import --from DIR "
        f"--name {_PACKS[0]}` or `threedfa pack download {_PACKS[0]}`, or name another with pack="
    )


def _regressor_pack(file: str | os.PathLike[str]) -> str | None:
    """Name of the pack with the regressor that a file name of upstream's says."""
    name = Path(file).name
    return next((pack for key, pack in _REGRESSOR_PACKS.items() if key in name), None)


def _model_of(faces: Sequence[_Floats], model: MorphableModel | None) -> MorphableModel:
    if model is None:
        pack = Pack.load(_default_pack(), verify=False)
        model = MorphableModel.from_pack(pack)
    count = len(model.mean)
    for vertices in faces:
        if len(vertices) != count:
            raise ValueError(
                f"ver_lst: expected the (3, {count}) vertices of the model, got "
                f"(3, {len(vertices)}); use dense_flag=True, or give their model="
            )
    return model


def _picture(image: _Image) -> _Image:
    """A caller's image, checked, in the caller's channel order; read-only."""
    if not isinstance(image, np.ndarray):
        raise TypeError(
            f"expected an image as a uint8 NumPy array, got {type(image).__qualname__} "
            "(cv2.imread returns None for a file that it cannot read)"
        )
    return load_image(image)


def _swapped(image: _Image) -> _Image:
    """A new array with RGB for BGR and the reverse."""
    return np.ascontiguousarray(_picture(image)[..., ::-1])


def _canvas(image: _Image, with_background: bool) -> tuple[_Image, _Image]:
    picture = _picture(image)
    return picture, picture.copy() if with_background else np.zeros_like(picture)


def _points(points: ArrayLike) -> _Floats:
    """Points as the predecessors keep them, (3, N) or (2, N), to float32 (N, 3 or 2)."""
    array = _finite("points", points)
    if array.ndim != 2 or array.shape[0] not in (2, 3) or array.shape[1] == 0:
        raise ValueError(f"points: expected shape (3, N) or (2, N), got {array.shape}")
    return np.ascontiguousarray(array.T)


def _vertices(vertices: ArrayLike) -> _Floats:
    """(3, V) to float32 (V, 3)."""
    points = _points(vertices)
    if points.shape[1] != 3:
        raise ValueError(f"vertices: expected shape (3, V), got {points.T.shape}")
    return points


def _params(params: ArrayLike, count: int | None) -> _Floats:
    array = _finite("params", params)
    if array.ndim != 1 or (array.size < 12 if count is None else array.size != count):
        raise ValueError(f"params: expected shape ({count or '12 or more'},), got {array.shape}")
    return array


def _finite(name: str, values: ArrayLike) -> _Floats:
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite float32 values, got nan or inf")
    return array


def _upstream_z(points: _Floats) -> _Floats:
    """(N, 3) to (3, N) with z from 0 upwards."""
    moved = points.T.copy()
    moved[2] -= moved[2].min()
    return moved


def _export_triangles(tri: ArrayLike, reverse: bool) -> NDArray[np.int32]:
    triangles = np.asarray(tri)
    return triangles[:, ::-1] if reverse and triangles.ndim == 2 else triangles


def _degrees(y_x: NDArray[np.floating[Any]]) -> float:
    return math.degrees(math.atan2(y_x[0], y_x[1]))


def _paint_circles(
    canvas: _Image, points: _Floats, radius: int, color: _Color, thickness: int
) -> None:
    # OpenCV takes 16-bit coordinates; points that far outside are not seen anyway.
    for x, y in np.rint(points[:, :2].clip(-16000, 16000)).astype(int).tolist():
        cv2.circle(canvas, (x, y), radius, color, thickness)


def _paint_rectangle(canvas: _Image, box: ArrayLike | None, color: _Color) -> None:
    if box is None:
        return
    x1, y1, x2, y2 = np.rint(_finite("box", box)[:4].clip(-16000, 16000)).astype(np.int32)
    corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], np.int32)
    cv2.polylines(canvas, [corners], True, color, 1, cv2.LINE_AA)


def _deliver(bgr: _Image, wfp: str | os.PathLike[str] | None, show_flag: bool) -> _Image:
    """Write and show a picture as asked for, and return it."""
    if wfp is not None:
        save_image(wfp, bgr[..., ::-1])
    if show_flag:
        _show(bgr)
    return bgr


def _show(bgr: _Image) -> None:
    advice = "leave out show_flag and give a file name as wfp"
    # Asked first: where OpenCV finds no display it ends the process.
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise BackendError(f"cannot show a window: there is no display; {advice}")
    try:
        cv2.imshow("threedfa", bgr)
        cv2.waitKey(0)
        cv2.destroyWindow("threedfa")
    except cv2.error as error:
        raise BackendError(
            f"cannot show a window: this OpenCV has none (opencv-python-headless); {advice}"
        ) from error
