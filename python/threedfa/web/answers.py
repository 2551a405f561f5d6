"""Bodies of answers: JSON, NPZ, pictures, zip archives. CPU work, for threads."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import orjson
from starlette.responses import Response

from ..blendshapes import Blendshapes
from ..detections import Detections
from ..image import encode_image
from ..tables import SCHEMA_VERSION, encode_npz, faces_to_dict
from .batching import Image
from .pictures import Upload
from .service import Scene

PictureFormat: TypeAlias = Literal["png", "jpeg", "webp"]
MeshFormat: TypeAlias = Literal["glb", "ply", "obj"]

ZIP: Final = "application/zip"
NPZ: Final = "application/vnd.threedfa.npz"
BINARY: Final = "application/octet-stream"
MESHES: Final = {"glb": "model/gltf-binary", "ply": "application/vnd.ply", "obj": ZIP}

Named: TypeAlias = tuple[str, bytes]
"""A file: its name, which no client has chosen, and its contents."""


def picture_type(kind: PictureFormat) -> str:
    """The media type of a picture."""
    return f"image/{kind}"


def json_answer(content: Any) -> Response:
    """JSON; NumPy's arrays and numbers with the shortest digits that give them back."""
    options = orjson.OPT_SERIALIZE_NUMPY
    # What orjson does not know are arrays that are not in one piece.
    body = orjson.dumps(content, default=np.ascontiguousarray, option=options)
    return Response(body, media_type="application/json")


def zipped(files: Sequence[Named]) -> bytes:
    """A zip archive. Pictures and meshes are packed already or asked for in a hurry: stored."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return stream.getvalue()


def file_answer(files: Sequence[Named], kind: str, name: str) -> Response:
    """A single file as it is, several as a zip archive; ``name`` is for those who save it."""
    if len(files) == 1:
        content, suffix = files[0][1], files[0][0].rpartition(".")[2]
    else:
        content, suffix, kind = zipped(files), "zip", ZIP
    disposition = f'attachment; filename="{name}.{suffix}"'
    return Response(content, media_type=kind, headers={"Content-Disposition": disposition})


def zip_answer(files: Sequence[Named], name: str) -> Response:
    """A zip archive, however many files there are."""
    return file_answer([(f"{name}.zip", zipped(files))], ZIP, name)


def boxes_json(found: Sequence[tuple[Upload, Image, Detections]]) -> Response:
    """Like `faces_json`, with boxes and scores alone."""
    return json_answer(
        [
            {
                "schema_version": SCHEMA_VERSION,
                "image": {"name": upload.name, "height": len(image), "width": len(image[0])},
                "faces": [
                    {"bbox": box, "score": score}
                    for box, score in zip(boxes.xyxy, boxes.confidence, strict=True)
                ],
            }
            for upload, image, boxes in found
        ]
    )


def faces_json(scenes: Sequence[Scene], landmark_sets: Sequence[str], vertices: bool) -> Response:
    """The document of ``threedfa image --json``."""
    return json_answer(
        [
            faces_to_dict(
                scene.image.shape[:2],
                scene.faces,
                name=scene.name,
                landmark_sets=landmark_sets,
                blendshapes=all(
                    Blendshapes.known_to(face.model.expression_names) for face in scene.faces
                ),
                vertices=vertices,
                arrays=True,
            )
            for scene in scenes
        ]
    )


def faces_npz(scenes: Sequence[Scene], landmark_sets: Sequence[str]) -> Response:
    """What ``threedfa image --npz`` writes for each picture."""
    files = [
        (f"{number}.npz", encode_npz(scene.faces, landmark_sets=landmark_sets))
        for number, scene in enumerate(scenes)
    ]
    return file_answer(files, NPZ, "faces")


def faces_binary(scenes: Sequence[Scene]) -> Response:
    """Dense vertices of all faces, float32 (N, V, 3), little-endian."""
    faces = [face for scene in scenes for face in scene.faces]
    count = len(faces[0].vertices) if faces else 0
    return Response(
        b"".join(np.ascontiguousarray(face.vertices, "<f4").tobytes() for face in faces),
        media_type=BINARY,
        headers={
            "X-Threedfa-Shape": f"{len(faces)},{count},3",
            "X-Threedfa-Faces": ",".join(str(len(scene.faces)) for scene in scenes),
        },
    )


def encode_picture(name: str, pixels: Any, kind: PictureFormat) -> Named:
    """A picture file."""
    return f"{name}.{kind}", encode_image(pixels, f".{kind}")
