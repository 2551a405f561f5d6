"""Packs made from the files of a 3DDFA_V2 checkout.

The networks become ONNX graphs with folded batch normalisation, the face model a safetensors
file, with the landmark sets of :mod:`threedfa.upstream.landmark_tables` beside the 68. Three things
differ from the upstream files:

* Triangles are turned to run counter-clockwise seen from outside the face.
* A landmark is one vertex. Upstream lists three coordinate rows for each, and for landmark 44 of
  the published basis the row of z belongs to another vertex than those of x and y; here z comes
  from the vertex of x and y. The rows as published are kept in the tensor ``upstream_keypoints``.
* Texture coordinates are those of the face's own vertices, 0..1, with v upwards.
"""

from __future__ import annotations

import contextlib
import io
import json
import lzma
import math
import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import safetensors.numpy

from ..errors import PackError
from ..model import packed_basis
from ..pack import (
    CAMERA_PARAMETERS,
    PACK_JSON,
    SCHEMA_VERSION,
    Pack,
    is_bundled,
    is_pack_name,
    user_packs_folder,
)
from . import graphs, sources
from .landmark_tables import landmark_tables
from .matfile import read_mat
from .unpickle import load_pickle, load_torch
from .untrusted import Malformed, opened

Array = npt.NDArray[Any]

LANDMARKS = 68
_UNIT = "micrometre"
_DETECTOR_FILE, _REGRESSOR_FILE, _MODEL_FILE = (
    "detector.onnx",
    "regressor.onnx",
    "model.safetensors",
)

# What upstream's programs have as constants.
_DETECTOR_SETTINGS = {
    "file": _DETECTOR_FILE,
    "color": "bgr",
    "layout": "NCHW",
    "mean": [104, 117, 123],
    "scale": [1, 1, 1],
    "priors": [
        {
            "step": 32,
            "sizes": [
                {"size": 32, "density": 4, "offset": 0.0},
                {"size": 64, "density": 2, "offset": 0.0},
                {"size": 128, "density": 1, "offset": 0.5},
            ],
        },
        {"step": 64, "sizes": [{"size": 256, "density": 1, "offset": 0.5}]},
        {"step": 128, "sizes": [{"size": 512, "density": 1, "offset": 0.5}]},
    ],
    "variances": [0.1, 0.2],
    "score_threshold": 0.5,
    "iou_threshold": 0.3,
    "nms_offset": 1,
    "top_k": 5000,
    "keep_top_k": 750,
    "working_size": {"max_height": 720, "max_width": 1080},
}
_REGRESSOR_SETTINGS = {
    "file": _REGRESSOR_FILE,
    "color": "bgr",
    "layout": "NCHW",
    "input_size": 120,
    "mean": [127.5, 127.5, 127.5],
    "scale": [1 / 128, 1 / 128, 1 / 128],
    "roi": {
        "box_scale": 1.58,
        "box_shift_y": 0.14,
        "integer_side": True,
        "landmark_scale": math.sqrt(2),
    },
}


class PackWarning(UserWarning):
    """A pack was made, but from files other than the published ones."""


def import_upstream_pack(
    source_dir: str | os.PathLike[str],
    name: str,
    *,
    destination: str | os.PathLike[str] | None = None,
    regressor: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Make a pack from the files of a 3DDFA_V2 checkout, or of a folder that has them all.

    Needed are ``FaceBoxesProd.pth``, ``mb1_120x120.pth`` or ``mb05_120x120.pth``,
    ``param_mean_std_62d_120x120.pkl``, ``bfm_noneck_v3.pkl`` and ``tri.pkl``; ``BFM_UV.mat`` and
    ``indices.npy`` give the model its texture coordinates. A file that differs from the published
    one, or the lack of the last two, is a :class:`PackWarning`.

    Args:
        source_dir: the checkout or folder.
        name: name of the new pack.
        destination: folder of packs to put it in; by default ``$THREEDFA_HOME/packs`` or else the
            user's cache folder.
        regressor: ``"mb1"`` or ``"mb05"``; by default the one that ``name`` says
            (``3ddfa_v2-mb1``, ``3ddfa_v2-mb05``) or else the one that is there.
        overwrite: replace a pack of the same name.

    Returns:
        The folder of the new pack.

    Raises:
        PackError: if a file is missing or not what it should be, a pack of that name exists, or
            the pack cannot be written. Nothing is left behind then.
    """
    source = Path(source_dir)
    if not source.is_dir():
        raise PackError(f"{source} is not a folder; give the folder of a 3DDFA_V2 checkout")
    packs = user_packs_folder() if destination is None else destination
    target = pack_target(name, packs, overwrite=overwrite)
    chosen = _choose_regressor(source, name, regressor)
    found: dict[str, Path] = {}
    for file in sources.needed_files(chosen):
        path = sources.find_file(source, file)
        if path is not None:
            found[file.name] = path
        elif file.name not in sources.OPTIONAL:
            raise PackError(
                f"{source}: {file.name} is missing; looked for {file.path} and for the name alone "
                "in this folder, weights, configs and FaceBoxes/weights"
            )
    for name in sources.OPTIONAL:
        if name not in found:
            warnings.warn(
                f"{name} is missing: the pack's model gets no texture coordinates",
                PackWarning,
                stacklevel=2,
            )
    differing = []
    for file in sources.needed_files(chosen):
        if file.name in found and (blob := _blob(found[file.name])) != file.git_blob:
            differing.append(file.name)
            warnings.warn(
                f"{found[file.name]} differs from the published {file.path}: expected git blob "
                f"{file.git_blob}, found {blob}; it is used all the same",
                PackWarning,
                stacklevel=2,
            )
    return write_pack(found, chosen, target, overwrite=overwrite, differing=differing)


def import_reference_pack(
    weights_dir: str | os.PathLike[str], destination: str | os.PathLike[str]
) -> Path:
    """Make the pack ``3ddfa_v2-mb05`` with the stand-in basis ``bfm_fit9.pkl.xz``.

    The folder has all files side by side. The stand-in has true landmarks and an approximate face
    between them: for tests and samples.

    Raises:
        PackError: as :func:`import_upstream_pack`.
    """
    source, regressor = Path(weights_dir), "mb05"
    target = pack_target("3ddfa_v2-mb05", destination, overwrite=False)
    with opened(source / "bfm_fit9.pkl.xz", sources.MAX_BYTES) as data:
        try:
            basis = lzma.LZMADecompressor().decompress(data, sources.MAX_BYTES + 1)
        except lzma.LZMAError as error:
            raise Malformed(str(error)) from error
        if len(basis) > sources.MAX_BYTES:
            raise Malformed(f"it unpacks to more than {sources.MAX_BYTES} bytes")
    names = [file.name for file in sources.needed_files(regressor)]
    found = {name: source / name for name in names if (source / name).is_file()}
    with contextlib.ExitStack() as scratch:
        try:
            folder = Path(scratch.enter_context(tempfile.TemporaryDirectory()))
            found[sources.BASIS] = folder / sources.BASIS
            found[sources.BASIS].write_bytes(basis)
        except OSError as error:
            raise PackError(f"cannot write a temporary file: {error}") from error
        return write_pack(found, regressor, target, overwrite=False, differing=[sources.BASIS])


def write_pack(
    files: Mapping[str, Path],
    regressor: str,
    target: Path,
    *,
    overwrite: bool,
    differing: Sequence[str] = (),
) -> Path:
    """Convert the upstream files (by name) into the pack ``target``, whole or not at all.

    ``differing`` names those that are not the published ones, for the pack's ``source``.

    Raises:
        PackError: as :func:`import_upstream_pack`.
    """
    for name in (file.name for file in sources.needed_files(regressor)):
        if name not in files and name not in sources.OPTIONAL:
            raise PackError(f"cannot make the pack {target.name}: {name} is missing")
    model = _morphable_model(files)
    statistics = _param_statistics(files[sources.PARAM_STATISTICS])
    shape, expression = len(model["shape_basis"]), len(model["expression_basis"])
    if CAMERA_PARAMETERS + shape + expression != len(statistics["mean"]):
        raise PackError(
            f"{files[sources.PARAM_STATISTICS]}: expected {CAMERA_PARAMETERS} + {shape} + "
            f"{expression} parameters to go with {sources.BASIS}, found {len(statistics['mean'])}"
        )
    detector_graph = _network(files[sources.DETECTOR], graphs.faceboxes_onnx)
    regressor_path = files[sources.REGRESSORS[regressor]]
    regressor_graph = _network(regressor_path, graphs.mobilenet_v1_onnx)
    outputs = regressor_graph.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    if outputs != len(statistics["mean"]):
        raise PackError(
            f"{regressor_path}: expected {len(statistics['mean'])} outputs, found {outputs}"
        )
    contents = {
        _DETECTOR_FILE: detector_graph.SerializeToString(deterministic=True),
        _REGRESSOR_FILE: regressor_graph.SerializeToString(deterministic=True),
        # One key of metadata: safetensors writes several in random order.
        _MODEL_FILE: safetensors.numpy.save(model, metadata={"format": "threedfa-model"}),
    }
    source = f"made from files of {sources.UPSTREAM_SOURCE}"
    if differing:
        source += f"; not the published ones: {', '.join(differing)}"
    settings = {
        "schema_version": SCHEMA_VERSION,
        "name": target.name,
        "licence": sources.UPSTREAM_LICENCE,
        "source": source,
        "files": {file: sha256(content).hexdigest() for file, content in contents.items()},
        "detector": _DETECTOR_SETTINGS,
        "regressor": {
            **_REGRESSOR_SETTINGS,
            "param_mean": statistics["mean"].tolist(),
            "param_std": statistics["std"].tolist(),
            "param_split": {
                "camera": CAMERA_PARAMETERS,
                "shape": shape,
                "expression": expression,
            },
        },
        "morphable_model": {"file": _MODEL_FILE, "unit": _UNIT},
    }
    contents[PACK_JSON] = (json.dumps(settings, indent=1) + "\n").encode()
    with _new_folder(target, overwrite=overwrite) as folder:
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        Pack.load(folder)
    return target


def pack_target(name: str, destination: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """The folder for a new pack, or a PackError if it is not to be had."""
    if not is_pack_name(name):
        raise PackError(
            f"{name!r} cannot be the name of a pack; use letters, digits and . _ + -, at most 100"
        )
    if is_bundled(name):
        raise PackError(
            f"{name!r} is the name of a pack that comes with threedfa, whose place the new one "
            "would take; choose another name"
        )
    target = Path(destination) / name
    if os.path.lexists(target):
        # Only what is plainly a pack is ever replaced.
        if not (target / PACK_JSON).is_file() or target.is_symlink():
            raise PackError(f"{target} exists and is not a pack; choose another name or folder")
        if not overwrite:
            raise PackError(f"the pack {target} exists; remove it or overwrite it (--overwrite)")
    return target


def _choose_regressor(source: Path, name: str, regressor: str | None) -> str:
    chosen = regressor or sources.PACK_REGRESSORS.get(name)
    if chosen is None:
        present = [
            key
            for key, file_name in sources.REGRESSORS.items()
            if any(
                sources.find_file(source, file)
                for file in sources.UPSTREAM_FILES
                if file.name == file_name
            )
        ]
        if len(present) > 1:
            raise PackError(
                f"{source} has {' and '.join(sources.REGRESSORS.values())}; say which to use, by "
                f"the regressor ({', '.join(sources.REGRESSORS)}) or by the pack's name "
                f"({', '.join(sources.PACK_REGRESSORS)})"
            )
        if not present:
            raise PackError(f"{source} has neither {' nor '.join(sources.REGRESSORS.values())}")
        return present[0]
    if chosen not in sources.REGRESSORS:
        raise PackError(
            f"unknown regressor {chosen!r}; expected one of {', '.join(sources.REGRESSORS)}"
        )
    return chosen


def _blob(path: Path) -> str:
    try:
        return sources.git_blob_id(path)
    except OSError as error:
        raise PackError(f"cannot read {path}: {error.strerror or error}") from error


def _network(
    path: Path, convert: Callable[[Mapping[str, Array]], onnx.ModelProto]
) -> onnx.ModelProto:
    state = load_torch(path)
    try:
        return convert(state)
    except PackError as error:
        raise PackError(f"{path}: {error}") from error


# --- the face model -------------------------------------------------------------------------------


def _morphable_model(files: Mapping[str, Path]) -> dict[str, Array]:
    path = files[sources.BASIS]
    basis = _arrays(path, ("u", "w_shp", "w_exp", "keypoints"))
    rows = basis["u"].size
    _expect(path, "u", basis["u"], "f", [(rows,), (rows, 1)])
    if rows == 0 or rows % 3:
        raise PackError(f"{path}: u: expected three rows for each vertex, found {rows} rows")
    vertices = rows // 3
    mean = _floats(path, "u", basis["u"]).reshape(vertices, 3)
    triangles = _triangles(files[sources.TRIANGLES], mean)
    keypoints = _keypoints(path, basis["keypoints"], rows)
    vertex_of = keypoints[:, 0] // 3
    weights = np.zeros((LANDMARKS, 3), np.float32)
    weights[:, 0] = 1
    model = {
        "mean": mean,
        **packed_basis("shape", _modes(path, "w_shp", basis["w_shp"], vertices)),
        **packed_basis("expression", _modes(path, "w_exp", basis["w_exp"], vertices)),
        "triangles": triangles,
        "landmark_vertices": np.repeat(vertex_of[:, None], 3, axis=1),
        "landmark_weights": weights,
        **landmark_tables(mean, triangles, vertex_of),
        "upstream_keypoints": keypoints,
    }
    if all(name in files for name in sources.OPTIONAL):
        model["uv"] = _texture_coordinates(
            files[sources.UV], files[sources.UV_ROWS], vertices=vertices
        )
    return model


def _modes(path: Path, key: str, basis: Array, vertices: int) -> Array:
    """Columns of interleaved coordinates (3V, K) to (K, V, 3)."""
    if basis.ndim != 2 or basis.shape[1] == 0:
        raise PackError(f"{path}: {key}: expected two dimensions, found shape {basis.shape}")
    _expect(path, key, basis, "f", [(3 * vertices, basis.shape[1])])
    columns = _floats(path, key, basis).T
    return np.ascontiguousarray(columns).reshape(-1, vertices, 3)


def _keypoints(path: Path, keypoints: Array, rows: int) -> Array:
    """The basis rows of x, y and z of each landmark, (68, 3) int32, as published."""
    _expect(path, "keypoints", keypoints, "iu", [(3 * LANDMARKS,)])
    table = keypoints.astype(np.int64).reshape(LANDMARKS, 3)
    if table.min() < 0 or table.max() >= rows:
        raise PackError(
            f"{path}: keypoints: expected rows from 0 to {rows - 1}, found "
            f"{table.min()} to {table.max()}"
        )
    if (table % 3 != np.arange(3)).any() or (table[:, 0] // 3 != table[:, 1] // 3).any():
        raise PackError(
            f"{path}: keypoints: expected rows of x, y and z in turn, x and y of the same vertex"
        )
    return table.astype(np.int32)


def _triangles(path: Path, mean: Array) -> Array:
    """Triangles (T, 3) int32, counter-clockwise seen from outside."""
    table = load_pickle(path)
    if not isinstance(table, np.ndarray) or table.ndim != 2 or table.size == 0:
        raise PackError(f"{path}: expected an array of triangles, found {_describe(table)}")
    _expect(path, "triangles", table, "iu", [(3, table.shape[1])])
    triangles = table.T.astype(np.int64)
    if triangles.min() < 0 or triangles.max() >= len(mean):
        raise PackError(
            f"{path}: expected vertex numbers from 0 to {len(mean) - 1}, found "
            f"{triangles.min()} to {triangles.max()}"
        )
    # A face is an open surface that looks along +z; so must its mean normal.
    a, b, c = (mean[triangles[:, i], :2].astype(np.float64) for i in range(3))
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).sum()
    return np.ascontiguousarray(triangles if area > 0 else triangles[:, ::-1], np.int32)


def _texture_coordinates(path: Path, rows_path: Path, *, vertices: int) -> Array:
    """(V, 2) float32 in 0..1, v up: the full model's coordinates at the face's vertices."""
    matrices = read_mat(path)
    if "UV" not in matrices:
        raise PackError(f"{path}: expected a matrix UV, found {', '.join(matrices) or 'none'}")
    full = matrices["UV"]
    _expect(path, "UV", full, "f", [(len(full) if full.ndim else 0, 2)])
    with opened(rows_path, sources.MAX_BYTES) as data:
        rows = np.load(io.BytesIO(data), allow_pickle=False)
        if not isinstance(rows, np.ndarray):
            raise Malformed("expected a single array")
    _expect(rows_path, "indices", rows, "iu", [(vertices,)])
    if rows.min() < 0 or rows.max() >= len(full):
        raise PackError(
            f"{rows_path}: expected rows of UV from 0 to {len(full) - 1}, found "
            f"{rows.min()} to {rows.max()}"
        )
    uv = _floats(path, "UV", full[rows])
    if uv.min() < 0 or uv.max() > 1:
        raise PackError(f"{path}: UV: expected values from 0 to 1, found {uv.min()} to {uv.max()}")
    return uv


def _param_statistics(path: Path) -> dict[str, Array]:
    statistics = _arrays(path, ("mean", "std"))
    count = statistics["mean"].size
    for key, array in statistics.items():
        _expect(path, key, array, "f", [(count,)])
        statistics[key] = _floats(path, key, array)
    if (statistics["std"] < 0).any():
        raise PackError(f"{path}: std: expected no negative values")
    return statistics


def _arrays(path: Path, keys: tuple[str, ...]) -> dict[str, Array]:
    content = load_pickle(path)
    if not isinstance(content, dict):
        raise PackError(f"{path}: expected a dictionary, found {_describe(content)}")
    arrays = {}
    for key in keys:
        value = content.get(key)
        if not isinstance(value, np.ndarray):
            raise PackError(f"{path}: {key}: expected an array, found {_describe(value)}")
        arrays[key] = value
    return arrays


def _expect(path: Path, key: str, array: Array, kinds: str, shapes: list[tuple[int, ...]]) -> None:
    if array.dtype.kind not in kinds or array.shape not in shapes:
        raise PackError(
            f"{path}: {key}: expected {'floats' if kinds == 'f' else 'integers'} of shape "
            f"{' or '.join(map(str, shapes))}, found {_describe(array)}"
        )


def _floats(path: Path, key: str, array: Array) -> Array:
    with np.errstate(over="ignore"):
        floats = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(floats).all():
        raise PackError(f"{path}: {key}: expected finite float32 values")
    return floats


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return "nothing" if value is None else f"a {type(value).__name__}"


# --- the folder -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _new_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside ``target`` that becomes ``target`` if the block ends well."""
    suffix = secrets.token_hex(4)
    fresh = target.with_name(f".{target.name}.{suffix}.new")
    old = target.with_name(f".{target.name}.{suffix}.old")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh.mkdir()
        try:
            yield fresh
            if overwrite and os.path.lexists(target):
                target.rename(old)
            try:
                fresh.rename(target)
            except OSError:
                if os.path.lexists(old):
                    old.rename(target)
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise PackError(
            f"cannot write the pack {target}: {error.strerror or error}; choose a writable folder "
            "with free space"
        ) from error
