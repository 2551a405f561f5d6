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
from .pictures import JSON, Upload
from .service import Named, Scene

PictureFormat: TypeAlias = Literal["png", "jpeg", "webp"]
MeshFormat: TypeAlias = Literal["glb", "ply", "obj"]

ZIP: Final = "application/zip"
NPZ: Final = "application/vnd.threedfa.npz"
BINARY: Final = "application/octet-stream"
MESHES: Final = {"glb": "model/gltf-binary", "ply": "application/vnd.ply", "obj": ZIP}


def picture_type(kind: PictureFormat) -> str:
    """The media type of a picture."""
    return f"image/{kind}"


def json_bytes(content: Any) -> bytes:
    """JSON; NumPy's arrays and numbers with the shortest digits that give them back."""
    options = orjson.OPT_SERIALIZE_NUMPY
    # What orjson does not know are arrays that are not in one piece.
    return orjson.dumps(content, default=np.ascontiguousarray, option=options)


def json_answer(content: Any) -> Response:
    """An answer of JSON."""
    return Response(json_bytes(content), media_type=JSON)


def json_list_answer(files: Sequence[Named]) -> Response:
    """A list of what each of the files says in JSON."""
    body = b"[" + b",".join(content for _, content in files) + b"]"
    return Response(body, media_type=JSON)


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
                    {"bbox": box, "score": score} | ({"quarter_turns": turns} if turns else {})
                    for box, score, turns in zip(
                        boxes.xyxy, boxes.confidence, boxes.quarter_turns.tolist(), strict=True
                    )
                ],
            }
            for upload, image, boxes in found
        ]
    )


def faces_json(
    number: int, scene: Scene, landmark_sets: Sequence[str], vertices: bool, refused: bool
) -> Named:
    """The document of ``threedfa image --json`` for one picture."""
    document = faces_to_dict(
        scene.image.shape[:2],
        scene.faces,
        name=scene.name,
        landmark_sets=landmark_sets,
        blendshapes=all(Blendshapes.known_to(face.model.expression_names) for face in scene.faces),
        vertices=vertices,
        refused=scene.refused if refused else None,
        arrays=True,
    )
    return f"{number}.json", json_bytes(document)


def faces_npz(number: int, scene: Scene, landmark_sets: Sequence[str]) -> Named:
    """What ``threedfa image --npz`` writes for one picture."""
    return f"{number}.npz", encode_npz(scene.faces, landmark_sets=landmark_sets)


def faces_binary(number: int, scene: Scene) -> Named:
    """Dense vertices of a picture's faces, float32 (N, V, 3), little-endian."""
    content = (np.ascontiguousarray(face.vertices, "<f4").tobytes() for face in scene.faces)
    return f"{number}.bin", b"".join(content)


def binary_answer(files: Sequence[Named], vertices: int) -> Response:
    """Such vertices of all pictures, one after the other; of each face there are so many."""
    counts = [len(content) // (12 * vertices) for _, content in files]
    return Response(
        b"".join(content for _, content in files),
        media_type=BINARY,
        headers={
            "X-Threedfa-Shape": f"{sum(counts)},{vertices},3",
            "X-Threedfa-Faces": ",".join(map(str, counts)),
        },
    )


def encode_picture(name: str, pixels: Any, kind: PictureFormat) -> Named:
    """A picture file."""
    return f"{name}.{kind}", encode_image(pixels, f".{kind}")
