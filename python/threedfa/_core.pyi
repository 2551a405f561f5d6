import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__version__: str

_Levels = Sequence[tuple[int, Sequence[tuple[float, int, float]]]]

class FileError(RuntimeError): ...

class MorphableModel:
    @staticmethod
    def load(path: str | os.PathLike[str]) -> MorphableModel: ...
    @property
    def mean(self) -> NDArray[np.float32]: ...
    @property
    def shape_basis(self) -> NDArray[np.float32]: ...
    @property
    def expression_basis(self) -> NDArray[np.float32]: ...
    @property
    def triangles(self) -> NDArray[np.int32]: ...
    @property
    def landmark_vertices(self) -> NDArray[np.int32]: ...
    @property
    def landmark_weights(self) -> NDArray[np.float32]: ...
    @property
    def uv(self) -> NDArray[np.float32] | None: ...
    @property
    def point_sets(self) -> dict[str, tuple[NDArray[np.int32], NDArray[np.float32]]]: ...
    def reconstruct(
        self, shape_coeffs: ArrayLike, expression_coeffs: ArrayLike
    ) -> NDArray[np.float32]: ...
    def reconstruct_landmarks(
        self, shape_coeffs: ArrayLike, expression_coeffs: ArrayLike
    ) -> NDArray[np.float32]: ...
    def project(
        self, params: ArrayLike, rois: ArrayLike, *, input_size: int, dense: bool
    ) -> NDArray[np.float32]: ...

class Subdivision:
    def __init__(self, triangles: ArrayLike, vertex_count: int) -> None: ...
    @property
    def triangles(self) -> NDArray[np.int32]: ...
    @property
    def edges(self) -> NDArray[np.int32]: ...
    def apply(self, values: ArrayLike) -> NDArray[np.float32]: ...

class VertexRings:
    def __init__(self, triangles: ArrayLike, vertex_count: int) -> None: ...
    def normals(self, vertices: ArrayLike) -> NDArray[np.float32]: ...

def nms(
    boxes: ArrayLike, scores: ArrayLike, iou_threshold: float, *, offset: float = 0.0
) -> NDArray[np.int64]: ...
def prior_boxes(height: int, width: int, levels: _Levels) -> NDArray[np.float32]: ...
def decode_boxes(
    loc: ArrayLike, priors: ArrayLike, variances: tuple[float, float]
) -> NDArray[np.float32]: ...
def detect(
    loc: ArrayLike,
    conf: ArrayLike,
    priors: ArrayLike,
    *,
    variances: tuple[float, float],
    score_threshold: float,
    scale_x: float,
    scale_y: float,
    iou_threshold: float,
    nms_offset: float,
    top_k: int,
    keep_top_k: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
def roi_from_box(
    box: ArrayLike, *, scale: float, shift_y: float, integer_side: bool
) -> NDArray[np.float64]: ...
def roi_from_landmarks(landmarks: ArrayLike, *, scale: float) -> NDArray[np.float64]: ...
def crop_resize(image: ArrayLike, roi: ArrayLike, height: int, width: int) -> NDArray[np.uint8]: ...
def crop_normalize(
    image: ArrayLike,
    rois: ArrayLike,
    size: int,
    *,
    mean: ArrayLike,
    scale: ArrayLike,
    reverse_channels: bool,
) -> NDArray[np.float32]: ...
def resize_normalize(
    image: ArrayLike,
    height: int,
    width: int,
    *,
    mean: ArrayLike,
    scale: ArrayLike,
    reverse_channels: bool,
) -> NDArray[np.float32]: ...
def resize_normalize_grey(
    image: ArrayLike, height: int, width: int, *, mean: float, scale: float
) -> NDArray[np.float32]: ...
def sample_bilinear(image: ArrayLike, points: ArrayLike) -> NDArray[np.float32]: ...
def uv_texture(
    image: ArrayLike, vertices: ArrayLike, uv: ArrayLike, triangles: ArrayLike, size: int
) -> NDArray[np.uint8]: ...
def texture_map(
    image: ArrayLike,
    points: ArrayLike,
    normals: ArrayLike,
    occluders: ArrayLike,
    uv: ArrayLike,
    triangles: ArrayLike,
    size: int,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]: ...
def vertex_normals(vertices: ArrayLike, triangles: ArrayLike) -> NDArray[np.float32]: ...
def rasterize(
    vertices: ArrayLike,
    triangles: ArrayLike,
    height: int,
    width: int,
    *,
    attributes: ArrayLike | None = None,
    background: ArrayLike | None = None,
    out: tuple[
        NDArray[np.float32], NDArray[np.int32], NDArray[np.float32], NDArray[np.float32] | None
    ]
    | None = None,
) -> tuple[
    NDArray[np.float32], NDArray[np.int32], NDArray[np.float32], NDArray[np.float32] | None
]: ...
def paint_mesh(
    canvas: NDArray[np.uint8], vertices: ArrayLike, triangles: ArrayLike, colors: ArrayLike
) -> None: ...
def shade(vertices: ArrayLike, normals: ArrayLike) -> NDArray[np.float32]: ...
def decompose(
    camera: ArrayLike,
) -> tuple[float, float, float, NDArray[np.float32], NDArray[np.float32], float]: ...
def rotation_from_angles(yaw: float, pitch: float, roll: float) -> NDArray[np.float32]: ...
def image_projection(camera: ArrayLike, roi: ArrayLike, input_size: int) -> NDArray[np.float32]: ...
def format_rows(pattern: str, table: ArrayLike) -> bytes: ...
