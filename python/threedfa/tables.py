"""Results as JSON, JSON lines, CSV and NPZ.

The JSON schema is ``schemas/result.schema.json``, explained in ``docs/json.md``. Text files hold
the shortest decimal digits that give back the same float32. All files appear whole or not at all.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .detections import RefusedFace
from .face import Face, require_faces
from .files import atomic_write
from .image import check_size
from .model import MorphableModel

SCHEMA_VERSION: Final = 1
"""Goes up when a reader of the JSON files has to change; new fields alone do not raise it."""

_IBUG68: Final = "ibug68"
_LANDMARKS: Final = 68
_MANY: Final = 40  # numbers from which `_shortest` takes less time than text
_EXACT_POWER: Final = 22  # largest power of ten that a float64 holds exactly


class PoseFields(Protocol):
    """What this module reads of a pose."""

    @property
    def yaw(self) -> float: ...
    @property
    def pitch(self) -> float: ...
    @property
    def roll(self) -> float: ...
    @property
    def rotation(self) -> NDArray[np.float32]: ...
    @property
    def translation(self) -> NDArray[np.float32]: ...
    @property
    def scale(self) -> float: ...


class FaceFields(Protocol):
    """What this module reads of a face."""

    @property
    def bbox(self) -> NDArray[np.float32]: ...
    @property
    def score(self) -> float: ...
    @property
    def confidence(self) -> float | None: ...
    @property
    def roi(self) -> NDArray[np.floating[Any]]: ...
    @property
    def params(self) -> NDArray[np.float32]: ...
    @property
    def pose(self) -> PoseFields: ...
    @property
    def landmarks(self) -> NDArray[np.float32]: ...
    @property
    def vertices(self) -> NDArray[np.float32]: ...
    @property
    def triangles(self) -> NDArray[np.int32]: ...
    @property
    def shape_coeffs(self) -> NDArray[np.float32]: ...
    @property
    def expression_coeffs(self) -> NDArray[np.float32]: ...
    @property
    def blendshapes(self) -> Mapping[str, float]: ...
    def landmarks_in(self, name: str, /) -> NDArray[np.float32]: ...


Result: TypeAlias = tuple["str | os.PathLike[str]", tuple[int, int], Sequence[FaceFields]]
"""The name of an image, its (height, width) in pixels, and its faces."""


def faces_to_dict(
    image_size: tuple[int, int],
    faces: Sequence[FaceFields],
    *,
    name: str | os.PathLike[str] | None = None,
    landmark_sets: Sequence[str] = (),
    blendshapes: bool = False,
    vertices: bool = False,
    refused: Sequence[RefusedFace] | None = None,
    arrays: bool = False,
) -> dict[str, Any]:
    """One image's faces as a dictionary of numbers, strings, lists and dictionaries for JSON.

    Its fields are those of ``schemas/result.schema.json``.

    Args:
        image_size: (height, width) in pixels.
        faces: the faces found in the image, possibly none.
        name: the image's name or path, if it has one.
        landmark_sets: sets to give beside the 68 landmarks, by their names.
        blendshapes: whether to give ARKit's blend shapes, too.
        vertices: whether to give the dense vertices, too.
        refused: what was found and is no face, to be given, too; None: it is not asked for.
        arrays: whether to leave numbers as NumPy's, in arrays in place of lists, for a writer that
            knows them and writes the shortest digits itself, as orjson does.

    Raises:
        PackError: if the pack lacks a landmark set or ARKit's names of its expressions.
        TypeError: if the image size is not of whole numbers, or there is one face and no list.
        ValueError: if a value is not finite, an array has a wrong shape, a landmark set of that
            name is not known, or no image has the size.
    """
    height, width = check_size(image_size)
    require_faces(faces)
    fields = [_face_fields(face, landmark_sets, blendshapes, vertices) for face in faces]
    others = [
        {
            "bbox": _checked("bbox", each.bbox, (4,)),
            "score": _checked("score", each.score, ())[()],
            "confidence": np.float64(each.confidence),
        }
        for each in refused or ()
    ]
    entry: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "image": {
            "name": None if name is None else os.fspath(name),
            "height": height,
            "width": width,
        },
        "faces": fields if arrays else [_plain(face) for face in fields],
    }
    if refused is not None:
        entry["refused"] = others if arrays else [_plain(each) for each in others]
    return entry


def refused_from_dict(entry: Mapping[str, Any]) -> list[RefusedFace]:
    """What was refused, of an entry that `faces_to_dict` made; none where it was not asked for.

    Raises:
        ValueError: if a field is missing, of a wrong shape or not finite.
    """
    return [
        RefusedFace(
            _field(each, "bbox", np.float32, (4,)),
            float(_field(each, "score", np.float32, ())),
            float(_field(each, "confidence", np.float64, ())),
        )
        for each in entry.get("refused", ())
    ]


def faces_from_dict(entry: Mapping[str, Any], model: MorphableModel) -> list[Face]:
    """The faces of an entry that `faces_to_dict` made, with the same values.

    Args:
        entry: as read from JSON.
        model: that of the pack that found the faces.

    Raises:
        ValueError: if the entry is of another version, a field is missing, of a wrong shape or not
            finite, or the model has another number of parameters.
    """
    version = entry.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise ValueError(f"schema_version: expected {SCHEMA_VERSION}, got {version!r}")
    faces = entry.get("faces")
    if not isinstance(faces, Sequence) or not all(isinstance(face, Mapping) for face in faces):
        raise ValueError(f"faces: expected a list of objects, got {type(faces).__qualname__}")
    return [_face_from_dict(fields, model) for fields in faces]


def write_json(
    path: str | os.PathLike[str],
    results: Sequence[Result],
    *,
    landmark_sets: Sequence[str] = (),
    blendshapes: bool = False,
    refused: Sequence[Sequence[RefusedFace]] | None = None,
) -> None:
    """Write a JSON array with what `faces_to_dict` gives for each image, one image a line, UTF-8.

    ``refused``: what was in each image, to be given, too.

    Raises:
        PackError, ValueError: as `faces_to_dict`.
        ExportError: if the file cannot be written.
    """
    lines = _json_lines(results, landmark_sets, blendshapes, refused)
    text = "[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n"
    _write_text(path, text)


def write_json_lines(
    path: str | os.PathLike[str],
    results: Sequence[Result],
    *,
    landmark_sets: Sequence[str] = (),
    blendshapes: bool = False,
    refused: Sequence[Sequence[RefusedFace]] | None = None,
) -> None:
    """Write JSON lines: what `faces_to_dict` gives for each image on a line of its own, UTF-8.

    ``refused``: what was in each image, to be given, too.

    Raises:
        PackError, ValueError: as `faces_to_dict`.
        ExportError: if the file cannot be written.
    """
    lines = _json_lines(results, landmark_sets, blendshapes, refused)
    _write_text(path, "".join(line + "\n" for line in lines))


def write_csv(
    path: str | os.PathLike[str], results: Sequence[Result], *, landmark_set: str = _IBUG68
) -> None:
    """Write a table with one row a face, comma separated, UTF-8, with a header row.

    The columns are ``image`` (its name), ``face`` (0, 1, ... in the image), ``score``, ``left
    top right bottom`` (the box), ``yaw pitch roll`` (degrees), ``scale``, then ``x0 y0 z0`` to
    ``x67 y67 z67``, the landmarks, of ``landmark_set`` if that is given. Images without faces have
    no row; where no image has one, other sets than the 68 have no columns.

    Text is always quoted and names are written as they are. A spreadsheet may take a name that
    begins with ``=``, ``+``, ``-`` or ``@`` for a formula: import such a column as text.

    Raises:
        PackError: if the pack lacks the landmark set.
        ValueError: if a value is not finite, an array has a wrong shape, or a landmark set of that
            name is not known.
        ExportError: if the file cannot be written.
    """
    results = [(name, size, list(faces)) for name, size, faces in results]  # read more than once
    count = _LANDMARKS
    if landmark_set != _IBUG68:
        every = (face for _, _, faces in results for face in faces)
        count = next((len(face.landmarks_in(landmark_set)) for face in every), 0)
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(
        [
            "image",
            "face",
            "score",
            "left",
            "top",
            "right",
            "bottom",
            "yaw",
            "pitch",
            "roll",
            "scale",
        ]
        + [f"{axis}{index}" for index in range(count) for axis in "xyz"]
    )
    for name, _, faces in results:
        for number, face in enumerate(faces):
            pose = face.pose
            angles = [pose.yaw, pose.pitch, pose.roll, pose.scale]
            points = face.landmarks if landmark_set == _IBUG68 else face.landmarks_in(landmark_set)
            landmarks = _numbers("landmarks", points, (count, 3))
            writer.writerow(
                [
                    os.fspath(name),
                    number,
                    _numbers("score", face.score, ()),
                    *_numbers("bbox", face.bbox, (4,)),
                    *_numbers("pose", angles, (4,)),
                    *(value for point in landmarks for value in point),
                ]
            )
    _write_text(path, stream.getvalue())


def write_npz(
    path: str | os.PathLike[str],
    faces: Sequence[FaceFields],
    *,
    landmark_sets: Sequence[str] = (),
) -> None:
    """Write the faces of one image as arrays: see `encode_npz`.

    Raises:
        PackError, ValueError: as `encode_npz`.
        ExportError: if the file cannot be written.
    """
    encoded = encode_npz(faces, landmark_sets=landmark_sets)
    with atomic_write(path) as stream:
        stream.write(encoded)


def encode_npz(faces: Sequence[FaceFields], *, landmark_sets: Sequence[str] = ()) -> bytes:
    """The faces of one image as a file of arrays, for ``numpy.load(path, allow_pickle=False)``.

    With N faces of one model: ``bbox (N, 4)``, ``score (N,)``, ``roi (N, 4)`` float64, ``params
    (N, P)``, ``landmarks (N, 68, 3)``, ``vertices (N, V, 3)``, ``triangles (T, 3)`` int32, ``yaw``,
    ``pitch``, ``roll`` and ``scale (N,)``, ``rotation (N, 3, 3)``, ``translation (N, 3)``,
    ``shape_coeffs (N, S)``, ``expression_coeffs (N, E)``; float32 unless said otherwise;
    ``confidence (N,)`` where there are faces and the pack's regressor says it; for each of
    ``landmark_sets`` another array of its name, ``(N, L, 3)``. Without faces, N, P, V, T, S, E
    and L are 0.

    Raises:
        PackError: if the pack lacks a landmark set.
        ValueError: if a value is not finite, an array has a wrong shape, the faces are not of one
            model, or a landmark set of that name is not known or has the name of another array.
    """
    faces = list(faces)  # read more than once
    poses = [face.pose for face in faces]
    arrays: dict[str, Any] = {
        "bbox": _stack("bbox", [face.bbox for face in faces], (4,)),
        "score": _stack("score", [face.score for face in faces], ()),
        "roi": _stack("roi", [face.roi for face in faces], (4,), np.float64),
        "params": _stack("params", [face.params for face in faces], (None,)),
        "landmarks": _stack("landmarks", [face.landmarks for face in faces], (_LANDMARKS, 3)),
        "vertices": _stack("vertices", [face.vertices for face in faces], (None, 3)),
        "triangles": faces[0].triangles if faces else np.empty((0, 3), np.int32),
        "yaw": _stack("yaw", [pose.yaw for pose in poses], ()),
        "pitch": _stack("pitch", [pose.pitch for pose in poses], ()),
        "roll": _stack("roll", [pose.roll for pose in poses], ()),
        "rotation": _stack("rotation", [pose.rotation for pose in poses], (3, 3)),
        "translation": _stack("translation", [pose.translation for pose in poses], (3,)),
        "scale": _stack("scale", [pose.scale for pose in poses], ()),
        "shape_coeffs": _stack("shape_coeffs", [face.shape_coeffs for face in faces], (None,)),
        "expression_coeffs": _stack(
            "expression_coeffs", [face.expression_coeffs for face in faces], (None,)
        ),
    }
    sure = [face.confidence for face in faces]
    if sure and None not in sure:
        arrays["confidence"] = _stack("confidence", sure, ())
    for name in landmark_sets:
        if name in arrays:
            raise ValueError(f"landmark set {name!r} has the name of another array; rename it")
        arrays[name] = _stack(name, [face.landmarks_in(name) for face in faces], (None, 3))
    encoded = io.BytesIO()
    np.savez_compressed(encoded, **arrays)
    return encoded.getvalue()


def _json_lines(
    results: Sequence[Result],
    landmark_sets: Sequence[str],
    blendshapes: bool,
    refused: Sequence[Sequence[RefusedFace]] | None,
) -> list[str]:
    others = [None] * len(results) if refused is None else refused
    return [
        json.dumps(
            faces_to_dict(
                size,
                faces,
                name=name,
                landmark_sets=landmark_sets,
                blendshapes=blendshapes,
                refused=other,
            ),
            ensure_ascii=False,
            allow_nan=False,
        )
        for (name, size, faces), other in zip(results, others, strict=True)
    ]


def _face_fields(
    face: FaceFields, landmark_sets: Sequence[str], blendshapes: bool, vertices: bool
) -> dict[str, Any]:
    """Checked arrays and NumPy's numbers by their names."""
    pose = face.pose
    fields: dict[str, Any] = {
        "bbox": _checked("bbox", face.bbox, (4,)),
        "score": _checked("score", face.score, ())[()],
        "roi": _checked("roi", face.roi, (4,)),
        "pose": {
            "yaw": _checked("yaw", pose.yaw, ())[()],
            "pitch": _checked("pitch", pose.pitch, ())[()],
            "roll": _checked("roll", pose.roll, ())[()],
            "rotation": _checked("rotation", pose.rotation, (3, 3)),
            "translation": _checked("translation", pose.translation, (3,)),
            "scale": _checked("scale", pose.scale, ())[()],
        },
        "landmarks": _checked("landmarks", face.landmarks, (_LANDMARKS, 3)),
        "params": _checked("params", face.params, (None,)),
        "shape_coeffs": _checked("shape_coeffs", face.shape_coeffs, (None,)),
        "expression_coeffs": _checked("expression_coeffs", face.expression_coeffs, (None,)),
    }
    if face.confidence is not None:
        fields["confidence"] = _checked("confidence", np.asarray(face.confidence), ())[()]
    if landmark_sets:
        fields["landmark_sets"] = {
            name: _checked(name, face.landmarks_in(name), (None, 3)) for name in landmark_sets
        }
    if blendshapes:
        weights = face.blendshapes
        values = _checked("blendshapes", np.array([*weights.values()], np.float32), (None,))
        fields["blendshapes"] = dict(zip(weights, values, strict=True))
    if vertices:
        fields["vertices"] = _checked("vertices", face.vertices, (None, 3))
    return fields


def _plain(values: Any) -> Any:
    """Python's floats and lists for NumPy's."""
    if not isinstance(values, dict):
        return _digits(values)
    if all(isinstance(value, np.float32) for value in values.values()):  # all at once: faster
        return dict(zip(values, _digits(np.array([*values.values()], np.float32)), strict=True))
    return {name: _plain(value) for name, value in values.items()}


def _face_from_dict(fields: Mapping[str, Any], model: MorphableModel) -> Face:
    array = partial(_field, fields)
    return Face(
        bbox=array("bbox", np.float32, (4,)),
        score=float(array("score", np.float32, ())),
        roi=array("roi", np.float64, (4,)),
        params=array("params", np.float32, (model.param_count,)),
        landmarks=array("landmarks", np.float32, (_LANDMARKS, 3)),
        model=model,
        confidence=float(array("confidence", np.float64, ())) if "confidence" in fields else None,
    )


def _field(
    fields: Mapping[str, Any], name: str, dtype: type[np.floating[Any]], shape: tuple[int, ...]
) -> NDArray[Any]:
    """Finite numbers of a face's entry."""
    if name not in fields:
        raise ValueError(f"expected a face with {name}, got {', '.join(fields)}")
    try:
        with np.errstate(over="ignore"):  # found below
            values = np.asarray(fields[name], dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers: {error}") from error
    if values.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: expected finite numbers that fit {np.dtype(dtype)}")
    return values


def _numbers(name: str, values: Any, shape: tuple[int | None, ...]) -> Any:
    """Checked values as `_digits`."""
    return _digits(_checked(name, values, shape))


def _digits(values: NDArray[Any] | np.floating[Any]) -> Any:
    """Values as (nested lists of) Python floats with the shortest digits of their dtype: for
    float32 0.1 rather than 0.10000000149011612."""
    if isinstance(values, np.ndarray) and values.dtype == np.float32 and values.size >= _MANY:
        return _shortest(values).tolist()
    return values.astype(str).astype(np.float64).tolist()


def _shortest(array: NDArray[np.float32]) -> NDArray[np.float64]:
    """For each number the decimal with the fewest digits that gives it back, as a float64: what
    NumPy's text of a float32 says, in a tenth of the time."""
    exact = array.astype(np.float64)
    result = exact.copy()
    with np.errstate(divide="ignore", over="ignore"):
        places = np.where(array == 0, 0, np.floor(np.log10(np.abs(exact))))
        for digits in range(9, 5, -1):  # 9 always give a float32 back, 6 cover what has fewer
            decimals = digits - 1 - places
            # Whole numbers times or by an exact power of ten are rounded once, as text is.
            up, down = 10.0 ** np.maximum(decimals, 0), 10.0 ** np.maximum(-decimals, 0)
            rounded = np.rint(exact * up / down) / up * down
            result = np.where(rounded.astype(np.float32) == array, rounded, result)
    inexact = (places < 8 - _EXACT_POWER) | (places > 5 + _EXACT_POWER)
    if inexact.any():
        result[inexact] = array[inexact].astype(str).astype(np.float64)
    return result


def _stack(
    name: str,
    values: Sequence[Any],
    shape: tuple[int | None, ...],
    dtype: type[np.floating[Any]] = np.float32,
) -> NDArray[Any]:
    arrays = [_checked(name, value, shape) for value in values]
    if not arrays:
        return np.empty((0, *(size or 0 for size in shape)), dtype)
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise ValueError(f"expected faces of one model, got {name} of shapes {shapes}")
    return np.stack(arrays)


def _checked(name: str, values: Any, shape: tuple[int | None, ...]) -> NDArray[Any]:
    array = values if isinstance(values, np.ndarray) else np.asarray(values, np.float32)
    if len(shape) != array.ndim or any(
        expected not in (None, actual) for expected, actual in zip(shape, array.shape, strict=True)
    ):
        wanted = str(shape).replace("None", "N")
        raise ValueError(f"expected a face's {name} of shape {wanted}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"expected a face's {name} to be finite, got {array.tolist()}")
    return array


def _write_text(path: str | os.PathLike[str], text: str) -> None:
    # A file name may hold bytes that are no UTF-8; they are written as \udcXX, an escape in JSON.
    with atomic_write(path) as stream:
        stream.write(text.encode("utf-8", "backslashreplace"))
